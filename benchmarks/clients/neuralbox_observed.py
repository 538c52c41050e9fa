"""neuralbox with observers: one that does nothing, and OpenTelemetry's SDK as applications set it up."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.clients.adapter import KEY, NEURALBOX_PATH, Address
from benchmarks.clients.neuralbox_sdk import Async
from neuralbox_async import AsyncNeuralBox, Event, Observer
from neuralbox_async.otel import OpenTelemetryObserver


class _Nothing:
    def observe(self, event: Event, /) -> None:
        """Do nothing."""


class _Nowhere(SpanExporter):
    """Drops the spans: what a network and a collector cost is not ours."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Drop *spans*."""
        del spans
        return SpanExportResult.SUCCESS


class Observed(Async):
    """`AsyncNeuralBox` with an observer that does nothing."""

    def __init__(self, address: Address, connections: int) -> None:
        url, observers = address.url(NEURALBOX_PATH), [self.observer()]
        self.client = AsyncNeuralBox(
            KEY, base_url=url, max_connections=connections, ssl_context=address.ssl_context, observers=observers
        )

    def observer(self) -> Observer:
        """Return the observer."""
        return _Nothing()


class OpenTelemetry(Observed):
    """`AsyncNeuralBox` with spans, which a thread exports in batches, and metrics."""

    def observer(self) -> Observer:
        """Return the observer."""
        spans = TracerProvider(shutdown_on_exit=False)
        spans.add_span_processor(BatchSpanProcessor(_Nowhere()))
        metrics = MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
        return OpenTelemetryObserver(tracer_provider=spans, meter_provider=metrics)
