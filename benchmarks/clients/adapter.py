"""The interface that every measured client implements: one call, and one stream read to its end."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

OnText: TypeAlias = Callable[[str], object]
"""Receives each piece of text as soon as the client has it: the user's code."""

HOST = "127.0.0.1"
KEY = "nb_0123456789abcdef0123456789abcdef0123456789abcde"
PROMPT = "Write a haiku about the sea, in the manner of somebody who has never seen it."
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
NEURALBOX_PATH, OPENAI_PATH = "/api/v2", "/v1"


@dataclass(frozen=True)
class Address:
    """A *port* of the server on the loopback; with *ssl_context* it speaks TLS."""

    port: int
    ssl_context: ssl.SSLContext | None = None

    def url(self, path: str = "") -> str:
        """Return the URL of *path*."""
        scheme = "http" if self.ssl_context is None else "https"
        return f"{scheme}://{HOST}:{self.port}{path}"


def client_ssl_context(certificate: str) -> ssl.SSLContext:
    """Return Python's default context for clients, which trusts only *certificate* (PEM). All clients use this one."""
    context = ssl.create_default_context(cadata=certificate)
    context.set_alpn_protocols(["http/1.1"])  # as aiohttp and urllib3 do in their own contexts
    return context


class AsyncClient(Protocol):
    """A client for an event loop. Constructed inside the running loop with an `Address` and a connection limit."""

    async def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        ...

    async def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class BatchClient(AsyncClient, Protocol):
    """A client that also runs batches."""

    def run_batch(self, model: str, count: int, concurrency: int) -> AsyncGenerator[str]:
        """Yield the ids of *count* generations, with up to *concurrency* calls in flight."""
        ...


class BlockingClient(Protocol):
    """A blocking client. Constructed with an `Address` and a connection limit."""

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        ...

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
