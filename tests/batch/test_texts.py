"""Texts that arrived although their requests failed: the journal has them, and a rerun gives them back."""

from __future__ import annotations

import json

import pytest
from journals import HEADER, entries, opened
from transports import results_of

from neuralbox_async import (
    APIConnectionError,
    Generation,
    OutcomeUnknownError,
    ResponseError,
    StreamInterruptedError,
    WaitTimeoutError,
)
from neuralbox_async.testing import FakeResponse

pytestmark = pytest.mark.usefixtures("no_task_left")

REQUESTS = [{"key": "a", "prompt": "x"}]
TEXT = 'A paid text\u2028 with \U0001f600, "quotes"\nand lines.'
INCOMPLETE = Generation(id=None, status="incomplete", content=TEXT)
ERRORS = {
    "response": ResponseError("odd", text=TEXT, body=b"{}"),
    "stream": StreamInterruptedError("cut", generation=INCOMPLETE),
    "surrogate": ResponseError("odd", text="half \ud83d"),
    "wait": WaitTimeoutError("late", generation=INCOMPLETE),
    "body": APIConnectionError("cut off", request_sent=True, body=TEXT.encode()),
    "not JSON": ResponseError("not JSON", body=b"<p>A paid text"),
    "not UTF-8": ResponseError("not UTF-8", body=b"caf\xe9"),
}
BODIES = {"response": "{}", "body": TEXT, "not JSON": "<p>A paid text", "not UTF-8": "caf\ufffd"}


@pytest.mark.parametrize("name", ERRORS)
async def test_each_error(make, journal, name):
    """Whatever an error has of a response is in its line, and in the result of each rerun that does not send again."""
    client, transport = make(lambda _request: ERRORS[name], max_retries=0)
    (result,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    text, body = ERRORS[name].text, BODIES.get(name, "")

    assert text == result.error.text
    (failed,) = entries(journal, "failed")
    assert (text or None, body or None, "unknown") == (failed.text, failed.body, failed.billed)
    for _ in range(2):
        (again,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
        assert (OutcomeUnknownError, text, body.encode()) == (type(again.error), again.error.text, again.error.body)
    assert 1 == len(transport.requests)
    for line in journal.read_bytes().splitlines():
        json.loads(line)


async def test_a_cut_response(client, neuralbox_server, journal):
    """The part of a response that arrived over a real connection is in the journal."""
    neuralbox_server.drop("after")
    (result,) = await results_of(client.generate_many(REQUESTS, model="gpt-5", journal=journal))
    (failed,) = entries(journal, "failed")
    assert (result.error.text or None, result.error.body.decode() or None) == (failed.text, failed.body)


async def test_a_wait_with_a_text(make, journal, poll_every):
    """The text of a generation that stays pending is in the journal; its id is polled by the rerun."""
    poll_every(0.01)
    client, _ = make(lambda _request: {"id": "gen_1", "status": "processing", "content": TEXT})
    (result,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal, timeout=0.1))
    assert (WaitTimeoutError, TEXT, "gen_1") == (type(result.error), result.error.text, result.error.generation_id)
    (failed,) = entries(journal, "failed")
    assert (TEXT, "gen_1") == (failed.text, failed.generation_id)

    gone = FakeResponse(b'{"error": "not_found"}', status_code=404)
    client, transport = make(lambda _request: gone)
    (lost,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    assert "unknown" == lost.error.billed
    (again,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    assert (OutcomeUnknownError, TEXT) == (type(again.error), again.error.text)
    assert {"GET"} == {request["method"] for request in transport.requests}


async def test_sent_again(make, journal):
    """Of a request that was sent twice without an outcome, the text that had arrived is given back."""
    late = opened(journal)
    late.write_start("a", "1", "m", None)
    late.write_failed("a", ResponseError("odd", text=TEXT), None, attempts=1, elapsed=0.1)
    late.write_start("a", "2", "m", None)
    late.close()
    client, _ = make()
    (result,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    assert TEXT == result.error.text


async def test_not_billed(make, journal):
    """The body of an error that costs nothing is not written, and the request is sent again."""
    error = APIConnectionError("refused", request_sent=False, body=b"nothing")
    client, transport = make(lambda _request: error, max_retries=0)
    for _ in range(2):
        await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    assert [None, None] == [entry.body for entry in entries(journal, "failed")]
    assert 2 == len(transport.requests)


async def test_a_long_body(make, journal):
    """Of a long body without a text, the journal has the first MiB."""
    client, _ = make(lambda _request: ResponseError("not JSON", body=b"x" * 5_000_000), max_retries=0)
    await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    (failed,) = entries(journal, "failed")
    assert 1024 * 1024 == len(failed.body)


async def test_an_edited_text(make, journal):
    """A text of another type counts as absent."""
    lines = [
        {"event": "start", "key": "a"},
        {"event": "failed", "key": "a", "billed": "unknown", "text": 5, "body": []},
    ]
    journal.write_bytes(HEADER + b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    client, _ = make()
    (result,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    assert ("", b"") == (result.error.text, result.error.body)


async def test_a_cut_response_with_an_id(make, journal):
    """The id in the part of a response that arrived is enough: a rerun retrieves the generation, and sends nothing."""
    whole = {"id": "gen_1", "status": "completed", "content": TEXT, "tokens_used": 3}
    cut = json.dumps(whole).encode()[:60]

    def respond(request):
        failure = APIConnectionError("cut off", request_sent=True, body=cut)
        return failure if request["method"] == "POST" else FakeResponse(json.dumps(whole).encode())

    client, transport = make(respond, max_retries=0)
    (result,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    assert ("gen_1", "unknown") == (result.error.generation_id, result.error.billed)
    assert TEXT.startswith(result.error.text)
    assert result.error.text

    (again,) = await results_of(client.generate_many(REQUESTS, model="m", journal=journal))
    assert TEXT == again.generation.content
    assert ["POST", "GET"] == [request["method"] for request in transport.requests]
