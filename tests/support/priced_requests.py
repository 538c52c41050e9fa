"""Requests with keys, responses with prices, and whole runs, for tests of budgets."""

from __future__ import annotations

from transports import completed

from neuralbox_async.testing import FakeResponse


async def run(batch):
    """Run *batch* to its end and return its results and its report."""
    async with batch as results:
        found = [result async for result in results]
    return found, batch.report


def without_price(request):
    """Respond with a generation for 9 tokens, and with 404 to a request for its price."""
    if "calculate-price" in request["path"]:
        return FakeResponse(b'{"error": "not_found"}', status_code=404)
    return completed(request, tokens_used=9)


def rows(count):
    """Return requests whose keys are their prompts, the numbers from 0."""
    return [{"key": str(number), "prompt": str(number)} for number in range(count)]


def for_ten_tokens(request):
    """Respond with generations for 10 tokens each."""
    if request["path"].endswith("/calculate-price"):
        return {"max_token_cost": 10}
    if request["method"] == "GET":
        return {"id": request["path"].rpartition("/")[2], "status": "completed", "content": "x", "tokens_used": 10}
    return completed(request, tokens_used=10)
