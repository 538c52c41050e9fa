"""
A fast path of `aiohttp.ClientRequest`: writes a small request without a task for its body.

This saves a tenth of a call (benchmark scenarios `call` and `call-64`). It uses attributes of aiohttp that are not
public. So it checks the signatures that it depends on, reads every attribute before it writes a byte, and otherwise
leaves the request to aiohttp. With NEURALBOX_FAST_PATHS=off it is not used.
"""

from __future__ import annotations

import functools
import inspect
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

import aiohttp

from neuralbox_async import _fast_paths

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Coroutine

StreamWriter: Any
try:
    from aiohttp.http import StreamWriter
except ImportError:  # another aiohttp
    StreamWriter = cast("Any", None)

_MAX_BYTES = 16 * 1024  # of head and body; they always fit into a socket's buffer
_SEQUENTIAL = 2  # requests in a row that were alone; the first of a burst is alone, too

# The functions of aiohttp that are called or overridden here, with their parameters.
_RESPONSE_PARAMETERS = frozenset(
    {"method", "url", "writer", "continue100", "timer", "request_info", "traces", "loop", "session", "stream_writer"}
)
_COROUTINE_FUNCTIONS: tuple[tuple[Any, str, frozenset[str]], ...] = (
    (aiohttp.ClientRequest, "send", frozenset({"self", "conn"})),
    (aiohttp.ClientRequest, "write_bytes", frozenset({"self", "writer", "conn", "content_length"})),
    (StreamWriter, "write_headers", frozenset({"self", "status_line", "headers"})),
)


def request_class() -> type[aiohttp.ClientRequest]:
    """Return `RequestWriter` if it knows this aiohttp and the fast paths are on, otherwise aiohttp's own class."""
    return RequestWriter if _fast_paths.enabled() and is_known_aiohttp() else aiohttp.ClientRequest


@functools.cache
def is_known_aiohttp() -> bool:
    """Return whether this aiohttp has the functions that `RequestWriter` uses, with the same signatures."""
    functions = [(getattr(owner, name, None), parameters) for owner, name, parameters in _COROUTINE_FUNCTIONS]
    return (
        _parameters(aiohttp.ClientResponse) == _RESPONSE_PARAMETERS
        and _parameters(StreamWriter) >= {"protocol", "loop"}
        and all(inspect.iscoroutinefunction(function) for function, _ in functions)
        and all(_parameters(function) == parameters for function, parameters in functions)
    )


def _parameters(function: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # compiled, or not callable
        return frozenset()


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


class HasWriteBatch(Protocol):
    """A connector whose requests `RequestWriter` writes."""

    writes: WriteBatch


class RequestWriter(aiohttp.ClientRequest):
    """
    An `aiohttp.ClientRequest` that writes small requests itself.

    *may_write*: returns whether its connection may still be used; called before a request is written that had to wait.
    """

    may_write: Callable[[], bool] | None = None

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        prepared = self._prepare(conn)
        if prepared is None:
            return await super().send(conn)
        write_head, write_body, response, batch, loop = prepared
        await write_head()  # only into the writer's buffer
        if batch.writes_at_once:
            await write_body()  # does not wait: the body is small
        else:
            batch.write_soon(partial(_write_now, write_body, conn, self.may_write), loop)
        return response

    def _prepare(self, conn: aiohttp.connector.Connection) -> _Prepared | None:
        """Return all that it takes to write this request, or None when aiohttp is to write it."""
        try:
            body, protocol, headers, loop = self._body, conn.protocol, self.headers, self.loop
            if (
                type(body) is not aiohttp.BytesPayload
                or (body.size or 0) + sum(map(len, headers.values())) > _MAX_BYTES
                or self._continue is not None  # "Expect: 100-continue", which takes two steps
                or protocol is None
                or protocol.writing_paused
            ):
                return None
            batch = cast("HasWriteBatch", self.session.connector).writes
            writer = StreamWriter(protocol, loop)
            write_head = partial(writer.write_headers, f"{self.method} {self.url.raw_path_qs} HTTP/1.1", headers)
            write_body = partial(self.write_bytes, writer, conn)
            response = self.response_class(
                self.method,
                self.original_url,
                writer=cast("Any", None),
                continue100=None,
                timer=self._timer,
                request_info=self.request_info,
                traces=self._traces,
                loop=loop,
                session=self.session,
                stream_writer=writer,
            )
        except Exception:  # noqa: BLE001 - another aiohttp; nothing has been written
            return None
        return write_head, write_body, response, batch, loop


_Write: TypeAlias = "Callable[[], Coroutine[Any, Any, None]]"
_Prepared: TypeAlias = "tuple[_Write, _Write, aiohttp.ClientResponse, WriteBatch, asyncio.AbstractEventLoop]"


def _write_now(write_body: _Write, conn: aiohttp.connector.Connection, may_write: Callable[[], bool] | None) -> None:
    """Write a body in this iteration of the loop, and close the connection if that fails or would have to wait."""
    if conn.protocol is None:
        return  # nobody waits for the response any more
    if may_write is not None and not may_write():
        conn.close()
        return
    try:
        write_body().send(None)
    except StopIteration:
        return  # it is written
    except Exception:  # noqa: BLE001, S110 - the closed connection reports it to the reader
        pass
    except BaseException:  # a signal handler raised
        conn.close()
        raise
    conn.close()
