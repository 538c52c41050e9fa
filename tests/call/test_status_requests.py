"""Errors of status requests: what they say of the generation, and which of them end a wait."""

from __future__ import annotations

import anyio
import pytest

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    ClientClosedError,
    InternalServerError,
    NeuralBoxError,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")


def body(data, status_code=200):
    """Return a function that makes a response, which can be read once."""
    return lambda: FakeResponse(data, status_code=status_code)


FAILURES = {
    "no response": lambda: APIConnectionError("reset", request_sent=True),
    "not sent": lambda: APIConnectionError("refused"),
    "an error status": body(b'{"error": "not_authenticated"}', 401),
    "not found": body(b'{"error": "not_found"}', 404),
    "a malformed generation": body(b'{"id": "gen_1", "status": "completed", "content": 5}'),
    "not JSON": body(b"<html>"),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
@pytest.mark.parametrize("call", ["retrieve", "wait"])
async def test_an_error_of_a_status_request(make_client, call, failure):
    """An error of a status request says nothing of the generation's bill, and has its id."""
    client = make_client(FakeTransport(*(failure() for _ in range(9))), max_retries=0)
    with pytest.raises(NeuralBoxError) as caught:
        await getattr(client, call)("gen_1", timeout=0.2)
    assert ("unknown", "gen_1") == (caught.value.billed, caught.value.generation_id)


async def test_a_failed_generation_is_free(make_client):
    """The API's own description of a failed generation does show what it costs."""
    transport = FakeTransport({"id": "gen_1", "status": "failed", "error": "policy"})
    with pytest.raises(NeuralBoxError) as caught:
        await make_client(transport).retrieve("gen_1")
    assert ("no", "gen_1") == (caught.value.billed, caught.value.generation_id)


async def test_a_client_that_is_closed_during_a_wait(make_client):
    """The error of a wait whose client is closed says nothing of the generation's bill either."""
    client = make_client(FakeTransport({"id": "gen_1", "status": "pending"}))
    async with anyio.create_task_group() as group:
        with pytest.raises(ClientClosedError) as caught:
            group.start_soon(client.aclose)
            await client.wait("gen_1", timeout=60)
    assert ("unknown", "gen_1") == (caught.value.billed, caught.value.generation_id)


@pytest.mark.parametrize("status_code", [500, 502, 503, 504, 507, *range(520, 531), 598])
async def test_a_wait_survives_any_server_error(make_client, status_code):
    """A server error or a gateway's, however it is numbered, ends no wait."""
    failure = body(b"error code: 520", status_code)
    transport = FakeTransport(
        failure(), {"id": "gen_1", "status": "pending"}, failure(), {"id": "gen_1", "content": "Hi"}
    )
    client: AsyncNeuralBox = make_client(transport, max_retries=0)

    assert "Hi" == (await client.wait("gen_1", timeout=60, poll_interval=0.001)).content


@pytest.mark.parametrize("status_code", [501, 505])
async def test_a_wait_ends_when_the_server_does_not_support_it(make_client, status_code):
    """A server that does not support the request never will."""
    transport = FakeTransport(*(body(b"", status_code)() for _ in range(2)))
    with pytest.raises(InternalServerError):
        await make_client(transport).wait("gen_1", timeout=60)
