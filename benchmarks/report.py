"""The results as Markdown: one table per scenario, and one of the targets."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from benchmarks.interleaving import Results, Spread, difference, ratio
from benchmarks.targets import Target

_RELATIONS: dict[str, Callable[[float, float], float]] = {"/": ratio, "-": difference}
_MET, _TOLERATED, _MISSED = "met", "within tolerance", "MISSED"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table. The first column is text, the others are numbers."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def scenario_table(results: Results) -> str:
    """Return the results of one scenario: the spread of its first metric and of the ratio, medians of the others."""
    first, *others = results.scenario.metrics
    baseline = results.scenario.baseline
    head = [
        *("client", f"{first.title}: median", "min", "max"),
        *(f"ratio to {baseline}: median", "min", "max"),
        *(metric.title for metric in others),
    ]
    rows: list[list[str]] = []
    for client in results.measurements:
        if client in results.failures:
            rows.append([client, f"failed: {_escaped(results.failures[client])}", *[""] * (len(head) - 2)])
            continue
        compared = results.compared(client, results.scenario.baseline_of(client), first.key)
        medians = [
            "" if (spread := results.spread(client, metric.key)) is None else f"{spread.median:,.{metric.digits}f}"
            for metric in others
        ]
        rows.append([client, *_cells(results.spread(client, first.key), first.digits), *_cells(compared, 2), *medians])
    return f"### {results.scenario.title} (`{results.scenario.name}`)\n\n{table(head, rows)}"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")[:120]


def _cells(spread: Spread | None, digits: int) -> list[str]:
    if spread is None:
        return ["", "", ""]
    return [f"{value:,.{digits}f}" for value in (spread.median, spread.minimum, spread.maximum)]


def measured(target: Target, results: Mapping[str, Results]) -> Spread | None:
    """Return the measured figure that *target* is about; None if it was not measured, or its client failed."""
    scenario_results = results.get(target.scenario)
    if scenario_results is None or target.client in scenario_results.failures:
        return None
    if target.baseline is None:
        return scenario_results.spread(target.client, target.metric)
    relation = _RELATIONS[target.relation]
    return scenario_results.compared(target.client, target.baseline, target.metric, relation)


def verdict(target: Target, spread: Spread | None) -> str:
    """Return whether the median meets *target*, as a word for the table."""
    if spread is None:
        return _MISSED
    if target.is_met(spread.median):
        return _MET
    return _TOLERATED if target.is_met_with_tolerance(spread.median) else _MISSED


def applicable(targets: Iterable[Target], results: Mapping[str, Results]) -> list[Target]:
    """Return those of *targets* whose clients took part in the run."""
    selected: list[Target] = []
    for target in targets:
        clients = results[target.scenario].measurements if target.scenario in results else {}
        if target.client in clients and (target.baseline is None or target.baseline in clients):
            selected.append(target)
    return selected


def missed(targets: Iterable[Target], results: Mapping[str, Results]) -> list[str]:
    """Return a line for each applicable target that is missed by more than its tolerance."""
    lines: list[str] = []
    for target in applicable(targets, results):
        spread = measured(target, results)
        if verdict(target, spread) == _MISSED:
            median = "no measurement" if spread is None else f"{spread.median:.3g}"
            lines.append(f"{target.name}: {_bound(target)}, measured {median}")
    return lines


def targets_table(targets: Iterable[Target], results: Mapping[str, Results]) -> str:
    """Return the applicable targets beside the measured figures."""
    rows: list[list[str]] = []
    for target in applicable(targets, results):
        spread = measured(target, results)
        rows.append([target.name, _bound(target), *_cells(spread, 2), verdict(target, spread)])
    return f"### Targets\n\n{table(['figure', 'target', 'median', 'min', 'max', ''], rows)}"


def _bound(target: Target) -> str:
    return f"{'≤' if target.direction == 'max' else '≥'} {target.bound:g}"


def environment(results: Iterable[Results], rounds: int, cores: tuple[int | None, int | None]) -> str:
    """Return the date, the machine, the versions and the number of *rounds*; *cores*: those of client and server."""
    versions: dict[str, str] = {}
    for each in results:
        versions |= each.versions
    client, server = cores
    pinning = "not pinned" if client is None else f"client pinned to core {client}, server to core {server}"
    facts = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "machine": f"{_processor()}, {os.cpu_count()} cores ({pinning}); {platform.system()} {platform.release()}",
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


def server_capacity_line(calls: float, events: float, results: Mapping[str, Results]) -> str:
    """Return the server's capacity per second without TLS, beside the fastest client of the run."""
    scenarios = [each.scenario for each in results.values() if not each.scenario.tls]
    fastest_calls = _fastest(results, [each.name for each in scenarios if each.workload in {"calls", "threads"}])
    fastest_events = _fastest(results, [each.name for each in scenarios if each.workload == "streams"])
    return (
        f"Server capacity, measured with a raw socket that does not parse: {calls:,.0f} calls per second"
        f"{fastest_calls}, {events:,.0f} events of a stream per second{fastest_events}."
    )


def _fastest(results: Mapping[str, Results], scenarios: Iterable[str]) -> str:
    spreads = (results[name].spread(client, "rate") for name in scenarios for client in results[name].measurements)
    fastest = max((spread.maximum for spread in spreads if spread), default=0.0)
    return f" (fastest client: {fastest:,.0f})" if fastest else ""
