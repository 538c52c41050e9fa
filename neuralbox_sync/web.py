"""
Helpers for blocking web servers: a stream as server-sent events, and errors as HTTP responses.

The blocking twin of `neuralbox_async.web`: `server_sent_events` for any framework, and `flask_response` for Flask.
"""

from __future__ import annotations

import functools
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from neuralbox_async import NeuralBoxError
from neuralbox_async.web import HEADERS, ProblemDetails, ServerSentEvents, problem
from neuralbox_async.web._disconnects import CLIENT_CLOSED, DisconnectedError, until_disconnected
from neuralbox_async.web._events import DEFAULT_HEARTBEAT, DEFAULT_WRITE_TIMEOUT, check_seconds, event_headers
from neuralbox_async.web._problems import error_headers, is_reconnection, logged_problem, reconnection_headers
from neuralbox_sync._stream import Stream, call_on_loop, subject_of

if TYPE_CHECKING:
    from flask import Response

__all__ = ["HEADERS", "BlockingServerSentEvents", "ProblemDetails", "flask_response", "problem", "server_sent_events"]


_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)  # not on Windows


class BlockingServerSentEvents(Iterator[bytes]):
    """
    The bytes of a response with the server-sent events of *stream*: an iterator; see `server_sent_events`.

    Each item is one or more whole events. It owns the stream: its end and `close` close it.
    """

    def __init__(
        self,
        stream: Stream[Any],
        connection: socket.socket | None = None,
        *,
        heartbeat: float | None,
        cost: bool,
        write_timeout: float | None,
    ) -> None:
        async def make_events() -> ServerSentEvents:
            return ServerSentEvents(
                subject_of(stream),
                heartbeat=heartbeat,
                cost=cost,
                write_timeout=write_timeout,
                on_write_timeout=functools.partial(_shut_down, connection),
            )

        self._stream, self._is_disconnected = stream, functools.partial(_has_ended, connection)
        self._events = call_on_loop(stream, make_events)

    def __next__(self) -> bytes:
        try:
            chunk = call_on_loop(self._stream, functools.partial(until_disconnected, self._next, self._is_disconnected))
        except DisconnectedError:
            raise StopIteration from None
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Close the stream, so that the API stops generating. Idempotent, from any thread. WSGI servers call it."""
        self._stream.close()
        self._events.close()

    async def _next(self) -> bytes | None:
        return await anext(self._events, None)


def server_sent_events(
    stream: Stream[Any],
    *,
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    cost: bool = True,
    write_timeout: float | None = DEFAULT_WRITE_TIMEOUT,
) -> BlockingServerSentEvents:
    """
    Return the bytes of a response with the server-sent events of *stream*, which must be open.

    ``stream = client.stream(...).open(wait_for="first_event")``. The events, parameters and errors are those of
    `neuralbox_async.web.server_sent_events`. A blocking server notices that the browser has left when it sends: after
    at most *heartbeat* seconds.
    """
    return BlockingServerSentEvents(stream, heartbeat=heartbeat, cost=cost, write_timeout=write_timeout)


def flask_response(
    stream: Stream[Any],
    *,
    wait_for: Literal["response", "first_event"] = "first_event",
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    cost: bool = True,
    write_timeout: float | None = DEFAULT_WRITE_TIMEOUT,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """
    Return a response of Flask with the server-sent events of *stream*, which is new, for the request that is handled.

    ``return flask_response(client.stream("gpt-5", prompt))`` in a view. The stream is opened before this returns. The
    status is decided after *wait_for*, see `Stream.open`; an error is sent as `problem`. The request of an
    ``EventSource`` that connects again gets a 204, which ends it: nothing is generated twice. Nor is anything for a
    HEAD request, which gets the headers. *heartbeat*, *cost*, *write_timeout*: as for `server_sent_events`. *headers*:
    more headers, also of an error and of the 204.

    gunicorn and Flask's own server give the socket of the request to the application, which checks it every 50 ms:
    when the browser leaves, also before the first text, the stream is closed; when it reads nothing for *write_timeout*
    seconds, its connection is as well, so that the thread is free. Behind other servers, and with TLS in the server
    itself, the stream of a browser that leaves is closed with the next text or heartbeat.
    """
    from flask import Response, request

    check_seconds(heartbeat=heartbeat, write_timeout=write_timeout)
    if is_reconnection(request.headers.keys()):
        return Response(status=HTTPStatus.NO_CONTENT, headers=reconnection_headers(headers))
    if request.method == "HEAD":
        return Response(iter(()), headers=event_headers(headers))  # an iterator: its length is not known
    connection = _connection_of(request.environ)
    is_disconnected = functools.partial(_has_ended, connection)
    open_stream = functools.partial(subject_of(stream).open, wait_for=wait_for)
    try:
        call_on_loop(stream, functools.partial(until_disconnected, open_stream, is_disconnected))
    except DisconnectedError:
        return Response(status=CLIENT_CLOSED)  # nobody receives it
    except NeuralBoxError as error:
        answer = logged_problem(error)
        return Response(answer.body, answer.status, error_headers(answer, headers))
    except BaseException:
        stream.close()  # an interrupt may arrive when it has just been opened
        raise
    events = BlockingServerSentEvents(stream, connection, heartbeat=heartbeat, cost=cost, write_timeout=write_timeout)
    return Response(events, headers=event_headers(headers))


def _connection_of(environ: Mapping[str, Any]) -> socket.socket | None:
    """Return the connection of the request with this *environ*, if it is known."""
    connection = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
    # Not with TLS, whose end is not the end of the bytes.
    return connection if type(connection) is socket.socket else None


def _shut_down(connection: socket.socket | None) -> None:
    """End a connection in which a thread may wait."""
    if connection is not None:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _has_ended(connection: socket.socket | None) -> bool:
    if connection is None:
        return False
    try:
        # First, because a socket with a timeout waits for it, even with the flag.
        return _is_readable(connection) and not connection.recv(1, socket.MSG_PEEK | _DONTWAIT)
    except (BlockingIOError, InterruptedError, TimeoutError):
        return False  # open, and nothing arrived
    except (OSError, ValueError):
        return True  # reset, or closed by the server


def _is_readable(connection: socket.socket) -> bool:
    """Return whether the socket has data, its end or an error."""
    if hasattr(select, "poll"):  # not on Windows; select itself knows no descriptors above 1023
        poll = select.poll()
        poll.register(connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([connection], [], [], 0)[0])
