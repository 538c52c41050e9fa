"""Runs of a batch with a budget."""

from __future__ import annotations

from answers import done

from neuralbox_async.testing import FakeResponse


async def run(batch):
    """Run *batch* to its end and return its results and its report."""
    async with batch as results:
        found = [result async for result in results]
    return found, batch.report


def without_price(asked):
    """Answer with a generation for 9 tokens; how much it costs is not told before."""
    if "calculate-price" in asked["path"]:
        return FakeResponse(b'{"error": "not_found"}', status_code=404)
    return done(asked, tokens_used=9)


def rows(count):
    """Return requests whose keys are their prompts, the numbers from 0."""
    return [{"key": str(number), "prompt": str(number)} for number in range(count)]


def for_ten(asked):
    """Answer with generations for 10 tokens each."""
    if asked["path"].endswith("/calculate-price"):
        return {"max_token_cost": 10}
    if asked["method"] == "GET":
        return {"id": asked["path"].rpartition("/")[2], "status": "completed", "content": "x", "tokens_used": 10}
    return done(asked, tokens_used=10)
