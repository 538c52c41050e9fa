"""Tables as spreadsheets save them in `neuralbox batch`: delimiters, encodings, the user's keys and columns."""

from __future__ import annotations

import json

import pytest
from batch_files import by_key, file_lines, jsonl, lines, prompts

pytestmark = pytest.mark.usefixtures("folder")

HEADER = "Nr;Bewertung;Preis;Sterne\r\n"
TABLE = HEADER + '7;"Schön; aber ""teuer""";19,90;3\r\n8;"Zwei\nZeilen für 5 €";5,00;5\r\n9;Größe passt;0,5;4\r\n'
TEXTS = ['Schön; aber "teuer"', "Zwei\nZeilen für 5 €", "Größe passt"]
# What Excel with a German locale writes as "CSV UTF-8", "CSV", and "Unicode text".
DIALECTS = {
    "utf-8.csv": (TABLE.encode("utf-8-sig"), ()),
    "ansi.csv": (TABLE.encode("cp1252"), ("--encoding", "cp1252")),
    "unicode.tsv": (
        TABLE.replace(";", "\t").replace("Schön\t", "Schön;").encode("utf-16"),
        ("--encoding", "utf-16"),
    ),
}
BY_NUMBER = ("--template", "{Bewertung}", "--key-column", "Nr")


class TestDialects:
    @pytest.mark.parametrize("name", DIALECTS)
    def test_excel(self, batch, server, name):
        """Umlauts, decimal commas, quotes and line breaks arrive as they are in the cells, under the user's keys."""
        data, options = DIALECTS[name]
        done = batch(data, *options, *BY_NUMBER, "--keep", "Preis,Sterne", name=name)

        assert (0, sorted(TEXTS)) == (done.status, prompts(server))
        rows = by_key(lines(done.out))
        assert {"Preis": "19,90", "Sterne": "3"} == rows["7"]["item"]
        assert [(1, 2), (2, 3), (3, 5)] == [(rows[key]["row"], rows[key]["line"]) for key in "789"]
        assert all(set(request.json) <= {"model", "messages"} for request in server.requests)

    @pytest.mark.parametrize("delimiter", [";", "\t", ","])
    @pytest.mark.parametrize("cell, number", [("0,5", 0.5), ("1,25", 1.25), (" ,5 ", 0.5), ("0.5", 0.5), ("1", 1)])
    def test_decimal_comma(self, batch, server, delimiter, cell, number):
        """A temperature may have a decimal comma, as a German locale writes it."""
        header, row = delimiter.join(["prompt", "temperature"]), delimiter.join(["Hallo", f'"{cell}"'])
        assert 0 == batch(f"{header}\r\n{row}\r\n", "--delimiter", delimiter, name="in.csv").status
        assert [number] == [request.json["temperature"] for request in server.requests]

    @pytest.mark.parametrize(
        "column, cell, rule",
        [
            ("temperature", "1.000,5", "a number from 0.0 to 2.0, not '1.000,5'"),
            ("temperature", "2,5", "a number from 0.0 to 2.0, not 2.5"),
            ("temperature", "0,5,5", "a number from 0.0 to 2.0, not '0,5,5'"),
            ("max_tokens", "0,5", "an integer of at least 1, not '0,5'"),
            ("max_tokens", "1.000", "an integer of at least 1, not '1.000'"),
            ("max_tokens", "1,000", "an integer of at least 1, not '1,000'"),
        ],
    )
    def test_other_notations(self, batch, server, column, cell, rule):
        """A number whose separators are not those of a decimal is refused, with the cell and the rule."""
        done = batch(f"prompt;{column}\nHallo;{cell}\n", name="in.csv")
        assert (2, ()) == (done.status, server.requests)
        assert f"line 2: {column} must be {rule}" in done.err

    def test_wrong_encoding(self, batch, server):
        """Without its --encoding nothing of a file is sent, and the message names the option."""
        for name, (data, options) in DIALECTS.items():
            done = batch(data, *BY_NUMBER, name=name)
            assert (2, "") == (done.status, done.out) if options else 0 == done.status
            assert not options or f"--encoding {options[1]}" in done.err
        assert 3 == len(server.requests)

    @pytest.mark.parametrize(
        "encoding,expected", [("cp1253", "not valid cp1253"), ("rot13", "--encoding"), ("klingon", "--encoding")]
    )
    def test_unusable_encoding(self, batch, server, encoding, expected):
        """Bytes that the encoding does not have are refused, and so is a name that is no encoding."""
        done = batch(b"prompt\n\xd2\n", "--encoding", encoding, name="in.csv")

        assert 2 == done.status
        assert expected in done.error_line
        assert () == server.requests

    def test_stdin(self, run, server):
        """Stdin can be in another encoding, too."""
        done = run("batch", *BY_NUMBER, "--encoding", "cp1252", stdin=TABLE.encode("cp1252"))

        assert (0, sorted(TEXTS)) == (done.status, prompts(server))


class TestDelimiters:
    @pytest.mark.parametrize(
        "rows,name,options",
        [
            ("id|prompt\n1|a, b; c\n", "in.csv", ("--delimiter", "|")),
            ("id|prompt\n1|a, b; c\n", "in.txt", ("--delimiter", "|")),
            ("id\tprompt\n1\ta, b; c\n", "in.csv", ("--delimiter", "tab")),
            ("id\tprompt\n1\ta, b; c\n", "in.csv", ("--delimiter", "\\t")),
            ("id\tprompt\n1\ta, b; c\n", "in.csv", ()),
            ("id\tprompt\n1\ta, b; c\n", "in", ()),
            ('id;prompt\n1;"a, b; c"\n', "in.csv", ()),
            ('sep=;\r\nid;prompt\r\n1;"a, b; c"\r\n', "in.csv", ()),
            ('SEP=\t\r\nid\tprompt\r\n1\t"a, b; c"\r\n', "in.csv", ()),
            ("sep=|\nid|prompt\n1|a, b; c\n", "in", ()),
            ("\ufeffsep=;\nid|prompt\n1|a, b; c\n", "in.tsv", ("--delimiter", "|")),
        ],
    )
    def test_delimiter(self, batch, server, rows, name, options):
        """The delimiter is the option's, that of a first line "sep=;", or the one that separates the header."""
        assert 0 == batch(rows, *options, name=name).status
        assert ["a, b; c"] == prompts(server)

    @pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n"])
    def test_invalid(self, batch, server, delimiter):
        """A delimiter that cannot be one is refused."""
        done = batch("prompt\na\n", "--delimiter", delimiter, name="in.csv")

        assert 2 == done.status
        assert "--delimiter" in done.error_line
        assert () == server.requests

    def test_other_format(self, batch, server):
        """JSON has no delimiter."""
        done = batch('{"prompt": "a"}\n', "--delimiter", ";", "--format", "jsonl")

        assert (2, ()) == (done.status, server.requests)
        assert "--delimiter is for CSV and TSV" in done.error_line

    def test_quotes(self, batch, server):
        """A quote that is out of place is refused with any delimiter."""
        rows = 'prompt|key\none|1\nHe said "hi to\nme and left"|2\n'
        done = batch(rows, "--skip-invalid", "--delimiter", "|", name="in.csv")

        assert (2, ()) == (done.status, server.requests)
        assert "a quote inside a cell" in done.error_line


class TestKeys:
    @pytest.mark.parametrize(
        "rows,name",
        [
            ("ID,prompt,key\n1,a,x\n2,b,x\n", "in.csv"),
            (jsonl({"ID": 1, "prompt": "a", "key": "x"}, {"ID": "2", "prompt": "b"}), "in.jsonl"),
            (json.dumps([{"ID": 1, "prompt": "a"}, {"ID": 2, "prompt": "b"}]), "in.json"),
        ],
    )
    def test_column(self, batch, server, rows, name):
        """The keys are those of the column in each format, which is not sent; the next run completes nothing again."""
        arguments = ("-o", "out.jsonl", "--key-column", "ID")
        first, second = batch(rows, *arguments, name=name), batch(rows, *arguments, name=name)

        assert (0, 0) == (first.status, second.status)
        assert {"1": "You said: a", "2": "You said: b"} == {row["key"]: row["content"] for row in file_lines()}
        assert [{"model", "messages"}] * 2 == [set(request.json) for request in server.requests]

    @pytest.mark.parametrize(
        "rows,name,expected",
        [
            ("id,prompt\n1,a\n,b\n", "in.csv", "line 3: the key in 'id' is missing"),
            ("id,prompt\n1,a\n1,b\n", "in.csv", "the key '1' is already used in line 2"),
            ("prompt\na\n", "in.csv", "the column 'id' is missing (columns: 'prompt')"),
            (jsonl({"prompt": "a"}), "in.jsonl", "line 1: the key in 'id' is missing"),
            (jsonl({"prompt": "a", "id": 1.5}), "in.jsonl", "must be a string or an integer"),
            (jsonl({"prompt": "a", "id": True}), "in.jsonl", "must be a string or an integer"),
        ],
    )
    def test_invalid(self, batch, server, rows, name, expected):
        """A row without a key of its own is invalid, and so is a table without the column."""
        done = batch(rows, "--key-column", "id", name=name)

        assert (2, ()) == (done.status, server.requests)
        assert expected in done.err


class TestKeep:
    def test_all(self, batch, server):
        """`all` repeats the whole row as it is; what is no field of a request is not sent."""
        rows = [{"prompt": "a", "n": {"x": [1, None]}, "temperature": 1}, {"prompt": "b", "n": "ü"}]
        done = batch(jsonl(*rows), "--keep", "all", name="in.jsonl")

        assert 0 == done.status
        assert rows == [row["item"] for row in sorted(lines(done.out), key=lambda row: row["row"])]
        assert [{"model", "messages"}, {"model", "messages", "temperature"}] == sorted(
            (set(request.json) for request in server.requests), key=len
        )

    def test_names(self, batch, server):
        """Names with commas are quoted as in CSV; the option can be repeated; kept columns are used."""
        rows = 'prompt,"a, b",c,Key\nx,1,2,k\n'
        done = batch(rows, "--keep", '"a, b"', "--keep", "c,Key", name="in.csv")

        assert (0, {"a, b": "1", "c": "2", "Key": "k"}) == (done.status, lines(done.out)[0]["item"])
        assert "not used" not in done.err

    @pytest.mark.parametrize("rows,name", [("prompt\na\n", "in.csv"), (jsonl({"prompt": "a"}), "in.jsonl")])
    def test_missing(self, batch, server, rows, name):
        """A column that no row has is an error."""
        done = batch(rows, "--keep", "stars", name=name)

        assert (2, ()) == (done.status, server.requests)
        assert "'stars'" in done.error_line

    def test_failures_and_earlier_runs(self, batch, server):
        """Rows that failed and rows of earlier runs have their columns, too."""
        server.fail(400)
        arguments = ("-o", "out.jsonl", "--key-column", "id", "--keep", "stars", "-c", "1")
        rows = "id,prompt,stars\n1,a,5\n2,b,4\n"
        first = batch(rows, *arguments, name="in.csv")
        failed = by_key(file_lines())
        second = batch(rows, *arguments, name="in.csv")

        assert (3, 0) == (first.status, second.status)
        assert ["BadRequestError", None] == [failed[key].get("error_type") for key in "12"]
        for found in (failed, by_key(file_lines())):
            assert {"1": {"stars": "5"}, "2": {"stars": "4"}} == {key: row["item"] for key, row in found.items()}


class TestLimit:
    @pytest.mark.parametrize("name,rows", [("in.txt", "a\nb\nc\n"), ("in.json", '["a", "b", "c"]')])
    def test_first_rows(self, batch, server, name, rows):
        """--limit uses the first rows; without it, the next run sends the rest."""
        first = batch(rows, "-o", "out.jsonl", "--limit", "2", name=name)
        assert (0, ["a", "b"]) == (first.status, prompts(server))
        assert 0 == batch(rows, "-o", "out.jsonl", name=name).status
        assert ["a", "b", "c"] == prompts(server)
        assert [1, 2, 3] == sorted(row["row"] for row in file_lines())

    def test_invalid_rows(self, batch, server):
        """Invalid rows count, and those after the limit are not read."""
        rows = jsonl({"prompt": "a"}, {"prompt": ""}, {"prompt": "c"}, {})
        done = batch(rows, "--limit", "3", "--skip-invalid", name="in.jsonl")

        assert (0, ["a", "c"]) == (done.status, prompts(server))
        assert "line 4" not in done.err
