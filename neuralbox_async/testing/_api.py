"""The API on the server's side: requests recorded, put through the script of faults, routed, answered."""

from __future__ import annotations

import hmac
import itertools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import attrs
from aiohttp import web

from neuralbox_async.testing._bodies import generation_body, status_body
from neuralbox_async.testing._calls import Dialect, load_call, load_json, wants_stream
from neuralbox_async.testing._catalogue import CATALOGUE, Model, describe, quote
from neuralbox_async.testing._exchange import ClientGoneError, Exchange
from neuralbox_async.testing._faults import Delay, Drop, Fail, Fault, FaultScript
from neuralbox_async.testing._generating import Generating
from neuralbox_async.testing._generations import Books
from neuralbox_async.testing._limits import RateLimits, Window
from neuralbox_async.testing._received import ReceivedRequest
from neuralbox_async.testing._refusals import RefusalError, invalid

if TYPE_CHECKING:
    from neuralbox_async.testing._settings import Settings

PREFIX: Final = "/api/v2"

_DIALECTS: Final[dict[str, Dialect]] = {"a": "a", "b": "b"}

logger = logging.getLogger("neuralbox.testing")


class API:
    """Everything behind the listening socket. Runs on the server's loop; its records may be read from any thread."""

    def __init__(self, api_key: str, settings: Settings) -> None:
        self.api_key = api_key
        self.faults = FaultScript()
        self.books = Books(settings.balance, settings.keep)
        self.requests: deque[ReceivedRequest] = deque(maxlen=settings.keep)
        self.in_flight = 0
        self.peak_in_flight = 0
        self._settings = settings
        self._indexes = itertools.count()
        # By connection: HTTP/1.1 serves one request at a time on each.
        self._exchanges: dict[object, Exchange] = {}
        self._generating = Generating(settings, self.books)
        self._limits = RateLimits(
            hour=Window(settings.limit_hour, settings.hour_seconds),
            day=Window(settings.limit_day, settings.day_seconds),
            plan=settings.plan,
            retry_after_header=settings.retry_after_header,
        )

    def reset(self) -> None:
        """Be as new, but for the connections that are open and the requests that are being served."""
        self.requests = deque(maxlen=self._settings.keep)
        self._indexes = itertools.count()
        self.peak_in_flight = self.in_flight
        self.faults.clear()
        self.books.reset()
        self._limits.reset()

    def connection_lost(self, connection: object) -> None:
        """Tell the request that *connection* was serving, if any."""
        if exchange := self._exchanges.get(connection):
            exchange.lose()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, and keep the record of it."""
        received = ReceivedRequest(
            index=next(self._indexes), method=request.method, path=request.path, headers=request.headers
        )
        self.requests.append(received)
        exchange = Exchange(request, received, self._rate_limit_headers)
        if request.transport is None:
            exchange.lose()
        self._exchanges[request.protocol] = exchange
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
        try:
            return await self._answer(exchange)
        except (ClientGoneError, ConnectionError):
            # A write may know it sooner than the protocol does.
            exchange.lose()
            # Nothing can be sent any more: aiohttp finds the connection closed.
            return web.Response()
        finally:
            self.in_flight -= 1
            del self._exchanges[request.protocol]

    def _rate_limit_headers(self) -> dict[str, str]:
        return self._limits.headers(time.monotonic())

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        try:
            return await self._obey_script(exchange)
        except RefusalError as refusal:
            return await exchange.send(refusal.status, refusal.body(), refusal.headers)
        except (ClientGoneError, ConnectionError):
            raise
        except Exception as error:
            # Most likely a `reply` that raises: its author wants to see where.
            logger.exception("The local server failed to answer %s", exchange.received)
            return await exchange.send(500, RefusalError(500, code="internal_error", message=repr(error)).body())

    async def _obey_script(self, exchange: Exchange) -> web.StreamResponse:
        """Read the request, let the first fault that fits do its work, and go on to the API itself."""
        await self._read(exchange)
        received = exchange.received
        path = received.path.removeprefix(PREFIX) if received.path.startswith(PREFIX) else ""
        stream = wants_stream(received.json, path)
        fault = self.faults.take(received.method, path, stream=stream)
        match fault:
            case Delay():
                await self._generating.wait(exchange, fault.seconds, stream=stream)
            case Drop(when="before"):
                raise exchange.hang_up(fault.how)
            case Fail(billed=False):
                return await self._fail(exchange, fault)
            case _:
                # What befalls a request later: `_generate` sees to it.
                pass
        return await self._route(exchange, path, fault)

    async def _read(self, exchange: Exchange) -> None:
        received = exchange.received
        try:
            received.body = await exchange.request.read()
            received.json = load_json(received.body) if received.body else None
        except web.HTTPRequestEntityTooLarge as error:
            raise RefusalError(413) from error
        except RefusalError:
            # Whether it had to be JSON depends on where it was sent.
            received.json = None

    async def _route(self, exchange: Exchange, path: str, fault: Fault | None) -> web.StreamResponse:
        self._authorise(exchange)
        match exchange.received.method, *path.split("/")[1:]:
            case ["POST", "generate"] | ["POST", "generate", "stream"]:
                return await self._generate(exchange, path, fault)
            case ["GET", "generate", "status", id_] if "a" in self._settings.status_paths:
                return await exchange.send(200, self._status(exchange, id_, "a"))
            case ["GET", "generate", id_] if "b" in self._settings.status_paths:
                return await exchange.send(200, self._status(exchange, id_, "b"))
            case ["GET", "balance"]:
                return await exchange.send(200, self._balance())
            case ["GET", "models", slug] if model := self._model(slug):
                return await exchange.send(200, describe(slug, model))
            case ["POST", "models", slug, "calculate-price"] if model := self._model(slug):
                return await exchange.send(200, quote(model, _count(exchange)))
            case _:
                raise RefusalError(404)

    def _model(self, slug: str) -> Model | None:
        """Return what is told of *slug*: what it costs here, which is what is billed."""
        model, price = CATALOGUE.get(slug), self._settings.prices.get(slug)
        if price is None:
            return model
        return attrs.evolve(model or Model("text", price, price), cost=price, ceiling=price)

    def _authorise(self, exchange: Exchange) -> None:
        given = exchange.received.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(errors="surrogateescape"), f"Bearer {self.api_key}".encode()):
            raise RefusalError(401)

    async def _generate(self, exchange: Exchange, path: str, fault: Fault | None) -> web.StreamResponse:
        self._limits.admit(time.monotonic())
        call = load_call(_json(exchange), path)
        if call.model in self._settings.restricted_models:
            raise RefusalError(403)
        dialect = _asked_dialect(exchange) or call.dialect or self._settings.dialect
        if call.stream and not isinstance(fault, Drop | Fail):
            return await self._generating.stream(exchange, call, dialect, fault)
        generation = await self._generating.run(exchange, call)
        match fault:
            case Drop():
                raise exchange.hang_up(fault.how)
            case Fail():
                return await self._fail(exchange, fault)
            case _:
                return await exchange.send(200, generation_body(generation, dialect, self._settings.pending_seconds))

    def _status(self, exchange: Exchange, id_: str, dialect: Dialect) -> dict[str, object]:
        generation = self.books.find(id_)
        if generation is None:
            raise RefusalError(404, message=f"Generation {id_} not found.")
        return status_body(generation, _asked_dialect(exchange) or dialect, self._settings.pending_seconds)

    def _balance(self) -> dict[str, object]:
        plan = self._settings.plan
        expires = None if plan == "free" else "2030-01-01T00:00:00Z"
        return {"token_balance": self.books.balance, "plan": plan, "plan_expires_at": expires}

    async def _fail(self, exchange: Exchange, fault: Fail) -> web.StreamResponse:
        """Send what *fault* prescribes: a body of its own, or the documented one of its status."""
        if fault.body is not None:
            return await exchange.send(fault.status, fault.body, fault.headers)
        members: dict[str, object] | None = None
        if fault.status == 429:
            members = self._limits.members(1 if fault.retry_after is None else fault.retry_after)
        elif fault.retry_after is not None:
            members = {"details": {}, "retry_after": fault.retry_after}
        refusal = RefusalError(fault.status, code=fault.code, message=fault.message, members=members)
        return await exchange.send(fault.status, refusal.body(), fault.headers)


def _json(exchange: Exchange) -> Any:
    """Return the parsed body, or raise the 400 that it deserves."""
    received = exchange.received
    return load_json(received.body) if received.json is None else received.json


def _count(exchange: Exchange) -> int:
    body: object = _json(exchange)
    count = cast("dict[str, object]", body).get("count", 1) if isinstance(body, dict) else None
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise invalid({"count": "must be an integer of at least 1"})
    return count


def _asked_dialect(exchange: Exchange) -> Dialect | None:
    return _DIALECTS.get(exchange.received.headers.get("X-NeuralBox-Dialect", "").lower())
