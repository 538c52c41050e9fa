"""A response of Django's async views with the events of a stream."""

# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal

from neuralbox_async import AsyncStream, NeuralBoxError
from neuralbox_async.web._events import (
    DEFAULT_HEARTBEAT,
    DEFAULT_WRITE_TIMEOUT,
    check_seconds,
    event_headers,
    server_sent_events,
)
from neuralbox_async.web._problems import error_headers, is_reconnection, logged_problem, reconnection_headers


async def django_response(
    request: Any,
    stream: AsyncStream[Any],
    *,
    wait_for: Literal["response", "first_event"] = "first_event",
    heartbeat: float | None = DEFAULT_HEARTBEAT,
    cost: bool = True,
    write_timeout: float | None = DEFAULT_WRITE_TIMEOUT,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """
    Return a response of Django with the server-sent events of *stream*, which is new, for *request*, an `HttpRequest`.

    ``return await django_response(request, client.stream("gpt-5", prompt))`` in an async view, under ASGI. The stream
    is opened before this returns. The parameters and errors are as for `starlette_response`. Django cancels the view,
    or closes the response, when the browser leaves, which closes the stream; a middleware that is not async prevents
    that in a view. The types are `Any` because Django has none.
    """
    from django.http import HttpResponse, StreamingHttpResponse

    check_seconds(heartbeat=heartbeat, write_timeout=write_timeout)
    if is_reconnection(request.headers):
        return HttpResponse(status=HTTPStatus.NO_CONTENT, headers=reconnection_headers(headers))
    if request.method == "HEAD":
        return HttpResponse(headers=event_headers(headers))
    try:
        await stream.open(wait_for=wait_for)
    except NeuralBoxError as error:
        answer = logged_problem(error)
        return HttpResponse(answer.body, status=answer.status, headers=error_headers(answer, headers))
    events = server_sent_events(stream, heartbeat=heartbeat, cost=cost, write_timeout=write_timeout)
    return StreamingHttpResponse(events, headers=event_headers(headers))
