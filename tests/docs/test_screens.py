"""The screens in the documentation of the command are what it prints."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from documents import ROOT, TIMEOUT, blocks

from neuralbox_async import NeuralBoxError
from neuralbox_async.testing import NeuralBoxServer
from neuralbox_sync import NeuralBox

PAGE = ROOT / "docs" / "how-to" / "command.md"
COMMAND = (sys.executable, "-m", "neuralbox_async")
(TABLE,) = (block.code for block in blocks(PAGE, "csv"))
SCREENS = [block.code for block in blocks(PAGE, "console")]


@pytest.fixture
def terminal(tmp_path, monkeypatch):
    """A folder with the table of the page, in which `neuralbox` is on the PATH and uses a local server."""
    command = tmp_path / "bin" / "neuralbox"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m neuralbox_async "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "reviews.csv").write_bytes(TABLE.replace("\n", "\r\n").encode("cp1252"))
    with NeuralBoxServer(reply=lambda body: "negative" if "nicht" in str(body) else "positive") as server:
        for name, value in zip(("API_KEY", "BASE_URL"), server.client_options.values(), strict=True):
            monkeypatch.setenv(f"NEURALBOX_{name}", value)
        yield server


def without_chance(text):
    """Return *text* without times and ids, which differ from run to run."""
    text = re.sub(r"\b\d+\.\d+ s\b", "0.0 s", re.sub(r'"elapsed": [\d.]+', '"elapsed": 0', text))
    return re.sub(r"gen_\w+", "gen_1", re.sub(r"(?m)^\d\d:\d\d:\d\d ", "12:00:00 ", text))


def shown(screen):
    """Return what the shell prints for the commands of *screen*, with the commands."""
    printed = ""
    for line in screen.splitlines():
        if line.startswith("$ "):
            done = subprocess.run(
                ["/bin/sh", "-c", line[2:]],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
            )
            printed += f"{line}\n{done.stdout}"
    return printed


@pytest.mark.process
@pytest.mark.parametrize("screen", [screen for screen in SCREENS if "neuralbox serve" not in screen])
def test_screen(terminal, screen):
    """A screen shows what is printed."""
    assert without_chance(screen) == without_chance(shown(screen))


@pytest.mark.process
def test_serve(terminal, tmp_path):
    """So does the screen of the local server, on another port."""
    (screen,) = (screen for screen in SCREENS if "neuralbox serve" in screen)
    line, *expected = screen.splitlines()
    log = tmp_path / "log"
    with (
        log.open("wb") as stderr,
        subprocess.Popen(
            shlex.split(line[2:].replace("8080", "0")), stdout=subprocess.PIPE, stderr=stderr, encoding="utf-8"
        ) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)  # if the test fails
        printed = ""
        for read in process.stdout:
            printed += read
            if "Ctrl-C" in read:
                break
        url = re.search(r"http\S+", printed)[0]
        with NeuralBox("nb_test_key_for_the_local_server", base_url=url) as client:
            client.generate("gpt-5", "Hi")
            with pytest.raises(NeuralBoxError, match="gpt-55"):
                client.generate("gpt-55", "Hi")
        process.send_signal(signal.SIGINT)
        process.wait(TIMEOUT)
    port = re.search(r":(\d+)/", url)[1]
    printed = printed.replace(port, "8080") + log.read_text(encoding="utf-8")

    assert without_chance("\n".join(expected)) == without_chance(printed.strip())
    assert 0 == process.returncode


@pytest.mark.process
def test_completion(terminal):
    """The completion script of bash completes commands, options and values."""
    (line,) = (line for block in blocks(PAGE, "text") for line in block.code.splitlines() if "bash_source" in line)
    script = f"""
        {line}
        complete_words() {{
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _neuralbox_completion neuralbox
            echo "${{COMPREPLY[@]}}"
        }}
        complete_words neuralbox ch
        complete_words neuralbox batch --key
        complete_words neuralbox batch --format ts
    """
    done = subprocess.run(["/bin/bash", "-c", script], check=True, capture_output=True, text=True)

    assert ["chat", "--key-column", "tsv"] == done.stdout.split()
    for shell in ("zsh", "fish"):
        assert f"{shell}_source neuralbox" in PAGE.read_text(encoding="utf-8")
        environment = {**os.environ, "_NEURALBOX_COMPLETE": f"{shell}_source"}
        done = subprocess.run(COMMAND, check=True, capture_output=True, text=True, env=environment)
        assert f"_NEURALBOX_COMPLETE={shell}_complete" in done.stdout
