"""Every example runs as a program against a local server and does what its docstring says."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from documents import ROOT, TIMEOUT
from event_source import interpret

from neuralbox_async.testing import NeuralBoxServer

EXAMPLES = ROOT / "examples"


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a server with options and sets the environment to it."""
    with contextlib.ExitStack() as stack:

        def start(**options):
            server = stack.enter_context(NeuralBoxServer(**options))
            monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
            monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
            return server

        yield start


@pytest.fixture
def example(run):
    """Return a function that runs an example and returns the lines that it prints."""

    def run_example(name, *arguments, status=0, **options):
        done = run(sys.executable, str(EXAMPLES / name), *arguments, **options)
        assert (status, "") == (done.returncode, done.stderr)
        return done.stdout.splitlines()

    return run_example


def test_every_example_is_tested():
    """Every example has a test in this module."""
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}

    assert set() == {example.stem for example in EXAMPLES.glob("*.py")} - tested


@pytest.mark.process
def test_generate(server, example):
    """The example prints the text, then its cost."""
    text, costs = example("generate.py")

    assert "You said: Write a haiku about rivers" == text
    assert f"4 tokens used, {server.balance} left, generation {server.billed[0].id}" == costs
    assert {"system": "Be brief.", "temperature": 0.5, "max_tokens": 100}.items() <= server.requests[0].json.items()


@pytest.mark.process
def test_typed_answer(server, example):
    """The example prints the invoice after a repair, or the problems of the last text."""
    server.reply_with("129.90", '{"sender": "Oak & Sons", "amount": 129.90, "due": "2026-03-31", "items": ["chair"]}')

    invoice, costs = example("typed_answer.py")

    assert "129.90 euros to Oak & Sons until 31 March 2026" == invoice
    assert "2 generations, 4 tokens used" == costs
    server.reply_with('{"sender": "Oak & Sons", "amount": "129.90", "due": "2026-03-31"}', "{}")
    _, *problems = example("typed_answer.py", status=1)
    assert [f"$.{name}: a required member is missing" for name in ("sender", "amount", "due")] == problems


@pytest.mark.process
def test_stream(server, example):
    """The example prints the pieces of one stream, then the events of another."""
    server.cut(3, finish=True)
    text, end, start, *deltas, complete = example("stream.py")

    assert "You said: Tell a story about a lighthouse" == text
    assert "completed: 2 tokens used" == end
    assert f"generation {server.billed[1].id} started" == start
    assert "text 'You '" == deltas[0]
    assert f"complete, {server.balance} tokens left" == complete


@pytest.mark.process
def test_interrupted_stream(server, example):
    """The example prints the text that arrived, and its billing status."""
    server.cut(3)
    text, end, *_ = example("stream.py")

    assert text.startswith("You said: ... (")
    assert text.endswith("; billed: no)")
    assert "incomplete: None tokens used" == end


@pytest.mark.process
def test_chat(server, example):
    """Each request has all earlier turns."""
    first, second = example("chat.py", stdin="My name is Ivan\nWhat is my name?\n")

    assert ["You said: My name is Ivan", "You said: What is my name?"] == [first, second]
    assert [
        {"role": "user", "content": "My name is Ivan"},
        {"role": "assistant", "content": "You said: My name is Ivan"},
        {"role": "user", "content": "What is my name?"},
    ] == server.requests[1].json["messages"]


@pytest.mark.process
def test_chat_with_a_failed_turn(server, run):
    """A turn without a complete reply is reported and is not part of the history."""
    server.fail(400)
    done = run(sys.executable, str(EXAMPLES / "chat.py"), stdin="One\nTwo\n")

    assert done.stderr.strip().startswith("400 ")
    assert "You said: Two" == done.stdout.strip()
    assert [{"role": "user", "content": "Two"}] == server.requests[1].json["messages"]


@pytest.mark.process
@pytest.mark.parametrize(
    "arguments, url", [(["photo.jpg"], "data:image/jpeg;base64,"), ([], "https://example.com/image.jpg")]
)
def test_vision(server, example, arguments, url):
    """A file is sent inside the request; for an image on the web, its URL."""
    assert ["You said: What is in this image? [1 image]"] == example("vision.py", *arguments)

    (message,) = server.requests[0].json["messages"]
    assert message["content"][0]["image_url"]["url"].startswith(url)


@pytest.mark.process
def test_jobs(serve, example):
    """The example waits for a pending generation."""
    server = serve(pending_models=["slow"], pending_seconds=0)
    pending, done = example("jobs.py", "slow")

    assert f"generation {server.billed[0].id} is pending" == pending
    assert f"generation {server.billed[0].id} is completed: You said: Write a long report" == done


@pytest.mark.process
def test_jobs_without_waiting(server, example):
    """The example sends no status request for a generation that is complete at once."""
    assert "You said: Write a long report" == example("jobs.py")[-1]
    assert ["POST"] == [request.method for request in server.requests]


@pytest.fixture
def prompts(tmp_path):
    """Return a function that writes a file of so many prompts."""

    def write(count):
        path = tmp_path / "prompts.txt"
        path.write_text("".join(f"Prompt {number}\n" for number in range(count)), encoding="utf-8")
        return path

    return write


@pytest.mark.process
def test_batch(serve, example, prompts):
    """Each line has one result, and a failure does not stop the others."""
    server = serve(latency=0.05)
    server.fail(500, code="internal")
    results = [json.loads(line) for line in example("batch.py", prompts(200))]

    assert list(range(200)) == sorted(result["number"] for result in results)
    assert 199 == len(server.billed) == sum(result["tokens_used"] or 0 for result in results)
    (failed,) = (result for result in results if "error" in result)
    assert failed["tokens_used"] is None
    assert 50 >= server.peak_in_flight > 1


@pytest.mark.process
def test_batch_without_tokens(serve, run, prompts):
    """When the balance is used up, no more prompts are sent, and the requests in flight finish."""
    server = serve(balance=20)
    done = run(sys.executable, str(EXAMPLES / "batch.py"), str(prompts(1000)))
    results = [json.loads(line) for line in done.stdout.splitlines()]

    assert (1, True) == (done.returncode, done.stderr.startswith("stopped: "))
    assert 20 == len(server.billed) == sum("content" in result for result in results)
    assert len(results) == len(server.requests) < 200
    assert {0} == {result["tokens_used"] for result in results if "error" in result}


@pytest.mark.process
def test_batch_journal(serve, example, run, prompts, tmp_path):
    """All runs together have one result for each line and pay once for each; failures have a status of their own."""
    server = serve()
    server.fail(400)
    program = ("batch_journal.py", prompts(50), str(tmp_path / "run.jsonl"))
    done = run(sys.executable, str(EXAMPLES / program[0]), *program[1:])
    assert 3 == done.returncode
    assert 49 == len(done.stdout.splitlines())
    assert "(billed: no)" in done.stderr
    results = [json.loads(line) for line in example(*program)]

    assert {f"line {number}": f"You said: Prompt {number - 1}" for number in range(1, 51)} == {
        result["key"]: result["content"] for result in results
    }
    assert 50 == len(server.billed)


@pytest.mark.process
def test_blocking(server, example):
    """The example prints a call, a stream, and the results of threads in order."""
    text, story, costs, *definitions = example("blocking.py")

    assert "You said: Write a haiku about rivers" == text
    assert "You said: Tell a story about a lighthouse" == story
    assert "2 tokens used" == costs
    assert [f"You said: Define: {word}" for word in ("river", "bridge", "lighthouse")] == definitions
    assert 5 == len(server.billed)


@pytest.mark.process
def test_blocking_without_tokens(serve, run):
    """The example has its own message for an empty balance."""
    serve(balance=0)
    done = run(sys.executable, str(EXAMPLES / "blocking.py"))

    assert "The balance is used up.\n" == done.stdout


@pytest.fixture
def backend(monkeypatch):
    """Return a function that sends a request to the running web backend."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("PORT", str(port))
    command = [sys.executable, str(EXAMPLES / "web_backend.py")]
    with contextlib.ExitStack() as stack:
        # It logs only failed requests to stderr.
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        stack.callback(process.send_signal, signal.SIGINT)
        _wait_for(process, port)

        def post(prompt):
            connection = stack.enter_context(
                contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT))
            )
            connection.request("POST", "/chat", prompt)
            return connection

        yield post
    assert 0 == process.returncode


def _wait_for(process, port):
    deadline = time.monotonic() + TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.02)
    pytest.fail("the backend does not listen")


@pytest.mark.process
def test_web_backend(server, backend):
    """Text is streamed; an error before the first text is a status, and one after it the last event."""
    response = backend("Tell a story").getresponse()
    source = interpret(response.read())
    assert (200, "You said: Tell a story", "complete") == (response.status, source.text, source.last.kind)

    server.fail(429, retry_after=847)
    response = backend("Tell a story").getresponse()
    assert (503, "847") == (response.status, response.headers["Retry-After"])

    server.fail(401)
    assert 502 == backend("Tell a story").getresponse().status

    server.cut(3)
    response = backend("Tell a story").getresponse()
    source = interpret(response.read())
    assert (200, "You said: ", "failed") == (response.status, source.text, source.last.kind)
    assert 400 == backend("").getresponse().status


@pytest.mark.process
def test_web_backend_disconnect(server, backend):
    """A browser that disconnects in the middle of a text ends the generation, which is not billed."""
    server.stall(3)
    connection = backend("Tell a story")
    assert b"id: 0" == connection.getresponse().read(5)
    connection.close()

    server.wait_for_disconnect(timeout=TIMEOUT)
    assert () == server.billed
