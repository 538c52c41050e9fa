"""Standard output and standard error: what may be written there, and what only a person at a terminal sees."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, Literal

from neuralbox_async._cli._failures import one_line

if TYPE_CHECKING:
    from rich.console import Console

    from neuralbox_async import Generation

# A model, or whoever wrote into its prompt, could otherwise move the cursor, rename the window or fill the clipboard.
_CONTROLS: Final = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "\N{REPLACEMENT CHARACTER}")
_HARMLESS: Final = {ord("\n"): "\n", ord("\t"): "\t", ord("\r"): ""}
_FOR_TERMINALS: Final = {**_CONTROLS, **_HARMLESS}


def prepare() -> None:
    """Let stdout and stderr take any text, as UTF-8, whatever the locale says; one that is closed swallows it."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _nowhere())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="replace")


def forget_output() -> None:
    """Let nothing that is still buffered be written: the interpreter would try once more at its end, and complain."""
    for name in ("stdout", "stderr"):
        setattr(sys, name, _nowhere())


def _nowhere() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - open until the process ends


def complain(line: str, *, after_echo: bool = False) -> None:
    """Write *line* to stderr; *after_echo*, after a ``^C`` that a terminal has just shown, on the next line there."""
    start = "\n" if after_echo and sys.stderr.isatty() else ""
    sys.stderr.write(f"{start}{line}\n")
    sys.stderr.flush()


class Page:
    """Text on stdout, each piece seen at once. A terminal gets no control characters but line breaks and tabs."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._line_is_open = False

    def write(self, text: str) -> None:
        """Write *text*. Raises `BrokenPipeError` when nobody reads it any more."""
        if not text:
            return
        sys.stdout.write(text.translate(_FOR_TERMINALS) if self._is_terminal else text)
        sys.stdout.flush()
        self._line_is_open = not text.endswith("\n")

    def end_line(self) -> None:
        """End the last line if it is not."""
        if self._line_is_open:
            self.write("\n")


def console(stream: IO[str]) -> Console:
    """Return a rich console on *stream* that wraps nothing, and without colours where there is NO_COLOR."""
    from rich.console import Console

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise  # noqa: PLE0704 - the BrokenPipeError that rich has caught; it would exit with a status of its own

    color_system: Literal["auto"] | None
    # Without a colour system rich leaves out faint and bold as well, which otherwise stay.
    color_system = None if os.environ.get("NO_COLOR") else "auto"
    return _Console(file=stream, color_system=color_system, soft_wrap=True, highlight=False, markup=False, emoji=False)


@contextmanager
def waiting(model: str) -> Generator[Callable[[], None]]:
    """Show on stderr, if that is a terminal, that *model* is awaited; hand out a function that ends it."""
    if not sys.stderr.isatty():
        yield _nothing
        return
    with console(sys.stderr).status(one_line(f"waiting for {model}")) as status:
        yield status.stop


def _nothing() -> None:
    pass


def footer(generation: Generation, seconds: float) -> None:
    """Write what *generation*, which took *seconds*, cost to stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        return
    facts = (*costs(generation), f"{seconds:.2f} s", None if generation.id is None else str(generation.id))
    console(sys.stderr).print(one_line(" · ".join(filter(None, facts))), style="dim")


def costs(generation: Generation) -> list[str]:
    """Return what is known of the cost of *generation*, in words."""
    used, left = generation.tokens_used, generation.balance_remaining
    facts: list[str] = []
    if used is not None:
        facts.append(f"{used:,} token{'' if used == 1 else 's'}")
    if left is not None:
        facts.append(f"{left:,} left")
    return facts
