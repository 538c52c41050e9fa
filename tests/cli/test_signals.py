"""Ctrl-C and broken pipes: real signals and pipes, in subprocesses."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path

import pytest

import neuralbox_async
from neuralbox_async import __version__

pytestmark = pytest.mark.signals

ROOT = Path(neuralbox_async.__file__).parents[1]


@pytest.fixture
def endless(serve):
    """A server whose text never ends."""
    return serve(reply=lambda _: itertools.repeat("word "), event_interval=0.005)


def test_interrupt_while_waiting(start, serve):
    """Ctrl-C ends a call in flight and closes its connection; the exit status is 130."""
    server = serve(latency=60, stop_on_disconnect=True)
    process = start("generate", "Hi")
    server.wait_until(lambda: server.in_flight)
    process.popen.send_signal(signal.SIGINT)
    done = process.wait()

    assert (130, "", "neuralbox: interrupted") == (done.status, done.out, done.error_line)
    server.wait_for_disconnect()
    assert () == server.billed


def test_interrupt_while_streaming(start, endless):
    """Ctrl-C ends a stream: the printed text stays, and the server stops generating."""
    process = start("generate", "Hi", "--stream")
    read = process.read_until(b"word word").decode()
    process.popen.send_signal(signal.SIGINT)
    done = process.wait()

    assert (130, "neuralbox: interrupted") == (done.status, done.error_line)
    assert {"word"} == set((read + done.out).split())
    assert done.out.endswith("\n")
    endless.wait_for_disconnect()
    assert () == endless.billed


def test_interrupt_while_reading(start, server):
    """Ctrl-C while the prompt is read from stdin ends the command before anything is sent."""
    reading, writing = os.pipe()
    process = start("generate", stdin=reading)
    os.close(reading)
    # More than the buffer of a pipe: when all of it is written, the command has begun to read.
    os.write(writing, b"x" * 1_000_000)
    # Python does not handle a signal between two reads of one call.
    time.sleep(0.1)
    process.popen.send_signal(signal.SIGINT)
    done = process.wait()
    os.close(writing)

    assert (130, "neuralbox: interrupted") == (done.status, done.error_line)
    assert () == server.requests


def test_interrupted_demo(start):
    """Ctrl-C ends the demo, which has threads, like any other command."""
    process = start("demo")
    process.read_until(b"lighthouse")
    process.popen.send_signal(signal.SIGINT)

    assert (130, "neuralbox: interrupted") == ((done := process.wait()).status, done.error_line)


def test_broken_pipe_of_stream(start, endless):
    """When the reader of stdout closes the pipe, the generation stops, and stderr says how to get its text."""
    process = start("generate", "Hi", "--stream")
    process.read_until(b"word")
    process.popen.stdout.close()
    endless.wait_for_disconnect()

    assert 141 == process.popen.wait(10)
    assert b"not all of the text was written; `neuralbox retrieve " in process.popen.stderr.read()


def test_broken_pipe(start, serve):
    """When the reader leaves before the text arrives, stderr says how to get it."""
    server = serve(latency=0.5)
    process = start("generate", "Hi")
    server.wait_until(lambda: server.in_flight)
    process.popen.stdout.close()

    assert 141 == process.popen.wait(10)
    assert f"`neuralbox retrieve {server.billed[0].id}`" in process.popen.stderr.read().decode()


def test_pipeline(start):
    """In a pipeline with `head`, the command ends without a message."""
    command = ("bash", "-c", '"$0" -m neuralbox_async demo | head -n 1; exit ${PIPESTATUS[0]}')
    done = start(sys.executable, command=command).wait()

    assert (141, f"neuralbox {__version__}\n", "") == (done.status, done.out, done.err)


# From the first import of the entry point on.
MODULES = [
    "click",
    "neuralbox_async._cli",
    "neuralbox_async._errors",
    "attrs",
    "neuralbox_async._client",
    "neuralbox_async._cli.batch",
]


# As pip writes it.
SCRIPT = """
import sys
from neuralbox_async.__main__ import main
if __name__ == "__main__":
    sys.exit(main())
"""
# The interpreter imports it before anything else.
CUSTOMIZE = """
import os, signal, sys
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)
sys.modules.pop({module!r}, None)
sys.meta_path.insert(0, Interrupt())
"""


@pytest.mark.parametrize("kind", ["script", "module"])
@pytest.mark.parametrize("module", MODULES)
def test_interrupt_at_the_start(start, module, kind, tmp_path, monkeypatch):
    """Ctrl-C while modules are imported is one line, and no traceback."""
    (tmp_path / "sitecustomize.py").write_text(CUSTOMIZE.format(module=module))
    (tmp_path / "neuralbox").write_text(SCRIPT)
    paths = [str(tmp_path), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    command = [str(tmp_path / "neuralbox")] if kind == "script" else ["-m", "neuralbox_async"]

    done = start("--version", command=(sys.executable, *command)).wait()

    assert (130, "", "neuralbox: interrupted\n") == (done.status, done.out, done.err)


@pytest.mark.parametrize("program", ["neuralbox", "other"])
def test_a_program_of_the_name_of_the_command(start, program, tmp_path):
    """A program that has the name of the command, and uses the package, can use all names."""
    code = f"""if True:
        import sys
        sys.argv[0] = "/somewhere/{program}"
        import neuralbox_async
        assert ("AsyncNeuralBox" in vars(neuralbox_async)) == ({program!r} == "other")
        from neuralbox_async import AsyncNeuralBox, _fast_paths
        from neuralbox_async import *
        assert NeuralBoxError is neuralbox_async._errors.NeuralBoxError
        assert not [name for name in neuralbox_async.__all__ if name not in vars(neuralbox_async)]
        print(hasattr(neuralbox_async, "NoSuchName"), end="")
    """
    done = start(command=(sys.executable, "-c", code), cwd=tmp_path).wait()

    assert (0, "False", "") == (done.status, done.out, done.err)


def test_threads_at_the_start(start, tmp_path):
    """A thread that uses a name while another one imports the modules waits for them."""
    code = """if True:
        import sys, threading, time
        sys.argv[0] = "/somewhere/neuralbox"
        import neuralbox_async

        importing = threading.Event()
        class Slow:
            def find_spec(self, name, *_):
                if name == "neuralbox_async._client":
                    importing.set()
                    time.sleep(0.3)
        sys.meta_path.insert(0, Slow())

        found = []
        threads = [
            threading.Thread(target=lambda name=name: found.append(getattr(neuralbox_async, name).__name__))
            for name in ("AsyncNeuralBox", "preload", "data_url", "RetryPolicy")
        ]
        threads[0].start()
        importing.wait()
        for thread in threads[1:]:
            thread.start()
        for thread in threads:
            thread.join()
        print(*sorted(found), end="")
    """
    done = start(command=(sys.executable, "-c", code), cwd=tmp_path).wait()

    assert (0, "AsyncNeuralBox RetryPolicy data_url preload", "") == (done.status, done.out, done.err)
