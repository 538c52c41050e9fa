"""The lines of a journal: writing and reading them."""

from __future__ import annotations

import json
import os

import pytest
from journals import HEADER, entries, opened, opened_and_closed, written
from transports import results_of

from neuralbox_async import JournalEntry, JournalError
from neuralbox_async.testing import FakeResponse

pytestmark = pytest.mark.usefixtures("no_task_left")


# ---------------------------------------------------------------------------------------------------------- what it has


async def test_lines_of_a_request(make, journal):
    """A request has a line before it is sent and one for its outcome, with the generation as received."""
    raw = {"id": "gen_1", "content": "H\u00e9llo \U0001f600\u2028", "tokens_used": 3, "big": 2**70, "other": [1.5]}
    client, transport = make(lambda _request: raw)
    (result,) = await results_of(client.generate_many([{"key": "a", "prompt": "Hi"}], model="gpt-5", journal=journal))

    start, outcome = entries(journal)
    assert ("start", "a") == (start.event, start.key)
    assert transport.requests[0]["headers"]["Idempotency-Key"] == start.idempotency_key
    assert ("done", "a", "gen_1", 1, 3) == (
        outcome.event,
        outcome.key,
        outcome.generation_id,
        outcome.attempts,
        outcome.tokens_used,
    )
    assert result.generation == outcome.generation
    assert raw == outcome.generation.raw
    assert abs((outcome.at - start.at).total_seconds()) < 60
    assert isinstance(outcome, JournalEntry)
    assert HEADER == journal.read_bytes().splitlines(keepends=True)[0]


@pytest.mark.parametrize("body", [b'{\n "id": 1,\n "content": "x"\n}', b'\xef\xbb\xbf{"id": 1, "content": "x"}'])
async def test_a_response_of_several_lines(make, journal, body):
    """However the API formats its JSON, the journal has it on one line."""
    client, _ = make(lambda _request: FakeResponse(body))
    await results_of(client.generate_many(["Hi"], model="gpt-5", journal=journal))

    assert ["x"] == [entry.generation.content for entry in entries(journal, "done")]
    assert 3 == len(journal.read_bytes().splitlines())


async def test_a_lone_surrogate(make, journal):
    """Text that UTF-8 cannot encode has U+FFFD in its place; the line keeps the escapes of the response."""
    client, _ = make(lambda _request: FakeResponse(b'{\n"id": 1, "content": "\\ud800"}'))
    await results_of(client.generate_many(["Hi"], model="gpt-5", journal=journal))

    assert ["\ufffd"] == [entry.generation.content for entry in entries(journal, "done")]
    assert b"\\ud800" in journal.read_bytes()


async def test_failures_are_written(client, neuralbox_server, journal):
    """The line of a failure has its type, its message and its billing status."""
    neuralbox_server.fail(400, message="no such thing")
    neuralbox_server.drop("after")
    await results_of(client.generate_many(map(str, range(4)), model="gpt-5", journal=journal, max_concurrency=1))

    wrong, lost = entries(journal, "failed")
    assert ("BadRequestError", "no") == (wrong.error_type, wrong.billed)
    assert "no such thing" in wrong.message
    assert ("APIConnectionError", "unknown", 1) == (lost.error_type, lost.billed, lost.attempts)


async def test_no_secrets(client, neuralbox_server, journal):
    """A failure writes neither the API key nor a prompt to the journal."""
    neuralbox_server.fail(400, body=f"you sent {neuralbox_server.api_key}")
    await results_of(client.generate_many(["my secret prompt"], model="gpt-5", journal=journal))

    assert neuralbox_server.api_key.encode() not in journal.read_bytes()
    assert b"secret prompt" not in journal.read_bytes()


async def test_the_journal_is_synced(make, journal, monkeypatch):
    """The journal is synced before the batch is left, and at most once a second before."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda _fd: synced.append(journal.stat().st_size))
    client, _ = make()
    await results_of(client.generate_many(map(str, range(200)), model="gpt-5", journal=journal))

    assert journal.stat().st_size == synced[-1]
    assert len(synced) <= 3


# ------------------------------------------------------------------------------------------------------- torn and wrong


@pytest.mark.parametrize(
    "line", [b"garbage\n", b"[1]\n", b'{"event": "done"}\n', b'{"key": "a", "event": 5}\n', b"\xff\n", b"\n"]
)
def test_a_malformed_line_in_the_middle(journal, line):
    """A malformed line in the middle raises an error with its number."""
    lines = written(journal)
    lines.insert(3, line)
    journal.write_bytes(b"".join(lines))
    for use in (opened, entries):
        with pytest.raises(JournalError, match="line 4") as caught:
            use(journal)
        assert 4 == caught.value.line


@pytest.mark.parametrize("generation", [b'{"id":{}}', b"5", b'"text"', b"[1]", b"true"])
def test_malformed_generations(journal, generation):
    """A malformed generation raises an error with its line."""
    journal.write_bytes(HEADER + b'{"event":"done","key":"a","generation":%b}\n' % generation)
    with pytest.raises(JournalError, match="line 2") as caught:
        entries(journal)
    assert (str(journal), 2) == (caught.value.path, caught.value.line)


@pytest.mark.parametrize(
    "value", [b'"noon"', b"1e300", b"[]", b"{}", b"true", b"-1", b"9" * 400, b'"\\ud800"', b"null"]
)
@pytest.mark.parametrize("name", ["at", "attempts", "elapsed", "tokens_used", "reserved"])
def test_odd_facts(journal, name, value):
    """A fact that is of another type or beyond any range is unknown; the text, which is paid for, is there."""
    generation = b'{"id":1,"content":"paid"}'
    journal.write_bytes(
        HEADER + b'{"event":"done","key":"a","%b":%b,"generation":%b}\n' % (name.encode(), value, generation)
    )
    (entry,) = entries(journal)
    assert ("paid", 1) == (entry.generation.content, entry.generation_id)
    assert getattr(entry, name) in {None, 0}
    opened_and_closed(journal)


def test_edited_by_hand(journal):
    """A journal that a user edited (spaces, another order, escapes, later events) is read."""
    journal.write_bytes(
        HEADER
        + b'{"key": "a", "event": "start"}\n'
        + b'{"key": "\\u0062", "event": "done"}\n{"event": "note", "key": "c"}\n'
        + b'{"event":"start","key":"d\\"","idempotency_key":"1"}\n{"key":"e","event":"failed","billed":"yes"}\n'
    )
    found = opened(journal)

    assert ("a", 'd"', "e") == found.unresolved_keys
    assert [2, 0, 1] == [found.claim(key, None)[0] for key in ("b", "c", "a")]
    found.close()


# ------------------------------------------------------------------------------------------------------ other processes


async def test_reading_during_a_batch(make, journal):
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


@pytest.mark.parametrize("nanoseconds", [0, 999_999, 1_500_000_000, 1_700_000_000_123_456_789])
def test_times_are_numbers(tmp_path, monkeypatch, nanoseconds):
    """The times in a journal are JSON numbers, to the millisecond, whatever the clock says."""
    monkeypatch.setattr("time.time_ns", lambda: nanoseconds)
    journal = opened(tmp_path / "run.jsonl")
    journal.write_start("a", "1", "m", None)
    journal.close()

    (entry,) = entries(tmp_path / "run.jsonl")
    assert nanoseconds // 1_000_000 / 1000 == entry.at.timestamp()
