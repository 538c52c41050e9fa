"""
A part of the fast path in `direct_sender`: makes a plain request in one step, and writes it without a task.

It uses attributes of aiohttp that are not public. So it checks the signatures that it depends on and that its requests
are the same as aiohttp's, reads every attribute before it writes a byte, and otherwise leaves the request to aiohttp.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import aiohttp
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping

StreamWriter: Any
try:
    from aiohttp.http import StreamWriter
except ImportError:  # another aiohttp
    StreamWriter = cast("Any", None)

MAX_BODY_BYTES = 16 * 1024
_MAX_BYTES = 16 * 1024  # of head and body; they always fit into a socket's buffer
_SEQUENTIAL = 2  # requests in a row that were alone; the first of a burst is alone, too

# The functions of aiohttp that are called or overridden here, with their parameters.
_RESPONSE_PARAMETERS = frozenset(
    {"method", "url", "writer", "continue100", "timer", "request_info", "traces", "loop", "session", "stream_writer"}
)
_FUNCTIONS: tuple[tuple[Any, str, frozenset[str]], ...] = (
    (aiohttp.ClientRequest, "send", frozenset({"self", "conn"})),
    (aiohttp.ClientRequest, "update_body_from_data", frozenset({"self", "body", "_stacklevel"})),
    (StreamWriter, "write_headers", frozenset({"self", "status_line", "headers"})),
    (StreamWriter, "write", frozenset({"self", "chunk", "drain", "LIMIT"})),
    (StreamWriter, "set_eof", frozenset({"self"})),
)
_COROUTINE_FUNCTIONS = frozenset({"send", "write_headers", "write"})

_OPTIONS = frozenset(
    {"auth", "chunked", "compress", "cookies", "data", "expect100", "headers", "loop", "params", "proxy", "proxy_auth"}
    | {"proxy_headers", "response_class", "server_hostname", "session", "skip_auto_headers", "ssl", "timer", "traces"}
    | {"trust_env", "version"}
)


@functools.cache
def is_known_aiohttp() -> bool:
    """Return whether this aiohttp has the functions that `RequestWriter` uses, and makes the same requests."""
    functions = [(getattr(owner, name, None), name, parameters) for owner, name, parameters in _FUNCTIONS]
    return (
        parameters_of(aiohttp.ClientResponse) == _RESPONSE_PARAMETERS
        and parameters_of(aiohttp.ClientRequest) == _OPTIONS | {"method", "url"}
        and parameters_of(StreamWriter) >= {"protocol", "loop"}
        and all(parameters_of(function) == parameters for function, _, parameters in functions)
        and all(
            inspect.iscoroutinefunction(function) == (name in _COROUTINE_FUNCTIONS) for function, name, _ in functions
        )
        and _makes_the_same_request()
    )


def parameters_of(function: Any) -> frozenset[str]:
    """Return the names of the parameters of *function*; none if they cannot be read."""
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # compiled, or not callable
        return frozenset()


def _makes_the_same_request() -> bool:
    url = URL("http://localhost:8000/generate?a=b")
    headers = {"Authorization": "a", "User-Agent": "b", "Content-Type": "c", "X-D": "e"}
    loop: Any = SimpleNamespace(get_debug=lambda: False)
    session: Any = SimpleNamespace()
    timer: Any = object()
    try:
        theirs = vars(
            aiohttp.ClientRequest("POST", url, headers=headers, data=b"{}", loop=loop, timer=timer, session=session)
        )
        ours = vars(RequestWriter(url, headers, b"{}", loop=loop, timer=timer, session=session, ssl=True))
        del ours["_plain_body"]
        same_headers = list(theirs.pop("headers").items()) == list(ours.pop("headers").items())
        body: object = theirs.pop("_body")
        return same_headers and type(body) is aiohttp.BytesPayload and theirs == ours
    except Exception:  # noqa: BLE001 - another aiohttp
        return False


class WriteBatch:
    """
    Requests that start in the same iteration of the loop are written together in the next, as aiohttp's tasks would be.

    Written one after the other, between responses, they would wake the server for each. A request that is alone is
    written at once. Counts the requests whose responses have not begun.
    """

    def __init__(self) -> None:
        self._in_flight = 0
        self._alone = 0  # how many requests in a row, the last included, were the only one in flight
        self._unwritten: deque[Callable[[], None]] = deque()

    def request_started(self) -> None:
        """Count a request."""
        self._in_flight += 1
        self._alone = self._alone + 1 if self._in_flight == 1 else 0

    def request_ended(self) -> None:
        """Stop counting a request: its response began, or never will."""
        self._in_flight -= 1

    @property
    def writes_at_once(self) -> bool:
        """Whether requests come one by one."""
        return self._alone >= _SEQUENTIAL

    def write_soon(self, write: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Call *write* in the next iteration of *loop*, together with others."""
        if not self._unwritten:
            loop.call_soon(self._write_all, loop)
        self._unwritten.append(write)

    def _write_all(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._unwritten:
                self._unwritten.popleft()()
        finally:
            if self._unwritten:  # a signal handler raised
                loop.call_soon(self._write_all, loop)


class RequestWriter(aiohttp.ClientRequest):
    """
    A plain POST of a *body* of up to `MAX_BODY_BYTES`, which is made without the many steps of aiohttp's constructor.

    *url*: with a host, without user, password and fragment. *headers*: with a User-Agent and a Content-Type, and
    without those that change how a request is written.

    The connector sets *batch* and *may_write*: the latter returns whether the connection may still be used. It is
    called before a request is written that had to wait.
    """

    batch: WriteBatch | None = None
    may_write: Callable[[], bool] | None = None

    def __init__(  # pyright: ignore[reportMissingSuperCall]
        self,
        url: URL,
        headers: Mapping[str, str],
        body: bytes,
        *,
        session: aiohttp.ClientSession,
        loop: asyncio.AbstractEventLoop,
        timer: Any,
        ssl: Any,
    ) -> None:
        self.headers = ordered = CIMultiDict[str]()
        ordered[hdrs.HOST] = url.host_port_subcomponent or ""
        ordered.extend(headers)
        for name, value in self.DEFAULT_HEADERS.items():
            if name not in ordered:
                ordered[name] = value
        ordered[hdrs.CONTENT_LENGTH] = str(len(body))
        self._session = session
        self.original_url = self.url = url
        self.method = hdrs.METH_POST
        self.loop = loop
        self.response_class = aiohttp.ClientResponse
        self._timer = timer
        self._ssl = ssl
        self.version = aiohttp.HttpVersion11
        self._traces = []
        absent: Any = None  # of each attribute's type
        self.chunked = self.compress = self.length = self.server_hostname = absent
        self.proxy = self.proxy_auth = self.proxy_headers = absent
        self._plain_body = body

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        body = self._plain_body
        prepared = self._prepare(conn, len(body))
        if prepared is None:
            self.update_body_from_data(body)
            return await super().send(conn)
        writer, head, headers, response, batch, loop = prepared
        await writer.write_headers(head, headers)  # only into the writer's buffer
        if batch.writes_at_once:
            await writer.write(body)  # does not wait: the body is small
            writer.set_eof()
        else:
            batch.write_soon(partial(_write_now, writer, body, conn, self.may_write), loop)
        return response

    def _prepare(self, conn: aiohttp.connector.Connection, size: int) -> _Prepared | None:
        """Return all that it takes to write this request, or None when aiohttp is to write it."""
        try:
            protocol, headers, loop, batch = conn.protocol, self.headers, self.loop, self.batch
            if (
                protocol is None
                or protocol.writing_paused
                or batch is None
                or getattr(self, "_upload_tracker", None) is not None  # the lowest aiohttp has none
                # Only now: the connector has put the secrets in.
                or size + sum(map(len, headers.values())) > _MAX_BYTES
            ):
                return None
            writer = StreamWriter(protocol, loop)
            response = self.response_class(
                self.method,
                self.original_url,
                writer=None,
                continue100=None,
                timer=self._timer,
                request_info=self.request_info,
                traces=self._traces,
                loop=loop,
                session=self.session,
                stream_writer=writer,
            )
            head = f"{self.method} {self.url.raw_path_qs} HTTP/1.1"
        except Exception:  # noqa: BLE001 - another aiohttp; nothing has been written
            return None
        return writer, head, headers, response, batch, loop


_Prepared: TypeAlias = (
    "tuple[Any, str, CIMultiDict[str], aiohttp.ClientResponse, WriteBatch, asyncio.AbstractEventLoop]"
)


def _write_now(
    writer: Any, body: bytes, conn: aiohttp.connector.Connection, may_write: Callable[[], bool] | None
) -> None:
    """Write a request in this iteration of the loop, and close the connection if that fails or would have to wait."""
    if conn.protocol is None:
        return  # nobody waits for the response any more
    if may_write is not None and not may_write():
        conn.close()
        return
    try:
        writer.write(body).send(None)
    except StopIteration:
        writer.set_eof()
        return  # it is written
    except Exception:  # noqa: BLE001, S110 - the closed connection reports it to the reader
        pass
    except BaseException:  # a signal handler raised
        conn.close()
        raise
    conn.close()
