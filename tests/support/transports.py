"""A transport for tests of batches, whose responses a function returns."""

from __future__ import annotations

import asyncio
import json

from neuralbox_async import APIConnectionError
from neuralbox_async.testing import FakeResponse

NOT_CONNECTED = APIConnectionError("refused")
CONNECTION_RESET = APIConnectionError("reset", request_sent=True)


class FunctionTransport:
    """
    A transport that responds to each request with the result of *respond* for its JSON.

    *respond* returns a dict, a `FakeResponse` or an exception; *delay* returns how many iterations of the event loop
    the response takes. *requests* holds the requests, *peak* is the maximum of those in flight.
    """

    def __init__(self, respond, delay=lambda _request: 1):
        self.respond, self.delay = respond, delay
        self.requests = []
        self.in_flight = self.peak = 0

    async def send(self, attempt):
        """Return the response to *attempt*, or raise the exception that stands for it."""
        request = {
            "method": attempt.method,
            "path": attempt.url.rpartition("/v2")[2],
            "headers": attempt.headers,
            **json.loads(attempt.body or b"{}"),
        }
        self.requests.append(request)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        attempt.stage = "sent"
        try:
            for _ in range(self.delay(request)):
                await asyncio.sleep(0)
            response = self.respond(request)
        finally:
            self.in_flight -= 1
        if isinstance(response, BaseException):
            attempt.stage = "sent" if getattr(response, "request_sent", True) else "connecting"
            raise response
        return FakeResponse(json.dumps(response).encode()) if isinstance(response, dict) else response

    async def aclose(self):
        """Do nothing: no connection is open."""


def prompt_of(request):
    """Return the text of the last message."""
    return request["messages"][-1]["content"]


def completed(request, **members):
    """Return a response with a generation, which repeats the prompt."""
    prompt = prompt_of(request)
    return {"id": f"gen_{prompt}", "status": "completed", "content": prompt, "tokens_used": 1, **members}


async def results_of(batch):
    """Run *batch* to its end and return its results."""
    async with batch as results:
        return [result async for result in results]
