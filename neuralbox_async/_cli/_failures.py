"""What a failure looks like on stderr: one line, whatever went wrong, and never with the key in it."""

from __future__ import annotations

import os
import shlex
from typing import Final

import click

from neuralbox_async import APIStatusError, InvalidParameterError, NeuralBoxError

_FAILURE, _USAGE = 1, 2
_SHORTEST_KEY = 6  # a shorter one would be found in ordinary words
# Where a value comes from that no option sets.
_ENVIRONMENT: Final = {"api_key": "NEURALBOX_API_KEY", "base_url": "NEURALBOX_BASE_URL"}


def status_of(error: NeuralBoxError) -> int:
    """Return the exit status for *error*: 2 for a wrong value, which the user gave, 1 for the rest."""
    return _USAGE if isinstance(error, InvalidParameterError) else _FAILURE


def described(error: click.ClickException | NeuralBoxError | OSError) -> str:
    """Return *error* as one printable line that begins with the command's name."""
    match error:
        case click.UsageError():
            command = "neuralbox" if error.ctx is None else error.ctx.command_path
            return one_line(f"{command}: {error.format_message().rstrip('.')} (see {command} --help)")
        case click.ClickException():
            return one_line(f"neuralbox: {error.format_message()}")
        case InvalidParameterError():
            return one_line(f"neuralbox: {_wrong_value(error)}")
        case NeuralBoxError():
            return one_line(f"neuralbox: {'; '.join(_facts(error))}")
        case _:
            return one_line(f"neuralbox: {_system_error(error)}")


def one_line(text: str) -> str:
    """Return *text*, which may come from anywhere, as one printable line without the key."""
    line = " ".join(text.split())
    key = os.environ.get("NEURALBOX_API_KEY", "").strip()
    if len(key) >= _SHORTEST_KEY:
        line = line.replace(key, "***")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _wrong_value(error: InvalidParameterError) -> str:
    if error.parameter == "api_key" and not os.environ.get("NEURALBOX_API_KEY"):
        return "no API key: set NEURALBOX_API_KEY, or use --local, which needs none"
    if error.parameter in _ENVIRONMENT:
        return f"{_ENVIRONMENT[error.parameter]} must be {error.rule}, not {error.shown}"
    return error.message


def _facts(error: NeuralBoxError) -> list[str]:
    facts = [error.message]
    if isinstance(error, APIStatusError) and error.retry_after is not None:
        facts.append(f"try again in {error.retry_after:g} s")
    known = None if error.generation_id is None else shlex.quote(str(error.generation_id))
    if error.billed == "no":
        facts.extend([] if known is None else [f"generation {known} was not billed"])
    elif known is None:
        facts.append("it may have been billed")
    else:
        facts.append(f"`neuralbox retrieve {known}` gets the whole of generation {known}, if it was finished")
    return facts


def _system_error(error: OSError) -> str:
    what = error.strerror or str(error)
    return what if error.filename is None else f"{error.filename}: {what}"
