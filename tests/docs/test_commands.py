"""Every command in the documentation works."""

from __future__ import annotations

import http.client
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
# They print what a server has, not a reply.
ABOUT_THE_ACCOUNT = [line for line in OURS if line.split()[1] in {"balance", "models", "price", "history"}]
GATEWAYS = [line for line in OURS if line.startswith("neuralbox gateway")]
SERVING = [line for line in OURS if line.startswith("neuralbox serve")]
# Their effects are tested elsewhere: `curl` with its example, `make` by its use.
OTHERS = [line for line in COMMANDS if line not in OURS]


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Put the command on the PATH, as its installation does."""
    command = tmp_path / "bin" / "neuralbox"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m neuralbox_async "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.process
@pytest.mark.parametrize("line", [line for line in OURS if line not in {*SERVING, *GATEWAYS, *ABOUT_THE_ACCOUNT}])
def test_neuralbox(line, path, run):
    """A command succeeds, prints a reply and no errors, and needs neither a key nor a server."""
    done = run("sh", "-c", line)

    assert (0, "") == (done.returncode, done.stderr)
    assert "You said: " in (_text_of_events(done.stdout) if "--json" in line else done.stdout)


@pytest.mark.process
@pytest.mark.parametrize("line", ABOUT_THE_ACCOUNT)
@pytest.mark.usefixtures("server")
def test_about_the_account(line, path, run):
    """A command about the account prints a table."""
    done = run("sh", "-c", line)

    assert (0, "") == (done.returncode, done.stderr)
    assert re.match(" *[A-Z]+  ", done.stdout)


def _text_of_events(lines):
    return "".join(json.loads(line).get("delta", "") for line in lines.splitlines())


@pytest.mark.process
@pytest.mark.parametrize("line", SERVING)
def test_serve(line, path):
    """`neuralbox serve` prints the variables to set, and Ctrl-C stops it."""
    # Any free port: the one in the documentation may be in use.
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


@pytest.mark.process
@pytest.mark.parametrize("line", GATEWAYS)
def test_gateway(line, path):
    """`neuralbox gateway` prints the variables to set, responds to the request of the page, and Ctrl-C stops it."""
    (request,) = {line for line in COMMANDS if line.endswith("/v1/chat/completions")}
    with subprocess.Popen(shlex.split(f"{line} --port 0"), stdout=subprocess.PIPE, text=True) as process:
        shown = ""
        for read in process.stdout:
            shown += read
            if "Ctrl-C" in read:
                break
        port = re.search(r"export OPENAI_BASE_URL=http://127\.0\.0\.1:(\d+)/v1\n", shown)[1]
        *_, body, _ = shlex.split(request)
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        reply = json.loads(connection.getresponse().read())
        connection.close()
        process.send_signal(signal.SIGINT)

    assert "You said: Hi" == reply["choices"][0]["message"]["content"]
    assert 0 == process.returncode


@pytest.mark.parametrize("line", OTHERS)
def test_other(line):
    """Other commands refer to something that exists: a make target, an extra, the endpoint of an example."""
    match shlex.split(line):
        case ["make", target]:
            assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        case ["pip", "install", requirement]:
            project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
            name, _, extra = requirement.rstrip("]").partition("[")
            assert project["name"] == name
            assert extra in {"", *project["optional-dependencies"]}
        case ["pip", "install", *packages]:
            settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
            groups = settings["dependency-groups"]
            requirements = [line for group in ("packages-test", "test", "otel") for line in groups[group]]
            tested = {re.match(r"[\w-]+", line)[0] for line in requirements if isinstance(line, str)}
            ours = {f"neuralbox[{extra}]" for extra in settings["project"]["optional-dependencies"]}
            assert set(packages) <= tested | ours
        case ["opentelemetry-instrument", *_]:
            assert "test_instrument.py" in {path.name for path in (ROOT / "tests/otel").iterdir()}
        case ["curl", "--json", body, "localhost:8090/v1/chat/completions"]:
            assert GATEWAYS  # test_gateway sends it
            assert json.loads(body)
        case ["curl", *_, "localhost:8080/chat"]:
            assert f"``{line.replace('Tell a story', 'Hi')}``" in (ROOT / "examples/web_backend.py").read_text(
                encoding="utf-8"
            )
        case _:
            pytest.fail(f"nothing tests this command: {line}")


def test_first_commands():
    """The README has the two commands that need no installation, in a block of their own."""
    assert "make demo\nmake test\n" in [block.code for block in blocks(ROOT / "README.md", "sh")]
