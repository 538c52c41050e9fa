"""Tables and verdicts, from fixed measurements."""

import pytest

from benchmarks import report
from benchmarks.interleaving import Results, Spread, difference
from benchmarks.scenarios import Metric, Scenario
from benchmarks.targets import Target

SCENARIO = Scenario(
    name="call",
    title="Some calls",
    workload="calls",
    metrics=(Metric("cpu", "µs per call"), Metric("lost", "lost", 0)),
    clients=("aiohttp", "neuralbox", "broken"),
)


@pytest.fixture
def results():
    results = Results(SCENARIO)
    for aiohttp, neuralbox in [(100.0, 90.0), (200.0, 160.0), (100.0, 120.0)]:
        measurements = {"cpu": aiohttp, "lost": 0, "rate": 1e6 / aiohttp}
        results.add("aiohttp", {"measurements": measurements, "versions": {"aiohttp": "3.14"}})
        results.add("neuralbox", {"measurements": {"cpu": neuralbox, "lost": 2}, "versions": {"orjson": "3.13"}})
        results.add("broken", {"failure": "ValueError: a | b"})
    return results


def target(bound, **options):
    return Target("call", "neuralbox", options.pop("metric", "cpu"), bound, **options)


def test_ratios_are_taken_within_an_iteration(results):
    """A ratio compares two clients in the same iteration; the median is that of the ratios."""
    assert Spread(0.9, 0.8, 1.2) == results.compared("neuralbox", "aiohttp", "cpu")
    assert Spread(-10.0, -40.0, 20.0) == results.compared("neuralbox", "aiohttp", "cpu", difference)
    assert Spread(120.0, 90.0, 160.0) == results.spread("neuralbox", "cpu")


def test_a_failed_iteration_has_no_ratio(results):
    """Failures are left out of the comparisons."""
    assert results.compared("neuralbox", "broken", "cpu") is None
    assert results.spread("broken", "cpu") is None


def test_scenario_table(results):
    """The table has the spread of the first metric and of its ratio, the medians of the others, and the failures."""
    assert report.scenario_table(results).splitlines() == [
        "### Some calls (`call`)",
        "",
        "| client | µs per call: median | min | max | ratio to aiohttp: median | min | max | lost |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| aiohttp | 100.0 | 100.0 | 200.0 | 1.00 | 1.00 | 1.00 | 0 |",
        "| neuralbox | 120.0 | 90.0 | 160.0 | 0.90 | 0.80 | 1.20 | 2 |",
        "| broken | failed: ValueError: a \\| b |  |  |  |  |  |  |",
    ]


@pytest.mark.parametrize(
    "checked, verdict",
    [
        (target(0.9, baseline="aiohttp"), "met"),
        (target(0.87, baseline="aiohttp"), "within tolerance"),
        (target(0.8, baseline="aiohttp"), "MISSED"),
        (target(0.8, baseline="aiohttp", tolerance=0.2), "within tolerance"),
        (target(120.0), "met"),
        (target(100.0), "MISSED"),
        (target(0, metric="lost"), "MISSED"),
        (target(-10.0, baseline="aiohttp", relation="-"), "met"),
        (target(-11.0, baseline="aiohttp", relation="-"), "MISSED"),
        (target(120.0, direction="min"), "met"),
        (target(125.0, direction="min"), "within tolerance"),
        (target(130.0, direction="min"), "MISSED"),
        (target(9.0, baseline="broken"), "MISSED"),
        (Target("call", "broken", "cpu", 9.0), "MISSED"),
    ],
)
def test_verdict(results, checked, verdict):
    """The verdict compares the median to the bound, with a tolerance; a failed measurement misses the target."""
    run = {"call": results}
    assert verdict == report.verdict(checked, report.measured(checked, run))
    assert (verdict == "MISSED") == bool(report.missed([checked], run))
    assert verdict in report.targets_table([checked], run)


def test_a_missed_target_is_named(results):
    """The line about a missed target has its figure, its bound and the measured median."""
    lines = report.missed([target(0.5, baseline="aiohttp")], {"call": results})
    assert ["call: cpu of neuralbox / aiohttp: ≤ 0.5, measured 0.9"] == lines


def test_targets_of_other_scenarios_and_clients_do_not_apply(results):
    """A run of some scenarios or clients is checked only against the targets about them."""
    others = [Target("memory", "neuralbox", "memory", 1), Target("call", "neuralbox-plain", "cpu", 1)]
    assert [] == report.missed(others, {"call": results})
    assert [] == report.applicable(others, {"call": results})


def test_the_environment_names_the_versions(results):
    """The head of the results has the date, the machine and every version."""
    text = report.environment([results], 3, (0, 1))
    assert "* versions: aiohttp 3.14, orjson 3.13" in text
    assert "client pinned to core 0, server to core 1" in text
    assert "* rounds: 3" in text


def test_the_server_capacity_is_beside_the_fastest_client(results):
    """The line has the highest rate of any client; without a stream scenario in the run it has none for events."""
    line = report.server_capacity_line(90_000, 5_000_000, {"call": results})
    assert "90,000 calls per second (fastest client: 10,000), 5,000,000 events of a stream per second." in line
