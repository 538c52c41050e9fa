"""The record of one logical call: it counts the usage, informs observers, and logs the end."""

from __future__ import annotations

import contextvars
import functools
import logging
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

import attrs

from neuralbox_async._call.call_log import log
from neuralbox_async._call.monitor import error_type_of, new_id, notify, run_elsewhere, wants_content
from neuralbox_async._call.stream_state import ENDED
from neuralbox_async._clock import now, time_since
from neuralbox_async._errors import NeuralBoxError
from neuralbox_async._lazy_imports import asyncio
from neuralbox_async._logging import logger
from neuralbox_async._observers import (
    AttemptStarted,
    CallEnded,
    CallInfo,
    CallStarted,
    ContentReceived,
    ResponseReceived,
    RetryScheduled,
)
from neuralbox_async._response_info import NO_SECRETS, ResponseInfo
from neuralbox_async._types import ContentDelta, Generation, GenerationEnd, GenerationStart
from neuralbox_async._wire import json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from neuralbox_async._call.executor import Call
    from neuralbox_async._call.monitor import Monitor
    from neuralbox_async._call.stream_lifetime import StreamLifetime
    from neuralbox_async._call.stream_state import StreamState
    from neuralbox_async._errors import BillingStatus
    from neuralbox_async._http.transport import Response
    from neuralbox_async._observers import Observer, Operation, Outcome
    from neuralbox_async._types import GenerationId
    from neuralbox_async._wire.requests import Request

T = TypeVar("T")

_parent: contextvars.ContextVar[int | None] = contextvars.ContextVar("neuralbox_parent_call", default=None)


class CallRecord:
    """
    The record of a call that *request* begins, of a client with *monitor* and *base_url*.

    It belongs to all `Call` objects of the logical call: those of both documented paths of a status, or of both
    endpoints of a stream. A context manager: an exception ends it, and otherwise `complete` or `end`; the first counts.
    *is_logged*: the log gets more of it than retries and a failure.
    """

    def __init__(
        self,
        monitor: Monitor,
        request: Request,
        base_url: str,
        generation_id: GenerationId | None = None,
        *,
        started: float | None = None,
    ) -> None:
        self.started: float = now() if started is None else started
        self.call: Call | None = None  # the one that makes attempts
        self._usage, self._model = monitor.usage, request.model
        self._attempts, self._ended = 0, False
        self._finalizer: weakref.finalize[..., StreamLifetime[Any]] | None = None
        self.observers: tuple[Observer, ...] = monitor.observers
        # Asked once for each call: the logger takes as long as all the rest of a record.
        self.is_logged: bool = logger.isEnabledFor(logging.DEBUG)
        if self.observers:
            self._observe_start(monitor, request, base_url, generation_id)

    def _observe_start(
        self, monitor: Monitor, request: Request, base_url: str, generation_id: GenerationId | None
    ) -> None:
        operation: Operation = "retrieve" if request.model is None else "stream" if request.stream else "generate"
        host, port = _address(base_url)
        self._info = info = CallInfo(
            id=new_id(),
            operation=operation,
            model=request.model,
            temperature=request.temperature,
            max_tokens=request.max_tokens,
            generation_id=generation_id,
            server_address=host,
            server_port=port,
            parent=_parent.get(),
            batch=monitor.batch,
        )
        # Of a stream: what its events had so far.
        self._start, self._contents, self._content_at = GenerationStart(), 0, self.started
        body = request.body
        notify(
            self.observers,
            CallStarted(call=info),
            lambda: CallStarted(call=info, body=json.loads(body) if body else None),
        )
        # Those that change the context restore it in the opposite order.
        self.observers = self.observers[::-1]

    # ------------------------------------------------------------------------------------------------------ on the way

    def begin_attempt(self, call: Call) -> None:
        """Record that *call* begins an attempt."""
        self.call = call
        self._attempts += 1
        if self.observers:
            notify(self.observers, AttemptStarted(call=self._info, attempt=self._attempts))

    def receive(self, response: Response) -> None:
        """Record that the head of *response* arrived, for observers."""
        facts = self.response_info(response)
        notify(self.observers, ResponseReceived(call=self._info, attempt=self._attempts, response=facts))

    def schedule_retry(self, error: NeuralBoxError | None, delay: float) -> None:
        """Record that there will be another attempt, *delay* seconds after *error*."""
        if self.observers and error is not None:
            event = RetryScheduled(
                call=self._info,
                attempt=self._attempts,
                delay=delay,
                reason=error_type_of(error),
                status_code=getattr(error, "status_code", None),
            )
            notify(self.observers, event)

    def response_info(self, response: Response) -> ResponseInfo:
        """Return the facts of *response*, now."""
        return ResponseInfo(
            status_code=response.status_code,
            attempts=self._attempts,
            elapsed=time_since(self.started),
            headers=response.headers,
            mask=NO_SECRETS if self.call is None else self.call.mask,
        )

    def with_response(self, value: T, response: Response) -> T:
        """Return *value*, which *response* had; a `Generation` gets the facts of that."""
        if isinstance(value, Generation):
            # Not by `attrs.evolve`, which would be 3 % of a call: nobody else has seen this value yet.
            vars(value)["response"] = self.response_info(response)
        return value

    def as_parent(self) -> _Parent:
        """Return a context in which the calls that are made belong to this one."""
        return _Parent(self._info.id if self.observers else None)

    # ------------------------------------------------------------------------------------------------------------- end

    def complete(self, generation: Generation) -> None:
        """End it with *generation*, finished or pending."""
        if generation.completed:
            self.end("completed", "yes", generation)
        else:
            self.end("pending", "unknown", generation)

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, NeuralBoxError):
            self.end("failed", error.billed, None, error)
        else:
            billed: BillingStatus = "unknown" if self.call is not None and self.call.possibly_billed else "no"
            cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
            end = functools.partial(self.end, "cancelled" if cancelled else "failed", billed, None, error)
            if isinstance(error, GeneratorExit):  # its task is collected
                run_elsewhere(end)
            else:
                end()

    def end(
        self,
        outcome: Outcome,
        billed: BillingStatus,
        generation: Generation | None,
        error: BaseException | None = None,
    ) -> None:
        """End it with this *outcome*. Idempotent."""
        if self._ended:
            return
        self._ended = True
        if self._model is None:
            billed = "no"  # a status request costs nothing, whatever the generation costs
        if self._finalizer is not None:
            self._finalizer.detach()
        used = None if generation is None else generation.tokens_used
        used = None if used is None or not 0 <= used < 2**63 else used
        if self._model is not None:
            pending = outcome == "pending"
            self._usage.add(self._model, used or 0, unknown=billed == "unknown" and not pending, pending=pending)
        if self.observers or self.is_logged or outcome == "failed":
            self._report(outcome, billed, generation, error, used)
        self.call = None  # a cycle of references would leave each call to the garbage collector

    def _report(
        self,
        outcome: Outcome,
        billed: BillingStatus,
        generation: Generation | None,
        error: BaseException | None,
        used: int | None,
    ) -> None:
        call, elapsed = self.call, time_since(self.started)
        if call is not None and (self.is_logged or outcome == "failed"):
            _log_end(call, outcome, elapsed, used, error)
        if not self.observers:
            return
        response = None if call is None else call.response
        mask = cast("Callable[[Any], Any]", (NO_SECRETS if call is None else call.mask).apply)
        usage = None if generation is None else generation.usage
        generation_id = getattr(error, "generation_id", None) if generation is None else generation.id

        event = CallEnded(
            call=self._info,
            outcome=outcome,
            billed=billed,
            elapsed=elapsed,
            attempts=self._attempts,
            status_code=None if response is None else response.status_code,
            request_id=None if response is None else mask(response.headers.get("x-request-id")),
            error_type=None if error is None else error_type_of(error),
            generation_id=self._info.generation_id if generation_id is None else mask(generation_id),
            generation_status=None if generation is None else mask(generation.status),
            model=None if generation is None else mask(generation.model),
            tokens_used=used,
            input_tokens=None if usage is None else usage.prompt_tokens,
            output_tokens=None if usage is None else usage.completion_tokens,
        )

        def with_content() -> CallEnded:
            shown = error if isinstance(error, NeuralBoxError) else None
            return attrs.evolve(event, content=mask(_text_of(generation, error)), error=shown)

        notify(self.observers, event, with_content)

    # ---------------------------------------------------------------------------------------------------------- stream

    def watch(self, stream: StreamLifetime[Any], response: Response) -> ResponseInfo:
        """End it when *stream* is collected without having ended. Return the facts of its *response*."""
        self._finalizer = weakref.finalize(stream, self._end_collected, asyncio.get_running_loop())
        self._finalizer.atexit = False
        return self.response_info(response)

    def _end_collected(self, loop: asyncio.AbstractEventLoop) -> None:
        end = functools.partial(self.end, "closed", "unknown", None)
        if self.observers or self.is_logged:
            run_elsewhere(end, loop)
        else:
            end()

    def receive_events(self, pending: Sequence[object], texts: Collection[str], state: StreamState) -> None:
        """Record events that arrived: *pending*, after *texts* were delivered, which led to *state*."""
        if self._ended:
            return
        if self.observers and pending:
            self._observe_content(pending)
        if state is ENDED:
            end = pending[-1] if pending and isinstance(pending[-1], GenerationEnd) else GenerationEnd()
            start = self._start if self.observers else GenerationStart()
            content = "".join([*texts, *_deltas(pending)]) if any(map(wants_content, self.observers)) else ""
            whole = Generation(
                id=end.id if start.id is None else start.id,
                model=start.model,
                content=content,
                tokens_used=end.tokens_used,
                usage=end.usage,
            )
            self.end("completed", "yes", whole)

    def _observe_content(self, pending: Sequence[object]) -> None:
        start = next((event for event in pending if isinstance(event, GenerationStart)), None)
        if start is not None and self._start.id is None:
            self._start = start
        if any(_deltas(pending)):  # one without text is a heartbeat
            at = now()
            interval = at - self._content_at if self._contents else None
            self._contents, self._content_at = self._contents + 1, at
            event = ContentReceived(
                call=self._info, number=self._contents, elapsed=at - self.started, interval=interval
            )
            notify(self.observers, event)

    def close_stream(self, stream: StreamLifetime[Any], failure: NeuralBoxError | None) -> None:
        """End it because *stream* ended with *failure*, or None if it was closed."""
        if self._ended:
            return
        so_far = stream.generation if self.observers else None
        if failure is None:
            self.end("closed", "unknown", so_far)
        else:
            self.end("failed", failure.billed, so_far, failure)


def _log_end(
    call: Call, outcome: Outcome, elapsed: float, tokens_used: int | None, error: BaseException | None
) -> None:
    level = logging.INFO if outcome == "failed" else logging.DEBUG
    how = outcome if error is None else f"{outcome} with {error_type_of(error)}"
    tokens = "" if tokens_used is None else f", {tokens_used} tokens"
    text = f"{how} in %.2f s, attempt %d{tokens}"
    log(level, call, text, elapsed, call.attempts, outcome=outcome, tokens_used=tokens_used)


class _Parent:
    """A context in which calls have the parent with the id *call_id*."""

    def __init__(self, call_id: int | None) -> None:
        self._id = call_id

    def __enter__(self) -> None:
        self._token = _parent.set(self._id)

    def __exit__(self, *_: object) -> None:
        with suppress(ValueError):  # another context: the loop was closed, and its coroutine with it
            _parent.reset(self._token)


def _deltas(pending: Sequence[object]) -> list[str]:
    texts: list[str] = []
    for event in pending:
        if isinstance(event, ContentDelta):
            texts.append(event.delta)
        elif isinstance(event, dict):
            texts.append(cast("dict[str, str]", event)["delta"])
    return texts


def _text_of(generation: Generation | None, error: BaseException | None) -> str | None:
    if generation is not None:
        return generation.content
    return error.text if isinstance(error, NeuralBoxError) else None


@functools.lru_cache(64)
def _address(base_url: str) -> tuple[str, int | None]:
    parts = urlsplit(base_url)
    return parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme)
