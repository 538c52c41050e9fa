"""The input of `neuralbox batch`: formats, templates and invalid rows."""

from __future__ import annotations

import csv
import io
import os

import pytest
from batch_files import file_lines, jsonl, lines, prompts

pytestmark = pytest.mark.usefixtures("folder")


def table(*rows):
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


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
