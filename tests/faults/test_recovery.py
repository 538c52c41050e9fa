"""Broken streams that are recovered, and JSON instead of streams."""

import asyncio

import pytest
from fault_server import STREAM_HEAD, events, generation, respond_once, respond_to_each, response
from outcomes import BODY, COMPLETE, LONG, SHORT, START, stream

from neuralbox_async import StreamInterruptedError

RECOVERABLE = {
    "closed": START,
    "not JSON": START + b"data: {nope}\n\n",
    "too large": START + b"data: " + b"x" * 5000 + b"\n\n",
    "a cut event": START + b"data: {",
}


@pytest.mark.parametrize("then", ["fin", "reset"])
@pytest.mark.parametrize("data", RECOVERABLE.values(), ids=RECOVERABLE)
async def test_recovered_stream(serve, connect, data, then):
    """A broken stream with an id continues with the text that the API has, to its end; nothing is posted again."""
    server = serve(respond_once(data, then=then), respond_to_each(response(generation("Hello world, and more"))))
    client = connect(server, max_event_bytes=4000)

    async with client.stream("gpt-5", "Hi") as opened:
        texts = [text async for text in opened.text_stream]

    assert ["Hello ", "world", ", and more"] == texts
    assert opened.generation.completed
    assert 3 == opened.generation.tokens_used
    assert 1 == server.posts


UNRECOVERABLE = {
    "another text": (respond_to_each(response(generation("Something else"))), "yes"),
    "failed": (respond_to_each(response({"id": "gen_1", "status": "failed", "error": "refused"})), "no"),
    "not found": (respond_to_each(response({"error": "not_found"}, status="404 Not Found")), "unknown"),
    "no response": (respond_once(), "unknown"),
    "not JSON": (respond_to_each(response(b"<html>")), "unknown"),
}


@pytest.mark.parametrize("script, billed", UNRECOVERABLE.values(), ids=UNRECOVERABLE)
async def test_unrecoverable_stream(serve, connect, script, billed):
    """A stream that cannot be recovered raises `StreamInterruptedError`."""
    server = serve(respond_once(START), script)
    client = connect(server, stall_timeout=SHORT)

    outcome = await stream(client, recover=True)

    assert outcome.elapsed < LONG

    assert isinstance(outcome.error, StreamInterruptedError)
    assert "Hello world" == outcome.error.text
    assert "gen_1" == outcome.error.generation_id
    assert 1 == server.posts
    assert billed == outcome.error.billed


async def test_closed_after_the_terminal_event(serve, connect):
    """Closing during a read loses nothing once the terminal event was delivered."""
    server = serve(respond_once(STREAM_HEAD + events("Hello"), then="stall"))
    client = connect(server)

    for close in (lambda opened: opened.aclose(), lambda _: client.aclose()):
        async with client.stream("gpt-5", "Hi") as opened:
            reading = asyncio.create_task(opened.get_final_generation())
            await asyncio.sleep(0.05)
            await close(opened)
            assert "Hello" == (await reading).content


CONTENT_TYPES = {
    "usual": "application/json; charset=utf-8",
    "upper case": "Application/JSON",
    "wrong": "text/plain",
}


@pytest.mark.parametrize("content_type", CONTENT_TYPES.values(), ids=CONTENT_TYPES)
async def test_json_instead_of_a_stream(serve, connect, content_type):
    """The response of a server that ignores ``stream`` is read as well: its text is paid for."""
    server = serve(respond_once(response(generation("Hello"), content_type=content_type)))

    async with connect(server).stream("gpt-5", "Hi") as opened:
        assert ["Hello"] == [text async for text in opened.text_stream]

    assert opened.generation.completed
    assert 1 == server.posts


REFUSED = {
    "not found": response({"error": "not_found"}, status="404 Not Found"),
    "not authenticated": response({"error": "not_authenticated"}, status="401 Unauthorized"),
    "forbidden": response({"error": "forbidden"}, status="403 Forbidden"),
    "still pending": response({"id": "gen_1", "status": "pending"}),
    "not JSON": response(b"<html>"),
}


@pytest.mark.parametrize("recover", [True, False])
@pytest.mark.parametrize("status", REFUSED.values(), ids=REFUSED)
async def test_unfinished_json_instead_of_a_stream(serve, connect, status, recover):
    """An unfinished generation instead of a stream that cannot be followed is an interruption, possibly billed."""
    pending = response({"id": "gen_1", "status": "pending"})
    server = serve(respond_once(pending), respond_to_each(status))

    outcome = await stream(connect(server, stall_timeout=SHORT), recover=recover)

    assert isinstance(outcome.error, StreamInterruptedError)
    assert ("gen_1", "unknown") == (outcome.error.generation_id, outcome.error.billed)
    assert outcome.elapsed < LONG
    assert 1 == server.posts


async def test_failed_generation_instead_of_a_stream(serve, connect):
    """A failed generation instead of a stream costs nothing."""
    server = serve(respond_once(response({"id": 1, "status": "failed", "error": "refused"})))

    outcome = await stream(connect(server))

    assert "no" == outcome.error.billed
    assert "refused" == outcome.error.reason


async def test_cut_json_instead_of_a_stream(serve, connect):
    """The error of cut JSON instead of a stream has the bytes that arrived."""
    server = serve(respond_once(COMPLETE[:-10]))

    outcome = await stream(connect(server))

    assert isinstance(outcome.error, StreamInterruptedError)
    assert "unknown" == outcome.error.billed
    causes = [outcome.error, outcome.error.__cause__]
    assert any(BODY[:-10] == getattr(cause, "body", None) for cause in causes)
