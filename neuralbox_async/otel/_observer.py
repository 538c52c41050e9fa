"""The observer that makes spans, metrics and, for those who opt in, events with the content."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import attrs
from opentelemetry import context, metrics, trace
from opentelemetry._logs import LogRecord, get_logger
from opentelemetry.trace import INVALID_SPAN, Link, SpanKind, Status, StatusCode, set_span_in_context

from neuralbox_async import (
    AttemptStarted,
    BatchEnded,
    BatchItemEnded,
    BatchItemStarted,
    BatchStarted,
    CallEnded,
    CallInfo,
    CallStarted,
    ContentReceived,
    Event,
    ResponseReceived,
    RetryScheduled,
    __version__,
)
from neuralbox_async.otel import _names
from neuralbox_async.otel._content import ContentCapture, capture_from_env, content_of
from neuralbox_async.otel._metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import Token

    from opentelemetry._logs import Logger, LoggerProvider
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

_SCOPE: Final = "neuralbox_async.otel"
_MAX_CHILDREN: Final = 300  # of a batch's span; no backend shows a trace of thousands


@attrs.define(eq=False)
class _CallState:
    """A call that runs. *attributes*: of its metrics; *context*: with its span; *token*: to leave that context."""

    span: Span
    attributes: Mapping[str, Any]
    context: Context
    token: Token[Context] | None
    body: Mapping[str, Any] | None
    is_open: bool = False  # a stream whose response has begun
    first_content: float | None = None


@attrs.define(eq=False)
class _BatchState:
    """A batch that runs. *children*: how many calls have its span as their parent."""

    span: Span
    children: int = 0
    in_flight: set[int] = attrs.field(factory=set[int])


class OpenTelemetryObserver:
    """
    An observer that makes OpenTelemetry spans and metrics: ``observers=[OpenTelemetryObserver()]``.

    *tracer_provider*, *meter_provider*, *logger_provider*: default to the global ones. *capture_content*: whether
    prompts and generated text are exported; by default as OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT
    requests, and without it never. To observe every client of the process, use `instrument` instead.

    Source: OpenTelemetry's semantic conventions for generative AI, v0.1.0.
    """

    def __init__(
        self,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        capture_content: ContentCapture | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(_SCOPE, __version__, tracer_provider)
        self._metrics = Metrics(metrics.get_meter(_SCOPE, __version__, meter_provider))
        self._logger: Logger = get_logger(_SCOPE, __version__, logger_provider)
        self._capture = capture_from_env() if capture_content is None else capture_content
        self._calls: dict[int, _CallState] = {}
        self._batches: dict[int, _BatchState] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            CallStarted: self._start_call,
            AttemptStarted: lambda _event: None,
            ResponseReceived: self._receive_response,
            ContentReceived: self._receive_content,
            RetryScheduled: self._count_retry,
            CallEnded: self._end_call,
            BatchStarted: self._start_batch,
            BatchItemStarted: self._start_item,
            BatchItemEnded: self._end_item,
            BatchEnded: self._end_batch,
        }

    @property
    def wants_content(self) -> bool:
        """Whether prompts and generated text are exported."""
        return self._capture is not ContentCapture.NO_CONTENT

    def observe(self, event: Event, /) -> None:
        """Record *event* in spans and metrics."""
        self._handlers[type(event)](event)

    # ----------------------------------------------------------------------------------------------------------- calls

    def _start_call(self, event: CallStarted) -> None:
        call = event.call
        attributes: dict[str, Any] = {
            _names.OPERATION_NAME: "fetch_response" if call.operation == "retrieve" else "chat",
            _names.PROVIDER_NAME: _names.PROVIDER,
            _names.SERVER_ADDRESS: call.server_address,
        }
        if call.server_port is not None:
            attributes[_names.SERVER_PORT] = call.server_port
        if call.model is not None:
            attributes[_names.REQUEST_MODEL] = call.model
        if call.operation == "stream":
            attributes[_names.REQUEST_STREAM] = True
        parent, links = self._parent_of(call)
        span = self._tracer.start_span(
            "fetch_response" if call.model is None else f"chat {call.model}",
            parent,
            SpanKind.CLIENT,
            attributes | _settings(call),
            links,
        )
        own = set_span_in_context(span, parent)
        self._calls[call.id] = _CallState(span, attributes, own, context.attach(own), event.body)

    def _parent_of(self, call: CallInfo) -> tuple[Context | None, list[Link]]:
        """Return the context with the parent of *call*'s span, None for the current one, and the links of the span."""
        if call.parent is not None and (parent := self._calls.get(call.parent)) is not None:
            return set_span_in_context(parent.span), []
        if call.batch is None or (batch := self._batches.get(call.batch.id)) is None:
            return None, []
        batch.children += 1
        if batch.children <= _MAX_CHILDREN:
            return set_span_in_context(batch.span), []
        return set_span_in_context(INVALID_SPAN), [Link(batch.span.get_span_context())]

    def _receive_response(self, event: ResponseReceived) -> None:
        if event.call.batch is not None:
            self._metrics.rate_limits(event.call, event.response.headers)
        state = self._calls.get(event.call.id)
        if state is not None and event.call.operation == "stream" and event.response.status_code < 300:
            state.is_open = True
            _detach(state)  # the stream is read, and ends, in any other context

    def _receive_content(self, event: ContentReceived) -> None:
        state = self._calls.get(event.call.id)
        if state is None:
            return
        if event.interval is not None:
            self._metrics.next_chunk(state.attributes, event.interval, state.context)
        elif state.first_content is None:
            state.first_content = event.elapsed
            self._metrics.first_chunk(state.attributes, event.elapsed, state.context)

    def _count_retry(self, event: RetryScheduled) -> None:
        if (state := self._calls.get(event.call.id)) is not None:
            self._metrics.retry(state.attributes, event, state.context)

    def _end_call(self, event: CallEnded) -> None:
        state = self._calls.pop(event.call.id, None)
        if state is None:  # it began before the observer was installed
            return
        span, broken = state.span, state.is_open and event.outcome != "completed"
        _detach(state)
        if span.is_recording():
            span.set_attributes(_end_attributes(event, state, broken=broken))
            if event.error_type is not None:
                span.set_status(Status(StatusCode.ERROR))
        if state.body is not None:
            self._export_content(state.body, event, span, broken=broken)
        self._metrics.end(_with_model(state.attributes, event), event, state.context)
        span.end()

    def _export_content(self, body: Mapping[str, Any], event: CallEnded, span: Span, *, broken: bool) -> None:
        content = content_of(body, event, broken=broken)
        if self._capture.in_spans:
            span.set_attributes({name: json.dumps(value, ensure_ascii=False) for name, value in content.items()})
        if self._capture.in_events:
            record = LogRecord(  # pyrefly: ignore[direct-abstract-base-instantiation] - its `__new__` makes the SDK's
                event_name=_names.DETAILS_EVENT,
                context=set_span_in_context(span),
                attributes={_names.OPERATION_NAME: "chat", _names.PROVIDER_NAME: _names.PROVIDER, **content},
            )
            self._logger.emit(record)

    # --------------------------------------------------------------------------------------------------------- batches

    def _start_batch(self, event: BatchStarted) -> None:
        attributes = {} if event.batch.budget is None else {_names.BATCH_BUDGET: event.batch.budget}
        span = self._tracer.start_span("neuralbox.batch", kind=SpanKind.INTERNAL, attributes=attributes)
        self._batches[event.batch.id] = _BatchState(span)

    def _start_item(self, event: BatchItemStarted) -> None:
        if (state := self._batches.get(event.batch.id)) is not None:
            state.in_flight.add(event.index)
            self._metrics.change_in_flight(1)

    def _end_item(self, event: BatchItemEnded) -> None:
        if (state := self._batches.get(event.batch.id)) is not None:
            if event.index in state.in_flight:
                state.in_flight.discard(event.index)
                self._metrics.change_in_flight(-1)
            self._metrics.end_item(event)

    def _end_batch(self, event: BatchEnded) -> None:
        state = self._batches.pop(event.batch.id, None)
        if state is None:
            return
        if state.in_flight:
            self._metrics.change_in_flight(-len(state.in_flight))
        state.span.set_attributes(
            {
                _names.BATCH_COMPLETED: event.completed,
                _names.BATCH_FAILED: event.failed,
                _names.BATCH_UNRESOLVED: event.unresolved,
                _names.BATCH_TOKENS_USED: event.tokens_used,
            }
        )
        if event.error_type is not None:
            state.span.set_attribute(_names.ERROR_TYPE, event.error_type)
            state.span.set_status(Status(StatusCode.ERROR))
        state.span.end()


def _detach(state: _CallState) -> None:
    """Restore the context in which the call began, if this is still the one: a loop that was closed has others."""
    token, state.token = state.token, None
    if token is not None and trace.get_current_span() is state.span:
        context.detach(token)


def _settings(call: CallInfo) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    if call.temperature is not None:
        settings[_names.REQUEST_TEMPERATURE] = float(call.temperature)
    if call.max_tokens is not None:
        settings[_names.REQUEST_MAX_TOKENS] = int(call.max_tokens)
    return settings


def _with_model(attributes: Mapping[str, Any], event: CallEnded) -> Mapping[str, Any]:
    return attributes if event.model is None else {**attributes, _names.RESPONSE_MODEL: event.model}


def _end_attributes(event: CallEnded, state: _CallState, *, broken: bool) -> dict[str, Any]:
    """Return the attributes of a span at its end: those that are known."""
    is_status = event.call.operation == "retrieve"
    failed = event.outcome not in {"completed", "pending"}
    known = {
        _names.RESPONSE_ID: None if event.generation_id is None else str(event.generation_id),
        _names.RESPONSE_MODEL: event.model,
        _names.RESPONSE_STATUS: event.generation_status if is_status else None,
        _names.RESPONSE_FINISH_REASONS: ("error",) if broken else None,
        _names.RESPONSE_TIME_TO_FIRST_CHUNK: state.first_content,
        _names.USAGE_INPUT_TOKENS: None if is_status else event.input_tokens,
        _names.USAGE_OUTPUT_TOKENS: None if is_status else event.output_tokens,
        _names.TOKENS_USED: None if is_status else event.tokens_used,
        _names.STATUS: event.generation_status if event.outcome == "pending" and not is_status else None,
        _names.ATTEMPTS: event.attempts,
        _names.BILLED: event.billed if failed else None,
        _names.ERROR_TYPE: event.error_type,
    }
    return {name: value for name, value in known.items() if value is not None}
