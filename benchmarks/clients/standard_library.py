"""http.client, the standard library's own."""

from __future__ import annotations

import http.client
import json
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, NEURALBOX_PATH, Take

_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


class HttpClient:
    """One connection, one call at a time."""

    def __init__(self, port: int, connections: int) -> None:  # noqa: ARG002 - it has one
        self._connection = http.client.HTTPConnection("127.0.0.1", port)

    def _post(self, **members: Any) -> http.client.HTTPResponse:
        body = json.dumps({"messages": MESSAGES, **members})
        self._connection.request("POST", f"{NEURALBOX_PATH}/generate", body, _HEADERS)
        return self._connection.getresponse()

    def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        answer: dict[str, str] = json.loads(self._post(model=model).read())
        return answer["id"]

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        for line in self._post(model=model, stream=True):
            if line.startswith(b"data: {"):
                event = json.loads(line[6:])
                if event["type"] == "content_delta":
                    take(event["delta"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
