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
        """Each line is a prompt: blank lines are skipped, and spaces are kept."""
        done = batch("\ufeffone\r\n\n  \t\n two \nthree")

        assert 0 == done.status
        assert [" two ", "one", "three"] == prompts(server)
        assert {1: "You said: one", 4: "You said:  two ", 5: "You said: three"} == {
            row["line"]: row["content"] for row in lines(done.out)
        }

    def test_jsonl(self, batch, server):
        """Each line is an object: its fields are those of a request, and other members are sent unchanged."""
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
        assert ("m1", None) == (first["model"], first.get("top_p"))
        assert (1, 3, "Briefly.") == (second["temperature"], second["max_tokens"], second["system"])
        assert ("gpt-5", 1) == (third["model"], third["seed"])
        assert ["a", "7"] == [row["key"] for row in lines(done.out)][:2]

    def test_csv(self, batch, server):
        """Cells may contain quotes, commas and line breaks; line numbers are those of the file."""
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
        """Without a file, rows are read from stdin; the first one decides whether they are JSON."""
        done = run("batch", *arguments, stdin=stdin)

        assert (0, 2) == (done.status, len(lines(done.out)))
        assert ["one", "two"] == prompts(server)

    def test_format(self, batch, server):
        """--format overrides the file extension."""
        assert 0 == batch("prompt\nHi\n", "--format", "csv", name="in.txt").status
        assert ["Hi"] == prompts(server)

    def test_no_rows(self, batch, server):
        """A file without rows is a success."""
        assert (0, "") == ((done := batch("\n")).status, done.out)
        assert () == server.requests

    def test_repetitions(self, batch, server):
        """A repeated prompt is sent again under another key, and keys are the same in each run."""
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
    def test_fill(self, batch, server, rows, name):
        """Values are inserted unchanged, including braces, and the other columns are not sent."""
        done = batch(rows, "--template", "{{{word}}} to {to}?", name=name)

        assert 0 == done.status
        assert ["{cat} to French?", "{{dog}} to ?"] == prompts(server)
        assert not [request for request in server.requests if {"word", "to"} & set(request.json)]

    def test_lines(self, batch, server):
        """A line is the column `prompt`."""
        assert 0 == batch("cat\n", "--template", "A {prompt}!").status
        assert ["A cat!"] == prompts(server)

    def test_values(self, batch, server):
        """Values that are not strings are inserted as JSON."""
        assert 0 == batch(jsonl({"n": 3, "l": ["é", True]}), "--template", "{n} {l}", name="in.jsonl").status
        assert ['3 ["é", true]'] == prompts(server)

    @pytest.mark.parametrize(
        "template,expected",
        [
            ("Hi", "has no {column}"),
            ("{}", "a placeholder is the name of a column"),
            ("{a!r}", "a placeholder is the name of a column"),
            ("{a:>5}", "a placeholder is the name of a column"),
            ("{a", "expected '}'"),
        ],
    )
    def test_invalid(self, batch, server, template, expected):
        """An invalid template is a usage error."""
        done = batch("a\n1\n", "--template", template, name="in.csv")

        assert 2 == done.status
        assert expected in done.error_line
        assert () == server.requests

    @pytest.mark.parametrize("template", ["{word} {wrod}", "{word.__class__}"])
    def test_unknown_column(self, batch, server, template):
        """A placeholder without a column is reported before anything is sent, and reads no attributes."""
        done = batch("word\ncat\n", "--template", template, name="in.csv")

        assert 2 == done.status
        assert "the column 'w" in done.error_line
        assert "is missing (columns: 'word') (see neuralbox batch --help)" in done.error_line
        assert () == server.requests

    def test_unknown_member(self, batch, server):
        """In JSONL, each row is checked for the members of the template."""
        done = batch(jsonl({"word": "cat"}, {"wrod": "dog"}), "--template", "{word}", name="in.jsonl")

        assert 2 == done.status
        assert "in.jsonl, line 2: 'word' is missing; the template needs it" in done.err
        assert () == server.requests


class TestInvalidRows:
    @pytest.mark.parametrize(
        "row,expected",
        [
            ("{", "not valid JSON"),
            ("[1]", "not a JSON object"),
            ('{"prompt": NaN}', "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ("{}", "'prompt' is missing"),
            ('{"prompt": ""}', "the prompt is empty"),
            ('{"prompt": 1}', "prompt must be a string, not 1"),
            ('{"prompt": "a", "messages": "b"}', "prompt must be absent if there are 'messages'"),
            ('{"messages": [{"role": "x", "content": "y"}]}', "messages[].role must be"),
            ('{"prompt": "a", "temperature": 3}', "temperature must be"),
            ('{"prompt": "a", "key": ""}', "key must be"),
            ('{"prompt": "a", "key": "first"}', "the key 'first' is already used in line 1"),
            ('{"prompt": "\\ud800"}', "lone surrogates"),
        ],
    )
    def test_jsonl(self, batch, server, row, expected):
        """An invalid row is reported with its line number, and nothing is sent."""
        done = batch('{"prompt": "Hi", "key": "first"}\n\n' + row + "\n", "-o", "out.jsonl", name="in.jsonl")

        assert (2, "") == (done.status, done.out)
        message, conclusion = done.err.splitlines()
        assert message.startswith("neuralbox: in.jsonl, line 3: ")
        assert expected in message
        assert "1 of 2 rows are invalid; nothing was sent" in conclusion
        assert () == server.requests
        assert ["in.jsonl"] == os.listdir()  # noqa: PTH208

    @pytest.mark.parametrize(
        "row,expected",
        [
            (b'"unfinished', "line 4: not valid CSV"),
            (b"a,b,c", "line 4: 3 cells for 2 columns"),
            (b"caf\xe9,1", "line 4: not valid UTF-8: byte 3"),
            (b"x,warm", "line 4: temperature must be"),
            (b",1", "line 4: the prompt is empty"),
        ],
    )
    def test_csv(self, batch, server, row, expected):
        """An invalid row of a CSV file is reported with the line where it begins."""
        done = batch(b'prompt,temperature\n"two\nlines",1\n' + row + b"\n", name="in.csv")

        assert 2 == done.status
        assert expected in done.err
        assert () == server.requests

    def test_lines(self, batch, server):
        """A line that is not UTF-8 is reported, and the others are read."""
        done = batch(b"one\ncaf\xe9\nthree\n")

        assert 2 == done.status
        assert "in.txt, line 2: not valid UTF-8: byte 3" in done.err
        assert "1 of 3 rows" in done.err
        assert () == server.requests

    @pytest.mark.parametrize(
        "rows,expected",
        [
            ("", "the header is missing"),
            ("a,b,a\n1,2,3\n", "the header has the column 'a' twice"),
            ("a,b\n1,2\n", "the column 'prompt' is missing (columns: 'a', 'b'); --template makes prompts from any"),
            ("a;b c,d;e\n1;2;3\n", "the column 'prompt' is missing (columns: 'a', 'b c,d', 'e'); --template"),
            ('"a', "the header is not valid CSV"),
        ],
    )
    def test_header(self, batch, server, rows, expected):
        """A CSV file with an invalid header is a usage error."""
        done = batch(rows, name="in.csv")

        assert 2 == done.status
        assert expected in done.error_line
        assert () == server.requests

    def test_many(self, batch, server):
        """The first ten invalid rows are reported, the others are counted."""
        done = batch("{]\n" * 1012, name="in.jsonl")
        messages = done.err.splitlines()

        assert (2, 12) == (done.status, len(messages))
        assert "line 10: " in messages[9]
        assert "and 1,002 more" in messages[10]
        assert "1,012 of 1,012 rows" in messages[11]
        assert () == server.requests

    def test_skip_invalid(self, batch, server):
        """With --skip-invalid, the valid rows are sent, and the summary counts the others."""
        done = batch('{"prompt": "a"}\n{\n{"prompt": "b"}\n', "--skip-invalid", name="in.jsonl")

        assert 0 == done.status
        assert {1, 3} == {row["line"] for row in lines(done.out)}
        assert "line 2: not valid JSON" in done.err
        assert "2 completed; 1 invalid row skipped" in done.err
        assert ["a", "b"] == prompts(server)

    def test_escape_sequences(self, batch, server):
        """A message about a row contains no escape sequences."""
        done = batch(jsonl({"prompt": "a", "key": "\x1b[2J"}, {"prompt": "b", "key": "\x1b[2J"}), name="in.jsonl")

        assert 2 == done.status
        assert "\x1b" not in done.err
        assert () == server.requests
