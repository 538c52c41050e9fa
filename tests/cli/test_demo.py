"""`neuralbox demo`: what it shows, and that it shows it on its own server alone."""

from __future__ import annotations

import sys

import pytest

from neuralbox_async._cli._demo import _allowed_connections
from neuralbox_async.testing import NeuralBoxServer

# The same with less time for people to watch.
HURRIED = """
from neuralbox_async._cli import _demo
_demo._PACE = _demo._LATENCY = 0.001
from neuralbox_async.__main__ import main
main()
"""


@pytest.fixture
def hurried(monkeypatch):
    """Nobody watches."""
    monkeypatch.setattr("neuralbox_async._cli._demo._PACE", 0.001)
    monkeypatch.setattr("neuralbox_async._cli._demo._LATENCY", 0.02)


@pytest.mark.usefixtures("hurried")
def test_plain(run, server):
    """Where no terminal is, all is plain text, and no other server is reached, whatever the environment says."""
    done = run("demo", "--count", "1000", "--concurrency", "50")

    assert (0, "") == (done.status, done.err)
    assert () == server.requests
    assert server.api_key not in done.out
    for wanted in (
        "http://127.0.0.1:",
        "1  A generation\n",
        "│ the river counts the seasons,\n",
        "2  A live stream\n",
        "│ The lighthouse keeper",
        "3  A blocking call, in a thread, while this event loop runs on\n",
        "│ An answer it can simply wait for",
        "4  1,000 generations, 50 at a time\n",
        " in flight · one by one: 20 s\n",
        ": 1,003 generations",
    ):
        assert wanted in done.out
    assert 4 == done.out.count("✓ ")
    assert "\x1b" not in done.out
    assert "━" not in done.out


@pytest.mark.usefixtures("hurried")
def test_default(run):
    """By default it is 200 generations, all at the same time."""
    assert "4  200 generations, 200 at a time\n" in run("demo").out


def test_at_terminal(at_terminal):
    """At a terminal there are colours and a bar that fills, and no line is too long for it."""
    terminal = at_terminal("demo")

    assert 0 == terminal.end()
    assert "━" * 40 + " 200/200" in terminal.text
    assert "\x1b[1;36m" in terminal.shown
    assert max(map(len, terminal.text.replace("\r", "\n").splitlines())) <= 80


def test_few_files(start):
    """Where only few files may be open, there are as many generations at once as that allows."""
    command = ("bash", "-c", 'ulimit -n 128; exec "$@"', "-", sys.executable, "-c", HURRIED)
    done = start("demo", command=command).end()

    assert (0, "") == (done.status, done.err)
    assert "4  200 generations, 34 at a time\n" in done.out


def test_soft_limit(start):
    """A limit of open files that may be raised is raised."""
    command = ("bash", "-c", 'ulimit -Sn 128; exec "$@"', "-", sys.executable, "-c", HURRIED)
    done = start("demo", command=command).end()

    assert (0, "") == (done.status, done.err)
    assert "4  200 generations, 200 at a time\n" in done.out


@pytest.mark.usefixtures("hurried")
def test_failure(run, monkeypatch):
    """Should one of many calls fail, one line says why."""

    class Failing(NeuralBoxServer):
        def start(self):
            self.delay(0, times=3)
            self.fail(402, times=200)
            return super().start()

    monkeypatch.setattr("neuralbox_async.testing.NeuralBoxServer", Failing)
    done = run("demo")

    assert 1 == done.status
    assert "4  200 generations" in done.out
    assert "402 insufficient_tokens" in done.line


def test_no_limit(monkeypatch):
    """Where a system knows no limit of open files, none holds."""
    monkeypatch.setitem(sys.modules, "resource", None)

    assert 3000 == _allowed_connections(3000)
