"""The programs on the pages that need a host of their own, or several runs, do what their pages describe."""

from __future__ import annotations

import ast
import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from documents import PAGES, ROOT, TIMEOUT, blocks, command, programs

from neuralbox_async.testing import NeuralBoxServer

DOCS = ROOT / "docs"


def test_every_program_is_tested():
    """Each page with programs is run by this module or by test_web_programs.py."""
    pages = {page.relative_to(DOCS).as_posix() for page in PAGES if DOCS in page.parents and programs(page)}
    web = {f"how-to/{name}.md" for name in ("aiohttp-web", "django", "fastapi", "flask", "starlette", "web")}

    assert {
        *web,
        "tutorials/chat-backend.md",
        "tutorials/large-batch.md",
        "how-to/celery.md",
        "how-to/proxies.md",
        "testing.md",
    } == pages


def test_openai_code():
    """The code for the other SDK, which is not installed, is valid Python."""
    pieces = blocks(DOCS / "how-to" / "migrate-from-openai.md", "py")

    assert len(pieces) >= 3
    for piece in pieces:
        ast.parse(piece.code)


# ---------------------------------------------------------------------------------------------------------- large batch


@pytest.fixture
def batch(folder, run):
    """Return a function that runs a program of the tutorial about batches."""
    path = folder("tutorials/large-batch.md")

    def run_program(name, *arguments):
        done = run(sys.executable, name, *arguments, cwd=path)
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    return run_program


@pytest.mark.process
def test_batch(batch, server, tmp_path):
    """A batch that is killed pays for no row twice when it continues, and its texts can be merged with the rows."""
    batch("make_reviews.py", "300")
    server.delay(0.1, times=100)
    words = [sys.executable, "moods.py"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        server.wait_until(lambda: len(server.billed) > 50, timeout=TIMEOUT)
        process.kill()
    server.wait_until(lambda: server.in_flight == 0, timeout=TIMEOUT)

    second, tokens = batch("moods.py").splitlines()[-2:]
    skipped, unknown = (_number_before(word, second) for word in ("skipped", "unknown"))
    assert skipped > 0
    assert 300 == skipped + unknown + _number_before("completed", second)
    assert tokens.endswith("stopped by: None")
    assert 300 - unknown <= len(server.billed) <= 300

    third, _ = batch("moods.py", "retry").splitlines()[-2:]
    assert (unknown, 0) == (_number_before("completed", third), _number_before("unknown", third))
    assert "300 texts\n" == batch("merge.py")
    with (tmp_path / "moods.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [f"R{number:05}" for number in range(1, 301)] == [row["id"] for row in rows]
    assert {"You said: The mood of this review, in one"} == {row["mood"][:41] for row in rows}  # max_tokens cuts it off


def _number_before(word, line):
    words = line.replace(",", "").split()
    return int(words[words.index(word) - 1])


@pytest.mark.process
def test_commands_of_the_batch(batch, server, run, tmp_path):
    """The command of the tutorial has a line for each row of the file."""
    assert ["python", "make_reviews.py", "10000"] == command(DOCS / "tutorials/large-batch.md", "python")
    batch("make_reviews.py", "20")
    _, *words = command(DOCS / "tutorials/large-batch.md", "neuralbox")
    done = run(sys.executable, "-m", "neuralbox_async", *words, cwd=tmp_path)
    results = [json.loads(line) for line in (tmp_path / "moods.jsonl").read_text(encoding="utf-8").splitlines()]

    assert 0 == done.returncode, done.stderr
    assert list(range(2, 22)) == sorted(result["line"] for result in results)
    assert {10} == {request.json.get("max_tokens") for request in server.requests if request.path.endswith("/generate")}


# --------------------------------------------------------------------------------------------------------------- Celery

SETTINGS = """
broker_url = "filesystem://"
result_backend = "file://results"
broker_transport_options = {
    "data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control", "polling_interval": 0.02
}
"""
SEND = """
from tasks import describe
print(describe.delay("lamp").get(timeout=30, interval=0.02))
"""
RETRY = """
from tasks import describe
print(describe.apply(args=["lamp"]).get())
"""


@pytest.fixture
def celery(folder):
    """The folder of the tasks, with a queue in files."""
    pytest.importorskip("celery")
    path = folder("how-to/celery.md")
    for name in ("results", "queue", "control"):
        (path / name).mkdir()
    with (path / "celeryconfig.py").open("a", encoding="utf-8") as file:
        file.write(SETTINGS)
    return path


@pytest.mark.process
def test_celery(celery, server, run):
    """A worker that the command of the page starts runs the task."""
    _, *words = command(DOCS / "how-to" / "celery.md", "celery")
    options = ("--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat")
    worker = [sys.executable, "-m", "celery", *words, *options]
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    with (celery / "log").open("w") as log:
        with subprocess.Popen(worker, cwd=celery, env=environment, stdout=log, stderr=log) as process:
            try:
                done = run(sys.executable, "-c", SEND, cwd=celery, env=environment)
            finally:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(TIMEOUT)
                process.kill()

    assert "{'text': 'You said: Describe: lamp', 'tokens_used': 1}\n" == done.stdout, (celery / "log").read_text()
    assert 1 == len(server.billed)


@pytest.mark.process
def test_celery_retries(celery, server, run):
    """The task runs again after a long rate limit, and returns the billing status of another error."""
    server.fail(429, retry_after=847)
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    done = run(sys.executable, "-c", RETRY, cwd=celery, env=environment)
    assert "{'text': 'You said: Describe: lamp', 'tokens_used': 1}\n" == done.stdout, done.stderr

    server.fail(500, code="internal")
    done = run(sys.executable, "-c", RETRY, cwd=celery, env=environment)
    assert "'billed': 'unknown'" in done.stdout, done.stderr
    assert 1 == len(server.billed)


# -------------------------------------------------------------------------------------------------------------- Jupyter

NOTEBOOKS = blocks(DOCS / "how-to" / "jupyter.md", "python")


@pytest.mark.process
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=str)
def test_jupyter(notebook, server, tmp_path):
    """The cells run one after the other in a kernel, and print replies and no errors."""
    jupyter_client = pytest.importorskip("jupyter_client")
    pytest.importorskip("ipykernel")
    manager = jupyter_client.KernelManager(transport="ipc", ip=str(tmp_path / "socket"), kernel_name="python3")
    manager.start_kernel(env={**os.environ, "PYTHONWARNINGS": "default"})
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT)
        printed = "".join(_run_cell(client, cell) for cell in notebook.code.split("# %%\n") if cell)
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)

    assert "You said: Write a haiku about rivers" in printed
    assert len(server.billed) >= 3


def _run_cell(client, cell):
    printed = []

    def on_output(message):
        assert "error" != message["msg_type"], message["content"]
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])

    reply = client.execute_interactive(cell, timeout=TIMEOUT, output_hook=on_output)
    assert "ok" == reply["content"]["status"]
    return "".join(printed)


# ---------------------------------------------------------------------------------------------------------------- proxy


@pytest.fixture
def proxy():
    """A proxy on this machine that records what it forwards, and passes requests on to the local server."""
    with NeuralBoxServer() as server, socket.create_server(("127.0.0.1", 0)) as listener:
        received = []
        thread = threading.Thread(target=_forward_one, args=(listener, server.port, received))
        thread.start()
        yield server, f"http://user:password@127.0.0.1:{listener.getsockname()[1]}", received
        with contextlib.suppress(OSError), socket.create_connection(listener.getsockname()):  # if nothing has come
            pass
        thread.join(TIMEOUT)


def _forward_one(listener, port, received):
    connection, _ = listener.accept()
    with connection, socket.create_connection(("127.0.0.1", port)) as server:
        request = connection.recv(65536)
        received.append(request)
        server.sendall(request)
        while piece := server.recv(65536):
            connection.sendall(piece)
            if b"}" in piece:
                break


@pytest.mark.process
def test_proxy(proxy, folder, run, monkeypatch):
    """The program uses the proxy of the environment, with its password."""
    server, url, received = proxy
    path = folder("how-to/proxies.md")
    for name, value in {"HTTPS_PROXY": url, "NEURALBOX_BASE_URL": server.base_url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
    done = run(sys.executable, "proxied.py", cwd=path)

    assert (0, "You said: Write a haiku\n") == (done.returncode, done.stdout), done.stderr
    (request,) = received
    assert request.startswith(f"POST {server.base_url}/generate HTTP/1.1\r\n".encode())
    assert b"proxy-authorization: basic dxnlcjpwyxnzd29yza==" in request.lower()
