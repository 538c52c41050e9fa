"""`neuralbox serve` in subprocesses."""

from __future__ import annotations

import re
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
        lines = [line for line in printed.splitlines() if line.startswith("  export ")]
        exports = dict(shlex.split(line)[1].split("=", 1) for line in lines)
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
    assert (0, "") == ((done := process.wait()).status, done.out)
    assert re.fullmatch(r"\d\d:\d\d:\d\d POST /api/v2/generate 200 gpt-5 \d+\.\d{3} s\n", done.err)


def test_log(serving, run):
    """The log has what a client sends as printable text, and never the key or a prompt; --quiet switches it off."""
    for options in ((), ("--quiet",)):
        process = serving("--api-key", "nb_key_to_hide", *options)
        run("generate", "secret", "--model", "m\x1b[2Jx")
        run("retrieve", "gen_1")
        process.popen.send_signal(signal.SIGINT)
        lines = process.wait().err.splitlines()

        found = [f"{words[1]} {words[3]}" for words in map(str.split, lines[:2])]
        assert ([] if options else ["POST 200", "GET 404"]) == found
        assert "\x1b" not in "".join(lines)
        assert "secret" not in "".join(lines)
        assert "nb_key_to_hide" not in "".join(lines)


def test_closed_log(serving, run):
    """The server goes on when nobody reads its log."""
    process = serving()
    process.popen.stderr.close()
    outputs = [run("generate", "Hi").out for _ in range(2)]
    process.popen.send_signal(signal.SIGINT)

    assert ["You said: Hi\n"] * 2 == outputs
    assert 0 == process.popen.wait(20)


def test_unknown_models(serving, run):
    """--refuse-unknown-models refuses models that are not in the price list, in streams, too."""
    serving("--refuse-unknown-models")

    assert 0 == run("generate", "Hi", "--model", "gpt-5").status
    for stream in ("--stream", "--no-stream"):
        done = run("generate", "Hi", "--model", "gpt-55", stream)
        assert (1, "") == (done.status, done.out)
        assert "Model gpt-55 not found" in done.error_line


def test_settings(start):
    """The settings are printed for bash, PowerShell and cmd, with the same values."""
    process = start("serve", "--api-key", "nb_it's&mine")
    printed = process.read_until(b"to stop it.\n").decode()

    assert "NEURALBOX_API_KEY='nb_it'\"'\"'s&mine'\n" in printed
    assert "$env:NEURALBOX_API_KEY = 'nb_it''s&mine'\n" in printed
    assert "set NEURALBOX_API_KEY=nb_it's^&mine\n" in printed


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
