"""urllib3 and requests, by hand; each may be missing, so neither is imported before it is needed."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, NEURALBOX_PATH, Take, base_url

_HEADERS = {"Authorization": f"Bearer {KEY}"}


def _take_lines(lines: Iterable[bytes], take: Take) -> None:
    for line in lines:
        if line.startswith(b"data: {"):
            event = json.loads(line[6:])
            if event["type"] == "content_delta":
                take(event["delta"])


class Urllib3:
    """A pool of connections; `response.json()`, and the response's own lines."""

    def __init__(self, port: int, connections: int) -> None:
        urllib3: Any = importlib.import_module("urllib3")
        self._pool = urllib3.PoolManager(maxsize=connections, headers=_HEADERS)
        self._url = base_url(port, f"{NEURALBOX_PATH}/generate")

    def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        response = self._pool.request("POST", self._url, json={"model": model, "messages": MESSAGES})
        answer: dict[str, str] = response.json()
        return answer["id"]

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        body = {"model": model, "messages": MESSAGES, "stream": True}
        response = self._pool.request("POST", self._url, json=body, preload_content=False)
        _take_lines(response, take)
        response.release_conn()

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()


class Requests:
    """A session; `response.json()` and `iter_lines`."""

    def __init__(self, port: int, connections: int) -> None:
        requests: Any = importlib.import_module("requests")
        adapters: Any = importlib.import_module("requests.adapters")
        self._session = requests.Session()
        self._session.mount("http://", adapters.HTTPAdapter(pool_maxsize=connections))
        self._session.headers.update(_HEADERS)
        self._url = base_url(port, f"{NEURALBOX_PATH}/generate")

    def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        answer: dict[str, str] = self._session.post(self._url, json={"model": model, "messages": MESSAGES}).json()
        return answer["id"]

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        body = {"model": model, "messages": MESSAGES, "stream": True}
        with self._session.post(self._url, json=body, stream=True) as response:
            _take_lines(response.iter_lines(), take)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()
