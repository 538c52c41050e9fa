"""Stdout that cannot be written: an error status always, and paid text is not lost."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time

import pytest

from neuralbox_async import ClientClosedError

COMMANDS = {
    "generate": ("generate", "Hi"),
    "generate --stream": ("generate", "Hi", "--stream"),
    "generate --json": ("generate", "Hi", "--json"),
    "batch": ("batch", "in.txt"),
    "retrieve": ("retrieve", "gen_1"),
    "serve": ("serve", "--port", "0"),
    "demo": ("demo", "--count", "1"),
    "--help": ("--help",),
    "--version": ("--version",),
    "batch --help": ("batch", "--help"),
    "": (),
}
# Each in a process of its own. Without a buffer, the commands that write in different ways.
RUNS = [
    *((name, "buffered") for name in COMMANDS),
    *((name, "unbuffered") for name in ("generate", "generate --stream", "batch", "serve", "--help")),
]
TEXT = "word " * 300


@pytest.fixture(autouse=True)
def rows(folder):
    """A file of rows, and another one, in the working directory."""
    (folder / "in.txt").write_text("a\nb\n")
    (folder / "other").touch()


@pytest.fixture(params=["buffered", "unbuffered"])
def buffering(request, monkeypatch):
    """Run the command with and without PYTHONUNBUFFERED, as in containers."""
    monkeypatch.setenv("PYTHONUNBUFFERED", "1" if request.param == "unbuffered" else "")


def in_shell(redirection, *arguments):
    return ("sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "neuralbox_async", *arguments)


@pytest.mark.usefixtures("buffering")
@pytest.mark.parametrize("name, buffering", RUNS, indirect=["buffering"])
class TestEveryCommand:
    def test_closed(self, start, server, name):
        """With stdout closed, a command that writes to it fails before anything is sent."""
        done = start(command=in_shell(">&-", *COMMANDS[name])).wait()

        assert (1, "neuralbox: stdout is closed") == (done.status, done.error_line)
        assert () == server.requests

    def test_read_only(self, start, server, name):
        """The same with a stdout that is not open for writing."""
        done = start(command=in_shell("1< other", *COMMANDS[name])).wait()

        assert (1, "neuralbox: Bad file descriptor") == (done.status, done.error_line)
        assert () == server.requests

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
    def test_full(self, start, server, name):
        """The same with a stdout that is full."""
        done = start(command=in_shell("> /dev/full", *COMMANDS[name])).wait()

        assert (1, "neuralbox: No space left on device") == (done.status, done.error_line)
        assert () == server.requests

    def test_no_reader(self, start, server, name):
        """The same with a pipe whose reader has left; that is no error message."""
        reading, writing = os.pipe()
        os.close(reading)
        done = start(*COMMANDS[name], stdout=writing).wait()
        os.close(writing)

        assert (141, "") == (done.status, done.err)
        assert () == server.requests

    def test_stderr_closed(self, start, server, name):
        """With stderr closed as well, the status remains."""
        assert 1 == start(command=in_shell(">&- 2>&-", *COMMANDS[name])).wait().status
        assert () == server.requests


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("arguments", [("generate", "Hi"), ("batch", "in.txt", "-o", "out"), ("batch", "in.txt")])
@pytest.mark.usefixtures("buffering")
def test_full_stderr(start, server, arguments):
    """A stderr that is full changes no exit status: the texts are where they belong."""
    done = start(command=in_shell("2> /dev/full", *arguments)).wait()

    assert 0 == done.status
    assert ("out" in arguments) == (not done.out)
    assert server.billed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_error_with_a_full_stderr(start, server):
    """A status that reports an error remains as well."""
    assert 2 == start(command=in_shell("2> /dev/full", "batch", "--unknown")).wait().status
    assert () == server.requests


def test_no_reader_of_stderr(start, server, folder):
    """A stderr whose reader has left changes no exit status either: the texts are where they belong."""
    reading, writing = os.pipe()
    os.close(reading)
    statuses = [
        start(*arguments, stderr=writing).wait().status
        for arguments in (("batch", "in.txt", "-o", "out.jsonl"), ("generate", "Hi"), ("batch", "--unknown"))
    ]
    os.close(writing)

    assert [0, 0, 2] == statuses
    assert 2 == (folder / "out.jsonl").read_text().count('"content"')
    assert 3 == len(server.billed)


@pytest.mark.usefixtures("buffering")
@pytest.mark.parametrize(
    "arguments",
    [("generate", "Hi"), ("generate", "Hi", "--stream"), ("batch", "in.txt"), ("batch", "in.txt", "-o", "/dev/fd/3")],
)
def test_nonblocking_pipe(start, serve, arguments):
    """A pipe that another program has made non-blocking gets everything, however slowly it is read."""
    server = serve(reply="word " * 60_000)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = start(command=in_shell("3>&1", *arguments), stdout=writing)
    os.close(writing)
    server.wait_until(lambda: len(server.billed) == (2 if "batch" in arguments else 1))
    time.sleep(0.3)  # the old pipe was full by then
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()

    assert 0 == process.wait().status
    assert 60_000 * len(server.billed) == text.count("word ")


def small_file(folder, size):
    """Return a file that is open for appending, and the limit of its size: *size* bytes more."""
    path = folder / "stdout"
    path.write_bytes(bytes(100_000))
    limit = 100_000 + size
    return path.open("ab"), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.mark.usefixtures("buffering")
@pytest.mark.parametrize("size", [0, 100])
class TestFullDisk:
    @pytest.mark.parametrize("arguments", [("--no-stream",), ("--json",), ("--stream",), ("--stream", "--json")])
    def test_generate(self, start, serve, folder, run, arguments, size):
        """When the disk is full after the text was paid for, stderr says how to get it."""
        server = serve(reply=TEXT)
        stdout, limit = small_file(folder, size)
        with stdout:
            done = start("generate", "Hi", *arguments, stdout=stdout, preexec_fn=limit).wait()
        first, last = done.err.splitlines()

        assert (1, "neuralbox: File too large") == (done.status, last)
        (generation_id,) = re.findall(r"`neuralbox retrieve (\S+)` prints the whole text", first)
        if "--stream" not in arguments:
            assert generation_id == server.billed[0].id
            assert f"{TEXT}\n" == run("retrieve", generation_id).out

    def test_no_id(self, start, server, folder, size):
        """Without an id, stderr has the text itself."""
        server.fail(200, body={"status": "completed", "content": f"{TEXT}\x1b[2J\n\tend"})
        stdout, limit = small_file(folder, size)
        with stdout:
            done = start("generate", "Hi", stdout=stdout, preexec_fn=limit).wait()

        assert 1 == done.status
        assert f"{TEXT}\ufffd[2J\n\tend\n" in done.err

    def test_retrieve(self, start, serve, run, folder, size):
        """Retrieving can be repeated."""
        serve(reply=TEXT)
        generation_id = json.loads(run("generate", "Hi", "--json").out)["id"]
        stdout, limit = small_file(folder, size)
        with stdout:
            done = start("retrieve", generation_id, stdout=stdout, preexec_fn=limit).wait()

        assert 1 == done.status
        assert done.err.endswith("neuralbox: File too large\n")


MALFORMED = {"id": "gen_1", "status": ["odd"], "content": "The text."}


class TestTextOfErrors:
    """Wherever an error has text, it is printed: it may have been billed."""

    def test_text(self, run, server):
        """The text of a malformed response is printed as text."""
        server.fail(200, body=MALFORMED)

        assert (1, "The text.\n") == ((done := run("generate", "Hi")).status, done.out)
        assert "neuralbox retrieve gen_1" in done.error_line

    def test_json(self, run, server):
        """With --json, it is the content of an incomplete generation."""
        server.fail(200, body=MALFORMED)
        done = run("generate", "Hi", "--json")

        assert 1 == done.status
        expected = {"id": "gen_1", "status": "incomplete", "content": "The text.", "tokens_used": None}
        assert expected.items() <= json.loads(done.out).items()

    def test_no_text(self, run, server):
        """An error without text prints nothing."""
        server.fail(400)
        assert (1, "") == ((done := run("generate", "Hi", "--json")).status, done.out)

    @pytest.mark.parametrize("as_json", [False, True])
    @pytest.mark.usefixtures("server")
    def test_stream(self, run, monkeypatch, as_json):
        """Text of a stream that no event had is printed, in JSON as an event."""

        async def fail(_stream):
            raise ClientClosedError("closed", request_sent=True, text="The text.", generation_id="gen_1")

        monkeypatch.setattr("neuralbox_async.AsyncStream.__aenter__", fail)
        done = run("generate", "Hi", "--stream", *(["--json"] if as_json else []))

        assert 1 == done.status
        assert "neuralbox retrieve gen_1" in done.error_line
        expected = '{"type": "content_delta", "delta": "The text."}\n' if as_json else "The text.\n"
        assert expected == done.out

    @pytest.mark.parametrize("as_json", [False, True])
    def test_retrieve(self, run, server, as_json):
        """So has a status request."""
        server.fail(200, body=MALFORMED, method="GET")
        done = run("retrieve", "gen_1", *(["--json"] if as_json else []))

        assert 1 == done.status
        assert "The text." == (json.loads(done.out)["content"] if as_json else done.out.rstrip("\n"))

    @pytest.mark.parametrize("arguments", [(), ("-o", "out.jsonl")])
    def test_batch(self, run, server, folder, arguments):
        """A line of a batch has it as `text`, beside the error."""
        server.fail(200, body=MALFORMED)
        done = run("batch", "in.txt", "-c", "1", *arguments)
        out = (folder / "out.jsonl").read_text() if arguments else done.out
        failed, completed = (json.loads(line) for line in out.splitlines())

        assert 3 == done.status
        assert ("The text.", "gen_1", "ResponseError") == (failed["text"], failed["id"], failed["error_type"])
        assert "text" not in completed

    def test_batch_without_text(self, run, server):
        """An error without text has no such member; nor has one that is not billed the body of its response."""
        server.fail(400)
        assert not {"text", "body"} & set(json.loads(run("batch", "in.txt", "-c", "1").out.splitlines()[0]))

    @pytest.mark.parametrize("arguments", [(), ("-o", "out.jsonl")])
    def test_batch_with_a_body(self, run, server, folder, arguments):
        """Without a text, the line has what had arrived of the response, and without the API key."""
        server.fail(200, body=f"<p>The text\xe9 with {server.api_key} in it".encode("latin-1"))
        done = run("batch", "in.txt", "-c", "1", *arguments)
        failed = json.loads(((folder / "out.jsonl").read_text() if arguments else done.out).splitlines()[0])

        assert (3, "<p>The text\ufffd with *** in it") == (done.status, failed["body"])
        assert ("unknown", "ResponseError") == (failed["billed"], failed["error_type"])

    def test_batch_with_a_body_of_an_earlier_run(self, run, server, folder):
        """A later run whose journal lacks the body writes it there before it replaces the output."""
        server.fail(200, body="<p>The text")
        assert 3 == run("batch", "in.txt", "-o", "out.jsonl", "-c", "1").status
        journal = folder / "out.jsonl.journal.jsonl"
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(line for line in lines if '"failed"' not in line))
        run("batch", "in.txt", "-o", "out.jsonl", "--on-unknown", "skip")

        assert "<p>The text" in journal.read_text()
        assert "<p>The text" in (folder / "out.jsonl").read_text()


def test_url(run, server):
    """The result of a model that makes files is a URL, which is printed instead of a text."""
    server.fail(200, body={"id": 1, "status": "completed", "url": "https://example.com/a.png"})

    assert (0, "https://example.com/a.png\n") == ((done := run("generate", "Hi")).status, done.out)
