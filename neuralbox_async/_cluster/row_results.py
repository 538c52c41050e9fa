"""`RowResult`: the result of one row of a batch on a cluster, a value that can be pickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import attrs

from neuralbox_async._batch.results import BatchResult
from neuralbox_async._types import GenerationId

if TYPE_CHECKING:
    from neuralbox_async._errors import NeuralBoxError

COLUMNS: Final = ("key", "content", "value", "tokens_used", "error_type", "message", "billed")
"""The columns that a table of results has besides those of its rows; ``value`` only with an output type."""


@attrs.frozen(kw_only=True)
class RowResult:
    """
    The result of one row of a batch on a cluster.

    * *row*: the row as it was given. *key*: the key of its request; without one, ``#`` and its place in its task.
    * *content*: the generated text; also the part of one that had arrived, or that is not of the output type. None if
      there is none. *value*: the text as a value of the output type.
    * *tokens_used*: NeuralBox tokens billed, repairs included; None when it is unknown.
    * *error_type* (the name of the class), *message*: of the error; None without one.
    * *billed*: ``"yes"``, ``"no"`` or ``"unknown"``.
    * *generation_id*: if it is known. *from_journal*: whether it was generated and paid for before.
    * *outcome*: of a row that was claimed, the same with all details; only for `neuralbox batch --dask`.
    """

    row: Any
    key: str
    content: str | None = None
    value: Any = None
    tokens_used: int | None = None
    error_type: str | None = None
    message: str | None = None
    billed: str = "yes"
    generation_id: GenerationId | None = None
    from_journal: bool = False
    outcome: BatchResult[Any] | None = attrs.field(default=None, repr=False)

    def columns(self, *, typed: bool) -> dict[str, Any]:
        """Return the members of `COLUMNS`; *typed*: with ``value``."""
        return {name: getattr(self, name) for name in COLUMNS if typed or name != "value"}


def result_of(row: Any, result: BatchResult, *, keeps_outcome: bool) -> RowResult:
    """Return the result of *row* in *result*; *keeps_outcome*: with all of that."""
    generation, error = result.generation, result.error
    outcome = result if keeps_outcome else None
    if error is not None:
        return failure_of(row, str(result.key), error, tokens_used=result.tokens_used, outcome=outcome)
    return RowResult(
        row=row,
        key=str(result.key),
        content=None if generation is None else generation.content,
        value=result.value,
        tokens_used=result.tokens_used,
        generation_id=None if generation is None else generation.id,
        from_journal=result.from_journal,
        outcome=outcome,
    )


def failure_of(
    row: Any,
    key: str,
    error: NeuralBoxError,
    *,
    tokens_used: int | None = 0,
    outcome: BatchResult[Any] | None = None,
) -> RowResult:
    """Return the result of *row*, which has *error* and cost *tokens_used*."""
    return RowResult(
        row=row,
        key=key,
        content=getattr(error, "text", None) or None,
        tokens_used=tokens_used,
        error_type=type(error).__name__,
        message=error.message,
        billed=error.billed,
        generation_id=error.generation_id,
        outcome=outcome,
    )
