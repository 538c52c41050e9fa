"""`neuralbox serve` in subprocesses."""

from __future__ import annotations

import shlex
import signal

import pytest

from neuralbox_async.testing import NeuralBoxServer


@pytest.fixture
def serving(start, monkeypatch):
    """Return a function that starts `neuralbox serve` and sets the environment by its `export` lines."""

    def serving(*options):
        process = start("serve", *options)
        printed = process.read_until(b"to stop it.\n").decode()
        exports = dict(
            word.split("=", 1) for word in shlex.split(printed.partition("\n\n")[2]) if word.startswith("NEURALBOX_")
        )
        assert ["NEURALBOX_BASE_URL", "NEURALBOX_API_KEY"] == list(exports)
        for name, value in exports.items():
            monkeypatch.setenv(name, value)
            assert value in printed.partition("\n\n")[0]
        return process

    return serving


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_until_a_signal(serving, run, number):
    """The server runs until a signal, and then exits with status 0."""
    process = serving("--api-key", "nb_it's_mine")
    output = run("generate", "Hi").out
    process.popen.send_signal(number)

    assert "You said: Hi\n" == output
    assert (0, "", "") == ((done := process.wait()).status, done.out, done.err)


@pytest.mark.process
def test_limits(serving, run):
    """The options are those of the server."""
    serving("--limit-hour", "1", "--balance", "50")

    assert run("generate", "Hi", "--json").out.count('"balance_remaining": 4') == 1
    assert "429 rate_limit_exceeded" in run("generate", "Hi", "--timeout", "0.9").error_line


@pytest.mark.process
def test_all_addresses(serving, run):
    """A server on all addresses prints a loopback URL."""
    serving("--host", "0.0.0.0")

    assert "You said: Hi\n" == run("generate", "Hi").out


def test_port_in_use(run):
    """A port in use is reported in one line."""
    with NeuralBoxServer() as other:
        done = run("serve", "--port", str(other.port))

    assert (1, "") == (done.status, done.out)
    assert "address already in use" in done.error_line


def test_at_terminal(at_terminal):
    """At a terminal, Ctrl-C stops the server, and the shell's prompt begins a line."""
    terminal = at_terminal("serve")
    terminal.wait_for("to stop it.")
    terminal.type(b"\x03")

    assert 0 == terminal.wait()
    assert terminal.text.endswith("to stop it.\n^C\n")
