"""The methods that inject faults into a server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from neuralbox_async.testing._faults import Cut, Delay, Drop, ErrorEvent, Fail, Stall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async.testing._faults import CloseMode, Fault, FaultQueue


class FaultInjector:
    """Queues faults for later requests. Each request takes the oldest fault that matches it, and no other.

    All methods share these parameters: the fault is for the next *times* requests of *method* whose path below the
    base URL matches the pattern *path* (`/generate/status/*`; None matches both generate endpoints for POST, and any
    path for other methods), streaming or not (*stream*; None matches both). All methods are thread-safe.
    """

    def __init__(self, faults: FaultQueue) -> None:
        self._faults = faults

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The pending faults, oldest first."""
        return self._faults.pending()

    def fail(
        self,
        status: int,
        times: int = 1,
        *,
        code: str | None = None,
        message: str | None = None,
        body: bytes | str | Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: float | None = None,
        billed: bool = False,
        method: str = "POST",
        path: str | None = None,
        stream: bool | None = None,
    ) -> None:
        """Respond with *status* and its documented error body, or with *body* unchanged.

        *code* and *message* replace the defaults. *retry_after* (seconds) is added to the body; the default for a 429
        is 1. A `Retry-After` header, or a `Content-Type` other than JSON, belongs in *headers*. With *billed* the
        generation is run and billed first: the vendor never does that, but a gateway that times out causes it.
        """
        fault = Fail(
            status=status,
            code=code,
            message=message,
            body=body,
            headers=headers or {},
            retry_after=retry_after,
            billed=billed,
            method=method,
            path=path,
            stream=stream,
        )
        self._faults.add(fault, times)

    def delay(
        self,
        seconds: float,
        times: int = 1,
        *,
        method: str = "POST",
        path: str | None = None,
        stream: bool | None = None,
    ) -> None:
        """Wait for *seconds* after the request is read and before it is handled."""
        self._faults.add(Delay(seconds=seconds, method=method, path=path, stream=stream), times)

    def drop(
        self,
        when: Literal["before", "after"] = "before",
        times: int = 1,
        *,
        how: CloseMode = "eof",
        method: str = "POST",
        path: str | None = None,
        stream: bool | None = None,
    ) -> None:
        """Read the request and close the connection without a response.

        *when*: "before" the generation is accepted, or "after" it is run and billed, so that only the response is lost.
        *how*: an orderly end of the connection ("eof" or "close", which are the same here) or a "reset".
        """
        self._faults.add(Drop(when=when, how=how, method=method, path=path, stream=stream), times)

    def cut(
        self,
        after_events: int,
        times: int = 1,
        *,
        how: CloseMode = "eof",
        finish: bool = False,
        path: str | None = None,
    ) -> None:
        """End a stream after *after_events* events. `generation_start` is the first event and `[DONE]` the last.

        *how*: "eof" ends the body correctly but early, "close" closes the connection inside the chunked body, "reset"
        resets it. With *finish* the generation is completed and billed, and the status endpoints return its text.
        Otherwise it fails, unbilled, unless `generation_end` was sent. A stream with fewer events is not changed.
        """
        self._faults.add(Cut(after_events=after_events, how=how, finish=finish, path=path), times)

    def stall(self, after_events: int, times: int = 1, *, finish: bool = False, path: str | None = None) -> None:
        """Send *after_events* events of a stream, then only heartbeats (if set) until the client disconnects.

        *finish* and *after_events* are as for `cut`.
        """
        self._faults.add(Stall(after_events=after_events, finish=finish, path=path), times)

    def error_event(
        self,
        after_events: int,
        message: str = "Provider error: the model stopped responding",
        times: int = 1,
        *,
        done: bool = False,
        path: str | None = None,
    ) -> None:
        """Send *after_events* events of a stream, an `error` event with *message*, and `[DONE]` if *done*, and end it.

        The generation fails, unbilled.
        """
        self._faults.add(ErrorEvent(after_events=after_events, message=message, done=done, path=path), times)
