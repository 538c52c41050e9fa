"""
A server of canned responses, in a process of its own: `python -m benchmarks.server --port 8123`.

The path of a request selects the API and so the wire format; the model's name selects the behaviour:

* ``call``, ``call.DELAY``: a JSON response, immediately or after DELAY milliseconds.
* ``typed``: a JSON response whose text is an object of 8 members.
* ``hold``: a JSON response after the next GET /release.
* ``bulk.EVENTS``, ``bulk.EVENTS.SIZE``: a stream of EVENTS pieces of text as fast as the client reads it, in HTTP
  chunks of up to SIZE bytes (default 65,536).
* ``chunks.EVENTS``: the same, but each event is an HTTP chunk of its own. Chunks still share TCP segments.
* ``live.EVENTS.RATE``: a stream of EVENTS pieces of text, RATE per second. Each event is an HTTP chunk and a TCP
  segment of its own. Its text is the time when it was sent, in seconds of the monotonic clock.
* ``burst.EVENTS.RATE``: the same, synchronised: all streams of one rate send at the same time.
* ``big.BYTES``: a stream of one event with BYTES bytes of text.

It listens on two ports, without and with TLS. GET /tls returns the port with TLS and the certificate to trust, GET
/stats the numbers of connections and of served requests, and the CPU time. The process ends when its standard input
closes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import random
import re
import ssl
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import trustme

from benchmarks import processes, wire
from benchmarks.clients.adapter import HOST

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model": ?"([^"]*)"')
_TIMER_RESOLUTION = 0.001  # seconds, of both event loops
_SHORTEST_SLEEP = 20e-6  # seconds
_CHUNK_SIZE = 64 * 1024
_ONE_EVENT = 1  # a chunk has at least one event
_BACKLOG = 4096  # a client may open 1,000 connections at once
_TEXT = b" ocean"


class Connection(asyncio.Protocol):
    """One connection of a client. Responses have the order of the requests, as each client waits for a response."""

    def __init__(self, server: CannedServer) -> None:
        self._server = server
        self._buffer = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport, and count the connection; over TLS this is after the handshake."""
        self._server.connections += 1
        self._transport = cast("asyncio.WriteTransport", transport)  # the transports of uvloop have another class

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forget the transport."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Respond to each request that *data* completes."""
        self._buffer += data
        while (end := self._buffer.find(_HEAD_END)) >= 0:
            head = self._buffer[:end]
            length = _LENGTH.search(head)
            size = end + len(_HEAD_END) + (int(length[1]) if length else 0)
            if len(self._buffer) < size:
                return
            body, self._buffer = self._buffer[end:size], self._buffer[size:]
            self._server.respond(self, head.split(b" ", 2)[1], body)

    def write(self, data: bytes) -> None:
        """Send *data* unless the connection is closed."""
        if self._transport is not None:
            self._transport.write(data)

    @property
    def closed(self) -> bool:
        """Whether the connection is closed."""
        return self._transport is None


@dataclass
class LiveStream:
    """A stream that is sent event by event: *remaining* events, one per *period* seconds, the next one at *due*."""

    connection: Connection
    wire_format: wire.WireFormat
    remaining: int
    period: float
    due: float

    def send_due(self, now: float) -> None:
        """Send the events that are due at *now*."""
        while self.remaining and self.due <= now:
            timestamp = b"%.6f" % time.monotonic()
            self.connection.write(wire.chunk(self.wire_format.event(timestamp)))
            self.remaining -= 1
            self.due += self.period
        if not self.remaining:
            self.connection.write(wire.chunk(self.wire_format.end) + wire.STREAM_END)


@dataclass
class CannedServer:
    """The state that all connections share; *tls* is the response to GET /tls."""

    tls: dict[str, Any] = field(default_factory=dict[str, Any])
    connections: int = 0
    served: int = 0
    held: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    streams: list[LiveStream] = field(default_factory=list[LiveStream])
    rng: random.Random = field(default_factory=lambda: random.Random(1))

    def respond(self, connection: Connection, path: bytes, body: bytes) -> None:
        """Respond to one request."""
        wire_format = wire.BY_PATH.get(path)
        model = _MODEL.search(body)
        if wire_format is None or model is None:
            self._respond_to_control(connection, path)
            return
        self.served += 1
        behaviour, *numbers = model[1].decode().split(".")
        _BEHAVIOURS[behaviour](self, connection, wire_format, *map(int, numbers))

    def call(self, connection: Connection, wire_format: wire.WireFormat, delay: int = 0) -> None:
        """Send a JSON response after *delay* milliseconds."""
        response = wire_format.call(self.served)
        if delay:
            asyncio.get_running_loop().call_later(delay / 1000, connection.write, response)
        else:
            connection.write(response)

    def typed(self, connection: Connection, _wire_format: wire.WireFormat) -> None:
        """Send a JSON response whose text is an object of 8 members, in the format of NeuralBox."""
        connection.write(wire.typed_response(self.served))

    def hold(self, connection: Connection, wire_format: wire.WireFormat) -> None:
        """Send a JSON response after the next GET /release."""
        self.held.append(functools.partial(connection.write, wire_format.call(self.served)))

    def bulk(
        self, connection: Connection, wire_format: wire.WireFormat, events: int, chunk_size: int = _CHUNK_SIZE
    ) -> None:
        """Stream as fast as the client reads, in chunks of up to *chunk_size* bytes."""
        connection.write(_stream(wire_format, _TEXT, events, chunk_size))

    def chunks(self, connection: Connection, wire_format: wire.WireFormat, events: int) -> None:
        """Stream as fast as the client reads, one chunk per event."""
        self.bulk(connection, wire_format, events, _ONE_EVENT)

    def big(self, connection: Connection, wire_format: wire.WireFormat, size: int) -> None:
        """Stream one event with *size* bytes of text."""
        connection.write(_stream(wire_format, b"a" * size, 1, _CHUNK_SIZE))

    def live(
        self,
        connection: Connection,
        wire_format: wire.WireFormat,
        events: int,
        rate: int,
        phase: float | None = None,
    ) -> None:
        """Stream *rate* events per second. The first is sent at *phase* (0 to 1, default random) of a period."""
        connection.write(wire.STREAM_HEAD + wire.chunk(wire_format.start))
        period = 1 / rate
        # Random by default: generations of different users are not synchronised.
        due = period * (time.monotonic() // period + 1 + (self.rng.random() if phase is None else phase))
        if not self.streams:
            asyncio.get_running_loop().call_soon(self._send_due)
        self.streams.append(LiveStream(connection, wire_format, events, period, due))

    def burst(self, connection: Connection, wire_format: wire.WireFormat, events: int, rate: int) -> None:
        """Stream *rate* events per second, synchronised with all other streams: the worst case for latency."""
        self.live(connection, wire_format, events, rate, phase=0.0)

    def _send_due(self) -> None:
        now = time.monotonic()
        for stream in self.streams:
            stream.send_due(now)
        self.streams = [stream for stream in self.streams if stream.remaining and not stream.connection.closed]
        if self.streams:
            pause = min(stream.due for stream in self.streams) - time.monotonic()
            if pause < _TIMER_RESOLUTION:
                # A timer of the loop is too coarse: events that wait for one would be synchronised.
                if pause > _SHORTEST_SLEEP:
                    time.sleep(pause)
                asyncio.get_running_loop().call_soon(self._send_due)
            else:
                asyncio.get_running_loop().call_later(_TIMER_RESOLUTION / 2, self._send_due)

    def _respond_to_control(self, connection: Connection, path: bytes) -> None:
        if path == b"/release":
            held, self.held = self.held, []
            for send in held:
                send()
        stats = {
            "connections": self.connections,
            "served": self.served,
            "held": len(self.held),
            "cpu": time.process_time(),
        }
        connection.write(wire.json_response(json.dumps(self.tls if path == b"/tls" else stats).encode()))


_BEHAVIOURS: dict[str, Callable[..., None]] = {
    "call": CannedServer.call,
    "typed": CannedServer.typed,
    "hold": CannedServer.hold,
    "bulk": CannedServer.bulk,
    "chunks": CannedServer.chunks,
    "big": CannedServer.big,
    "live": CannedServer.live,
    "burst": CannedServer.burst,
}
# A scenario needs a few streams, of up to 10 MB.
_stream = functools.lru_cache(8)(wire.WireFormat.stream)


def _make_certificate() -> tuple[ssl.SSLContext, str]:
    """Return a server's context with a new certificate, and the PEM of the authority that signed it."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    certificate: Any = authority.issue_cert(HOST)  # pyright does not know a type in its annotations
    certificate.configure_cert(context)
    return context, authority.cert_pem.bytes().decode()


async def serve(port: int) -> None:
    """Serve on *port* of the loopback, 0 for any free one, and print it; end when standard input closes."""
    loop = asyncio.get_running_loop()
    state = CannedServer()
    context, certificate = _make_certificate()
    tls = await loop.create_server(lambda: Connection(state), HOST, 0, backlog=_BACKLOG, ssl=context)
    state.tls = {"port": tls.sockets[0].getsockname()[1], "certificate": certificate}
    plain = await loop.create_server(lambda: Connection(state), HOST, port, backlog=_BACKLOG)
    async with tls, plain:
        print(plain.sockets[0].getsockname()[1], flush=True)
        await _wait_for_end_of_input(loop)


async def _wait_for_end_of_input(loop: asyncio.AbstractEventLoop) -> None:
    ended = asyncio.Event()

    def read() -> None:
        sys.stdin.read()
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.call_soon_threadsafe(ended.set)

    # No executor: it would wait for this thread when Ctrl-C ends the process.
    threading.Thread(target=read, daemon=True).start()
    await ended.wait()


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="A server of canned responses.")
    parser.add_argument("--port", type=int, default=0, help="the port without TLS; default: any free port, printed")
    parser.add_argument("--core", type=int, help="the CPU core to stay on")
    args = parser.parse_args()
    processes.pin(args.core)
    processes.run(serve(args.port), uvloop=processes.has_uvloop())


if __name__ == "__main__":
    main()
