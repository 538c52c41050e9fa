"""The error messages of the command: one line on stderr for each error, without the API key."""

from __future__ import annotations

import os
import shlex
from typing import Final

import click

from neuralbox_async import (
    APIStatusError,
    InvalidParameterError,
    NeuralBoxError,
    NotFoundError,
    RequestChangedError,
)

_ERROR, _USAGE_ERROR = 1, 2
_MAX_KEYS_SHOWN = 5
_MIN_KEY_LENGTH = 6  # a shorter key would be replaced inside ordinary words
# The variables that set the parameters for which there is no option.
_ENVIRONMENT: Final = {"api_key": "NEURALBOX_API_KEY", "base_url": "NEURALBOX_BASE_URL"}


def exit_status(error: NeuralBoxError) -> int:
    """Return the exit status for *error*: 2 for an invalid parameter, 1 for all others."""
    return _USAGE_ERROR if isinstance(error, InvalidParameterError) else _ERROR


def error_line(error: click.ClickException | NeuralBoxError | OSError) -> str:
    """Return the message for *error* as one printable line that begins with the command's name."""
    match error:
        case click.UsageError():
            command = "neuralbox" if error.ctx is None else error.ctx.command_path
            return printable_line(f"{command}: {error.format_message().rstrip('.')} (see {command} --help)")
        case click.ClickException():
            return printable_line(f"neuralbox: {error.format_message()}")
        case InvalidParameterError():
            return printable_line(f"neuralbox: {_invalid_parameter(error)}")
        case RequestChangedError():
            return printable_line(f"neuralbox: {_changed_requests(error)}")
        case NeuralBoxError():
            return printable_line(f"neuralbox: {'; '.join(_facts(error))}")
        case _:
            return printable_line(f"neuralbox: {_system_error(error)}")


def printable_line(text: str) -> str:
    """Return *text*, which may come from outside, as one printable line without the API key."""
    line = " ".join(text.split())
    key = os.environ.get("NEURALBOX_API_KEY", "").strip()
    if len(key) >= _MIN_KEY_LENGTH:
        line = line.replace(key, "***")
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _invalid_parameter(error: InvalidParameterError) -> str:
    if error.parameter == "api_key" and not os.environ.get("NEURALBOX_API_KEY"):
        return "no API key: set NEURALBOX_API_KEY" + (", or use --local, which needs none" if _has_local() else "")
    if error.parameter in _ENVIRONMENT:
        value = f", not {error.value}" if error.value else ""  # empty: it may be a secret
        return f"{_ENVIRONMENT[error.parameter]} must be {error.rule}{value}"
    return error.message.replace(", or None", "")  # a word of Python


def _has_local() -> bool:
    """Return whether the command that runs, or that has just ended, has the option --local."""
    context = click.get_current_context(silent=True)
    command = None if context is None else context.command
    if context is not None and isinstance(command, click.Group):
        command = command.commands.get(context.invoked_subcommand or "")
    return command is not None and any(parameter.name == "local" for parameter in command.params)


def _changed_requests(error: RequestChangedError) -> str:
    """Return the message of *error* with the options of the command in place of Python's."""
    keys = ", ".join(map(str, error.keys[:_MAX_KEYS_SHOWN])) + (", ..." if len(error.keys) > _MAX_KEYS_SHOWN else "")
    return (
        f"{len(error.keys):,} of the rows differ from those that earlier runs sent with the same keys ({keys}); "
        "nothing was sent (--on-changed skip keeps the earlier results, --on-changed retry pays for new ones)"
    )


def _facts(error: NeuralBoxError) -> list[str]:
    facts = [error.message]
    if isinstance(error, APIStatusError) and error.retry_after is not None:
        facts.append(f"try again in {error.retry_after:g} s")
    generation_id = error.generation_id
    if error.billed == "no":
        facts.extend([] if generation_id is None else [f"generation {shlex.quote(str(generation_id))} was not billed"])
    elif generation_id is None:
        facts.append("it may have been billed")
    elif not isinstance(error, NotFoundError):
        facts.append(retrieve_hint(generation_id))
    return facts


def retrieve_hint(generation_id: str | int) -> str:
    """Return the sentence that says how to get the text of a generation."""
    command = f"neuralbox retrieve {shlex.quote(str(generation_id))}"
    return f"`{command}` prints the whole text if the generation was completed"


def _system_error(error: OSError) -> str:
    message = error.strerror or str(error)
    return message if error.filename is None else f"{error.filename}: {message}"
