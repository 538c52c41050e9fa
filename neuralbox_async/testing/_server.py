"""`NeuralBoxServer`: a real HTTP server on loopback that behaves as the documented API does."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final

import anyio

from neuralbox_async.testing._api import API, PREFIX
from neuralbox_async.testing._calls import Dialect
from neuralbox_async.testing._generations import BilledGeneration
from neuralbox_async.testing._lifecycle import Lifecycle
from neuralbox_async.testing._received import ReceivedRequest
from neuralbox_async.testing._script import Scriptable
from neuralbox_async.testing._settings import Reply, Settings
from neuralbox_async.testing._thread import ServerThread

_POLL_SECONDS: Final = 0.002


class NeuralBoxServer(Lifecycle, Scriptable):
    """A local NeuralBox API, with real sockets, in a daemon thread with an event loop of its own.

    One object serves async code, blocking code and any number of event loops. Use it as ``with`` or ``async with``, or
    call `start` and `close`. Whatever is documented by the vendor it does as documented; what it is told by `fail`,
    `delay`, `drop`, `cut`, `stall` and `error_event` it does to the next POST to a generate endpoint that the fault
    fits, one fault for each request, in the order told.

    A generation that is not streamed is finished and billed even when its client has gone meanwhile, unless
    *stop_on_disconnect*. A stream stops when its client goes, and is billed when its `generation_end` is about to be
    sent.

    Args:
        api_key: The key that is accepted. It can be changed while the server runs.
        host: The address to listen on.
        port: The port; 0 takes a free one.
        balance: Tokens at the start.
        plan: The plan named in bodies (`free`, `basic`, `pro`, `vip`, `elite`).
        dialect: How a generation made with `messages` is answered: "a" (string ids, `content`) or "b" (integer ids,
            `result_text`). The `prompt` form and /generate/stream are answered in "b". A request header
            `X-NeuralBox-Dialect: a` or `b` overrides all.
        status_paths: The status endpoints that exist: "a" for /generate/status/{id}, "b" for /generate/{id}.
        reply: The text of every answer, or a function of the request's JSON that returns it, as a string or as an
            iterable of pieces (endless ones are fine in streams). It runs on the server's loop. By default an echo of
            the last user message.
        prices: Tokens per generation by model, before the catalogue. Models in neither cost 1.
        restricted_models: Models answered with 403 `insufficient_plan`.
        failing_models: Models whose generations end with status `failed`.
        pending_models: Models whose generations, unless streamed, are answered `pending` and completed
            *pending_seconds* later. A member ``"background": true`` in a request does the same.
        pending_seconds: How long a pending generation takes.
        latency: Seconds that a model thinks before it answers, or before a stream's head is sent.
        pace: Seconds between the events of a stream; 0 is as fast as the client reads.
        heartbeat: Seconds between comment lines while a stream is idle; None sends none.
        limit_hour: Generate requests per hour; None is no limit, and no headers about it.
        limit_day: The same per day.
        hour_seconds: How long the hour is. It begins with the first request counted.
        day_seconds: How long the day is.
        retry_after_header: Whether a 429 has the (undocumented) `Retry-After` header beside the body's `retry_after`.
        honour_idempotency_key: Whether a repeated `Idempotency-Key` gives the first generation again, unbilled. The
            vendor documents no such thing, so by default each request is a generation of its own.
        stop_on_disconnect: Whether a generation that is not streamed is given up, unbilled, when its client goes.
        keepalive_timeout: Seconds after which an idle connection is closed.
        max_body: Bytes of a request body, above which it is answered with 413.
        keep: How many requests, generations and bills are remembered, the newest; None keeps all.

    Raises:
        ValueError: if an option is out of its range.
    """

    def __init__(
        self,
        *,
        api_key: str = "nb_test_key_for_the_local_server",
        host: str = "127.0.0.1",
        port: int = 0,
        balance: int = 1_000_000,
        plan: str = "vip",
        dialect: Dialect = "a",
        status_paths: Collection[Dialect] = ("a", "b"),
        reply: Reply | None = None,
        prices: Mapping[str, int] | None = None,
        restricted_models: Collection[str] = (),
        failing_models: Collection[str] = (),
        pending_models: Collection[str] = (),
        pending_seconds: float = 0.2,
        latency: float = 0.0,
        pace: float = 0.0,
        heartbeat: float | None = None,
        limit_hour: int | None = None,
        limit_day: int | None = None,
        hour_seconds: float = 3600.0,
        day_seconds: float = 86400.0,
        retry_after_header: bool = False,
        honour_idempotency_key: bool = False,
        stop_on_disconnect: bool = False,
        keepalive_timeout: float = 75.0,
        max_body: int = 64 * 1024 * 1024,
        keep: int | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._settings = Settings(
            balance=balance,
            plan=plan,
            dialect=dialect,
            status_paths=status_paths,
            reply=reply,
            prices=prices or {},
            restricted_models=restricted_models,
            failing_models=failing_models,
            pending_models=pending_models,
            pending_seconds=pending_seconds,
            latency=latency,
            pace=pace,
            heartbeat=heartbeat,
            limit_hour=limit_hour,
            limit_day=limit_day,
            hour_seconds=hour_seconds,
            day_seconds=day_seconds,
            retry_after_header=retry_after_header,
            honour_idempotency_key=honour_idempotency_key,
            stop_on_disconnect=stop_on_disconnect,
            keepalive_timeout=keepalive_timeout,
            max_body=max_body,
            keep=keep,
        )
        self._api = API(api_key, self._settings)
        Scriptable.__init__(self, self._api.faults)
        Lifecycle.__init__(self, self._make_server_thread)

    def _make_server_thread(self) -> ServerThread:
        return ServerThread(
            self._api,
            self._host,
            self._port,
            max_body=self._settings.max_body,
            keepalive_timeout=self._settings.keepalive_timeout,
        )

    # What a client needs

    @property
    def port(self) -> int:
        """The port listened on, also after `close`. Raises RuntimeError before the start."""
        return self._running_thread().port

    @property
    def base_url(self) -> str:
        """The URL to give to a client, also after `close`. Raises RuntimeError before the start."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}{PREFIX}"

    @property
    def api_key(self) -> str:
        """The key that is accepted."""
        return self._api.api_key

    @api_key.setter
    def api_key(self, key: str) -> None:
        self._api.api_key = key

    @property
    def options(self) -> dict[str, str]:
        """The keyword arguments that point a client here: ``AsyncNeuralBox(**server.options)``."""
        return {"api_key": self.api_key, "base_url": self.base_url}

    # What happened

    @property
    def balance(self) -> int:
        """Tokens left now. It can be set."""
        return self._api.books.balance

    @balance.setter
    def balance(self, tokens: int) -> None:
        self._api.books.balance = tokens

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """The requests received, in the order in which their heads came."""
        return tuple(self._api.requests)

    @property
    def billed(self) -> tuple[BilledGeneration, ...]:
        """The generations billed, in the order of their completion."""
        return tuple(self._api.books.billed)

    @property
    def in_flight(self) -> int:
        """Requests being served now."""
        return self._api.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The most requests that were being served at one time."""
        return self._api.peak_in_flight

    @property
    def connections(self) -> int:
        """Client connections open now."""
        return 0 if self._thread is None else self._thread.connections

    @property
    def connections_accepted(self) -> int:
        """Client connections accepted since the start."""
        return 0 if self._thread is None else self._thread.connections_accepted

    def reset(self) -> None:
        """Forget requests, bills, generations, faults and limits used; restore the balance. No id is given twice."""
        self._api.reset()

    # Waiting for it

    def wait_until(self, condition: Callable[[], bool], timeout: float = 2.0) -> None:
        """Wait until *condition* holds, polling it.

        Raises:
            TimeoutError: if it does not within *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            _check(deadline)
            time.sleep(_POLL_SECONDS)

    async def until(self, condition: Callable[[], bool], timeout: float = 2.0) -> None:
        """Do as `wait_until` does, from async code."""
        deadline = time.monotonic() + timeout
        while not condition():
            _check(deadline)
            await anyio.sleep(_POLL_SECONDS)

    def wait_for_disconnect(self, timeout: float = 2.0, *, count: int = 1) -> tuple[ReceivedRequest, ...]:
        """Wait until *count* clients went away before their answers were complete, and return their requests.

        Raises:
            TimeoutError: if that takes more than *timeout* seconds.
        """
        self.wait_until(lambda: len(self._disconnected()) >= count, timeout)
        return self._disconnected()

    async def until_disconnect(self, timeout: float = 2.0, *, count: int = 1) -> tuple[ReceivedRequest, ...]:
        """Do as `wait_for_disconnect` does, from async code."""
        await self.until(lambda: len(self._disconnected()) >= count, timeout)
        return self._disconnected()

    def _disconnected(self) -> tuple[ReceivedRequest, ...]:
        return tuple(received for received in self.requests if received.disconnected)


def _check(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("The condition did not hold in time.")
