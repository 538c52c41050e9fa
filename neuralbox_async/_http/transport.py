"""
The interface between the SDK and the network: `Transport` carries an `HTTPRequest` and returns a `Response`.

`AiohttpTransport` implements it for production, `neuralbox_async.testing.FakeTransport` for tests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Protocol

import attrs

CLIENT_CLOSED = "the client is closed"
CLOSED_DURING_CALL = "the client was closed during the call"
CLOSED_WHILE_READING = "the stream was closed while it was being read"


@attrs.define(eq=False)
class HTTPRequest:
    """
    One attempt of a request.

    * *method*, *url* (absolute), *headers* (with the API key), *body* (bytes or None).
    * *stage*: how far the attempt got. A transport sets it to ``"connecting"`` when it begins to connect, and to
      ``"sent"`` as soon as the request may have left this machine. It decides whether the request may have been billed.
    * *deadline*: a time of the running event loop; after it the request is not sent any more.
    """

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes | None = attrs.field(default=None, repr=False)
    stage: Literal["new", "connecting", "sent"] = "new"
    deadline: float = math.inf

    @property
    def sent(self) -> bool:
        """Whether the request may have left this machine."""
        return self.stage == "sent"


class Response(Protocol):
    """A response whose head has been read and whose body has not."""

    @property
    def status_code(self) -> int:
        """The HTTP status code."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names are looked up in lower case."""
        ...

    async def read(self, limit: int, *, truncate: bool = False) -> bytes:
        """
        Return the whole body, decompressed, and release the connection.

        A body larger than *limit* bytes is cut there if *truncate* is true; otherwise it raises `ResponseError`.
        """
        ...

    @property
    def received(self) -> bytes:
        """The bytes that `read` has read so far: all, or those before it failed."""
        ...

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        """
        Return the next bytes, at least one; ``b""`` at the end of the body.

        A cancelled read loses nothing. If none arrive by *deadline* (a time of the running event loop), closes the
        connection and raises `APITimeoutError`. If the connection breaks, returns the bytes that had arrived and then
        raises `APIConnectionError`.
        """
        ...

    def close(self) -> None:
        """Close the connection, unless the body was read whole. Wakes a reader. Idempotent; from the loop's thread."""
        ...


class Transport(Protocol):
    """Carries requests. Implement it to test without sockets, or to use another HTTP library."""

    async def send(self, request: HTTPRequest) -> Response:
        """
        Send *request* once, follow no redirect, and return the response when its head has arrived.

        Raises `APIConnectionError` and its subclasses. Sets *request.stage*.
        """
        ...

    async def aclose(self) -> None:
        """Close all connections and wake the readers of responses. Idempotent."""
        ...
