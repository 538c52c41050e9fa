"""The results as Markdown: a table for each scenario, and one of the figures to reach."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.limits import Limit
from benchmarks.rounds import Results, Spread, difference, ratio

_RELATIONS: dict[str, Callable[[float, float], float]] = {"/": ratio, "-": difference}
_OK, _NEAR, _MISSED, _NOT_MET = "ok", "within the slack", "MISSED", "there was no such turn"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def scenario_table(results: Results) -> str:
    """Return the results of one scenario: all about its first metric and the ratios of it, medians of the others."""
    first, *others = results.scenario.metrics
    head = ["client", f"{first.title}: median", "min", "max", f"to {results.scenario.to}: median", "min", "max"]
    rows: list[list[str]] = []
    for client in results.numbers:
        if client in results.failures:
            rows.append([client, f"failed: {_cell(results.failures[client])}", *[""] * (len(head) + len(others) - 2)])
            continue
        compared = results.compared(client, results.scenario.reference(client), first.key)
        medians = [
            "" if (spread := results.spread(client, metric.key)) is None else f"{spread.median:,.{metric.digits}f}"
            for metric in others
        ]
        rows.append([client, *_three(results.spread(client, first.key), first.digits), *_three(compared, 2), *medians])
    return f"### {results.scenario.title}\n\n{table(head + [metric.title for metric in others], rows)}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")[:120]


def _three(spread: Spread | None, digits: int) -> list[str]:
    if spread is None:
        return ["", "", ""]
    return [f"{value:,.{digits}f}" for value in (spread.median, spread.least, spread.most)]


def reached(limit: Limit, results: Mapping[str, Results]) -> Spread | None:
    """Return what was measured of what is limited; None when it was not measured, or failed."""
    found = results.get(limit.scenario)
    if found is None or limit.client in found.failures:
        return None
    if limit.to is None:
        return found.spread(limit.client, limit.metric)
    return found.compared(limit.client, limit.to, limit.metric, _RELATIONS[limit.relation], where=limit.where)


def verdict(limit: Limit, spread: Spread | None) -> str:
    """Return in words whether the median is within *limit*."""
    if spread is None:
        return _MISSED if limit.where is None else _NOT_MET
    if limit.allows(spread.median):
        return _OK
    return _NEAR if limit.allows_with_slack(spread.median) else _MISSED


def concerned(limits: Iterable[Limit], results: Mapping[str, Results]) -> list[Limit]:
    """Return those of *limits* whose clients took part in what was measured."""
    found: list[Limit] = []
    for limit in limits:
        clients = results[limit.scenario].numbers if limit.scenario in results else {}
        if limit.client in clients and (limit.to is None or limit.to in clients):
            found.append(limit)
    return found


def missed(limits: Iterable[Limit], results: Mapping[str, Results]) -> list[str]:
    """Return a line about each limit that was missed by more than its slack."""
    lines: list[str] = []
    for limit in concerned(limits, results):
        spread = reached(limit, results)
        if verdict(limit, spread) == _MISSED:
            median = "nothing" if spread is None else f"{spread.median:.3g}"
            lines.append(f"{limit.name}: at {limit.bound} {limit.most:g}, reached {median}")
    return lines


def limits_table(limits: Iterable[Limit], results: Mapping[str, Results]) -> str:
    """Return the figures to reach beside what was reached."""
    rows: list[list[str]] = []
    for limit in concerned(limits, results):
        spread = reached(limit, results)
        bound = f"{'≤' if limit.bound == 'most' else '≥'} {limit.most:g}"
        rows.append([limit.name, bound, *_three(spread, 2), verdict(limit, spread)])
    return f"### Figures to reach\n\n{table(['what', 'to reach', 'median', 'min', 'max', ''], rows)}"


def circumstances(results: Iterable[Results], rounds: int, pinned: tuple[int | None, int | None]) -> str:
    """Return when and where this was measured, with which versions."""
    versions: dict[str, str] = {}
    for each in results:
        versions |= each.versions
    client, server = pinned
    cores = "not pinned" if client is None else f"client pinned to core {client}, server to core {server}"
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{_processor()}, {os.cpu_count()} cores ({cores}); {platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(versions.items())),
        "rounds": str(rounds),
    }
    return "\n".join(f"* {name}: {fact}" for name, fact in facts.items())


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def headroom_line(calls: float, events: float, results: Mapping[str, Results]) -> str:
    """Return what the server can do, beside the most that a client took of it."""
    busiest = _fastest(results, ("call", "call-64", "call-1000", "sync-call", "sync-threads"))
    beside = f"; the fastest client above took {busiest:,.0f}" if busiest else ""
    stream = _fastest(results, ("stream", "stream-50", "sync-stream"))
    beside_stream = f"; the fastest client above took {stream:,.0f}" if stream else ""
    return (
        f"The server alone, to a raw socket that hardly looks: {calls:,.0f} calls a second{beside};"
        f" {events:,.0f} events of a stream a second{beside_stream}."
    )


def _fastest(results: Mapping[str, Results], scenarios: Iterable[str]) -> float:
    spreads = (
        results[name].spread(client, "rate")
        for name in scenarios
        if name in results
        for client in results[name].numbers
    )
    return max((spread.most for spread in spreads if spread), default=0.0)
