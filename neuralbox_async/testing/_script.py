"""The methods by which a server is told what to do wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from neuralbox_async.testing._faults import Cut, Delay, Drop, ErrorEvent, Fail, Stall

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async.testing._faults import Fault, FaultScript, HangUp


class Scriptable:
    """Takes faults for the requests to come. Each request takes the oldest fault that fits it, and only that one.

    Common to all methods: the fault is for *times* requests of *method* whose path below the base URL matches the
    pattern *path* (`/generate/status/*`; None is both generate paths for POST, any path for other methods), and
    that ask for a stream or not (*stream*; None is both). All may be called from any thread.
    """

    def __init__(self, script: FaultScript) -> None:
        self._script = script

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults that no request has taken yet, oldest first."""
        return self._script.pending()

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
        """Answer with *status* and the error body documented for it, or with *body* as it is.

        *code* and *message* replace the usual ones. *retry_after* is put into the body (a 429 says 1 without it); a
        `Retry-After` header, or a `Content-Type` other than JSON, goes into *headers*. With *billed* the generation is
        run and billed first, which the vendor never does but a gateway that gives up on it causes.
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
        self._script.add(fault, times)

    def delay(
        self,
        seconds: float,
        times: int = 1,
        *,
        method: str = "POST",
        path: str | None = None,
        stream: bool | None = None,
    ) -> None:
        """Wait for *seconds* between reading the request and looking at it."""
        self._script.add(Delay(seconds=seconds, method=method, path=path, stream=stream), times)

    def drop(
        self,
        when: Literal["before", "after"] = "before",
        times: int = 1,
        *,
        how: HangUp = "eof",
        method: str = "POST",
        path: str | None = None,
        stream: bool | None = None,
    ) -> None:
        """Read the request and close the connection without an answer.

        *before*: nothing was accepted. *after*: the generation was accepted, run and billed; the answer alone is lost.
        *how* is an orderly end of the connection ("eof" or "close", which are the same here) or a "reset".
        """
        self._script.add(Drop(when=when, how=how, method=method, path=path, stream=stream), times)

    def cut(
        self, after_events: int, times: int = 1, *, how: HangUp = "eof", finish: bool = False, path: str | None = None
    ) -> None:
        """End a stream after *after_events* events, `generation_start` being the first and `[DONE]` the last.

        *how*: "eof" ends the body correctly, only too early; "close" ends the connection inside the chunked body;
        "reset" resets it. With *finish* the generation is completed and billed all the same, and the status endpoints
        know its text; else it fails, unbilled, if its end was not sent. A stream with fewer events is not touched.
        """
        self._script.add(Cut(after_events=after_events, how=how, finish=finish, path=path), times)

    def stall(self, after_events: int, times: int = 1, *, finish: bool = False, path: str | None = None) -> None:
        """Send *after_events* events of a stream and then nothing (but heartbeats, if set) until the client leaves.

        *finish* and *after_events* are as for `cut`.
        """
        self._script.add(Stall(after_events=after_events, finish=finish, path=path), times)

    def error_event(
        self,
        after_events: int,
        message: str = "Provider error: the model stopped answering",
        times: int = 1,
        *,
        done: bool = False,
        path: str | None = None,
    ) -> None:
        """Send *after_events* events of a stream, an `error` event with *message*, if *done* a `[DONE]`, and end it.

        The generation fails, unbilled.
        """
        self._script.add(ErrorEvent(after_events=after_events, message=message, done=done, path=path), times)
