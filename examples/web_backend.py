"""A web backend that streams a text while it is generated: ``curl --no-buffer --data 'Hi' localhost:8080/chat``."""

import os
from collections.abc import AsyncIterator

from aiohttp import web

from neuralbox_async import AsyncNeuralBox, NeuralBoxError
from neuralbox_async.web import aiohttp_response, problem

CLIENT = web.AppKey("client", AsyncNeuralBox)


async def client_of(app: web.Application) -> AsyncIterator[None]:
    """Open one client when the application starts, and close it at the end. All requests share its connections."""
    async with AsyncNeuralBox(first_event_timeout=30) as client:
        app[CLIENT] = client
        yield


async def chat(request: web.Request) -> web.StreamResponse:
    """Stream the reply to the prompt in the body as server-sent events."""
    try:
        stream = request.app[CLIENT].stream("gpt-5", await request.text())
    except NeuralBoxError as error:  # such as an empty prompt
        answer = problem(error)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)
    return await aiohttp_response(request, stream)


app = web.Application()
app.cleanup_ctx.append(client_of)
app.router.add_post("/chat", chat)

if __name__ == "__main__":
    web.run_app(app, port=int(os.environ.get("PORT", "8080")))
