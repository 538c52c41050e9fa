"""urllib3 and requests without an SDK. Either may be missing, so neither is imported before its class is used."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, NEURALBOX_PATH, Address, OnText

_HEADERS = {"Authorization": f"Bearer {KEY}"}


def _read_events(lines: Iterable[bytes], on_text: OnText) -> None:
    for line in lines:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if event["type"] == "content_delta":
                on_text(event["delta"])


class Urllib3:
    """A connection pool; `response.json()`, and iteration over the response's lines."""

    def __init__(self, address: Address, connections: int) -> None:
        urllib3: Any = importlib.import_module("urllib3")
        tls = {} if address.ssl_context is None else {"ssl_context": address.ssl_context}
        self._pool = urllib3.PoolManager(maxsize=connections, headers=_HEADERS, **tls)
        self._url = address.url(f"{NEURALBOX_PATH}/generate")

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        response = self._pool.request("POST", self._url, json={"model": model, "messages": MESSAGES})
        generation: dict[str, str] = response.json()
        return generation["id"]

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        body = {"model": model, "messages": MESSAGES, "stream": True}
        response = self._pool.request("POST", self._url, json=body, preload_content=False)
        _read_events(response, on_text)
        response.release_conn()

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()


class Requests:
    """A session; `response.json()` and `iter_lines`."""

    def __init__(self, address: Address, connections: int) -> None:
        requests: Any = importlib.import_module("requests")
        adapters: Any = importlib.import_module("requests.adapters")
        self._session = requests.Session()
        self._session.mount("http://", adapters.HTTPAdapter(pool_maxsize=connections))
        self._session.headers.update(_HEADERS)
        self._url = address.url(f"{NEURALBOX_PATH}/generate")

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        generation: dict[str, str] = self._session.post(self._url, json={"model": model, "messages": MESSAGES}).json()
        return generation["id"]

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        body = {"model": model, "messages": MESSAGES, "stream": True}
        with self._session.post(self._url, json=body, stream=True) as response:
            _read_events(response.iter_lines(), on_text)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()
