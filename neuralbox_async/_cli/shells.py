"""Command lines for the shells that a user may have: POSIX shells, PowerShell and cmd."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

Shell: TypeAlias = Literal["sh", "PowerShell", "cmd"]

# Words without quotes. PowerShell splits an option such as -a.b, and reads a comma as a list.
_PLAIN_IN_POWERSHELL: Final = re.compile(r"--?[a-z][\w-]*|[\w./\\:][\w./\\:-]*", re.ASCII | re.IGNORECASE)
_PLAIN_IN_CMD: Final = re.compile(r'[^\s"%^&|<>()!,;=]+')
_SPECIAL_IN_CMD: Final = re.compile(r'([()%!^"<>&|])')
_QUOTES_IN_POWERSHELL: Final = re.compile("(['\u2018\u2019\u201a\u201b])")  # it reads typographic quotes as quotes
_VARIABLE: Final = re.compile("%[^%]+%")
_LINE_BREAK: Final = re.compile(r"[\r\n]")


def user_shells() -> tuple[Shell, ...]:
    """Return the shells in which the user of this process may type the next command."""
    return ("PowerShell", "cmd") if os.name == "nt" else ("sh",)


def command_lines(arguments: Sequence[str], shells: Sequence[Shell]) -> dict[str, str]:
    """
    Return *arguments* as a command line for each of *shells*; only one, for "", if it is the same for all.

    A shell that cannot express them is left out: cmd has no line breaks.
    """
    lines: dict[str, str] = {shell: line for shell in shells if (line := _WRITE[shell](arguments)) is not None}
    if len(lines) == len(shells) and len(set(lines.values())) == 1:
        return {"": lines[shells[0]]}
    return dict(lines)


def set_commands(variables: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the commands that set the environment *variables*, by the names of shells."""
    return {
        "bash, zsh, fish": [f"export {name}={shlex.quote(value)}" for name, value in variables.items()],
        "PowerShell": [f"$env:{name} = {_single_quoted(value)}" for name, value in variables.items()],
        # Without quotes, which would be a part of the value.
        "cmd": [f"set {name}={_caret_escaped(value)}" for name, value in variables.items()],
    }


def _for_powershell(arguments: Sequence[str]) -> str | None:
    program, *rest = arguments
    call = program if _PLAIN_IN_POWERSHELL.fullmatch(program) else f"& {_single_quoted(program)}"
    if not any(not word or '"' in word or word.endswith("\\") for word in rest):
        return " ".join([call, *map(_powershell_word, rest)])
    # Windows PowerShell passes these to programs incorrectly, later versions correctly: only the text after --% is
    # passed unchanged by both. Variables are replaced in it, and it ends with the line.
    if any(_VARIABLE.search(word) or _LINE_BREAK.search(word) for word in rest):
        return None
    return f"{call} --% {' '.join(word if _PLAIN_IN_CMD.fullmatch(word) else _runtime_quoted(word) for word in rest)}"


def _powershell_word(word: str) -> str:
    return word if _PLAIN_IN_POWERSHELL.fullmatch(word) else _single_quoted(word)


def _single_quoted(text: str) -> str:
    return "'" + _QUOTES_IN_POWERSHELL.sub(r"\1\1", text) + "'"


def _for_cmd(arguments: Sequence[str]) -> str | None:
    if any(_LINE_BREAK.search(word) for word in arguments):
        return None
    return " ".join(map(_cmd_word, arguments))


def _cmd_word(word: str) -> str:
    if _PLAIN_IN_CMD.fullmatch(word):
        return word
    quoted = _runtime_quoted(word)
    # In quotes, cmd replaces variables all the same, and it does not know \" for a quote: then it must see no quotes.
    return _caret_escaped(quoted) if re.search('["%!]', word) else quoted


def _caret_escaped(text: str) -> str:
    return _SPECIAL_IN_CMD.sub(r"^\1", text)


def _runtime_quoted(word: str) -> str:
    """Return *word* quoted for the C runtime, which splits the command line of a program on Windows."""
    return '"' + re.sub(r"(\\*)$", r"\1\1", re.sub(r'(\\*)"', r'\1\1\\"', word), count=1) + '"'


_WRITE: Final = {"sh": shlex.join, "PowerShell": _for_powershell, "cmd": _for_cmd}
