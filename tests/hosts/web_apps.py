"""The applications that stream to a browser, one for each framework, as a user would write them."""

import sys

from neuralbox_async import AsyncNeuralBox
from neuralbox_async.web import aiohttp_response, django_response, starlette_response
from neuralbox_sync import NeuralBox
from neuralbox_sync.web import flask_response

OPTIONS = {"max_retries": 0, "first_event_timeout": 60}
WRITE_TIMEOUT = 2.0  # seconds


def starlette_app():
    from starlette.applications import Starlette
    from starlette.routing import Route

    client = AsyncNeuralBox(**OPTIONS)

    async def chat(request):
        return starlette_response(client.stream("gpt-5", request.query_params["q"]), write_timeout=WRITE_TIMEOUT)

    return Starlette(routes=[Route("/chat", chat)])


def fastapi_app():
    from fastapi import FastAPI, Response
    from starlette.middleware.base import BaseHTTPMiddleware

    client, app = AsyncNeuralBox(**OPTIONS), FastAPI()

    @app.get("/chat")
    async def chat(q: str) -> Response:
        return starlette_response(client.stream("gpt-5", q), write_timeout=WRITE_TIMEOUT, headers={"X-More": "yes"})

    async def middleware(request, call_next):
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=middleware)  # it puts itself between the response and the server
    return app


def django_app():
    import django
    from django.conf import settings
    from django.core.asgi import get_asgi_application
    from django.urls import path

    client = AsyncNeuralBox(**OPTIONS)

    async def chat(request):
        return await django_response(request, client.stream("gpt-5", request.GET["q"]), write_timeout=WRITE_TIMEOUT)

    settings.configure(SECRET_KEY="tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF="urls")
    sys.modules["urls"] = type(sys)("urls")
    sys.modules["urls"].urlpatterns = [path("chat", chat)]
    django.setup()
    return get_asgi_application()


def flask_app():
    from flask import Flask, request

    client, app = NeuralBox(**OPTIONS), Flask(__name__)

    @app.get("/chat")
    def chat():
        return flask_response(client.stream("gpt-5", request.args["q"]), write_timeout=WRITE_TIMEOUT)

    return app


def serve_aiohttp(port, *, cancellation):
    from aiohttp import web

    async def client_of(app):
        async with AsyncNeuralBox(**OPTIONS) as client:
            app["client"] = client
            yield

    async def chat(request):
        stream = request.app["client"].stream("gpt-5", request.query["q"])
        return await aiohttp_response(request, stream, write_timeout=WRITE_TIMEOUT)

    app = web.Application()
    app.cleanup_ctx.append(client_of)
    app.router.add_get("/chat", chat)
    web.run_app(app, host="127.0.0.1", port=port, handler_cancellation=cancellation, print=None)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["aiohttp", port]:
            serve_aiohttp(int(port), cancellation=True)
        case ["aiohttp-default", port]:
            serve_aiohttp(int(port), cancellation=False)
        case ["werkzeug", port]:
            flask_app().run(port=int(port), threaded=True)
