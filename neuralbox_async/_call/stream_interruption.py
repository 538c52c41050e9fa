"""The error for the reader of a stream that ended before its terminal event."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._errors import (
    APITimeoutError,
    ClientClosedError,
    GenerationFailedError,
    StreamInterruptedError,
    StreamTimeoutError,
)

if TYPE_CHECKING:
    from neuralbox_async._errors import NeuralBoxError
    from neuralbox_async._types import Generation


def interruption(error: NeuralBoxError, so_far: Generation, recovered: Generation | None) -> NeuralBoxError:
    """Return the error for the reader of a stream that ended with *error* after *so_far*."""
    if isinstance(error, ClientClosedError):
        return ClientClosedError(error.message, request_sent=True, text=so_far.content, generation_id=so_far.id)
    if isinstance(error, APITimeoutError):
        msg = f"the stream timed out: {error.message} ({error.phase})"
        return StreamTimeoutError(msg, phase=error.phase, generation=so_far)
    if not isinstance(error, GenerationFailedError):
        msg = f"the stream ended before its terminal event: {error.message}"
        if recovered is not None:
            msg += "; the final text of the API differs from it (see `recovered`)"
        return StreamInterruptedError(msg, generation=so_far, recovered=recovered)
    # An error event alone does not show the bill; the API's description of the failed generation does.
    billed = "unknown" if error.generation is None else error.billed
    return StreamInterruptedError(error.message, generation=so_far, reason=error.reason, billed=billed)
