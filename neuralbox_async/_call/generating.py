"""A generation from its request to its end, with the record of the call: whole, or as a stream that is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._call.polling import wait_for_call
from neuralbox_async._call.record import CallRecord
from neuralbox_async._wire.responses import decode_generation

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._call.executor import Call, Executor
    from neuralbox_async._http.transport import Response
    from neuralbox_async._options import CallOptions
    from neuralbox_async._types import Generation
    from neuralbox_async._wire.requests import Request


async def generate(executor: Executor, call: Call, *, wait: bool = False) -> Generation:
    """Return the generation of *call*, with *wait* when it is finished. Raises the errors of a call."""
    call.record = record = CallRecord(executor.monitor, call.request, executor.base_url, started=call.started)
    with record:
        generation = await executor.execute(call, decode_generation)
        if wait and not generation.finished:
            with record.as_parent():
                generation = await wait_for_call(executor, call, generation)
    record.complete(generation)
    return generation


async def open_stream(
    executor: Executor, request: Request, fallback: Callable[[], Request | None], options: CallOptions
) -> tuple[Response, Call]:
    """Open a stream, see `Executor.open_stream`. The stream ends the record of the call."""
    record = CallRecord(executor.monitor, request, executor.base_url)
    with record:
        return await executor.open_stream(request, fallback, options, record)
