"""How much the server can do when the client does next to nothing: what the clients reach has to be far below."""

from __future__ import annotations

import contextlib
import time

from benchmarks.clients.raw_socket import RawConnection, request_for

_TURNS, _AT_ONCE = 200, 100
_EVENTS = 400_000


def calls_per_second(port: int, scale: float = 1.0) -> float:
    """Return how many calls a second the server on *port* answers to one that sends a hundred before it looks."""
    turns = max(1, round(_TURNS * scale))
    connection = RawConnection(port)
    with contextlib.closing(connection):
        request = request_for("call", stream=False)
        answer = _length_of_answer(connection, request)
        started = time.perf_counter()
        for _ in range(turns):
            connection.socket.sendall(request * _AT_ONCE)
            _read(connection, answer * _AT_ONCE)
        return turns * _AT_ONCE / (time.perf_counter() - started)


def events_per_second(port: int, scale: float = 1.0) -> float:
    """Return how many events a second of a stream the server on *port* sends to one that does not look at them."""
    events = round(_EVENTS * scale)
    connection = RawConnection(port)
    with contextlib.closing(connection):
        started = time.perf_counter()
        connection.socket.sendall(request_for(f"bulk.{events}", stream=True))
        tail = b""
        while not tail.endswith(b"\r\n0\r\n\r\n"):
            tail = tail[-10:] + connection.socket.recv(1 << 20)
        return events / (time.perf_counter() - started)


def _length_of_answer(connection: RawConnection, request: bytes) -> int:
    connection.socket.sendall(request)
    return len(connection.socket.recv(1 << 16))  # less than a segment: comes at once


def _read(connection: RawConnection, count: int) -> None:
    while count > 0:
        received = len(connection.socket.recv(1 << 20))
        if not received:
            msg = "the server closed the connection"
            raise ConnectionError(msg)
        count -= received
