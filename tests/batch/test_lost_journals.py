"""Journals that are removed, renamed, replaced or truncated while a batch runs: noticed, and the batch ends."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from journals import HEADER, entries, opened
from transports import completed, results_of

from neuralbox_async import JournalError

pytestmark = pytest.mark.usefixtures("no_task_left")


def replace(journal):
    """Put another file in the place of the journal: an equal one."""
    other = journal.with_name("other")
    other.write_bytes(journal.read_bytes())
    other.replace(journal)


def remove_folder(journal):
    """Rename the folder of the journal."""
    journal.parent.rename(journal.parent.with_name("elsewhere"))


LOSSES = {
    "removed": lambda journal: journal.unlink(),
    "renamed": lambda journal: journal.rename(journal.with_name("other")),
    "replaced": replace,
    "truncated": lambda journal: os.truncate(journal, len(HEADER)),
    "folder": remove_folder,
    "link": lambda journal: (journal.rename(journal.with_name("other")), journal.symlink_to("nowhere")),
}


@pytest.fixture
def journal(tmp_path):
    """Return the path of a journal in a folder of its own."""
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder" / "run.jsonl"


@pytest.mark.timing
@pytest.mark.parametrize("loss", LOSSES)
async def test_noticed(make, journal, loss):
    """Within about a second nothing more is sent; requests in flight finish, and their results arrive."""
    client, transport = make()
    release = asyncio.Event()
    send = transport.send

    async def hold(attempt):
        if len(transport.requests) > 4:
            await release.wait()
        return await send(attempt)

    transport.send = hold
    async with client.generate_many(map(str, range(10_000)), model="m", journal=journal, max_concurrency=4) as batch:
        results = [await anext(batch) for _ in range(3)]
        lost_at = time.monotonic()
        LOSSES[loss](journal)
        while batch.report.stopped_by is None:
            await asyncio.sleep(0.01)
            assert time.monotonic() - lost_at < 10
        assert time.monotonic() - lost_at < 3
        in_flight = batch.progress.in_flight
        release.set()
        results += [result async for result in batch]

    assert in_flight > 0
    assert JournalError is type(batch.report.stopped_by)
    assert str(journal) == batch.report.stopped_by.path
    assert len(transport.requests) == len(results) < 20
    assert {None} == {result.error for result in results}


async def test_at_the_end(make, journal):
    """A journal that is lost just before the end does not pass for a good one."""
    client, _ = make(lambda request: (journal.unlink(missing_ok=True), completed(request))[1])
    batch = client.generate_many(["a"], model="m", journal=journal)
    (result,) = await results_of(batch)
    assert result.error is None
    assert JournalError is type(batch.report.stopped_by)


async def test_another_working_directory(make, journal, monkeypatch):
    """A relative path stays the same file when the program changes its working directory."""
    monkeypatch.chdir(journal.parent)
    client, _ = make(lambda request: (os.chdir("/"), completed(request))[1])
    batch = client.generate_many(["a"], model="m", journal=journal.name)
    await results_of(batch)
    assert None is batch.report.stopped_by
    assert 1 == len(entries(journal, "done"))


async def test_a_link(make, journal):
    """A journal may be a symbolic or a hard link, and read or appended to by others."""
    target = journal.with_name("target")
    opened(target).close()
    journal.symlink_to(target)
    os.link(target, journal.with_name("hard"))
    client, _ = make()
    batch = client.generate_many(["a"], model="m", journal=journal)
    await results_of(batch)
    assert None is batch.report.stopped_by


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, b"bytes.jsonl", "\udc80"])
async def test_paths(make, tmp_path, monkeypatch, path):
    """A path that the system refuses is a `JournalError`; one of bytes or with undecodable bytes is a path."""

    class Path:
        def __fspath__(self):
            return path

    monkeypatch.chdir(tmp_path)
    client, transport = make()
    batch = client.generate_many(["a"], model="m", journal=Path())
    if len(path) in {3, 5000}:
        with pytest.raises(JournalError):
            await results_of(batch)
        with pytest.raises(JournalError):
            entries(path)
        assert [] == transport.requests
    else:
        await results_of(batch)
        assert 1 == len(entries(path, "done"))
