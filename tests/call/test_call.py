"""One call: its request, its deadline, redirects, errors and the endpoints of streams."""

from __future__ import annotations

import json
import traceback

import anyio
import pytest

from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    Generation,
    NeuralBoxError,
    NotFoundError,
    ProviderError,
)
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

KEY = "nb_canary_key_that_must_not_be_seen_7f3a"
REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}

REFUSED = APIConnectionError("refused")


async def test_generate(make_client):
    """`generate` sends one POST with the key and returns the generation."""
    transport = FakeTransport(REPLY)
    client = make_client(transport, base_url="https://api.example.com/v2/", default_headers={"X-Team": "a"})

    reply = await client.generate(
        "gpt-5",
        "Hi",
        system="Be brief.",
        temperature=0.5,
        max_tokens=9,
        extra_headers={"X-Trace": "t"},
        extra_body={"seed": 1},
    )

    (request,) = transport.requests
    assert Generation(id="gen_1", content="Hello") == reply
    assert ("POST", "https://api.example.com/v2/generate") == (request.method, request.url)
    assert {
        "model": "gpt-5",
        "messages": [{"role": "user", "content": "Hi"}],
        "system": "Be brief.",
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 1,
    } == request.json
    expected = {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "X-Team": "a",
        "X-Trace": "t",
    }
    assert expected == {name: str(request.headers[name]) for name in expected}
    assert request.headers["User-Agent"].startswith("neuralbox-python/")


async def test_stream_headers(make_client):
    """A stream accepts server-sent events without compression."""
    transport = FakeTransport(FakeResponse(b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"}))
    async with make_client(transport).stream("gpt-5", "Hi"):
        pass

    (request,) = transport.requests
    assert ("text/event-stream", "identity") == (request.headers["Accept"], request.headers["Accept-Encoding"])
    assert request.json["stream"] is True


async def test_idempotency_key(make_client):
    """All attempts of a call have one idempotency key: the user's, or one generated for the call."""
    transport = FakeTransport(REFUSED, REPLY)
    client = make_client(transport)
    await client.generate("gpt-5", "Hi")
    await client.generate("gpt-5", "Hi")
    await client.generate("gpt-5", "Hi", idempotency_key="mine")

    keys = [request.headers["Idempotency-Key"] for request in transport.requests]
    assert keys[0] == keys[1] != keys[2] != keys[3] == "mine"


# ---------------------------------------------------------------------------------------------------------- deadlines


async def test_deadline(make_client):
    """The error of an expired deadline has *request_sent* and the bytes that arrived."""
    for transport, request_sent, body in [
        (FakeTransport(FakeResponse(b"{", ...)), True, b"{"),
        (Hanging(), False, b""),
    ]:
        with anyio.fail_after(5), pytest.raises(APITimeoutError, match=r"within 0\.05 s") as caught:
            await make_client(transport).generate("gpt-5", "Hi", timeout=0.05)
        assert (request_sent, "total", body) == (caught.value.request_sent, caught.value.phase, caught.value.body)


class Hanging(FakeTransport):
    """A transport that never connects."""

    async def send(self, request):
        await anyio.sleep_forever()


async def test_deadline_of_opening_a_stream(make_client):
    """The timeout that expires first ends the opening of a stream."""
    client = make_client(Hanging())
    for limits, phase in [
        ({"first_event_timeout": 0.02}, "first_event"),
        ({"timeout": 0.02, "first_event_timeout": 5}, "total"),
        ({"timeout": 0.02, "first_event_timeout": None}, "total"),
    ]:
        with anyio.fail_after(5), pytest.raises(APITimeoutError) as caught:
            await client.stream("gpt-5", "Hi", **limits).__aenter__()
        assert phase == caught.value.phase


# ---------------------------------------------------------------------------------------------------------- redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_post_is_not_redirected(make_client, status):
    """A POST follows no redirect: it could be billed again, or send the key to another host."""
    transport = FakeTransport(FakeResponse(b"", status_code=status, headers={"location": "/elsewhere"}))
    with pytest.raises(APIStatusError) as caught:
        await make_client(transport).generate("gpt-5", "Hi")
    assert (status, 1, "/elsewhere") == (
        caught.value.status_code,
        len(transport.requests),
        caught.value.headers["location"],
    )


@pytest.mark.parametrize(
    "location, url",
    [
        ("/v3/generate/1", "https://api.example.com/v3/generate/1"),
        ("https://api.example.com/x", "https://api.example.com/x"),
        ("https://api.example.com:444/x", None),
        ("http://api.example.com/x", None),
        ("//evil.example.com/x", None),
        ("https://user:pw@api.example.com/x", None),
        ("https://[::1/x", None),
        ("", None),
    ],
)
async def test_get_is_redirected_to_the_same_origin(make_client, location, url):
    """A GET follows a redirect to the same origin, and to no other."""
    transport = FakeTransport(FakeResponse(b"", status_code=302, headers={"location": location}), REPLY)
    client = make_client(transport, base_url="https://api.example.com/v2")
    if url is None:
        with pytest.raises(APIStatusError):
            await client.retrieve(1)
        assert 1 == len(transport.requests)
    else:
        assert "Hello" == (await client.retrieve(1)).content
        assert url == transport.requests[-1].url


async def test_redirect_loop(make_client):
    """A redirect to itself is an error after a few redirects."""
    transport = FakeTransport(FakeResponse(b"", status_code=302, headers={"location": "/x"}))
    with pytest.raises(APIConnectionError, match="redirects"):
        await make_client(transport).retrieve(1)
    assert len(transport.requests) < 10


# ------------------------------------------------------------------------------------------------------------- errors


async def test_error_of_the_transport(make_client):
    """An error that the transport raises keeps its type and message, and gets the facts of the call."""
    error = ProviderError("500", status_code=500, code="provider_error")
    with pytest.raises(NeuralBoxError) as caught:
        await make_client(FakeTransport(error)).generate("gpt-5", "Hi")
    assert (ProviderError, str(error), 3) == (type(caught.value), str(caught.value), caught.value.attempts)


@pytest.mark.parametrize("status", [200, 401, 429, 502])
async def test_an_echoed_key_is_masked(make_client, status):
    """A key that a server echoes appears nowhere in the error."""
    error = {"message": f"Incorrect API key: {KEY}"}
    body = json.dumps({"error": error, "details": {"a": [KEY]}, "plan": KEY, "retry_after": 900}).encode()
    response = FakeResponse(body, status_code=status, headers={"x-echo": f"Bearer {KEY}"})
    with pytest.raises(NeuralBoxError) as caught:
        await make_client(FakeTransport(response)).generate("gpt-5", "Hi")

    assert "Incorrect API key: ***" in str(caught.value)
    assert KEY not in repr(vars(caught.value)) + repr(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        f'{{"id": "{KEY}"',
        f'["{KEY}"]',
        f'{{"id": 1, "content": ["{KEY}"]}}',
        f'{{"status": ["{KEY}"], "progress": "x"}}',
    ],
)
async def test_frames_without_the_body(make_client, body):
    """No frame of an error or its context holds the body, which may echo the key."""
    transport = FakeTransport(FakeResponse(body.encode()))
    client = make_client(transport)
    del body
    with pytest.raises(NeuralBoxError) as caught:
        await client.generate("gpt-5", "Hi")

    error = caught.value
    while error is not None:
        text = traceback.TracebackException.from_exception(error, capture_locals=True).format()
        assert KEY not in "".join(text)
        error = error.__cause__ or error.__context__


# --------------------------------------------------------------------------------------------- endpoints of streams


def done() -> FakeResponse:
    return FakeResponse(b"data: [DONE]\n\n", headers={"content-type": "text/event-stream"})


async def test_fallback_endpoint_of_streams(make_client):
    """After a 404 from the first endpoint of streams, the client uses the second, and goes on using it."""
    transport = FakeTransport(FakeResponse(b"", status_code=404), done(), done())
    client = make_client(transport, base_url="https://x.example.com")
    history = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ]
    for _ in range(2):
        async with client.stream("gpt-5", history, system="Be brief.", temperature=0) as stream:
            await stream.get_final_generation()

    first, second, third = transport.requests
    assert ["/generate", "/generate/stream", "/generate/stream"] == [
        request.url.removeprefix("https://x.example.com") for request in (first, second, third)
    ]
    assert second.json == third.json
    assert {
        "model": "gpt-5",
        "prompt": "Bye",
        "params": {"messages": history[:2], "system_prompt": "Be brief.", "temperature": 0},
    } == second.json


async def test_no_endpoint_of_streams(make_client):
    """The first 404 is raised when the second endpoint does not exist or does not take the request."""
    images = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x"}}]}]
    for messages, requests in [("Hi", 2), (images, 1)]:
        transport = FakeTransport(FakeResponse(b"first", status_code=404), FakeResponse(b"second", status_code=404))
        with pytest.raises(NotFoundError, match="first"):
            await make_client(transport).stream("gpt-5", messages).__aenter__()
        assert requests == len(transport.requests)
