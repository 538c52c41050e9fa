"""Each scenario runs with neuralbox and the baselines, and measures the metrics of its table."""

import contextlib
import dataclasses
import importlib.util
import json
import os
import ssl
import subprocess
import sys

import pytest

from benchmarks import interleaving, processes, worker
from benchmarks.clients.adapter import Address
from benchmarks.clients.registry import CLIENTS, interpreter_of
from benchmarks.scenarios import SCENARIOS
from benchmarks.subprocess_worker import MeasuringProcess, WorkerProcess
from benchmarks.targets import TARGETS

# Live streams take as long as their events, so the tests request only a few.
SCALES = {
    "live": 0.02,
    "live-tls": 0.02,
    "batch-million": 0.0002,
    "live-100": 0.02,
    "live-100-burst": 0.02,
    "call-1000": 0.01,
    "big-event": 0.02,
}
TESTED = {
    "aiohttp",
    "neuralbox",
    "neuralbox-events",
    "neuralbox-batch",
    "neuralbox-batch-journal",
    "neuralbox-semaphore",
    "neuralbox-sync",
    "neuralbox-sync-events",
    "socket",
    "http.client",
    "protocol",
}
RUNS = [
    (name, client)
    for name, scenario in SCENARIOS.items()
    for client in scenario.clients
    if scenario.workload != "startup" and client in TESTED
]
TLS_CLIENTS = {client for scenario in SCENARIOS.values() if scenario.tls for client in scenario.clients}
# The tests do not need urllib3; the benchmarks do.
MISSING = set() if importlib.util.find_spec("urllib3") else {"urllib3"}


def run_module(*arguments):
    return subprocess.run([sys.executable, *arguments], cwd=processes.ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name, client", RUNS)
def test_a_scenario_measures_its_metrics(port, name, client):
    """Each tiny iteration of a scenario measures each metric of its table, and loses nothing."""
    scenario = SCENARIOS[name]
    if name == "call-1000":
        scenario = dataclasses.replace(scenario, model="call.10")  # its own delay is too long for a test
    recorded = []
    worker.measure(
        scenario, CLIENTS[client], port, record=recorded.append, iterations=range(2), scale=SCALES.get(name, 0.01)
    )
    assert 2 == len(recorded)
    for measurements in recorded:
        assert {metric.key for metric in scenario.metrics} <= measurements.keys()
        assert measurements[scenario.metrics[0].key] > 0 or name == "memory"  # so few calls may need no new memory
        assert 0 == measurements.get("lost", 0)
        if scenario.tls:  # handshakes are part of the warm-up
            assert 0 == measurements["connections"]


@pytest.mark.parametrize("name", sorted(TLS_CLIENTS - MISSING))
async def test_clients_verify_the_certificate(control, name):
    """Each client of a TLS scenario uses the `ssl_context` of the address, and so verifies the certificate."""
    client = CLIENTS[name]
    trusting = control.tls_address()
    distrusting = Address(trusting.port, ssl.create_default_context())

    async def call(address):
        adapter = client.adapter_class()(address, 16)
        if client.blocking:
            with contextlib.closing(adapter):
                return adapter.call("call")
        async with contextlib.aclosing(adapter):
            return await adapter.call("call")

    assert (await call(trusting)).startswith("gen_")
    with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
        await call(distrusting)


def test_startup_measures_its_metrics():
    """An import in a new interpreter measures each metric of the table."""
    scenario = SCENARIOS["import"]
    clients = [CLIENTS["aiohttp"], CLIENTS["neuralbox-plain"]]
    results = interleaving.measure(scenario, clients, rounds=1, scale=1, port=0, core=None, log=lambda _line: None)
    assert {} == results.failures
    for client in clients:
        (measurements,) = results.measurements[client.name]
        assert {metric.key for metric in scenario.metrics} == measurements.keys()
        assert all(number > 0 for number in measurements.values())


@pytest.mark.process
def test_a_hidden_package_is_not_used(port):
    """The client without the extra cannot import orjson, though it is installed."""
    code = (
        "import runpy, sys; sys.argv[1:] = ['call', 'neuralbox-plain', sys.argv[1], '--scale', '0.001'];"
        "runpy.run_module('benchmarks.worker', run_name='__main__');"
        "assert sys.modules['orjson'] is None"
    )
    done = run_module("-c", code, str(port))
    assert (0, "") == (done.returncode, done.stderr)
    versions, measurements = map(json.loads, done.stdout.splitlines())
    assert "orjson" not in versions["versions"]
    assert 0 == measurements["measurements"]["lost"]


@pytest.mark.process
def test_a_client_has_its_environment_variables(port):
    """The worker of the client without fast paths sets their switch before it imports the SDK."""
    code = (
        "import os, runpy, sys; sys.argv[1:] = ['call', 'neuralbox-general', sys.argv[1], '--scale', '0.001'];"
        "sys.addaudithook(lambda event, args: event != 'import' or args[0] != 'neuralbox_async'"
        " or print(os.environ['NEURALBOX_FAST_PATHS'], file=sys.stderr));"
        "runpy.run_module('benchmarks.worker', run_name='__main__')"
    )
    done = run_module("-c", code, str(port))
    assert 0 == done.returncode, done.stderr
    assert {"off"} == set(done.stderr.split())


def test_workers_inherit_the_environment(monkeypatch):
    """A variable that is set for the run reaches the measured clients, as the SDK's own switches must."""
    monkeypatch.setenv("NEURALBOX_FAST_PATHS", "off")
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    with MeasuringProcess(CLIENTS["neuralbox"], "-c", code) as process:
        environment = process.response(30)
    assert os.environ["PATH"] == environment["PATH"]
    assert "off" == environment["NEURALBOX_FAST_PATHS"]


@pytest.mark.process
def test_the_command_measures_and_writes_markdown():
    """The command measures the selected scenarios and clients, and prints Markdown."""
    done = run_module("-m", "benchmarks", "--only", "call-tls", "--clients", "aiohttp", "neuralbox", "--quick")
    assert (0, 2) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert "### Calls one after the other, over TLS (`call-tls`)" in done.stdout
    assert "| neuralbox | " in done.stdout


def test_each_round_begins_with_another_client():
    """No client is always the first, so that none always finds the machine as the same other client left it."""
    log = []
    clients = [CLIENTS["python"], CLIENTS["http.client"]]
    interleaving.measure(SCENARIOS["import"], clients, rounds=2, scale=1, port=0, core=None, log=log.append)
    assert ["python", "http.client", "http.client", "python"] == [line.rpartition(" ")[2] for line in log]


def test_a_failure_is_in_the_results():
    """The results name a client that failed, with the reason."""
    unused_port = 1
    results = interleaving.measure(
        SCENARIOS["call"],
        [CLIENTS["aiohttp"]],
        rounds=1,
        scale=0.01,
        port=unused_port,
        core=None,
        log=lambda _line: None,
    )
    assert "refused" in results.failures["aiohttp"]
    assert {None} == set(results.measurements["aiohttp"])


def test_a_timeout_is_a_failure(port):
    """A client that exceeds the timeout is killed, and each later iteration fails with the same reason."""
    scenario = dataclasses.replace(SCENARIOS["call"], timeout=0.01)
    with WorkerProcess(scenario, CLIENTS["aiohttp"], scale=1, port=port, core=None) as process:
        assert {"timed out after 0.01 s"} == {process.run_iteration()["failure"] for _ in range(2)}


def test_clients_are_interleaved(port):
    """All clients of a round have their processes at the same time, and run each iteration one after the other."""
    scenario = dataclasses.replace(SCENARIOS["call"], iterations=3)
    clients = [CLIENTS["aiohttp"], CLIENTS["neuralbox"]]
    results = interleaving.measure(
        scenario, clients, rounds=2, scale=0.01, port=port, core=None, log=lambda _line: None
    )
    assert {"aiohttp": 6, "neuralbox": 6} == {name: len(each) for name, each in results.measurements.items()}
    assert {} == results.failures
    assert "orjson" in results.versions


def test_other_sdks_have_environments_of_their_own(tmp_path):
    """The interpreter of another SDK is in a virtual environment that is named after it."""
    assert tmp_path / ".venv-sdk-openai" / "bin" / "python" == interpreter_of(CLIENTS["openai-sync"], tmp_path)
    assert interpreter_of(CLIENTS["neuralbox"], tmp_path) is None


def test_stream_scenarios_name_their_framing():
    """The title of each scenario with a stream names the chunks of its response."""
    streams = [scenario for scenario in SCENARIOS.values() if "{events}" in scenario.model]
    assert len(streams) > 8
    assert all("chunk" in scenario.title for scenario in streams)


def test_scenarios_and_targets_are_consistent():
    """Every client of a scenario, and every scenario, client and metric of a target, exists."""
    for scenario in SCENARIOS.values():
        assert {*scenario.clients, *scenario.other_sdks} <= CLIENTS.keys()
        assert scenario.baseline in scenario.clients
    for target in TARGETS:
        scenario = SCENARIOS[target.scenario]
        assert target.client in scenario.clients
        assert target.baseline is None or target.baseline in scenario.clients
        assert target.metric in {metric.key for metric in scenario.metrics}
