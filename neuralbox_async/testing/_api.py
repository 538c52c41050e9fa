"""The API on the server's side: record each request, apply faults, authenticate, route, respond."""

from __future__ import annotations

import hmac
import itertools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

from aiohttp import web

from neuralbox_async.testing._account import AccountHandler
from neuralbox_async.testing._exchange import DisconnectedError, Exchange
from neuralbox_async.testing._faults import Delay, Drop, Fail, Fault, FaultQueue
from neuralbox_async.testing._handlers import GenerationHandler
from neuralbox_async.testing._http_errors import HTTPError, validation_error
from neuralbox_async.testing._limits import RateLimits, Window
from neuralbox_async.testing._received_request import ReceivedRequest
from neuralbox_async.testing._request_parsing import Dialect, is_streaming, parse_generation_request, parse_json
from neuralbox_async.testing._responses import generation_body, model_body, price_body, status_body
from neuralbox_async.testing._store import AccountStore

if TYPE_CHECKING:
    from neuralbox_async.testing._settings import Settings

PREFIX: Final = "/api/v2"

_DIALECTS: Final[dict[str, Dialect]] = {"a": "a", "b": "b"}

logger = logging.getLogger("neuralbox.testing")


class API:
    """The handler of all requests. It runs on the server's event loop; its records may be read from any thread."""

    def __init__(self, api_key: str, settings: Settings) -> None:
        self.api_key = api_key
        self.faults = FaultQueue()
        self.store = AccountStore(settings.balance, settings.history)
        self.requests: deque[ReceivedRequest] = deque(maxlen=settings.history)
        self.next_texts: deque[str] = deque()
        self.in_flight = 0
        self.peak_in_flight = 0
        self._settings = settings
        self._indexes = itertools.count()
        # By connection: HTTP/1.1 handles one request at a time on each.
        self._exchanges: dict[object, Exchange] = {}
        self._generations = GenerationHandler(settings, self.store, self.next_texts)
        self._account = AccountHandler(settings, self.store)
        self._limits = RateLimits(
            hour=Window(settings.limit_hour, settings.hour_seconds),
            day=Window(settings.limit_day, settings.day_seconds),
            plan=settings.plan,
            retry_after_header=settings.retry_after_header,
        )

    def reset(self) -> None:
        """Restore the initial state, except for open connections and requests in flight."""
        self.requests = deque(maxlen=self._settings.history)
        self._indexes = itertools.count()
        self.peak_in_flight = self.in_flight
        self.faults.clear()
        self.next_texts.clear()
        self.store.reset()
        self._limits.reset()

    def connection_lost(self, connection: object) -> None:
        """Mark the request in flight on *connection*, if any, as disconnected."""
        if exchange := self._exchanges.get(connection):
            exchange.mark_disconnected()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Record *request* and respond to it."""
        # From aiohttp 4 on malformed requests reach the handler. Earlier releases respond to them.
        if error := getattr(request, "pre_handler_error", None):
            raise error
        received = ReceivedRequest(
            index=next(self._indexes),
            method=request.method,
            path=request.path,
            query=request.query,
            headers=request.headers,
        )
        self.requests.append(received)
        exchange = Exchange(request, received, self._rate_limit_headers)
        if request.transport is None:
            exchange.mark_disconnected()
        self._exchanges[request.protocol] = exchange
        started = time.monotonic()
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            return await self._respond(exchange)
        except (DisconnectedError, ConnectionError):
            # A write may detect the disconnect before the protocol does.
            exchange.mark_disconnected()
            # Never sent: aiohttp detects the closed connection.
            return web.Response()
        finally:
            self.in_flight -= 1
            del self._exchanges[request.protocol]
            if logger.isEnabledFor(logging.INFO):
                logger.info("%s", _log_line(received, time.monotonic() - started))

    def _rate_limit_headers(self) -> dict[str, str]:
        return self._limits.headers(time.monotonic())

    async def _respond(self, exchange: Exchange) -> web.StreamResponse:
        try:
            return await self._apply_fault(exchange)
        except HTTPError as error:
            return await exchange.send(error.status, error.body(), error.headers)
        except (DisconnectedError, ConnectionError):
            raise
        except Exception as error:
            # Usually a `reply` that raises: its author needs the traceback.
            logger.exception("The local server failed to handle %s", exchange.received)
            return await exchange.send(500, HTTPError(500, code="internal_error", message=repr(error)).body())

    async def _apply_fault(self, exchange: Exchange) -> web.StreamResponse:
        """Read the request, apply the first fault that matches it, and route the request."""
        await self._read_body(exchange)
        received = exchange.received
        path = received.path.removeprefix(PREFIX) if received.path.startswith(PREFIX) else ""
        stream = is_streaming(received.json, path)
        fault = self.faults.take(received.method, path, stream=stream)
        match fault:
            case Delay():
                await self._generations.wait(exchange, fault.seconds, stream=stream)
            case Drop(when="before"):
                exchange.disconnect(fault.how)
            case Fail(billed=False):
                return await self._send_failure(exchange, fault)
            case _:
                # `_generate` applies the faults of later stages.
                pass
        return await self._route(exchange, path, fault)

    async def _read_body(self, exchange: Exchange) -> None:
        received = exchange.received
        received.body = await exchange.read_body(self._settings.max_body_size)
        try:
            received.json = parse_json(received.body) if received.body else None
        except HTTPError:
            # Only some endpoints require JSON.
            received.json = None

    async def _route(self, exchange: Exchange, path: str, fault: Fault | None) -> web.StreamResponse:
        self._authenticate(exchange)
        match exchange.received.method, *path.split("/")[1:]:
            case ["POST", "generate"] | ["POST", "generate", "stream"]:
                return await self._generate(exchange, path, fault)
            case ["GET", "generate", "status", id_] if "a" in self._settings.status_paths:
                return await exchange.send(200, self._status_body(exchange, id_, "a"))
            case ["GET", "generate", id_] if "b" in self._settings.status_paths:
                return await exchange.send(200, self._status_body(exchange, id_, "b"))
            case ["GET", *_] | [_, "models", *_]:
                return await exchange.send(200, self._account_body(exchange, path))
            case _:
                raise HTTPError(404)

    def _account_body(self, exchange: Exchange, path: str) -> dict[str, object]:
        """Return the response to a request about the account or the models, which changes nothing."""
        account, received = self._account, exchange.received
        body: dict[str, object] | None = None
        match received.method, *path.split("/")[1:]:
            case ["GET", "balance"]:
                body = account.balance_body()
            case ["GET", "user", "balance"]:
                body = account.user_balance_body()
            case ["GET", "user", "me"]:
                body = account.profile_body()
            case ["GET", "user", "stats"]:
                body = account.stats_body()
            case ["GET", "user", "history"]:
                body = account.history_body(received.query, _requested_dialect(exchange) or self._settings.dialect)
            case ["GET", "models"]:
                body = account.models_body()
            case ["GET", "models", slug] if model := account.model(slug):
                body = model_body(slug, model)
            case ["POST", "models", slug, "calculate-price"] if model := account.model(slug):
                body = price_body(model, _parse_count(exchange))
            case _:
                pass
        if body is None:
            raise HTTPError(404)
        return body

    def _authenticate(self, exchange: Exchange) -> None:
        credentials = exchange.received.headers.get("Authorization", "")
        if not hmac.compare_digest(credentials.encode(errors="surrogateescape"), f"Bearer {self.api_key}".encode()):
            raise HTTPError(401)

    async def _generate(self, exchange: Exchange, path: str, fault: Fault | None) -> web.StreamResponse:
        self._limits.admit(time.monotonic())
        request = parse_generation_request(_json(exchange), path)
        if request.model in self._settings.restricted_models:
            raise HTTPError(403)
        if self._settings.refuse_unknown_models and self._account.model(request.model) is None:
            raise HTTPError(404, message=f"Model {request.model} not found.")
        dialect = _requested_dialect(exchange) or request.dialect or self._settings.dialect
        if request.stream and not isinstance(fault, Drop | Fail):
            return await self._generations.stream(exchange, request, dialect, fault)
        generation = await self._generations.run(exchange, request)
        if isinstance(fault, Drop):
            exchange.disconnect(fault.how)
        if isinstance(fault, Fail):
            return await self._send_failure(exchange, fault)
        return await exchange.send(200, generation_body(generation, dialect, self._settings.pending_seconds))

    def _status_body(self, exchange: Exchange, id_: str, dialect: Dialect) -> dict[str, object]:
        generation = self.store.get(id_)
        if generation is None:
            raise HTTPError(404, message=f"Generation {id_} not found.")
        return status_body(generation, _requested_dialect(exchange) or dialect, self._settings.pending_seconds)

    async def _send_failure(self, exchange: Exchange, fault: Fail) -> web.StreamResponse:
        """Send the response of *fault*: its own body, or the documented body of its status."""
        if fault.body is not None:
            return await exchange.send(fault.status, fault.body, fault.headers)
        members: dict[str, object] | None = None
        if fault.status == 429:
            members = self._limits.members(1 if fault.retry_after is None else fault.retry_after)
        elif fault.retry_after is not None:
            members = {"details": {}, "retry_after": fault.retry_after}
        error = HTTPError(fault.status, code=fault.code, message=fault.message, members=members)
        return await exchange.send(fault.status, error.body(), fault.headers)


def _log_line(received: ReceivedRequest, elapsed: float) -> str:
    """Return what the log has of a request: never a prompt or a key."""
    body: object = received.json
    model = cast("dict[str, object]", body).get("model") if isinstance(body, dict) else None
    outcome = "disconnected" if received.disconnected else str(received.response_status)
    facts = (received.method, received.path, outcome, None if model is None else str(model), f"{elapsed:.3f} s")
    return " ".join(fact for fact in facts if fact is not None)


def _json(exchange: Exchange) -> Any:
    """Return the parsed body. Raises `HTTPError` 400 if it is not valid JSON."""
    received = exchange.received
    return parse_json(received.body) if received.json is None else received.json


def _parse_count(exchange: Exchange) -> int:
    body: object = _json(exchange)
    count = cast("dict[str, object]", body).get("count", 1) if isinstance(body, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise validation_error({"count": "must be an integer of at least 1"})
    return count


def _requested_dialect(exchange: Exchange) -> Dialect | None:
    return _DIALECTS.get(exchange.received.headers.get("X-NeuralBox-Dialect", "").lower())
