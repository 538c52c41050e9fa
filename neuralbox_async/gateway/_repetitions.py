"""Which call the repetition of a request continues, so that it is not paid for twice."""

from __future__ import annotations

import time
from typing import Final

import anyio
import attrs

from neuralbox_async import Generation, NeuralBoxError
from neuralbox_async.gateway._errors import Refusal, error_body

_KEPT: Final = 300.0  # seconds for which the result of a call is kept whose client has left
_MAX_LEFT: Final = 100
_MAX_REFUSED: Final = 1000


@attrs.frozen(kw_only=True)
class Completion:
    """
    A *generation*, its text as the client gets it (*content*), and why that ends (*reason*, as OpenAI has it).

    *tokens_used*: NeuralBox tokens of all generations that it took, None if that is unknown.
    """

    generation: Generation
    content: str
    reason: str
    tokens_used: int | None


@attrs.define(eq=False)
class PaidCall:
    """
    A whole generation that may be running, for the request with this *digest*. *waiting*: how many clients wait for it.

    *is_queued*: whether it waits for its *turn*, before anything is sent. Once *done* is set, either *completion* or
    *error* is, and *ended* (by `time.monotonic`).
    """

    digest: str
    waiting: int = 0
    is_queued: bool = True
    turn: anyio.CancelScope = attrs.field(factory=anyio.CancelScope)
    done: anyio.Event = attrs.field(factory=anyio.Event)
    completion: Completion | None = None
    error: Exception | None = None
    ended: float = 0.0

    @property
    def is_left(self) -> bool:
        """Whether nobody waits for it."""
        return not self.waiting

    def leave(self) -> None:
        """Record that a client waits no more: the last one ends the wait for a turn."""
        self.waiting -= 1
        if self.is_left and self.is_queued:
            self.turn.cancel()

    def result(self) -> Completion:
        """Return the completion of a call that is done, or raise its error."""
        if self.error is not None:
            raise self.error
        if self.completion is None:
            raise RuntimeError("a call ended without a result")
        return self.completion

    def is_useless(self, now: float) -> bool:
        """Return whether no repetition gets it: it cost nothing, or is too old."""
        if not self.done.is_set() or not self.is_left:
            return False
        free = isinstance(self.error, Refusal) or (isinstance(self.error, NeuralBoxError) and self.error.billed == "no")
        return free or now - self.ended > _KEPT


class Repetitions:
    """The calls that a repetition may continue: those that run, and those whose client has left."""

    def __init__(self) -> None:
        self._calls: list[PaidCall] = []
        self._refused: list[tuple[str, float]] = []

    def add(self, call: PaidCall) -> None:
        """Keep *call* for repetitions."""
        self._drop_useless()
        self._calls.append(call)

    def remove(self, call: PaidCall) -> None:
        """Remove *call*: its client has the response."""
        self._calls = [other for other in self._calls if other is not call]

    def refused(self, digest: str, error: Exception) -> None:
        """Record that the client of a request got *error*: if it may repeat the request, that is a new call."""
        body = error.body if isinstance(error, Refusal) else None
        if isinstance(error, NeuralBoxError):
            body = error_body(error)
        if body is not None and body.retry:
            self._refused = [*self._refused[1 - _MAX_REFUSED :], (digest, time.monotonic())]

    def take(self, digest: str) -> PaidCall | None:
        """Remove and return the call that a repetition of the request with this *digest* continues, if there is one."""
        self._drop_useless()
        same = [call for call in self._calls if call.digest == digest and not call.turn.cancel_called]
        call = next((call for call in same if call.is_left), None)
        if call is None and not self._take_refused(digest):
            # A client that has left in a way that the gateway cannot see, such as behind a proxy.
            call = next(iter(same), None)
        if call is not None:
            self.remove(call)
        return call

    def _take_refused(self, digest: str) -> bool:
        oldest = next((entry for entry in self._refused if entry[0] == digest), None)
        if oldest is not None:
            self._refused.remove(oldest)
        return oldest is not None

    def _drop_useless(self) -> None:
        now = time.monotonic()
        self._refused = [entry for entry in self._refused if now - entry[1] <= _KEPT]
        self._calls = [call for call in self._calls if not call.is_useless(now)]
        left = [call for call in self._calls if call.is_left]
        for call in left[: max(0, len(left) - _MAX_LEFT)]:
            self.remove(call)
