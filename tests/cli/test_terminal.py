"""The command as a person sees it: at a pseudo-terminal."""

from __future__ import annotations

import itertools
import re

import pytest

DIM = "\x1b[2m"
CURSOR_HIDDEN, CURSOR_SHOWN = "\x1b[?25l", "\x1b[?25h"


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_text_and_cost(at_terminal, server, options):
    """A person sees the text, and in a faint line what it cost."""
    terminal = at_terminal("generate", "Hello there", *options)

    assert 0 == terminal.end()
    (billed,) = server.billed
    text, cost = terminal.text.split("You said: ")[1].splitlines()
    assert "Hello there" == text
    assert cost.startswith(f"{billed.tokens_used} tokens · {server.balance:,} left · ")
    assert cost.endswith(f" s · {billed.id}")
    assert DIM in terminal.shown
    assert bool(server.requests[0].json.get("stream")) is (options == ())


def test_local_stream(at_terminal):
    """A local call is streamed at a pace that can be watched."""
    terminal = at_terminal("generate", "one two three", "--local")
    terminal.show_until("You said: ")
    seen_first = terminal.text

    assert 0 == terminal.end()
    assert "three" not in seen_first
    assert "You said: one two three\n" in terminal.text


def test_json(at_terminal, server):
    """JSON is one object at a terminal too, unless a stream is asked for."""
    terminal = at_terminal("generate", "Hi", "--json")

    assert 0 == terminal.end()
    assert '"content": "You said: Hi"' in terminal.text
    assert not server.requests[0].json.get("stream")


@pytest.mark.parametrize("value,colours", [("1", False), ("", True)])
def test_no_color(at_terminal, server, monkeypatch, value, colours):
    """NO_COLOR, if it is not empty, leaves the text without colours."""
    monkeypatch.setenv("NO_COLOR", value)
    terminal = at_terminal("generate", "Hi")

    assert 0 == terminal.end()
    assert 1 == len(server.billed)
    assert "You said: Hi" in terminal.text
    assert colours is bool(re.search(r"\x1b\[[0-9;]*m", terminal.shown))


def test_harmless(at_terminal, serve):
    """No text can move the cursor, rename the window or ring the bell."""
    serve(reply="a\x1b]0;title\x07\x1b[2Jb\x9b1mc\rd\r\n\te")
    terminal = at_terminal("generate", "Hi")

    assert 0 == terminal.end()
    assert "a\ufffd]0;title\ufffd\ufffd[2Jb\ufffd1mcd\n" in terminal.text
    assert "e\n" in terminal.text
    assert "\x07" not in terminal.shown
    assert "\x1b[2J" not in terminal.shown


def test_interrupt(at_terminal, serve):
    """Ctrl-C typed while the API is silent gives one line of its own, and the cursor back."""
    server = serve(latency=60)
    terminal = at_terminal("generate", "Hi")
    terminal.show_until("waiting for gpt-5")
    server.wait_until(lambda: server.in_flight, 10)
    terminal.type(b"\x03")

    assert 130 == terminal.end()
    server.wait_for_disconnect()
    assert "\nneuralbox: interrupted\n" in terminal.text
    assert terminal.shown.rindex(CURSOR_SHOWN) > terminal.shown.rindex(CURSOR_HIDDEN)


def test_interrupted_text(at_terminal, serve):
    """Ctrl-C typed in the middle of a text leaves the text."""
    serve(reply=lambda _: itertools.repeat("word "), event_interval=0.005)
    terminal = at_terminal("generate", "Hi")
    terminal.show_until("word word")
    terminal.type(b"\x03")

    assert 130 == terminal.end()
    assert terminal.text.endswith("\nneuralbox: interrupted\n")


def test_no_prompt(at_terminal, server):
    """Nobody at a terminal is kept waiting for a prompt that was forgotten."""
    terminal = at_terminal("generate")

    assert 2 == terminal.end()
    assert "There is no prompt" in terminal.text
    assert () == server.requests


def test_typed_prompt(at_terminal, server):
    """With "-" the prompt is typed, and ended by Ctrl-D."""
    terminal = at_terminal("generate", "-")
    terminal.type(b"typed here\n\x04")

    assert 0 == terminal.end()
    assert "You said: typed here" in terminal.text
    assert "typed here" == server.requests[0].json["messages"][0]["content"]


def test_retrieved(at_terminal, server, run):
    """A text that is got back is followed by what it cost."""
    run("generate", "Hello")
    terminal = at_terminal("retrieve", server.billed[0].id)

    assert 0 == terminal.end()
    assert "You said: Hello\n" in terminal.text
    assert server.billed[0].id in terminal.text


def test_unknown_cost(at_terminal, server):
    """What the API does not tell of the cost is not shown."""
    server.fail(200, body={"id": 7, "status": "completed", "content": "Hi."})
    terminal = at_terminal("generate", "Hello", "--no-stream")

    assert 0 == terminal.end()
    assert re.search(r"Hi\.\n\d+\.\d\d s · 7\n$", terminal.text)
