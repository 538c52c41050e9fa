"""Tables and verdicts, from numbers that are given."""

import pytest

from benchmarks import report
from benchmarks.limits import Limit
from benchmarks.rounds import Results, Spread, difference
from benchmarks.scenarios import Metric, Scenario

SCENARIO = Scenario(
    name="call",
    title="Some calls",
    load="calls",
    metrics=(Metric("cpu", "µs a call"), Metric("lost", "lost", 0)),
    clients=("aiohttp", "neuralbox", "broken"),
)


@pytest.fixture
def results():
    found = Results(SCENARIO)
    for bare, ours in [(100.0, 90.0), (200.0, 160.0), (100.0, 120.0)]:
        found.take("aiohttp", {"numbers": {"cpu": bare, "lost": 0}, "versions": {"aiohttp": "3.14"}})
        found.take("neuralbox", {"numbers": {"cpu": ours, "lost": 2}, "versions": {"orjson": "3.13"}})
        found.take("broken", {"failure": "ValueError: a | b"})
    return found


def limit(most, **options):
    return Limit("call", "neuralbox", options.pop("metric", "cpu"), most, **options)


def test_ratios_are_taken_within_the_round(results):
    """A ratio compares what was measured in the same round; the median is that of the ratios."""
    assert Spread(0.9, 0.8, 1.2) == results.compared("neuralbox", "aiohttp", "cpu")
    assert Spread(-10.0, -40.0, 20.0) == results.compared("neuralbox", "aiohttp", "cpu", difference)
    assert Spread(120.0, 90.0, 160.0) == results.spread("neuralbox", "cpu")


def test_only_some_turns_count(results):
    """A limit may be about the turns in which the other client had at least so much; there may be none."""
    assert Spread(0.8, 0.8, 0.8) == results.compared("neuralbox", "aiohttp", "cpu", where=150.0)
    for where, most, verdict in [(150.0, 0.8, "ok"), (150.0, 0.7, "MISSED"), (300.0, 0.7, "there was no such turn")]:
        given = limit(most, to="aiohttp", where=where)
        assert verdict == report.verdict(given, report.reached(given, {"call": results}))
        assert (verdict == "MISSED") == bool(report.missed([given], {"call": results}))
        assert f"where that is at least {where:g}" in given.name


def test_a_round_in_which_one_failed_has_no_ratio(results):
    """What failed is left out of the comparisons."""
    assert results.compared("neuralbox", "broken", "cpu") is None
    assert results.spread("broken", "cpu") is None


def test_scenario_table(results):
    """The table has median, least and most of the first metric and its ratio, the others' medians, and what failed."""
    assert report.scenario_table(results).splitlines() == [
        "### Some calls",
        "",
        "| client | µs a call: median | min | max | to aiohttp: median | min | max | lost |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| aiohttp | 100.0 | 100.0 | 200.0 | 1.00 | 1.00 | 1.00 | 0 |",
        "| neuralbox | 120.0 | 90.0 | 160.0 | 0.90 | 0.80 | 1.20 | 2 |",
        "| broken | failed: ValueError: a \\| b |  |  |  |  |  |  |",
    ]


@pytest.mark.parametrize(
    "given, verdict",
    [
        (limit(0.9, to="aiohttp"), "ok"),
        (limit(0.87, to="aiohttp"), "within the slack"),
        (limit(0.8, to="aiohttp"), "MISSED"),
        (limit(0.8, to="aiohttp", slack=0.2), "within the slack"),
        (limit(120.0), "ok"),
        (limit(100.0), "MISSED"),
        (limit(0, metric="lost"), "MISSED"),
        (limit(-10.0, to="aiohttp", relation="-"), "ok"),
        (limit(-11.0, to="aiohttp", relation="-"), "MISSED"),
        (limit(120.0, bound="least"), "ok"),
        (limit(125.0, bound="least"), "within the slack"),
        (limit(130.0, bound="least"), "MISSED"),
        (limit(9.0, to="broken"), "MISSED"),
        (Limit("call", "broken", "cpu", 9.0), "MISSED"),
    ],
)
def test_verdict(results, given, verdict):
    """The median is held against the limit, with a little slack; what could not be measured is missed."""
    found = {"call": results}
    assert verdict == report.verdict(given, report.reached(given, found))
    assert (verdict == "MISSED") == bool(report.missed([given], found))
    assert verdict in report.limits_table([given], found)


def test_what_is_missed_is_named(results):
    """The line about a missed limit says what it is, what was to be reached and what was."""
    lines = report.missed([limit(0.5, to="aiohttp")], {"call": results})
    assert ["call: cpu of neuralbox / aiohttp: at most 0.5, reached 0.9"] == lines


def test_limits_of_what_was_not_measured_are_left_out(results):
    """A run of some scenarios or clients is held only against the limits that are about them."""
    others = [Limit("memory", "neuralbox", "memory", 1), Limit("call", "neuralbox-plain", "cpu", 1)]
    assert [] == report.missed(others, {"call": results})
    assert [] == report.concerned(others, {"call": results})


def test_circumstances_name_the_versions(results):
    """The head of the results has the date, the machine and every version."""
    text = report.circumstances([results], 3, (0, 1))
    assert "* versions: aiohttp 3.14, orjson 3.13" in text
    assert "client pinned to core 0, server to core 1" in text
    assert "* rounds: 3" in text
