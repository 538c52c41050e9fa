"""What the journal of earlier runs has of a request: its result, or the texts that its next repair continues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuralbox_async._batch.errors import JournalError, OutcomeUnknownError
from neuralbox_async._batch.results import BatchResult
from neuralbox_async._types import Generation

if TYPE_CHECKING:
    from neuralbox_async._batch.journal_entries import JournalEntry
    from neuralbox_async._batch.request_coordinator import RequestCoordinator
    from neuralbox_async._batch.request_state import RequestState
    from neuralbox_async._errors import NeuralBoxError

_UNRESOLVED = "an earlier run sent it and ended before the response; it may have been billed"


async def done_result(state: RequestState, coordinator: RequestCoordinator) -> BatchResult:
    """Return the result of *state*, whose request is done."""
    try:
        entry = await coordinator.earlier_result(state.claim)
    except JournalError as error:
        return _result(state, error=error)
    return _result_of(state, entry, entry.tokens_used_total) or _invalid_result(state, entry)


async def unknown_result(state: RequestState, coordinator: RequestCoordinator) -> BatchResult:
    """Return the result of *state*, whose request may have been billed without a response."""
    text, body = await coordinator.response_of(state.claim)
    return _result(state, error=OutcomeUnknownError(_UNRESOLVED, keys=(state.key,), text=text, body=body))


async def invalid_result(state: RequestState, coordinator: RequestCoordinator) -> BatchResult | None:
    """
    Return the result of *state* from its generations that were not of the output type, which are paid for.

    None if its next repair may be sent, or has an outcome to be retrieved: *state* has them then.
    """
    try:
        entries = await coordinator.invalid_entries(state.claim)
    except JournalError as error:
        return _result(state, error=error)
    typed = state.typed
    for entry in entries:
        tokens_used = entry.tokens_used if typed is None else typed.total_tokens(entry.tokens_used)
        # No type is expected any more, or one that this text has.
        if (result := _result_of(state, entry, tokens_used)) is not None:
            return result
    state.attempts_before = entries[-1].attempts
    if typed is None or typed.may_repair or state.claim.is_pending:
        return None
    return _invalid_result(state, entries[-1])


def unrepaired_result(state: RequestState, cause: NeuralBoxError) -> BatchResult:
    """Return the result of *state* with the last of its invalid texts; *cause*: the reason why no repair follows."""
    if state.typed is None:
        raise AssertionError("without an output type, no text is invalid")
    return _result(
        state,
        error=state.typed.error(0.0, cause),
        attempts=state.attempts_before,
        tokens_used=state.typed.total_tokens(0),
        from_journal=True,
    )


def _result_of(state: RequestState, entry: JournalEntry, tokens_used: int | None) -> BatchResult | None:
    """Return the result of *state* with the generation of *entry*; None if that is not of the output type."""
    value, generation = None, entry.generation or Generation()
    if state.typed is not None:
        if (parsed := state.typed.parse(generation)) is None:
            return None
        value = parsed.value
    return _result(
        state,
        generation=entry.generation,
        value=value,
        attempts=entry.attempts,
        elapsed=entry.elapsed,
        tokens_used=tokens_used,
        from_journal=True,
    )


def _invalid_result(state: RequestState, entry: JournalEntry) -> BatchResult:
    """Return the result of *state*, whose last text, in *entry*, is not of the output type."""
    if state.typed is None:
        raise AssertionError("without an output type, no text is invalid")
    return _result(
        state,
        error=state.typed.error(entry.elapsed),
        attempts=entry.attempts,
        elapsed=entry.elapsed,
        tokens_used=state.typed.total_tokens(0),
        from_journal=True,
    )


def _result(state: RequestState, **facts: Any) -> BatchResult:
    return BatchResult(index=state.index, key=state.key, item=state.item, request=state.request, **facts)
