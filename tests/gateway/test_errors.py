"""Errors of the API, as OpenAI's clients know them."""

from __future__ import annotations

import pytest
from gateways import running

from neuralbox_async import (
    APIConnectionError,
    APITimeoutError,
    ClientClosedError,
    GenerationFailedError,
    InvalidParameterError,
    ResponseError,
    StreamInterruptedError,
    WaitTimeoutError,
)
from neuralbox_async.gateway._errors import error_body
from neuralbox_async.testing import NeuralBoxServer

# A status of the API; the status, type and code of the gateway; whether clients may repeat the request.
STATUSES = [
    (307, 502, "server_error", None, False),
    (400, 400, "invalid_request_error", "bad_request", False),
    (401, 401, "authentication_error", "invalid_api_key", False),
    (402, 429, "insufficient_quota", "insufficient_quota", False),
    (403, 403, "permission_error", "insufficient_plan", False),
    (404, 404, "invalid_request_error", "model_not_found", False),
    (409, 409, "invalid_request_error", None, False),
    (413, 413, "invalid_request_error", None, False),
    (418, 418, "invalid_request_error", None, False),
    (422, 422, "invalid_request_error", "validation_error", False),
    (429, 429, "requests", "rate_limit_exceeded", True),
    (500, 500, "server_error", "provider_error", True),
    (502, 502, "server_error", None, False),
    (503, 503, "server_error", "model_unavailable", True),
    (504, 502, "server_error", None, False),
]


@pytest.mark.parametrize("status, expected, kind, code, retry", STATUSES)
async def test_status(server, status, expected, kind, code, retry):
    """Each status has OpenAI's type and code; only what was certainly not billed may be repeated."""
    server.fail(status, retry_after=100 if status == 429 else None)
    async with running(server, max_wait=0) as site:
        # The gateway repeats what was not billed.
        site.gateway._client._options = site.gateway._client._options.replace(max_retries=0)
        reply = await site.send()

    assert (expected, kind) == (reply.status, reply.error["type"])
    assert code is None or code == reply.error["code"]
    assert ("false" != reply.headers.get("x-should-retry")) == retry
    assert server.api_key not in reply.body.decode()
    assert reply.headers.get("Retry-After") == ("100" if status == 429 else None)


@pytest.mark.parametrize(
    "error, status, code, retry",
    [
        (InvalidParameterError("messages[].content", 1, "text"), 400, None, False),
        (APIConnectionError("refused"), 502, "connection_error", True),
        (APIConnectionError("reset", request_sent=True), 502, "connection_error", False),
        (APITimeoutError("late", request_sent=True), 504, "timeout", False),
        (APITimeoutError("no connection"), 504, "timeout", True),
        (WaitTimeoutError("pending"), 504, "generation_pending", False),
        (ResponseError("not JSON"), 502, "invalid_response", False),
        (GenerationFailedError("refused by the provider"), 500, "generation_failed", False),
        (StreamInterruptedError("cut"), 502, "stream_interrupted", False),
        (ClientClosedError("closed", request_sent=True), 503, "shutting_down", False),
    ],
)
def test_other_errors(error, status, code, retry):
    """An error without a response has a status; it may be repeated if nothing was sent."""
    body = error_body(error)

    assert (status, code, retry) == (body.status, body.code, body.retry)
    assert error.billed == body.facts["billed"]


async def test_paid_text_of_an_error(site):
    """A response that is malformed after it was paid for has its text and its id in the error."""
    site.server.fail(200, body={"id": "gen_1", "status": ["completed"], "content": "A haiku"})
    reply = await site.send()

    assert 502 == reply.status
    assert ("A haiku", "gen_1") == tuple(reply.error["neuralbox"][name] for name in ("text", "generation_id"))
    assert "false" == reply.headers["x-should-retry"]


async def test_failed_generation():
    """A generation that fails is an error that says that it was not billed."""
    with NeuralBoxServer(failing_models={"gpt-5"}) as server:
        async with running(server) as site:
            reply = await site.send()

    assert (500, "no") == (reply.status, reply.error["neuralbox"]["billed"])


async def test_echoed_key(site):
    """A key that the API echoes in an error does not reach the client or the log."""
    key = site.server.api_key
    site.server.fail(400, message=f"bad header Authorization: Bearer {key}", headers={"x-echo": key})
    reply = await site.send()

    assert key not in reply.body.decode() + str(reply.headers)


async def test_internal_error(site, log, monkeypatch):
    """A failure of the gateway itself is OpenAI's error, without a traceback, which is in the log."""

    def broken(*_):
        raise RuntimeError("a detail")

    monkeypatch.setattr("neuralbox_async.gateway._routes.parse_chat_request", broken)
    reply = await site.send()

    assert (500, "internal_error", "the gateway failed") == (
        reply.status,
        reply.error["code"],
        reply.error["message"],
    )
    assert "the gateway failed" in log()
