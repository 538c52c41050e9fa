"""How `neuralbox batch` recognises formats: nothing is sent that was not understood."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import zipfile

import pytest
from batch_files import jsonl, lines, prompts

pytestmark = pytest.mark.usefixtures("folder")

ARRAY = ["one", {"prompt": "two", "model": "m2"}, {"messages": [{"role": "user", "content": "three"}], "key": "k"}]
EXPECTED = ["one", "three", "two"]


def archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as zipped:
        zipped.writestr("xl/workbook.xml", "<workbook>\nWrite a haiku\n</workbook>")
    return file.getvalue()


class TestArrays:
    @pytest.mark.parametrize("indent", [None, 2])
    @pytest.mark.parametrize("wrap", [False, True])
    @pytest.mark.parametrize("name", ["in.json", "in.jsonl", "in", "in.JSON", "in.data"])
    def test_array(self, batch, server, name, indent, wrap):
        """An array of strings and objects is read as rows, also as the only member of an object."""
        if wrap and name == "in.jsonl":
            pytest.skip("an object on the first line of JSONL is a row")
        done = batch(json.dumps({"rows": ARRAY} if wrap else ARRAY, indent=indent), name=name)

        assert (0, EXPECTED) == (done.status, prompts(server))
        rows = {row["line"]: row for row in lines(done.out)}
        assert {1, 2, 3} == set(rows)
        assert ("You said: one", "m2", "k") == (rows[1]["content"], rows[2]["model"], rows[3]["key"])

    @pytest.mark.parametrize("indent", [None, 2])
    def test_stdin(self, run, server, indent):
        """An array is recognised on stdin, too."""
        done = run("batch", stdin=b"\xef\xbb\xbf\n " + json.dumps(ARRAY, indent=indent).encode())

        assert (0, EXPECTED) == (done.status, prompts(server))

    def test_repetitions(self, batch, server):
        """Repeated items have keys of their own, also on one line, and the second run sends none of them again."""
        rows = json.dumps(["Hi", "Hi", "Ho", "Hi"])
        first = batch(rows, "-o", "out.jsonl", name="in.json")
        second = batch(rows, "-o", "out.jsonl", name="in.json")

        assert (0, 0, 4) == (first.status, second.status, len(server.billed))
        assert "4 completed by earlier runs" in second.err

    def test_any_cut(self, batch, server):
        """Where the pieces that are read end makes no difference."""
        random.seed(1)
        texts = ['ä☃\U0001f600\\"\n' * random.randrange(9000) + str(number) for number in range(40)]
        done = batch(json.dumps(texts, ensure_ascii=False, indent=1), name="in.json")

        assert (0, sorted(texts)) == (done.status, prompts(server))

    def test_template(self, batch, server):
        """A template takes the members of an object; a string is the member `prompt`."""
        done = batch(json.dumps([{"prompt": "a"}, "b"]), "--template", "A {prompt}!", name="in.json")

        assert (0, ["A a!", "A b!"]) == (done.status, prompts(server))

    def test_json_lines(self, batch, server):
        """Objects on lines of their own are read from a file that is called JSON."""
        assert 0 == batch(jsonl({"prompt": "a"}, {"prompt": "b"}), name="in.json").status
        assert ["a", "b"] == prompts(server)

    def test_empty(self, batch, server):
        """An empty array has no rows."""
        assert (0, "") == ((done := batch("[ ]", name="in.json")).status, done.out)
        assert () == server.requests

    def test_invalid_items(self, batch, server):
        """Invalid items are reported by their numbers; --skip-invalid skips them."""
        rows = json.dumps(["a", 1, None, ["b"], {"prompt": ""}, {"prompt": "c", "Model": "m"}, "d"])
        done = batch(rows, name="in.json")

        assert 2 == done.status
        for number, expected in {2: "neither", 3: "neither", 4: "neither", 5: "is empty", 6: "must be 'model'"}.items():
            assert any(f"item {number}: " in line and expected in line for line in done.err.splitlines())
        assert () == server.requests
        assert 0 == batch(rows, "--skip-invalid", name="in.json").status
        assert ["a", "d"] == prompts(server)

    @pytest.mark.parametrize(
        "text,expected",
        [
            ('["a", "b"', "line 1: the array has no end"),
            ('[\n"a",\n"b', "line 3: not valid JSON (Unterminated string"),
            ('[\n"a"\n"b"]', "line 3: ',' or ']' is missing"),
            ('["a",]', "line 1: not valid JSON"),
            ('["a"] x', "line 1: there is text after the end"),
            ('["a"]\n["b"]\n', "line 2: there is text after the end"),
            ('{"rows": ["a"], "model": "m"}', "line 1: the object around the rows"),
            ('{"rows": ["a"]', "line 1: the object around the rows"),
            ('{"prompt": "a"}', "this is a single object"),
            ('{\n  "prompt": "a"\n}\n{\n  "prompt": "b"\n}\n', "this is a single object"),
            ('{"messages": [{"role": "user", "content": "a"}]}', "this is a single object"),
            ('{"rows": "a"}', "this is a single object"),
            ("{}", "this is a single object"),
            ('["a", NaN]', "line 1: not valid JSON"),
            ("[" + "[" * 100_000, "line 1: not valid JSON"),
            ("", "this is not an array of rows"),
            ('"a"', "this is not an array of rows"),
            ("Write a haiku\n", "this is not an array of rows"),
            (b'["caf\xe9"]', "not valid UTF-8"),
            (b'["a\x00"]', "the file has NUL bytes"),
        ],
    )
    @pytest.mark.parametrize("skip", [(), ("--skip-invalid",)])
    def test_refused(self, batch, server, text, expected, skip):
        """A file that is not one whole array is refused, whether or not invalid rows are skipped."""
        done = batch(text, *skip, name="in.json")

        assert (2, "") == (done.status, done.out)
        assert f"in.json: {expected}" in done.error_line
        assert () == server.requests

    @pytest.mark.parametrize("first", ["{", '{"prompt": "a",', "[", '[{"prompt":'])
    @pytest.mark.parametrize("name", ["in.jsonl", "in", "in.ndjson"])
    def test_spread_objects(self, batch, server, first, name):
        """Objects that are spread over lines are refused: their lines are no rows, nor prompts."""
        done = batch(f'{first}\n"x"\n\n{{"prompt": "inner"}}\n', "--skip-invalid", name=name)

        assert 2 == done.status
        assert () == server.requests


class TestRecognition:
    @pytest.mark.parametrize(
        "data", ['["a"]', "[\n", '{"prompt": "a"}', "prompt,model\na,m\n", "prompt\tkey\n", "Prompt\n"]
    )
    def test_text_file(self, batch, server, data):
        """A text file that looks like another format is refused, and read with --format lines."""
        done = batch(data)

        assert 2 == done.status
        assert "choose --format " in done.error_line
        assert () == server.requests
        assert 0 == batch(data, "--format", "lines").status
        assert sorted(data.splitlines()) == prompts(server)

    @pytest.mark.parametrize(
        "data", ["[1] first\n", "[note] first\n", "{name} is\n", "{{braces}}\n", "<b>bold</b> text\n", '"quoted"\n']
    )
    def test_prose(self, batch, run, server, data):
        """A prompt may begin with a bracket, a brace or a quote."""
        assert (0, 0) == (batch(data).status, run("batch", stdin=data.encode()).status)
        assert 2 * [data.rstrip()] == prompts(server)

    @pytest.mark.parametrize("data", ["prompt,model\na,m1\n", "Prompt\tmodel\na\tm1\n", 'key,"prompt",model\n1,a,m1\n'])
    def test_table_on_stdin(self, run, server, data):
        """A header with the column `prompt` means CSV or TSV."""
        assert 0 == run("batch", stdin=data.encode()).status
        assert (["a"], "m1") == (prompts(server), server.requests[0].json["model"])

    def test_template_on_stdin(self, run, server):
        """A header with all columns of the template means CSV."""
        done = run("batch", "--template", "{word} in {to}", stdin=b"word,to\ncat,French\n")

        assert (0, ["cat in French"]) == (done.status, prompts(server))

    @pytest.mark.parametrize("name", ["in.yaml", "in.md", "in.xml", "in.txt~"])
    def test_unknown_extension(self, batch, server, name):
        """A file with an unknown extension is read by its content, and refused if that is not clear."""
        done = batch("- prompt: a\n", name=name)

        assert 2 == done.status
        assert "specify the --format" in done.error_line
        assert () == server.requests
        assert 0 == batch(jsonl({"prompt": "a"}), name=name).status
        assert 0 == batch("b\n", "--format", "lines", name=name).status
        assert ["a", "b"] == prompts(server)

    @pytest.mark.parametrize(
        "data,expected",
        [
            (archive(), "a spreadsheet or another ZIP archive"),
            (gzip.compress(b"Write a haiku\n", mtime=0), "compressed"),
            ("Write a haiku\n".encode("utf-16"), "in UTF-16"),
            ("Write a haiku\n".encode("utf-16-be"), "NUL bytes"),
            ("Write a haiku\n".encode("utf-32"), "UTF-16"),
            (b"%PDF-1.7\nWrite a haiku\n", "a PDF file"),
            (b"{\\rtf1 Write a haiku\n}", "a rich-text file"),
            (b"Write a haiku\nand \0 more\n", "NUL bytes"),
            (b"first\n" * 20_000 + b"and \0 more\n", "line 20001: the file has NUL bytes"),
            (b"<?xml version='1.0'?>\n<prompts>\n", "XML"),
        ],
    )
    @pytest.mark.parametrize("name", ["in.txt", "in", "in.jsonl", "in.json"])
    def test_other_contents(self, batch, server, data, expected, name):
        """What is not UTF-8 text is refused, also with --skip-invalid: some of its lines could pass for prompts."""
        done = batch(data, "--skip-invalid", name=name)

        assert 2 == done.status
        assert () == server.requests
        if name == "in":
            assert expected in done.error_line

    @pytest.mark.parametrize("file_format", ["lines", "jsonl", "json", "csv", "tsv"])
    def test_chosen_format(self, batch, server, file_format):
        """--format does not make text of bytes."""
        done = batch("prompt\nWrite\n".encode("utf-16-le"), "--format", file_format, "--skip-invalid")

        assert 2 == done.status
        assert () == server.requests

    @pytest.mark.parametrize("data", ["<prompts>\n<p>a</p>\n</prompts>\n", "<!DOCTYPE html>\n<p>a\n"])
    def test_markup(self, run, server, data):
        """XML and HTML are refused."""
        assert "looks like XML or HTML" in run("batch", stdin=data.encode()).error_line
        assert () == server.requests

    @pytest.mark.parametrize(
        "data,expected",
        [
            ("---\nprompts:\n  - a\n", "YAML"),
            ("- prompt: a\n  model: m\n", "YAML"),
            ("prompts:\n- a\n- b\n", "YAML"),
            ("| id | prompt |\n|---|---|\n| 1 | a |\n", "a table with"),
            ("id|prompt\n1|a\n", "a table with"),
        ],
    )
    @pytest.mark.parametrize("name", ["in.txt", "in", None])
    def test_formats_that_are_not_read(self, batch, run, server, data, expected, name):
        """YAML and tables with other separators are refused, and read with --format lines."""
        done = run("batch", stdin=data.encode()) if name is None else batch(data, name=name)

        assert 2 == done.status
        assert f"this looks like {expected}" in done.error_line
        assert () == server.requests
        assert 0 == run("batch", "--format", "lines", stdin=data.encode()).status
        assert sorted(data.splitlines()) == prompts(server)

    @pytest.mark.parametrize("template", [(), ("--template", "{x} {prompt}")])
    def test_deep_nesting(self, batch, server, template):
        """A row is valid or reported, however deeply it is nested; what can be sent is sent."""
        depths = [*range(940, 1020), 200_000]  # near the limits of CPython up to 3.13, and above that of newer ones
        rows = [f'{{"prompt": "a", "x": {"[" * depth}1{"]" * depth}}}\n' for depth in depths]
        done = batch('{"prompt": "b", "x": 1}\n' + "".join(rows), "--skip-invalid", *template, name="in.jsonl")

        assert "Traceback" not in done.err
        assert done.status in {0, 1}
        assert "line " in done.err

    def test_carriage_returns(self, batch, server):
        """Lines that end with a carriage return only are not one prompt."""
        done = batch("one\rtwo\r")

        assert 2 == done.status
        assert "line 1: a carriage return within the line" in done.err
        assert () == server.requests

    def test_folder(self, run, folder, server):
        """A folder is no input."""
        (folder / "in.txt").mkdir()
        done = run("batch", "in.txt")

        assert 2 == done.status
        assert "is a directory" in done.error_line
        assert () == server.requests

    def test_fifo(self, start, folder, server):
        """A FIFO is read to its end before anything is sent."""
        os.mkfifo(folder / "rows")
        process = start("batch", "rows")
        with open(folder / "rows", "w") as rows:  # noqa: PTH123
            rows.write('["a",\n"b"]')
        done = process.wait()

        assert (0, ["a", "b"]) == (done.status, prompts(server))

    @pytest.mark.parametrize("rest", ["", "{\n" * 30])
    def test_shrinking_input(self, batch, serve, folder, rest):
        """Rows that disappear or become invalid while the command runs are reported: they were not sent."""

        def reply(_request):
            (folder / "in.jsonl").write_text(rest)
            return "Hm."

        server = serve(reply=reply)
        # Larger than the buffer of a file, which has 128 KiB from CPython 3.14 on.
        rows = jsonl(*({"prompt": f"p{number}".ljust(20_000)} for number in range(20)))
        done = batch(rows, "-c", "1", name="in.jsonl")

        assert 1 == done.status
        assert "it has changed since it was validated: " in done.err.splitlines()[-1]
        assert len(server.billed) < 20

    def test_growing_input(self, batch, serve, folder):
        """Rows that are appended while the command runs are not sent, and it says so."""

        def reply(_request):
            with open(folder / "in.txt", "a") as rows:  # noqa: PTH123
                rows.write("and more\nlater\n")
            return "Hm."

        server = serve(reply=reply)
        done = batch("".join(f"p{number}\n" for number in range(5)) + "p5", "-c", "1")

        assert 1 == done.status
        assert "has changed since it was validated" in done.err
        assert {f"p{number}" for number in range(6)} >= set(prompts(server))
