"""The problems of a value that is not of an output type, from the errors of cattrs and of the user's own classes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Final, cast

import attrs

from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import json
from neuralbox_async._wire.json_paths import json_path
from neuralbox_async._wire.output_fields import member_of

MAX_PROBLEMS: Final = 100
"""How many problems of one value are reported."""


def first_problems(error: BaseException) -> tuple[Problem, ...]:
    """Return the first problems that an *error* of the detailed converter, or of a hook, stands for; at least one."""
    return tuple(itertools.islice(_problems(error, ()), MAX_PROBLEMS)) or (Problem("$", "invalid"),)


def _problems(error: BaseException, path: tuple[str | int, ...]) -> Iterable[Problem]:
    from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError, IterableValidationError

    if isinstance(error, ClassValidationError):
        noted, others = error.group_exceptions()
        for inner, note in noted:
            member = member_of(error.cl, note.name)
            step = (*path, member)
            if isinstance(inner, KeyError) and inner.args == (member,):
                yield Problem(json_path(step), "a required member is missing")
            else:
                yield from _problems(inner, step)
        for inner in others:
            yield from _problems(inner, path)
    elif isinstance(error, IterableValidationError):
        for inner, index in error.group_exceptions()[0]:
            yield from _problems(inner, (*path, index.index))
    elif isinstance(error, ForbiddenExtraKeysError):
        for name in sorted(error.extra_fields):
            yield Problem(json_path((*path, name)), "there is no such member")
    elif isinstance(error, InvalidOutputError):
        root = json_path(path)
        yield from (Problem(root + problem.path.removeprefix("$"), problem.reason) for problem in error.problems)
    else:
        yield _problem(error, path)


def _problem(error: BaseException, path: tuple[str | int, ...]) -> Problem:
    """Return the problem of an *error* of a scalar, or of the user's own class."""
    if len(error.args) > 1 and isinstance(error.args[1], attrs.Attribute):  # of a validator of attrs, with its field
        field = cast("attrs.Attribute[object]", error.args[1])
        return Problem(json_path((*path, field.alias or field.name)), _shown(error.args[0]))
    return Problem(json_path(path), _reason(error))


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return _shown(error) or type(error).__name__


def _shown(reason: object) -> str:
    try:
        return json.one_line(str(reason))
    except Exception:  # noqa: BLE001 - of the user's own class
        return ""


def count_of(error: BaseException) -> int:
    """Return how many errors are in *error*."""
    if isinstance(error, BaseExceptionGroup):
        return sum(map(count_of, cast("BaseExceptionGroup[BaseException]", error).exceptions))
    return 1
