"""
Spans and metrics for OpenTelemetry, by its semantic conventions for generative AI.

    from neuralbox_async.otel import instrument

    instrument()

Needs the extra ``otel``: ``pip install "neuralbox[otel]"``. ``opentelemetry-instrument`` calls `instrument`
automatically. The names of all attributes and metrics are on the page "Observability".
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from neuralbox_async import _observers
from neuralbox_async.otel._content import ContentCapture
from neuralbox_async.otel._observer import OpenTelemetryObserver

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

_lock = threading.Lock()

__all__ = ["ContentCapture", "NeuralBoxInstrumentor", "OpenTelemetryObserver", "instrument", "uninstrument"]


def instrument(
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
    capture_content: ContentCapture | None = None,
) -> None:
    """
    Observe every client of this process, also those that exist already.

    Parameters: those of `OpenTelemetryObserver`. Idempotent: a second call changes nothing until `uninstrument`.
    """
    with _lock:
        if not _installed():
            observer = OpenTelemetryObserver(
                tracer_provider=tracer_provider,
                meter_provider=meter_provider,
                logger_provider=logger_provider,
                capture_content=capture_content,
            )
            _observers.installed.append(observer)


def uninstrument() -> None:
    """Undo `instrument`; a call that runs is observed to its end. Idempotent."""
    with _lock:
        for observer in _installed():
            _observers.installed.remove(observer)


def _installed() -> list[_observers.Observer]:
    return [observer for observer in _observers.installed if isinstance(observer, OpenTelemetryObserver)]


class NeuralBoxInstrumentor:
    """
    What ``opentelemetry-instrument`` loads: it has the methods of OpenTelemetry's instrumentors that are called.

    Not a subclass of ``BaseInstrumentor``, which would need another package.
    """

    def instrument(self, **options: Any) -> None:
        """Call `instrument` with the providers in *options*, and ignore the others."""
        names = ("tracer_provider", "meter_provider", "logger_provider")
        instrument(**{name: options.get(name) for name in names})

    def uninstrument(self, **_options: Any) -> None:
        """Call `uninstrument`."""
        uninstrument()
