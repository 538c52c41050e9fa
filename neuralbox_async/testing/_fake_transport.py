"""`FakeTransport`: answers from a script, without sockets, for tests of code that uses the SDK."""

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
    from neuralbox_async import Delivery


@attrs.frozen
class FakeRequest:
    """A request that a `FakeTransport` was given: *method*, *url*, *headers* (the key among them), *body*."""

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes | None = None

    @property
    def json(self) -> Any:
        """The body as a JSON value, None when there is none."""
        return None if self.body is None else json.loads(self.body)


class FakeResponse:
    """
    An answer with *status*, *headers* and the body that *chunks* are the pieces of.

    A chunk that is an exception is raised when the reader comes to it; ``...`` waits until the response is closed.
    """

    def __init__(self, *chunks: object, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.headers = {"content-type": "application/json", **(headers or {})}
        self.closed = False
        self.received = b""
        self._chunks = deque(chunks)
        self._closing = anyio.Event()

    async def read(self, limit: int, *, truncate: bool = False) -> bytes:
        """Return the rest of the body; *limit* is not looked at."""
        del limit, truncate
        while chunk := await self.read_chunk():
            self.received += chunk
        return self.received

    async def read_chunk(self, deadline: float = math.inf) -> bytes:
        """Return the next chunk, ``b""`` after the last."""
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
        assert isinstance(chunk, bytes), "chunks are bytes, exceptions or ..."  # noqa: S101 - of the test that wrote it
        return chunk

    def close(self) -> None:
        """Note that the connection was closed."""
        self.closed = True
        self._closing.set()


class FakeTransport:
    """
    A `neuralbox_async.Transport` that gives *answers* one after the other; the last one again and again.

    An answer is a `FakeResponse`, a dict (its JSON with status 200), or an exception to raise: `NeuralBoxError` kinds
    as the real transport would. *requests* holds what was sent, *responses* what was answered, *closed* whether it was
    closed.
    """

    def __init__(self, *answers: FakeResponse | Mapping[str, Any] | BaseException) -> None:
        self.requests: list[FakeRequest] = []
        self.responses: list[FakeResponse] = []
        self.closed = False
        self._answers = deque(answers)

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, delivery: Delivery
    ) -> FakeResponse:
        """Note the request and give the next answer."""
        self.requests.append(FakeRequest(method, url, dict(headers), body))
        await anyio.lowlevel.checkpoint()
        answer = self._answers.popleft() if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BaseException):
            delivery.stage = "sent" if isinstance(answer, NeuralBoxError) and answer.request_sent else "connecting"
            # A copy: a client puts facts of its own on what it raises.
            raise copy.copy(answer) if isinstance(answer, NeuralBoxError) else answer
        delivery.stage = "sent"
        response = FakeResponse(json.dumps(answer).encode()) if isinstance(answer, Mapping) else answer
        self.responses.append(response)
        return response

    async def aclose(self) -> None:
        """Note that it was closed."""
        self.closed = True
