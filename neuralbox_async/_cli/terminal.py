"""Standard output and standard error: what is written to them, and what is shown at a terminal only."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Final, Literal, cast

from neuralbox_async._cli.error_messages import error_line, printable_line, retrieve_hint

if TYPE_CHECKING:
    from rich.console import Console

    from neuralbox_async import Generation, ParsingError

# Control characters in a generated text could move the cursor, rename the window or fill the clipboard.
_CONTROLS: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}")
_HARMLESS: Final = {ord("\n"): "\n", ord("\t"): "\t", ord("\r"): ""}
_FOR_TERMINALS: Final = {**_CONTROLS, **_HARMLESS}
_STDERR: Final = 2  # its descriptor
_kept: Final[list[IO[str]]] = []


class _ClosedStdout(io.TextIOBase):
    """Stdout of a process that was started without one: what is written would be lost, so writing fails."""

    encoding = "utf-8"

    def writable(self) -> bool:
        return True

    def write(self, _text: str, /) -> int:
        raise OSError(errno.EBADF, "stdout is closed")


def configure_streams() -> None:
    """
    Make stdout and stderr encode any text as UTF-8, whatever the locale.

    A closed stderr is replaced by the null device, and a closed stdout by a stream that fails. A pipe that another
    program made non-blocking blocks again: otherwise writing fails when the reader is slow.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            null = _null_device()  # stays open: no other file gets the descriptor
            setattr(sys, name, null if name == "stderr" else _ClosedStdout())
            _kept.append(null)
        elif isinstance(stream, io.TextIOWrapper):
            buffer: object = cast("io.TextIOWrapper", stream).buffer
            if isinstance(buffer, io.FileIO):
                # PYTHONUNBUFFERED: what the system did not write, because the disk is full, would be lost silently.
                stream = io.TextIOWrapper(io.BufferedWriter(buffer))
                setattr(sys, name, stream)
            _set_blocking(cast("IO[str]", stream))
            stream.reconfigure(encoding="utf-8", errors="replace")


def _set_blocking(stream: IO[str]) -> None:
    """Have writes to *stream* wait for a slow reader."""
    with suppress(OSError, ValueError, AttributeError):  # no descriptor; Windows has this for pipes, since Python 3.12
        os.set_blocking(stream.fileno(), True)


def check_stdout() -> None:
    """Raise `OSError` when stdout is closed, full, or a pipe without a reader: to be called before money is spent."""
    if isinstance(sys.stdout, _ClosedStdout):
        sys.stdout.write("")
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # an object without a descriptor, as in notebooks
        return
    os.write(descriptor, b"")
    if hasattr(select, "poll"):  # not on Windows
        poll = select.poll()
        poll.register(descriptor, 0)  # errors only
        if poll.poll(0):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def finish_output(status: int) -> int:
    """Write what is left in the buffer of stdout; return *status*, or 1 if that is 0 and stdout cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        if status == 0:  # otherwise the error is known
            print_error(error_line(error))
        discard_output()
        return status or 1
    return status


def discard_output() -> None:
    """Discard buffered output: the interpreter would try to write it once more at exit, and print an error."""
    # From CPython 3.15 on, a stream keeps what it could not write, and tries again when it is finalized.
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    for name in ("stdout", "stderr"):
        setattr(sys, name, _null_device())


def _null_device() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open until the process ends


def print_error(line: str, *, after_echo: bool = False) -> None:
    """
    Write *line* to stderr. *after_echo*: a terminal has just shown ``^C``; begin on the next line there.

    A stderr that cannot be written, because its disk is full or its reader gone, is discarded: it must not change the
    exit status.
    """
    start = "\n" if after_echo and sys.stderr.isatty() else ""
    try:
        sys.stderr.write(f"{start}{line}\n")
        sys.stderr.flush()
    except OSError:
        discard_stderr()


def discard_stderr() -> None:
    """Discard what is written to stderr from now on, and what is in its buffer."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, _STDERR)
        os.close(null)


class TextWriter:
    """Writes text to stdout. At a terminal, control characters other than line breaks and tabs are replaced."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._in_line = False

    def write(self, text: str) -> None:
        """Write *text*. Raises `OSError`, such as `BrokenPipeError` when the reader has closed the pipe."""
        if not text:
            return
        self._in_line = False  # if this fails, there is no line to end
        sys.stdout.write(text.translate(_FOR_TERMINALS) if self._is_terminal else text)
        sys.stdout.flush()
        self._in_line = not text.endswith("\n")

    def end_line(self) -> None:
        """Write a line break unless the text ends with one."""
        if self._in_line:
            self.write("\n")


def print_unwritten(generation: Generation) -> None:
    """Write to stderr the text of *generation*, of which stdout did not get all, or how to get it."""
    if generation.id is not None:
        print_error(f"neuralbox: not all of the text was written; {retrieve_hint(generation.id)}")
    elif generation.content or generation.url:
        print_error("neuralbox: this text was not written to stdout, or not all of it:")
        print_error((generation.content or generation.url or "").translate(_FOR_TERMINALS))


def print_invalid_text(error: ParsingError) -> None:
    """Write to stderr the text of *error*, which is billed: stdout gets valid output only."""
    print_error("neuralbox: this text is not valid:")
    print_error(error.text.translate(_FOR_TERMINALS))


def console(stream: IO[str]) -> Console:
    """Return a rich console on *stream* that does not wrap lines, and has no colours if NO_COLOR is set."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - the BrokenPipeError that rich caught; rich would exit with a status of its own

    color_system: Literal["auto"] | None
    # Without a colour system rich also omits faint and bold, which it would otherwise keep.
    color_system = None if os.environ.get("NO_COLOR") else "auto"
    return _Console(file=stream, color_system=color_system, soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def spinner(text: str) -> Generator[Callable[[], None]]:
    """Show a spinner with *text* on stderr, if that is a terminal; yield a function that removes it early."""
    if not sys.stderr.isatty():
        yield _do_nothing
        return
    with console(sys.stderr).status(printable_line(text)) as status:
        yield status.stop


def _do_nothing() -> None:
    pass


def print_footer(generation: Generation, elapsed: float) -> None:
    """Write the cost, the time (*elapsed*, in seconds) and the id of *generation* to stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        return
    facts = (*cost_facts(generation), f"{elapsed:.2f} s", None if generation.id is None else str(generation.id))
    console(sys.stderr).print(printable_line(" · ".join(filter(None, facts))), style="dim")


def counted(number: int, noun: str) -> str:
    """Return *number* with *noun*, which gets an "s" unless the number is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def cost_facts(generation: Generation) -> list[str]:
    """Return what is known of the cost of *generation*: its tokens, and the balance that is left."""
    used, left = generation.tokens_used, generation.balance_remaining
    facts: list[str] = []
    if used is not None:
        facts.append(counted(used, "token"))
    if left is not None:
        facts.append(f"{left:,} left")
    return facts
