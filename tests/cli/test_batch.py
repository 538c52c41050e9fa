"""`neuralbox batch` in this process: options, requests, messages and exit statuses."""

from __future__ import annotations

import os
import shlex

import pytest
from batch_files import by_key, file_lines, jsonl, lines

pytestmark = pytest.mark.usefixtures("folder")


SECRET = "nb_secret_0123456789"


class TestOptions:
    def test_request(self, batch, server):
        """The options are for rows that do not say otherwise."""
        options = ("--model", "m0", "--system", "Briefly.", "--temperature", "0", "--max-tokens", "7")
        assert 0 == batch(jsonl({"prompt": "a"}, {"prompt": "b", "model": "m1"}), *options, name="in.jsonl").status

        models = {request.json["messages"][-1]["content"]: request.json["model"] for request in server.requests}
        assert {"a": "m0", "b": "m1"} == models
        assert {("Briefly.", 0.0, 7)} == {
            (request.json["system"], request.json["temperature"], request.json["max_tokens"])
            for request in server.requests
        }

    def test_concurrency(self, batch, serve):
        """No more than --concurrency are in flight, and the results may be had in the order of the rows."""
        server = serve(latency=0.02)
        done = batch("".join(f"p{number}\n" for number in range(20)), "-c", "3", "--ordered")

        assert 0 == done.status
        assert list(range(1, 21)) == [row["line"] for row in lines(done.out)]
        assert 3 >= server.peak_in_flight

    def test_local(self, batch, folder):
        """--local needs no key; what it said never passes for the API's answers."""
        done = batch("Hi\n", "-o", "out.jsonl", "--local")
        real = batch("Hi\n", "-o", "out.jsonl")

        assert (0, ["You said: Hi"]) == (done.status, [row["content"] for row in file_lines()])
        assert (folder / "out.jsonl.local.journal.jsonl").exists()
        assert 2 == real.status
        assert "no journal knows what is in it" in real.line

    @pytest.mark.parametrize(
        "arguments,wanted",
        [
            (("--pace", "fast"), "'fast' is neither 'auto' nor"),
            (("--pace", "0"), "neither 'auto' nor"),
            (("--pace", "nan"), "neither 'auto' nor"),
            (("--budget", "0"), "--budget"),
            (("--timeout", "0"), "--timeout"),
            (("--timeout", "nan"), "timeout must be"),
            (("--max-retries", "-1"), "--max-retries"),
            (("--concurrency", "0"), "--concurrency"),
            (("--on-unknown", "pray"), "--on-unknown"),
            (("--model", ""), "model must be"),
            (("--journal", "a", "--no-journal"), "exclude each other"),
            (("-o", "in.txt"), "IN and OUT are the same file"),
            (("--journal", "in.txt"), "IN and the journal are the same file"),
            (("-o", "a", "--journal", "./a"), "OUT and the journal are the same file"),
        ],
    )
    def test_wrong(self, batch, server, arguments, wanted):
        """What is wrong is said in one line, before anything is sent."""
        done = batch("Hi\n", *arguments)

        assert (2, "") == (done.status, done.out)
        assert wanted in done.line
        assert () == server.requests
        assert ["in.txt"] == os.listdir()  # noqa: PTH208

    def test_pace(self, batch, server):
        """A pace may be given."""
        assert 0 == batch("a\nb\n", "--pace", "100").status
        assert 2 == len(server.billed)

    def test_timeout(self, batch, server):
        """A request may be given less time, and its failure does not stop the rest."""
        server.delay(30)
        done = batch("a\nb\n", "-c", "1", "--timeout", "0.3")

        assert 3 == done.status
        assert {"APITimeoutError", None} == {row.get("kind") for row in lines(done.out)}

    @pytest.mark.parametrize("retries,status", [("0", 3), ("1", 0)])
    def test_retries(self, batch, server, retries, status):
        """What was not billed is tried again as often as is said."""
        server.fail(503)
        assert status == batch("a\n", "--max-retries", retries).status

    def test_no_key(self, batch):
        """Without a key there is one line, and no output."""
        done = batch("Hi\n", "-o", "out.jsonl")

        assert 2 == done.status
        assert "no API key" in done.line
        assert ["in.txt"] == os.listdir()  # noqa: PTH208

    def test_no_input(self, run, server):
        """A file that is not there, or a closed stdin, is a mistake of one line."""
        assert "missing.txt" in run("batch", "missing.txt").line
        assert "There are no rows" in run("batch", stdin=None).line
        assert () == server.requests


class TestOutcomes:
    def test_line(self, batch, server):
        """A line tells all there is to know, and the journal gives the same one back."""
        batch(jsonl({"key": "a", "prompt": "Hi ☃"}), "-o", "out.jsonl", name="in.jsonl")
        (told,) = file_lines()
        os.remove("out.jsonl")  # noqa: PTH107
        batch(jsonl({"key": "a", "prompt": "Hi ☃"}), "-o", "out.jsonl", name="in.jsonl")

        (billed,) = server.billed
        assert [told] == file_lines()
        assert {"key": "a", "line": 1, "content": "You said: Hi ☃", "model": "gpt-5"}.items() <= told.items()
        assert (billed.id, billed.tokens_used, 1) == (told["id"], told["tokens_used"], told["attempts"])

    def test_failures(self, batch, server):
        """Some that failed make the status 3; another run tries them again, and only them."""
        server.fail(400, message="no\x1b[2J way")
        first = batch("a\nb\nc\n", "-o", "out.jsonl")
        (failure,) = (row for row in file_lines() if "error" in row)
        second = batch("a\nb\nc\n", "-o", "out.jsonl")

        assert (3, 0) == (first.status, second.status)
        assert ("BadRequestError", "no", 0) == (failure["kind"], failure["billed"], failure["tokens_used"])
        assert "no\ufffd[2J way" in failure["error"]
        assert "2 done; 1 failed (1 BadRequestError)" in first.err
        assert f"the first to fail was {failure['key']}: {failure['error']}\n" in first.err
        assert "To go on: neuralbox batch in.txt -o out.jsonl\n" in first.err
        assert "1 done; 2 done before" in second.err
        assert "To go on" not in second.err
        assert 3 == len(by_key(file_lines())) == len(server.billed)
        assert not [row for row in file_lines() if "error" in row]

    def test_command(self, batch, server):
        """The command to go on is quoted as a shell needs it."""
        server.fail(400)
        arguments = ("-o", "my out", "--template", "It's {prompt}\n?")
        done = batch("a\n", *arguments)
        (_, command) = done.err.split("To go on: ")

        assert ["neuralbox", "batch", "in.txt", *arguments] == shlex.split(command)

    def test_pointless(self, batch, server, monkeypatch):
        """A wrong key stops the batch with status 4, and is never shown."""
        monkeypatch.setenv("NEURALBOX_API_KEY", SECRET)
        done = batch("".join(f"p{number}\n" for number in range(100)), "-o", "out.jsonl", "-c", "2")

        assert 4 == done.status
        assert 4 >= len(server.requests)
        assert SECRET not in done.err + done.out
        assert "not started" in done.err
        assert "AuthenticationError" in done.err
        assert "To go on: neuralbox batch" in done.err

    def test_budget(self, batch, serve):
        """A budget is never exceeded, by all runs together; without one the rest follows."""
        server = serve(prices={"m": 10})
        arguments = ("-o", "out.jsonl", "--model", "m")
        first = batch("a\nb\nc\nd\n", *arguments, "--budget", "25")
        second = batch("a\nb\nc\nd\n", *arguments, "--budget", "25")
        assert 20 == sum(generation.tokens_used for generation in server.billed)
        third = batch("a\nb\nc\nd\n", *arguments, "--budget", "39")
        assert 30 == sum(generation.tokens_used for generation in server.billed)
        fourth = batch("a\nb\nc\nd\n", *arguments)

        assert [4, 4, 4, 0] == [done.status for done in (first, second, third, fourth)]
        assert "the budget of 25 tokens does not cover another generation of m: 20 are spent" in second.err
        assert "To go on, with a larger --budget: neuralbox batch in.txt" in first.err
        assert "; 20 tokens; " in first.err
        assert "; 0 tokens (20 in all runs); " in second.err
        assert "; 10 tokens (30 in all runs); " in third.err
        assert "; 10 tokens (40 in all runs); " in fourth.err
        assert 4 == len(by_key(file_lines())) == len(server.billed)

    def test_budget_and_doubt(self, batch, server):
        """What may have been billed besides is said to have cost more, perhaps: sent twice, or not reached again."""
        server.drop("after")
        batch("a\n", "-o", "out.jsonl", "--budget", "9")
        done = batch("a\n", "-o", "out.jsonl", "--budget", "9", "--on-unknown", "retry")

        assert 0 == done.status
        assert "1 done; 2 tokens (up to 2 more for what may have been billed)" in done.err

    def test_doubt_not_reached(self, batch, server):
        """What is only at risk is not called spent, nor sent twice."""
        server.drop("after")
        batch("a\n", "-o", "out.jsonl", "--budget", "3")
        done = batch("b\na\n", "-o", "out.jsonl", "--budget", "3")

        assert 4 == done.status
        assert "2 are spent, counting 2 that may have been billed without an answer" in done.err
        assert "2 not started; 0 tokens (up to 2 more for what may have been billed)" in done.err

    @pytest.mark.parametrize("end", [("--", "in.txt"), ("in.txt",), ("in.txt", "--"), ("in.txt", "--on-unknown=skip")])
    def test_command_after_options(self, run, folder, server, end):
        """The command to send again is one that works, where an argument stands behind ``--`` too."""
        (folder / "in.txt").write_text("a\n")
        server.drop("after")
        first, second = (run("batch", "-o", "out.jsonl", *end) for _ in range(2))
        (_, command) = second.err.split("perhaps pay twice: ")
        again = run(*shlex.split(command)[1:])

        assert [3, 3, 0] == [done.status for done in (first, second, again)]

    def test_balance_below_budget(self, batch, serve):
        """At the end of the balance a larger budget would not help, and is not asked for."""
        serve(prices={"m": 10}, balance=15)
        done = batch("a\nb\n", "-o", "out.jsonl", "--model", "m", "--budget", "100", "--check-balance")

        assert 4 == done.status
        assert "the balance of 15 tokens" in done.err
        assert "To go on: neuralbox batch" in done.err

    def test_check_balance(self, batch, serve):
        """With --check-balance nothing is sent that the account could not pay."""
        server = serve(balance=5)
        done = batch("a\nb\nc\n", "-c", "1", "--check-balance")

        assert 4 == done.status
        assert "the balance of 5 tokens" in done.err
        assert 2 == len(server.billed) == len(lines(done.out))
        assert {200} == {request.response_status for request in server.requests}

    def test_balance(self, batch, serve):
        """An empty account stops the batch."""
        serve(balance=0)
        assert 4 == (done := batch("a\nb\n", "-c", "1")).status
        assert "InsufficientTokensError" in done.err
        assert "there is no journal" in done.err

    def test_half_a_character(self, batch, serve, folder):
        """Text that UTF-8 cannot carry is written all the same, and read back from the journal."""
        serve(reply="\ud83d!")
        assert 0 == batch("Hi\n", "-o", "out.jsonl").status
        first = (folder / "out.jsonl").read_bytes()
        assert 0 == batch("Hi\n", "-o", "out.jsonl").status

        assert first == (folder / "out.jsonl").read_bytes()
        assert ["\ud83d!"] == [row["content"] for row in file_lines()]

    def test_unknown(self, batch, server):
        """What may have been billed without an answer is reported, and sent again only when told to."""
        server.drop("after")
        first = batch("a\n", "-o", "out.jsonl")
        second = batch("a\n", "-o", "out.jsonl")
        third = batch("a\n", "-o", "out.jsonl", "--on-unknown", "ask")
        assert 1 == len(server.billed)
        fourth = batch("a\n", "-o", "out.jsonl", "--on-unknown", "retry")

        assert [3, 3, 4, 0] == [done.status for done in (first, second, third, fourth)]
        assert "1 may have been billed without an answer" in first.err
        assert "1 failed (1 OutcomeUnknownError)" in second.err
        assert "--on-unknown retry\n" in second.err
        assert "nothing was sent" in third.err
        assert ["You said: a"] == [row["content"] for row in file_lines()]
        assert 2 == len(server.billed)
