"""The command that continues a batch: it works in the user's shell."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest
from batch_files import file_lines

from neuralbox_async._cli import next_command
from neuralbox_async._cli.shells import command_lines, set_commands

ARGUMENTS = [
    ["in.txt", "-o", "my results.jsonl"],
    ["--template", 'Say "hi" to {name}: 100% & more | < > ^ (now)!'],
    ["--template", "It's {text}; $HOME `date` \u2019x\u2019"],
    ["--system", "", "-t", "0.5", "--keep=a,b"],
    ["C:\\my files\\in.csv", "-o", "C:\\my files\\"],
    ["--template", 'a\\"b', "--delimiter", "|"],
    ["--template", "%PATH% {x}", "--delimiter", ";"],
    ["-"],
]


def split_as_the_runtime(line):
    """Return the arguments that a program on Windows sees, by the rules of the C runtime."""
    words, word, quoted, started = [], "", False, False
    for backslashes, char in re.findall(r"(\\*)([^\\]|$)", line):
        if char == '"':
            word += "\\" * (len(backslashes) // 2)
            if len(backslashes) % 2:
                word += '"'
            else:
                quoted = not quoted
            started = True
        else:
            word += backslashes
            if char in {" ", ""} and not quoted:
                if word or started:
                    words.append(word)
                word, started = "", False
            else:
                word += char
    assert not quoted
    return words


def split_as_cmd(line):
    """Return the arguments behind a line that is typed into cmd; a character that is special there must be escaped."""
    passed, quoted, position = "", False, 0
    while position < len(line):
        char = line[position]
        if char == "^" and not quoted:
            position += 1
            char = line[position]
        elif char == '"':
            quoted = not quoted
        else:
            assert char != "%"
            assert quoted or char not in "&|<>()"
        passed += char
        position += 1
    return split_as_the_runtime(passed)


def split_as_powershell(line):
    """Return the arguments behind a line that is typed into PowerShell, which passes quotes in them incorrectly."""
    program, mark, rest = line.partition(" --% ")
    if mark:
        assert not re.search("%.*%", rest)
        return [*split_as_powershell(program), *split_as_the_runtime(rest)]
    words = []
    for quoted, bare in re.findall("'((?:[^'\u2019]|''|\u2019\u2019)*)'|([^ ']+)", line):
        assert bare or ('"' not in quoted and not quoted.endswith("\\"))
        assert not re.search(r"[$`;,@&|<>(){}\"#]|^-\w*[.:]", bare)
        words.append(bare or quoted.replace("''", "'").replace("\u2019\u2019", "\u2019"))
    return words


class TestQuoting:
    @pytest.mark.process
    @pytest.mark.parametrize("arguments", ARGUMENTS)
    def test_sh(self, arguments):
        """A POSIX shell passes the arguments unchanged."""
        program = [sys.executable, "-c", "import sys; print(ascii(sys.argv[1:]))", *arguments]
        (line,) = command_lines(program, ["sh"]).values()

        assert ascii(arguments) == subprocess.check_output(line, shell=True, text=True).strip()  # noqa: S602

    @pytest.mark.parametrize("shell,split", [("cmd", split_as_cmd), ("PowerShell", split_as_powershell)])
    @pytest.mark.parametrize("arguments", ARGUMENTS)
    def test_windows(self, arguments, shell, split):
        """So do cmd and PowerShell, by their documented rules."""
        (line,) = command_lines(["neuralbox", "batch", *arguments], [shell]).values()

        assert ["neuralbox", "batch", *arguments] == split(line)

    def test_one_line_for_all(self):
        """Plain words have the same command line in all shells; otherwise there is one for each."""
        shells = ["PowerShell", "cmd"]
        assert {"": "neuralbox batch in.txt"} == command_lines(["neuralbox", "batch", "in.txt"], shells)
        assert shells == list(command_lines(["neuralbox", "my file"], shells))

    def test_impossible(self):
        """A shell that cannot express the arguments is left out."""
        assert ["PowerShell"] == list(command_lines(["x", "two\nlines"], ["PowerShell", "cmd"]))
        assert {} == command_lines(["x", 'two\n"lines" of %PATH%'], ["PowerShell", "cmd"])

    def test_settings(self):
        """The settings of a server are printed for each shell."""
        found = set_commands({"A": "it's"})

        assert {"bash, zsh, fish": "A=it's", "PowerShell": "$env:A = 'it''s'", "cmd": "set A=it's"} == {
            shell: shlex.split(lines[0])[1] if "bash" in shell else lines[0] for shell, lines in found.items()
        }


class TestAdvice:
    def test_budget(self, batch, serve, run):
        """After a stop at the budget, the command has a budget that suffices."""
        server = serve(prices={"m": 10})
        first = batch("a\nb\nc\nd\n", "-o", "my out.jsonl", "-m", "m", "--budget", "25")
        (command,) = re.findall("To continue, with a larger --budget: neuralbox (.*)", first.err)

        assert 4 == first.status
        assert 0 == run(*shlex.split(command)).status
        assert 4 == len(server.billed)

    @pytest.mark.parametrize(
        "arguments, expected",
        [
            (["in", "--budget", "3", "-c", "8"], ["in", "-c", "8", "--budget", "9"]),
            (["in", "--budget=3", "-"], ["in", "-", "--budget", "9"]),
            (["--keep=a", "--budget", "3", "--", "-x"], ["--keep=a", "--budget", "9", "--", "-x"]),
            (["in", "--template", "--budget"], ["in", "--template", "--budget", "--budget", "9"]),
            (["in", "--ordered", "--budget", "3"], ["in", "--ordered", "--budget", "3", "--budget", "9"]),
            (["in", "--", "--budget"], ["in", "--budget", "9", "--", "--budget"]),
        ],
    )
    def test_replaced_option(self, arguments, expected):
        """An option is replaced, unless it may be the value of another option: then the last one counts."""
        assert expected == next_command.with_option(arguments, "--budget", "9")

    def test_first_request(self, batch, serve, run):
        """So it has if no row could be sent."""
        serve(prices={"m": 10})
        done = batch("a\n", "-o", "out.jsonl", "-m", "m", "--budget", "7")
        (command,) = re.findall("To continue, with a larger --budget: neuralbox (.*)", done.err)

        assert 0 == run(*shlex.split(command)).status

    def test_module(self, start, server, folder):
        """The command runs although `neuralbox` is not on the PATH."""
        (folder / "in.txt").write_text("a\nb\n", encoding="utf-8")
        server.fail(400)
        options = {"env": {**os.environ, "PATH": "/usr/bin:/bin"}}
        first = start("batch", "in.txt", "-o", "my out.jsonl", **options).wait()
        command = first.err.split("To continue: ")[1].strip()

        assert 3 == first.status
        assert 0 == start(command=("sh", "-c", command), **options).wait().status
        assert ["You said: a", "You said: b"] == sorted(row["content"] for row in file_lines("my out.jsonl"))
