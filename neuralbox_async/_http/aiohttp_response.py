"""A `Response` on aiohttp, and the translation of aiohttp's errors."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import re
import weakref
from typing import TYPE_CHECKING, cast

import aiohttp

from neuralbox_async._clock import Timer, now
from neuralbox_async._errors import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    NeuralBoxError,
    ResponseError,
    StreamStateError,
)
from neuralbox_async._http.aiohttp_connector import READ_SIZE
from neuralbox_async._http.content_decoder import ContentDecoder, ContentEncodingError, new_decoder
from neuralbox_async._http.resolver import NotLoopbackError
from neuralbox_async._http.transport import CLOSED_DURING_CALL, CLOSED_WHILE_READING

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping


def new_response(raw: aiohttp.ClientResponse, unread: set[AiohttpResponse]) -> AiohttpResponse:
    """Return the `Response` that reads *raw*; see `AiohttpResponse`."""
    encoding = raw.headers.get("Content-Encoding")
    decoder = None if encoding is None else new_decoder(encoding)
    return AiohttpResponse(raw, unread) if decoder is None else _EncodedResponse(raw, unread, decoder)


class _ClosedBy(enum.Enum):
    READER = enum.auto()
    TIMEOUT = enum.auto()
    CLIENT = enum.auto()


class AiohttpResponse:
    """A `Response`; *unread* holds those of a session whose body is not read yet."""

    def __init__(self, raw: aiohttp.ClientResponse, unread: set[AiohttpResponse]) -> None:
        self.status_code = raw.status
        self.headers: Mapping[str, str] = raw.headers
        self._raw = raw
        self._unread = unread
        self._closed_by: _ClosedBy | None = None
        self._failure: NeuralBoxError | None = None
        self._received: list[bytes] = []
        self._connection_lost: asyncio.Future[None] | None = None
        self._timeout: _ReadTimeout | None = None
        self._is_complete = False  # read to its end, and without a connection
        unread.add(self)

    @property
    def received(self) -> bytes:
        return self._received[0] if len(self._received) == 1 else b"".join(self._received)

    async def read(self, limit: int, *, truncate: bool = False) -> bytes:
        content = self._raw.content
        if content.is_eof() and content.exception() is None and content.total_bytes <= limit:
            # The usual case: it arrived together with its head.
            data = content.read_nowait()
            self._received.append(data)
            if len(self._received) == 1 and self._raw.connection is None:
                self._release()
                self._is_complete = True
                return data
        return await self._read_in_chunks(limit, truncate=truncate)

    async def _read_in_chunks(self, limit: int, *, truncate: bool) -> bytes:
        size = sum(map(len, self._received))
        while chunk := await self.read_chunk():
            self._received.append(chunk)
            size += len(chunk)
            if size > limit:
                self.close()
                if truncate:
                    break
                raise ResponseError(
                    f"the response body is larger than {limit:,} bytes (max_response_bytes)",
                    body=self.received[:READ_SIZE],
                    status_code=self.status_code,
                    headers=self.headers,
                )
        return self.received[:limit]

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        if self._failure is not None:
            raise self._failure
        if self._connection_lost is None:
            self._watch_connection()
        timeout = self._timeout or self._new_timeout()
        timeout.deadline = deadline
        if deadline < timeout.when:
            timeout.restart(deadline)
        try:
            chunk = await self._raw.content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            self._failure = self._translate(error)
            self._raw.close()
            self._release()
            if chunk := self._take_buffered():
                return chunk
            raise self._failure from error.with_traceback(None)
        finally:
            timeout.deadline = math.inf
        if not chunk:
            self._release()
        return chunk

    def _new_timeout(self) -> _ReadTimeout:
        self._timeout = timeout = _ReadTimeout(self)
        return timeout

    def _watch_connection(self) -> None:
        """
        Wake the reader when the connection is lost.

        aiohttp does that itself, except for a malformed chunk: then it closes the connection and the reader hangs.
        """
        connection = self._raw.connection
        if connection is None or connection.protocol is None:
            return
        self._connection_lost = connection.protocol.closed
        if self._connection_lost is None:
            self._wake_reader()
            return
        if self._connection_lost not in _watched:
            _watched.add(self._connection_lost)
            self._connection_lost.add_done_callback(_retrieve_exception)
        self._connection_lost.add_done_callback(self._wake_reader)

    def _wake_reader(self, _lost: object = None) -> None:
        content = self._raw.content
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the connection was closed in the middle of the body"))

    def _release(self) -> None:
        """Drop timer and callback: the body has been read, or never will be."""
        self._unread.discard(self)
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        if self._connection_lost is not None:
            self._connection_lost.remove_done_callback(self._wake_reader)

    def _take_buffered(self) -> bytes:
        # aiohttp raises the failure of a connection before it returns the bytes that had arrived, which are paid for.
        content = self._raw.content
        content.set_exception(cast("BaseException", None))
        return content.read_nowait()

    def _translate(self, error: Exception) -> NeuralBoxError:
        match self._closed_by:
            case _ClosedBy.TIMEOUT:
                return APITimeoutError("no data arrived in time", phase="stall", request_sent=True)
            case _ClosedBy.CLIENT:
                return ClientClosedError(CLOSED_DURING_CALL, request_sent=True)
            case _ClosedBy.READER:
                return StreamStateError(CLOSED_WHILE_READING)
            case None:
                return translate(error, "sent")

    def close(self) -> None:
        if not self._is_complete:
            self._close(_ClosedBy.READER)

    def close_for_timeout(self) -> None:
        """Close because no data arrived in time."""
        self._close(_ClosedBy.TIMEOUT)

    def close_for_client(self) -> None:
        """Close because the client closes."""
        self._close(_ClosedBy.CLIENT)

    def _close(self, closed_by: _ClosedBy) -> None:
        # A connection that was switched to another protocol is kept although there is no body.
        if self._closed_by is None and (not self._raw.content.at_eof() or self._raw.connection is not None):
            self._closed_by = closed_by
            self._raw.close()
        self._release()


class _EncodedResponse(AiohttpResponse):
    """A response whose body is compressed, though it was not to be."""

    def __init__(self, raw: aiohttp.ClientResponse, unread: set[AiohttpResponse], decoder: ContentDecoder) -> None:
        super().__init__(raw, unread)
        self._decoder = decoder
        self._pieces: Iterator[bytes] = iter(())  # what is decoded of the last chunk

    @property
    def received(self) -> bytes:
        return super().received or (b"" if self._failure is None else self._decoder.raw)

    async def read(self, limit: int, *, truncate: bool = False) -> bytes:
        return await self._read_in_chunks(limit, truncate=truncate)

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        while True:
            with self._failing_later():
                for piece in self._pieces:
                    return piece
            if not (chunk := await super().read_chunk(deadline)):
                with self._failing_later():
                    return self._decoder.end()
            self._pieces = self._decoder.decode(chunk)

    @contextlib.contextmanager
    def _failing_later(self) -> Generator[None]:
        """Have the next `read_chunk` raise the error of the decoder."""
        try:
            yield
        except ContentEncodingError as error:
            self._failure = APIConnectionError(f"the response body cannot be read: {error}", request_sent=True)
            self._raw.close()
            self._release()


class _ReadTimeout(Timer):
    """
    Closes the connection of a read that waits longer than *deadline*.

    It is started once for many reads. When it fires and another read has begun in the meantime, it is started again: a
    timer for each read takes 5 % of an event (benchmark scenario `live`), a cancel scope for each 15 to 60 %.
    """

    __slots__ = ("_response", "deadline")

    def __init__(self, response: AiohttpResponse) -> None:
        super().__init__(math.inf)
        self._response = response
        self.deadline = math.inf

    def restart(self, when: float) -> None:
        """Fire at *when*, which is earlier than before."""
        self.cancel()
        self.when = when
        self.start()

    def fire(self) -> None:
        self.when = math.inf
        if self.deadline <= now():
            self._response.close_for_timeout()
        else:
            self.restart(self.deadline)


_watched: weakref.WeakSet[asyncio.Future[None]] = weakref.WeakSet()


def _retrieve_exception(lost: asyncio.Future[None]) -> None:
    if not lost.cancelled():
        lost.exception()  # asyncio logs exceptions that nobody has retrieved


_PASSING_REFUSALS = frozenset({408, 425, 429})  # of a proxy: it has forwarded nothing, and another attempt may succeed
# In OpenSSL's reasons for a failed handshake that will fail again: settings of this machine, or of the server.
_TLS_SETTINGS = re.compile(
    "CERT|UNKNOWN_CA|CIPHER|UNRECOGNIZED_NAME|PROTOCOL|VERSION|HANDSHAKE_FAILURE|HTTP|SECURITY|ACCESS_DENIED|PSK"
)


def _tls_error(error: Exception, reason: str) -> APIConnectionError:
    if isinstance(error, aiohttp.ClientConnectorSSLError):
        name = getattr(getattr(error, "os_error", None), "reason", None) or ""  # "" at the end of the data, for example
        return APIConnectionError(f"the TLS handshake failed: {reason}", retryable=not _TLS_SETTINGS.search(name))
    return APIConnectionError(f"TLS verification failed: {reason}", retryable=False)


def translate(error: Exception, stage: str) -> APIConnectionError:  # noqa: PLR0911 - a table
    """
    Return our error for an *error* that aiohttp raised at this *stage* of an `HTTPRequest`.

    It says what happened, whether the request was sent, and whether a retry can help.
    """
    reason = str(error) or type(error).__name__
    match error:
        case aiohttp.ClientHttpProxyError():
            message = f"the proxy refused the request: {error.status} {error.message}"
            return APIConnectionError(message, retryable=error.status >= 500 or error.status in _PASSING_REFUSALS)
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError() | aiohttp.ServerFingerprintMismatch():
            return _tls_error(error, reason)
        case aiohttp.ConnectionTimeoutError() | aiohttp.ClientConnectorError(os_error=TimeoutError()) if (
            stage != "sent"
        ):
            return APITimeoutError("the connection attempt timed out", phase="connect")
        case aiohttp.ClientConnectorError(os_error=NotLoopbackError()):
            return APIConnectionError(str(error.os_error), retryable=False)
        case aiohttp.ClientConnectorError():
            return APIConnectionError(f"the connection failed: {reason}")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return APIConnectionError(f"the URL is invalid: {reason}", retryable=False)
        case UnicodeError() if stage == "connecting":
            return APIConnectionError(f"the host name is invalid: {reason}", retryable=False)
        case aiohttp.ClientResponseError():
            # aiohttp raises it for malformed heads, with a status of 400 that is not the API's.
            # (Or for a proxy's malformed response to CONNECT: then nothing has been forwarded.)
            sent = stage != "connecting"
            return APIConnectionError(f"the response is not HTTP: {error.message}", request_sent=sent)
        case aiohttp.ServerDisconnectedError() if not isinstance(error.message, str):
            reason = "its head was cut off"  # the message is what of it has been parsed
        case _:
            pass
    # A mocked session never connects: then the request counts as sent.
    sent = stage != "connecting"
    return APIConnectionError(f"the connection broke before the response was complete: {reason}", request_sent=sent)
