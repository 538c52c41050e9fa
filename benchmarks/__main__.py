"""
Measure neuralbox against bare aiohttp and others: `python -m benchmarks`, or `make bench`. See README.md beside this.

Prints Markdown; what is going on goes to standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import headroom, processes, report, rounds
from benchmarks.clients.registry import CLIENTS
from benchmarks.limits import LIMITS
from benchmarks.rounds import Results
from benchmarks.scenarios import SCENARIOS

_FOLDER = Path(__file__).parent
_RESULTS, _RESULTS_OF_PEERS = _FOLDER / "RESULTS.md", _FOLDER / "RESULTS-PEERS.md"
_QUICK = 0.2
_PREFACE = """\
# Results

CPU is that of the client's process, all its threads included; ratios are taken within a turn, to the client that did
the same in it; those on uvloop are to aiohttp on uvloop. What each client is, and how this is repeated: README.md.
"""


def arguments() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure neuralbox against others.")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help="measure only these")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, metavar="CLIENT", help="measure only these clients")
    parser.add_argument(
        "--rounds", type=int, default=4, help="how many processes of each client do each scenario; default 4"
    )
    parser.add_argument("--quick", action="store_true", help="one round of a fifth of the work: a look, no result")
    parser.add_argument("--peers", action="store_true", help="measure the peers too, in environments of their own")
    parser.add_argument("--check", action="store_true", help="end with status 1 if a figure to reach is missed")
    parser.add_argument(
        "--write", action="store_true", help="write the tables to RESULTS.md (with --peers: RESULTS-PEERS.md) too"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and their clients, and end")
    return parser.parse_args()


def main() -> int:
    """Do what the command line says and return the exit status."""
    said = arguments()
    if said.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name}: {scenario.title}\n    {' '.join((*scenario.clients, *scenario.peers))}")
        return 0
    scale = 1.0
    if said.quick:
        said.rounds, scale = 1, _QUICK
    cores = processes.cores()
    with processes.server(cores[1]) as port:
        calls, events = headroom.calls_per_second(port, scale), headroom.events_per_second(port, scale)
        results = _measure_all(said, scale, port, cores[0])
    text = "\n\n".join(
        [
            report.circumstances(results.values(), said.rounds, cores),
            report.headroom_line(calls, events, results),
            report.limits_table(LIMITS, results),
            *map(report.scenario_table, results.values()),
        ]
    )
    print(text)
    if said.write:
        (_RESULTS_OF_PEERS if said.peers else _RESULTS).write_text(f"{_PREFACE}\n{text}\n", encoding="utf-8")
    return _check(results) if said.check else 0


def _measure_all(said: argparse.Namespace, scale: float, port: int, core: int | None) -> dict[str, Results]:
    results: dict[str, Results] = {}
    for name in said.only or [name for name, scenario in SCENARIOS.items() if not scenario.by_name]:
        clients = rounds.clients_of(SCENARIOS[name], peers=said.peers, only=said.clients or ())
        if clients:
            results[name] = rounds.measure(
                SCENARIOS[name],
                clients,
                rounds=said.rounds,
                scale=scale,
                port=port,
                core=core,
                say=lambda line: print(line, file=sys.stderr, flush=True),
            )
    return results


def _check(results: Mapping[str, Results]) -> int:
    lines = report.missed(LIMITS, results)
    for line in lines:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
