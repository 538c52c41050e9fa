"""
The seam between the SDK and the network: what `Transport` carries, and what comes back.

aiohttp stands behind it in `_transport`, `neuralbox_async.testing.FakeTransport` in tests.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Protocol

from neuralbox_async._errors import UnsupportedEventLoopError

if TYPE_CHECKING:
    from collections.abc import Mapping


def now() -> float:
    """
    Return the time of the running event loop, in seconds.

    `anyio.current_time` is the same clock at eight times the cost. Raises `UnsupportedEventLoopError` outside asyncio.
    """
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        msg = (
            "AsyncNeuralBox runs on asyncio (uvloop included), and no asyncio event loop is running here;"
            " from trio, call neuralbox_sync.NeuralBox through trio.to_thread.run_sync"
        )
        raise UnsupportedEventLoopError(msg) from None


class Delivery:
    """How far an attempt got: ``"waiting"`` (nothing done), ``"connecting"``, ``"sent"`` (a connection took it)."""

    __slots__ = ("stage",)

    def __init__(self) -> None:
        self.stage = "waiting"

    @property
    def sent(self) -> bool:
        """Whether the request may have left this machine."""
        return self.stage == "sent"


class Response(Protocol):
    """An answer whose head has been read and whose body has not."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case."""
        ...

    async def read(self, limit: int, *, truncate: bool = False) -> bytes:
        """
        Return the whole body, decompressed, and give the connection back.

        One larger than *limit* bytes is cut there when *truncate* is true; otherwise it raises `ResponseError`.
        """
        ...

    @property
    def received(self) -> bytes:
        """What `read` has got so far; the whole or, when it failed, what there is."""
        ...

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        """
        Return the next bytes, at least one; ``b""`` at the end of the body.

        A cancelled read loses nothing. When none came by *deadline* (of `now`), the connection is closed
        and `APITimeoutError` raised; when it broke, `APIConnectionError`, after the bytes that had arrived.
        """
        ...

    def close(self) -> None:
        """Close the connection, unless the body was read whole. Wakes a reader. Idempotent; from the loop's thread."""
        ...


class Transport(Protocol):
    """What carries requests. Implement it to test without sockets, or to carry them otherwise."""

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, delivery: Delivery
    ) -> Response:
        """
        Send one request, once, following no redirect, and return the answer when its head is there.

        *url* is absolute. Raises `APIConnectionError` and its kinds.
        """
        ...

    async def aclose(self) -> None:
        """Close everything, readers of responses included. Idempotent."""
        ...
