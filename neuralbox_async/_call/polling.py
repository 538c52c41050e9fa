"""
The status of a generation: `retrieve` it once, `wait` until it is finished.

`finish` waits for the generation of a call, `recover` for that of a stream that broke.
"""

from __future__ import annotations

import json
import random
from contextlib import suppress
from typing import TYPE_CHECKING, cast

import attrs

from neuralbox_async._call.executor import Call
from neuralbox_async._call.record import CallRecord
from neuralbox_async._clock import now, time_after
from neuralbox_async._errors import (
    APIConnectionError,
    APIStatusError,
    GenerationFailedError,
    InvalidParameterError,
    NeuralBoxError,
    NotFoundError,
    ResponseError,
    WaitTimeoutError,
)
from neuralbox_async._options import DEFAULT_POLL_INTERVAL
from neuralbox_async._retry import is_transient
from neuralbox_async._types import Generation
from neuralbox_async._validation import check_text
from neuralbox_async._wire import endpoints
from neuralbox_async._wire.responses import decode_generation, generation_failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async._call.executor import Executor
    from neuralbox_async._errors import BillingStatus
    from neuralbox_async._options import CallOptions
    from neuralbox_async._types import GenerationId

_RECOVERY_INTERVAL = 0.5
_MAX_ETA = 30.0
_STATUS_REQUEST_TIMEOUT = 30.0
# Polling slows down when less than this part of the hour's requests remains, to at most a quarter of its pace.
_FULL_PACE_ABOVE, _MIN_PACE = 0.25, 0.25
_LAST_REQUEST_AT = 0.9  # of the time that is left: the last status request needs time for its response
_NEAR_DEADLINE = 0.05  # seconds
_MAX_BACKOFF_EXPONENT = 3


def id_of(generation: Generation | GenerationId) -> GenerationId:
    """
    Return the id of *generation*, or *generation* if it is an id.

    Raises `InvalidParameterError`; of an unfinished generation, which may be billed, with that billing status.
    """
    value = generation.id if isinstance(generation, Generation) else generation
    if not isinstance(value, str | int) or isinstance(value, bool) or value in {"", ".", ".."}:
        unfinished = isinstance(generation, Generation) and not generation.finished
        billed: BillingStatus = "unknown" if unfinished else "no"
        raise InvalidParameterError("generation", value, "a generation with an id, or an id", billed=billed)
    return check_text("generation", value) if isinstance(value, str) else value


async def retrieve(
    executor: Executor, generation_id: GenerationId, options: CallOptions, deadline: float, headers: Mapping[str, str]
) -> Generation:
    """
    Return the current state of a generation: from one documented path, after a 404 from the other.

    The path that worked is tried first the next time. A response without an id describes *generation_id*.
    """
    first = endpoints.retrieve(generation_id, _status_paths(executor)[0], headers)
    shown_id = cast("GenerationId", executor.mask.apply(generation_id))
    record = CallRecord(executor.monitor, first, executor.base_url, shown_id)
    with record:
        generation = await _retrieve(executor, generation_id, options, deadline, headers=headers, record=record)
    record.complete(generation)
    return generation


async def _retrieve(
    executor: Executor,
    generation_id: GenerationId,
    options: CallOptions,
    deadline: float,
    *,
    headers: Mapping[str, str],
    record: CallRecord,
) -> Generation:
    not_found: NotFoundError | None = None
    for path in _status_paths(executor):
        request = endpoints.retrieve(generation_id, path, headers)
        call = Call(request, options, deadline, generation_id=generation_id, record=record)
        try:
            generation = await executor.execute(call, decode_generation)
        except NotFoundError as error:
            not_found = not_found or error
            continue
        except GenerationFailedError as error:
            _prefer(executor, path)
            if error.generation is None or error.generation_id is not None:
                raise
            failed = generation_failed(attrs.evolve(error.generation, id=generation_id))
            raise call.annotate(failed) from None
        _prefer(executor, path)
        return generation if generation.id is not None else attrs.evolve(generation, id=generation_id)
    raise not_found or AssertionError  # there is always a path


def _status_paths(executor: Executor) -> tuple[str, ...]:
    return executor.shared.status_paths or endpoints.STATUS_PATHS


def _prefer(executor: Executor, path: str) -> None:
    paths = _status_paths(executor)
    if paths[0] != path:
        executor.shared.status_paths = (path, *(other for other in paths if other != path))


async def wait(
    executor: Executor,
    state: Generation,
    options: CallOptions,
    deadline: float,
    *,
    interval: float | None = None,
    default_interval: float = DEFAULT_POLL_INTERVAL,
    immediately: bool = False,
) -> Generation:
    """
    Poll every *interval* seconds until the generation is finished, and return it.

    None: every *default_interval* seconds, or as long as the generation takes by its ``eta_seconds``, up to 30.
    *immediately*: send the first status request at once. Raises `GenerationFailedError` when it failed,
    `WaitTimeoutError` at the *deadline*, `InvalidParameterError` when it has no valid id, and the errors of status
    requests that are not transient.
    """
    generation_id = None if state.finished else id_of(state)
    started = now()
    failures, retry_after = 0, 0.0
    while generation_id is not None and not state.finished:
        if not immediately:
            pause = max(retry_after, (interval or default_interval) * 2**failures / _allowed_pace(executor))
            eta = min(_MAX_ETA, state.eta_seconds or 0.0) if interval is None else 0.0
            await executor.sleep(_pause(max(pause, eta), deadline))
        immediately = False
        try:
            # A timeout for each: a status request without a response must not use up all the time.
            request_deadline = min(deadline, now() + _STATUS_REQUEST_TIMEOUT)
            state = await retrieve(executor, generation_id, options, request_deadline, options.headers)
        except (APIConnectionError, APIStatusError) as error:
            if not is_transient(error):
                raise
            failures = min(failures + 1, _MAX_BACKOFF_EXPONENT)
            retry_after = getattr(error, "retry_after", None) or 0.0
        else:
            failures, retry_after = 0, 0.0
        if not state.finished and now() >= deadline:
            elapsed = now() - started
            msg = f"generation {generation_id} was still {state.status} after {round(elapsed, 2):g} s"
            raise WaitTimeoutError(msg, generation=state, elapsed=elapsed)
    if state.status == "failed":
        raise generation_failed(state)
    return state


def pending_without_id(generation: Generation) -> ResponseError:
    """Return the error of an unfinished *generation* that cannot be waited for, because the API sent no id."""
    msg = f"the generation is {generation.status} and has no id, so it cannot be waited for"
    body = b""  # a representation of what was parsed, if that can be represented
    with suppress(ValueError, RecursionError):  # numbers with thousands of digits, deep nesting
        body = json.dumps(generation.raw).encode()
    return ResponseError(msg, path="$.id", body=body, text=generation.content)


async def wait_for_call(executor: Executor, call: Call, generation: Generation) -> Generation:
    """Return *generation*, the result of *call*, when it is finished. Raises the errors of `wait`, for *call*."""
    if generation.finished:
        return generation
    if generation.id is None:
        raise call.annotate(pending_without_id(generation))
    call.accept(generation.id)
    try:
        return await wait(executor, generation, call.options, call.deadline)
    except NeuralBoxError as error:
        call.annotate(error)
        raise


async def recover(executor: Executor, options: CallOptions, generation_id: GenerationId, deadline: float) -> Generation:
    """Return the finished generation of a stream that broke. Raises the errors of `wait`."""
    state = Generation(id=generation_id, status="pending")
    bound = min(deadline, time_after(options.stall_timeout), time_after(options.timeout))
    return await wait(executor, state, options, bound, default_interval=_RECOVERY_INTERVAL, immediately=True)


def _allowed_pace(executor: Executor) -> float:
    """Return the part of the full pace that the rate limits leave to polling: 1, or less when little remains."""
    hour = executor.account_state.rate_limits.hour
    if not hour.limit or hour.remaining is None:
        return 1.0
    return min(1.0, max(_MIN_PACE, hour.remaining / hour.limit / _FULL_PACE_ABOVE))


def _pause(interval: float, deadline: float) -> float:
    """Return the seconds until the next status request."""
    # Jitter: a thousand generations that started together are not polled together.
    pause = interval * random.uniform(0.9, 1.1)  # noqa: S311 - not a secret
    left = deadline - now()
    return max(0.0, min(pause, left if left < _NEAR_DEADLINE else left * _LAST_REQUEST_AT))
