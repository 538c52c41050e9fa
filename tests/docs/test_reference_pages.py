"""The pages about environment variables and files agree with the code, and with files that it writes."""

from __future__ import annotations

import json
import re
import sys

import attrs
import pytest
from documents import ROOT, blocks, code_in, read, table

from neuralbox_async import JournalEntry
from neuralbox_sync import NeuralBox

ENVIRONMENT = ROOT / "docs" / "reference" / "environment.md"
FILES = ROOT / "docs" / "reference" / "files.md"
SOURCES = [source for package in ("neuralbox_async", "neuralbox_sync") for source in (ROOT / package).rglob("*.py")]


def test_variables():
    """The page has exactly the variables that the packages read."""
    read_by_code = re.compile(r'(?:environ(?:\.get\(|\[)\s*|envvar=)"([A-Z_]+)"')
    in_code = {name for source in SOURCES for name in read_by_code.findall(read(source))}

    assert in_code == {name for row in table(ENVIRONMENT, "Variable") for name in code_in(row["Variable"])}


@pytest.fixture
def batch(server, run, tmp_path):
    """
    Return the lines of the output and of the journal of a batch.

    Its rows: an error status, a malformed response with an id and a text, one that is not JSON, the URLs of files, and
    a text.
    """
    rows = [{"key": f"row {number}", "prompt": "Hi", "model": "gpt-5-nano"} for number in range(1, 6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    server.fail(400)
    server.fail(200, body={"id": "gen_1", "status": ["completed"], "content": "A haiku"})
    server.fail(200, body="<p>A haiku")
    urls = {"url": "https://example.com/a.png", "thumbnail_url": "https://example.com/b.png"}
    server.fail(200, body={"id": "gen_2", "status": "completed", **urls})
    command = ("-m", "neuralbox_async", "batch", "rows.jsonl", "-o", "out.jsonl", "-c", "1", "--budget", "9")
    done = run(sys.executable, *command)
    assert 3 == done.returncode, done.stderr
    return [_objects(tmp_path / name) for name in ("out.jsonl", "out.jsonl.journal.jsonl")]


def _objects(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _documented(heading, *, kinds):
    """Return the kinds of lines that have each documented member."""
    rows = table(FILES, heading)
    return {name: row[kinds].replace("`", "").split(", ") for row in rows for name in code_in(row[heading])}


@pytest.mark.process
def test_output(batch):
    """Each member of an output line is documented, and stands in the lines that the page names."""
    documented = _documented("Output member", kinds="Rows")
    kinds = ["failed"] * 3 + ["completed"] * 2
    optional = {"text", "body", "url", "thumbnail_url", "item", "value"}
    present = [set(), {"text"}, {"body"}, {"url", "thumbnail_url"}, set()]

    assert 5 == len(batch[0])
    for line, kind, members in zip(batch[0], kinds, present, strict=True):
        expected = {name for name, kinds in documented.items() if {"all", kind} & set(kinds)}
        assert set(line) == expected - optional | members


@pytest.mark.process
def test_journal(batch):
    """Each member of a journal line is documented, and stands in the lines that the page names."""
    documented = _documented("Journal member", kinds="Events")
    header, *lines = batch[1]

    assert {"event": "journal", "version": 1} == header
    assert ["start", "failed"] * 3 + ["start", "done"] * 2 == [line["event"] for line in lines]
    optional = {"id", "text", "body", "tokens_used_total"}
    present = [set(), {"id", "text", "body"}, {"body"}]
    for line in lines:
        members = present.pop(0) if line["event"] == "failed" else set()
        expected = {name for name, kinds in documented.items() if {"all", line["event"]} & set(kinds)}
        assert set(line) == expected - optional | members
        assert line["event"] != "start" or 1 == line["reserved"]


def test_entries():
    """Each attribute of an entry is a documented member of a journal line."""
    documented = {*_documented("Journal member", kinds="Events"), "generation_id"}

    assert {field.name for field in attrs.fields(JournalEntry)} <= documented


def test_journal_without_a_budget(server, tmp_path):
    """Without a budget a line "start" reserves nothing."""
    with NeuralBox() as client, client.generate_many(["Hi"], model="gpt-5", journal="run.jsonl") as results:
        list(results)

    assert [None] == [line["reserved"] for line in _objects(tmp_path / "run.jsonl") if line["event"] == "start"]


def test_examples():
    """Each example of a line is a JSON object with documented members."""
    documented = {
        *_documented("Journal member", kinds="Events"),
        *_documented("Output member", kinds="Rows"),
        "version",
    }
    lines = [json.loads(line) for block in blocks(FILES, "json") for line in block.code.splitlines()]

    assert 5 == len(lines)
    assert set() == {name for line in lines for name in line} - documented
