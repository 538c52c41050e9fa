"""`neuralbox batch` in this process: what is read, what is sent, what is written, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex

import pytest

from neuralbox_async import read_journal

SECRET = "nb_secret_0123456789"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Every test has an empty folder to itself."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(run, folder):
    """Run the command for a file made of *rows*."""

    def batch(rows, *arguments, name="in.txt", **options):
        data = rows if isinstance(rows, bytes) else rows.encode()
        (folder / name).write_bytes(data)
        return run("batch", name, *arguments, **options)

    return batch


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(*rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def file_lines(name="out.jsonl"):
    with open(name, encoding="utf-8") as file:  # noqa: PTH123
        return lines(file.read())


def prompts(server):
    """What was asked, sorted."""
    return sorted(request.json["messages"][-1]["content"] for request in server.requests)


def by_key(rows):
    known = {row["key"]: row for row in rows}
    assert len(rows) == len(known)
    return known


class TestFormats:
    def test_lines(self, batch, server):
        """A prompt a line: blank lines are none, and the spaces of others are kept."""
        done = batch("\ufeffone\r\n\n  \t\n two \nthree")

        assert 0 == done.status
        assert [" two ", "one", "three"] == prompts(server)
        assert {1: "You said: one", 4: "You said:  two ", 5: "You said: three"} == {
            row["line"]: row["content"] for row in lines(done.out)
        }

    def test_jsonl(self, batch, server):
        """An object a line: its fields are those of a request, further members go out as they are."""
        done = batch(
            jsonl(
                {"key": "a", "messages": [{"role": "user", "content": "Hi"}], "model": "m1", "top_p": 0.5},
                {"key": 7, "prompt": "Ho", "temperature": 1, "max_tokens": 3, "system": "Briefly."},
                {"prompt": "Ha", "model": None, "extra_body": {"seed": 1}},
            ),
            "--ordered",
            name="in.jsonl",
        )

        assert 0 == done.status
        bodies = {request.json["messages"][-1]["content"]: request.json for request in server.requests}
        first, second, third = bodies["Hi"], bodies["Ho"], bodies["Ha"]
        assert ("m1", 0.5) == (first["model"], first["top_p"])
        assert (1, 3, "Briefly.") == (second["temperature"], second["max_tokens"], second["system"])
        assert ("gpt-5", 1) == (third["model"], third["seed"])
        assert ["a", "7"] == [row["key"] for row in lines(done.out)][:2]

    def test_csv(self, batch, server):
        """Cells may have quotes, commas and line breaks; lines are counted as they are in the file."""
        rows = table(
            ("key", "prompt", "temperature", "notes"), ("a", 'Say "hi",\nplease', "0.5", "mine"), ("b", "x", "", "")
        )
        done = batch("\ufeff" + rows, name="in.CSV")

        assert 0 == done.status
        assert ['Say "hi",\nplease', "x"] == prompts(server)
        assert {"a": 2, "b": 4} == {row["key"]: row["line"] for row in lines(done.out)}
        bodies = {request.json["messages"][-1]["content"]: request.json for request in server.requests}
        assert 0.5 == bodies['Say "hi",\nplease']["temperature"]
        assert bodies["x"].get("temperature") is None
        assert not [body for body in bodies.values() if "notes" in body]

    @pytest.mark.parametrize("arguments", [(), ("-",)])
    @pytest.mark.parametrize("stdin", [b"one\ntwo\n", b'\n{"prompt": "one"}\n{"prompt": "two"}\n'])
    def test_stdin(self, run, server, arguments, stdin):
        """Without a file the rows come from stdin; whether they are JSON is told by the first."""
        done = run("batch", *arguments, stdin=stdin)

        assert (0, 2) == (done.status, len(lines(done.out)))
        assert ["one", "two"] == prompts(server)

    def test_format(self, batch, server):
        """What the file is can be said; then its name means nothing."""
        assert 0 == batch("prompt\nHi\n", "--format", "csv", name="in.txt").status
        assert ["Hi"] == prompts(server)

    def test_no_rows(self, batch, server):
        """No rows are all done."""
        assert (0, "") == ((done := batch("\n")).status, done.out)
        assert () == server.requests

    def test_repetitions(self, batch, server):
        """The same prompt twice is asked twice, under two keys, which are the same in each run."""
        rows = "Hi\nHi\nHo\n" + "Hi\n" * 9
        done = batch(rows, "-o", "out.jsonl")
        first = {row["key"]: row["line"] for row in file_lines()}
        again = batch(rows, "-o", "out.jsonl")

        assert (0, 0) == (done.status, again.status)
        assert 12 == len(server.billed) == len(first)
        assert first == {row["key"]: row["line"] for row in file_lines()}
        assert {"", *(f"-{number}" for number in range(2, 12))} == {key[32:] for key in first}


class TestTemplate:
    @pytest.mark.parametrize(
        "rows,name",
        [
            (table(("word", "to"), ("cat", "French"), ("{dog}", "")), "in.csv"),
            (jsonl({"word": "cat", "to": "French"}, {"word": "{dog}", "to": ""}), "in.jsonl"),
        ],
    )
    def test_filled(self, batch, server, rows, name):
        """Columns are put in as they are, braces and all, and nothing else of the row is sent."""
        done = batch(rows, "--template", "{{{word}}} to {to}?", name=name)

        assert 0 == done.status
        assert ["{cat} to French?", "{{dog}} to ?"] == prompts(server)
        assert not [request for request in server.requests if {"word", "to"} & set(request.json)]

    def test_lines(self, batch, server):
        """A line is the column `prompt`."""
        assert 0 == batch("cat\n", "--template", "A {prompt}!").status
        assert ["A cat!"] == prompts(server)

    def test_values(self, batch, server):
        """What is not a string is filled in as JSON."""
        assert 0 == batch(jsonl({"n": 3, "l": ["é", True]}), "--template", "{n} {l}", name="in.jsonl").status
        assert ['3 ["é", true]'] == prompts(server)

    @pytest.mark.parametrize(
        "template,wanted",
        [
            ("Hi", "has no {column}"),
            ("{}", "a placeholder is the name of a column"),
            ("{a!r}", "a placeholder is the name of a column"),
            ("{a:>5}", "a placeholder is the name of a column"),
            ("{a", "expected '}'"),
        ],
    )
    def test_wrong(self, batch, server, template, wanted):
        """A template that makes no prompts is refused."""
        done = batch("a\n1\n", "--template", template, name="in.csv")

        assert 2 == done.status
        assert wanted in done.line
        assert () == server.requests

    @pytest.mark.parametrize("template", ["{word} {wrod}", "{word.__class__}"])
    def test_unknown_column(self, batch, server, template):
        """A placeholder without its column is found before anything is sent, and looks into nothing."""
        done = batch("word\ncat\n", "--template", template, name="in.csv")

        assert 2 == done.status
        assert "there is no column 'w" in done.line
        assert "there are 'word'" in done.line
        assert () == server.requests

    def test_unknown_member(self, batch, server):
        """In JSONL each row is looked at."""
        done = batch(jsonl({"word": "cat"}, {"wrod": "dog"}), "--template", "{word}", name="in.jsonl")

        assert 2 == done.status
        assert "in.jsonl, line 2: there is no 'word' for the template" in done.err
        assert () == server.requests


class TestBadRows:
    @pytest.mark.parametrize(
        "row,wanted",
        [
            ("{", "not JSON"),
            ("[1]", "not a JSON object"),
            ('{"prompt": NaN}', "not JSON"),
            ("[" * 100_000, "not JSON"),
            ("{}", "there is no 'prompt'"),
            ('{"prompt": ""}', "the prompt is empty"),
            ('{"prompt": 1}', "'prompt' is not a string"),
            ('{"prompt": "a", "messages": "b"}', "both 'prompt' and 'messages'"),
            ('{"messages": [{"role": "x", "content": "y"}]}', "messages[].role must be"),
            ('{"prompt": "a", "temperature": 3}', "temperature must be"),
            ('{"prompt": "a", "stream": true}', "without 'stream'"),
            ('{"prompt": "a", "key": ""}', "key must be"),
            ('{"prompt": "a", "key": "first"}', "the key 'first' is that of line 1 already"),
            ('{"prompt": "\\ud800"}', "lone surrogates"),
        ],
    )
    def test_jsonl(self, batch, server, row, wanted):
        """A row that cannot be sent is reported with its line, and nothing is sent."""
        done = batch('{"prompt": "Hi", "key": "first"}\n\n' + row + "\n", "-o", "out.jsonl", name="in.jsonl")

        assert (2, "") == (done.status, done.out)
        complaint, conclusion = done.err.splitlines()
        assert complaint.startswith("neuralbox: in.jsonl, line 3: ")
        assert wanted in complaint
        assert "1 of 2 rows are bad; nothing was sent" in conclusion
        assert () == server.requests
        assert ["in.jsonl"] == os.listdir()  # noqa: PTH208

    @pytest.mark.parametrize(
        "row,wanted",
        [
            (b'"unfinished', "line 4: not CSV"),
            (b"a,b,c", "line 4: 3 cells under 2 columns"),
            (b"caf\xe9,1", "line 4: not UTF-8 text: byte 3"),
            (b"x,warm", "line 4: temperature must be"),
            (b",1", "line 4: the prompt is empty"),
        ],
    )
    def test_csv(self, batch, server, row, wanted):
        """The same in CSV, where a row may begin lines before it ends."""
        done = batch(b'prompt,temperature\n"two\nlines",1\n' + row + b"\n", name="in.csv")

        assert 2 == done.status
        assert wanted in done.err
        assert () == server.requests

    def test_lines(self, batch, server):
        """A line that is no text is reported by itself."""
        done = batch(b"one\ncaf\xe9\nthree\n")

        assert 2 == done.status
        assert "in.txt, line 2: not UTF-8 text: byte 3" in done.err
        assert "1 of 3 rows" in done.err
        assert () == server.requests

    @pytest.mark.parametrize(
        "rows,wanted",
        [
            ("", "there is no header"),
            ("a,b,a\n1,2,3\n", "the header has 'a' twice"),
            ("a,b\n1,2\n", "there is no column 'prompt' (there are 'a', 'b')"),
            ('"a', "the header is not CSV"),
        ],
    )
    def test_header(self, batch, server, rows, wanted):
        """A table whose header does not fit is refused as a whole."""
        done = batch(rows, name="in.csv")

        assert 2 == done.status
        assert wanted in done.line
        assert () == server.requests

    def test_many(self, batch, server):
        """Ten are shown, the others counted."""
        done = batch("{\n" * 1012, name="in.jsonl")
        complaints = done.err.splitlines()

        assert (2, 12) == (done.status, len(complaints))
        assert "line 10: " in complaints[9]
        assert "and 1,002 more" in complaints[10]
        assert "1,012 of 1,012 rows" in complaints[11]
        assert () == server.requests

    def test_skipped(self, batch, server):
        """With --skip-bad the others are sent, and the summary counts those left out."""
        done = batch('{"prompt": "a"}\n{\n{"prompt": "b"}\n', "--skip-bad", name="in.jsonl")

        assert 0 == done.status
        assert {1, 3} == {row["line"] for row in lines(done.out)}
        assert "line 2: not JSON" in done.err
        assert "2 done; 1 left out as bad" in done.err
        assert ["a", "b"] == prompts(server)

    def test_harmless(self, batch, server):
        """What a row says of itself cannot move the cursor."""
        done = batch(jsonl({"prompt": "a", "key": "\x1b[2J"}, {"prompt": "b", "key": "\x1b[2J"}), name="in.jsonl")

        assert 2 == done.status
        assert "\x1b" not in done.err
        assert () == server.requests


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


class TestFiles:
    def test_foreign_output(self, batch, server):
        """A file that no journal knows is not replaced."""
        with open("out.jsonl", "w") as file:  # noqa: PTH123
            file.write("precious\n")
        for arguments in ((), ("--no-journal",)):
            done = batch("Hi\n", "-o", "out.jsonl", *arguments)

            assert 2 == done.status
            assert "no journal knows what is in it" in done.line
        with open("out.jsonl") as file:  # noqa: PTH123
            assert "precious\n" == file.read()
        assert () == server.requests

    def test_torn_output(self, batch, server):
        """Whatever a killed run left of the output, it is made whole from the journal, and keeps its mode."""
        rows = "a\nb\nc\n"
        batch(rows, "-o", "out.jsonl")
        whole = by_key(file_lines())
        with open("out.jsonl", "r+b") as file:  # noqa: PTH123
            file.truncate(len(file.readline()) + 5)
        os.chmod("out.jsonl", 0o600)  # noqa: PTH101

        assert 0 == batch(rows, "-o", "out.jsonl").status
        assert whole == by_key(file_lines())
        assert 0o600 == os.stat("out.jsonl").st_mode & 0o777  # noqa: PTH116
        assert 3 == len(server.billed)

    def test_link(self, batch, server):
        """A link stays one; what it leads to is written."""
        os.mkdir("elsewhere")  # noqa: PTH102
        os.symlink("elsewhere/out", "out.jsonl")  # noqa: PTH211

        assert 0 == batch("a\n", "-o", "out.jsonl").status
        assert os.path.islink("out.jsonl")  # noqa: PTH114
        assert 1 == len(file_lines("elsewhere/out")) == len(server.billed)

    def test_device(self, batch, server):
        """A device is written to, not replaced, and has no journal beside it."""
        assert 0 == batch("a\n", "-o", "/dev/null").status
        assert not os.path.isfile("/dev/null")  # noqa: PTH113
        assert 1 == len(server.billed)

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
    def test_disk_full(self, batch, server):
        """An output that cannot be written ends the run; with a journal nothing is lost."""
        done = batch("a\nb\n", "-o", "/dev/full", "--journal", "journal")

        assert 1 == done.status
        assert "No space left on device" in done.err
        assert "To go on: neuralbox batch in.txt -o /dev/full --journal journal\n" in done.err
        assert {entry.key for entry in read_journal("journal") if entry.event == "done"}
        assert len(server.billed) == sum(entry.event == "done" for entry in read_journal("journal"))

    def test_journal_alone(self, batch, server):
        """With a journal and no OUT, each run writes all that is known to stdout."""
        first = batch("a\nb\n", "--journal", "journal")
        second = batch("a\nb\nc\n", "--journal", "journal")

        assert by_key(lines(first.out)).items() <= by_key(lines(second.out)).items()
        assert 3 == len(lines(second.out)) == len(server.billed)

    def test_other_rows(self, batch, server):
        """Results of rows that are gone stay in the journal, and out of OUT."""
        batch("a\nb\n", "-o", "out.jsonl")
        assert 0 == batch("b\nc\n", "-o", "out.jsonl").status

        assert {1: "You said: b", 2: "You said: c"} == {row["line"]: row["content"] for row in file_lines()}
        assert 3 == len(server.billed)

    def test_order(self, batch, server):
        """With --ordered the file is in the order of the rows, whichever run did which."""
        rows = "".join(f"p{number}\n" for number in range(9))
        server.fail(400, times=4)
        batch(rows, "-o", "out.jsonl", "-c", "1")
        assert 0 == batch(rows, "-o", "out.jsonl", "--ordered").status

        assert [f"You said: p{number}" for number in range(9)] == [row["content"] for row in file_lines()]
        assert 9 == len(server.billed)

    def test_changed_meanwhile(self, batch, serve, folder):
        """Rows that are no longer those that were checked end the run, before they are sent."""

        def reply(_request):
            (folder / "in.txt").write_text("something else\n" * 4000)
            return "Hm."

        server = serve(reply=reply)
        done = batch("".join(f"p{number}".ljust(2000) + "\n" for number in range(20)), "-c", "1")

        assert 1 == done.status
        assert "in.txt: line" in done.err.splitlines()[-1]
        assert "has changed since it was checked" in done.err
        assert not [prompt for prompt in prompts(server) if "something" in prompt]

    def test_output_in_the_way(self, batch, server):
        """An output that cannot be made is an error of one line, before anything is sent."""
        os.mkdir("out.jsonl.new")  # noqa: PTH102
        done = batch("a\n", "-o", "out.jsonl")

        assert 1 == done.status
        assert "Is a directory" in done.line
        assert () == server.requests

    def test_no_journal_there(self, batch, server):
        """What is no journal is neither read as one nor written to."""
        with open("notes", "w") as file:  # noqa: PTH123
            file.write("precious\n")
        done = batch("Hi\n", "--journal", "notes")

        assert 1 == done.status
        assert "not the journal of a batch" in done.line
        assert () == server.requests
