"""A socket without an HTTP library: a lower bound for all clients. It relies on this server and checks nothing."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

from benchmarks.clients.adapter import HOST, KEY, MESSAGES, NEURALBOX_PATH, Address, OnText

STREAM_END = b"\r\n0\r\n\r\n"
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"Content-Length: (\d+)")
_READ_SIZE = 64 * 1024


class RawConnection:
    """A connection to *address*."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection((HOST, address.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.ssl_context is not None:
            self.socket = address.ssl_context.wrap_socket(self.socket, server_hostname=HOST)

    def exchange(self, request: bytes) -> bytes:
        """Send *request* and return the body of the response."""
        self.socket.sendall(request)
        received = self.socket.recv(_READ_SIZE)
        while (end := received.find(_HEAD_END)) < 0:
            received += self.socket.recv(_READ_SIZE)
        length = _LENGTH.search(received, 0, end)
        assert length is not None  # noqa: S101 - this server always sends it
        size = end + len(_HEAD_END) + int(length[1])
        while len(received) < size:
            received += self.socket.recv(_READ_SIZE)
        return received[end + len(_HEAD_END) :]

    def close(self) -> None:
        """Close the connection."""
        self.socket.close()


def request_bytes(model: str, *, stream: bool) -> bytes:
    """Return the bytes of a request for a generation."""
    members: dict[str, Any] = {"model": model, "messages": MESSAGES}
    if stream:
        members["stream"] = True
    body = json.dumps(members).encode()
    head = (
        f"POST {NEURALBOX_PATH}/generate HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {KEY}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class RawSocket:
    """One connection, one call at a time."""

    def __init__(self, address: Address, connections: int) -> None:  # noqa: ARG002 - a blocking loop needs one
        self._connection = RawConnection(address)

    def call(self, model: str) -> str:
        """Generate a text and return the id of the generation."""
        generation: dict[str, str] = json.loads(self._connection.exchange(request_bytes(model, stream=False)))
        return generation["id"]

    def stream(self, model: str, on_text: OnText) -> None:
        """Read a stream to its end and pass each piece of text to *on_text*."""
        receive = self._connection.socket.recv
        self._connection.socket.sendall(request_bytes(model, stream=True))
        incomplete_line = tail = b""
        while tail != STREAM_END:
            received = receive(_READ_SIZE)
            tail = (tail + received)[-len(STREAM_END) :]
            *lines, incomplete_line = (incomplete_line + received).split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if event["type"] == "content_delta":
                        on_text(event["delta"])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
