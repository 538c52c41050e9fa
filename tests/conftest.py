"""Fixtures for all tests."""

from __future__ import annotations

import asyncio
import copyreg
import gc
import logging
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from neuralbox_async import AsyncNeuralBox, RetryPolicy, _fast_paths
from neuralbox_async.testing import NeuralBoxServer

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
SERVER_TIMEOUT = 60.0  # seconds

# A busy machine makes every example slow. The same examples in each run: a change fails for what it changes.
settings.register_profile(
    "default",
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("quick", settings.get_profile("default"), max_examples=10)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000, derandomize=False)
settings.load_profile("default")

# aiohttp loads the authorities that the machine trusts when it is imported, which is a third of the start of a program
# with the SDK. No test has a server with a certificate of theirs: here one authority is trusted, whose key nobody has.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).parent / "support" / "authority.pem")

# Dask's workers look it up, and a local cluster hangs if that fails. The first call runs `uname -p`, which tests
# without the marker `process` may not.
platform.processor()

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A command started with a shell's `&` ignores SIGINT. The scripts of tests would inherit that, and hang.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # The same holds for SIGHUP under `nohup`. A handler is not inherited, and this process ignores SIGHUP still.
    signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(items):
    """Add the markers that the folder and the fixtures of a test imply."""
    for item in items:
        folder = item.path.parent.name
        if folder == "hosts":
            item.add_marker("hosts")
        if folder in {"hosts", "benchmarks"} or "starts_processes" in item.fixturenames:
            item.add_marker("process")
        if folder in {"docs", "examples", "hosts", "benchmarks", "dask", "cli"} and item.get_closest_marker("process"):
            item.add_marker("programs")


def pytest_collection_finish():
    """Hide what the collection made from the garbage collector: `gc.collect` in a test then takes milliseconds."""
    given(strategies.none())(lambda _: None)()  # Hypothesis looks once, with the garbage collector, for what it made
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def starts_processes():
    """A fixture that requests this one starts processes: its tests get the marker `process`."""


def process_state():
    """Return the state of the process that a test may change and must restore."""
    loggers = [logging.getLogger(name) for name in (None, "neuralbox", "neuralbox.testing", "asyncio")]
    numbers = {signal.SIGINT, signal.SIGTERM, *(getattr(signal, name, signal.SIGINT) for name in ("SIGALRM", "SIGHUP"))}
    return {
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "folder": Path.cwd(),
        "loggers": [(log.name, log.level, log.disabled, log.propagate, tuple(log.handlers)) for log in loggers],
        "logging": logging.root.manager.disable,
        "signals": {number: signal.getsignal(number) for number in numbers},
        "garbage collector": (gc.isenabled(), gc.get_threshold()),
        "event loop policy": getattr(asyncio.events, "_event_loop_policy", None),
        "interpreter": (sys.getswitchinterval(), sys.getrecursionlimit(), sys.excepthook, sys.unraisablehook),
    }


@pytest.fixture(autouse=True)
def no_state_left():
    """Check that the test restores the state of the process, on which later tests in this process depend."""
    before, pickles = process_state(), dict(copyreg.dispatch_table)
    yield
    # Dask lets pickles of any exception have its causes (tblib), which other tests would see.
    if pickles != copyreg.dispatch_table:
        copyreg.dispatch_table.clear()
        copyreg.dispatch_table.update(pickles)
    after = process_state()
    assert {} == {name: (value, after[name]) for name, value in before.items() if value != after[name]}


@pytest.fixture(autouse=True)
def patient_server(no_state_left, monkeypatch):
    """Wait for the local server as long as a busy machine may need."""
    for name in ("wait_until", "wait_until_async", "wait_for_disconnect", "wait_for_disconnect_async"):
        monkeypatch.setattr(getattr(NeuralBoxServer, name), "__defaults__", (SERVER_TIMEOUT,))


@pytest.fixture(autouse=True)
def no_process_without_the_marker(request, no_state_left, monkeypatch):
    """Let only tests with the marker `process` start processes, so that `make test-fast` has none."""
    if request.node.get_closest_marker("process") is None:

        def refuse(*_args, **_kwargs):
            pytest.fail("this test starts a process: mark it with `process`")

        monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
        monkeypatch.setattr(os, "fork", refuse, raising=False)


@pytest.fixture
def fast_paths_on(monkeypatch):
    """Switch the fast paths on, also when the environment has switched them off or an earlier test patched aiohttp."""
    from neuralbox_async._http import direct_sender, request_writer  # which import aiohttp: see above

    monkeypatch.setattr(_fast_paths, "enabled", lambda: True)
    for is_known in (direct_sender.is_known_aiohttp, request_writer.is_known_aiohttp):
        is_known.cache_clear()
        is_known()  # which is remembered: the test may patch aiohttp


@pytest.fixture
async def no_task_left():
    """Check that the test leaves no task running."""
    before = asyncio.all_tasks()
    yield
    await asyncio.sleep(0)
    after = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert {task for task in after if not task.done()} == set()


@pytest.fixture
def make_client():
    """Return a function that makes a client on a fake transport; it does not sleep between attempts."""

    def make(transport, **options):
        options = {"retry_policy": RetryPolicy(jitter=lambda low, _high: low), **options}
        return AsyncNeuralBox(KEY, transport=transport, **options)

    return make
