"""The prompt and the images of `neuralbox generate`: from the command line, from files and from stdin."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO

import click

from neuralbox_async import ImagePart, NeuralBoxError
from neuralbox_async._cli.pipes import read_chunks
from neuralbox_async._cli.terminal import print_error


def read_images(paths: Sequence[str]) -> list[ImagePart]:
    """Return the images in the files *paths*; "-" is stdin. Raises `click.BadParameter`."""
    if paths.count("-") > 1:
        raise _invalid_image("stdin can have only one image.")
    return [_read_image(path) for path in paths]


def _read_image(path: str) -> ImagePart:
    name = "stdin" if path == "-" else repr(path)
    try:
        return ImagePart.from_bytes(_read_more()) if path == "-" else ImagePart.from_file(path)
    except NeuralBoxError:
        raise _invalid_image(f"{name} is not an image.") from None
    except OSError as error:
        raise _invalid_image(f"{name} cannot be read: {error.strerror}.") from None


def _invalid_image(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="'--image'")


def read_prompt(argument: str | None, *, reads_stdin: bool) -> str:
    """
    Return the prompt: *argument*, and below it what stdin has, unless that is a terminal or has an image.

    Raises `click.UsageError`.
    """
    if argument is None or argument == "-":
        if not reads_stdin:
            raise click.UsageError("Stdin has the image: pass the prompt as an argument.")
        text = _decoded(_read_stdin(even_terminal=argument == "-"))
    else:
        more = _decoded(_read_more()) if reads_stdin and argument.strip() else ""
        text = f"{argument}\n\n{more}" if more.strip() else argument
    if not text or text.isspace():
        raise click.UsageError("The prompt is empty.")
    return text


def _read_stdin(*, even_terminal: bool) -> bytes:
    stdin: TextIO | None = sys.stdin  # None if the process was started with stdin closed
    if stdin is None or (stdin.isatty() and not even_terminal):
        raise click.UsageError("There is no prompt: pass it as an argument or on stdin.")
    return b"".join(read_chunks(stdin.buffer))


def _read_more() -> bytes:
    """Return what stdin has besides the argument, if anything."""
    stdin: TextIO | None = sys.stdin
    if stdin is None or stdin.isatty():
        return b""
    return b"".join(read_chunks(stdin.buffer, on_wait=_explain_wait))


def _explain_wait() -> None:
    print_error("neuralbox: waiting for stdin, which is sent below the prompt; < /dev/null sends the prompt alone")


def _decoded(data: bytes) -> str:
    try:
        # Not the locale's encoding: the meaning of a prompt must not depend on the machine.
        return data.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"The prompt on stdin is not valid UTF-8: byte {error.start} is invalid.") from None
