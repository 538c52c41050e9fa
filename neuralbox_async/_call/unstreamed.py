"""The response to a request for a stream that is not an event stream, as of a server that ignores ``stream``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuralbox_async._errors import APIConnectionError, GenerationFailedError, NeuralBoxError, ResponseError
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._types import Generation, GenerationEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._call.stream_reader import StreamReader
    from neuralbox_async._call.stream_timeouts import StreamTimeouts
    from neuralbox_async._wire import responses
else:
    responses = lazy_module("neuralbox_async._wire.responses")


async def read_generation(
    reader: StreamReader, decode: Callable[..., Any], timeouts: StreamTimeouts, now: Callable[[], float]
) -> tuple[Generation, NeuralBoxError | None]:
    """
    Return the generation in the response of *reader*, and None if it is complete.

    Otherwise return what is known of it (id and text), and the error of a response that is cut, malformed or describes
    an unfinished generation. *decode*: see `Call.decode`. *now*: the clock of *timeouts*. A read that is cancelled and
    made again has what is left of the stall timeout.
    """
    response, started = reader.response, now()
    try:
        body = await reader.read_body(*timeouts.body_deadline(started))
    except (APIConnectionError, ResponseError) as error:
        generation_id, text = responses.beginning_of(error.body)
        return Generation(id=generation_id, status="incomplete", content=text), error
    finally:
        timeouts.update((), now() - started)
    try:
        whole: Generation = decode(responses.decode_generation, response.status_code, response.headers, body)
    except (ResponseError, GenerationFailedError) as error:
        return Generation(id=error.generation_id, status="incomplete", content=error.text), error
    if whole.finished:
        return whole, None
    msg = f"the response is not an event stream, and its generation is {whole.status}"
    return whole, ResponseError(msg, body=body, text=whole.content, generation_id=whole.id)


def end_of(whole: Generation) -> GenerationEnd:
    """Return the terminal event of *whole*, a completed generation."""
    return GenerationEnd(
        whole.id,
        whole.tokens_used,
        whole.balance_remaining,
        whole.usage,
        finish_reason=whole.finish_reason,
        problems=whole.problems,
        raw=whole.raw,
    )
