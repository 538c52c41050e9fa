"""gunicorn serves a Flask application whose client was made in the worker, or used before the fork."""

import contextlib
import http.client
import itertools
import json
import re
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from neuralbox_async.testing import NeuralBoxServer

pytest.importorskip("gunicorn", reason="tests gunicorn")
pytest.importorskip("flask", reason="the application uses Flask")

WORKERS = {
    "sync": ("--workers", "3"),
    # Without a limit, one worker may accept all connections.
    "gthread": ("--worker-class", "gthread", "--workers", "2", "--threads", "4", "--worker-connections", "5"),
}
LOADED = {
    "in the worker": ((), {}),
    "used before the fork": (("--preload",), {"USED_BEFORE": "1"}),
}
SETTINGS = [(worker, loaded) for worker in WORKERS for loaded in LOADED]


def reply(body):
    """Return the reply to the request *body*: endless for the prompt "endless"."""
    prompt = body["messages"][-1]["content"]
    return itertools.repeat("x ") if prompt == "endless" else f"You said: {prompt}"


@attrs.frozen
class Site:
    """A running gunicorn, its port, and the local server."""

    host: object
    port: int
    server: NeuralBoxServer

    @contextlib.contextmanager
    def post(self, path, prompt):
        """Send a request and yield the response; the end of the block closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("POST", path, prompt)
            with connection.getresponse() as response:
                yield response

    def generate(self, prompt):
        """Return the JSON response."""
        with self.post("/generate", prompt) as response:
            return json.load(response)

    def read(self, prompt):
        """Return the streamed text."""
        with self.post("/stream", prompt) as response:
            return response.read().decode()


@contextlib.contextmanager
def running(launch, worker, loaded, *, graceful_timeout=2):
    """Run gunicorn until the end of the block; *graceful_timeout*: seconds for its workers to finish."""
    options, env = LOADED[loaded]
    # The test opens the socket, so that the port stays free; requests wait in it until there is a worker.
    with (
        NeuralBoxServer(reply=reply, event_interval=0.005) as server,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        bind = ("--bind", f"fd://{listener.fileno()}", "--log-level", "warning")
        stop = ("--graceful-timeout", str(graceful_timeout))
        host = launch(
            server,
            *("-m", "gunicorn", "flask_app:app", *bind, *stop, *WORKERS[worker], *options),
            env=env,
            pass_fds=[listener.fileno()],
        )
        try:
            site = Site(host, listener.getsockname()[1], server)
            site.generate("warm up")
            server.reset()
            yield site
        finally:
            host.kill()


@pytest.fixture(scope="module", params=SETTINGS, ids=", ".join)
def shared_site(launch, request):
    """A gunicorn for some tests."""
    with running(launch, *request.param) as site:
        yield site


@pytest.fixture
def site(shared_site):
    """The same, with a reset server."""
    shared_site.server.reset()
    return shared_site


@pytest.fixture(params=WORKERS)
def own_site(launch, request):
    """A gunicorn for a test that stops it."""
    with running(launch, request.param, "used before the fork") as site:
        yield site


@pytest.fixture(params=WORKERS)
def patient_site(launch, request):
    """The same, whose workers may finish on a busy machine as well."""
    with running(launch, request.param, "used before the fork", graceful_timeout=60) as site:
        yield site


def test_requests_in_parallel(site):
    """All workers respond at the same time, whole and streamed, and each request gets its own reply."""
    prompts = [f"prompt {number}" for number in range(24)]
    expected = [f"You said: {prompt}" for prompt in prompts]
    workers = set()
    with ThreadPoolExecutor(12) as threads:
        while len(workers) < 2:  # at first there may be only one worker
            site.server.delay(0.05, times=24)
            whole = list(threads.map(site.generate, prompts))
            assert expected == [reply["content"] for reply in whole]
            workers |= {reply["worker"] for reply in whole}

        assert expected == list(threads.map(site.read, prompts))


def test_reader_that_disconnects(site):
    """When the reader of a streamed response disconnects, NeuralBox stops generating; the worker continues."""
    with site.post("/stream", "endless") as response:
        assert b"x " == response.read(2)

    site.server.wait_for_disconnect()
    assert () == site.server.billed
    assert "You said: next" == site.read("next")


def test_graceful_stop(patient_site):
    """Workers that are stopped finish their call and their stream, and end without output."""
    patient_site.server.delay(0.5, times=2)
    with ThreadPoolExecutor(2) as threads:
        streamed = threads.submit(patient_site.read, "word " * 40)
        whole = threads.submit(patient_site.generate, "Hi")
        patient_site.server.wait_until(lambda: len(patient_site.server.requests) == 2)
        patient_site.host.send(signal.SIGTERM)

        assert "You said: " + "word " * 40 == streamed.result()
        assert "You said: Hi" == whole.result()["content"]

    result = patient_site.host.end()
    assert (0, [], "") == (result.status, result.lines, result.errors)


def test_quick_stop(own_site):
    """Workers that are stopped at once cancel their calls, and NeuralBox sees the disconnect."""
    own_site.server.delay(30)
    with ThreadPoolExecutor(1) as threads:
        left = threads.submit(own_site.generate, "Hi")
        own_site.server.wait_until(lambda: len(own_site.server.requests) == 1)
        own_site.host.send(signal.SIGINT)

        assert isinstance(left.exception(), (OSError, http.client.HTTPException, json.JSONDecodeError))

    result = own_site.host.end()
    assert (0, []) == (result.status, result.lines)
    # gunicorn prints a traceback of its own.
    assert not re.search("Exception (in|ignored)|Warning", result.errors), result.errors
    own_site.server.wait_for_disconnect()
