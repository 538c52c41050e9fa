"""Streamed completions."""

from __future__ import annotations

import asyncio
import json

import pytest
from gateways import CHUNK, ERROR, HI, USAGE, check_form, running

from neuralbox_async.testing import NeuralBoxServer

WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def text_of(events):
    return "".join(c["delta"].get("content", "") for event in events for c in event.get("choices", []))


def status_requests(server):
    return [request for request in server.requests if request.method == "GET"]


async def test_form(site):
    """A stream has a chunk with the role, chunks of text, one with the finish reason, and [DONE]."""
    reply = await site.send(stream=True)
    *chunks, last, done = reply.events

    assert (200, "text/event-stream") == (reply.status, reply.headers["Content-Type"])
    for chunk in [*chunks, last]:
        check_form(chunk, CHUNK)
    assert {"role": "assistant", "content": "", "refusal": None} == chunks[0]["choices"][0]["delta"]
    assert "You said: Hi" == text_of(chunks)
    assert {None} == {chunk["choices"][0]["finish_reason"] for chunk in chunks}
    assert ({}, "stop") == (last["choices"][0]["delta"], last["choices"][0]["finish_reason"])
    assert "[DONE]" == done
    (bill,) = site.server.billed
    assert {f"chatcmpl-{bill.id}"} == {chunk["id"] for chunk in [*chunks, last]}
    assert bill.id == reply.headers["x-neuralbox-generation-id"]
    assert (bill.id, bill.tokens_used) == (last["neuralbox"]["generation_id"], last["neuralbox"]["tokens_used"])


@pytest.mark.parametrize(
    "members", [{}, {"stream": True}, {"stream": True, "response_format": {"type": "json_object"}}]
)
async def test_http_1_0(server, members):
    """An HTTP/1.0 client, to which the end of a stream is that of the connection, gets it also with keep-alive."""
    server.reply_with("{}")
    body = json.dumps({"model": "gpt-5", "messages": HI, **members})
    head = "POST /v1/chat/completions HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n"
    async with running(server) as site:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(site.gateway.base_url.split(":")[2][:-3]))
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        if members:
            received = await asyncio.wait_for(reader.read(), 60)
            assert received.endswith(b"[DONE]\n\n")
        else:
            received = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        writer.close()

    assert bool(members) is (b"keep-alive" not in received)


async def test_usage(site):
    """The usage is requested from the status endpoint only if the client wants it."""
    without = await site.send(stream=True)
    assert [] == status_requests(site.server)
    reply = await site.send(**WITH_USAGE)
    *chunks, usage, done = reply.events

    assert "usage" not in without.events[0]
    assert {None} == {chunk["usage"] for chunk in chunks}
    assert ([], "[DONE]") == (usage["choices"], done)
    check_form(usage["usage"], USAGE)
    assert 1 == len(status_requests(site.server))


JSON_OBJECT = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize(
    "dialect, members, requests",
    [
        ("a", {}, 1),
        ("a", {"stop": "Hi"}, 1),
        ("a", {"stop": "never"}, 1),
        ("a", JSON_OBJECT, 0),  # the response to a whole call has the usage
        ("b", JSON_OBJECT, 1),
    ],
)
async def test_usage_of_every_stream(dialect, members, requests, wanted):
    """However the text was generated, the usage is requested only if it is wanted and not known, and comes once."""
    options = {"stream_options": {"include_usage": wanted}, **members}
    with NeuralBoxServer(dialect=dialect, reply='{"text": "Hi"}') as server:
        async with running(server) as site:
            reply = await site.send(stream=True, **options)

        usages = [event["usage"] for event in reply.events[:-1] if event.get("usage")]
        assert requests * wanted == len(status_requests(server))
        assert 1 == len(server.billed)
    assert (200, "[DONE]") == (reply.status, reply.events[-1])
    for usage in usages:
        check_form(usage, USAGE)
        assert usage == reply.events[-2]["usage"]
    assert len(usages) == wanted


async def test_usage_that_is_not_known(site):
    """Without an answer of the status endpoint the stream ends without a chunk about the usage."""
    site.server.fail(404, 2, method="GET")
    reply = await site.send(**WITH_USAGE)

    assert "[DONE]" == reply.events[-1]
    assert "stop" == reply.events[-2]["choices"][0]["finish_reason"]


@pytest.mark.parametrize("interval", [0.0, 0.002])
async def test_stop(interval):
    """A stop sequence that is cut into pieces ends the text, and the stream of the API is closed."""
    words = lambda _: iter(["one", " t", "wo", " thr", "ee", *[" more"] * 100_000])  # noqa: E731
    with NeuralBoxServer(reply=words, event_interval=interval) as server:
        async with running(server) as site:
            reply = await site.send(stream=True, stop=["two three", "four"])
            await server.wait_for_disconnect_async()

    assert ("one ", "[DONE]") == (text_of(reply.events[:-1]), reply.events[-1])
    assert "stop" == reply.events[-2]["choices"][0]["finish_reason"]


@pytest.mark.parametrize("stop", [None, ["said: Hello"]])
async def test_cut_stream(site, stop):
    """A stream that breaks is an error event and no [DONE]; all text that arrived comes before it."""
    site.server.cut(after_events=4)
    site.server.reply_with("You said: Hi")
    reply = await site.send(stream=True, stop=stop)
    *chunks, error = reply.events

    assert 200 == reply.status
    check_form(error, ERROR)
    assert "stream_interrupted" == error["error"]["code"]
    assert error["error"]["neuralbox"]["generation_id"] == reply.headers["x-neuralbox-generation-id"]
    text = text_of(chunks)
    assert "You said: Hi".startswith(text)
    assert text.startswith("You said")


async def test_recovered_stream(site):
    """A stream that breaks after the generation was completed goes on with the rest."""
    site.server.cut(after_events=3, finish=True)
    reply = await site.send(stream=True)

    assert ("You said: Hi", "[DONE]") == (text_of(reply.events[:-1]), reply.events[-1])
    assert 1 == len(site.server.billed)


async def test_error_event_of_the_api(site):
    """An error event after text is one of OpenAI's; before any text it is a status."""
    site.server.error_event(3)
    site.server.error_event(1)
    late, early = [await site.send(stream=True) for _ in range(2)]

    assert 200 == late.status
    assert "server_error" == late.events[-1]["error"]["type"]
    assert 500 <= early.status < 600
    assert "server_error" == early.error["type"]


@pytest.mark.parametrize("status, expected", [(401, 401), (402, 429), (429, 429), (500, 500), (503, 503)])
async def test_status_before_the_stream(server, status, expected):
    """An error of the API before the first text is a status and not an empty stream."""
    server.fail(status, 3, retry_after=100 if status == 429 else None)
    async with running(server) as site:
        reply = await site.send(stream=True)

    assert expected == reply.status
    assert reply.error["message"]


async def test_reconnections(site):
    """The connection to the API is kept after a stream that was read to its end."""
    for _ in range(3):
        await site.send(stream=True)

    assert 1 == site.server.connections_accepted
