"""`neuralbox chat` at a pseudo-terminal and with pipes."""

from __future__ import annotations

import json
import time

import pytest


@pytest.fixture
def chat(at_terminal, serve):
    """Return a function that starts a server and a chat with it at a terminal, and waits for the prompt."""

    def chat(*arguments, **options):
        server = serve(**options)
        terminal = at_terminal("chat", *arguments)
        terminal.wait_for("> ")
        return server, terminal

    return chat


def say(terminal, text, expected):
    """Type *text* and wait for *expected*, and then for the next prompt; return what was shown."""
    terminal.screen = ""
    terminal.type(text.encode() + b"\r")
    terminal.wait_for(expected)
    while not terminal.text.endswith("> "):
        assert terminal._read()
    return terminal.text


def sent(server):
    """Return the messages of each request."""
    return [[message["content"] for message in request.json["messages"]] for request in server.requests]


def test_conversation(chat):
    """Each message is sent with those before it; the costs are added up, and Ctrl-D leaves."""
    server, terminal = chat("--system", "Be brief.", "-m", "gpt-5-nano")
    first = say(terminal, "one", "You said: one")
    second = say(terminal, "two words", "You said: two words")
    terminal.type(b"\x04")

    assert 0 == terminal.wait()
    assert [
        ["Be brief.", "one"],
        ["Be brief.", "one", "You said: one", "two words"],
    ] == sent(server)
    tokens = [generation.tokens_used for generation in server.billed]
    assert f" · {tokens[0]} in this chat · " in first
    assert f" · {sum(tokens)} in this chat · {server.balance:,} left" in second
    assert terminal.text.endswith(f"{sum(tokens)} tokens in this chat\n")


def test_interrupted_reply(chat):
    """Ctrl-C ends a reply and not the chat; what had arrived is a part of the conversation."""
    server, terminal = chat(reply=lambda _: ("word " for _ in iter(int, 1)), event_interval=0.05)
    terminal.type(b"endless\r")
    terminal.wait_for("word word")
    terminal.screen = ""
    terminal.type(b"\x03")
    terminal.wait_for("the reply was ended")
    terminal.wait_for("> ")
    terminal.type(b"again\r")
    terminal.wait_for("word word")
    terminal.screen = ""
    terminal.type(b"\x03")
    terminal.wait_for("> ")
    terminal.type(b"\x04")

    assert 0 == terminal.wait()
    assert terminal.text.endswith("0 tokens in this chat; 2 more replies may have been billed\n")
    first, second = sent(server)
    assert ["endless"] == first
    assert ["endless", "again"] == second[::2]
    assert second[1].startswith("word word")


def test_interrupted_prompt(chat):
    """Ctrl-C at the prompt discards the line, and sends nothing."""
    server, terminal = chat()
    terminal.type(b"do not send")
    terminal.wait_for("do not send")
    time.sleep(0.5)  # readline notices no signal while it handles a key, and it still handles the last one
    terminal.screen = ""
    terminal.type(b"\x03")
    terminal.wait_for("> ")  # the system discards what is typed before the signal is handled
    say(terminal, "hi", "You said: hi")

    assert [["hi"]] == sent(server)


def test_pasted_lines(chat):
    """Lines that are pasted together are one message."""
    server, terminal = chat()
    say(terminal, "one\rtwo", "two")
    terminal.wait_for("in this chat")

    assert [["one\ntwo"]] == sent(server)


def test_failed_reply(chat):
    """An error is one line, after which the chat goes on without the message."""
    server, terminal = chat()
    server.fail(400, message="No way.")
    shown = say(terminal, "one", "No way.")
    say(terminal, "two", "You said: two")

    assert "Traceback" not in shown
    assert [["one"], ["two"]] == sent(server)


def test_earlier_lines(chat):
    """The up key repeats an earlier message, where Python has readline."""
    pytest.importorskip("readline")
    server, terminal = chat()
    say(terminal, "one", "You said: one")
    say(terminal, "\x1b[A", "in this chat")

    assert ["one", "You said: one", "one"] == sent(server)[1]


class TestCommands:
    def test_reset(self, chat):
        """/reset forgets the messages, but not the system message."""
        server, terminal = chat("--system", "S")
        say(terminal, "one", "You said: one")
        say(terminal, "/reset", "forgotten")
        say(terminal, "two", "You said: two")

        assert [["S", "one"], ["S", "two"]] == sent(server)

    def test_save(self, run, server, folder):
        """/save writes the messages as JSON, and replaces no file."""
        done = run("chat", stdin="Grüße\n/save chat.json\n/save chat.json\n/save\n".encode())

        assert (0, "You said: Grüße\n") == (done.status, done.out)
        messages = [{"role": "user", "content": "Grüße"}, {"role": "assistant", "content": "You said: Grüße"}]
        assert {"model": "gpt-5", "messages": messages} == json.loads((folder / "chat.json").read_bytes())
        assert ["2 messages saved to chat.json", "neuralbox: chat.json: File exists"] == done.err.splitlines()[:2]
        assert "/save FILE" in done.err.splitlines()[2]

    @pytest.mark.parametrize("line", ["/exit", "/saved x", "/reset all", "/"])
    def test_unknown(self, run, server, line):
        """A line that is no command is not sent; with a blank before it, it is."""
        done = run("chat", stdin=f"{line}\n {line}\n".encode())

        assert f"You said:  {line}\n" == done.out
        assert "not sent" in done.error_line

    def test_help_and_quit(self, run, server):
        """/help shows the commands; after /quit nothing is read."""
        done = run("chat", stdin=b"/help\n/quit\nnever\n")

        assert (0, "", ()) == (done.status, done.out, server.requests)
        for command in ("/reset", "/save FILE", "/help", "/quit", "Ctrl-C"):
            assert command in done.err


class TestPipes:
    def test_lines(self, run, server):
        """With pipes, each line is a message, and stdout has only the replies."""
        done = run("chat", stdin=b"one\n\n  \ntwo\n")

        assert (0, "You said: one\nYou said: two\n", "") == (done.status, done.out, done.err)
        assert ["one", "You said: one", "two"] == sent(server)[1]

    def test_invalid_bytes(self, run, server):
        """A line that is not UTF-8 is not sent."""
        done = run("chat", stdin=b"caf\xe9\nhi\n")

        assert "You said: hi\n" == done.out
        assert "not valid UTF-8" in done.error_line

    def test_closed(self, run, server):
        """With stdin closed there is nothing to say."""
        assert (2, ()) == (run("chat", stdin=None).status, server.requests)

    def test_local(self, run):
        """--local needs no key."""
        assert "You said: hi\n" == run("chat", "--local", stdin=b"hi\n").out

    def test_no_key(self, run):
        """Without a key there is one line on stderr."""
        done = run("chat", stdin=b"hi\n")

        assert (2, "") == (done.status, done.out)
        assert "NEURALBOX_API_KEY" in done.error_line
