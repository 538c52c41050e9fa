"""A running gateway in front of a local server, and the forms of OpenAI's responses."""

from __future__ import annotations

import asyncio
import contextlib
import json

import aiohttp
import attrs
from multidict import CIMultiDict

from neuralbox_async import AsyncNeuralBox
from neuralbox_async.gateway import Gateway, GatewaySettings
from neuralbox_async.testing import NeuralBoxServer

TOKEN = "a token of 16 or more".replace(" ", "-")
HI = [{"role": "user", "content": "Hi"}]


@attrs.frozen
class Reply:
    """A response: its status, headers and bytes."""

    status: int
    headers: CIMultiDict
    body: bytes

    @property
    def json(self):
        """The JSON of the body."""
        return json.loads(self.body)

    @property
    def error(self):
        """The error in the body, which has OpenAI's form."""
        members = self.json
        check_form(members, ERROR)
        return members["error"]

    @property
    def events(self):
        """The data of the server-sent events; their JSON, but for [DONE]."""
        assert self.body.endswith(b"\n\n")
        events = self.body.decode().split("\n\n")[:-1]
        assert all(event.startswith("data: ") and "\n" not in event for event in events)
        return [event[6:] if event == "data: [DONE]" else json.loads(event[6:]) for event in events]


@attrs.frozen
class Site:
    """A gateway, the local server behind it, and a session of a client."""

    gateway: Gateway
    server: NeuralBoxServer
    session: aiohttp.ClientSession
    task: asyncio.Task

    def open(self, method="POST", path="/v1/chat/completions", headers=None, body=None, **members):
        """Return a request as a context manager; by default a chat with *members*."""
        url = self.gateway.base_url.removesuffix("/v1") + path
        if method == "POST" and body is None:
            body = json.dumps({"model": "gpt-5", "messages": HI, **members}).encode()
        return self.session.request(
            method, url, data=body, headers={"Content-Type": "application/json", **(headers or {})}
        )

    async def send(self, *words, **options):
        """Send a request and return its whole response."""
        async with self.open(*words, **options) as response:
            return Reply(response.status, response.headers.copy(), await response.read())


@contextlib.asynccontextmanager
async def running(server, client_options=None, **settings):
    """Run a gateway on a free port in front of *server*; at the end it must stop."""
    options = {**server.client_options, **(client_options or {})}
    async with AsyncNeuralBox(**options) as client, aiohttp.ClientSession() as session:
        gateway = Gateway(client, GatewaySettings(port=0, **settings))
        ready = asyncio.Event()
        task = asyncio.create_task(gateway.serve(ready=lambda _: ready.set()))
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        try:
            if task.done():
                await task
            yield Site(gateway, server, session, task)
        finally:
            gateway.stop()
            await task


# -------------------------------------------------------------------------------------------------------------- forms

NoneType = type(None)
USAGE = {"prompt_tokens": int, "completion_tokens": int, "total_tokens": int}
COMPLETION = {
    "id": str,
    "object": {"chat.completion"},
    "created": int,
    "model": str,
    "choices": [
        {
            "index": int,
            "message": {"role": {"assistant"}, "content": str, "refusal": NoneType},
            "logprobs": NoneType,
            "finish_reason": {"stop", "length", "content_filter"},
        }
    ],
    "usage": USAGE,
}
CHUNK = {
    "id": str,
    "object": {"chat.completion.chunk"},
    "created": int,
    "model": str,
    "choices": [{"index": int, "delta": dict, "logprobs": NoneType, "finish_reason": (str, NoneType)}],
}
ERROR = {"error": {"message": str, "type": str, "param": (str, NoneType), "code": (str, NoneType)}}
MODEL = {"id": str, "object": {"model"}, "created": int, "owned_by": str}
MODELS = {"object": {"list"}, "data": [MODEL]}


def check_form(value, form, place="$"):
    """Check that *value* has exactly the members that OpenAI documents, by *form*, and perhaps `neuralbox`."""
    if isinstance(form, dict):
        assert isinstance(value, dict), place
        assert set(form) == set(value) - {"neuralbox"}, place
        for name, member in form.items():
            check_form(value[name], member, f"{place}.{name}")
    elif isinstance(form, list):
        assert isinstance(value, list), place
        for item in value:
            check_form(item, form[0], f"{place}[]")
    elif isinstance(form, set):
        assert value in form, place
    else:
        assert isinstance(value, form), place
        assert form is bool or not isinstance(value, bool), place
