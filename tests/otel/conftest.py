"""The exporters of the OpenTelemetry SDK, in memory."""

from __future__ import annotations

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from neuralbox_async.otel import OpenTelemetryObserver

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"


class Telemetry:
    """An observer, and what it exported."""

    def __init__(self):
        self._spans, self._records, self._reader = (
            InMemorySpanExporter(),
            InMemoryLogRecordExporter(),
            InMemoryMetricReader(),
        )
        self.tracers, self.loggers = TracerProvider(shutdown_on_exit=False), LoggerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.loggers.add_log_record_processor(SimpleLogRecordProcessor(self._records))
        self.meters = MeterProvider([self._reader], shutdown_on_exit=False)

    @property
    def providers(self):
        return {
            "tracer_provider": self.tracers,
            "meter_provider": self.meters,
            "logger_provider": self.loggers,
        }

    def observer(self, **options):
        return OpenTelemetryObserver(**self.providers, **options)

    @property
    def spans(self):
        return self._spans.get_finished_spans()

    @property
    def span(self):
        (span,) = self.spans
        return span

    @property
    def records(self):
        return [data.log_record for data in self._records.get_finished_logs()]

    @property
    def points(self):
        """The data points by the name of the metric."""
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

    @property
    def everything(self):
        """All that was exported, as text."""
        spans = [span.to_json() for span in self.spans]
        return repr((spans, [record.to_json() for record in self._records.get_finished_logs()], self.points))


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def observed(make_client, telemetry):
    """Return a function that makes a client on a fake transport, which *telemetry* observes."""

    def make(transport, **options):
        return make_client(transport, **{"observers": [telemetry.observer()], "max_retries": 0, **options})

    return make
