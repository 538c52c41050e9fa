"""The file of a journal: torn lines, foreign files and full disks."""

from __future__ import annotations

import errno
import os

import pytest
from journals import HEADER, entries, opened, opened_and_closed, written
from transports import results_of

from neuralbox_async import JournalError

pytestmark = pytest.mark.usefixtures("no_task_left")


@pytest.mark.parametrize("number", range(7))
def test_torn_at_every_byte(journal, number):
    """Wherever the last line is torn, opening leaves a file of whole lines, and removes no other line."""
    lines = written(journal)[: number + 1]
    before, last = b"".join(lines[:-1]), lines[-1]
    for cut in range(len(last)):
        journal.write_bytes(before + last[:cut])
        assert len(lines) - 2 <= len(entries(journal)) < len(lines) or number == 0
        opened_and_closed(journal)
        # All but the end of the line: then it is whole.
        kept = before + last if cut == len(last) - 1 else before
        assert (kept or HEADER) == journal.read_bytes()


def test_a_torn_line_changes_nothing(journal):
    """After a torn line is removed, the state of the keys is that before it."""
    lines = written(journal)
    journal.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    torn = opened(journal)
    assert ("a",) == torn.unresolved_keys
    torn.write_start("z", "9", "gpt-5", None)
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
    """A file that is not a journal, or of a later version, is neither written nor truncated."""
    journal.write_bytes(content)
    client, transport = make()
    with pytest.raises(JournalError) as caught:
        await results_of(client.generate_many(["a"], model="gpt-5", journal=journal))
    with pytest.raises(JournalError):
        entries(journal)

    assert content == journal.read_bytes()
    assert (str(journal), 1) == (caught.value.path, caught.value.line)
    assert [] == transport.requests


@pytest.mark.parametrize("name", ["", "nowhere/run.jsonl"])
async def test_unwritable_paths(make, tmp_path, name):
    """A folder, or a file in a missing folder, raises a clear error."""
    client, _ = make()
    with pytest.raises(JournalError, match="journal"):
        await results_of(client.generate_many(["a"], model="gpt-5", journal=tmp_path / name))
    with pytest.raises(JournalError):
        entries(tmp_path / name)


async def test_a_device(make):
    """A file that is not a regular one is refused."""
    client, _ = make()
    with pytest.raises(JournalError, match="regular"):
        await results_of(client.generate_many(["a"], model="gpt-5", journal=os.devnull))


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
    """When the journal cannot be written no more is sent; responses are delivered, and the file stays whole."""
    client, transport = make()
    disk = FullDisk(room)
    monkeypatch.setattr(os, "write", disk)
    batch = client.generate_many(map(str, range(50)), model="gpt-5", journal=journal, max_concurrency=2)
    try:
        results = await results_of(batch)
    except JournalError:
        assert room == 10
        results = []
    else:
        assert JournalError is type(batch.report.stopped_by)
    monkeypatch.undo()

    assert len(transport.requests) == sum(result.error is None for result in results)
    assert len(transport.requests) < 10
    opened_and_closed(journal)
    known = {entry.key for entry in entries(journal)}
    assert {result.key for result in results if result.error is None} <= known


async def test_a_failing_sync(make, journal, monkeypatch):
    """When the disk does not accept what was written, the batch stops with that error."""

    def fsync(_fd):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    client, _ = make()
    async with client.generate_many(["a"], model="gpt-5", journal=journal) as results:
        await anext(results)
    assert JournalError is type(results.report.stopped_by)
