"""What is loaded late: by whom, once, and so that neither a signal nor a fork leaves it broken."""

import os
import subprocess
import sys

import pytest

from neuralbox_async import _lazy_imports, preload

# Since 3.12 forking a process with threads warns; that it is done all the same is the point here.
COMMAND = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c"]


def run(code):
    """Run *code* in an interpreter of its own, which must end well and say nothing."""
    # Measuring what is covered loads modules of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run([*COMMAND, code], capture_output=True, text=True, env=environment, timeout=50, check=False)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_late_modules_give_way():
    """What stands for a module is gone from all that use it as soon as something of that module was asked for."""
    run("""
import sys, neuralbox_async, neuralbox_sync
from neuralbox_async import _items, _run, _seam, _stream
from neuralbox_sync import _loop

assert "asyncio" not in sys.modules
stand_in = _seam.asyncio
assert _stream.asyncio.Event.__module__ == "asyncio.locks"
import asyncio
assert all(module.asyncio is asyncio for module in (_items, _loop, _run, _seam, _stream))
assert stand_in.Event is asyncio.Event
assert _items.hashlib is not sys.modules.get("hashlib")
assert not hasattr(_run.anyio, "no_such_thing")
import copy
assert copy.copy(stand_in).Event is asyncio.Event
""")


def test_preload_loads_all():
    """After it no call loads anything more."""
    run("""
import sys, neuralbox_async
from neuralbox_async import _lazy_imports

neuralbox_async.preload()
assert all(module in sys.modules for module in (*_lazy_imports.MODULES, "aiohttp", "asyncio"))
neuralbox_async.preload()
""")


def test_preload_of_what_is_missing(monkeypatch):
    """A module that is not installed is told."""
    monkeypatch.setattr(_lazy_imports, "MODULES", ("neuralbox_no_such_module",))

    with pytest.raises(ModuleNotFoundError, match="neuralbox_no_such_module"):
        preload()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals as of Unix")
@pytest.mark.parametrize("moment", [0.002, 0.01, 0.03, 0.06, 0.1])
def test_an_interrupted_load(moment):
    """Wherever Ctrl-C comes, what it interrupts can be loaded and used afterwards."""
    run(f"""
import signal, neuralbox_async

def interrupt(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
signal.setitimer(signal.ITIMER_REAL, {moment})
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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("moment", [0.0, 0.01, 0.05])
def test_a_fork_while_another_thread_loads(moment):
    """A child that was forked in the middle of it has all that it needs."""
    run(f"""
import os, signal, threading, time, neuralbox_async

thread = threading.Thread(target=neuralbox_async.preload)
thread.start()
time.sleep({moment})
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
