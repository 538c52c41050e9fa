"""The types of the web helpers."""

from __future__ import annotations

from typing import assert_type

from aiohttp import web
from flask import Response as FlaskResponse
from starlette.responses import Response

from neuralbox_async import AsyncNeuralBox
from neuralbox_async.web import (
    ProblemDetails,
    ServerSentEvents,
    aiohttp_response,
    problem,
    server_sent_events,
    starlette_response,
)
from neuralbox_sync import NeuralBox
from neuralbox_sync import web as blocking


async def helpers(client: AsyncNeuralBox, request: web.Request) -> None:
    stream = client.stream("gpt-5", "Hi")
    assert_type(starlette_response(stream, wait_for="response", heartbeat=None), Response)
    assert_type(await aiohttp_response(request, stream), web.StreamResponse)
    assert_type(server_sent_events(await stream.open()), ServerSentEvents)
    async for chunk in server_sent_events(stream):
        assert_type(chunk, bytes)
    assert_type(problem(ValueError()), ProblemDetails)
    assert_type(problem(ValueError()).retry_after, int | None)


def blocking_helpers(client: NeuralBox) -> None:
    stream = client.stream("gpt-5", "Hi")
    assert_type(blocking.flask_response(stream), FlaskResponse)
    for chunk in blocking.server_sent_events(stream.open()):
        assert_type(chunk, bytes)
