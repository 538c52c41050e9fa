"""The lines of a journal: writing and reading them."""

from __future__ import annotations

import json
import os

import pytest
from journals import HEADER, entries, opened, run, written

from neuralbox_async import JournalEntry, JournalError
from neuralbox_async.testing import FakeResponse

pytestmark = pytest.mark.usefixtures("no_task_left")


# ---------------------------------------------------------------------------------------------------------- what it has


async def test_what_is_written(make, journal):
    """Each request has a line before it is sent and one for its outcome, which has the generation as it came."""
    raw = {"id": "gen_1", "content": "H\u00e9llo \U0001f600\u2028", "tokens_used": 3, "big": 2**70, "other": [1.5]}
    client, transport = make(lambda _asked: raw)
    (result,) = await run(client.generate_many([{"key": "a", "prompt": "Hi"}], model="gpt-5", journal=journal))

    start, outcome = entries(journal)
    assert ("start", "a") == (start.event, start.key)
    assert transport.asked[0]["headers"]["Idempotency-Key"] == start.idempotency_key
    assert ("done", "a", "gen_1", 1, 3) == (
        outcome.event,
        outcome.key,
        outcome.generation_id,
        outcome.attempts,
        outcome.tokens,
    )
    assert result.generation == outcome.generation
    assert raw == outcome.generation.raw
    assert abs((outcome.at - start.at).total_seconds()) < 60
    assert isinstance(outcome, JournalEntry)
    assert HEADER == journal.read_bytes().splitlines(keepends=True)[0]


@pytest.mark.parametrize("body", [b'{\n "id": 1,\n "content": "x"\n}', b'\xef\xbb\xbf{"id": 1, "content": "x"}'])
async def test_an_answer_of_several_lines(make, journal, body):
    """However the API writes its JSON, the journal has it on one line."""
    client, _ = make(lambda _asked: FakeResponse(body))
    await run(client.generate_many(["Hi"], model="gpt-5", journal=journal))

    assert ["x"] == [entry.generation.content for entry in entries(journal, "done")]
    assert 3 == len(journal.read_bytes().splitlines())


async def test_half_a_surrogate_pair(make, journal):
    """Text that UTF-8 cannot carry is kept as JSON's escapes carry it."""
    client, _ = make(lambda _asked: FakeResponse(b'{\n"id": 1, "content": "\\ud800"}'))
    await run(client.generate_many(["Hi"], model="gpt-5", journal=journal))

    assert ["\ud800"] == [entry.generation.content for entry in entries(journal, "done")]


async def test_failures_are_written(client, neuralbox_server, journal):
    """A failure's line has its kind, its message and what is known of the bill."""
    neuralbox_server.fail(400, message="no such thing")
    neuralbox_server.drop("after")
    await run(client.generate_many(map(str, range(4)), model="gpt-5", journal=journal, max_concurrency=1))

    wrong, lost = entries(journal, "failed")
    assert ("BadRequestError", "no") == (wrong.error, wrong.billed)
    assert "no such thing" in wrong.message
    assert ("APIConnectionError", "unknown", 1) == (lost.error, lost.billed, lost.attempts)


async def test_the_key_is_not_in_it(client, neuralbox_server, journal):
    """Neither the API key nor a prompt gets into the journal by a failure."""
    neuralbox_server.fail(400, body=f"you sent {neuralbox_server.api_key}")
    await run(client.generate_many(["my secret prompt"], model="gpt-5", journal=journal))

    assert neuralbox_server.api_key.encode() not in journal.read_bytes()
    assert b"secret prompt" not in journal.read_bytes()


async def test_it_is_synced(make, journal, monkeypatch):
    """Before the batch is left the disk has the journal, and once a second in the meantime at most."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _fd: synced.append(journal.stat().st_size))
    client, _ = make()
    await run(client.generate_many(map(str, range(200)), model="gpt-5", journal=journal))

    assert journal.stat().st_size == synced[-1]
    assert len(synced) <= 3


# ------------------------------------------------------------------------------------------------------- torn and wrong


@pytest.mark.parametrize(
    "line", [b"garbage\n", b"[1]\n", b'{"event": "done"}\n', b'{"key": "a", "event": 5}\n', b"\xff\n", b"\n"]
)
def test_a_broken_line_in_the_middle(journal, line):
    """A line in the middle that makes no sense is an error with its number: nothing is guessed."""
    lines = written(journal)
    lines.insert(3, line)
    journal.write_bytes(b"".join(lines))
    for use in (opened, entries):
        with pytest.raises(JournalError, match="line 4") as caught:
            use(journal)
        assert 4 == caught.value.line


@pytest.mark.parametrize(
    "line",
    [
        b'{"event":"done","key":"a","at":"noon"}\n',
        b'{"event":"done","key":"a","at":1e300}\n',
        b'{"event":"done","key":"a","generation":{"id":{}}}\n',
    ],
)
def test_facts_that_make_no_sense(journal, line):
    """What cannot be read of an entry is an error with its line."""
    journal.write_bytes(HEADER + line)
    with pytest.raises(JournalError, match="line 2"):
        entries(journal)


def test_edited_by_hand(journal):
    """A journal that was edited (spaces, other orders, escapes, later events) is understood."""
    journal.write_bytes(
        HEADER
        + b'{"key": "a", "event": "start"}\n'
        + b'{"key": "\\u0062", "event": "done"}\n{"event": "note", "key": "c"}\n'
        + b'{"event":"start","key":"d\\"","idempotency_key":"1"}\n{"key":"e","event":"failed","billed":"yes"}\n'
    )
    found = opened(journal)

    assert ("a", 'd"', "e") == found.unknown
    assert [2, 0, 1] == [found.claim(key)[0] for key in ("b", "c", "a")]
    found.close()


# ------------------------------------------------------------------------------------------------------ other processes


async def test_reading_while_it_is_written(make, journal):
    """A journal can be read while a batch writes it."""
    client, _ = make()
    async with client.generate_many(map(str, range(50)), model="gpt-5", journal=journal) as results:
        for count in range(1, 51):
            await anext(results)
            assert count <= len(entries(journal, "done"))


def test_the_lines_are_json(journal):
    """Each line is one JSON object, so that any tool can read a journal."""
    for line in written(journal):
        assert isinstance(json.loads(line), dict)
