"""
Observers of calls: the protocol, and the events that they get.

An event is a frozen value. No event holds the API key, or an error whose text may have parts of a response. Prompts and
generated text are None, unless the observer has a true attribute *wants_content*.

The events have no slots: attrs sets the attributes of a frozen value with slots one by one, in twice the time.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from neuralbox_async._errors import BillingStatus, InvalidParameterError, NeuralBoxError
from neuralbox_async._response_info import ResponseInfo
from neuralbox_async._types import GenerationId

Operation: TypeAlias = Literal["generate", "stream", "retrieve"]
"""The kind of a call: ``retrieve`` is a status request, also one of a poll."""
Outcome: TypeAlias = Literal["completed", "pending", "failed", "closed", "cancelled"]
"""
How a call ended: with a whole generation, with one that is pending, or with an error; the stream was closed, or dropped
and collected, before its end; its task was cancelled.
"""
ItemOutcome: TypeAlias = Literal["completed", "failed", "unresolved", "withdrawn"]
"""
How an item of a batch ended: with a generation; with an error that was certainly billed or certainly not; with an error
that leaves the bill unknown; without being sent, because the batch ended.
"""


@attrs.frozen(kw_only=True, slots=False)
class BatchInfo:
    """The batch of an event. *id*: unique in this process. *budget*: NeuralBox tokens, None without one."""

    id: int
    budget: int | None = None


@attrs.frozen(kw_only=True, slots=False)
class CallInfo:
    """
    The call of an event: the same value in all its events.

    * *id*: unique in this process. *parent*: the id of the call that made this one, such as the status requests of
      ``generate(wait=True)``; None for others.
    * *operation*: see `Operation`. *batch*: the batch that made it, or None.
    * *model*, *temperature*, *max_tokens*: as requested; None for a status request.
    * *generation_id*: of a status request.
    * *server_address*, *server_port*: of the client's *base_url*.
    """

    id: int
    operation: Operation
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    generation_id: GenerationId | None = None
    server_address: str = ""
    server_port: int | None = None
    parent: int | None = None
    batch: BatchInfo | None = None


@attrs.frozen(kw_only=True, slots=False)
class CallStarted:
    """A call began. *body*: the JSON object of the request, with the prompt; None unless the observer wants content."""

    call: CallInfo
    body: Mapping[str, Any] | None = None


@attrs.frozen(kw_only=True, slots=False)
class AttemptStarted:
    """An attempt began: the first, or another one after a `RetryScheduled`. *attempt*: its number, from 1."""

    call: CallInfo
    attempt: int


@attrs.frozen(kw_only=True, slots=False)
class ResponseReceived:
    """
    The head of a response arrived, of any status.

    *response*: its status code, headers and request id, without secrets; its *elapsed* ends at the head.
    """

    call: CallInfo
    attempt: int
    response: ResponseInfo


@attrs.frozen(kw_only=True, slots=False)
class ContentReceived:
    """
    Text of a stream arrived; pieces that arrive together are one event.

    *number*: from 1, for the first content. *elapsed*: seconds since the start of the call; *interval*: seconds since
    the content before it, None for the first.
    """

    call: CallInfo
    number: int
    elapsed: float
    interval: float | None = None


@attrs.frozen(kw_only=True, slots=False)
class RetryScheduled:
    """An attempt failed, and there will be another in *delay* seconds. *reason*: as *error_type* of `CallEnded`."""

    call: CallInfo
    attempt: int
    delay: float
    reason: str
    status_code: int | None = None


@attrs.frozen(kw_only=True, slots=False)
class CallEnded:
    """
    A call ended: its last event. For a stream, at its terminal event, or when it is closed or garbage-collected.

    * *outcome*: see `Outcome`. *elapsed*: seconds since the start of the call.
    * *attempts*, *status_code*, *request_id*: of the last response, None without one.
    * *error_type*: the API's code of the error, such as ``"rate_limit_exceeded"``, or else the name of its class; None
      without an error.
    * *billed*: ``"no"``, ``"yes"`` or ``"unknown"``. *tokens_used*: NeuralBox tokens, as far as they are known.
    * *generation_id*, *generation_status*, *model*: of the response. *input_tokens*, *output_tokens*: the provider's
      counts.
    * *content*: the text. *error*: the exception of a call that failed. Both None unless the observer wants content.
    """

    call: CallInfo
    outcome: Outcome
    billed: BillingStatus
    elapsed: float
    attempts: int
    status_code: int | None = None
    request_id: str | None = None
    error_type: str | None = None
    generation_id: GenerationId | None = None
    generation_status: str | None = None
    model: str | None = None
    tokens_used: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    content: str | None = attrs.field(default=None, repr=False)
    error: NeuralBoxError | None = attrs.field(default=None, repr=False)


@attrs.frozen(kw_only=True, slots=False)
class BatchStarted:
    """A batch was entered."""

    batch: BatchInfo


@attrs.frozen(kw_only=True, slots=False)
class BatchItemStarted:
    """A batch began to process the item *index* (from 0): its request may have to wait for a rate limit."""

    batch: BatchInfo
    index: int


@attrs.frozen(kw_only=True, slots=False)
class BatchItemEnded:
    """
    The item *index* has its outcome; an item that is invalid or cannot be sent has no `BatchItemStarted`.

    *tokens_used*: NeuralBox tokens, None when unknown. *error_type*: as in `CallEnded`.
    """

    batch: BatchInfo
    index: int
    outcome: ItemOutcome
    tokens_used: int | None = None
    error_type: str | None = None


@attrs.frozen(kw_only=True, slots=False)
class BatchEnded:
    """
    A batch ended. *completed*, *failed*, *unresolved*, *skipped*: numbers of items; *unresolved* ones count as failed.

    *tokens_used*: NeuralBox tokens. *elapsed*: seconds. *error_type*: why it stopped early, as in `CallEnded`, or None.
    """

    batch: BatchInfo
    completed: int
    failed: int
    unresolved: int
    skipped: int
    tokens_used: int
    elapsed: float
    error_type: str | None = None


Event: TypeAlias = (
    CallStarted
    | AttemptStarted
    | ResponseReceived
    | ContentReceived
    | RetryScheduled
    | CallEnded
    | BatchStarted
    | BatchItemStarted
    | BatchItemEnded
    | BatchEnded
)
"""An event of a call or of a batch."""


class Observer(Protocol):
    """
    Something that observes calls: an object with a method ``observe(event)``.

    It may have an attribute *wants_content*: if that is true, events have prompts, generated texts and errors.
    """

    def observe(self, event: Event, /) -> object:
        """
        Process *event*, quickly and without waiting: the call waits for it.

        Called in the thread and the context (`contextvars`) of the call; for a stream that was dropped, in the thread
        of its loop, or in a new one if that does not run. An exception is logged and changes nothing, except for those
        that signals raise in the main thread, `KeyboardInterrupt` and `SystemExit`.
        """
        ...


installed: list[Observer] = []
"""Observers of every client of this process; see `neuralbox_async.otel.instrument`."""


def check_observers(observers: Iterable[Observer] | None) -> tuple[Observer, ...]:
    """Return *observers* as a tuple, each once. Raises `InvalidParameterError`."""
    if isinstance(observers, Iterable):
        checked = tuple({id(observer): observer for observer in observers}.values())
        if all(map(_is_observer, checked)):
            return checked
    elif observers is None:
        return ()
    raise InvalidParameterError("observers", observers, "a list of objects with a method observe(event), not async")


def _is_observer(value: object) -> bool:
    observe = getattr(value, "observe", None)
    return callable(observe) and not isinstance(value, type) and not inspect.iscoroutinefunction(observe)
