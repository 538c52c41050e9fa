"""`neuralbox retrieve` against a local server."""

from __future__ import annotations

import http.server
import json
import threading

import pytest


@pytest.fixture
def generated(run):
    """Return a function that makes a generation and returns its id."""
    return lambda *options: json.loads(run("generate", "Hello", "--json", *options).out)["id"]


def test_text(run, server, generated):
    """The text of a generation is printed, and is not billed again."""
    done = run("retrieve", generated())

    assert (0, "You said: Hello\n", "") == (done.status, done.out, done.err)
    assert 1 == len(server.billed)


def test_number(run, serve, generated):
    """An id may be a number."""
    serve(dialect="b")

    assert "You said: Hello\n" == run("retrieve", str(generated())).out


@pytest.mark.usefixtures("server")
def test_json(run, generated):
    """With --json, the object is the one that `generate --json` prints."""
    generation_id = generated()

    printed = json.loads(run("retrieve", generation_id, "--json").out)
    assert {"id": generation_id, "status": "completed", "content": "You said: Hello"}.items() <= printed.items()


@pytest.mark.usefixtures("server")
def test_unknown_id(run):
    """An unknown id is reported in one line, which mentions no bill."""
    done = run("retrieve", "gen_none")

    assert (1, "") == (done.status, done.out)
    assert "404 not_found" in done.error_line
    assert "billed" not in done.error_line
    assert "neuralbox retrieve" not in done.error_line


@pytest.fixture
def pending(serve):
    """Return a function that makes a generation which is pending for *seconds*, and returns its id."""

    def start(seconds):
        import anyio

        from neuralbox_async import AsyncNeuralBox

        server = serve(pending_models=["slow"], pending_seconds=seconds)

        async def generate():
            async with AsyncNeuralBox() as client:
                return await client.generate("slow", "Hello")

        assert server.is_running
        return anyio.run(generate).id

    return start


def test_pending(run, pending):
    """A pending generation is an error, which mentions --wait."""
    generation_id = pending(60)
    done = run("retrieve", generation_id)

    assert (1, "") == (done.status, done.out)
    assert f"generation {generation_id} is " in done.error_line
    assert "--wait" in done.error_line
    assert "completed" != json.loads(run("retrieve", generation_id, "--json").out)["status"]


@pytest.mark.usefixtures("short_poll_interval")
def test_wait(run, pending):
    """--wait waits until the generation is completed."""
    assert "You said: Hello\n" == run("retrieve", pending(0.05), "--wait").out


def test_wait_timeout(run, pending):
    """A wait that times out is an error with the id."""
    generation_id = pending(60)
    done = run("retrieve", generation_id, "--wait", "--timeout", "0.1")

    assert (1, "") == (done.status, done.out)
    assert str(generation_id) in done.error_line


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("body", [b'{"id": 1, "status": "completed", "content": 5}', b"<html>"])
def test_malformed(run, body, monkeypatch):
    """A response that cannot be read does not make the generation free."""
    server = http.server.HTTPServer(("127.0.0.1", 0), handler_of(body))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("NEURALBOX_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        done = run("retrieve", "gen_1")
    finally:
        server.shutdown()
        server.server_close()

    assert (1, "") == (done.status, done.out)
    assert "billed" not in done.error_line
    assert "`neuralbox retrieve gen_1`" in done.error_line


def handler_of(body):
    """Return a request handler that responds to each GET with *body*."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args):
            pass

    return Handler


def test_no_connection(run, server):
    """A status request without a response mentions no bill: it costs nothing."""
    server.drop(times=9, method="GET")
    done = run("retrieve", "gen_1", "--timeout", "0.9")

    assert (1, "") == (done.status, done.out)
    assert "billed" not in done.error_line
