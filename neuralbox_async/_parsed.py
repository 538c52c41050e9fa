"""The results of `AsyncNeuralBox.parse`: the value with the generations that it took, or an error that has them all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import attrs

from neuralbox_async._errors import BillingStatus, NeuralBoxError
from neuralbox_async._types import Generation, GenerationId

T = TypeVar("T")

_SHOWN = 3  # problems in the message of an error
_MAX_LENGTH = 300  # characters of a problem in a message


def _encodable(text: str) -> str:
    """Return *text* with escapes of lone surrogates, which come from the generated text: it is sent in a repair."""
    return text.encode(errors="backslashreplace").decode()


@attrs.frozen
class Problem:
    """
    One reason why a text is not a value of the requested type.

    * *path*: the place in the JSON value, such as ``"$.items[0].price"``; ``"$"`` is the whole value.
    * *reason*: such as ``"expected an integer, got a string"``.
    """

    path: str = attrs.field(converter=_encodable)
    reason: str = attrs.field(converter=_encodable)

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class InvalidOutputError(Exception):
    """
    A generated text, or a JSON value, is not a value of the output type; *problems* has at least one.

    Where most of them are never read, *find* returns them later, and *count* is how many there are.
    """

    def __init__(
        self, problems: tuple[Problem, ...], count: int = 0, find: Callable[[], tuple[Problem, ...]] | None = None
    ) -> None:
        super().__init__(problems, count, find)
        self._problems = problems
        self._find = find
        self.count = count or len(problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        if self._find is not None:
            self._problems, self._find = self._find(), None
        return self._problems

    def copy(self) -> InvalidOutputError:
        """Return one without the traceback, whose frames lead back to it, and without the notes."""
        return InvalidOutputError(self._problems, self.count, self._find)

    def __str__(self) -> str:
        return summary_of(self.problems)


def shortened(problem: Problem) -> str:
    """Return the *problem* as a line, whose path and reason may have come from a long text."""
    line = " ".join(str(problem).split())
    return line if len(line) <= _MAX_LENGTH else f"{line[: _MAX_LENGTH // 2]} ... {line[-_MAX_LENGTH // 2 :]}"


def summary_of(problems: tuple[Problem, ...]) -> str:
    """Return the first *problems* as one line."""
    shown = "; ".join(shortened(problem) for problem in problems[:_SHOWN])
    return f"{shown}; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else shown


def total_tokens(generations: tuple[Generation, ...]) -> int | None:
    """Return the NeuralBox tokens of all *generations*, None if the API did not report them for one of them."""
    tokens = [generation.tokens_used for generation in generations]
    return sum(token for token in tokens if token is not None) if None not in tokens else None


@attrs.frozen(kw_only=True)
class ParsedGeneration(Generic[T]):
    """
    A value that was parsed from generated text, and what it took.

    * *value*: of the type that was requested.
    * *attempts*: all generations in their order, the first and the repairs; each was billed.
    """

    value: T
    attempts: tuple[Generation, ...]

    @property
    def generation(self) -> Generation:
        """The last generation, whose text was parsed."""
        return self.attempts[-1]

    @property
    def tokens_used(self) -> int | None:
        """The NeuralBox tokens of all attempts; None if the API did not report them for one."""
        return total_tokens(self.attempts)


class ParsingError(NeuralBoxError):
    """
    The generated text is not a value of the requested type, also after the repairs that were allowed.

    * *generations*: all of them in their order; *attempts*: how many.
    * *problems*: those of the last text, at least one `Problem`. *text*: the last text, *generation_id* its id.
    * *tokens_used*: the NeuralBox tokens of all generations, None if the API did not report them for one, or if it is
      unknown whether a repair that failed was billed.
    * *billed*: that of all generations together: ``"no"`` only if all cost nothing.

    When a repair ended with another error, that is the ``__cause__``, also of a copy that was pickled if it is a
    `NeuralBoxError`; its own *billed* is about the repair alone.
    """

    def __init__(
        self,
        message: str,
        *,
        generations: tuple[Generation, ...] = (),
        problems: tuple[Problem, ...] = (),
        elapsed: float = 0.0,
        cause: Exception | None = None,
        repair: BillingStatus = "no",
    ) -> None:
        """*cause*: of a repair that failed; *repair*: whether it was billed, unless the cause says that."""
        super().__init__(message)
        last = generations[-1] if generations else Generation()
        self.generations = generations
        self.problems = problems
        repair = cause.billed if isinstance(cause, NeuralBoxError) else repair
        tokens_used = total_tokens(generations)
        self.tokens_used: int | None = tokens_used if repair == "no" else None
        self.billed: BillingStatus = repair if generations and tokens_used == 0 else "yes"
        self.request_sent = True
        self.attempts: int = len(generations)
        self.elapsed = elapsed
        self.generation_id: GenerationId | None = last.id
        self.text: str = last.content
        self.__cause__: BaseException | None = cause

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.__cause__
        return _restore_with_cause, (super().__reduce__(), cause if isinstance(cause, NeuralBoxError) else None)


def _restore_with_cause(reduced: tuple[Any, ...], cause: NeuralBoxError | None) -> NeuralBoxError:
    restore, arguments = reduced
    error: NeuralBoxError = restore(*arguments)
    error.__cause__ = cause
    return error
