"""Each scenario runs, with our clients and with bare aiohttp, and gives the numbers that its tables show."""

import dataclasses
import json
import subprocess
import sys

import pytest

from benchmarks import processes, rounds, worker
from benchmarks.clients.registry import CLIENTS, python_of
from benchmarks.limits import LIMITS
from benchmarks.scenarios import SCENARIOS
from benchmarks.told import WorkerProcess

# Live streams take their time, so only a few events.
SCALES = {
    "live": 0.02,
    "batch-million": 0.0002,
    "live-100": 0.02,
    "live-100-step": 0.02,
    "call-1000": 0.01,
    "big-event": 0.02,
}
OURS = {
    "aiohttp",
    "neuralbox",
    "neuralbox-events",
    "neuralbox-sync",
    "neuralbox-sync-events",
    "socket",
    "http.client",
    "protocol",
}
OURS |= {"neuralbox-batch", "neuralbox-batch-journal", "neuralbox-semaphore"}
RUNS = [
    (name, client)
    for name, scenario in SCENARIOS.items()
    for client in scenario.clients
    if scenario.load != "startup" and client in OURS
]


@pytest.mark.parametrize("name, client", RUNS)
def test_scenario_gives_its_numbers(port, name, client):
    """Each tiny turn of a scenario gives each number that its table has a column for, and loses nothing."""
    scenario = SCENARIOS[name]
    if name == "call-1000":
        scenario = dataclasses.replace(scenario, program="call.10")  # its own answers take their time
    told = []
    worker.measure(scenario, CLIENTS[client], port, tell=told.append, turns=range(2), scale=SCALES.get(name, 0.01))
    assert 2 == len(told)
    for numbers in told:
        assert {metric.key for metric in scenario.metrics} <= numbers.keys()
        assert numbers[scenario.metrics[0].key] > 0 or name == "memory"  # of so few calls it may be none
        assert 0 == numbers.get("lost", 0)


def test_startup_gives_its_numbers():
    """An import in a fresh interpreter gives each number that the table has a column for."""
    scenario = SCENARIOS["import"]
    results = rounds.measure(
        scenario, [CLIENTS["neuralbox-plain"]], rounds=1, scale=1, port=0, core=None, say=lambda _line: None
    )
    assert {} == results.failures
    (numbers,) = results.numbers["neuralbox-plain"]
    assert {metric.key for metric in scenario.metrics} == numbers.keys()
    assert all(number > 0 for number in numbers.values())


def test_a_hidden_package_is_not_used(port):
    """The client without the extra does not use orjson, though it is installed."""
    code = (
        "import runpy, sys; sys.argv[1:] = ['call', 'neuralbox-plain', sys.argv[1], '--scale', '0.001'];"
        "runpy.run_module('benchmarks.worker', run_name='__main__');"
        "from neuralbox_async import _codec; assert _codec.orjson is None"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(port)], cwd=processes.ROOT, capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    versions, numbers = map(json.loads, done.stdout.splitlines())
    assert "orjson" not in versions["versions"]
    assert 0 == numbers["numbers"]["lost"]


def test_the_command_measures_interleaved_and_writes_markdown():
    """The command measures what it is told to, each client once a round, each time another one first."""
    arguments = ["--only", "call", "--clients", "aiohttp", "neuralbox", "--quick"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=processes.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, 2) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert "### Calls one after the other" in done.stdout
    assert "| neuralbox | " in done.stdout


def test_rounds_begin_with_another_client_each_time():
    """No client is always the first, so that none always finds the machine as the one before left it."""
    said = []
    clients = [CLIENTS["python"], CLIENTS["http.client"]]
    rounds.measure(SCENARIOS["import"], clients, rounds=2, scale=1, port=0, core=None, say=said.append)
    assert ["python", "http.client", "http.client", "python"] == [line.rpartition(" ")[2] for line in said]


def test_a_client_that_fails_is_told_of():
    """A client that cannot be measured is in the results with the reason."""
    clients = [CLIENTS["aiohttp"]]
    nobody = 1  # no server listens there
    results = rounds.measure(
        SCENARIOS["call"], clients, rounds=1, scale=0.01, port=nobody, core=None, say=lambda _line: None
    )
    assert "refused" in results.failures["aiohttp"]
    assert {None} == set(results.numbers["aiohttp"])


def test_a_client_that_takes_too_long_is_ended(port):
    """What is not done in its time is told of, and each turn after it is."""
    scenario = dataclasses.replace(SCENARIOS["call"], longest=0.01)
    with WorkerProcess(scenario, CLIENTS["aiohttp"], scale=1, port=port, core=None) as process:
        assert {"not done after 0.01 s"} == {process.turn()["failure"] for _ in range(2)}


def test_clients_take_turns(port):
    """In a round all clients have their processes at the same time, and each turn begins with another one."""
    scenario = dataclasses.replace(SCENARIOS["call"], turns=3)
    clients = [CLIENTS["aiohttp"], CLIENTS["neuralbox"]]
    results = rounds.measure(scenario, clients, rounds=2, scale=0.01, port=port, core=None, say=lambda _line: None)
    assert {"aiohttp": 6, "neuralbox": 6} == {name: len(numbers) for name, numbers in results.numbers.items()}
    assert {} == results.failures
    assert "orjson" in results.versions


def test_peers_have_environments_of_their_own(tmp_path):
    """What is not ours is looked for in an environment that is named after it."""
    assert tmp_path / ".venv-peer-openai" / "bin" / "python" == python_of(CLIENTS["openai-sync"], tmp_path)
    assert python_of(CLIENTS["neuralbox"], tmp_path) is None


def test_scenarios_and_limits_name_what_is_there():
    """Every client of a scenario, and every scenario, client and metric of a limit, exists."""
    for scenario in SCENARIOS.values():
        assert {*scenario.clients, *scenario.peers} <= CLIENTS.keys()
        assert scenario.to in scenario.clients
    for limit in LIMITS:
        scenario = SCENARIOS[limit.scenario]
        assert limit.client in scenario.clients
        assert limit.to is None or limit.to in scenario.clients
        assert limit.metric in {metric.key for metric in scenario.metrics}
