"""A JSON response that is cut: its id and the text that arrived are in the error, and a stream is recovered."""

import pytest
from fault_server import generation, respond_once, respond_to_each, response
from outcomes import BODY, COMPLETE, HEAD, assert_unknown, generate, stream

from neuralbox_async import APIConnectionError, APITimeoutError, ResponseError, StreamInterruptedError

WITHIN_TEXT = COMPLETE[: COMPLETE.index(b"Hello") + 3]
BEHIND_TEXT = COMPLETE[: COMPLETE.index(b"Hello") + 12]
WITHIN_CHUNK = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(BODY) + WITHIN_TEXT.partition(b"\r\n\r\n")[2]
LARGE = response({**generation(), "more": "x" * 2_000_000})

CUTS = {
    "within the text": (respond_once(WITHIN_TEXT), "Hel"),
    "behind the text": (respond_once(BEHIND_TEXT), "Hello"),
    "reset": (respond_once(BEHIND_TEXT, then="reset"), "Hello"),
    "within a chunk": (respond_once(HEAD + WITHIN_CHUNK), "Hel"),
    "stalled": (respond_once(BEHIND_TEXT, then="stall"), "Hello"),
    "too large": (respond_once(LARGE), "Hello"),
}
cuts = pytest.mark.parametrize("script, text", CUTS.values(), ids=CUTS)


@cuts
async def test_generate(serve, connect, script, text):
    """The error of a generation has the id and the text that arrived."""
    error = (await generate(connect(serve(script), timeout=1, max_response_bytes=1_000_000))).error

    assert type(error) in {APIConnectionError, APITimeoutError, ResponseError}
    assert ("gen_1", text) == (error.generation_id, error.text)
    assert_unknown(error)


@cuts
async def test_stream(serve, connect, script, text):
    """A stream that is answered with such a response delivers the text, and then raises an error with the id."""
    client = connect(serve(script), max_response_bytes=1_000_000)

    outcome = await stream(client, timeout=1)

    assert isinstance(outcome.error, StreamInterruptedError)
    assert ("gen_1", text) == (outcome.error.generation_id, outcome.error.text)
    assert [text] == outcome.texts
    assert_unknown(outcome.error)


@cuts
async def test_recovered_stream(serve, connect, script, text):
    """The rest of such a stream is recovered by a status request; nothing is sent twice."""
    server = serve(script, respond_to_each(response(generation())))
    client = connect(server, max_response_bytes=1_000_000)

    async with client.stream("gpt-5", "Hi", stall_timeout=1) as opened:
        assert "Hello" == (await opened.get_final_generation()).content
    assert 1 == server.posts


async def test_nothing_to_read(serve, connect):
    """A response that is cut before its first member has neither id nor text."""
    error = (await generate(connect(serve(respond_once(COMPLETE[: COMPLETE.index(b"{") + 1]))))).error

    assert (None, "") == (error.generation_id, error.text)
