"""`NeuralBox`: the blocking client."""

import contextlib
import weakref
from typing import Any, Self

from neuralbox_async import AsyncNeuralBox
from neuralbox_async._batch.caller_thread import CallerThread
from neuralbox_sync._blocking import View, blocking, like
from neuralbox_sync._loop import EventLoop
from neuralbox_sync._stream import Batch, Stream


class NeuralBox(View[AsyncNeuralBox]):
    """
    A client of the NeuralBox API for blocking code.

        with NeuralBox() as client:
            reply = client.generate("gpt-5", "Write a haiku")

    It runs an `AsyncNeuralBox` on an event loop in a thread of its own. Parameters, methods and errors are the same;
    `AsyncNeuralBox` describes the parameters. One client serves any number of threads, and it works in forked processes
    as well. Ctrl-C cancels the call that it interrupts, on the server as well.
    """

    @like(AsyncNeuralBox.__init__)
    def __init__(self, *args: Any, **options: Any) -> None:
        try:
            client = AsyncNeuralBox(*args, **options)
        finally:
            del args, options  # no frame of a traceback may hold the key
        super().__init__(client, EventLoop(client.aclose))
        weakref.finalize(self, self._loop.finalize).atexit = False

    generate = blocking(AsyncNeuralBox.generate)
    retrieve = blocking(AsyncNeuralBox.retrieve)
    wait = blocking(AsyncNeuralBox.wait)

    @like(AsyncNeuralBox.stream)
    def stream(self, *args: Any, **options: Any) -> Stream:
        return Stream(self._subject.stream(*args, **options), self._loop, self)

    @like(AsyncNeuralBox.generate_many)
    def generate_many(self, requests: Any, **options: Any) -> Batch:
        caller = CallerThread(requests, options)
        return Batch(self._subject.generate_many(caller.requests, **caller.options), self._loop, self, caller)

    @like(AsyncNeuralBox.with_options)
    def with_options(self, **options: Any) -> Self:
        derived = object.__new__(type(self))
        vars(derived).update(vars(self))  # attributes of a subclass
        try:
            super(NeuralBox, derived).__init__(self._subject.with_options(**options), self._loop, self)
        finally:
            del options  # as above
        return derived

    @property
    def closed(self) -> bool:
        """Whether the client was closed; its methods then raise `ClientClosedError`."""
        return self._loop.closed or self._subject.closed

    def close(self) -> None:
        """Close all connections (a derived client: none) within 2 s. Calls raise `ClientClosedError`. Idempotent."""
        if self._owner is None:
            self._loop.close()
            return
        with contextlib.suppress(StopIteration):
            self._subject.aclose().send(None)  # it awaits nothing
