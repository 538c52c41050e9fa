"""http.client of the standard library."""

from __future__ import annotations

import http.client
import json
from typing import Any

from benchmarks.clients.adapter import HOST, KEY, MESSAGES, NEURALBOX_PATH, Address, OnText

_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


class HttpClient:
    """One connection, one call at a time."""

    def __init__(self, address: Address, connections: int) -> None:  # noqa: ARG002 - it has one
        if address.ssl_context is None:
            self._connection = http.client.HTTPConnection(HOST, address.port)
        else:
            self._connection = http.client.HTTPSConnection(HOST, address.port, context=address.ssl_context)

    def _post(self, **members: Any) -> http.client.HTTPResponse:
        body = json.dumps({"messages": MESSAGES, **members})
        self._connection.request("POST", f"{NEURALBOX_PATH}/generate", body, _HEADERS)
        return self._connection.getresponse()

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        generation: dict[str, str] = json.loads(self._post(model=model).read())
        return generation["id"]

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        for line in self._post(model=model, stream=True):
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if event["type"] == "content_delta":
                    on_text(event["delta"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
