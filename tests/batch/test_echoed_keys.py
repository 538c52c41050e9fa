"""A journal and a server that echoes the API key: the text is kept as it is, and nothing else has the key."""

from __future__ import annotations

import json

import pytest
from journals import entries
from transports import results_of

from neuralbox_async.testing import FakeResponse

KEY = "nb_test_0123456789"
PENDING = {"id": "gen_1", "status": "pending"}


def echo(*, escape):
    """Return a response with the key in a minor member, in its text, and in the name of a member."""
    members = {"id": "gen_1", "status": "completed", "content": f"{KEY} \u00e9", "model": KEY, "tokens_used": 3}
    body = json.dumps({**members, "request": {"headers": [f"Bearer {KEY}"]}, KEY: 1})
    if escape:  # each letter of the key that is not in the text, which is JSON as well
        text = json.dumps(members["content"])
        before, after = body.split(text)
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
        body = before.replace(KEY, escaped) + text + after.replace(KEY, escaped)
    return FakeResponse(body.encode())


@pytest.mark.parametrize("escape", [False, True])
@pytest.mark.parametrize("pending", [False, True])
async def test_done(make, journal, poll_every, escape, pending):
    """The line of a completed request has the key in its text only, however it was echoed; the result is unchanged."""
    poll_every(0.01)
    responses = iter([*([FakeResponse(json.dumps(PENDING).encode())] if pending else []), echo(escape=escape)])
    client = make(lambda _request: next(responses))[0].with_options(api_key=KEY)
    (result,) = await results_of(client.generate_many(["Hi"], model="gpt-5", journal=journal))

    assert (f"{KEY} \u00e9", KEY) == (result.generation.content, result.generation.model)
    (entry,) = entries(journal, "done")
    assert (f"{KEY} \u00e9", "gen_1", 3) == (entry.generation.content, entry.generation.id, entry.tokens_used)
    assert "***" == entry.generation.model
    assert 1 == json.dumps(dict(entry.generation.raw)).count(KEY)
    assert 1 == journal.read_bytes().count(KEY.encode())
    assert b"\\u006e" not in journal.read_bytes()


async def test_nothing_echoed(make, journal):
    """A response without the key is in the journal as it arrived, byte by byte."""
    body = b'{"id":"gen_1", "status":"completed","content":"a \\u00e9","model":"gpt-5"}'
    client = make(lambda _request: FakeResponse(body))[0].with_options(api_key=KEY)
    await results_of(client.generate_many(["Hi"], model="gpt-5", journal=journal))

    assert body in journal.read_bytes()
