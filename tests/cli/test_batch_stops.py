"""Batches that are stopped, killed and watched: real signals, in processes of their own, and pseudo-terminals."""

from __future__ import annotations

import json
import os
import signal

import pytest

ROWS = 60


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test has an empty folder to itself, with a file of rows."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(json.dumps({"key": f"k{number}", "prompt": f"p{number}"}) + "\n" for number in range(ROWS))
    (tmp_path / "in.jsonl").write_text(rows)
    return tmp_path


@pytest.fixture
def begin(start):
    """Begin a batch in a process of its own."""
    return lambda *arguments, **options: start("batch", "in.jsonl", "-o", "out.jsonl", *arguments, **options)


def results():
    """The lines of the output, by key; no key has two."""
    with open("out.jsonl", encoding="utf-8") as file:  # noqa: PTH123
        rows = [json.loads(line) for line in file]
    known = {row["key"]: row for row in rows}
    assert len(rows) == len(known)
    return known


def paid(server):
    """How often each prompt was billed."""
    counts: dict[str, int] = {}
    for generation in server.billed:
        prompt = server.requests[generation.request_index].json["messages"][-1]["content"]
        counts[prompt] = counts.get(prompt, 0) + 1
    return counts


@pytest.mark.parametrize("number,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal(begin, serve, number, status):
    """The first signal sends no more, and waits for what is in flight: nothing is paid for in vain."""
    server = serve(latency=0.3)
    process = begin("-c", "4")
    server.wait_until(lambda: server.in_flight == 4, 10)
    process.popen.send_signal(number)
    done = process.end()

    assert status == done.status
    assert "finishing 4 in flight; Ctrl-C again stops at once" in done.err
    assert f"4 done; {ROWS - 4} not started" in done.err
    assert "To go on: neuralbox batch in.jsonl -o out.jsonl -c 4" in done.err
    assert "Traceback" not in done.err
    assert 4 == len(results()) == len(server.billed)


def test_two_signals(begin, serve):
    """The second stops at once; what was in flight is named, as it may be billed."""
    server = serve(latency=60)
    process = begin("-c", "2")
    server.wait_until(lambda: server.in_flight == 2, 10)
    process.popen.send_signal(signal.SIGINT)
    told = b""
    while b"again stops at once" not in told:
        told += os.read(process.popen.stderr.fileno(), 65536)
    process.popen.send_signal(signal.SIGINT)
    done = process.end()

    assert 130 == done.status
    assert "2 given up" in done.err
    assert "2 may have been billed without an answer" in done.err
    assert {"k0", "k1"} == set(done.err.split("without an answer: ")[1].splitlines()[0].split(", "))
    assert done.err.endswith("neuralbox: interrupted\n")
    assert {} == results()
    server.wait_for_disconnect(count=2)


def test_signal_before(start, server):
    """While rows are still awaited, Ctrl-C ends the command before it has asked for anything."""
    reading, writing = os.pipe()
    process = start("batch", stdin=reading)
    os.close(reading)
    os.write(writing, b"row\n" * 100_000)
    process.popen.send_signal(signal.SIGINT)
    done = process.end()
    os.close(writing)

    assert (130, "neuralbox: interrupted") == (done.status, done.line)
    assert () == server.requests


@pytest.mark.parametrize("honoured", [True, False])
def test_killed(begin, serve, honoured):
    """Killed at any moment and resumed: each key has one line, and is billed once unless that is reported unknown."""
    server = serve(latency=0.02, honour_idempotency_key=honoured)
    policy = ("--on-unknown", "retry") if honoured else ()
    for moment in (1, 30):
        process = begin("-c", "5", *policy)
        server.wait_until(lambda moment=moment: len(server.billed) >= moment, 10)
        process.popen.kill()
        process.popen.wait()
    server.wait_until(lambda: not server.in_flight, 5)
    with open("out.jsonl.journal.jsonl", "ab") as journal, open("out.jsonl", "ab") as output:  # noqa: PTH123
        journal.write(b'{"event":"done","key":"k59","at":1')  # as a system that crashed might leave them
        output.write(b'{"key": "k5')
    done = begin("-c", "20", *policy).end()
    known = results()
    unknown = {key for key, row in known.items() if "error" in row}

    assert {f"k{number}" for number in range(ROWS)} == set(known)
    assert (3 if unknown else 0) == done.status
    assert {1} == set(paid(server).values())
    if honoured:
        assert not unknown
    assert {f"You said: p{key[1:]}" for key in known if key not in unknown} == {
        row["content"] for row in known.values() if "content" in row
    }
    assert {"OutcomeUnknownError"} >= {known[key]["kind"] for key in unknown}
    assert all(f"p{key[1:]}" in paid(server) for key in set(known) - unknown)


def test_second_process(begin, serve, run):
    """A second run at the same time is refused in one line, and touches nothing."""
    server = serve(latency=0.5)
    process = begin("-c", "2")
    server.wait_until(lambda: server.in_flight == 2, 10)
    second = run("batch", "in.jsonl", "-o", "out.jsonl")
    process.popen.send_signal(signal.SIGINT)

    assert 1 == second.status
    assert "in use by another batch" in second.line
    assert 130 == process.end().status
    assert 2 == len(results()) == len(server.billed)


def test_reader_leaves(start, serve):
    """When nobody reads the results any more, no more are paid for."""
    server = serve(latency=0.05)
    process = start("batch", "in.jsonl", "-c", "1")
    process.read_until(b"\n")
    process.popen.stdout.close()

    assert 141 == process.popen.wait(10)
    assert len(server.requests) < ROWS


def test_clean_stdout(start, server):
    """Stdout has nothing but results; everything else is on stderr."""
    with open("in.jsonl", "rb") as rows:  # noqa: PTH123
        done = start("batch", "-c", "9", stdin=rows).end()

    assert 0 == done.status
    assert {f"k{number}" for number in range(ROWS)} == {json.loads(line)["key"] for line in done.out.splitlines()}
    assert done.line.startswith(f"neuralbox: {ROWS} done; ")
    assert ROWS == len(server.billed)


def test_sparse_lines(begin, serve):
    """Where nobody watches, there is a line now and then."""
    serve(latency=0.25)
    done = begin("-c", "8").end()

    assert 0 == done.status
    told = done.err.splitlines()
    assert 2 <= len(told) < 10
    assert all(f"of {ROWS} done" in line and "in flight" in line for line in told[:-1])


def test_limit(begin, serve):
    """A limit is waited for, and the wait is told; Ctrl-C ends it."""
    server = serve(limit_hour=5, hour_seconds=3600)
    process = begin("-c", "2")
    told = b""
    while b"waiting until " not in told:
        told += os.read(process.popen.stderr.fileno(), 65536)
    process.popen.send_signal(signal.SIGINT)
    done = process.end()

    assert 130 == done.status
    assert "not started" in done.err
    assert len(results()) == len(server.billed) <= 5


def test_bar(at_terminal, serve):
    """A person sees a bar with what is done and in flight, and in the end the summary alone."""
    server = serve(latency=0.2)
    terminal = at_terminal("batch", "in.jsonl", "-o", "out.jsonl", "-c", "10")
    terminal.show_until(f" 0 of {ROWS} done")
    terminal.show_until(" in flight")
    terminal.show_until("/s · 0:00:0")

    assert 0 == terminal.end()
    assert "━" in terminal.shown
    assert terminal.text.splitlines()[-1].startswith(f"neuralbox: {ROWS} done; ")
    assert ROWS == len(results()) == len(server.billed)


def test_interrupted_bar(at_terminal, serve):
    """Ctrl-C typed at the bar says what is finished, and gives the cursor back."""
    server = serve(latency=0.5)
    terminal = at_terminal("batch", "in.jsonl", "-o", "out.jsonl", "-c", "3")
    server.wait_until(lambda: server.in_flight == 3, 10)
    terminal.type(b"\x03")

    assert 130 == terminal.end()
    assert "finishing 3 in flight" in terminal.text
    assert f"3 done; {ROWS - 3} not started" in terminal.text
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    "answer,status,billed", [(b"what?\nyes\n", 0, 2), (b"no\n", 3, 1), (b"\x04", 4, 1), (b"\x03", 130, 1)]
)
def test_asked(at_terminal, server, run, folder, answer, status, billed):
    """At a terminal a person decides about what may have been billed."""
    (folder / "in.jsonl").write_text('{"key": "mine", "prompt": "Hi"}\n')
    server.drop("after")
    assert 3 == run("batch", "in.jsonl", "-o", "out.jsonl").status
    terminal = at_terminal("batch", "in.jsonl", "-o", "out.jsonl", "--on-unknown", "ask")
    terminal.show_until("Send them again")
    assert "without an answer: mine" in terminal.text
    terminal.type(answer)

    assert status == terminal.end()
    assert billed == len(server.billed)
