"""Where `neuralbox batch` writes: which files it replaces, which it only writes to, and which it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import socket
import stat
import subprocess
import sys

import pytest
from batch_files import by_key, file_lines, lines, prompts

from neuralbox_async import read_journal

ROWS = "".join(f"p{number}\n" for number in range(4))


@pytest.fixture(autouse=True)
def rows(folder):
    """A file of rows in the working directory."""
    path = folder / "in.txt"
    path.write_text(ROWS)
    return path


def contents(lines):
    return sorted(line["content"] for line in lines)


EXPECTED = [f"You said: p{number}" for number in range(4)]


class TestReplacement:
    @pytest.mark.parametrize("kind", ["file", "link", "dangling", "folder"])
    def test_other_file(self, run, server, folder, kind):
        """Whatever is called OUTPUT.new stays as it is."""
        other, target = folder / "out.jsonl.new", folder / "target"
        match kind:
            case "file":
                other.write_text("precious")
            case "folder":
                other.mkdir()
            case _:
                other.symlink_to("target")
                if kind == "link":
                    target.write_text("precious")
        before = (os.lstat(other), target.exists() and target.read_text())
        assert 0 == run("batch", "in.txt", "-o", "out.jsonl").status

        assert before == (os.lstat(other), target.exists() and target.read_text())
        assert EXPECTED == contents(file_lines())
        assert 4 == len(server.billed)

    @pytest.mark.parametrize("role", ["input", "journal"])
    def test_own_file(self, run, server, rows, role):
        """The input and the journal may be called OUTPUT.new."""
        rows = rows.rename("out.jsonl.new") if role == "input" else rows
        journal = "out.jsonl.new" if role == "journal" else "journal"
        options = ("-o", "out.jsonl", "--journal", journal, "--format", "lines", "--ordered")
        first, second = (run("batch", rows.name, *options) for _ in range(2))

        assert (0, 0) == (first.status, second.status)
        assert EXPECTED == contents(file_lines())
        assert ROWS == rows.read_text()
        assert 4 == len(server.billed) == sum(entry.event == "done" for entry in read_journal(journal))

    @pytest.mark.usefixtures("server")
    def test_permissions(self, run, folder):
        """A new output has the permissions of any new file; a replaced one keeps its own, and so does its owner."""
        mask = os.umask(0o027)
        try:
            run("batch", "in.txt", "-o", "out.jsonl")
        finally:
            os.umask(mask)
        output = folder / "out.jsonl"
        assert 0o640 == stat.S_IMODE(output.stat().st_mode)
        output.chmod(0o604)
        if os.geteuid() == 0:
            os.chown(output, 1234, 1234)
        before = output.stat()
        assert 0 == run("batch", "in.txt", "-o", "out.jsonl", "--ordered").status
        after = output.stat()

        assert (before.st_mode, before.st_uid, before.st_gid) == (after.st_mode, after.st_uid, after.st_gid)

    def test_no_leftovers(self, run, server, folder, monkeypatch):
        """When the output cannot be replaced, nothing is sent, and no temporary file stays."""

        def refuse(*_):
            raise PermissionError(13, "Permission denied", "out.jsonl")

        monkeypatch.setattr("os.replace", refuse)
        done = run("batch", "in.txt", "-o", "out.jsonl")

        assert (1, "neuralbox: out.jsonl: Permission denied") == (done.status, done.error_line)
        assert () == server.requests
        assert {"in.txt", "out.jsonl.journal.jsonl"} == {path.name for path in folder.iterdir()}

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")  # noqa: PTH112
    def test_closed_before_replacement(self, run, server, monkeypatch):
        """A file is not open when it is replaced, and neither is its replacement: Windows would refuse that."""
        replace, replaced = os.replace, []

        def open_files():
            for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
                with contextlib.suppress(OSError):
                    yield os.stat(f"/proc/self/fd/{name}")  # noqa: PTH116

        def checked_replace(source, target):
            for path in (source, target):
                if os.path.exists(path):  # noqa: PTH110
                    status = os.stat(path)  # noqa: PTH116
                    assert not [one for one in open_files() if os.path.samestat(one, status)], path
            replaced.append(target)
            replace(source, target)

        monkeypatch.setattr("os.replace", checked_replace)
        server.fail(400, times=2)
        first, second = (run("batch", "in.txt", "-o", "out.jsonl", "--ordered", "-c", "1") for _ in range(2))

        assert (3, 0, 3) == (first.status, second.status, len(replaced))
        assert EXPECTED == [line["content"] for line in file_lines()]


class TestSameFile:
    @pytest.mark.parametrize("kind", ["same", "spelling", "link", "hard link"])
    @pytest.mark.parametrize(
        "roles", [("INPUT", "OUTPUT"), ("INPUT", "journal"), ("OUTPUT", "journal"), ("INPUT", "OUTPUT", "journal")]
    )
    def test_refused(self, run, server, folder, kind, roles):
        """No two of input, output and journal may be one file, whatever their paths."""
        (folder / "file").write_text(ROWS)
        match kind:
            case "link":
                (folder / "other").symlink_to("file")
            case "hard link":
                os.link("file", "other")
        other = {"same": "file", "spelling": f"../{folder.name}/./file"}.get(kind, "other")
        paths = {"INPUT": "in.txt", "OUTPUT": "out.jsonl", "journal": "journal"}
        paths |= {roles[0]: "file", roles[1]: other, roles[-1]: other}
        done = run("batch", paths["INPUT"], "-o", paths["OUTPUT"], "--journal", paths["journal"], "--format", "lines")

        assert 2 == done.status
        assert "are the same file" in done.error_line
        assert () == server.requests
        assert ROWS == (folder / "file").read_text()

    @pytest.mark.parametrize(
        "shell",
        ["in.txt >> in.txt", "- < in.txt >> in.txt", "- < in.txt -o in.txt", "- < in.txt -o x --journal ./in.txt"],
    )
    def test_redirected(self, start, server, rows, shell):
        """Redirected files count, too: results that are appended to the input would become its rows."""
        command = ("sh", "-c", f'exec "$0" -m neuralbox_async batch {shell}', sys.executable)
        done = start(command=command).wait()

        assert 2 == done.status
        assert "are the same file" in done.error_line
        assert () == server.requests
        assert ROWS == rows.read_text()

    def test_terminal(self, at_terminal, server):
        """Stdin and stdout may be the same terminal."""
        terminal = at_terminal("batch", "-")
        terminal.type(b"Hello\n\x04\x04")

        assert 0 == terminal.wait()
        assert ["Hello"] == prompts(server)


class TestStreams:
    @pytest.mark.parametrize("path", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
    @pytest.mark.parametrize("target", ["pipe", "file", "socket"])
    def test_stdout(self, start, server, folder, path, target):
        """A path of stdout is stdout: a file is appended to, and there is no journal."""
        if not os.path.exists(path):  # noqa: PTH110
            pytest.skip(f"needs {path}")
        file = folder / "file"
        match target:
            case "pipe":
                done = start("batch", "in.txt", "-o", path).wait()
                out = done.out
            case "file":
                file.write_text("before\n")
                with file.open("a") as stdout:
                    done = start("batch", "in.txt", "-o", path, stdout=stdout).wait()
                out = file.read_text().removeprefix("before\n")
            case _:
                ours, theirs = socket.socketpair()
                with ours, theirs:
                    done = start("batch", "in.txt", "-o", path, stdout=theirs).wait()
                    theirs.close()
                    out = ours.makefile().read()

        assert (0, EXPECTED) == (done.status, contents(lines(out)))
        assert 4 == len(server.billed)
        assert not os.path.exists(f"{path}.journal.jsonl")  # noqa: PTH110
        assert {"in.txt", "file"} >= {entry.name for entry in folder.iterdir()}

    @pytest.mark.parametrize("command", ["-o >(cat > copy)", "-o /dev/fd/3 3> copy", "-o /dev/stderr 2> copy"])
    def test_descriptors(self, start, server, folder, command):
        """Another open descriptor, such as that of a process substitution, is written to."""
        script = f'"$0" -m neuralbox_async batch in.txt {command} && wait $!'
        done = start(command=("bash", "-c", script, sys.executable)).wait()
        written = [line for line in (folder / "copy").read_text().splitlines() if line.startswith("{")]

        assert (0, "") == (done.status, done.out)
        assert EXPECTED == sorted(json.loads(line)["content"] for line in written)
        assert 4 == len(server.billed)

    @pytest.mark.parametrize("path", ["/dev/fd/77", "/dev/fd/0"])
    def test_no_descriptor(self, start, server, path):
        """A descriptor that is not open for writing is refused before anything is sent."""
        with open(__file__) as stdin:  # noqa: PTH123
            done = start("batch", "in.txt", "-o", path, "--no-journal", stdin=stdin).wait()

        assert (1, "neuralbox: Bad file descriptor") == (done.status, done.error_line)
        assert () == server.requests

    def test_fifo(self, start, server, folder):
        """A FIFO is written to when it has a reader, and stays a FIFO."""
        os.mkfifo(folder / "fifo")
        process = start("batch", "in.txt", "-o", "fifo")
        written = (folder / "fifo").read_text()

        assert (0, EXPECTED) == (process.wait().status, contents(lines(written)))
        assert (folder / "fifo").is_fifo()
        assert {"in.txt", "fifo"} == {path.name for path in folder.iterdir()}
        assert 4 == len(server.billed)

    def test_fifo_without_reader(self, start, server, folder):
        """A FIFO that no process reads is refused: opening it would wait indefinitely."""
        os.mkfifo(folder / "fifo")
        done = start("batch", "in.txt", "-o", "fifo").wait()

        assert (1, "neuralbox: fifo: no process reads from it") == (done.status, done.error_line)
        assert () == server.requests

    @pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket"])
    @pytest.mark.parametrize("default", [False, True])
    def test_journal(self, start, server, folder, kind, default):
        """A journal that is not a regular file is refused before it is opened."""
        path = folder / "out.jsonl.journal.jsonl"
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
            case "device":
                path.symlink_to("/dev/null")
            case _:
                with socket.socket(socket.AF_UNIX) as bound:
                    bound.bind(os.path.relpath(path))
        done = start("batch", "in.txt", "-o", "out.jsonl", *(() if default else ("--journal", path.name))).wait()

        assert 2 == done.status
        assert "journal" in done.error_line
        assert () == server.requests
        assert {"in.txt", path.name} == {entry.name for entry in folder.iterdir()}

    @pytest.mark.parametrize(
        "arguments,expected",
        [
            (("-o", "none/out.jsonl"), "none: there is no such folder"),
            (("-o", "none/out.jsonl", "--journal", "journal"), "none: there is no such folder"),
            (("-o", "none/out.jsonl", "--no-journal"), "none: there is no such folder"),
            (("-o", "in.txt/out.jsonl", "--no-journal"), "in.txt/out.jsonl: Not a directory"),
            (("-o", "out.jsonl", "--journal", "none/journal"), "The folder of the journal does not exist"),
            (("-o", "."), "is a directory"),
            (("-o", "n" * 256, "--journal", "journal"), "File name too long"),
        ],
    )
    def test_not_writable(self, run, server, folder, arguments, expected):
        """An output or journal that cannot be made is reported in one line before anything is sent."""
        done = run("batch", "in.txt", *arguments)

        assert done.status in {1, 2}
        assert expected in done.error_line
        assert () == server.requests
        assert {"in.txt", "journal"} >= {path.name for path in folder.iterdir()}

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
    def test_read_only(self, run, server, folder):
        """An output that is read-only is not replaced."""
        run("batch", "in.txt", "-o", "out.jsonl")
        (folder / "out.jsonl").chmod(0o400)
        done = run("batch", "in.txt", "-o", "out.jsonl")

        assert 1 == done.status
        assert "Permission denied" in done.error_line
        assert 4 == len(server.billed)


def limit_file_size(size):
    """Return a function that lets no file of this process grow beyond *size* bytes, as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


class TestFullDisk:
    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
    @pytest.mark.parametrize("output", [("-o", "/dev/full"), ("-o", "/dev/full", "--journal", "journal")])
    def test_full_device(self, run, server, output):
        """An output that is full already is found before anything is sent."""
        done = run("batch", "in.txt", *output)

        assert (1, "neuralbox: No space left on device") == (done.status, done.error_line)
        assert () == server.requests

    def start(self, start, folder, *arguments):
        """Start a batch whose stdout has room for one line and a part of the second."""
        file = folder / "stdout"
        file.write_bytes(bytes(100_000))
        with file.open("ab") as stdout:
            return start("batch", *arguments, "-c", "1", stdout=stdout, preexec_fn=limit_file_size(100_300))

    def test_journal(self, start, server, folder):
        """With a journal, an output that becomes full ends the run; the next run writes all results."""
        arguments = ("in.txt", "--journal", "journal")
        done = self.start(start, folder, *arguments).wait()
        billed = len(server.billed)

        assert 1 == done.status
        assert "File too large" in done.err.splitlines()[-1]
        assert f"batch {' '.join(arguments)} -c 1\n" in done.err
        assert 2 <= billed == sum(entry.event == "done" for entry in read_journal("journal"))
        assert EXPECTED == contents(lines(start("batch", *arguments).wait().out))
        assert 4 == len(server.billed)

    def test_no_journal(self, start, server, folder):
        """Without a journal, results that were paid for and cannot be written go to stderr."""
        done = self.start(start, folder, "in.txt").wait()
        written = by_key(lines((folder / "stdout").read_bytes()[100_000:].decode().rpartition("\n")[0]))
        shown = by_key(lines("\n".join(line for line in done.err.splitlines() if line.startswith("{"))))

        assert 1 == done.status
        assert "these results were not written" in done.err
        assert "File too large" in done.err.splitlines()[-1]
        assert 1 == len(written)
        assert len(server.billed) == len({**written, **shown})
        assert set(EXPECTED) >= {line["content"] for line in shown.values()}

    def test_broken_pipe(self, start, serve):
        """When the reader of stdout leaves, requests in flight are finished and go to stderr."""
        server = serve(latency=0.3)
        process = start("batch", "in.txt", "-c", "2")
        process.read_until(b"\n")
        process.popen.stdout.close()
        server.wait_until(lambda: len(server.billed) >= 2)
        err = process.popen.stderr.read().decode()

        assert 141 == process.popen.wait(10)
        shown = by_key(lines("\n".join(line for line in err.splitlines() if line.startswith("{"))))
        assert len(server.billed) - 2 <= len(shown)
        assert "may have been billed" not in err


def test_closed_streams(start, server, folder):
    """With stdin, stdout and stderr closed, the output file has the results."""
    command = ("sh", "-c", 'exec "$0" -m neuralbox_async batch in.txt -o out.jsonl <&- >&- 2>&-', sys.executable)
    done = start(command=command, stdin=subprocess.DEVNULL).wait()

    assert (0, "", "") == (done.status, done.out, done.err)
    assert EXPECTED == contents(file_lines())
    assert 4 == len(server.billed)
    assert {"in.txt", "out.jsonl", "out.jsonl.journal.jsonl"} == {path.name for path in folder.iterdir()}
