"""Broken streams that are recovered, and JSON instead of streams."""

import asyncio

import pytest
from fault_server import STREAM_HEAD, answer, events, generation, replies, serves
from outcomes import BODY, LONG, SHORT, START, WHOLE, stream

from neuralbox_async import StreamInterruptedError

MENDED = {
    "closed": START,
    "not JSON": START + b"data: {nope}\n\n",
    "too large": START + b"data: " + b"x" * 5000 + b"\n\n",
    "an event cut": START + b"data: {",
}


@pytest.mark.parametrize("then", ["fin", "reset"])
@pytest.mark.parametrize("data", MENDED.values(), ids=MENDED)
async def test_mended_stream(serve, connect, data, then):
    """With an id, a broken stream goes on with the text that the API has kept, to its end; nothing is posted again."""
    server = serve(replies(data, then=then), serves(answer(generation("Hello world, and more"))))
    client = connect(server, max_event_bytes=4000)

    async with client.stream("gpt-5", "Hi") as opened:
        texts = [text async for text in opened.text_stream]

    assert ["Hello ", "world", ", and more"] == texts
    assert opened.generation.completed
    assert 3 == opened.generation.tokens_used
    assert 1 == server.posts


UNMENDABLE = {
    "another text": (serves(answer(generation("Something else"))), "yes"),
    "failed": (serves(answer({"id": "gen_1", "status": "failed", "error": "refused"})), "no"),
    "not found": (serves(answer({"error": "not_found"}, status="404 Not Found")), "unknown"),
    "no answer": (replies(), "unknown"),
    "no sense": (serves(answer(b"<html>")), "unknown"),
}


@pytest.mark.parametrize("script, billed", UNMENDABLE.values(), ids=UNMENDABLE)
async def test_unmendable_stream(serve, connect, script, billed):
    """What cannot be recovered is the interruption that it was."""
    server = serve(replies(START), script)
    client = connect(server, stall_timeout=SHORT)

    outcome = await stream(client, recover=True)

    assert outcome.elapsed < LONG

    assert isinstance(outcome.error, StreamInterruptedError)
    assert "Hello world" == outcome.error.text
    assert "gen_1" == outcome.error.generation_id
    assert 1 == server.posts
    assert billed == outcome.error.billed


async def test_complete_text_is_no_error(serve, connect):
    """Once the last event has been delivered, closing under the reader takes nothing away."""
    server = serve(replies(STREAM_HEAD + events("Hello"), then="stall"))
    client = connect(server)

    for close in (lambda opened: opened.aclose(), lambda _: client.aclose()):
        async with client.stream("gpt-5", "Hi") as opened:
            reading = asyncio.create_task(opened.get_final_generation())
            await asyncio.sleep(0.05)
            await close(opened)
            assert "Hello" == (await reading).content


ANSWERED_AS_JSON = {"usual": "application/json; charset=utf-8", "upper case": "Application/JSON", "wrong": "text/plain"}


@pytest.mark.parametrize("kind", ANSWERED_AS_JSON.values(), ids=ANSWERED_AS_JSON)
async def test_json_instead_of_a_stream(serve, connect, kind):
    """A server that ignores ``stream`` is read all the same: the text has been paid for."""
    server = serve(replies(answer(generation("Hello"), kind=kind)))

    async with connect(server).stream("gpt-5", "Hi") as opened:
        assert ["Hello"] == [text async for text in opened.text_stream]

    assert opened.generation.completed
    assert 1 == server.posts


async def test_failed_generation_instead_of_a_stream(serve, connect):
    """A generation that failed costs nothing, also when it was to be streamed."""
    server = serve(replies(answer({"id": 1, "status": "failed", "error": "refused"})))

    outcome = await stream(connect(server))

    assert "no" == outcome.error.billed
    assert "refused" == outcome.error.reason


async def test_cut_json_instead_of_a_stream(serve, connect):
    """When the JSON that came instead of a stream breaks off, its bytes are kept as those of generate() are."""
    server = serve(replies(WHOLE[:-10]))

    outcome = await stream(connect(server))

    assert isinstance(outcome.error, StreamInterruptedError)
    assert "unknown" == outcome.error.billed
    causes = [outcome.error, outcome.error.__cause__]
    assert any(BODY[:-10] == getattr(cause, "body", None) for cause in causes)
