"""The applications of `examples` for Django, Flask and Celery, and the notebook, as their docstrings run them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from documents import ROOT, TIMEOUT
from event_source import interpret

pytestmark = pytest.mark.process

EXAMPLES = ROOT / "examples"
TESTED = {"fastapi_chat", "django_chat", "flask_chat", "celery_texts", "notebook.ipynb"}


def test_every_application_is_tested():
    """Every folder and notebook of the examples has a test."""
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__"}

    assert TESTED == folders | {path.name for path in EXAMPLES.glob("*.ipynb")}


@contextlib.contextmanager
def sent(port, method, path, body=None):
    """Send a request and yield its response; the end of the block closes the connection."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)) as connection:
        connection.request(method, path, body)
        yield connection.getresponse()


def check_chat(port, server):
    """The chat streams events with the cost, has a status for an error, and ends when the browser leaves."""
    with sent(port, "GET", "/chat?prompt=Hi") as response:
        source = interpret(response.read())
    assert (200, "You said: Hi", "complete") == (response.status, source.text, source.last.kind)

    server.fail(402)
    with sent(port, "GET", "/chat?prompt=Hi") as response:
        assert (502, "application/problem+json") == (response.status, response.headers.get_content_type())

    with sent(port, "GET", "/chat?prompt=endless") as response:
        assert response.read(20)
    server.wait_for_disconnect()
    assert 1 == len(server.billed)


def test_django(start, environment, server):
    """The Django project streams to a browser."""
    for package in ("django", "uvicorn"):
        pytest.importorskip(package)
    environment["DJANGO_SECRET_KEY"] = "only for tests"
    port = start("uvicorn", "--app-dir", EXAMPLES / "django_chat", "app:application", "--port", "PORT")

    with sent(port, "GET", "/chat?prompt=%20") as response:
        assert 400 == response.status
    check_chat(port, server)


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["in the worker", "before the fork"])
def test_flask(start, server, preload):
    """The Flask application streams to a browser, and returns whole texts, with problems for errors."""
    for package in ("flask", "gunicorn"):
        pytest.importorskip(package)
    options = ("--worker-class", "gthread", "--threads", "4", "--bind", "127.0.0.1:PORT", *preload)
    port = start("gunicorn", "--chdir", EXAMPLES / "flask_chat", *options, "app:app")

    check_chat(port, server)
    with sent(port, "POST", "/summaries", "A long text") as response:
        assert {"summary": "You said: Summarise: A long text", "tokens_used": 1} == json.load(response)
    server.fail(422)
    with sent(port, "POST", "/summaries", "A long text") as response:
        assert (400, "The request is not valid.") == (response.status, json.load(response)["detail"])


CONFIG = """
broker_url = "filesystem://"
result_backend = "file://{folder}/results"
broker_transport_options = {{
    "data_folder_in": "{folder}/{incoming}",
    "data_folder_out": "{folder}/{outgoing}",
    "control_folder": "{folder}/control",
    "polling_interval": 0.02,
}}
"""
SEND = "from tasks import describe; print(describe.delay({product!r}).id)"
GET = "import json; from tasks import app; print(json.dumps(app.AsyncResult({task!r}).get(timeout=60, interval=0.05)))"


@pytest.fixture
def describe(environment, tmp_path):
    """A function that has a worker run the task; the worker runs until the end of the test."""
    pytest.importorskip("celery")
    for name in ("queue", "written", "results", "control"):
        (tmp_path / name).mkdir()
    # The transport does not write atomically: a message that is read while it is written is lost.
    for name, incoming, outgoing in (("worker", "queue", "queue"), ("caller", "queue", "written")):
        config = CONFIG.format(folder=tmp_path, incoming=incoming, outgoing=outgoing)
        (tmp_path / f"{name}_config.py").write_text(config)
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment.get("PYTHONPATH", "")])
    folder = EXAMPLES / "celery_texts"

    def run(code):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=folder,
            env={**environment, "CELERY_CONFIG_MODULE": "caller_config"},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        return done.stdout.strip()

    def call(product):
        task = run(SEND.format(product=product))
        for message in (tmp_path / "written").iterdir():
            message.rename(tmp_path / "queue" / message.name)
        return json.loads(run(GET.format(task=task)))

    command = ("celery", "--workdir", folder, "--app", "tasks", "worker", "--concurrency", "1", "--loglevel", "ERROR")
    log = tmp_path / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command), "--without-gossip", "--without-mingle", "--without-heartbeat"],
            env={**environment, "CELERY_CONFIG_MODULE": "worker_config"},
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    with process:
        try:
            yield call
        finally:
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + TIMEOUT
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_celery(describe, server):
    """The task returns the text with its cost; it runs again after a rate limit, and never after another failure."""
    server.fail(429, retry_after=1)
    assert {"text": "You said: Describe: a chair", "tokens_used": 1} == describe("a chair")
    assert (2, 1) == (len(server.requests), len(server.billed))

    server.drop("after")
    failed = describe("a table")
    assert ("APIConnectionError", "unknown") == (failed["failed"], failed["billed"])
    assert (3, 2) == (len(server.requests), len(server.billed))


def test_notebook(environment, server, monkeypatch):
    """The notebook runs from its first cell to its last, and prints what it promises; it is saved without outputs."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [([], None)] * len(cells) == [(cell.outputs, cell.execution_count) for cell in cells]

    nbclient.NotebookClient(notebook, timeout=TIMEOUT, startup_timeout=TIMEOUT).execute()
    printed = ["".join(output.text for output in cell.outputs) for cell in cells]
    words = ("river", "bridge", "lighthouse")
    assert [
        "",
        f"You said: Write a haiku about rivers\n{server.billed[0].tokens_used} tokens\n",
        "You said: Tell a story about a lighthouse",
        "".join(f"{word}: You said: Define: {word}\n" for word in words),
        f"5 calls, {sum(billed.tokens_used for billed in server.billed)} tokens\n",
    ] == printed
