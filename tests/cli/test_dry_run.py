"""`neuralbox batch --dry-run`: what would be sent, without sending it."""

from __future__ import annotations

import json
import os

from batch_files import jsonl

TABLE = "id,text\n1,one\n2,two\n3,three\n4,four\n"
OPTIONS = ("--template", "Say {text}", "--system", "Be brief.", "-o", "out.jsonl", "--key-column", "id", "-c", "1")


def shown(out):
    """Return the objects in *out*, which begin and end lines of their own."""
    return [json.loads("{" + part.partition("\n}\n")[0] + "}") for part in out.split("\n{\n")[1:]]


def test_requests(batch, server):
    """The first three requests are shown as they are sent; nothing is sent, and no file is written."""
    done = batch(TABLE, *OPTIONS, "--dry-run", "--max-tokens", "5", name="in.csv")

    assert (0, "", []) == (
        done.status,
        done.err,
        [request for request in server.requests if request.path.endswith("/generate")],
    )
    assert ["in.csv"] == os.listdir()  # noqa: PTH208
    assert "in.csv: 4 rows\n" in done.out
    assert 'The request of line 2, with the key "1":\n' in done.out
    assert batch(TABLE, *OPTIONS, "--max-tokens", "5", name="in.csv").status == 0
    assert [request.json for request in server.requests if request.path.endswith("/generate")][:3] == shown(done.out)


def test_no_key(batch):
    """No API key is needed."""
    done = batch("a\n", "--dry-run")
    assert 0 == done.status
    assert "The cost is unknown: no API key" in done.out


def test_a_message_of_the_server(batch, server, monkeypatch):
    """A message of the server that is a sentence gets no second full stop."""
    monkeypatch.setenv("NEURALBOX_API_KEY", "nb_another_key")
    done = batch("a\n", "--dry-run")
    assert "The cost is unknown: 401 " in done.out
    assert ".." not in done.out.rpartition("The cost is unknown")[2]


def test_earlier_runs(batch, server):
    """Rows that the journal has as completed are counted, and not shown."""
    batch(TABLE, *OPTIONS, "--limit", "3", name="in.csv")
    before = sorted((name, os.path.getsize(name)) for name in os.listdir())  # noqa: PTH202, PTH208
    done = batch(TABLE, *OPTIONS, "--dry-run", name="in.csv")

    assert "in.csv: 4 rows, 3 completed by earlier runs, 1 left\n" in done.out
    assert ["Say four"] == [body["messages"][-1]["content"] for body in shown(done.out)]
    assert before == sorted((name, os.path.getsize(name)) for name in os.listdir())  # noqa: PTH202, PTH208
    assert 3 == len(server.billed)


def test_invalid_rows(batch, server):
    """Invalid rows are reported as in a run."""
    rows = jsonl({"prompt": "a"}, {"prompt": ""})
    done = batch(rows, "--dry-run", name="in.jsonl")
    assert (2, "") == (done.status, done.out)
    assert "line 2: the prompt is empty" in done.err
    assert "1 row, 1 invalid row skipped\n" in batch(rows, "--dry-run", "--skip-invalid", name="in.jsonl").out


def test_long_texts(batch):
    """A long text is cut off, with its length."""
    (body,) = shown(batch("a" * 5000 + "\n", "--dry-run").out)

    assert "a" * 2000 + "... (5,000 characters)" == body["messages"][0]["content"]
