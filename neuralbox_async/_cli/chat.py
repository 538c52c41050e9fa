"""`neuralbox chat`: a conversation at the terminal."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from neuralbox_async import NOT_GIVEN, Generation, Message, NeuralBoxError
from neuralbox_async._cli import options
from neuralbox_async._cli.chat_input import configure_input, read_message
from neuralbox_async._cli.error_messages import error_line, printable_line
from neuralbox_async._cli.terminal import (
    TextWriter,
    check_stdout,
    console,
    counted,
    print_error,
    print_unwritten,
    spinner,
)

if TYPE_CHECKING:
    from neuralbox_sync import NeuralBox, Stream

_LOCAL_EVENT_INTERVAL: Final = 0.02  # seconds between the events of a local stream at a terminal
_HELP: Final = """\
/reset      forget the messages so far, except for the system message
/save FILE  write the messages to a new file, as JSON
/help       show these commands
/quit       leave the chat, as Ctrl-D does
Ctrl-C ends a reply. A message that begins with a slash needs a blank before it."""


@click.command(short_help="Have a conversation.")
@options.model
@options.system
@options.temperature
@options.max_tokens
@options.local
@click.option("--timeout", type=options.SECONDS, metavar="SECONDS", help="Time limit of a reply, including retries.")
def chat(
    *,
    model: str,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    local: bool,
    timeout: float | None,
) -> None:
    """
    Have a conversation: each line is a message, and the reply is printed while it is generated.

    The API keeps no conversation: each message is sent with all messages before it. A paste of several lines is one
    message. Ctrl-C stops the reply, and Ctrl-D ends the chat. /help shows the commands.

    \b
    Examples:
      neuralbox chat
      neuralbox chat --model claude-sonnet-4.5 --system "Reply in one sentence."
      neuralbox chat --local
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    check_stdout()
    configure_input()
    parameters = {
        "model": model,
        "temperature": temperature,
        "max_tokens": max_tokens,
        "timeout": NOT_GIVEN if timeout is None else timeout,
    }
    with _open_client(local=local) as client, client:
        Chat(client, parameters, system).run()


@contextmanager
def _open_client(*, local: bool) -> Generator[NeuralBox]:
    """Yield a client of a temporary local server, or one that the environment configures."""
    from neuralbox_sync import NeuralBox  # not above: the other commands do not need it

    if not local:
        yield NeuralBox()
        return
    from neuralbox_async.testing import NeuralBoxServer

    with NeuralBoxServer(event_interval=_LOCAL_EVENT_INTERVAL if sys.stdout.isatty() else 0.0) as server:
        yield NeuralBox(server.api_key, base_url=server.base_url)


class Chat:
    """A conversation with *client*; *parameters* are those of each call."""

    def __init__(self, client: NeuralBox, parameters: dict[str, Any], system: str | None) -> None:
        self._client, self._parameters = client, parameters
        self._system = [] if system is None else [Message("system", system)]
        self._messages: list[Message] = []  # a reply follows each message of the user
        self._tokens = 0
        self._unknown_bills = 0

    def run(self) -> None:
        """Read messages and print the replies until stdin ends. Raises `OSError` when stdout cannot be written."""
        is_interactive = sys.stdin.isatty() and sys.stderr.isatty()
        if is_interactive:
            print_error(
                printable_line(f"Chat with {self._parameters['model']}; /help shows the commands, Ctrl-D leaves")
            )
        while True:
            try:
                text = read_message()
                if text is None or text.strip() == "/quit":
                    break
                if text.startswith("/"):
                    self._execute(text)
                elif text.strip():
                    self._reply(text)
            except KeyboardInterrupt:
                print_error("")  # at the prompt: the next one begins a line
        if is_interactive and (self._tokens or self._unknown_bills):
            print_error(self._summary())

    def _reply(self, text: str) -> None:
        messages = [*self._system, *self._messages, Message("user", text)]
        stream = self._client.stream(messages=messages, **self._parameters)
        started = time.monotonic()
        problem = ""
        try:
            problem = self._print_reply(stream)
        finally:
            # After an error, too: the text that arrived is a part of the conversation.
            reply = stream.generation
            if reply.content:
                self._messages += [Message("user", text), Message("assistant", reply.content)]
            self._tokens += reply.tokens_used or 0
        self._print_cost(reply, time.monotonic() - started)
        if problem:
            print_error(problem)

    def _print_reply(self, stream: Stream) -> str:
        """Print the text of *stream* while it arrives; return the line about what ended it early, if anything did."""
        writer = TextWriter()
        try:
            with spinner(f"waiting for {self._parameters['model']}") as stop_spinner, stream:
                for text in stream.text_stream:
                    stop_spinner()
                    writer.write(text)
        except KeyboardInterrupt:
            self._unknown_bills += 1
            return "neuralbox: the reply was ended; what had been generated may have been billed"
        except NeuralBoxError as error:
            self._unknown_bills += error.billed == "unknown"
            # Text that arrived in another way than by events is billed, too.
            writer.write(error.text.removeprefix(stream.generation.content))
            return error_line(error)
        except OSError:
            print_unwritten(stream.generation)
            raise
        finally:
            writer.end_line()
        if stream.generation.url and not stream.generation.content:
            writer.write(f"{stream.generation.url}\n")
        return ""

    def _print_cost(self, reply: Generation, elapsed: float) -> None:
        if reply.tokens_used is None or not sys.stderr.isatty():
            return
        facts = [counted(reply.tokens_used, "token"), f"{self._tokens:,} in this chat"]
        if reply.balance_remaining is not None:
            facts.append(f"{reply.balance_remaining:,} left")
        console(sys.stderr).print(printable_line(" · ".join([*facts, f"{elapsed:.2f} s"])), style="dim")

    def _summary(self) -> str:
        total, unknown = f"{counted(self._tokens, 'token')} in this chat", self._unknown_bills
        if not unknown:
            return total
        return f"{total}; {unknown:,} more {'reply' if unknown == 1 else 'replies'} may have been billed"

    # --------------------------------------------------------------------------------------------------------- commands

    def _execute(self, line: str) -> None:
        command, _, argument = line.strip().partition(" ")
        match command, argument.strip():
            case "/help", "":
                print_error(_HELP)
            case "/reset", "":
                self._messages.clear()
                print_error("The messages so far are forgotten.")
            case "/save", path if path:
                self._save(path)
            case "/save", _:
                print_error("neuralbox: name the file: /save FILE")
            case _:
                unknown = f"neuralbox: {line.strip()} is not a command of the chat, and was not sent; /help lists them"
                print_error(printable_line(unknown))

    def _save(self, path: str) -> None:
        messages = [{"role": message.role, "content": message.content} for message in self._system + self._messages]
        try:
            with open(path, "x", encoding="utf-8") as file:  # noqa: PTH123 - one path, one style
                json.dump(
                    {"model": self._parameters["model"], "messages": messages}, file, ensure_ascii=False, indent=2
                )
                file.write("\n")
        except OSError as error:
            print_error(error_line(error))
        else:
            print_error(printable_line(f"{counted(len(messages), 'message')} saved to {path}"))
