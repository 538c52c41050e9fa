"""`NeuralBoxServer`: an HTTP server on loopback that behaves like the documented API."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypedDict

import anyio

from neuralbox_async.testing._api import API, PREFIX
from neuralbox_async.testing._fault_injection import FaultInjector
from neuralbox_async.testing._lifecycle import Lifecycle
from neuralbox_async.testing._received_request import ReceivedRequest
from neuralbox_async.testing._request_parsing import Dialect
from neuralbox_async.testing._server_thread import ServerThread
from neuralbox_async.testing._settings import Reply, Settings
from neuralbox_async.testing._store import BilledGeneration

_POLL_SECONDS: Final = 0.002


class ClientOptions(TypedDict):
    """The keyword arguments for a client of a local server."""

    api_key: str
    base_url: str


class NeuralBoxServer(Lifecycle, FaultInjector):
    """
    A local NeuralBox API with real sockets, in a daemon thread with its own event loop.

    One server can be used by async code, blocking code and any number of event loops at the same time. Use it as a
    context manager (``with`` or ``async with``), or call `start` and `close`. It behaves as the vendor documents.
    `fail`, `delay`, `drop`, `cut`, `stall` and `error_event` inject faults: each fault applies to the next POST to a
    generate endpoint that it matches, in the order of the calls, one fault per request.

    A generation that is not streamed is completed and billed even if its client disconnects, unless
    *stop_on_disconnect* is true. A stream stops when its client disconnects, and is billed just before its
    `generation_end` is sent.

    * *api_key*: The valid API key. It can be changed while the server runs.
    * *host*: The address to listen on.
    * *port*: The port to listen on; 0 selects a free port.
    * *balance*: The initial balance, in NeuralBox tokens.
    * *plan*: The plan named in response bodies (`free`, `basic`, `pro`, `vip`, `elite`).
    * *dialect*: The form of the response to a request with `messages`: "a" (string ids, `content`) or "b" (integer ids,
      `result_text`). Requests with `prompt`, or to /generate/stream, get a response in "b". The request header
      `X-NeuralBox-Dialect: a` or `b` overrides both.
    * *status_paths*: The status endpoints that exist: "a" for /generate/status/{id}, "b" for /generate/{id}.
    * *reply*: The text of every generation, or a function that takes the JSON of the request and returns the text, as a
      string or as an iterable of tokens (which may be infinite for streams). The function runs on the server's event
      loop. The default is an echo of the last user message.
    * *prices*: Prices by model, in NeuralBox tokens per generation. They override the vendor's price list. Other models
      cost 1.
    * *restricted_models*: Models for which the response is a 403 `insufficient_plan`.
    * *refuse_unknown_models*: Whether the response is a 404 `not_found` for models that are neither in the vendor's
      price list nor in *prices*.
    * *failing_models*: Models whose generations end with status `failed`.
    * *pending_models*: Models whose generations, unless streamed, are `pending` at first and complete after
      *pending_seconds*. A member ``"background": true`` in a request has the same effect.
    * *pending_seconds*: Seconds until a pending generation completes.
    * *latency*: Seconds before the response to a generation request, or before the headers of a stream.
    * *event_interval*: Seconds between the events of a stream; 0 sends them as fast as the client reads.
    * *heartbeat*: Seconds between comment lines while a stream is idle; None sends none.
    * *limit_hour*: Generation requests per hour; None sets no limit and sends no headers about it.
    * *limit_day*: Generation requests per day; None as for *limit_hour*.
    * *hour_seconds*: Length of an hour, in seconds. The hour starts with the first counted request.
    * *day_seconds*: Length of a day, in seconds. The day starts with the first counted request.
    * *retry_after_header*: Whether a 429 has the (undocumented) `Retry-After` header besides `retry_after` in the body.
    * *honour_idempotency_key*: Whether a repeated `Idempotency-Key` returns the first generation again, unbilled. The
      vendor documents no such feature, so by default each request creates a new generation.
    * *stop_on_disconnect*: Whether a generation that is not streamed stops, unbilled, when its client disconnects.
    * *keepalive_timeout*: Seconds after which an idle connection is closed.
    * *max_body_size*: Maximum size of a request body, in bytes. The response to a larger one is a 413.
    * *history*: Number of requests, generations and bills to keep, the newest; None keeps all.

    The logger `neuralbox.testing` gets a record of level INFO for each request.

    Raises `ValueError` if an option is out of range.
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
        refuse_unknown_models: bool = False,
        failing_models: Collection[str] = (),
        pending_models: Collection[str] = (),
        pending_seconds: float = 0.2,
        latency: float = 0.0,
        event_interval: float = 0.0,
        heartbeat: float | None = None,
        limit_hour: int | None = None,
        limit_day: int | None = None,
        hour_seconds: float = 3600.0,
        day_seconds: float = 86400.0,
        retry_after_header: bool = False,
        honour_idempotency_key: bool = False,
        stop_on_disconnect: bool = False,
        keepalive_timeout: float = 75.0,
        max_body_size: int = 64 * 1024 * 1024,
        history: int | None = None,
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
            refuse_unknown_models=refuse_unknown_models,
            failing_models=failing_models,
            pending_models=pending_models,
            pending_seconds=pending_seconds,
            latency=latency,
            event_interval=event_interval,
            heartbeat=heartbeat,
            limit_hour=limit_hour,
            limit_day=limit_day,
            hour_seconds=hour_seconds,
            day_seconds=day_seconds,
            retry_after_header=retry_after_header,
            honour_idempotency_key=honour_idempotency_key,
            stop_on_disconnect=stop_on_disconnect,
            keepalive_timeout=keepalive_timeout,
            max_body_size=max_body_size,
            history=history,
        )
        self._api = API(api_key, self._settings)
        FaultInjector.__init__(self, self._api.faults)
        Lifecycle.__init__(self, self._make_server_thread)

    def _make_server_thread(self) -> ServerThread:
        return ServerThread(self._api, self._host, self._port, keepalive_timeout=self._settings.keepalive_timeout)

    # The address and the key

    @property
    def port(self) -> int:
        """The port, also after `close`. Raises RuntimeError before the start."""
        return self._started_thread().port

    @property
    def base_url(self) -> str:
        """The base URL for a client, also after `close`. Raises RuntimeError before the start."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}{PREFIX}"

    @property
    def api_key(self) -> str:
        """The valid API key. It can be set."""
        return self._api.api_key

    @api_key.setter
    def api_key(self, key: str) -> None:
        self._api.api_key = key

    @property
    def client_options(self) -> ClientOptions:
        """The keyword arguments for a client of this server: ``AsyncNeuralBox(**server.client_options)``."""
        return {"api_key": self.api_key, "base_url": self.base_url}

    # Texts

    def reply_with(self, *texts: str) -> None:
        """Use *texts* for the next generations, one each in their order, before *reply* applies again. Thread-safe."""
        self._api.next_texts.extend(texts)

    # Records

    @property
    def balance(self) -> int:
        """The current balance, in NeuralBox tokens. It can be set."""
        return self._api.store.balance

    @balance.setter
    def balance(self, tokens: int) -> None:
        self._api.store.balance = tokens

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """The received requests, in the order in which their headers arrived."""
        return tuple(self._api.requests)

    @property
    def billed(self) -> tuple[BilledGeneration, ...]:
        """The billed generations, in the order of their completion."""
        return tuple(self._api.store.billed)

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return self._api.in_flight

    @property
    def peak_in_flight(self) -> int:
        """The highest number of requests in flight at the same time."""
        return self._api.peak_in_flight

    @property
    def connections(self) -> int:
        """The number of open client connections."""
        return 0 if self._thread is None else self._thread.connections

    @property
    def connections_accepted(self) -> int:
        """The number of client connections accepted since the start."""
        return 0 if self._thread is None else self._thread.connections_accepted

    def reset(self) -> None:
        """Delete records, generations, faults, queued texts, used limits; restore the balance. No id is used twice."""
        self._api.reset()

    # Waiting

    def wait_until(self, condition: Callable[[], bool], timeout: float = 2.0) -> None:
        """Poll *condition* until it returns true.

        Raises:
            TimeoutError: if it does not return true within *timeout* seconds.
        """
        deadline = time.monotonic() + timeout
        while not condition():
            _raise_if_past(deadline)
            time.sleep(_POLL_SECONDS)

    async def wait_until_async(self, condition: Callable[[], bool], timeout: float = 2.0) -> None:
        """Do the same as `wait_until`, from async code."""
        deadline = time.monotonic() + timeout
        while not condition():
            _raise_if_past(deadline)
            await anyio.sleep(_POLL_SECONDS)

    def wait_for_disconnect(self, timeout: float = 2.0, *, count: int = 1) -> tuple[ReceivedRequest, ...]:
        """Wait until *count* clients disconnected before their responses were complete. Return their requests.

        Raises:
            TimeoutError: if this takes more than *timeout* seconds.
        """
        self.wait_until(lambda: len(self._disconnected()) >= count, timeout)
        return self._disconnected()

    async def wait_for_disconnect_async(self, timeout: float = 2.0, *, count: int = 1) -> tuple[ReceivedRequest, ...]:
        """Do the same as `wait_for_disconnect`, from async code."""
        await self.wait_until_async(lambda: len(self._disconnected()) >= count, timeout)
        return self._disconnected()

    def _disconnected(self) -> tuple[ReceivedRequest, ...]:
        return tuple(received for received in self.requests if received.disconnected)


def _raise_if_past(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise TimeoutError("The condition was not met within the timeout.")
