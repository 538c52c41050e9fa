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
from typing import TYPE_CHECKING, Any, Protocol, cast

import aiohttp
from aiohttp.http import StreamWriter

from neuralbox_async import _fast_paths

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

_MAX_BYTES = 16 * 1024  # of head and body; they always fit into a socket's buffer
_SEQUENTIAL = 2  # requests in a row that were alone; the first of a burst is alone, too

_RESPONSE_PARAMETERS = frozenset(
    {"method", "url", "writer", "continue100", "timer", "request_info", "traces", "loop", "session", "stream_writer"}
)


def request_class() -> type[aiohttp.ClientRequest]:
    """Return `RequestWriter` if this aiohttp is one that it knows and the fast paths are on, else aiohttp's own class."""
    return RequestWriter if _fast_paths.enabled() and _is_known_aiohttp() else aiohttp.ClientRequest


@functools.cache
def _is_known_aiohttp() -> bool:
    return (
        _parameters(aiohttp.ClientResponse) == _RESPONSE_PARAMETERS
        and _parameters(aiohttp.ClientRequest.send) == {"self", "conn"}
        and _parameters(aiohttp.ClientRequest.write_bytes) == {"self", "writer", "conn", "content_length"}
        and _parameters(StreamWriter) >= {"protocol", "loop"}
        and _parameters(StreamWriter.write_headers) == {"self", "status_line", "headers"}
    )


def _parameters(function: Callable[..., object]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # compiled, or not callable
        return set()


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
    """An `aiohttp.ClientRequest` that writes small requests itself."""

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        prepared = self._prepare(conn)
        if prepared is None:
            return await super().send(conn)
        writer, response, writes = prepared
        await writer.write_headers(f"{self.method} {self.url.raw_path_qs} HTTP/1.1", self.headers)  # only buffers them
        if writes.writes_at_once:
            await self.write_bytes(writer, conn)  # does not wait: the body is small
        else:
            writes.write_soon(partial(self._write_now, writer, conn), self.loop)
        return response

    def _prepare(
        self, conn: aiohttp.connector.Connection
    ) -> tuple[StreamWriter, aiohttp.ClientResponse, WriteBatch] | None:
        """Return the writer, response and batch of this request, or None when aiohttp is to send it."""
        try:
            body, protocol = self._body, conn.protocol
            if (
                type(body) is not aiohttp.BytesPayload
                or (body.size or 0) + sum(map(len, self.headers.values())) > _MAX_BYTES
                or self._continue is not None  # "Expect: 100-continue", which takes two steps
                or protocol is None
                or protocol.writing_paused
            ):
                return None
            writes = cast("HasWriteBatch", self.session.connector).writes
            writer = StreamWriter(protocol, self.loop)
            response = self.response_class(
                self.method,
                self.original_url,
                writer=cast("Any", None),
                continue100=None,
                timer=self._timer,
                request_info=self.request_info,
                traces=self._traces,
                loop=self.loop,
                session=self.session,
                stream_writer=writer,
            )
        except (AttributeError, TypeError):  # another aiohttp; nothing has been written
            return None
        return writer, response, writes

    def _write_now(self, writer: StreamWriter, conn: aiohttp.connector.Connection) -> None:
        if conn.protocol is None:
            return  # nobody waits for the response any more
        try:
            self.write_bytes(writer, conn).send(None)
        except StopIteration:
            return  # it is written
        except Exception:  # noqa: BLE001, S110 - the closed connection reports it to the reader
            pass
        except BaseException:  # a signal handler raised
            conn.close()
            raise
        conn.close()
