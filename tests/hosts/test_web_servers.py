"""Web servers stream to browsers: statuses, events, and browsers that leave, as the local server sees them."""

import contextlib
import http.client
import importlib.util
import itertools
import shutil
import socket
import subprocess
import time

import attrs
import pytest
from event_source import interpret
from web_server import free_port, wait_until_listening

from neuralbox_async.testing import NeuralBoxServer

TIMEOUT = 60.0  # seconds

# The command of each host, after the interpreter, and the packages that it needs.
UVICORN = ("-m", "uvicorn", "--log-level", "warning", "--factory", "--port", "{port}")
HYPERCORN = ("-m", "hypercorn", "--bind", "127.0.0.1:{port}")
GUNICORN = ("-m", "gunicorn", "--worker-class", "gthread", "--threads", "8", "--bind", "127.0.0.1:{port}")
HOSTS = {
    "starlette, uvicorn": ((*UVICORN, "web_apps:starlette_app"), {"starlette", "uvicorn"}),
    "starlette, hypercorn": ((*HYPERCORN, "web_apps:starlette_app()"), {"starlette", "hypercorn"}),
    "fastapi, uvicorn": ((*UVICORN, "web_apps:fastapi_app"), {"fastapi", "uvicorn"}),
    "django, uvicorn": ((*UVICORN, "web_apps:django_app"), {"django", "uvicorn"}),
    "django, hypercorn": ((*HYPERCORN, "web_apps:django_app()"), {"django", "hypercorn"}),
    "aiohttp": (("web_apps.py", "aiohttp", "{port}"), set()),
    "aiohttp, no cancellation": (("web_apps.py", "aiohttp-default", "{port}"), set()),
    "flask, gunicorn": ((*GUNICORN, "web_apps:flask_app()"), {"flask", "gunicorn"}),
    "flask, werkzeug": (("web_apps.py", "werkzeug", "{port}"), {"flask"}),
}


def reply(body):
    """Return the reply to the request *body*: endless for the prompt "endless"."""
    prompt = body["messages"][-1]["content"]
    return itertools.repeat("word " * 10_000) if prompt == "endless" else f"You said: {prompt}"


@attrs.frozen
class Site:
    """A running application, its port, and the local server."""

    host: object
    port: int
    server: NeuralBoxServer

    @contextlib.contextmanager
    def get(self, **headers):
        """Send a request and yield the connection; the end of the block closes it, as a browser that leaves."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)) as connection:
            connection.request("GET", "/chat?q=Hi", headers=headers)
            yield connection

    def response(self, **headers):
        """Return the response and its body."""
        with self.get(**headers) as connection:
            response = connection.getresponse()
            return response, response.read()


@pytest.fixture(scope="module", params=HOSTS)
def running(request, launch):
    """The application of one host, while it runs."""
    command, packages = HOSTS[request.param]
    for package in packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    with NeuralBoxServer(reply=reply, event_interval=0.002) as server:
        port = free_port()
        host = launch(server, *(word.format(port=port) for word in command))
        wait_until_listening(port)
        yield Site(host, port, server)


@pytest.fixture
def site(running):
    """The running application, with a new local server."""
    running.server.wait_until(lambda: not running.server.in_flight, TIMEOUT)
    running.server.reset()
    return running


def test_events(site):
    """The text is streamed with its cost, and the response ends orderly."""
    response, body = site.response()
    source = interpret(body)

    assert (200, "text/event-stream") == (response.status, response.headers.get_content_type())
    assert ("You said: Hi", "complete") == (source.text, source.last.kind)
    assert {"finish_reason", "tokens_used"} == set(source.last.data)
    assert 1 == len(site.server.billed)


@pytest.mark.parametrize("status, expected, retry_after", [(401, 502, None), (402, 502, None), (429, 503, "847")])
def test_statuses(site, status, expected, retry_after):
    """An error of the API is a status with a body that says nothing of the account."""
    site.server.fail(status, retry_after=847 if status == 429 else None)
    response, body = site.response()

    assert (expected, retry_after) == (response.status, response.headers["Retry-After"])
    assert "application/problem+json" == response.headers.get_content_type()
    assert site.server.api_key.encode() not in body
    assert b"balance" not in body


def test_failure_before_the_first_text(site):
    """A generation that fails after its start, before the first text, is a status as well."""
    site.server.error_event(after_events=1)
    response, _ = site.response()

    assert 502 == response.status


def test_failure_after_the_first_text(site):
    """A failure after the first text is the last event."""
    site.server.cut(3)
    response, body = site.response()

    assert (200, "failed") == (response.status, interpret(body).last.kind)


def test_reconnection(site):
    """An `EventSource` that connects again is stopped by a 204, and nothing is generated a second time."""
    response, body = site.response(**{"Last-Event-ID": "0"})

    assert (204, b"") == (response.status, body)
    assert () == site.server.requests


@pytest.mark.parametrize("events", [1, 3], ids=["before the first text", "after it"])
def test_disconnect(site, events):
    """A browser that leaves ends the generation, before the first text and after it; the site goes on."""
    site.server.stall(events)
    with site.get() as connection:
        site.server.wait_until(lambda: site.server.in_flight == 1, TIMEOUT)
        if events == 3:
            assert connection.getresponse().read(10)

    site.server.wait_for_disconnect(timeout=TIMEOUT)
    assert () == site.server.billed
    response, _ = site.response()
    assert 200 == response.status


def test_a_browser_that_reads_nothing(site):
    """A browser that stays and reads nothing ends its generation after the write timeout; the site goes on."""
    with socket.socket() as browser:
        browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        browser.connect(("127.0.0.1", site.port))
        browser.sendall(b"GET /chat?q=endless HTTP/1.1\r\nHost: test\r\n\r\n")
        site.server.wait_for_disconnect(timeout=TIMEOUT)
        response, _ = site.response()
        assert 200 == response.status


@pytest.mark.timing
@pytest.mark.parametrize("events", [1, 3], ids=["before the first text", "after it"])
def test_a_disconnect_is_noticed_soon(site, in_time, events):
    """The generation ends within a fraction of a second after the browser has left."""

    def leave():
        site.server.reset()
        site.server.stall(events)
        with site.get() as connection:
            site.server.wait_until(lambda: site.server.in_flight == 1, TIMEOUT)
            if events == 3:
                connection.getresponse().read(10)
            time.sleep(0.1)
        left = time.monotonic()
        while not any(request.disconnected for request in site.server.requests):
            time.sleep(0.002)
        return time.monotonic() - left

    assert in_time(0.3, leave)


def test_curl(site):
    """The stream can be read with curl."""
    if (curl := shutil.which("curl")) is None:
        pytest.skip("curl is not installed")
    command = [curl, "--silent", "--show-error", "--no-buffer", f"http://127.0.0.1:{site.port}/chat?q=Hi"]
    done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=True)

    assert ("You said: Hi", "complete") == ((source := interpret(done.stdout)).text, source.last.kind)
