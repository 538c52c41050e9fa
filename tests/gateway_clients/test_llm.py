"""The command `llm`, which has models with OpenAI's interface in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("llm")
pytestmark = pytest.mark.process

MODELS = """\
- model_id: neuralbox
  model_name: gpt-5
  api_base: {url}
  api_key_name: neuralbox
  supports_schema: true
"""


@pytest.fixture
def llm(site, tmp_path):
    """Return a function that runs ``llm -m neuralbox``."""
    (tmp_path / "extra-openai-models.yaml").write_text(MODELS.format(url=site.url))
    (tmp_path / "keys.json").write_text('{"neuralbox": "none"}')
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path)}

    def run(*words):
        command = [sys.executable, "-m", "llm", "-m", "neuralbox", *words]
        return subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=120, input=""
        )

    return run


@pytest.mark.parametrize("options", [(), ("--no-stream",)])
def test_text(llm, options):
    """A text is streamed, or comes as a whole, with its usage."""
    done = llm(*options, "--usage", "--system", "Be brief", "Hi")

    assert (0, "You said: Hi\n") == (done.returncode, done.stdout), done.stderr
    assert "Token usage" in done.stderr


def test_conversation(llm, site):
    """A conversation goes on with its history."""
    assert 0 == llm("Hi").returncode
    done = llm("--continue", "Bye")

    assert "You said: Bye\n" == done.stdout, done.stderr
    *_, last = (request for request in site.server.requests if request.method == "POST")
    assert ["Hi", "You said: Hi", "Bye"] == [message["content"] for message in last.json["messages"]]


def test_schema(llm, site):
    """A schema is checked."""
    site.server.reply_with('Here you are: {"name": "Ada", "age": 36}')
    done = llm("--schema", "name, age int", "Who?")

    assert {"name": "Ada", "age": 36} == json.loads(done.stdout), done.stderr


def test_error(llm, site):
    """An error is shown, and the request is not sent again."""
    site.server.fail(402)
    done = llm("Hi")

    assert 1 == done.returncode
    assert "Error: " in done.stderr
    assert 1 == len(site.server.requests)
