"""The output file and the journal of `neuralbox batch`."""

from __future__ import annotations

import os

import pytest
from batch_files import by_key, file_lines, lines, prompts

from neuralbox_async._cli import file_checks

pytestmark = pytest.mark.usefixtures("folder")


class TestFiles:
    def test_foreign_output(self, batch, server):
        """A file whose content is in no journal is not replaced."""
        with open("out.jsonl", "w") as file:  # noqa: PTH123
            file.write("precious\n")
        for arguments in ((), ("--no-journal",)):
            done = batch("Hi\n", "-o", "out.jsonl", *arguments)

            assert 2 == done.status
            assert "its content is in no journal" in done.error_line
        with open("out.jsonl") as file:  # noqa: PTH123
            assert "precious\n" == file.read()
        assert () == server.requests

    @pytest.mark.parametrize(
        "precious", ["precious\n", '{\n  "key": "a"\n}\n', '[1, 2]\n"end"', '{"name": "x"}\n', "a\nb"]
    )
    def test_foreign_output_and_a_journal(self, batch, server, folder, precious):
        """Nor is it replaced when the journal is one of another output."""
        assert 0 == batch("Hi\n", "-o", "out.jsonl", "--journal", "journal").status
        (folder / "notes.txt").write_text(precious)
        done = batch("Hi\nHo\n", "-o", "notes.txt", "--journal", "journal")

        assert 1 == done.status
        assert "notes.txt: line 1 is not a result of a batch and would be overwritten" in done.error_line
        assert precious == (folder / "notes.txt").read_text()
        assert 1 == len(server.billed)

    def test_incomplete_output(self, batch, server):
        """An output that a killed run left incomplete is restored from the journal, and keeps its mode."""
        rows = "a\nb\nc\n"
        batch(rows, "-o", "out.jsonl")
        complete = by_key(file_lines())
        with open("out.jsonl", "r+b") as file:  # noqa: PTH123
            file.truncate(len(file.readline()) + 5)
        os.chmod("out.jsonl", 0o600)  # noqa: PTH101

        assert 0 == batch(rows, "-o", "out.jsonl").status
        assert complete == by_key(file_lines())
        assert 0o600 == os.stat("out.jsonl").st_mode & 0o777  # noqa: PTH116
        assert 3 == len(server.billed)

    def test_link(self, batch, server):
        """A symbolic link stays; its target is written."""
        os.mkdir("elsewhere")  # noqa: PTH102
        os.symlink("elsewhere/out", "out.jsonl")  # noqa: PTH211

        assert 0 == batch("a\n", "-o", "out.jsonl").status
        assert os.path.islink("out.jsonl")  # noqa: PTH114
        assert 1 == len(file_lines("elsewhere/out")) == len(server.billed)

    def test_device(self, batch, server):
        """A device is written to, not replaced, and gets no journal."""
        assert 0 == batch("a\n", "-o", "/dev/null").status
        assert not os.path.isfile("/dev/null")  # noqa: PTH113
        assert 1 == len(server.billed)

    def test_journal_without_output(self, batch, server):
        """With a journal and no OUTPUT, each run writes the results of all runs to stdout."""
        first = batch("a\nb\n", "--journal", "journal")
        second = batch("a\nb\nc\n", "--journal", "journal")

        assert by_key(lines(first.out)).items() <= by_key(lines(second.out)).items()
        assert 3 == len(lines(second.out)) == len(server.billed)

    def test_other_rows(self, batch, server):
        """Results of removed rows stay in the journal, and are not in OUTPUT."""
        batch("a\nb\n", "-o", "out.jsonl")
        assert 0 == batch("b\nc\n", "-o", "out.jsonl").status

        assert {1: "You said: b", 2: "You said: c"} == {row["line"]: row["content"] for row in file_lines()}
        assert 3 == len(server.billed)

    def test_order(self, batch, server):
        """With --ordered, the file has the order of the rows, whichever run completed them."""
        rows = "".join(f"p{number}\n" for number in range(9))
        server.fail(400, times=4)
        batch(rows, "-o", "out.jsonl", "-c", "1")
        assert 0 == batch(rows, "-o", "out.jsonl", "--ordered").status

        assert [f"You said: p{number}" for number in range(9)] == [row["content"] for row in file_lines()]
        assert 9 == len(server.billed)

    @pytest.mark.parametrize("option", ["-o", "--journal"])
    def test_empty_path(self, batch, server, option):
        """An empty path, as of a shell variable that is not set, is not the working directory."""
        done = batch("Hi\n", option, "")

        assert 2 == done.status
        assert "path of the output or of the journal is empty" in done.error_line
        assert () == server.requests

    def test_two_runs_without_a_journal(self, start, serve, folder):
        """Two runs with one output and no journal: neither replaces what the other has written."""
        server = serve(latency=0.02)
        for name in ("a", "b"):
            (folder / name).write_text("".join(f"{name}{number}\n" for number in range(60)))
        runs = [start("batch", name, "-o", "out", "--no-journal", "-c", "2") for name in ("a", "b")]
        results = [run.wait() for run in runs]

        assert {0, 1, 2} >= {result.status for result in results}
        assert len(server.billed) == len(file_lines("out")) >= 60

    @pytest.mark.parametrize("arguments", [("--no-journal",), ()])
    def test_output_with_content_by_now(self, batch, server, folder, monkeypatch, arguments):
        """An output that another program writes to after it was checked is not replaced, and nothing is sent."""
        check_content = file_checks.check_content

        def check_and_write(*files):
            check_content(*files)
            (folder / "out").write_text('{"key": "k", "content": "paid"}\n')

        monkeypatch.setattr(file_checks, "check_content", check_and_write)
        done = batch("Hi\n", "-o", "out", *arguments)

        assert 1 == done.status
        assert {"key": "k", "content": "paid"} == file_lines("out")[0]
        assert () == server.requests

    def test_changed_input(self, batch, serve, folder):
        """Rows that changed after they were validated end the run before they are sent."""

        def reply(_request):
            (folder / "in.txt").write_text("something else\n" * 4000)
            return "Hm."

        server = serve(reply=reply)
        done = batch("".join(f"p{number}".ljust(2000) + "\n" for number in range(20)), "-c", "1")

        assert 1 == done.status
        assert "in.txt: line" in done.err.splitlines()[-1]
        assert "has changed since it was validated" in done.err
        assert not [prompt for prompt in prompts(server) if "something" in prompt]

    def test_not_a_journal(self, batch, server):
        """A file that is not a journal is not written to."""
        with open("notes", "w") as file:  # noqa: PTH123
            file.write("precious\n")
        done = batch("Hi\n", "--journal", "notes")

        assert 1 == done.status
        assert "not a journal of a batch" in done.error_line
        assert () == server.requests
