"""`neuralbox models`, `price`, `balance` and `history`: tables and JSON, against a local server."""

from __future__ import annotations

import json
import sys

import pytest


def table(text):
    """Return the headings and the rows of a printed table."""
    headings, *rows = [line.split() for line in text.splitlines()]
    return headings, rows


def objects(text):
    return [json.loads(line) for line in text.splitlines()]


def test_balance(run, server):
    """The balance falls by what a generation is billed."""
    run("generate", "Hi")
    done = run("balance")

    assert (0, "") == (done.status, done.err)
    headings, ((balance, plan, ends, _time),) = table(done.out)
    assert ["BALANCE", "PLAN", "PLAN", "ENDS"] == headings
    assert ("999,998", "vip") == (balance, plan)
    assert ends.startswith(("2029-12-31", "2030-01-01"))
    (found,) = objects(run("balance", "--json").out)
    assert (server.balance, "2030-01-01T00:00:00+00:00") == (found["token_balance"], found["plan_expires_at"])


def test_models(run, serve):
    """Each model is a line; a price that depends on options is a range."""
    serve(prices={"own-model": 1234})
    headings, rows = table(run("models").out)

    assert ["MODEL", "CATEGORY", "TOKENS", "PLAN", "STREAMS"] == headings
    assert ["gpt-5", "text", "2", "basic", "yes"] in rows
    assert ["dall-e-3", "image", "5-13", "free", "no"] in rows
    assert ["own-model", "text", "1,234", "basic", "yes"] in rows
    assert len(rows) == len(objects(run("models", "--json").out)) > 40


@pytest.mark.usefixtures("server")
def test_some_models(run):
    """A category, or one model."""
    _, rows = table(run("models", "--category", "stt").out)
    assert {"whisper", "gpt-4o-transcribe", "elevenlabs-scribe"} == {row[0] for row in rows}

    (model,) = objects(run("models", "gpt-5", "--json").out)
    assert ("gpt-5", 2, True) == (model["slug"], model["token_cost"], model["supports_streaming"])
    assert not {"raw", "problems"} & set(model)


def test_price(run, server):
    """The options and the count are sent; values are JSON where they are valid JSON, otherwise texts."""
    done = run("price", "dall-e-3", "--count", "3", "--param", "quality=hd", "--param", "seed=7", "--param", "a=b=c")

    assert (["MODEL", "COUNT", "TOKENS", "ONE", "PRICING"], [["dall-e-3", "3", "15", "5-13", "matrix"]]) == table(
        done.out
    )
    assert {"params": {"quality": "hd", "seed": 7, "a": "b=c"}, "count": 3} == server.requests[-1].json
    assert [2] == [found["token_cost"] for found in objects(run("price", "gpt-5", "--json").out)]
    assert 0 == len(server.billed)


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "arguments", [("price",), ("price", "gpt-5", "--param", "hd"), ("price", "gpt-5", "--count", "0")]
)
def test_usage_errors(run, arguments):
    """A usage error is one line, and nothing is sent."""
    done = run(*arguments)

    assert (2, "") == (done.status, done.out)
    assert "(see neuralbox price --help)" in done.error_line


def test_history(run, serve):
    """The newest generation is the first line; a line break in a prompt makes no second line."""
    server = serve(dialect="b")
    run("generate", "One")
    run("generate", "Two\n\x1b[31mred", "--model", "claude-opus-4.5")
    headings, rows = table(run("history").out)

    assert ["ID", "CREATED", "STATUS", "MODEL", "TOKENS", "PROMPT"] == headings
    assert [["claude-opus-4.5", "6", "Two", "\N{REPLACEMENT CHARACTER}[31mred"], ["gpt-5", "2", "One"]] == [
        row[4:] for row in rows
    ]
    assert str(server.billed[0].request_index + 18473) == rows[1][0]
    assert "You said: One\n" == run("retrieve", rows[1][0]).out


def test_part_of_the_history(run, serve):
    """--limit is the number of lines, over several pages; the filters are sent."""
    server = serve(failing_models=["grok-4-fast"])
    for number in range(3):
        run("generate", f"Prompt {number}")
    run("generate", "Fail", "--model", "grok-4-fast")

    assert ["Fail", "Prompt 2"] == [found["prompt"] for found in objects(run("history", "-n", "2", "--json").out)]
    assert {"limit": "2", "page": "1"} == dict(server.requests[-1].query)
    assert ["Fail"] == [found["prompt"] for found in objects(run("history", "--status", "failed", "--json").out)]
    assert 3 == len(objects(run("history", "-m", "gpt-5", "--category", "text", "--json").out))
    assert "" == run("history", "-m", "gpt-5.2", "--json").out


def test_many_pages(run, server):
    """More generations than a page has are printed."""
    from neuralbox_sync import NeuralBox

    with NeuralBox(server.api_key, base_url=server.base_url) as client:
        with client.generate_many((f"Prompt {number}" for number in range(130)), model="gpt-5") as results:
            assert 130 == len(list(results))

    assert 120 == len(objects(run("history", "-n", "120", "--json").out))
    assert ["1", "2"] == [request.query["page"] for request in server.requests[-2:]]


@pytest.mark.parametrize("arguments", [("balance",), ("history",), ("models",), ("price", "gpt-5")])
def test_errors(run, server, arguments, monkeypatch):
    """An error is one line on stderr, which mentions no bill."""
    monkeypatch.setenv("NEURALBOX_API_KEY", "nb_wrong_key")
    done = run(*arguments)

    assert (1, "", 1) == (done.status, done.out, len(server.requests))
    assert "401" in done.error_line
    assert "billed" not in done.error_line


@pytest.mark.usefixtures("server")
def test_unknown_model(run):
    """An unknown model is an error."""
    assert "404 not_found" in run("models", "nope").error_line
    assert "404 not_found" in (line := run("price", "nope").error_line)
    assert line.endswith("; `neuralbox models` lists the models")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
@pytest.mark.usefixtures("server")
def test_terminal(run, at_terminal):
    """At a terminal a long prompt is cut, and no other column; the number of generations stands below the table."""
    run("generate", "word " * 100)
    shown = at_terminal("history")

    assert 0 == shown.wait()
    headings, row, count = shown.text[shown.text.index("ID ") :].splitlines()
    assert len(row.rstrip()) <= 80
    assert row.rstrip().endswith("…")
    assert "completed  gpt-5       2  word word" in row
    assert "1 of 1 generation" == count
    assert headings.split() == ["ID", "CREATED", "STATUS", "MODEL", "TOKENS", "PROMPT"]
