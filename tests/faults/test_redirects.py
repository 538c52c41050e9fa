"""Redirects: a POST follows none, a GET only within its origin."""

import time

import pytest
from fault_server import respond_to_each, response
from outcomes import COMPLETE, Outcome, generate, stream

from neuralbox_async import APIConnectionError, APIStatusError, NeuralBoxError


async def retrieve(client):
    """Call `retrieve`, which fails."""
    started = time.monotonic()
    with pytest.raises(NeuralBoxError) as caught:
        await client.retrieve("gen_1")
    return Outcome(caught.value, time.monotonic() - started, [])


@pytest.mark.parametrize("call, method", [(generate, "POST"), (stream, "POST"), (retrieve, "GET")])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_elsewhere(serve, connect, call, method, status):
    """A redirect to another origin is not followed, so that nobody else gets the key or the request."""
    other = serve(respond_to_each(COMPLETE))
    server = serve(respond_to_each(response(b"", f"Location: {other.url}/generate", status=f"{status} Moved")))
    client = connect(server)

    outcome = await call(client)

    assert isinstance(outcome.error, APIStatusError)
    assert status == outcome.error.status_code
    assert f"{other.url}/generate" == outcome.error.headers["location"]
    assert [method] == [request.method for request in server.requests]
    assert not other.connections


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_a_post_to_the_same_origin(serve, connect, call, status):
    """A POST follows no redirect, not even to the same origin."""
    server = serve(respond_to_each(response(b"", "Location: /api/v2/generate", status=f"{status} Moved"), COMPLETE))

    outcome = await call(connect(server))

    assert status == outcome.error.status_code
    assert 1 == server.posts == len(server.requests)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_of_a_get_to_the_same_origin(serve, connect, status):
    """A GET follows a redirect within its origin, with the key."""
    moved = response(b"", "Location: /elsewhere?x=1", status=f"{status} Moved", content_type="text/plain")

    async def script(connection):
        request = await connection.request()
        await connection.send(COMPLETE if request.path == "/elsewhere?x=1" else moved)
        connection.finish()

    server = serve(script)

    assert "Hello" == (await connect(server).retrieve("gen_1")).content
    assert 2 == len(server.requests)
    assert all("Bearer nb_test_key" == request.headers["authorization"] for request in server.requests)


@pytest.mark.parametrize(
    "location",
    [
        "ftp://127.0.0.1/x",
        "//evil.example/x",
        "http://user:pw@127.0.0.1:{port}/x",
        "http://127.0.0.1/x",
        "https://127.0.0.1:{port}/x",
        "",
        "http://[",
    ],
)
async def test_redirect_of_a_get_out_of_its_origin(serve, connect, location):
    """Another scheme, host, port or user is another origin."""
    server = serve()
    server.scripts = (
        respond_to_each(response(b"", f"Location: {location.format(port=server.port)}", status="302 Found")),
    )

    outcome = await retrieve(connect(server, max_retries=0))

    assert isinstance(outcome.error, APIStatusError | APIConnectionError)
    assert "unknown" == outcome.error.billed  # the generation, of which it says nothing
    assert 1 == len(server.requests)


async def test_redirect_loop(serve, connect):
    """A redirect loop ends with an error."""
    server = serve(respond_to_each(response(b"", "Location: /api/v2/generate/status/gen_1", status="302 Found")))

    outcome = await retrieve(connect(server))

    assert isinstance(outcome.error, APIConnectionError)
    assert not outcome.error.retryable
    assert len(server.requests) <= 10
