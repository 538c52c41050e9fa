"""`neuralbox demo`: its output, and its use of no other server."""

from __future__ import annotations

import sys

import pytest

from neuralbox_async._cli.demo import _allow_connections
from neuralbox_async.testing import NeuralBoxServer

# The demo without delays.
FAST = """
from neuralbox_async._cli import demo
demo._EVENT_INTERVAL = demo._LATENCY = 0.001
from neuralbox_async.__main__ import main
main()
"""


@pytest.fixture
def fast(monkeypatch):
    """Shorten the delays."""
    monkeypatch.setattr("neuralbox_async._cli.demo._EVENT_INTERVAL", 0.001)
    monkeypatch.setattr("neuralbox_async._cli.demo._LATENCY", 0.02)


@pytest.mark.usefixtures("fast")
def test_plain(run, server):
    """Without a terminal, the output is plain text; the server of the environment gets no request."""
    done = run("demo", "--count", "1000", "--max-concurrency", "50")

    assert (0, "") == (done.status, done.err)
    assert () == server.requests
    assert server.api_key not in done.out
    for expected in (
        "http://127.0.0.1:",
        "1  A generation\n",
        "│ the river counts the seasons,\n",
        "2  A live stream\n",
        "│ The lighthouse keeper",
        "3  A blocking call in a thread; the event loop stays free\n",
        "│ It calls plain functions",
        "4  1,000 generations, 50 concurrently\n",
        " in flight · one by one: 20 s\n",
        ": 1,003 generations",
    ):
        assert expected in done.out
    assert 4 == done.out.count("✓ ")
    assert "\x1b" not in done.out
    assert "━" not in done.out


@pytest.mark.usefixtures("fast")
def test_default(run):
    """By default there are 200 generations, all concurrent."""
    assert "4  200 generations, 200 concurrently\n" in run("demo").out


def test_at_terminal(at_terminal):
    """At a terminal there are colours and a progress bar, and no line is too long."""
    terminal = at_terminal("demo")

    assert 0 == terminal.wait()
    assert "━" * 40 + " 200/200" in terminal.text
    assert "\x1b[1;36m" in terminal.screen
    assert max(map(len, terminal.text.replace("\r", "\n").splitlines())) <= 80


def test_few_files(start):
    """The hard limit of open files limits the concurrency."""
    command = ("bash", "-c", 'ulimit -n 128; exec "$@"', "-", sys.executable, "-c", FAST)
    done = start("demo", command=command).wait()

    assert (0, "") == (done.status, done.err)
    assert "4  200 generations, 34 concurrently\n" in done.out


def test_soft_limit(start):
    """The soft limit of open files is raised."""
    command = ("bash", "-c", 'ulimit -Sn 128; exec "$@"', "-", sys.executable, "-c", FAST)
    done = start("demo", command=command).wait()

    assert (0, "") == (done.status, done.err)
    assert "4  200 generations, 200 concurrently\n" in done.out


@pytest.mark.usefixtures("fast")
def test_failure(run, monkeypatch):
    """If concurrent calls fail, the error is one line."""

    class Failing(NeuralBoxServer):
        def start(self):
            self.delay(0, times=3)
            self.fail(402, times=200)
            return super().start()

    monkeypatch.setattr("neuralbox_async._cli.demo.NeuralBoxServer", Failing)
    done = run("demo")

    assert 1 == done.status
    assert "4  200 generations" in done.out
    assert "402 insufficient_tokens" in done.error_line


def test_no_limit(monkeypatch):
    """On a system without a limit of open files, the concurrency is not limited."""
    monkeypatch.setitem(sys.modules, "resource", None)

    assert 3000 == _allow_connections(3000)
