"""The metrics of calls and batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from neuralbox_async.otel import _names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter

    from neuralbox_async import BatchItemEnded, CallEnded, CallInfo, RetryScheduled

    Attributes = Mapping[str, str | bool | int | float]

# Of the semantic conventions.
_SECONDS: Final = [0.01 * 2**power for power in range(14)]
_TOKENS: Final = [4.0**power for power in range(14)]


class Metrics:
    """
    The instruments of one meter.

    *attributes*: of the call, as at the creation of its span. *context*: that of the span, for exemplars.
    """

    def __init__(self, meter: Meter) -> None:
        histogram = meter.create_histogram
        self._duration = histogram(
            _names.DURATION, "s", "Duration of a call", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self._first_chunk = histogram(
            _names.TIME_TO_FIRST_CHUNK,
            "s",
            "Time from the request to the first text of a stream",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._next_chunk = histogram(
            _names.TIME_PER_OUTPUT_CHUNK,
            "s",
            "Time between two arrivals of text",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._input = meter.create_counter(_names.INPUT_TOKENS, "{token}", "Input tokens, by the provider's count")
        self._output = meter.create_counter(_names.OUTPUT_TOKENS, "{token}", "Output tokens, by the provider's count")
        self._input_each = histogram(
            _names.INPUT_TOKENS_PER_OPERATION,
            "{token}",
            "Input tokens of a call",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._output_each = histogram(
            _names.OUTPUT_TOKENS_PER_OPERATION,
            "{token}",
            "Output tokens of a call",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._used = meter.create_counter(_names.CLIENT_TOKENS_USED, "{token}", "NeuralBox tokens that were billed")
        self._retries = meter.create_counter(_names.CLIENT_RETRIES, "{attempt}", "Attempts after the first")
        self._items = meter.create_counter(_names.BATCH_ITEMS, "{item}", "Items of batches that ended")
        self._in_flight = meter.create_up_down_counter(_names.BATCH_IN_FLIGHT, "{item}", "Items of batches in progress")
        self._remaining = meter.create_gauge(
            _names.RATE_LIMIT_REMAINING, "{request}", "Requests that remain in a window of the rate limits"
        )

    def first_chunk(self, attributes: Attributes, seconds: float, context: Context) -> None:
        """Record that the first text of a stream arrived after *seconds*."""
        self._first_chunk.record(seconds, attributes, context)

    def next_chunk(self, attributes: Attributes, seconds: float, context: Context) -> None:
        """Record that more text arrived, *seconds* after the text before it."""
        self._next_chunk.record(seconds, attributes, context)

    def retry(self, attributes: Attributes, event: RetryScheduled, context: Context) -> None:
        """Count a retry, by the error before it."""
        self._retries.add(1, {**attributes, _names.ERROR_TYPE: event.reason}, context)

    def rate_limits(self, call: CallInfo, headers: Mapping[str, str]) -> None:
        """Record what remains by the *headers* of a response."""
        for window in ("hour", "day"):
            remaining = headers.get(f"x-ratelimit-remaining-{window}", "")
            if remaining.isascii() and remaining.isdigit() and len(remaining) < 10:
                attributes = {_names.SERVER_ADDRESS: call.server_address, _names.RATE_LIMIT_WINDOW: window}
                self._remaining.set(int(remaining), attributes)

    def end(self, attributes: Attributes, event: CallEnded, context: Context) -> None:
        """Record the end of a call; a status request has a duration only."""
        ended = attributes
        if event.outcome not in {"completed", "pending"}:
            ended = {**attributes, _names.BILLED: event.billed}
            if event.error_type is not None:
                ended[_names.ERROR_TYPE] = event.error_type
        self._duration.record(event.elapsed, ended, context)
        if event.call.operation == "retrieve":
            return
        if event.input_tokens is not None and event.input_tokens >= 0:
            self._input.add(event.input_tokens, attributes, context)
            self._input_each.record(event.input_tokens, attributes, context)
        if event.output_tokens is not None and event.output_tokens >= 0:
            self._output.add(event.output_tokens, attributes, context)
            self._output_each.record(event.output_tokens, attributes, context)
        if event.tokens_used is not None:
            self._used.add(event.tokens_used, attributes, context)

    def change_in_flight(self, change: int) -> None:
        """Count items that begin (1) or end (-1)."""
        self._in_flight.add(change)

    def end_item(self, event: BatchItemEnded) -> None:
        """Count an item by its outcome."""
        self._items.add(1, {_names.ITEM_OUTCOME: event.outcome})
