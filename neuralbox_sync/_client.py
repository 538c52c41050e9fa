"""`NeuralBox`: what a user whose code blocks calls."""

from __future__ import annotations

from typing import Any, Self

from neuralbox_async import AsyncNeuralBox, ClientClosedError
from neuralbox_sync._blocking import View, blocking, like
from neuralbox_sync._loop import EventLoop
from neuralbox_sync._stream import Stream


class NeuralBox(View[AsyncNeuralBox]):
    """
    The blocking view of an `AsyncNeuralBox`, on an event loop of its own; parameters, methods and errors are the same.

    Make one and share it: it is safe for any number of threads, and in processes forked from this one. Ctrl-C ends the call it hits,
    on the server too. Close it with ``with`` or `close`.
    """

    @like(AsyncNeuralBox.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            client = AsyncNeuralBox(*args, **options)
        finally:
            del args, options  # no frame of a traceback shall hold the key
        super().__init__(client, EventLoop(client.aclose, client.forget_inherited, _closed_error))

    def __repr__(self) -> str:
        return repr(self._subject).removeprefix("Async")

    generate = blocking(AsyncNeuralBox.generate)
    retrieve = blocking(AsyncNeuralBox.retrieve)
    wait = blocking(AsyncNeuralBox.wait)

    @like(AsyncNeuralBox.stream)
    def stream(self, *args: Any, **options: Any) -> Stream:
        return Stream(self._subject.stream(*args, **options), self._loop)

    @like(AsyncNeuralBox.with_options)
    def with_options(self, **options: Any) -> Self:
        derived = object.__new__(type(self))
        View.__init__(derived, self._subject.with_options(**options), self._loop)
        return derived

    @property
    def closed(self) -> bool:
        """Whether the client was closed; its methods then raise `ClientClosedError`."""
        return self._loop.closed

    def close(self) -> None:
        """Close all connections, within 2 s; calls and streams under way end with `ClientClosedError`. Idempotent."""
        self._loop.close()


def _closed_error(begun: bool) -> ClientClosedError:
    error = ClientClosedError("the client was closed during the call" if begun else "the client is closed")
    error.request_sent, error.billed = begun, "unknown" if begun else "no"
    return error
