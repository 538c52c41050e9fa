"""A transport for tests of batches: it answers as a function tells."""

from __future__ import annotations

import asyncio
import json

from neuralbox_async import APIConnectionError
from neuralbox_async.testing import FakeResponse

REFUSED = APIConnectionError("refused")


class Answers:
    """
    A transport that answers each request with what *answer* makes of its JSON, a while later.

    *answer* returns a dict, a `FakeResponse` or an exception; *pause* says how often others go first.
    """

    def __init__(self, answer, pause=lambda _asked: 1):
        self.answer, self.pause = answer, pause
        self.asked = []
        self.in_flight = self.peak = 0

    async def send(self, method, url, headers, body, delivery):
        asked = {"method": method, "path": url.rpartition("/v2")[2], "headers": headers, **json.loads(body or b"{}")}
        self.asked.append(asked)
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        delivery.stage = "sent"
        try:
            for _ in range(self.pause(asked)):
                await asyncio.sleep(0)
            answer = self.answer(asked)
        finally:
            self.in_flight -= 1
        if isinstance(answer, BaseException):
            delivery.stage = "sent" if getattr(answer, "request_sent", True) else "connecting"
            raise answer
        return FakeResponse(json.dumps(answer).encode()) if isinstance(answer, dict) else answer

    async def aclose(self):
        """Nothing is open."""


def said(asked):
    """Return the text of the last message."""
    return asked["messages"][-1]["content"]


def done(asked, **members):
    """Return an answer with a generation."""
    return {"id": f"gen_{said(asked)}", "status": "completed", "content": said(asked), "tokens_used": 1, **members}


async def results_of(batch):
    """Run *batch* to its end and return its results."""
    async with batch as results:
        return [result async for result in results]
