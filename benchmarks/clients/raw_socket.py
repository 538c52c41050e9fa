"""A socket and nothing else: the floor that no client can go below. It knows this server and trusts it."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

from benchmarks.clients.adapter import KEY, MESSAGES, NEURALBOX_PATH, Take

_HEAD_END = b"\r\n\r\n"
_BODY_END = b"\r\n0\r\n\r\n"
_LENGTH = re.compile(rb"Content-Length: (\d+)")
_READ_SIZE = 64 * 1024


class RawConnection:
    """A connection to *port* of the loopback."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request: bytes) -> bytes:
        """Send *request* and return the body of the answer."""
        self.socket.sendall(request)
        received = self.socket.recv(_READ_SIZE)
        while (end := received.find(_HEAD_END)) < 0:
            received += self.socket.recv(_READ_SIZE)
        found = _LENGTH.search(received, 0, end)
        assert found is not None  # noqa: S101 - this server always says
        whole = end + len(_HEAD_END) + int(found[1])
        while len(received) < whole:
            received += self.socket.recv(_READ_SIZE)
        return received[end + len(_HEAD_END) :]

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def request_for(model: str, *, stream: bool) -> bytes:
    """Return the bytes of a request for a generation."""
    members: dict[str, Any] = {"model": model, "messages": MESSAGES}
    if stream:
        members["stream"] = True
    body = json.dumps(members).encode()
    head = (
        f"POST {NEURALBOX_PATH}/generate HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class RawSocket:
    """One connection, one call at a time; no check of anything."""

    def __init__(self, port: int, connections: int) -> None:  # noqa: ARG002 - a blocking loop needs one
        self._connection = RawConnection(port)

    def call(self, model: str) -> str:
        """Generate something and return the id of the answer."""
        answer: dict[str, str] = json.loads(self._connection.exchange(request_for(model, stream=False)))
        return answer["id"]

    def stream(self, model: str, take: Take) -> None:
        """Hand each piece of a stream to *take*."""
        receive = self._connection.socket.recv
        self._connection.socket.sendall(request_for(model, stream=True))
        rest = tail = b""
        while tail != _BODY_END:
            received = receive(_READ_SIZE)
            tail = (tail + received)[-len(_BODY_END) :]
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if event["type"] == "content_delta":
                        take(event["delta"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
