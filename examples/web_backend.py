"""A web backend that streams a text while it is generated: ``curl --no-buffer --data 'Hi' localhost:8080/chat``."""

import math
import os
from collections.abc import AsyncIterator

from aiohttp import web

from neuralbox_async import AsyncNeuralBox, InvalidParameterError, NeuralBoxError, RateLimitError

CLIENT = web.AppKey("client", AsyncNeuralBox)


async def client_of(app: web.Application) -> AsyncIterator[None]:
    """Open one client when the application starts, and close it at the end. All requests share its connections."""
    async with AsyncNeuralBox(first_event_timeout=30) as client:
        app[CLIENT] = client
        yield


async def chat(request: web.Request) -> web.StreamResponse:
    """Stream the reply to the prompt in the body."""
    prompt = await request.text()
    response = web.StreamResponse(headers={"Content-Type": "text/plain; charset=utf-8"})
    try:
        # Entering sends the request. An error before the first text can still become an HTTP status.
        async with request.app[CLIENT].stream("gpt-5", prompt) as stream:
            async for text in stream.text_stream:
                if not response.prepared:
                    await response.prepare(request)
                await response.write(text.encode())
    except NeuralBoxError as error:
        if response.prepared:
            raise  # the status is sent: only a closed connection shows the browser that the text is incomplete
        raise http_error(error) from error
    return response


def http_error(error: NeuralBoxError) -> web.HTTPException:
    """Return the HTTP error for *error*, without details that are not for the public."""
    match error:
        case InvalidParameterError():
            return web.HTTPBadRequest(text=str(error))
        case RateLimitError():
            return web.HTTPServiceUnavailable(headers={"Retry-After": str(math.ceil(error.retry_after or 60))})
        case _:
            return web.HTTPBadGateway(text="The text could not be generated.")


app = web.Application()
app.cleanup_ctx.append(client_of)
app.router.add_post("/chat", chat)

if __name__ == "__main__":
    # handler_cancellation: when the browser disconnects, the handler is cancelled, which ends the generation.
    web.run_app(app, port=int(os.environ.get("PORT", "8080")), handler_cancellation=True)
