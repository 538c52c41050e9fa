"""Batches that are interrupted, killed or displayed: real signals, subprocesses and pseudo-terminals."""

from __future__ import annotations

import json
import os
import signal

import pytest

pytestmark = pytest.mark.signals

ROWS = 60


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


def results():
    """Return the lines of the output by key; no key has two."""
    with open("out.jsonl", encoding="utf-8") as file:  # noqa: PTH123
        rows = [json.loads(line) for line in file]
    known = {row["key"]: row for row in rows}
    assert len(rows) == len(known)
    return known


def bill_counts(server):
    """Return how often each prompt was billed."""
    counts: dict[str, int] = {}
    for generation in server.billed:
        prompt = server.requests[generation.request_index].json["messages"][-1]["content"]
        counts[prompt] = counts.get(prompt, 0) + 1
    return counts


@pytest.mark.parametrize("number,status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_signal(begin, serve, number, status):
    """After the first signal nothing more is sent, and the requests in flight finish."""
    server = serve(latency=2.0)
    process = begin("-c", "4")
    server.wait_until(lambda: server.in_flight == 4)
    process.popen.send_signal(number)
    done = process.wait()

    assert status == done.status
    assert "waiting for 4 requests in flight; press Ctrl-C again to stop immediately" in done.err
    assert f"4 completed; {ROWS - 4} not started" in done.err
    assert " batch in.jsonl -o out.jsonl -c 4\n" in done.err
    assert "Traceback" not in done.err
    assert 4 == len(results()) == len(server.billed)


def test_two_signals(begin, serve):
    """The second signal stops the batch immediately; the requests in flight are named, as they may be billed."""
    server = serve(latency=60)
    process = begin("-c", "2")
    server.wait_until(lambda: server.in_flight == 2)
    process.popen.send_signal(signal.SIGINT)
    process.read_stderr_until(b"again to stop immediately")
    process.popen.send_signal(signal.SIGINT)
    done = process.wait()

    assert 130 == done.status
    assert "2 cancelled" in done.err
    assert "2 requests may have been billed without a response" in done.err
    assert {"k0", "k1"} == set(done.err.split("without a response: ")[1].splitlines()[0].split(", "))
    assert done.err.endswith("neuralbox: interrupted\n")
    assert {} == results()
    server.wait_for_disconnect(count=2)


def test_interrupt_while_reading(start, server):
    """Ctrl-C while rows are read from stdin ends the command before anything is sent."""
    reading, writing = os.pipe()
    process = start("batch", stdin=reading)
    os.close(reading)
    os.write(writing, b"row\n" * 100_000)
    process.popen.send_signal(signal.SIGINT)
    done = process.wait()
    os.close(writing)

    assert (130, "neuralbox: interrupted") == (done.status, done.error_line)
    assert () == server.requests


@pytest.mark.parametrize("honoured", [True, False])
def test_killed(begin, serve, honoured):
    """A batch that was killed and resumed has one line for each key, billed once or reported as unknown."""
    server = serve(latency=0.02, honour_idempotency_key=honoured)
    policy = ("--on-unknown", "retry") if honoured else ()
    for moment in (1, 30):
        process = begin("-c", "5", *policy)
        server.wait_until(lambda moment=moment: len(server.billed) >= moment)
        process.popen.kill()
        process.popen.wait()
    server.wait_until(lambda: not server.in_flight)
    with open("out.jsonl.journal.jsonl", "ab") as journal, open("out.jsonl", "ab") as output:  # noqa: PTH123
        journal.write(b'{"event":"done","key":"k59","at":1')  # as a crash of the system may leave them
        output.write(b'{"key": "k5')
    done = begin("-c", "20", *policy).wait()
    known = results()
    unknown = {key for key, row in known.items() if "error_type" in row}

    assert {f"k{number}" for number in range(ROWS)} == set(known)
    assert (3 if unknown else 0) == done.status
    assert {1} == set(bill_counts(server).values())
    if honoured:
        assert not unknown
    assert {f"You said: p{key[1:]}" for key in known if key not in unknown} == {
        row["content"] for row in known.values() if "content" in row
    }
    assert {"OutcomeUnknownError"} >= {known[key]["error_type"] for key in unknown}
    assert all(f"p{key[1:]}" in bill_counts(server) for key in set(known) - unknown)


def test_second_process(begin, serve, run):
    """A second run at the same time is refused in one line, and changes nothing."""
    server = serve(latency=0.5)
    process = begin("-c", "2")
    server.wait_until(lambda: server.in_flight == 2)
    second = run("batch", "in.jsonl", "-o", "out.jsonl")
    process.popen.send_signal(signal.SIGINT)

    assert 1 == second.status
    assert "in use by another batch" in second.error_line
    assert 130 == process.wait().status
    assert 2 == len(results()) == len(server.billed)


def test_broken_pipe(start, serve):
    """When the reader of stdout closes the pipe, nothing more is sent."""
    server = serve(latency=0.05)
    process = start("batch", "in.jsonl", "-c", "1")
    process.read_until(b"\n")
    process.popen.stdout.close()

    assert 141 == process.popen.wait(10)
    assert len(server.requests) < ROWS


def test_clean_stdout(start, server):
    """Stdout has the results only; everything else is on stderr."""
    with open("in.jsonl", "rb") as rows:  # noqa: PTH123
        done = start("batch", "-c", "9", stdin=rows).wait()

    assert 0 == done.status
    assert {f"k{number}" for number in range(ROWS)} == {json.loads(line)["key"] for line in done.out.splitlines()}
    assert done.error_line.startswith(f"neuralbox: {ROWS} completed; ")
    assert ROWS == len(server.billed)


def test_progress_lines(begin, serve):
    """Without a terminal, the progress is a line from time to time."""
    serve(latency=0.25)
    done = begin("-c", "8").wait()

    assert 0 == done.status
    printed = done.err.splitlines()
    assert 2 <= len(printed) < 10
    assert all(f"of {ROWS} completed" in line and "in flight" in line for line in printed[:-1])


def test_rate_limit(begin, serve):
    """The wait for a rate limit is shown, and Ctrl-C ends it."""
    server = serve(limit_hour=5, hour_seconds=3600)
    process = begin("-c", "2")
    process.read_stderr_until(b"rate limit: waiting until ")
    process.popen.send_signal(signal.SIGINT)
    done = process.wait()

    assert 130 == done.status
    assert "not started" in done.err
    assert len(results()) == len(server.billed) <= 5


def test_bar(at_terminal, serve):
    """A terminal shows a progress bar, and at the end only the summary."""
    server = serve(latency=0.2)
    terminal = at_terminal("batch", "in.jsonl", "-o", "out.jsonl", "-c", "10")
    terminal.wait_for(f" 0 of {ROWS} completed")
    terminal.wait_for(" in flight")
    terminal.wait_for("/s · 0:00:0")

    assert 0 == terminal.wait()
    assert "━" in terminal.screen
    assert terminal.text.splitlines()[-1].startswith(f"neuralbox: {ROWS} completed; ")
    assert ROWS == len(results()) == len(server.billed)


def test_interrupted_bar(at_terminal, serve):
    """Ctrl-C at the progress bar is explained, and the cursor is shown again."""
    server = serve(latency=0.5)
    terminal = at_terminal("batch", "in.jsonl", "-o", "out.jsonl", "-c", "3")
    server.wait_until(lambda: server.in_flight == 3)
    terminal.type(b"\x03")

    assert 130 == terminal.wait()
    assert "waiting for 3 requests in flight" in terminal.text
    assert f"3 completed; {ROWS - 3} not started" in terminal.text
    assert terminal.screen.rindex("\x1b[?25h") > terminal.screen.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    "reply,status,billed", [(b"what?\nyes\n", 0, 2), (b"no\n", 3, 1), (b"\x04", 4, 1), (b"\x03", 130, 1)]
)
def test_ask(at_terminal, server, run, folder, reply, status, billed):
    """At a terminal, the user decides about requests that may have been billed."""
    (folder / "in.jsonl").write_text('{"key": "mine", "prompt": "Hi"}\n')
    server.drop("after")
    assert 3 == run("batch", "in.jsonl", "-o", "out.jsonl").status
    terminal = at_terminal("batch", "in.jsonl", "-o", "out.jsonl", "--on-unknown", "ask")
    terminal.wait_for("Send them again")
    assert "without a response: mine" in terminal.text
    terminal.type(reply)

    assert status == terminal.wait()
    assert billed == len(server.billed)


def test_nobody_to_ask(run, server, folder):
    """With a closed stdin, nothing is sent."""
    (folder / "in.jsonl").write_text('{"key": "mine", "prompt": "Hi"}\n')
    server.drop("after")
    assert 3 == run("batch", "in.jsonl", "-o", "out.jsonl").status
    done = run("batch", "in.jsonl", "-o", "out.jsonl", "--on-unknown", "ask", stdin=None)

    assert 4 == done.status
    assert "nothing was sent; use --on-unknown retry" in done.err
    assert 1 == len(server.billed)
