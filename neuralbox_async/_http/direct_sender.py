"""
A fast path of `aiohttp.ClientSession.request`: a plain POST goes straight to a connection of the session's connector.

aiohttp merges options, prepares cookies, redirects, traces and middlewares for each request, a fifth of a call over
TLS (benchmark scenario `call-tls`). A session of the SDK has none of them, and follows no redirect. So the steps that
are left are done here, if this aiohttp takes the same ones, and as long as nobody has patched the session or traces it:
mocks, recorders and instrumentations see every request. With NEURALBOX_FAST_PATHS=off it is not used.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from yarl import URL

from neuralbox_async import _fast_paths
from neuralbox_async._http import request_writer
from neuralbox_async._http.aiohttp_connector import RESPONSE_LIMITS, NoCookies
from neuralbox_async._http.request_writer import MAX_BODY_BYTES, RequestWriter, parameters_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from neuralbox_async._http.aiohttp_connector import Connector
    from neuralbox_async._options import ConnectionOptions

ResponseHandler: Any
TimerNoop: Any
try:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.helpers import TimerNoop
except ImportError:  # another aiohttp
    ResponseHandler = TimerNoop = cast("Any", None)

# Headers that change how a request is written.
_SPECIAL_HEADERS = frozenset({"connection", "content-length", "expect", "host", "transfer-encoding"})
_NEEDED_HEADERS = frozenset({"content-type", "user-agent"})

_SESSION = aiohttp.ClientSession


def _methods() -> tuple[object, ...]:
    """Return what instrumentations, recorders and guards wrap."""
    session, request = vars(_SESSION), vars(aiohttp.ClientRequest)
    return (*map(session.get, ("_request", "request", "__init__")), *map(request.get, ("__init__", "send")))


_METHODS = _methods()
# What a request may ask of a session. An aiohttp with more may do more for each.
_OPTIONS = frozenset(
    {"self", "method", "str_or_url", "params", "data", "json", "cookies", "headers", "skip_auto_headers", "auth"}
    | {"allow_redirects", "max_redirects", "compress", "chunked", "expect100", "raise_for_status", "read_until_eof"}
    | {"proxy", "proxy_auth", "timeout", "verify_ssl", "fingerprint", "ssl_context", "ssl", "server_hostname"}
    | {"proxy_headers", "trace_request_ctx", "read_bufsize", "auto_decompress", "max_line_size", "max_field_size"}
    | {"max_headers", "middlewares", "upload_tracker"}
)
_MODULES = {"aiohttp.client", "aiohttp.client_reqrep"}
# Attributes of a session that change its requests.
_EMPTY = (
    "_auto_decompress",
    "_base_url",
    "_default_auth",
    "_default_headers",
    "_default_proxy",
    "_default_proxy_auth",
    "_middlewares",
    "_raise_for_status",
    "_skip_auto_headers",
    "_trust_env",
)
_RESPONSE_PARAMETERS = frozenset({"timer", "read_until_eof", "auto_decompress", *RESPONSE_LIMITS})


def new_direct_sender(
    http: aiohttp.ClientSession, connector: Connector, loop: asyncio.AbstractEventLoop, options: ConnectionOptions
) -> DirectSender | None:
    """Return the sender of *http*, None if all its requests are aiohttp's."""
    if not _fast_paths.enabled() or options.proxy is not None or not options.reuse_connections:
        return None
    knows = is_known_aiohttp() and request_writer.is_known_aiohttp() and _is_simple(http)
    return DirectSender(http, connector, loop, options.ssl_context or True) if knows else None


@functools.cache
def is_known_aiohttp() -> bool:
    """Return whether the session of this aiohttp, and what it calls, are as they are copied here."""
    connector: Any = aiohttp.BaseConnector
    return (
        TimerNoop is not None
        # Neither a mock nor a wrapper that was there before this module.
        and all(isinstance(method, types.FunctionType) for method in _METHODS)
        and {cast("Any", method).__globals__.get("__name__") for method in _METHODS} == _MODULES
        and parameters_of(_METHODS[0]) <= _OPTIONS
        and parameters_of(getattr(connector, "connect", None)) == frozenset({"self", "req", "traces", "timeout"})
        and parameters_of(getattr(aiohttp.ClientResponse, "start", None)) == frozenset({"self", "connection"})
        and parameters_of(getattr(ResponseHandler, "set_response_params", None)) >= _RESPONSE_PARAMETERS
    )


def _is_simple(http: aiohttp.ClientSession) -> bool:
    """Return whether *http* is as the SDK makes it: others may have replaced the class, or patched its constructor."""
    if type(http) is not _SESSION or type(http.cookie_jar) is not NoCookies:
        return False
    members = vars(http)
    return (
        all(name in members and not members[name] for name in _EMPTY)
        and members.get("_request_class") is aiohttp.ClientRequest
        and members.get("_response_class") is aiohttp.ClientResponse
    )


class DirectSender:
    """Sends plain requests of one session in its event loop."""

    def __init__(
        self, http: aiohttp.ClientSession, connector: Connector, loop: asyncio.AbstractEventLoop, ssl: Any
    ) -> None:
        self._http, self._connector, self._loop, self._ssl = http, connector, loop, ssl
        self._timeout = http.timeout
        self._timer = TimerNoop()

    def new_request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> RequestWriter | None:
        """Return a request to `send`, None if it is for the session."""
        http = self._http
        if (
            method != "POST"
            or not body
            or type(body) is not bytes
            or len(body) > MAX_BODY_BYTES
            or (plain_url := _plain_url(url)) is None
            or not _are_plain(tuple(headers))
            or _methods() != _METHODS
            or http.trace_configs
            or http.closed
            or self._loop.get_debug()
        ):
            return None
        return RequestWriter(plain_url, headers, body, session=http, loop=self._loop, timer=self._timer, ssl=self._ssl)

    async def send(self, request: RequestWriter) -> aiohttp.ClientResponse:
        """Send *request* and return its response, whose body is unread. Raises what the session raises."""
        try:
            connection = await self._connector.connect(request, traces=[], timeout=self._timeout)
        except TimeoutError as error:
            msg = f"Connection timeout to host {request.url}"
            raise aiohttp.ConnectionTimeoutError(msg) from error
        try:
            connection.protocol.set_response_params(
                timer=self._timer, read_until_eof=True, auto_decompress=False, **RESPONSE_LIMITS
            )
            response = await request.send(connection)
            try:
                await response.start(connection)
            except BaseException:
                response.close()
                raise
        except BaseException:
            connection.close()
            raise
        return response


@functools.lru_cache(64)
def _plain_url(text: str) -> URL | None:
    """Return the URL of *text*, None if aiohttp has to judge it."""
    try:
        url = URL(text)
    except ValueError:
        return None
    odd = (
        url.raw_user or url.raw_password or url.raw_fragment or not url.raw_host or url.scheme not in {"http", "https"}
    )
    return None if odd else url


@functools.lru_cache(256)
def _are_plain(names: tuple[str, ...]) -> bool:
    """Return whether headers of these *names* are those of a plain request."""
    lower = {name.lower() for name in names}
    return len(lower) == len(names) and lower >= _NEEDED_HEADERS and lower.isdisjoint(_SPECIAL_HEADERS)
