"""What the journal of earlier runs has of a request: its result, or the texts that its next repair continues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuralbox_async._batch.errors import JournalError, OutcomeUnknownError
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._types import Generation

if TYPE_CHECKING:
    from neuralbox_async._batch.batch_request import BatchRequest
    from neuralbox_async._batch.journal_entries import JournalEntry
    from neuralbox_async._batch.request_coordinator import RequestCoordinator
    from neuralbox_async._errors import NeuralBoxError

_UNRESOLVED = "an earlier run sent it and ended before the response; it may have been billed"


async def done_result(batch_request: BatchRequest, coordinator: RequestCoordinator) -> BatchResult:
    """Return the result of *batch_request*, whose request is done."""
    try:
        entry = await coordinator.earlier_result(batch_request.claim)
    except JournalError as error:
        return _result(batch_request, error=error)
    return _result_of(batch_request, entry, entry.tokens_used_total) or _invalid_result(batch_request, entry)


async def unknown_result(batch_request: BatchRequest, coordinator: RequestCoordinator) -> BatchResult:
    """Return the result of *batch_request*, whose request may have been billed without a response."""
    text, body = await coordinator.response_of(batch_request.claim)
    return _result(
        batch_request, error=OutcomeUnknownError(_UNRESOLVED, keys=(batch_request.key,), text=text, body=body)
    )


async def invalid_result(batch_request: BatchRequest, coordinator: RequestCoordinator) -> BatchResult | None:
    """
    Return the result of *batch_request* from its generations that were not of the output type, which are paid for.

    None if its next repair may be sent, or has an outcome to be retrieved: *batch_request* has them then.
    """
    try:
        entries = await coordinator.invalid_entries(batch_request.claim)
    except JournalError as error:
        return _result(batch_request, error=error)
    typed = batch_request.typed
    for entry in entries:
        tokens_used = entry.tokens_used if typed is None else typed.total_tokens(entry.tokens_used)
        # No type is expected any more, or one that this text has.
        if (result := _result_of(batch_request, entry, tokens_used)) is not None:
            return result
    batch_request.attempts_before = entries[-1].attempts
    if typed is None or typed.may_repair or batch_request.claim.is_pending:
        return None
    return _invalid_result(batch_request, entries[-1])


def unrepaired_result(batch_request: BatchRequest, cause: NeuralBoxError) -> BatchResult:
    """Return the result of *batch_request* with its last invalid text; *cause*: why no repair follows."""
    if batch_request.typed is None:
        raise AssertionError("without an output type, no text is invalid")
    return _result(
        batch_request,
        error=batch_request.typed.error(0.0, cause),
        attempts=batch_request.attempts_before,
        tokens_used=batch_request.typed.total_tokens(0),
        from_journal=True,
    )


def _result_of(batch_request: BatchRequest, entry: JournalEntry, tokens_used: int | None) -> BatchResult | None:
    """Return the result of *batch_request* with the generation of *entry*; None if that is not of the output type."""
    value, generation = None, entry.generation or Generation()
    if batch_request.typed is not None:
        if (parsed := batch_request.typed.parse(generation)) is None:
            return None
        value = parsed.value
    return _result(
        batch_request,
        generation=entry.generation,
        value=value,
        attempts=entry.attempts,
        elapsed=entry.elapsed,
        tokens_used=tokens_used,
        from_journal=True,
    )


def _invalid_result(batch_request: BatchRequest, entry: JournalEntry) -> BatchResult:
    """Return the result of *batch_request*, whose last text, in *entry*, is not of the output type."""
    if batch_request.typed is None:
        raise AssertionError("without an output type, no text is invalid")
    return _result(
        batch_request,
        error=batch_request.typed.error(entry.elapsed),
        attempts=entry.attempts,
        elapsed=entry.elapsed,
        tokens_used=batch_request.typed.total_tokens(0),
        from_journal=True,
    )


def _result(batch_request: BatchRequest, **facts: Any) -> BatchResult:
    return BatchResult(
        index=batch_request.index,
        key=batch_request.key,
        item=batch_request.item,
        request=batch_request.request,
        **facts,
    )
