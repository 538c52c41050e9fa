"""The page about the gateway: its container, its service, its screen and its table of tools."""

from __future__ import annotations

import configparser
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from documents import ROOT, TIMEOUT, blocks, read, table

from neuralbox_async.gateway import GatewaySettings
from neuralbox_async.gateway._gateway import _LAST_RESPONSES
from neuralbox_async.gateway._requests import IGNORED

PAGE = ROOT / "docs" / "how-to" / "gateway.md"
TOKEN = "a-token-of-the-gateway"
CHAT = json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": "Hi"}]})


def lines_of(language):
    (block,) = blocks(PAGE, language)
    return block.code


@pytest.fixture
def serve(server, monkeypatch):
    """Return a function that runs a command of the page on a free port, and yields its port and what it printed."""
    processes = []

    def serve(words, **environment):
        assert ["neuralbox", "gateway"] == [os.path.basename(words[0]), words[1]]  # noqa: PTH119 - a word
        command = [sys.executable, "-m", "neuralbox_async", *words[1:], "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        processes.append(process)
        shown = ""
        for line in process.stdout:
            shown += line
            if "Ctrl-C" in line:
                break
        return int(re.search(r"127\.0\.0\.1:(\d+)/v1\n", shown)[1]), shown

    yield serve
    for process in processes:
        process.send_signal(signal.SIGTERM)
        assert 0 == process.wait(TIMEOUT)
        process.stdout.close()


def send(port, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    connection.request("POST", "/v1/chat/completions", CHAT, {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


@pytest.mark.process
def test_container(serve, run):
    """The command of the image serves with its variables, requires the token, and its health check succeeds."""
    dockerfile = lines_of("dockerfile")
    words = [json.loads(re.search(rf"^{name} (.*)$", dockerfile, re.MULTILINE)[1]) for name in ("ENTRYPOINT", "CMD")]
    variables = dict(word.split("=") for word in re.search(r"^ENV (.*)$", dockerfile, re.MULTILINE)[1].split())
    port, _ = serve(words[0] + words[1], **variables, NEURALBOX_GATEWAY_TOKEN=TOKEN)
    health = json.loads(re.search(r"^HEALTHCHECK CMD (.*)$", dockerfile, re.MULTILINE)[1])

    # Kubernetes wants a number to know that it is not root.
    assert re.search(r"--uid (\d+)", dockerfile)[1] == re.search(r"^USER (\d+)$", dockerfile, re.MULTILINE)[1]
    # aiohttp waits twice for the last responses, and Docker 10 s for all.
    assert float(words[1][words[1].index("--shutdown-timeout") + 1]) + 2 * _LAST_RESPONSES < 10
    assert [401, 200] == [send(port), send(port, Authorization=f"Bearer {TOKEN}")]
    assert variables["NEURALBOX_GATEWAY_PORT"] in health[2]
    done = run(sys.executable, "-c", health[2].replace(variables["NEURALBOX_GATEWAY_PORT"], str(port)))
    assert 0 == done.returncode, done.stderr


@pytest.mark.process
def test_service(serve, run, tmp_path):
    """The command of the service serves; it has the time to finish calls; systemd, where there is one, accepts it."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str
    unit.read_string(lines_of("ini"))
    service = unit["Service"]
    port, _ = serve(shlex.split(service["ExecStart"]))

    assert 200 == send(port)
    assert float(service["TimeoutStopSec"]) > GatewaySettings().shutdown_timeout + 2 * _LAST_RESPONSES
    if shutil.which("systemd-analyze"):
        path = tmp_path / "neuralbox-gateway.service"
        path.write_text(lines_of("ini").replace("/opt/neuralbox/bin/neuralbox", sys.executable), encoding="utf-8")
        done = run("systemd-analyze", "verify", str(path))
        assert 0 == done.returncode, done.stderr


@pytest.mark.process
def test_screen(serve):
    """What the page shows is what the command prints."""
    (screen,) = blocks(PAGE, "console")
    command, *shown, log = screen.code.splitlines()
    port, printed = serve(shlex.split(command)[1:])

    assert "\n".join(shown).replace(":8090/", f":{port}/") == printed.rstrip()
    assert re.fullmatch(r"\d\d:\d\d:\d\d POST /v1/chat/completions 200 gpt-5 \d\.\d{3} s 2 tokens gen_\w+", log)


# The tools of the page that tests run: the file of the tests, and what it has of the setting.
TESTED = {
    "OpenAI's SDK for Python": ("test_openai.py", "base_url=site.url"),
    "LangChain": ("test_langchain.py", "base_url=site.url"),
    "LiteLLM": ("test_litellm.py", '"api_base": site.url'),
    "llm": ("test_llm.py", "  api_base: {url}\n"),
    "shell-gpt (`sgpt`)": ("test_shell.py", '"API_BASE_URL": site.url'),
}


def test_tools():
    """The tools that the page calls tested are tested, with the settings of the page."""
    tools = {row["Tool"]: row["Tested"] for row in table(PAGE, "Tool")}

    assert set(TESTED) == {tool for tool, tested in tools.items() if tested == "yes"}
    assert {"yes", "no"} == set(tools.values())
    for name, setting in TESTED.values():
        assert setting in read(ROOT / "tests" / "gateway_clients" / name), name


def test_tools_of_the_readme():
    """The README points five tools at the gateway as the page does."""
    settings = {row["Tool"]: row["Setting"] for row in table(PAGE, "Tool")}
    rows = table(ROOT / "README.md", "Tool")

    assert 5 == len(rows)
    assert [row["Setting"] for row in rows] == [settings[row["Tool"]] for row in rows]


def test_models_of_llm():
    """The file of `llm` on the page is that of the tests."""
    from_page = lines_of("yaml").replace("http://127.0.0.1:8090/v1", "{url}").strip()

    assert from_page in read(ROOT / "tests" / "gateway_clients" / "test_llm.py")


def test_members():
    """The ignored members that the page names are ignored, and its limit of stop sequences is the one of the code."""
    from neuralbox_async.gateway import _requests

    rows = {row["Member of a request"]: row["What the gateway does"] for row in table(PAGE, "Member of a request")}
    (ignored,) = (name for name, text in rows.items() if text.startswith("ignored"))

    assert set(re.findall("`(.*?)`", ignored)) <= set(IGNORED)
    assert f"up to {_requests._MAX_STOPS} sequences" in rows["`stop`"]
