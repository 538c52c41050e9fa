"""A response of aiohttp.web with the events of a stream."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from neuralbox_async import AsyncStream, NeuralBoxError
from neuralbox_async.web._disconnects import CLIENT_CLOSED, DisconnectedError, until_disconnected
from neuralbox_async.web._events import (
    DEFAULT_HEARTBEAT,
    DEFAULT_WRITE_TIMEOUT,
    ServerSentEvents,
    check_seconds,
    event_headers,
)
from neuralbox_async.web._problems import error_headers, is_reconnection, logged_problem, reconnection_headers

if TYPE_CHECKING:
    from aiohttp import web


async def aiohttp_response(
    request: web.Request,
    stream: AsyncStream[Any],
    *,
    wait_for: Literal["response", "first_event"] = "first_event",
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    cost: bool = True,
    write_timeout: float | None = DEFAULT_WRITE_TIMEOUT,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """
    Send the server-sent events of *stream*, which is new, as the response to *request*, and return the response.

    ``return await aiohttp_response(request, client.stream("gpt-5", prompt))`` in a handler of aiohttp.web. The
    parameters, errors and disconnects are as for `starlette_response`. It also works without the server's
    ``handler_cancellation``: then the connection is checked every 50 ms.
    """
    from aiohttp import HttpVersion11, web

    check_seconds(heartbeat=heartbeat, write_timeout=write_timeout)
    if is_reconnection(request.headers):
        return web.Response(status=HTTPStatus.NO_CONTENT, headers=reconnection_headers(headers))
    response = web.StreamResponse(headers=event_headers(headers))
    if request.method == "HEAD":
        return response
    if request.version < HttpVersion11:
        response.force_close()  # its end is that of the connection

    def abort() -> None:
        if request.transport is not None:
            request.transport.abort()  # closing would wait until the rest has been read

    async def send() -> web.StreamResponse:
        try:
            await stream.open(wait_for=wait_for)
        except NeuralBoxError as error:
            answer = logged_problem(error)
            return web.Response(status=answer.status, headers=error_headers(answer, headers), body=answer.body)
        events = ServerSentEvents(
            stream, heartbeat=heartbeat, cost=cost, write_timeout=write_timeout, on_write_timeout=abort
        )
        await _send_events(request, response, events)
        return response

    try:
        return await until_disconnected(send, functools.partial(_is_disconnected, request))
    except DisconnectedError:
        return response if response.prepared else web.Response(status=CLIENT_CLOSED)  # nobody receives it


async def _send_events(request: web.Request, response: web.StreamResponse, events: ServerSentEvents) -> None:
    try:
        with suppress(ConnectionError):  # the browser has left
            await response.prepare(request)
            async for chunk in events:
                await response.write(chunk)
            await response.write_eof()
    finally:
        await events.aclose()


def _is_disconnected(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
