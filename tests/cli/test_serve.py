"""`neuralbox serve`, in processes of its own."""

from __future__ import annotations

import shlex
import signal

import pytest

from neuralbox_async.testing import NeuralBoxServer


@pytest.fixture
def serving(start, monkeypatch):
    """Start `neuralbox serve`, and do what its `export` lines say."""

    def serving(*options):
        process = start("serve", *options)
        said = process.read_until(b"stops it.\n").decode()
        exports = dict(
            word.split("=", 1) for word in shlex.split(said.partition("\n\n")[2]) if word.startswith("NEURALBOX_")
        )
        assert ["NEURALBOX_BASE_URL", "NEURALBOX_API_KEY"] == list(exports)
        for name, value in exports.items():
            monkeypatch.setenv(name, value)
            assert value in said.partition("\n\n")[0]
        return process

    return serving


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_until_a_signal(serving, run, number):
    """The server answers whoever follows its `export` lines, until a signal comes; then it ends well."""
    process = serving("--api-key", "nb_it's_mine")
    answer = run("generate", "Hi").out
    process.popen.send_signal(number)

    assert "You said: Hi\n" == answer
    assert (0, "", "") == ((done := process.end()).status, done.out, done.err)


def test_limits(serving, run):
    """The options are those of the server."""
    serving("--limit-hour", "1", "--balance", "50")

    assert run("generate", "Hi", "--json").out.count('"balance_remaining": 4') == 1
    assert "429 rate_limit_exceeded" in run("generate", "Hi", "--timeout", "0.9").line


def test_all_addresses(serving, run):
    """A server that listens everywhere says how to reach it from here."""
    serving("--host", "0.0.0.0")

    assert "You said: Hi\n" == run("generate", "Hi").out


def test_port_in_use(run):
    """A port that is in use is told in one line."""
    with NeuralBoxServer() as other:
        done = run("serve", "--port", str(other.port))

    assert (1, "") == (done.status, done.out)
    assert "address already in use" in done.line


def test_at_terminal(at_terminal):
    """At a terminal Ctrl-C stops it, and the prompt comes back on a line of its own."""
    terminal = at_terminal("serve")
    terminal.show_until("stops it.")
    terminal.type(b"\x03")

    assert 0 == terminal.end()
    assert terminal.text.endswith("stops it.\n^C\n")
