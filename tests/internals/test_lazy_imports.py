"""Modules that are loaded with the first call: once, for our modules only, and robust to signals and forks."""

import os
import subprocess
import sys

import pytest

from neuralbox_async import _lazy_imports, preload
from neuralbox_async.testing import NeuralBoxServer

# Since Python 3.12, a fork of a process with threads warns. These tests do just that.
COMMAND = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c"]


@pytest.fixture
def server():
    with NeuralBoxServer() as running:
        yield running


def run(code):
    """Run *code* in an interpreter of its own, which must exit with status 0 and print nothing."""
    # The measurement of coverage loads modules of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([*COMMAND, code], capture_output=True, text=True, env=environment, timeout=50, check=False)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


@pytest.mark.process
def test_proxies_are_replaced():
    """The first access to a proxy replaces it in all our modules."""
    run("""
import sys, neuralbox_async, neuralbox_sync
from neuralbox_async import _clock
from neuralbox_async._batch import inputs, runner
from neuralbox_sync import _loop

assert "asyncio" not in sys.modules
proxy = _clock.asyncio
assert _clock.asyncio.Event.__module__ == "asyncio.locks"
import asyncio
assert all(module.asyncio is asyncio for module in (_clock, _loop))
assert proxy.Event is asyncio.Event
assert inputs.hashlib is not sys.modules.get("hashlib")
assert not hasattr(runner.anyio, "no_such_thing")
import copy
assert copy.copy(proxy).Event is asyncio.Event
""")


STRANGERS = """
import sys, types, importlib.machinery

class Stranger(types.ModuleType):
    '''A module of another package that imports lazily: any access to it is an error.'''
    def __getattribute__(self, name):
        raise AssertionError(f"{type(self)}: {name}")

strangers = ["stranger", "stranger.part", "neuralbox_async_plugin", "neuralbox", "zz_stranger"]
sys.modules.update({name: Stranger(name) for name in strangers})
# An import that is blocked, and an object that is not a module, under our own names.
sys.modules.update({"neuralbox_async.blocked": None, "neuralbox_sync.odd": object()})
"""


@pytest.mark.process
def test_modules_of_other_packages_are_not_touched():
    """The first access to a proxy touches no module of another package, whose access could import or fail."""
    run(
        STRANGERS
        + """
from neuralbox_async import _clock
from neuralbox_async._batch import inputs, runner

assert _clock.asyncio.Event and runner.anyio.Event and inputs.hashlib.sha256
assert type(_clock.asyncio) is type(runner.anyio) is type(inputs.hashlib) is types.ModuleType
"""
    )


@pytest.mark.process
def test_a_first_call_beside_lazy_packages(server):
    """A whole first call touches no module of another package."""
    run(
        STRANGERS
        + f"""
import neuralbox_async
neuralbox_async.preload()
import asyncio

async def main():
    async with neuralbox_async.AsyncNeuralBox({server.api_key!r}, base_url={server.base_url!r}) as client:
        assert "Hi" in (await client.generate("gpt-5", "Hi")).content
        async with client.stream("gpt-5", "Hi") as stream:
            assert "Hi" in (await stream.get_final_generation()).content

asyncio.run(main())
"""
    )


@pytest.mark.process
def test_preload():
    """`preload` imports every module that the first call would import."""
    run("""
import sys, neuralbox_async
from neuralbox_async import _lazy_imports

neuralbox_async.preload()
assert all(module in sys.modules for module in (*_lazy_imports.MODULES, "aiohttp", "asyncio"))
neuralbox_async.preload()
""")


def test_preload_of_a_missing_module(monkeypatch):
    """A module that is not installed raises `ModuleNotFoundError`."""
    monkeypatch.setattr(_lazy_imports, "MODULES", ("neuralbox_no_such_module",))

    with pytest.raises(ModuleNotFoundError, match="neuralbox_no_such_module"):
        preload()


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the signals of Unix")
@pytest.mark.parametrize("delay", [0.002, 0.01, 0.03, 0.06, 0.1])
def test_an_interrupted_import(delay):
    """After Ctrl-C during `preload`, the modules can be imported and used."""
    run(f"""
import signal, neuralbox_async

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, {delay})
try:
    neuralbox_async.preload()
    signal.setitimer(signal.ITIMER_REAL, 0)
except KeyboardInterrupt:
    pass
neuralbox_async.preload()
import asyncio, aiohttp
asyncio.run(asyncio.sleep(0))
assert asyncio.base_events and aiohttp.ClientSession
""")


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05])
def test_a_fork_while_another_thread_imports(delay):
    """A child that is forked during `preload` can import the modules."""
    run(f"""
import os, signal, threading, time, neuralbox_async

thread = threading.Thread(target=neuralbox_async.preload)
thread.start()
time.sleep({delay})
child = os.fork()
if child == 0:
    signal.alarm(20)
    neuralbox_async.preload()
    import asyncio
    asyncio.run(asyncio.sleep(0))
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
""")


FIRST_USE = "neuralbox_async.AsyncNeuralBox('key').stream('gpt-5', 'Hi')"


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the signals of Unix")
@pytest.mark.parametrize("delay", [0.001, 0.005, 0.02, 0.05, 0.1])
def test_an_interrupted_first_use(delay):
    """After Ctrl-C during the first use of a module that is loaded late, all modules can be used."""
    run(f"""
import asyncio, signal, neuralbox_async

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, {delay})
try:
    {FIRST_USE}
    signal.setitimer(signal.ITIMER_REAL, 0)
except KeyboardInterrupt:
    pass
{FIRST_USE}
from neuralbox_async._wire import json
assert json.loads(b"[1]") == [1]
""")


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs the signals of Unix")
@pytest.mark.parametrize("delay", [0.001, 0.01, 0.05])
def test_a_first_use_within_the_first_use(delay):
    """A signal handler may make the first use while the first use imports."""
    run(f"""
import signal, neuralbox_async

signal.signal(signal.SIGALRM, lambda *_: {FIRST_USE})
signal.setitimer(signal.ITIMER_REAL, {delay})
{FIRST_USE}
signal.setitimer(signal.ITIMER_REAL, 0)
""")


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.05, 0.15])
def test_a_fork_during_the_first_use(delay):
    """A child that is forked while another thread makes the first use can use all modules."""
    run(f"""
import os, signal, threading, time, neuralbox_async

def first_use():
    {FIRST_USE}

thread = threading.Thread(target=first_use)
thread.start()
time.sleep({delay})
child = os.fork()
if child == 0:
    signal.alarm(20)
    {FIRST_USE}
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
thread.join()
""")
