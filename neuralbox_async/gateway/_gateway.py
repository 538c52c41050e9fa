"""`Gateway`: the server, from its start to the end of the last call."""

from __future__ import annotations

import enum
import logging
import secrets
import time
from collections.abc import Callable
from typing import Final

import anyio
from aiohttp import web

from neuralbox_async import AsyncNeuralBox, NeuralBoxError, RetryPolicy
from neuralbox_async.gateway._access import AccessRules
from neuralbox_async.gateway._errors import ErrorBody, Refusal, error_body
from neuralbox_async.gateway._exchange import Exchange
from neuralbox_async.gateway._log import logger
from neuralbox_async.gateway._routes import Routes
from neuralbox_async.gateway._server import INTERNAL, SERVER, Server
from neuralbox_async.gateway._settings import GatewaySettings

_POLL: Final = 0.05  # seconds
_LAST_RESPONSES: Final = 1.0  # seconds for the responses of the calls that the end of the gateway ended
_STOPPING: Final = ErrorBody(
    status=503, message="the gateway is stopping", type="server_error", code="shutting_down", retry=True
)


class GatewayState(enum.Enum):
    """The life of a `Gateway`: ``NEW -> SERVING -> STOPPING -> CLOSED``, each once."""

    NEW = "new"
    SERVING = "serving"
    STOPPING = "stopping"  # no new calls; running ones go on
    CLOSED = "closed"


class Gateway:
    """
    A server with OpenAI's chat completions and models, which generates with *client*.

    *client* stays open when the gateway ends. Its timeouts and headers apply; the retry policy is the gateway's own,
    which waits for the rate limits of the account for all calls together. The log ``neuralbox.gateway`` has a line of
    level INFO for each request, without texts.
    """

    def __init__(self, client: AsyncNeuralBox, settings: GatewaySettings | None = None) -> None:
        self._settings = settings or GatewaySettings()
        # Its waits are for all calls together.
        self._client = client.with_options(retry_policy=RetryPolicy(retry_rate_limits=False))
        self._access = AccessRules(self._settings)
        self._state = GatewayState.NEW
        self._stop = anyio.Event()
        self._exchanges: set[Exchange] = set()
        self._routes: Routes | None = None
        self._port = self._settings.port

    @property
    def base_url(self) -> str:
        """The base URL for clients on this machine. Its port is known once the gateway serves."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._settings.host, self._settings.host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}/v1"

    @property
    def needs_token(self) -> bool:
        """Whether clients need a token."""
        return self._settings.token is not None

    @property
    def is_stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stop.is_set()

    async def serve(self, *, ready: Callable[[Gateway], object] | None = None) -> None:
        """
        Serve until `stop` is called, and then until the running calls have ended, or *shutdown_timeout* has passed.

        *ready* is called when the gateway listens. A cancellation ends everything at once. Raises `OSError` if the
        address cannot be used, and `RuntimeError` when it is called a second time.
        """
        if self._state is not GatewayState.NEW:
            raise RuntimeError("a gateway can serve only once")
        self._state = GatewayState.SERVING
        server = Server(self._handle, write_timeout=self._settings.write_timeout)
        runner = web.ServerRunner(server, shutdown_timeout=_LAST_RESPONSES)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._settings.host, self._settings.port)
            await site.start()  # outside of the task group, which would wrap its error
            self._port = runner.addresses[0][1]
            async with anyio.create_task_group() as tasks:
                self._routes = Routes(self._client, self._settings, tasks)
                if ready is not None:
                    ready(self)
                await self._stop.wait()
                self._state = GatewayState.STOPPING
                await site.stop()
                with anyio.move_on_after(self._settings.shutdown_timeout):
                    await self._wait_for_calls(self._routes)
                tasks.cancel_scope.cancel()
                for exchange in self._exchanges:
                    exchange.cut()
        finally:
            self._state = GatewayState.CLOSED
            with anyio.CancelScope(shield=True):
                await runner.cleanup()

    def stop(self) -> None:
        """Accept no more calls; running ones have *shutdown_timeout* seconds to finish. Idempotent."""
        self._stop.set()

    async def _wait_for_calls(self, routes: Routes) -> None:
        while self._exchanges or routes.whole.running:  # noqa: ASYNC110 - two counts, and only at the end
            await anyio.sleep(_POLL)

    # ---------------------------------------------------------------------------------------------------- each request

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        # From aiohttp 4 on malformed requests reach the handler. Earlier releases respond to them.
        if error := getattr(request, "pre_handler_error", None):
            raise error
        exchange = Exchange(request, {"x-request-id": f"req_{secrets.token_hex(12)}", "Server": SERVER})
        started = time.monotonic()
        self._exchanges.add(exchange)
        try:
            with exchange.scope:
                return await self._respond(exchange)
            return exchange.end_cut()  # only if it was cut
        except anyio.get_cancelled_exc_class():
            exchange.mark_disconnected()
            raise
        except ConnectionError:
            exchange.mark_disconnected()
            return web.Response()  # never sent: the client has disconnected
        finally:
            self._exchanges.discard(exchange)
            if logger.isEnabledFor(logging.INFO):
                logger.info("%s", exchange.log_line(time.monotonic() - started))

    async def _respond(self, exchange: Exchange) -> web.StreamResponse:
        response: web.Response
        try:
            return await self._route(exchange)
        except Refusal as refusal:
            response = exchange.refuse(refusal.body)
        except NeuralBoxError as error:
            exchange.describe(generation_id=error.generation_id)
            response = exchange.refuse(error_body(error))
        except ConnectionError:
            raise
        except Exception:
            logger.exception("the gateway failed")
            if (
                exchange.status is not None
            ):  # the head was sent: only a closed connection shows that the rest is missing
                raise
            response = exchange.refuse(INTERNAL)
        return response

    async def _route(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        self._access.check_host(request)
        exchange.headers |= self._access.cors_headers(request)
        if request.method == "OPTIONS" and "Origin" in request.headers:
            return exchange.respond_without_body(self._access.preflight_headers(request))
        is_serving = self._state is GatewayState.SERVING
        if request.path == "/healthz" and request.method in {"GET", "HEAD"}:
            return exchange.respond(
                b'{"status": "ok"}' if is_serving else b'{"status": "stopping"}', status=200 if is_serving else 503
            )
        if not is_serving or self._routes is None:
            raise Refusal(_STOPPING)
        self._access.check_token(request)
        return await self._routes.respond(exchange)
