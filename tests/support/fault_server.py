"""
A server on raw sockets that breaks HTTP: incomplete heads, wrong lengths, resets at any byte.

It runs an event loop in a thread of its own, so that it works while a test blocks its own loop. Each connection runs a
*script*, an async function of the `Connection`: the nth connection runs the nth script, further ones the last. The
connection records the requests that arrived whole (a real server would bill each) and how the client closed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time

import attrs

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_TIMEOUT = 30.0  # seconds


@attrs.frozen
class Request:
    """A request that arrived whole."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@attrs.define(eq=False)
class Connection:
    """A connection of a client; times are those of `time.monotonic`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    number: int = 0
    requests: list[Request] = attrs.field(factory=list)
    log: list[tuple[float, str]] = attrs.field(factory=list)
    ended: str | None = None  # how it ended: "fin" or "reset" by the client, or "by the server"

    def note(self, event):
        """Add *event* to the log."""
        self.log.append((time.monotonic(), event))

    async def head(self):
        """Read the head of a request, without its body."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, path, _ = lines[0].split(" ", 2)
        fields = (line.partition(":") for line in lines[1:] if line)
        return Request(method, path, {name.lower(): value.strip() for name, _, value in fields}, b"")

    async def request(self):
        """Read a whole request, which a real server would bill."""
        request = await self.head()
        body = await self.reader.readexactly(int(request.headers.get("content-length", "0")))
        self.requests.append(attrs.evolve(request, body=body))
        self.note("request")
        return self.requests[-1]

    async def send(self, *pieces, every=0.0):
        """Send *pieces* one by one, with a pause of *every* seconds after each."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(every)

    def finish(self):
        """Send FIN: no more bytes follow."""
        self.writer.write_eof()

    def reset(self):
        """Send RST instead of the rest."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.ended = "by the server"
        self.writer.transport.abort()

    async def until_client_closes(self):
        """Discard bytes until the client closes the connection."""
        while await self.reader.read(65536):
            pass


class FaultServer:
    """Serves *scripts* on a loopback port; a context manager. *tls*: the server's `ssl.SSLContext`."""

    def __init__(self, *scripts, tls=None, scheme=None):
        self.scripts = scripts
        self.connections = []
        self.failures = []
        self._tls = tls
        self._scheme = scheme or ("https" if tls else "http")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._handlers = set()
        self._handshakes = set()
        self._thread = threading.Thread(target=self._run, name="FaultServer", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert not self.failures, self.failures  # of scripts, not of the client

    @property
    def url(self):
        """The base URL for clients."""
        return f"{self._scheme}://127.0.0.1:{self.port}/api/v2"

    @property
    def requests(self):
        """The requests of all connections that arrived whole."""
        return [request for connection in list(self.connections) for request in connection.requests]

    @property
    def posts(self):
        """The number of generations that a real server would have billed."""
        return sum(request.method == "POST" for request in self.requests)

    @property
    def ends(self):
        """How each connection ended; None if it is still open."""
        return [connection.ended for connection in list(self.connections)]

    async def all_closed(self):
        """Wait, in the test's loop, until no connection is open; return False if some stay open."""
        return await eventually(lambda: None not in self.ends)

    def close_listener(self):
        """Refuse further connections. Call it from a script."""
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _run(self):
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    async def _serve(self):
        # Not asyncio.start_server: closed while a connection arrives, it leaves that connection open.
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)
        await self._over.wait()
        if self._listener.fileno() >= 0:
            self.close_listener()
        # A task that is cancelled before it starts would leave its connection open.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in others & self._handlers:
                task.cancel()
            await asyncio.wait(others, timeout=0.05)

    def _accept(self):
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            accepted, _ = self._listener.accept()
            self._handshakes.add(self._loop.create_task(self._shake_hands(accepted)))

    async def _shake_hands(self, accepted):
        self._handlers.add(asyncio.current_task())
        reader = asyncio.StreamReader(limit=2**26)
        with contextlib.suppress(OSError):  # the client does not trust the certificate
            await self._loop.connect_accepted_socket(
                lambda: asyncio.StreamReaderProtocol(reader, self._connected), accepted, ssl=self._tls
            )

    async def _connected(self, reader, writer):
        self._handlers.add(asyncio.current_task())
        connection = Connection(reader, writer, len(self.connections))
        connection.note("accepted")
        self.connections.append(connection)
        try:
            await self.scripts[min(connection.number, len(self.scripts) - 1)](connection)
            await connection.until_client_closes()
            connection.ended = connection.ended or "fin"
        except (OSError, asyncio.IncompleteReadError) as error:
            connection.ended = connection.ended or ("reset" if isinstance(error, OSError) else "fin")
        except asyncio.CancelledError:
            return  # the server stops; asyncio would log a handler that ends as cancelled
        except Exception as error:  # noqa: BLE001 - the test raises it at the end
            self.failures.append(error)
        finally:
            connection.note(connection.ended or "left open")
            writer.transport.abort()


async def eventually(condition):
    """Poll *condition* until it is true or times out; return its last value."""
    end = time.monotonic() + _TIMEOUT
    while not (value := condition()) and time.monotonic() < end:
        await asyncio.sleep(0.005)
    return value


# ---------------------------------------------------------------------------------------------------- bytes and scripts


def response(body, *headers, status="200 OK", content_type="application/json"):
    """Return the bytes of a valid response; *body* is bytes or a value for JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {content_type}", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + data


def generation(content="Hello", **members):
    """Return the JSON object of a completed generation."""
    return {"id": "gen_1", "status": "completed", "model": "gpt-5", "content": content, "tokens_used": 3, **members}


def event(**members):
    """Return one event of a stream."""
    return b"data: " + json.dumps(members).encode() + b"\n\n"


def events(*deltas, start=True, end=True):
    """Return the events of a stream whose text is *deltas*."""
    pieces = [event(type="content_delta", delta=delta) for delta in deltas]
    head = [event(type="generation_start", id="gen_1", model="gpt-5")] if start else []
    tail = [event(type="generation_end", id="gen_1", tokens_used=3), b"data: [DONE]\n\n"] if end else []
    return b"".join([*head, *pieces, *tail])


def respond_once(*pieces, then="fin", every=0.0):
    """Return a script that reads one request, sends *pieces*, and then ``"fin"``, ``"reset"`` or ``"stall"``."""

    async def script(connection):
        await connection.request()
        await connection.send(*pieces, every=every)
        if then == "fin":
            connection.finish()
        elif then == "reset":
            await asyncio.sleep(0.02)  # so that the pieces arrive first
            connection.reset()

    return script


def respond_to_each(*responses):
    """Return a script that sends to each request the next of *responses*; the last one repeats."""

    async def script(connection):
        for number in range(10**6):
            await connection.request()
            await connection.send(responses[min(number, len(responses) - 1)])

    return script


async def never_responds(connection):
    """Read the request and send nothing."""
    await connection.request()
