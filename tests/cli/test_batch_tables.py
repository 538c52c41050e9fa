"""CSV and TSV in `neuralbox batch`: quotes that are out of place, headers, and cells."""

from __future__ import annotations

import pytest
from batch_files import lines, prompts

pytestmark = pytest.mark.usefixtures("folder")


def bodies(server):
    return {request.json["messages"][-1]["content"]: request.json for request in server.requests}


class TestQuotes:
    @pytest.mark.parametrize(
        "rows",
        [
            'prompt,key\none,1\n"He said "hi to\nme and left",2\nthree,3\n',
            'prompt,key\none,1\n"He said "hi" to\nme and left",2\nthree,3\n',
            'prompt,key\none,1\nHe said "hi to\nme and left",2\nthree,3\n',
            'prompt,key\none,1\nHe "said\nme and left"\nthree,3\n',
            'prompt,key\none,1\n "two\nlines",2\nthree,3\n',
            'prompt,key\none,1\n"one", two\nthree",2\n',
            'prompt\none\nHe said "hi to\nme" and left\nthree\n',
            'prompt\none\n"never closed\nthree\n',
            'prompt\tkey\none\t1\n"He said "hi to\nme and left"\t2\n',
            'prompt\tkey\none\t1\n "two\nlines"\t2\n',
            'key, prompt\n1, "Hi"\n',
            'prompt,key\n"one"\r"two",1\n',
        ],
    )
    @pytest.mark.parametrize("skip", [(), ("--skip-invalid",)])
    def test_out_of_place(self, batch, server, rows, skip):
        """At a quote that is out of place nothing is sent, not even with --skip-invalid: rows cannot be told apart."""
        done = batch(rows, *skip, name="in.tsv" if "\t" in rows else "in.csv")

        assert (2, "") == (done.status, done.out)
        assert "in.csv: line " in done.error_line or "in.tsv: line " in done.error_line
        assert () == server.requests

    def test_invalid_bytes(self, batch, server):
        """A cell of several lines, one of which is not UTF-8, is skipped as a whole."""
        rows = b'prompt,key\none,1\n"two\ncaf\xe9\nand more",2\nthree,3\n"\xff",4\n'
        assert 2 == batch(rows, name="in.csv").status
        assert () == server.requests
        done = batch(rows, "--skip-invalid", name="in.csv")

        assert 0 == done.status
        assert ["one", "three"] == prompts(server)
        assert "line 3: not valid UTF-8" in done.err
        assert "line 7: not valid UTF-8" in done.err

    def test_number_of_cells(self, batch, server):
        """A well-formed row with another number of cells is skipped, also if it has quotes."""
        rows = 'prompt,key\n"a ""b""",1\n"a","b","c"\nx\ny,2\n'
        assert 2 == batch(rows, name="in.csv").status
        assert 0 == batch(rows, "--skip-invalid", name="in.csv").status
        assert ['a "b"', "y"] == prompts(server)

    def test_quotes_in_tsv(self, batch, server):
        """In TSV, a quote inside a cell is a quote; cells may be quoted as in CSV."""
        rows = 'key\tprompt\n1\tHe said "hi", and left\n2\t"two\nlines\tand ""more"""\n'

        assert 0 == batch(rows, name="in.tsv").status
        assert ['He said "hi", and left', 'two\nlines\tand "more"'] == prompts(server)


class TestHeader:
    def test_blanks(self, batch, server):
        """Blanks around names and cells do not count, except in prompts; names may have any case."""
        rows = 'prompt , Max_Tokens,\tMODEL ,temperature, system\n" one ", 5 , m1\t, 0.5 , Be brief. \ntwo, , , ,\n'
        done = batch("\ufeff" + rows, name="in.csv")

        assert 0 == done.status
        one, two = bodies(server)[" one "], bodies(server)["two"]
        assert (5, "m1", 0.5, " Be brief. ") == (one["max_tokens"], one["model"], one["temperature"], one["system"])
        assert "gpt-5" == two["model"]
        assert [None, None] == [two.get("max_tokens"), two.get("temperature")]

    def test_keys(self, batch, server):
        """A key keeps its blanks: a journal identifies rows by it."""
        assert [" a "] == [row["key"] for row in lines(batch("prompt, key\none, a \n", name="in.csv").out)]
        assert 1 == len(server.billed)

    @pytest.mark.parametrize(
        "header,expected",
        [
            ("prompt,temprature", "'temprature' is unknown; is it 'temperature'?"),
            ("prompt,Max tokens", "'Max tokens' is unknown; is it 'max_tokens'?"),
            ("prompt,max-tokens", "is it 'max_tokens'?"),
            ("prompt,maxTokens", "is it 'max_tokens'?"),
            ("prompt,modle", "is it 'model'?"),
            ("prompt,sytem", "is it 'system'?"),
            ("prompt,system prompt", "is it 'system'?"),
            ("prompts,key", "the column 'prompt' is missing"),
            ("prompt, prompt", "the header has the column 'prompt' twice"),
            ("model,prompt,Model", "the header has the column 'model' twice"),
            ("prompt,model\ufeff,model", "twice"),
            ("promt,model", "the column 'prompt' is missing"),
            ("caf\udce9,prompt", "the header is not valid UTF-8"),
        ],
    )
    def test_refused(self, batch, server, header, expected):
        """A column that is there twice, or is a field with a typo, is refused: another request would be billed."""
        cells = ",".join("a" for _ in header.split(","))
        done = batch(f"{header}\n{cells}\n".encode(errors="surrogateescape"), "--skip-invalid", name="in.csv")

        assert (2, "") == (done.status, done.out)
        assert expected in done.error_line
        assert () == server.requests

    @pytest.mark.parametrize("arguments", [(), ("--template", "{prompt}!")])
    def test_other_columns(self, batch, server, arguments):
        """Columns that nothing reads are named; columns without a name may repeat."""
        done = batch("prompt,notes,,prompt_id,\na,b,,1,\n", *arguments, name="in.csv")

        assert 0 == done.status
        assert "neuralbox: in.csv: columns that are not used: 'notes', 'prompt_id'\n" in done.err
        assert 1 == len(server.billed)

    def test_template_columns(self, batch, server):
        """A column that the template uses may be called like a field, nearly."""
        done = batch("prompts,Model,system\na,m1,b\n", "--template", "{prompts} {Model}", name="in.csv")

        assert (0, ["a m1"]) == (done.status, prompts(server))
        assert "not used" not in done.err


class TestCells:
    @pytest.mark.parametrize(
        "row", ["a,1_000,", "a,0x10,", "a,five,", "a,1.5,", "a,-1,", "a,0,", "a,,nan", "a,,1_0", 'a,"1,5",', "a,,inf"]
    )
    def test_invalid_numbers(self, batch, server, row):
        """A number in another notation is refused."""
        done = batch(f"prompt,max_tokens,temperature\n{row}\n", name="in.csv")

        assert 2 == done.status
        assert "line 2: " in done.err
        assert () == server.requests

    def test_tsv(self, batch, server):
        """TSV is read like CSV, with tabs; commas are part of a cell."""
        rows = "key\tprompt\tmodel\r\nk1\tone, two\tm1\r\n\r\nk2\tthree\t\r\n"
        done = batch(rows, name="in.tsv")

        assert (0, ["one, two", "three"]) == (done.status, prompts(server))
        assert {"k1": 2, "k2": 4} == {row["key"]: row["line"] for row in lines(done.out)}
        assert "m1" == bodies(server)["one, two"]["model"]


class TestSpreadsheets:
    ROWS = 'id;"prompt";model\n1;"Hello; ""you"",\nthere";m1\n2;a, b;\n'

    @pytest.mark.parametrize("bom", ["", "\ufeff"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    @pytest.mark.parametrize("name", ["in.csv", None])
    def test_semicolons(self, batch, run, server, bom, newline, name):
        """Spreadsheets write semicolons where a comma is the decimal point."""
        rows = bom + self.ROWS.replace("\n", newline)
        done = run("batch", stdin=rows.encode()) if name is None else batch(rows, name=name)

        hello = f'Hello; "you",{newline}there'
        assert (0, [hello, "a, b"]) == (done.status, prompts(server))
        assert ("m1", "gpt-5") == (bodies(server)[hello]["model"], bodies(server)["a, b"]["model"])

    def test_quotes(self, batch, server):
        """A quote that is out of place is refused with semicolons, too."""
        done = batch('prompt;key\none;1\nHe said "hi to\nme and left";2\n', "--skip-invalid", name="in.csv")

        assert 2 == done.status
        assert "a quote inside a cell" in done.error_line
        assert () == server.requests

    def test_commas_first(self, batch, server):
        """A file with commas stays one, also if a column has a semicolon in its name."""
        assert 0 == batch("prompt,a;b\nx; y,1\n", name="in.csv").status
        assert ["x; y"] == prompts(server)
