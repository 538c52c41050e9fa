"""`neuralbox batch` in this process: options, requests, messages and exit statuses."""

from __future__ import annotations

import json
import os
import shlex
import time

import pytest
from batch_files import by_key, file_lines, jsonl, lines

pytestmark = pytest.mark.usefixtures("folder")


SECRET = "nb_secret_0123456789"


class TestOptions:
    def test_request(self, batch, server):
        """The options apply to rows that do not set these fields."""
        options = ("--model", "m0", "--system", "Briefly.", "--temperature", "0", "--max-tokens", "7")
        assert 0 == batch(jsonl({"prompt": "a"}, {"prompt": "b", "model": "m1"}), *options, name="in.jsonl").status

        models = {request.json["messages"][-1]["content"]: request.json["model"] for request in server.requests}
        assert {"a": "m0", "b": "m1"} == models
        assert {("Briefly.", 0.0, 7)} == {
            (request.json["system"], request.json["temperature"], request.json["max_tokens"])
            for request in server.requests
        }

    def test_concurrency(self, batch, serve):
        """No more than --max-concurrency requests are in flight, and --ordered keeps the order of the rows."""
        server = serve(latency=0.02)
        done = batch("".join(f"p{number}\n" for number in range(20)), "-c", "3", "--ordered")

        assert 0 == done.status
        assert list(range(1, 21)) == [row["line"] for row in lines(done.out)]
        assert 3 >= server.peak_in_flight

    def test_local(self, batch, folder):
        """--local needs no API key, and its journal is never used for generations of the API."""
        done = batch("Hi\n", "-o", "out.jsonl", "--local")
        real = batch("Hi\n", "-o", "out.jsonl")

        assert (0, ["You said: Hi"]) == (done.status, [row["content"] for row in file_lines()])
        assert (folder / "out.jsonl.local.journal.jsonl").exists()
        assert 2 == real.status
        assert "its content is in no journal" in real.error_line

    @pytest.mark.parametrize(
        "arguments,expected",
        [
            (("--max-rate", "fast"), "'fast' is not a valid float"),
            (("--max-rate", "0"), "--max-rate"),
            (("--max-rate", "nan"), "max_rate must be a number of requests per second above 0"),
            (("--max-rate", "inf"), "max_rate must be a number of requests per second above 0"),
            (("--budget", "0"), "--budget"),
            (("--timeout", "0"), "--timeout"),
            (("--timeout", "nan"), "timeout must be"),
            (("--max-retries", "-1"), "--max-retries"),
            (("--max-concurrency", "0"), "--max-concurrency"),
            (("--on-unknown", "guess"), "--on-unknown"),
            (("--model", ""), "model must be"),
            (("--journal", "a", "--no-journal"), "are mutually exclusive"),
            (("-o", "in.txt"), "INPUT and OUTPUT are the same file"),
            (("--journal", "in.txt"), "INPUT and the journal are the same file"),
            (("-o", "a", "--journal", "./a"), "OUTPUT and the journal are the same file"),
        ],
    )
    def test_invalid(self, batch, server, arguments, expected):
        """An invalid option is reported in one line before anything is sent."""
        done = batch("Hi\n", *arguments)

        assert (2, "") == (done.status, done.out)
        assert expected in done.error_line
        assert () == server.requests
        assert ["in.txt"] == os.listdir()  # noqa: PTH208

    def test_max_rate(self, batch, server):
        """--max-rate limits the requests per second."""
        started = time.monotonic()
        assert 0 == batch("".join(f"p{number}\n" for number in range(6)), "--max-rate", "10").status
        assert 0.3 < time.monotonic() - started
        assert 6 == len(server.billed)

    def test_timeout(self, batch, server):
        """--timeout limits each request, and one that times out does not stop the others."""
        server.delay(30)
        done = batch("a\nb\n", "-c", "1", "--timeout", "0.3")

        assert 3 == done.status
        assert {"APITimeoutError", None} == {row.get("error_type") for row in lines(done.out)}

    @pytest.mark.parametrize("retries,status", [("0", 3), ("1", 0)])
    def test_retries(self, batch, server, retries, status):
        """--max-retries sets how often a request that was not billed is retried."""
        server.fail(503)
        assert status == batch("a\n", "--max-retries", retries).status

    def test_no_key(self, batch):
        """Without an API key, there is one line on stderr and no output file."""
        done = batch("Hi\n", "-o", "out.jsonl")

        assert 2 == done.status
        assert "no API key" in done.error_line
        assert ["in.txt"] == os.listdir()  # noqa: PTH208

    def test_no_input(self, run, server):
        """A missing file and a closed stdin are reported in one line."""
        assert "missing.txt" in run("batch", "missing.txt").error_line
        assert "There are no rows" in run("batch", stdin=None).error_line
        assert () == server.requests


class TestResults:
    def test_line(self, batch, server):
        """A result line has all facts, and is the same when it is restored from the journal."""
        batch(jsonl({"key": "a", "prompt": "Hi ☃"}), "-o", "out.jsonl", name="in.jsonl")
        (first,) = file_lines()
        os.remove("out.jsonl")  # noqa: PTH107
        batch(jsonl({"key": "a", "prompt": "Hi ☃"}), "-o", "out.jsonl", name="in.jsonl")

        (billed,) = server.billed
        assert [first] == file_lines()
        assert {"key": "a", "line": 1, "content": "You said: Hi ☃", "model": "gpt-5"}.items() <= first.items()
        assert (billed.id, billed.tokens_used, 1) == (first["id"], first["tokens_used"], first["attempts"])
        assert 0 < first["elapsed"] < 60

    def test_failures(self, batch, server):
        """If some rows fail, the status is 3; the next run sends these rows again, and no others."""
        server.fail(400, message="no\x1b[2J way")
        first = batch("a\nb\nc\n", "-o", "out.jsonl")
        (failure,) = (row for row in file_lines() if "error_type" in row)
        second = batch("a\nb\nc\n", "-o", "out.jsonl")

        assert (3, 0) == (first.status, second.status)
        assert ("BadRequestError", "no", 0) == (failure["error_type"], failure["billed"], failure["tokens_used"])
        assert "no\ufffd[2J way" in failure["message"]
        assert "2 completed; 1 failed (1 BadRequestError)" in first.err
        assert f"first failure: {failure['key']}: {failure['message']}\n" in first.err
        assert "To continue: neuralbox batch in.txt -o out.jsonl\n" in first.err
        assert "1 completed; 2 completed by earlier runs" in second.err
        assert "To continue" not in second.err
        assert 3 == len(by_key(file_lines())) == len(server.billed)
        assert not [row for row in file_lines() if "error_type" in row]

    def test_command(self, batch, server):
        """The command line that continues the batch is quoted for a shell."""
        server.fail(400)
        arguments = ("-o", "my out", "--template", "It's {prompt}\n?")
        done = batch("a\n", *arguments)
        (_, command) = done.err.split("To continue: ")

        assert ["neuralbox", "batch", "in.txt", *arguments] == shlex.split(command)

    def test_invalid_key(self, batch, server, monkeypatch):
        """A wrong API key stops the batch with status 4, and is never shown."""
        monkeypatch.setenv("NEURALBOX_API_KEY", SECRET)
        done = batch("".join(f"p{number}\n" for number in range(100)), "-o", "out.jsonl", "-c", "2")

        assert 4 == done.status
        assert 4 >= len(server.requests)
        assert SECRET not in done.err + done.out
        assert "not started" in done.err
        assert "AuthenticationError" in done.err
        assert "To continue: neuralbox batch" in done.err

    def test_budget(self, batch, serve):
        """All runs together never exceed the budget; a run without a budget sends the rest."""
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
        assert "To continue, with a larger --budget: neuralbox batch in.txt" in first.err
        assert "; 20 tokens; " in first.err
        assert "; 0 tokens (20 in all runs); " in second.err
        assert "; 10 tokens (30 in all runs); " in third.err
        assert "; 10 tokens (40 in all runs); " in fourth.err
        assert 4 == len(by_key(file_lines())) == len(server.billed)

    def test_budget_possibly_billed(self, batch, server):
        """The summary has the tokens of a request that may have been billed, also after it was sent again."""
        server.drop("after")
        batch("a\n", "-o", "out.jsonl", "--budget", "9")
        done = batch("a\n", "-o", "out.jsonl", "--budget", "9", "--on-unknown", "retry")

        assert 0 == done.status
        assert "1 completed; 2 tokens (up to 2 more may have been billed)" in done.err

    def test_budget_used_by_unknown(self, batch, server):
        """The tokens of a request that may have been billed count towards the budget, and it is not sent again."""
        server.drop("after")
        batch("a\n", "-o", "out.jsonl", "--budget", "3")
        done = batch("b\na\n", "-o", "out.jsonl", "--budget", "3")

        assert 4 == done.status
        assert "2 are spent, counting 2 that may have been billed without a response" in done.err
        assert "2 not started; 0 tokens (up to 2 more may have been billed)" in done.err

    @pytest.mark.parametrize("end", [("--", "in.txt"), ("in.txt",), ("in.txt", "--"), ("in.txt", "--on-unknown=skip")])
    def test_command_after_options(self, run, folder, server, end):
        """The command line that sends rows again works, also with an argument after ``--``."""
        (folder / "in.txt").write_text("a\n")
        server.drop("after")
        first, second = (run("batch", "-o", "out.jsonl", *end) for _ in range(2))
        (_, command) = second.err.split("(they may be billed twice): ")
        again = run(*shlex.split(command)[1:])

        assert [3, 3, 0] == [done.status for done in (first, second, again)]

    def test_balance_below_budget(self, batch, serve):
        """When the balance is used up, a larger budget is not suggested."""
        serve(prices={"m": 10}, balance=15)
        done = batch("a\nb\n", "-o", "out.jsonl", "--model", "m", "--budget", "100", "--limit-to-balance")

        assert 4 == done.status
        assert "the balance of 15 tokens" in done.err
        assert "To continue: neuralbox batch" in done.err

    def test_limit_to_balance(self, batch, serve):
        """With --limit-to-balance, nothing is sent that the balance does not cover."""
        server = serve(balance=5)
        done = batch("a\nb\nc\n", "-c", "1", "--limit-to-balance")

        assert 4 == done.status
        assert "the balance of 5 tokens" in done.err
        assert 2 == len(server.billed) == len(lines(done.out))
        assert {200} == {request.response_status for request in server.requests}

    def test_no_balance(self, batch, serve):
        """An account without tokens stops the batch."""
        serve(balance=0)
        assert 4 == (done := batch("a\nb\n", "-c", "1")).status
        assert "InsufficientTokensError" in done.err
        assert "there is no journal" in done.err

    def test_lone_surrogate(self, batch, serve, folder):
        """Text that UTF-8 cannot encode has U+FFFD in its place, also when it is restored from the journal."""
        serve(reply="\ud83d!")
        assert 0 == batch("Hi\n", "-o", "out.jsonl").status
        first = (folder / "out.jsonl").read_bytes()
        assert 0 == batch("Hi\n", "-o", "out.jsonl").status

        assert first == (folder / "out.jsonl").read_bytes()
        assert ["\ufffd!"] == [row["content"] for row in file_lines()]

    def test_unknown(self, batch, server):
        """A request that may have been billed is reported, and sent again only by --on-unknown retry."""
        server.drop("after")
        first = batch("a\n", "-o", "out.jsonl")
        second = batch("a\n", "-o", "out.jsonl")
        third = batch("a\n", "-o", "out.jsonl", "--on-unknown", "ask")
        assert 1 == len(server.billed)
        fourth = batch("a\n", "-o", "out.jsonl", "--on-unknown", "retry")

        assert [3, 3, 4, 0] == [done.status for done in (first, second, third, fourth)]
        assert "1 request may have been billed without a response" in first.err
        assert "1 failed (1 OutcomeUnknownError)" in second.err
        assert "--on-unknown retry\n" in second.err
        assert "nothing was sent" in third.err
        assert ["You said: a"] == [row["content"] for row in file_lines()]
        assert 2 == len(server.billed)


class TestChangedRows:
    KEYED = '{"key": "a", "prompt": "Hi"}\n{"key": "b", "prompt": "Ho"}\n'
    # A new row comes first: it is not sent either.
    CHANGED = '{"key": "c", "prompt": "New"}\n{"key": "a", "prompt": "Hi"}\n{"key": "b", "prompt": "Other"}\n'

    def test_refused(self, batch, server, folder):
        """A row with another request under the key of a row that is done is refused; nothing is sent or written."""
        assert 0 == batch(self.KEYED, "-o", "out.jsonl", name="in.jsonl").status
        before = (folder / "out.jsonl").read_bytes()
        done = batch(self.CHANGED, "-o", "out.jsonl", name="in.jsonl")

        assert 1 == done.status
        assert "1 of the rows differ from those that earlier runs sent with the same keys (b)" in done.error_line
        assert "--on-changed skip" in done.error_line
        assert "--on-changed retry" in done.error_line
        assert "on_changed=" not in done.err
        assert 2 == len(server.billed)
        assert before == (folder / "out.jsonl").read_bytes()

    def test_skipped(self, batch, server, folder):
        """With --on-changed skip the earlier result stays, and the new rows are sent."""
        batch(self.KEYED, "-o", "out.jsonl", name="in.jsonl")
        done = batch(self.CHANGED, "-o", "out.jsonl", "--on-changed", "skip", name="in.jsonl")

        assert 0 == done.status
        assert 3 == len(server.billed)
        contents = [json.loads(line)["content"] for line in (folder / "out.jsonl").read_text("utf-8").splitlines()]
        assert {"You said: Hi", "You said: Ho", "You said: New"} == set(contents)

    def test_same_rows(self, batch, server):
        """Other defaults, orders and further rows of the same requests are no changes."""
        batch(self.KEYED, "-o", "out.jsonl", name="in.jsonl")
        rows = "".join(reversed(self.KEYED.splitlines(keepends=True))) + '{"key": "c", "prompt": "New"}\n'

        assert 0 == batch(rows, "-o", "out.jsonl", "-c", "1", name="in.jsonl").status
        assert 3 == len(server.billed)

    def test_retried(self, batch, server):
        """With --on-changed retry changed rows are sent again, and the output has one line for each row: the last."""
        batch(self.KEYED, "-o", "out.jsonl", name="in.jsonl")
        done = batch(self.CHANGED, "-o", "out.jsonl", "--on-changed", "retry", name="in.jsonl")

        assert (0, 4) == (done.status, len(server.billed))
        expected = {"a": "You said: Hi", "b": "You said: Other", "c": "You said: New"}
        for again in ([], ["--on-changed", "retry"], ["--on-changed", "skip", "--ordered"]):
            assert 3 == len(file_lines())
            assert expected == {row["key"]: row["content"] for row in file_lines()}
            assert 0 == batch(self.CHANGED, "-o", "out.jsonl", *again, name="in.jsonl").status
        assert 4 == len(server.billed)

    def test_dry_run_of_a_retry(self, batch, server, folder):
        """A dry run counts the changed rows as left if they would be sent again."""
        batch(self.KEYED, "-o", "out.jsonl", name="in.jsonl")
        skipped = batch(self.CHANGED, "-o", "out.jsonl", "--on-changed", "skip", "--dry-run", name="in.jsonl")
        retried = batch(self.CHANGED, "-o", "out.jsonl", "--on-changed", "retry", "--dry-run", name="in.jsonl")

        assert "3 rows, 2 completed by earlier runs, 1 left" in skipped.out
        assert "3 rows, 1 completed by earlier runs, 2 left" in retried.out
        assert '"Other"' in retried.out
        assert 2 == len(server.billed)

    def test_a_retry_that_fails(self, batch, server):
        """A changed row that is sent again and fails has its error in the output, and not the result of another row."""
        batch(self.KEYED, "-o", "out.jsonl", name="in.jsonl")
        server.fail(500, code="provider_error")
        options = ["--on-changed", "retry", "--max-retries", "0", "-c", "1"]
        changed = self.CHANGED.splitlines(keepends=True)
        assert 3 == batch("".join(changed[1:]), "-o", "out.jsonl", *options, name="in.jsonl").status
        assert {"a": None, "b": "ProviderError"} == {row["key"]: row.get("error_type") for row in file_lines()}

        assert 0 == batch("".join(changed[1:]), "-o", "out.jsonl", *options, name="in.jsonl").status
        assert {"a": "You said: Hi", "b": "You said: Other"} == {row["key"]: row["content"] for row in file_lines()}
