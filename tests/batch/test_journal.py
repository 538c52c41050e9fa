"""The journal of a batch: what it remembers, what a rerun does, and what neither a kill nor a torn line can destroy."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import os
import random
import sys
from collections import Counter
from types import SimpleNamespace

import pytest
from answers import Answers, done, said

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    Generation,
    JournalEntry,
    JournalError,
    JournalLockedError,
    NotFoundError,
    OutcomeUnknownError,
    ProviderError,
    RetryPolicy,
    _sending,
    read_journal,
)
from neuralbox_async._journal import Journal
from neuralbox_async._keys import KeyIndex, digest_of
from neuralbox_async.testing import FakeResponse, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

LOST = APIConnectionError("reset", request_sent=True)
HEADER = b'{"event":"journal","version":1}\n'


async def run(batch):
    """Run *batch* to its end and return its results."""
    async with batch as results:
        return [result async for result in results]


def opened(path):
    """Open a journal."""
    journal = Journal(path)
    list(journal.open())
    return journal


def entries(path, event=None):
    """Return the entries of a journal, all or those of one kind."""
    return [entry for entry in read_journal(path) if event in (None, entry.event)]


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


# -------------------------------------------------------------------------------------------------------------- reruns


async def test_what_is_done_is_skipped(client, neuralbox_server, journal):
    """A rerun generates what is missing, and nothing twice."""
    prompts = [str(number) for number in range(60)]
    first = client.generate_many(prompts[:25], model="gpt-5", journal=journal)
    assert 25 == len(await run(first))
    told = []
    second = client.generate_many(prompts, model="gpt-5", journal=journal, on_progress=told.append, ordered=True)
    assert list(range(25, 60)) == [result.index for result in await run(second)]
    third = client.generate_many(prompts, model="gpt-5", journal=journal)
    assert [] == await run(third)

    assert 60 == len(neuralbox_server.billed) == len(entries(journal, "done"))
    assert (25, 35, 0) == (second.report.skipped, second.report.completed, second.report.not_started)
    assert (25, 60) == (told[-1].skipped, told[-1].total)
    assert (60, 0) == (third.report.skipped, third.report.tokens)


async def test_keys(client, neuralbox_server, journal):
    """A key stands for its request, whatever is in it; another model or prompt without a key is another request."""
    await run(client.generate_many([{"key": "a", "prompt": "x"}, "y"], model="gpt-5", journal=journal))
    again = [{"key": "a", "prompt": "changed"}, "y", "z"]
    assert [2] == [r.index for r in await run(client.generate_many(again, model="gpt-5", journal=journal))]
    assert 1 == len(await run(client.generate_many(["y"], model="gpt-5-nano", journal=journal)))
    assert 4 == len(neuralbox_server.billed)


async def test_repeated_prompts_are_numbered(make, journal):
    """Without keys a prompt given n times is generated n times, over reruns too."""
    client, transport = make()
    first = await run(client.generate_many(["x"] * 3 + ["y"], model="gpt-5", journal=journal, ordered=True))
    second = await run(client.generate_many(["x"] * 100 + ["y"], model="gpt-5", journal=journal, ordered=True))

    base = first[0].key
    assert [base, f"{base}-2", f"{base}-3"] == [result.key for result in first[:3]]
    assert [f"{base}-{number}" for number in range(4, 101)] == [result.key for result in second]
    assert 101 == len(transport.asked)


async def test_repeated_keys_are_refused(make, journal):
    """The same key twice in one run would make two outcomes of one: the second is an error."""
    client, transport = make()
    requests = [{"key": "a", "prompt": "x"}, {"key": "a", "prompt": "y"}]
    results = await run(client.generate_many(requests, model="gpt-5", journal=journal, ordered=True))

    assert [None, "key"] == [result.error and result.error.parameter for result in results]
    assert 1 == len(transport.asked)


async def test_failures_are_tried_again(make, journal):
    """What failed without a bill is sent again by a rerun."""
    failing = {"1", "3"}
    client, _ = make(
        lambda asked: (
            ProviderError("500", status=500, code="provider_error") if said(asked) in failing else done(asked)
        ),
        max_retries=0,
    )
    await run(client.generate_many(map(str, range(5)), model="gpt-5", journal=journal))
    failing.clear()
    results = await run(client.generate_many(map(str, range(5)), model="gpt-5", journal=journal))

    assert {1, 3} == {result.index for result in results}
    assert 5 == len(entries(journal, "done"))


@pytest.fixture
async def doubtful(make, journal):
    """Leave a journal in which "lost" was answered by a reset, "open" was in flight at the end, and "done" is done."""
    client, _ = make(lambda asked: LOST if said(asked) == "lost" else done(asked))
    requests = [{"key": name, "prompt": name} for name in ("done", "lost")]
    await run(client.generate_many(requests, model="gpt-5", journal=journal))
    late = opened(journal)
    late.start("open", "key-of-then", "gpt-5", None)
    late.close()
    return [*requests, {"key": "open", "prompt": "open"}, {"key": "new", "prompt": "new"}]


async def test_unknown_outcomes_are_skipped(make, journal, doubtful):
    """By default what may have been billed is not sent again; its result says so, and the report lists it."""
    client, transport = make()
    batch = client.generate_many(doubtful, model="gpt-5", journal=journal, ordered=True)
    results = await run(batch)

    assert [OutcomeUnknownError, OutcomeUnknownError, None] == [r.error and type(r.error) for r in results]
    assert ("unknown", ("lost",), None, 0) == (
        results[0].error.billed,
        results[0].error.keys,
        results[0].tokens,
        results[0].attempts,
    )
    assert (("lost", "open"), 2, 1, 1) == (
        batch.report.unknown_keys,
        batch.report.unknown,
        batch.report.skipped,
        batch.report.completed,
    )
    assert ["new"] == [said(asked) for asked in transport.asked]


async def test_unknown_outcomes_are_retried(make, journal, doubtful):
    """When told to, what may have been billed is sent again, under the header of then."""
    client, transport = make()
    results = await run(client.generate_many(doubtful, model="gpt-5", journal=journal, on_unknown="retry"))

    assert {"lost", "open", "new"} == {result.key for result in results if result.error is None}
    (headers,) = (asked["headers"] for asked in transport.asked if said(asked) == "open")
    assert "key-of-then" == headers["Idempotency-Key"]
    assert [] == await run(client.generate_many(doubtful, model="gpt-5", journal=journal))


async def test_unknown_outcomes_are_asked_about(make, journal, doubtful):
    """With ``"ask"`` entering raises an error with the keys, and nothing is sent."""
    client, transport = make()
    for _ in range(2):
        with pytest.raises(OutcomeUnknownError, match="2 requests") as caught:
            await run(client.generate_many(doubtful, model="gpt-5", journal=journal, on_unknown="ask"))
        assert {"lost", "open"} == set(caught.value.keys)
    assert [] == transport.asked


async def test_unknown_outcomes_are_decided_on(make, journal, doubtful):
    """A function decides key by key."""
    client, _ = make()
    batch = client.generate_many(doubtful, model="gpt-5", journal=journal, on_unknown=lambda key: key == "open")
    results = await run(batch)

    assert {"lost"} == {result.key for result in results if result.error}
    assert {"open", "new"} == {result.key for result in results if result.error is None}


async def test_the_decision_raises(make, journal, doubtful):
    """What the function raises is raised to the reader, and nothing more is sent."""
    client, _ = make()
    with pytest.raises(ZeroDivisionError):
        await run(client.generate_many(doubtful, model="gpt-5", journal=journal, on_unknown=lambda _key: 1 // 0))


async def test_what_was_cancelled_unsent_is_in_no_doubt(make, journal):
    """A request that had not left when the batch was left is simply sent by the rerun."""
    client, transport = make(lambda _asked: APIConnectionError("refused"), retry_policy=RetryPolicy(backoff=60))
    async with client.generate_many(["a"], model="gpt-5", journal=journal) as results:
        while not transport.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert 1 == len(results.report.cancelled_keys)
    assert () == opened_and_closed(journal).unknown


def opened_and_closed(path):
    journal = opened(path)
    journal.close()
    return journal


async def test_what_was_cancelled_in_flight_is_in_doubt(make, journal):
    """A request that was in flight when the batch was left may have been billed."""
    client, transport = make(pause=lambda _asked: 10**9)
    async with client.generate_many(["a"], model="gpt-5", journal=journal) as results:
        while not transport.in_flight:
            await asyncio.sleep(0)

    assert results.report.cancelled_keys == results.report.unknown_keys == opened_and_closed(journal).unknown


async def test_refused_requests_are_in_no_doubt(make, journal):
    """A process that dies while it waits for a limit leaves nothing in doubt: refused requests are known as such."""
    body = b'{"error": "rate_limit_exceeded", "retry_after": 60}'
    client, _ = make(lambda _asked: FakeResponse(body, status=429))
    async with client.generate_many(map(str, range(9)), model="gpt-5", journal=journal, max_concurrency=4) as results:
        while results.report.rate_limited < 4:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        lines = journal.read_bytes()
    journal.write_bytes(lines)

    assert () == opened_and_closed(journal).unknown
    assert 4 == len(entries(journal, "failed"))


@pytest.mark.parametrize("accepted", [False, True])
async def test_a_refused_repetition_leaves_the_doubt(make, journal, accepted):
    """What was sent again and refused is in doubt as before: the first attempt may be billed all the same."""
    first = {"event": "start", "key": "k", "idempotency_key": "of-then", "model": "gpt-5", "reserved": 2}
    again = {**first, "idempotency_key": "of-later"}
    refused = {"event": "failed", "key": "k", "error": "RateLimitError", "billed": "no"}
    told = [{"event": "pending", "key": "k", "id": "gen"}] if accepted else []
    lines = [first, *told, again, refused, again, refused]
    journal.write_bytes(HEADER + b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines))

    late = opened_and_closed(journal)
    assert [2] == [doubt.reserved for doubt in late.doubts]
    client, transport = make(lambda _asked: {"id": "gen", "status": "completed", "content": "x", "tokens_used": 2})
    requests = [{"key": "k", "prompt": "k"}]
    if accepted:
        (result,) = await run(client.generate_many(requests, model="gpt-5", journal=journal))
        assert ["GET"] == [asked["method"] for asked in transport.asked]
    else:
        assert ("k",) == late.unknown
        (result,) = await run(client.generate_many(requests, model="gpt-5", journal=journal))
        assert OutcomeUnknownError is type(result.error)
        assert [] == transport.asked
        batch = client.generate_many(requests, model="gpt-5", journal=journal, on_unknown="retry")
        (result,) = await run(batch)
        assert ["of-then"] == [asked["headers"]["Idempotency-Key"] for asked in transport.asked]
        assert 2 == batch.report.tokens_at_risk
    assert result.generation.content == "x"


def test_all_that_was_sent_twice(journal):
    """However often a key was sent without an answer, each time counts; until it is done, and after."""
    late = opened(journal)
    for reserved in (1, 2, 4):
        late.start("k", "i", "m", reserved)
    late.close()
    assert 7 == sum(doubt.reserved for doubt in opened_and_closed(journal).doubts)
    late = opened(journal)
    late.done("k", Generation(id="g"), b'{"id":"g","content":"x"}', attempts=1, seconds=0.0, tokens=4)
    late.close()

    assert 3 == sum(doubt.reserved for doubt in opened_and_closed(journal).doubts)


# ------------------------------------------------------------------------------------------------------------- pending


@pytest.fixture
def slow():
    """Start a server whose generations take a moment."""
    with NeuralBoxServer(pending_models=["slow"], pending_seconds=0.3) as server:
        yield server


async def test_pending_generations_are_found_again(slow, journal, monkeypatch):
    """A rerun asks for what was accepted, by its id; nothing is generated twice."""
    monkeypatch.setattr(_sending, "POLL_INTERVAL", 0.02)
    async with AsyncNeuralBox(**slow.client_options) as client:
        prompts = ["a", "b", "c"]
        async with client.generate_many(prompts, model="slow", journal=journal) as results:
            while len(entries(journal, "pending")) < 3:
                await asyncio.sleep(0.005)
        assert 3 == results.report.unknown
        rerun = client.generate_many(prompts, model="slow", journal=journal, budget=100)
        contents = {result.generation.content for result in await run(rerun)}

    assert {f"You said: {prompt}" for prompt in prompts} == contents
    assert 3 == len(slow.billed) == len(entries(journal, "done"))
    assert 3 == sum(request.method == "POST" and "price" not in request.path for request in slow.requests)
    assert 3 == rerun.report.tokens


async def test_a_wait_that_fails_is_taken_up_again(slow, journal, monkeypatch):
    """When the wait for a generation times out, a rerun goes on waiting."""
    monkeypatch.setattr(_sending, "POLL_INTERVAL", 0.02)
    async with AsyncNeuralBox(**slow.client_options) as client:
        (late,) = await run(client.generate_many(["a"], model="slow", journal=journal, timeout=0.1))
        assert ("unknown", "WaitTimeoutError") == (late.error.billed, type(late.error).__name__)
        (again,) = await run(client.generate_many(["a"], model="slow", journal=journal))

    assert "You said: a" == again.generation.content
    assert 1 == len(slow.billed)


async def test_an_id_that_leads_nowhere(client, journal):
    """When the API no longer knows a generation, its outcome is unknown."""
    lost = opened(journal)
    lost.pending("a", "gen_gone")
    lost.close()
    requests = [{"key": "a", "prompt": "x"}]
    (gone,) = await run(client.generate_many(requests, model="gpt-5", journal=journal))
    assert (NotFoundError, "unknown") == (type(gone.error), gone.error.billed)
    (skipped,) = await run(client.generate_many(requests, model="gpt-5", journal=journal))
    assert OutcomeUnknownError is type(skipped.error)
    (again,) = await run(client.generate_many(requests, model="gpt-5", journal=journal, on_unknown="retry"))
    assert again.error is None


# ------------------------------------------------------------------------------------------------------- torn and wrong


def written(path):
    """Write a journal with all kinds of lines, and return them."""
    journal = opened(path)
    journal.start("a", "1", "gpt-5", 3)
    journal.done("a", done_generation(), b'{"id": 1, "content": "x"}', attempts=1, seconds=0.5, tokens=3)
    journal.start("b", "2", "gpt-5", None)
    journal.pending("b", 7)
    journal.start("c \u00e9", "3", 'a "model"', 5)
    journal.failed("c \u00e9", ProviderError("500", status=500), None, attempts=1)
    journal.close()
    return path.read_bytes().splitlines(keepends=True)


def done_generation():
    from neuralbox_async import Generation

    return Generation(id=1, content="x", raw={"id": 1, "content": "x"})


@pytest.mark.parametrize("number", range(7))
def test_torn_at_every_byte(journal, number):
    """Wherever the last line is torn, opening makes the file one of whole lines, and forgets no other line."""
    lines = written(journal)[: number + 1]
    before, last = b"".join(lines[:-1]), lines[-1]
    for cut in range(len(last)):
        journal.write_bytes(before + last[:cut])
        assert len(lines) - 2 <= len(entries(journal)) < len(lines) or number == 0
        opened_and_closed(journal)
        # All but the end of the line: then it is whole.
        kept = before + last if cut == len(last) - 1 else before
        assert (kept or HEADER) == journal.read_bytes()


def test_a_torn_line_is_not_lost_knowledge(journal):
    """What is known after a torn line is what was known before it."""
    lines = written(journal)
    journal.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    torn = opened(journal)
    assert ("a",) == torn.unknown
    torn.start("z", "9", "gpt-5", None)
    torn.close()
    assert ["a", "z"] == [entry.key for entry in entries(journal)]


@pytest.mark.parametrize(
    "content",
    [
        b"prompts\nof mine\n",
        b"one line",
        b'{"key": "a", "prompt": "x"}\n',
        b"\x00\x00\x00",
        b"{}\n",
        HEADER[:-1] + b"x",
        b'{"event":"journal","version":2}\n',
    ],
)
async def test_other_files_are_not_touched(make, journal, content):
    """A file that is no journal, or of a later version, is neither written nor cut."""
    journal.write_bytes(content)
    client, transport = make()
    with pytest.raises(JournalError) as caught:
        await run(client.generate_many(["a"], model="gpt-5", journal=journal))
    with pytest.raises(JournalError):
        entries(journal)

    assert content == journal.read_bytes()
    assert (str(journal), 1) == (caught.value.path, caught.value.line)
    assert [] == transport.asked


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


@pytest.mark.parametrize("name", ["", "nowhere/run.jsonl"])
async def test_places_that_cannot_be_written(make, tmp_path, name):
    """A folder, or a file in a folder that is not there, is a clear error."""
    client, _ = make()
    with pytest.raises(JournalError, match="journal"):
        await run(client.generate_many(["a"], model="gpt-5", journal=tmp_path / name))
    with pytest.raises(JournalError):
        entries(tmp_path / name)


async def test_a_device_is_no_journal(make):
    """What is no regular file is refused."""
    client, _ = make()
    with pytest.raises(JournalError, match="regular"):
        await run(client.generate_many(["a"], model="gpt-5", journal=os.devnull))


class FullDisk:
    """An `os.write` for which the disk is full after *room* bytes."""

    def __init__(self, room):
        self.room, self.write = room, os.write

    def __call__(self, fd, data):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = bytes(data)[: self.room]
        self.room -= len(part)
        return self.write(fd, part)


@pytest.mark.parametrize("room", [10, 300, 400, 700, 1000])
async def test_a_full_disk(make, journal, monkeypatch, room):
    """When the journal cannot be written no more is sent; what was answered is delivered, and the file stays whole."""
    client, transport = make()
    disk = FullDisk(room)
    monkeypatch.setattr(os, "write", disk)
    batch = client.generate_many(map(str, range(50)), model="gpt-5", journal=journal, max_concurrency=2)
    try:
        results = await run(batch)
    except JournalError:
        assert room == 10
        results = []
    else:
        assert JournalError is type(batch.report.stopped_by)
    monkeypatch.undo()

    assert len(transport.asked) == sum(result.error is None for result in results)
    assert len(transport.asked) < 10
    opened_and_closed(journal)
    known = {entry.key for entry in entries(journal)}
    assert {result.key for result in results if result.error is None} <= known


async def test_a_disk_that_fails_later(make, journal, monkeypatch):
    """When the disk does not take what was written, the batch stops and says so."""

    def fsync(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    client, _ = make()
    async with client.generate_many(["a"], model="gpt-5", journal=journal) as results:
        await anext(results)
    assert JournalError is type(results.report.stopped_by)


# ---------------------------------------------------------------------------------------------------- many and few keys


def test_the_index():
    """An index knows the last state of each key, and nothing of others."""
    states = {}
    index = KeyIndex()
    rng = random.Random(5)
    for number in range(30_000):
        digest = digest_of(str(number % 20_000).encode())
        states[digest] = index[digest] = rng.randrange(1, 256)
    assert all(index[digest] == state for digest, state in states.items())
    assert 0 == sum(index[digest_of(f"other {number}".encode())] for number in range(5000))


def test_colliding_slots():
    """Digests that belong into the same slot are all kept, 0 among them."""
    index = KeyIndex()
    digests = [number << 40 for number in range(200)]
    for number, digest in enumerate(digests, 1):
        index[digest] = number
    assert list(range(1, 201)) == [index[digest] for digest in digests]


# ------------------------------------------------------------------------------------------------------ other processes

HOLDER = """
    import sys, time
    from neuralbox_async._journal import Journal

    journal = Journal(sys.argv[1])
    list(journal.open())
    print("open", flush=True)
    sys.stdin.read()
"""


async def test_two_processes_on_one_journal(make, journal, start):
    """A second process on the same journal is refused with a clear error; it is free when the first is dead."""
    holder = start(HOLDER, journal)
    assert "open\n" == holder.stdout.readline()
    client, transport = make()
    with pytest.raises(JournalLockedError, match=r"in use .*run\.jsonl") as caught:
        await run(client.generate_many(["a"], model="gpt-5", journal=journal))
    assert [] == transport.asked
    assert str(journal) == caught.value.path
    holder.kill()
    holder.wait()
    assert 1 == len(await run(client.generate_many(["a"], model="gpt-5", journal=journal)))


class FakeMsvcrt:
    """Windows' locks, which are on a byte at the place where the file is."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self):
        self.held = {}

    def locking(self, fd, mode, count):
        byte = (os.fstat(fd).st_ino, os.lseek(fd, 0, os.SEEK_CUR), count)
        if mode == self.LK_UNLCK:
            assert fd == self.held.pop(byte)
        elif self.held.setdefault(byte, fd) != fd:
            raise PermissionError(errno.EACCES, "Permission denied")


def test_the_lock_on_windows(journal, monkeypatch):
    """By the calls that there are on Windows, a second opening is refused, and what is written stays at the end."""
    windows = FakeMsvcrt()
    monkeypatch.setattr("neuralbox_async._journal.sys", SimpleNamespace(platform="win32"))
    monkeypatch.setitem(sys.modules, "msvcrt", windows)
    first = opened(journal)
    ((_, at, count),) = windows.held
    first.start("a", "1", "gpt-5", None)
    with pytest.raises(JournalLockedError):
        opened(journal)
    first.start("b", "2", "gpt-5", None)
    first.close()
    assert {} == windows.held
    assert ("a", "b") == opened_and_closed(journal).unknown
    # Beyond the end: on Windows what is locked cannot be read by others.
    assert at > journal.stat().st_size
    assert 1 == count


async def test_two_batches_on_one_journal(make, journal):
    """The same holds within one process; leaving a batch frees its journal."""
    client, _ = make()
    async with client.generate_many(["a"], model="gpt-5", journal=journal):
        with pytest.raises(JournalLockedError):
            await run(client.generate_many(["a"], model="gpt-5", journal=journal))
    assert [] == await run(client.generate_many([], model="gpt-5", journal=journal))


def test_a_loop_that_ends_gives_the_journal_back(journal):
    """When the event loop ends under a batch that nobody left, its journal is free for the next one."""
    held = []

    async def leave_open():
        client = AsyncNeuralBox("key", transport=Answers(done, lambda _asked: 10**9))
        batch = client.generate_many(map(str, range(9)), model="gpt-5", journal=journal, max_concurrency=2)
        await batch.__aenter__()
        held.append(batch)
        while not entries(journal, "start"):
            await asyncio.sleep(0)

    asyncio.run(leave_open())
    opened_and_closed(journal)

    assert 1 == len(held)


def test_a_batch_that_outlives_its_loop(journal):
    """A batch that is dropped when its loop is closed gives its journal back."""
    loop = asyncio.new_event_loop()
    client = AsyncNeuralBox("key", transport=Answers(done, lambda _asked: 10**9))
    batch = client.generate_many((), model="gpt-5", journal=journal)
    loop.run_until_complete(batch.__aenter__())
    tasks = asyncio.all_tasks(loop)
    loop.close()
    with pytest.raises(JournalLockedError):
        opened(journal)
    del batch
    gc.collect()
    opened_and_closed(journal)
    for task in tasks:
        task._log_destroy_pending = False  # this loop was closed too early, as it was meant to be


async def test_reading_while_it_is_written(make, journal):
    """A journal can be read while a batch writes it."""
    client, _ = make()
    async with client.generate_many(map(str, range(50)), model="gpt-5", journal=journal) as results:
        for count in range(1, 51):
            await anext(results)
            assert count <= len(entries(journal, "done"))


WORKER = """
    import asyncio, sys
    from neuralbox_async import AsyncNeuralBox

    async def main(base_url, key, journal, count):
        async with AsyncNeuralBox(key, base_url=base_url) as client:
            requests = ({"key": f"row {number}", "prompt": f"prompt {number}"} for number in range(int(count)))
            async with client.generate_many(
                requests, model="gpt-5-nano", journal=journal, max_concurrency=16, check_balance=True
            ) as results:
                async for result in results:
                    pass

    asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("kills", [12])
def test_killed_again_and_again(journal, start, kills):
    """Killed at any moment and run again, a batch has one outcome for each key, and bills none twice."""
    rng = random.Random()
    rows = 70 * kills
    with NeuralBoxServer(latency=0.002) as server:
        size = 0
        for _ in range(kills):
            worker = start(WORKER, server.base_url, server.api_key, journal, rows)
            target = size + rng.randrange(30 * 400)
            while worker.poll() is None and (not journal.exists() or journal.stat().st_size < target):
                pass
            worker.kill()
            worker.wait()
            size = journal.stat().st_size
        worker = start(WORKER, server.base_url, server.api_key, journal, rows)
        assert 0 == worker.wait(30)
        billed = Counter(server.requests[bill.request_index].json["messages"][0]["content"] for bill in server.billed)

    unknown = set(opened_and_closed(journal).unknown)
    found = Counter(entry.key for entry in entries(journal, "done"))
    keys = {f"row {number}" for number in range(rows)}
    assert {1} == set(found.values())
    assert keys == set(found) | unknown
    assert set() == set(found) & unknown
    assert len(unknown) <= 16 * kills
    times = {key: billed[key.replace("row", "prompt")] for key in keys}
    assert {1} == {times[key] for key in found}
    assert {times[key] for key in unknown} <= {0, 1}


def test_the_lines_are_json(journal):
    """Each line is one JSON object, so that any tool can read a journal."""
    for line in written(journal):
        assert isinstance(json.loads(line), dict)
