"""The capacity of the server with a client that does not parse. The measured clients must stay far below it."""

from __future__ import annotations

import contextlib
import time

from benchmarks.clients.adapter import Address
from benchmarks.clients.raw_socket import STREAM_END, RawConnection, request_bytes

_REPEATS, _PIPELINED = 200, 100
_EVENTS = 400_000


def calls_per_second(address: Address, scale: float = 1.0) -> float:
    """Return how many calls per second the server at *address* serves to a client that pipelines 100 requests."""
    repeats = max(1, round(_REPEATS * scale))
    connection = RawConnection(address)
    with contextlib.closing(connection):
        request = request_bytes("call", stream=False)
        connection.socket.sendall(request)
        response_size = len(connection.socket.recv(1 << 16))  # it fits in one segment, so it arrives in one piece
        started = time.perf_counter()
        for _ in range(repeats):
            connection.socket.sendall(request * _PIPELINED)
            _read(connection, response_size * _PIPELINED)
        return repeats * _PIPELINED / (time.perf_counter() - started)


def events_per_second(address: Address, scale: float = 1.0) -> float:
    """Return how many events per second of a stream the server at *address* sends to a client that discards them."""
    events = round(_EVENTS * scale)
    connection = RawConnection(address)
    with contextlib.closing(connection):
        started = time.perf_counter()
        connection.socket.sendall(request_bytes(f"bulk.{events}", stream=True))
        tail = b""
        while not tail.endswith(STREAM_END):
            tail = tail[-10:] + connection.socket.recv(1 << 20)
        return events / (time.perf_counter() - started)


def _read(connection: RawConnection, count: int) -> None:
    while count > 0:
        received = len(connection.socket.recv(1 << 20))
        if not received:
            msg = "the server closed the connection"
            raise ConnectionError(msg)
        count -= received
