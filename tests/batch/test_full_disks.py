"""Journals that cannot be written: the outcomes of requests in flight, which are paid for, are delivered."""

from __future__ import annotations

import asyncio
import errno
import os

import disks
import pytest
from journals import HEADER, entries, opened, opened_and_closed
from transports import completed, prompt_of, results_of

from neuralbox_async import JournalError, OutcomeUnknownError, ResponseError, WaitTimeoutError

pytestmark = pytest.mark.usefixtures("no_task_left")


@pytest.fixture
def small_disk(tmp_path, starts_processes):
    """Mount a file system of 16 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not disks.mount(folder, "16k"):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    disks.unmount(folder)


def refuse_writes(monkeypatch, journal, event, number=errno.ENOSPC):
    """Have the system refuse the lines of *event* in *journal* with the error *number*."""
    write = os.write

    def refuse(fd, data):
        if bytes(data).startswith(b'{"event":"%b"' % event.encode()) and os.path.samestat(os.fstat(fd), journal.stat()):
            raise OSError(number, os.strerror(number))
        return write(fd, data)

    monkeypatch.setattr(os, "write", refuse)


# ---------------------------------------------------------------------------------------------------------- real disks


async def test_a_full_disk(make, small_disk):
    """Each paid text is delivered; the journal stays whole, and takes what is missing once there is room."""
    journal = small_disk / "run.jsonl"
    client, transport = make()
    batch = client.generate_many(("x" * 50 + str(n) for n in range(500)), model="m", journal=journal, max_concurrency=8)
    results = await results_of(batch)

    assert JournalError is type(batch.report.stopped_by)
    assert "No space left" in batch.report.stopped_by.message
    assert len(transport.requests) == sum(result.error is None for result in results) < 200
    opened_and_closed(journal)

    disks.resize(small_disk, "1m")
    keys = {result.key for result in results if result.error is None}
    unresolved = set(opened_and_closed(journal).unresolved_keys)
    assert keys == {entry.key for entry in entries(journal, "done")} | unresolved


async def test_a_read_only_disk(make, small_disk):
    """A disk that becomes read-only ends the batch like a full one."""
    journal = small_disk / "run.jsonl"
    journal.write_bytes(HEADER)
    if not disks.make_read_only(small_disk):
        pytest.skip("the disk cannot be remounted")
    client, transport = make()
    with pytest.raises(JournalError, match=r"[Rr]ead-only"):
        await results_of(client.generate_many(["a"], model="m", journal=journal))
    assert [] == transport.requests


@pytest.mark.parametrize("size", [*range(40, 1200, 60)])
async def test_a_limit_to_the_size_of_files(make, journal, size):
    """Wherever the system cuts the last line, it is removed; what was paid for is delivered."""
    client, transport = make()
    batch = client.generate_many(map(str, range(50)), model="m", journal=journal, max_concurrency=3)
    with disks.file_size_limit(size):
        results = await results_of(batch)

    assert JournalError is type(batch.report.stopped_by)
    assert len(transport.requests) == sum(result.error is None for result in results)
    assert journal.read_bytes().endswith(b"\n")
    late = opened_and_closed(journal)
    for result in results:
        if result.error is not None:
            assert (JournalError, "no") == (type(result.error), result.error.billed)
            assert result.key not in late.unresolved_keys


# -------------------------------------------------------------------------------------------- one line that is refused


async def test_lines_are_tried_again(make, journal, monkeypatch):
    """Outcomes that the disk refused are in the journal if it accepts them before the batch has ended."""
    client, transport = make()
    async with client.generate_many(map(str, range(20)), model="m", journal=journal, max_concurrency=4) as batch:
        with monkeypatch.context() as full:
            refuse_writes(full, journal, "done")
            results = [result async for result in batch]
    assert JournalError is type(batch.report.stopped_by)
    assert () == opened_and_closed(journal).unresolved_keys
    done = {entry.key: entry.generation.content for entry in entries(journal, "done")}
    assert {r.key: r.generation.content for r in results if r.error is None} == done
    assert len(done) == len(transport.requests)


async def test_a_start_that_was_refused_settles_nothing(make, journal, monkeypatch):
    """A request that is not sent because of the journal leaves the key as an earlier run left it."""
    late = opened(journal)
    late.write_start("a", "of-then", "m", None)
    late.close()
    requests = [{"key": "a", "prompt": "a"}]
    client, transport = make()
    with monkeypatch.context() as full:
        refuse_writes(full, journal, "start")
        (result,) = await results_of(client.generate_many(requests, model="m", journal=journal, on_unknown="retry"))
    assert (JournalError, "no", []) == (type(result.error), result.error.billed, transport.requests)
    assert ("a",) == opened_and_closed(journal).unresolved_keys


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EFBIG])
@pytest.mark.parametrize("event", ["done", "failed", "pending", "start"])
async def test_each_line_and_error(make, journal, monkeypatch, event, number):
    """Whichever line the system refuses, for whatever reason: what was paid for is delivered, nothing more is sent."""

    def respond(request):
        if request["method"] == "GET":
            return {"id": "gen", "status": "completed", "content": "late", "tokens_used": 2}
        if prompt_of(request) == "slow":
            return {"id": "gen", "status": "pending"}
        return {"error": "nothing that is a generation"} if prompt_of(request) == "odd" else completed(request)

    monkeypatch.setattr("neuralbox_async._call.polling._pause", lambda *_: 0.0)
    client, transport = make(respond)
    prompts = ["slow", "odd", "good", *map(str, range(50))]
    batch = client.generate_many(prompts, model="m", journal=journal, max_concurrency=3)
    async with batch:
        with monkeypatch.context() as full:
            refuse_writes(full, journal, event, number)
            results = [result async for result in batch]

    posts = [prompt_of(request) for request in transport.requests if request["method"] == "POST"]
    texts = {"slow": "late", "odd": None}
    found = {r.request.messages[0].content: r for r in results}
    assert JournalError is type(batch.report.stopped_by)
    assert len(posts) < 10
    for prompt in posts:
        result = found[prompt]
        if prompt == "odd":
            assert ("unknown", ResponseError) == (result.error.billed, type(result.error))
        else:
            assert texts.get(prompt, prompt) == result.generation.content
    assert {JournalError} >= {type(found[prompt].error) for prompt in set(found) - set(posts)}


# ------------------------------------------------------------------------------------------------ accepted, as pending


async def test_accepted_and_not_recorded(make, journal, monkeypatch, poll_every):
    """A generation is waited for although the journal cannot record that it was accepted."""
    poll_every(0.01)

    def respond(request):
        state = {"id": "gen_1", "status": "pending"}
        return {**state, "status": "completed", "content": "paid"} if request["method"] == "GET" else state

    client, transport = make(respond)
    async with client.generate_many(["a"], model="m", journal=journal) as batch:
        with monkeypatch.context() as full:
            refuse_writes(full, journal, "pending")
            (result,) = [result async for result in batch]
    assert ("paid", None) == (result.generation.content, result.error)
    assert JournalError is type(batch.report.stopped_by)
    assert ["POST", "GET"] == [request["method"] for request in transport.requests]


async def test_accepted_not_recorded_and_not_finished(make, journal, monkeypatch, poll_every):
    """If it stays pending, the result and the report have its id, and that it may be billed."""
    poll_every(0.01)
    client, _ = make(lambda _request: {"id": "gen_1", "status": "pending"})
    async with client.generate_many([{"key": "a", "prompt": "x"}], model="m", journal=journal, timeout=0.1) as batch:
        with monkeypatch.context() as full:
            refuse_writes(full, journal, "pending")
            (result,) = [result async for result in batch]
            report = batch.report
    assert (WaitTimeoutError, "unknown", "gen_1") == (
        type(result.error),
        result.error.billed,
        result.error.generation_id,
    )
    assert (("a",), {"a": "gen_1"}) == (report.unknown_keys, report.unknown_ids)
    assert JournalError is type(batch.report.stopped_by)


async def test_accepted_not_recorded_and_left(make, journal, monkeypatch):
    """If the batch is left meanwhile, the report has the id."""
    client, transport = make(lambda _request: {"id": "gen_1", "status": "pending"})
    with monkeypatch.context() as full:
        async with client.generate_many([{"key": "a", "prompt": "x"}], model="m", journal=journal) as batch:
            refuse_writes(full, journal, "pending")
            while not transport.requests:
                await asyncio.sleep(0)
            for _ in range(20):
                await asyncio.sleep(0)
    assert (("a",), ("a",), {"a": "gen_1"}) == (
        batch.report.unknown_keys,
        batch.report.cancelled_keys,
        batch.report.unknown_ids,
    )


@pytest.mark.parametrize("generation_id", [None, "", ".", True, 10**30])
@pytest.mark.parametrize("status", ["pending", "processing"])
async def test_pending_without_an_id(make, journal, status, generation_id):
    """A pending generation that cannot be retrieved is unresolved: it may be billed, and is not sent again."""
    members = {} if generation_id is None else {"id": generation_id}
    client, transport = make(lambda _request: {**members, "status": status, "content": "the beginning"})
    requests = [{"key": "a", "prompt": "x"}]
    batch = client.generate_many(requests, model="m", journal=journal)
    (result,) = await results_of(batch)

    assert (None, "unknown") == (result.generation, result.error.billed)
    assert (0, 1, ("a",)) == (batch.report.completed, batch.report.unknown, batch.report.unknown_keys)
    assert [] == entries(journal, "done")
    (again,) = await results_of(client.generate_many(requests, model="m", journal=journal))
    assert (OutcomeUnknownError, "unknown") == (type(again.error), again.error.billed)
    assert 1 == len(transport.requests)
    if generation_id is not True:
        assert "the beginning" == result.error.text == again.error.text == entries(journal, "failed")[0].text
