"""Every command on every page does what it is printed for."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib

import pytest
from documents import PAGES, ROOT, blocks

COMMANDS = [line for page in PAGES for block in blocks(page, "sh") for line in block.code.splitlines()]
OURS = [line for line in COMMANDS if re.search(r"(^|\| )neuralbox ", line)]
SERVING = [line for line in OURS if line.startswith("neuralbox serve")]
# Tried elsewhere: `make` by who calls it, `curl` by the example that it asks.
OTHERS = [line for line in COMMANDS if line not in OURS]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The command is on the PATH, as after its installation."""
    command = tmp_path / "bin" / "neuralbox"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m neuralbox_async "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("line", [line for line in OURS if line not in SERVING])
def test_neuralbox(line, path, run):
    """It succeeds, says something and complains of nothing, without a key or a server to ask."""
    done = run("sh", "-c", line)

    assert (0, "") == (done.returncode, done.stderr)
    assert "You said: " in (_text_of_events(done.stdout) if "--json" in line else done.stdout)


def _text_of_events(lines):
    return "".join(json.loads(line).get("delta", "") for line in lines.splitlines())


@pytest.mark.parametrize("line", SERVING)
def test_serve(line, path):
    """It says which variables to set, and Ctrl-C stops it."""
    # Any free port instead of the one that may be taken here.
    command = re.sub(r"--port \d+", "--port 0", line)
    with subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, text=True) as process:
        shown = ""
        for read in process.stdout:
            shown += read
            if "Ctrl-C" in read:
                break
        process.send_signal(signal.SIGINT)
    assert "export NEURALBOX_BASE_URL=http://127.0.0.1:" in shown
    assert "export NEURALBOX_API_KEY=" in shown
    assert 0 == process.returncode


@pytest.mark.parametrize("line", OTHERS)
def test_other(line):
    """What else is to be typed exists: a target of the Makefile, an extra, the endpoint of an example."""
    match shlex.split(line):
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        case ["pip", "install", requirement]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            name, _, extra = requirement.rstrip("]").partition("[")
            assert project["name"] == name
            assert extra in {"", *project["optional-dependencies"]}
        case ["curl", *_, "localhost:8080/chat"]:
            assert f"``{line.replace('Tell a story', 'Hi')}``" in (ROOT / "examples/web_backend.py").read_text(
                encoding="utf-8"
            )
        case _:
            pytest.fail(f"nothing tests this command: {line}")


def test_both_commands_of_the_project_come_first():
    """The README begins with the two commands that need nothing else."""
    assert ["make demo", "make test"] == COMMANDS[:2]
