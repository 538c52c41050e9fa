"""What is measured of every client: one call, and one stream read to its end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol, TypeAlias

Take: TypeAlias = Callable[[str], object]
"""What each piece of text is handed to as soon as it is there: the user's code."""

KEY = "nb_0123456789abcdef0123456789abcdef0123456789abcde"
PROMPT = "Write a haiku about the sea, in the manner of somebody who has never seen it."
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
NEURALBOX_PATH, OPENAI_PATH = "/api/v2", "/v1"


def base_url(port: int, path: str = "") -> str:
    """Return the URL of the server on *port* of the loopback."""
    return f"http://127.0.0.1:{port}{path}"


class AsyncClient(Protocol):
    """A client for an event loop; made while that loop runs, with *port* and *connections* at most."""

    async def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        ...

    async def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class BatchClient(AsyncClient, Protocol):
    """A client that does many calls by itself."""

    def many(self, model: str, count: int, at_once: int) -> AsyncGenerator[str]:
        """Give the ids of *count* answers, *at_once* calls at a time."""
        ...


class BlockingClient(Protocol):
    """A client that blocks; made with *port* and *connections* at most."""

    def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        ...

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
