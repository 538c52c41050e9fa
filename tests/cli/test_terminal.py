"""The command at a pseudo-terminal."""

from __future__ import annotations

import itertools
import re

import pytest

pytestmark = pytest.mark.signals

DIM = "\x1b[2m"
CURSOR_HIDDEN, CURSOR_SHOWN = "\x1b[?25l", "\x1b[?25h"


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_text_and_cost(at_terminal, server, options):
    """A terminal shows the text, and below it a dim line with the cost."""
    terminal = at_terminal("generate", "Hello there", *options)

    assert 0 == terminal.wait()
    (billed,) = server.billed
    text, cost = terminal.text.split("You said: ")[1].splitlines()
    assert "Hello there" == text
    assert cost.startswith(f"{billed.tokens_used} tokens · {server.balance:,} left · ")
    assert cost.endswith(f" s · {billed.id}")
    assert DIM in terminal.screen
    assert bool(server.requests[0].json.get("stream")) is (options == ())


def test_local_stream(at_terminal):
    """A local call is streamed slowly enough to watch."""
    terminal = at_terminal("generate", "one two three", "--local")
    terminal.wait_for("You said: ")
    first_text = terminal.text

    assert 0 == terminal.wait()
    assert "three" not in first_text
    assert "You said: one two three\n" in terminal.text


def test_json(at_terminal, server):
    """At a terminal, --json without --stream prints one object."""
    terminal = at_terminal("generate", "Hi", "--json")

    assert 0 == terminal.wait()
    assert '"content": "You said: Hi"' in terminal.text
    assert not server.requests[0].json.get("stream")


@pytest.mark.parametrize("value,colours", [("1", False), ("", True)])
def test_no_color(at_terminal, server, monkeypatch, value, colours):
    """NO_COLOR, if it is not empty, switches colours off."""
    monkeypatch.setenv("NO_COLOR", value)
    terminal = at_terminal("generate", "Hi")

    assert 0 == terminal.wait()
    assert 1 == len(server.billed)
    assert "You said: Hi" in terminal.text
    assert colours is bool(re.search(r"\x1b\[[0-9;]*m", terminal.screen))


def test_control_characters(at_terminal, serve):
    """Control characters in a text do not reach the terminal."""
    serve(reply="a\x1b]0;title\x07\x1b[2Jb\x9b1mc\rd\r\n\te")
    terminal = at_terminal("generate", "Hi")

    assert 0 == terminal.wait()
    assert "a\ufffd]0;title\ufffd\ufffd[2Jb\ufffd1mcd\n" in terminal.text
    assert "e\n" in terminal.text
    assert "\x07" not in terminal.screen
    assert "\x1b[2J" not in terminal.screen


def test_interrupt(at_terminal, serve):
    """Ctrl-C before the first event prints one line, and the cursor is shown again."""
    server = serve(latency=60)
    terminal = at_terminal("generate", "Hi")
    terminal.wait_for("waiting for gpt-5")
    server.wait_until(lambda: server.in_flight)
    terminal.type(b"\x03")

    assert 130 == terminal.wait()
    server.wait_for_disconnect()
    assert "\nneuralbox: interrupted\n" in terminal.text
    assert terminal.screen.rindex(CURSOR_SHOWN) > terminal.screen.rindex(CURSOR_HIDDEN)


def test_interrupted_text(at_terminal, serve):
    """Ctrl-C during a text leaves the text on the screen."""
    serve(reply=lambda _: itertools.repeat("word "), event_interval=0.005)
    terminal = at_terminal("generate", "Hi")
    terminal.wait_for("word word")
    terminal.type(b"\x03")

    assert 130 == terminal.wait()
    assert terminal.text.endswith("\nneuralbox: interrupted\n")


def test_no_prompt(at_terminal, server):
    """At a terminal, a missing prompt is a usage error; the command does not wait for input."""
    terminal = at_terminal("generate")

    assert 2 == terminal.wait()
    assert "There is no prompt" in terminal.text
    assert () == server.requests


def test_typed_prompt(at_terminal, server):
    """With "-", the prompt is typed, and ended by Ctrl-D."""
    terminal = at_terminal("generate", "-")
    terminal.type(b"typed here\n\x04")

    assert 0 == terminal.wait()
    assert "You said: typed here" in terminal.text
    assert "typed here" == server.requests[0].json["messages"][0]["content"]


def test_retrieved(at_terminal, server, run):
    """A retrieved text is followed by its cost and id."""
    run("generate", "Hello")
    terminal = at_terminal("retrieve", server.billed[0].id)

    assert 0 == terminal.wait()
    assert "You said: Hello\n" in terminal.text
    assert server.billed[0].id in terminal.text


def test_unknown_cost(at_terminal, server):
    """A cost that the API does not report is not shown."""
    server.fail(200, body={"id": 7, "status": "completed", "content": "Hi."})
    terminal = at_terminal("generate", "Hello", "--no-stream")

    assert 0 == terminal.wait()
    assert re.search(r"Hi\.\n\d+\.\d\d s · 7\n$", terminal.text)
