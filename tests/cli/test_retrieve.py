"""`neuralbox retrieve` against a local server."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def generated(run):
    """Make a generation and return its id."""
    return lambda *options: json.loads(run("generate", "Hello", "--json", *options).out)["id"]


def test_text(run, server, generated):
    """The text of a generation is printed again, and costs nothing."""
    done = run("retrieve", generated())

    assert (0, "You said: Hello\n", "") == (done.status, done.out, done.err)
    assert 1 == len(server.billed)


def test_number(run, serve, generated):
    """An id may be a number."""
    serve(dialect="b")

    assert "You said: Hello\n" == run("retrieve", str(generated())).out


@pytest.mark.usefixtures("server")
def test_json(run, generated):
    """As JSON it is the same object that `generate` prints."""
    generation_id = generated()

    told = json.loads(run("retrieve", generation_id, "--json").out)
    assert {"id": generation_id, "status": "completed", "content": "You said: Hello"}.items() <= told.items()


@pytest.mark.usefixtures("server")
def test_unknown(run):
    """An id that nobody knows is an error of one line, and nothing was billed."""
    done = run("retrieve", "gen_none")

    assert (1, "") == (done.status, done.out)
    assert "404 not_found" in done.line
    assert "billed" not in done.line


@pytest.fixture
def pending(serve):
    """A server with a generation that is pending for *seconds*; return its id."""

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
    """A generation that is not finished has no text: that is a failure, which says how to wait."""
    generation_id = pending(60)
    done = run("retrieve", generation_id)

    assert (1, "") == (done.status, done.out)
    assert f"generation {generation_id} is " in done.line
    assert "--wait" in done.line
    assert "completed" != json.loads(run("retrieve", generation_id, "--json").out)["status"]


@pytest.mark.usefixtures("impatient")
def test_wait(run, pending):
    """A generation can be waited for."""
    assert "You said: Hello\n" == run("retrieve", pending(0.05), "--wait").out


def test_wait_in_vain(run, pending):
    """Waiting ends when its time is over, with the id to try again."""
    generation_id = pending(60)
    done = run("retrieve", generation_id, "--wait", "--timeout", "0.1")

    assert (1, "") == (done.status, done.out)
    assert str(generation_id) in done.line


def test_no_connection(run, server):
    """A question that was not answered costs nothing, so nothing is said of a bill."""
    server.drop(times=9, method="GET")
    done = run("retrieve", "gen_1", "--timeout", "0.9")

    assert (1, "") == (done.status, done.out)
    assert "billed" not in done.line
