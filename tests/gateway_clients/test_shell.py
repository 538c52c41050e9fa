"""The command `sgpt` of shell-gpt, which reads the URL of OpenAI's interface from a variable."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

if importlib.util.find_spec("sgpt") is None:
    pytest.skip("shell-gpt is not installed", allow_module_level=True)

pytestmark = pytest.mark.process


@pytest.fixture
def sgpt(site, tmp_path):
    """Return a function that runs ``sgpt``."""
    folders = {"HOME": tmp_path, "CACHE_PATH": tmp_path / "cache", "CHAT_CACHE_PATH": tmp_path / "chats"}
    settings = {"API_BASE_URL": site.url, "OPENAI_API_KEY": "none", "DEFAULT_MODEL": "gpt-5"}
    environment = {**os.environ, **settings, **{name: str(path) for name, path in folders.items()}}

    def run(*words):
        command = [sys.executable, "-c", "import sgpt; sgpt.cli()", *words]
        return subprocess.run(
            command, check=False, env=environment, capture_output=True, text=True, timeout=120, input=""
        )

    return run


def test_text(sgpt, site):
    """A text is streamed; the conversation goes on with its history."""
    done = sgpt("--chat", "talk", "Hi")
    again = sgpt("--chat", "talk", "Bye")

    assert "You said: Hi" in done.stdout, done.stderr
    assert "You said: Bye" in again.stdout, again.stderr
    *_, last = (request for request in site.server.requests if request.method == "POST")
    roles = [message["role"] for message in last.json["messages"]]
    assert ["user", "assistant", "user"] == [role for role in roles if role != "system"]
