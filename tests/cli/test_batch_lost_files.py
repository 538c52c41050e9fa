"""Files of a batch that are removed or full while it runs, and the signal of a terminal that is closed."""

from __future__ import annotations

import json
import os
import resource
import signal
import time

import pytest
from batch_files import file_lines, prompts

from neuralbox_async import read_journal

ROWS = 60
JOURNAL = "out.jsonl.journal.jsonl"

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a file of rows, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps({"key": f"k{number}", "prompt": f"p{number}"}) + "\n" for number in range(ROWS))
    (tmp_path / "in.jsonl").write_text(rows)
    return tmp_path


@pytest.fixture
def begin(start):
    """Return a function that starts a batch in a subprocess."""
    return lambda *arguments, **options: start("batch", "in.jsonl", "-o", "out.jsonl", *arguments, **options)


def limit(size):
    """Return a function that limits the size of the files of this process."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def contents(name="out.jsonl"):
    """Return the texts in an output by key; its last line may be torn."""
    with open(name, encoding="utf-8") as file:  # noqa: PTH123
        rows = [json.loads(line) for line in file if line.endswith("\n")]
    return {row["key"]: row["content"] for row in rows if "content" in row}


def paid(server):
    """Return the texts that *server* has billed, by key."""
    texts = [server.requests[bill.request_index].json["messages"][-1]["content"] for bill in server.billed]
    assert len(texts) == len(set(texts))
    return {f"k{text[1:]}": f"You said: {text}" for text in texts}


# ---------------------------------------------------------------------------------------------------------- full disks


@pytest.mark.parametrize("arguments", [(), ("--ordered",), ("--on-unknown", "retry")])
def test_a_full_journal(begin, serve, arguments):
    """What the output has and the journal had no room for is in the output after the next run, and billed once."""
    server = serve(latency=0.01)
    size = 5000
    done = begin("-c", "16", *arguments, "--journal", "journal", preexec_fn=limit(size)).wait()
    before = contents()
    assert 1 == done.status
    assert "the journal cannot be used" in done.err
    assert paid(server) == before
    journaled = {entry.key for entry in read_journal("journal") if entry.event == "done"}
    assert set(before) - journaled, "some results are in the output only"

    with open("journal", "rb") as file:  # noqa: PTH123
        full = file.read()
    again = begin("-c", "16", *arguments, "--journal", "journal", preexec_fn=limit(len(full) + 40)).wait()
    assert 1 == again.status
    assert before == contents() == paid(server)

    last = begin("-c", "16", *arguments, "--journal", "journal").wait()
    assert 0 == last.status
    assert ROWS == len(contents()) == len(file_lines())
    assert contents() == paid(server)


def test_both_full(begin, serve):
    """When neither output nor journal can be written, the results of requests in flight are printed."""
    server = serve(latency=0.05, reply=lambda request: "long " * 400)
    done = begin("-c", "8", preexec_fn=limit(30_000)).wait()
    printed = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    journaled = {entry.key for entry in read_journal(JOURNAL) if entry.event == "done"}

    assert 1 == done.status
    assert {row["key"] for row in printed if "content" in row} | set(contents()) | journaled == set(paid(server))


def test_results_of_another_journal(run, server, folder):
    """An output with results that the journal has never sent is not replaced."""
    (folder / "two.txt").write_text("a\nb\n")
    (folder / "one.txt").write_text("c\n")
    run("batch", "two.txt", "-o", "out.jsonl", "--journal", "first")
    run("batch", "one.txt", "-o", "other.jsonl", "--journal", "second")
    before = (folder / "out.jsonl").read_bytes()
    done = run("batch", "two.txt", "-o", "out.jsonl", "--journal", "second")

    assert 1 == done.status
    assert "would be overwritten" in done.error_line
    assert before == (folder / "out.jsonl").read_bytes()
    assert ["a", "b", "c"] == prompts(server)


def test_texts_of_failures(run, server, folder):
    """A text that an output has with an error goes into the journal, too, and comes back in the next run."""
    server.drop("after")
    (folder / "in.txt").write_text("a\n")
    run("batch", "in.txt", "-o", "out.jsonl")
    (row,) = file_lines()
    (folder / "out.jsonl").write_text(json.dumps({**row, "text": "the beginning"}) + "\n")
    for _ in range(2):
        assert 3 == run("batch", "in.txt", "-o", "out.jsonl").status
        assert ["the beginning"] == [row["text"] for row in file_lines()]
    assert ["the beginning"] == [entry.text for entry in read_journal(JOURNAL) if entry.text]


# ------------------------------------------------------------------------------------------------------- removed files


@pytest.mark.parametrize("names", [(JOURNAL,), ("out.jsonl",), (JOURNAL, "out.jsonl")])
@pytest.mark.parametrize("rename", [False, True])
def test_removed(begin, serve, names, rename):
    """Files that are removed or renamed end the batch like a signal, with an error; no paid text is lost."""
    server = serve(latency=0.3)
    process = begin("-c", "2")
    server.wait_until(lambda: len(server.billed) >= 2)
    time.sleep(0.1)  # until the results that were billed have been written
    saved = contents()
    for name in names:
        if rename:
            os.rename(name, f"{name}.old")  # noqa: PTH104
        else:
            os.remove(name)  # noqa: PTH107
    removed = len(server.billed)
    done = process.wait()

    assert 1 == done.status
    assert "removed" in done.err
    assert "Traceback" not in done.err
    assert len(server.billed) <= removed + 12
    printed = {row["key"] for row in map(json.loads, filter(lambda line: line.startswith("{"), done.err.splitlines()))}
    written = set(saved) | printed
    if "out.jsonl" not in names:
        written |= set(contents())
    if JOURNAL not in names:
        written |= {entry.key for entry in read_journal(JOURNAL) if entry.event == "done"}
    assert set(paid(server)) == written
    if JOURNAL not in names:
        assert 0 == begin("-c", "20").wait().status
        assert contents() == paid(server)
        assert ROWS == len(server.billed)


# ------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("signals", [1, 2, 3])
def test_hangup(begin, serve, signals):
    """SIGHUP, however often, sends nothing more and finishes the requests in flight."""
    server = serve(latency=0.5)
    process = begin("-c", "4")
    server.wait_until(lambda: server.in_flight == 4)
    for _ in range(signals):
        process.popen.send_signal(signal.SIGHUP)
        time.sleep(0.02)
    done = process.wait()

    assert 129 == done.status
    assert f"4 completed; {ROWS - 4} not started" in done.err
    assert 4 == len(contents()) == len(server.billed)


def test_hangup_and_another_signal(begin, serve):
    """A signal after SIGHUP stops the batch immediately."""
    server = serve(latency=60)
    process = begin("-c", "2")
    server.wait_until(lambda: server.in_flight == 2)
    process.popen.send_signal(signal.SIGHUP)
    process.read_stderr_until(b"again to stop immediately")
    process.popen.send_signal(signal.SIGTERM)
    done = process.wait()

    assert 129 == done.status
    assert "2 cancelled" in done.err


def test_nohup(begin, serve):
    """A process that ignores SIGHUP, as under `nohup`, continues to do so."""
    server = serve(latency=0.1)
    process = begin("-c", "10", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    server.wait_until(lambda: server.in_flight == 10)
    process.popen.send_signal(signal.SIGHUP)

    assert 0 == process.wait().status
    assert ROWS == len(contents()) == len(server.billed)


def test_a_closed_terminal(at_terminal, serve):
    """When its terminal is closed, the requests in flight finish, and their results are written."""
    server = serve(latency=0.7)
    terminal = at_terminal("batch", "in.jsonl", "-o", "out.jsonl", "-c", "4")
    server.wait_until(lambda: server.in_flight == 4)
    terminal.hang_up()

    assert 129 == terminal.popen.wait(20)
    assert 4 == len(contents()) == len(server.billed)
    done = [entry for entry in read_journal(JOURNAL) if entry.event == "done"]
    assert 4 == len(done)
