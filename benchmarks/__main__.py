"""
Measure neuralbox beside bare aiohttp and other SDKs: `python -m benchmarks`, or `make bench`. See README.md.

Prints the results as Markdown to standard output, and the progress to standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import interleaving, processes, report, server_capacity
from benchmarks.clients.adapter import Address
from benchmarks.clients.registry import CLIENTS
from benchmarks.interleaving import Results
from benchmarks.scenarios import SCENARIOS
from benchmarks.targets import TARGETS

_DIRECTORY = Path(__file__).parent
_RESULTS, _RESULTS_WITH_OTHER_SDKS = _DIRECTORY / "RESULTS.md", _DIRECTORY / "RESULTS-OTHER-SDKS.md"
_QUICK_SCALE = 0.2
_PREFACE = """\
# Results

CPU is the CPU time of the client's process, all threads included. Ratios are taken within an iteration, to the client
that the column names; those of clients on uvloop refer to aiohttp on uvloop. README.md describes the clients and the
method.
"""


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure neuralbox and other clients.")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="SCENARIO", help="measure only these scenarios")
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, metavar="CLIENT", help="measure only these clients")
    parser.add_argument("--rounds", type=int, default=4, help="processes per client and scenario; default 4")
    parser.add_argument("--quick", action="store_true", help="one round of a fifth of the work, as a smoke test")
    parser.add_argument(
        "--other-sdks", action="store_true", help="measure other SDKs too, each in a virtual environment of its own"
    )
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a target is missed")
    parser.add_argument(
        "--write", action="store_true", help="also write RESULTS.md (with --other-sdks: RESULTS-OTHER-SDKS.md)"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios and their clients, then exit")
    return parser.parse_args()


def main() -> int:
    """Run the command and return the exit status."""
    args = parse_arguments()
    if args.list:
        for scenario in SCENARIOS.values():
            print(f"{scenario.name}: {scenario.title}\n    {' '.join((*scenario.clients, *scenario.other_sdks))}")
        return 0
    scale = 1.0
    if args.quick:
        args.rounds, scale = 1, _QUICK_SCALE
    client_core, server_core = processes.choose_cores()
    with processes.server(server_core) as port:
        calls = server_capacity.calls_per_second(Address(port), scale)
        events = server_capacity.events_per_second(Address(port), scale)
        results = _measure_all(args, scale, port, client_core)
    text = "\n\n".join(
        [
            report.environment(results.values(), args.rounds, (client_core, server_core)),
            report.server_capacity_line(calls, events, results),
            report.targets_table(TARGETS, results),
            *map(report.scenario_table, results.values()),
        ]
    )
    print(text)
    if args.write:
        path = _RESULTS_WITH_OTHER_SDKS if args.other_sdks else _RESULTS
        path.write_text(f"{_PREFACE}\n{text}\n", encoding="utf-8")
    return _check(results) if args.check else 0


def _measure_all(args: argparse.Namespace, scale: float, port: int, core: int | None) -> dict[str, Results]:
    results: dict[str, Results] = {}
    for name in args.only or [name for name, scenario in SCENARIOS.items() if not scenario.opt_in]:
        clients = interleaving.select_clients(SCENARIOS[name], other_sdks=args.other_sdks, only=args.clients or ())
        if clients:
            results[name] = interleaving.measure(
                SCENARIOS[name],
                clients,
                rounds=args.rounds,
                scale=scale,
                port=port,
                core=core,
                log=lambda line: print(line, file=sys.stderr, flush=True),
            )
    return results


def _check(results: Mapping[str, Results]) -> int:
    lines = report.missed(TARGETS, results)
    for line in lines:
        print(f"missed: {line}", file=sys.stderr)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
