"""Ctrl-C and broken pipes: real signals and pipes, in subprocesses."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time

import pytest

from neuralbox_async import __version__

pytestmark = pytest.mark.signals


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


def test_interrupt_at_the_start(start):
    """Ctrl-C while modules are imported is no traceback."""
    code = """if True:
        import sys
        class Interrupt:
            def find_spec(self, name, *_):
                if name == "neuralbox_async._cli.batch":
                    raise KeyboardInterrupt
        sys.meta_path.insert(0, Interrupt())
        from neuralbox_async.__main__ import main
        main()
    """
    done = start("--version", command=(sys.executable, "-c", code)).wait()

    assert (130, "neuralbox: interrupted") == (done.status, done.error_line)
