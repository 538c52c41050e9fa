"""`FakeTransport`: predefined responses, without sockets, for tests of code that uses the SDK."""

from __future__ import annotations

import copy
import json
import math
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import attrs

from neuralbox_async import NeuralBoxError

if TYPE_CHECKING:
    from neuralbox_async import HTTPRequest


@attrs.frozen
class FakeRequest:
    """A request sent through a `FakeTransport`: *method*, *url*, *headers* (including the key) and *body*."""

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes | None = None

    @property
    def json(self) -> Any:
        """The body parsed as JSON, None if there is no body."""
        return None if self.body is None else json.loads(self.body)


class FakeResponse:
    """
    A response with *status_code*, *headers* and a body that consists of *chunks*.

    A chunk is bytes, an exception to raise, or ``...`` to wait until the response is closed.
    """

    def __init__(self, *chunks: object, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status_code = status_code
        self.headers: dict[str, str] = {"content-type": "application/json", **(headers or {})}
        self.closed: bool = False
        self.received: bytes = b""
        self._chunks = deque(chunks)
        self._closing = anyio.Event()

    async def read(self, limit: int, *, truncate: bool = False) -> bytes:
        """Return the rest of the body. *limit* is ignored."""
        del limit, truncate
        while chunk := await self.read_chunk():
            self.received += chunk
        return self.received

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        """Return the next chunk, or ``b""`` after the last one."""
        del deadline
        await anyio.lowlevel.checkpoint()
        chunk = self._chunks[0] if self._chunks else b""
        if chunk is ...:
            await self._closing.wait()
            return b""
        if self._chunks:
            self._chunks.popleft()
        if isinstance(chunk, BaseException):
            raise copy.copy(chunk) if isinstance(chunk, NeuralBoxError) else chunk
        assert isinstance(chunk, bytes), "chunks are bytes, exceptions or ..."  # noqa: S101 - an error in the test
        return chunk

    def close(self) -> None:
        """Set *closed* and wake a reader that waits at ``...``."""
        self.closed = True
        self._closing.set()


class FakeTransport:
    """
    A `neuralbox_async.Transport` that returns *responses* in order and then repeats the last one.

    A response is a `FakeResponse`, a dict (sent as JSON with status code 200), or an exception to raise: the real
    transport raises subclasses of `NeuralBoxError`. The attribute *requests* holds the requests sent, *responses* the
    responses returned; *closed* is true after `aclose`.
    """

    def __init__(self, *responses: FakeResponse | Mapping[str, Any] | BaseException) -> None:
        self.requests: list[FakeRequest] = []
        self.responses: list[FakeResponse] = []
        self.closed: bool = False
        self._queue = deque(responses)

    async def send(self, request: HTTPRequest) -> FakeResponse:
        """Record the request and return the next response."""
        self.requests.append(FakeRequest(request.method, request.url, dict(request.headers), request.body))
        await anyio.lowlevel.checkpoint()
        outcome = self._queue.popleft() if len(self._queue) > 1 else self._queue[0]
        if isinstance(outcome, BaseException):
            request.stage = "sent" if isinstance(outcome, NeuralBoxError) and outcome.request_sent else "connecting"
            # A copy, because the client sets attributes on the errors that it raises.
            raise copy.copy(outcome) if isinstance(outcome, NeuralBoxError) else outcome
        request.stage = "sent"
        response = FakeResponse(json.dumps(outcome).encode()) if isinstance(outcome, Mapping) else outcome
        self.responses.append(response)
        return response

    async def aclose(self) -> None:
        """Set *closed*."""
        self.closed = True
