"""The web applications on the pages are served as their pages describe, and called."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import re
import socket
import sys

import attrs
import pytest
from documents import ROOT, TIMEOUT, blocks, command, programs
from event_source import interpret
from web_server import serve

from neuralbox_async import AsyncNeuralBox
from neuralbox_async.testing import NeuralBoxServer

DJANGO = {
    "mysite/settings.py": """\
SECRET_KEY = "only for tests"
ROOT_URLCONF = "mysite.urls"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = ["chat"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "texts.sqlite3"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
""",
    "mysite/wsgi.py": """\
from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
""",
}


@attrs.frozen
class Application:
    """A page with an application, the package and the command that serve it, and the path that streams a reply."""

    page: str
    package: str
    server: str = "uvicorn"
    path: str = "/chat"
    as_json: bool = False

    @property
    def headers(self):
        return {"Content-Type": "application/json" if self.as_json else "text/plain"}

    def body(self, prompt):
        """Return the body of a request."""
        turns = {"messages": [{"role": "user", "content": prompt}]}
        return json.dumps(turns) if self.as_json else prompt


APPLICATIONS = {
    "tutorial": Application("tutorials/chat-backend.md", "fastapi", as_json=True),
    "starlette": Application("how-to/starlette.md", "starlette"),
    "django": Application("how-to/django.md", "django"),
    "django, blocking": Application("how-to/django.md", "django", "gunicorn", "/blocking-chat"),
    "flask": Application("how-to/flask.md", "flask", "gunicorn"),
}


def _reply(body):
    """Return the reply to the request *body*: endless for the prompt "endless"."""
    prompt = body["messages"][-1]["content"]
    return itertools.repeat("x ") if prompt == "endless" else f"You said: {prompt}"


@pytest.fixture
def server(monkeypatch):
    """A server whose address and key are in the environment, and that can reply without end."""
    with NeuralBoxServer(reply=_reply, event_interval=0.002) as server:
        monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
        monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
        yield server


@pytest.fixture(params=APPLICATIONS)
def application(request):
    application = APPLICATIONS[request.param]
    pytest.importorskip(application.package)
    pytest.importorskip(application.server)
    return application


@pytest.fixture
def site(application, folder, server, starts_processes):
    """The running application."""
    path = folder(application.page)
    if application.package == "django":
        for name, code in DJANGO.items():
            (path / name).write_text(code, encoding="utf-8")
    with serve(command(ROOT / "docs" / application.page, application.server), path, server) as site:
        yield site


@pytest.fixture
def chat(application, site):
    """Return a function that sends a prompt and returns the response."""
    headers = application.headers
    return lambda prompt="Tell a story": site.send("POST", application.path, application.body(prompt), **headers)


def test_reply(chat, site):
    """The reply is streamed whole, and billed once; the application stops without a warning."""
    response = chat()

    _check_events(response, "You said: Tell a story")
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert 1 == len(site.server.billed)
    # Of ours: the servers and frameworks may have warnings of their own.
    assert not re.search(r"Traceback|Unclosed|ResourceWarning", site.log.read_text())


def test_errors(chat, site):
    """An error before the first text is a status; one after it is the last event."""
    site.server.fail(429, retry_after=847)
    response = chat()
    assert (503, "847") == (response.status, response.headers["Retry-After"])

    site.server.fail(401)
    assert 502 == chat().status
    assert 400 == chat("").status

    site.server.cut(3)
    _check_events(chat(), "You said: ", "failed")


def test_disconnect(application, site):
    """A browser that disconnects ends the generation: at once in ASGI, with the next piece in a blocking server."""
    prompt = "endless" if application.server == "gunicorn" else "Tell a story"
    if application.server != "gunicorn":
        site.server.stall(3)
    body = application.body(prompt)
    with contextlib.closing(site.open("POST", application.path, body, **application.headers)) as connection:
        assert b"id: 0" == connection.getresponse().read(5)

    site.server.wait_for_disconnect(timeout=TIMEOUT)
    assert () == site.server.billed


@pytest.mark.process
def test_flask_summary(folder, server):
    """The Flask application returns a whole text with its cost."""
    pytest.importorskip("flask")
    with serve(command(ROOT / "docs/how-to/flask.md", "gunicorn"), folder("how-to/flask.md"), server) as site:
        reply = json.loads(site.send("POST", "/summaries", "A long text").text)

    assert {"summary": "You said: Summarise: A long text", "tokens_used": 1} == reply


@pytest.mark.process
def test_fastapi(folder, server):
    """The FastAPI application returns a whole text, and streams events that end with the outcome."""
    pytest.importorskip("fastapi")
    with serve(command(ROOT / "docs/how-to/fastapi.md", "uvicorn"), folder("how-to/fastapi.md"), server) as site:
        reply = json.loads(site.send("POST", "/summaries?text=A%20text").text)
        assert {"summary": "You said: Summarise: A text", "tokens_used": 1} == reply

        source = interpret(site.send("GET", "/stories?topic=rivers").text.encode())
        assert ("You said: Tell a story about rivers", "complete") == (source.text, source.last.kind)

        server.cut(3)
        source = interpret(site.send("GET", "/stories?topic=rivers").text.encode())
        assert ("You said: ", "failed") == (source.text, source.last.kind)

        server.fail(500, code="internal")
        failed = site.send("POST", "/summaries?text=A%20text")
        assert (502, "The text could not be generated.") == (failed.status, json.loads(failed.text)["detail"])


WEB = ROOT / "docs/how-to/web.md"


def _check_events(response, text="You said: Hi", last="complete"):
    source = interpret(response.text.encode())
    assert (200, text, last, True) == (response.status, source.text, source.last.kind, response.complete)


@pytest.mark.process
@pytest.mark.parametrize("server_name, package", [("uvicorn", "fastapi"), ("gunicorn", "flask")])
def test_web_helpers(folder, server, server_name, package):
    """The applications for FastAPI and Flask on the page about browsers stream events, and have statuses for errors."""
    pytest.importorskip(server_name)
    pytest.importorskip(package)
    with serve(command(WEB, server_name), folder("how-to/web.md"), server) as site:
        _check_events(site.send("GET", "/chat?q=Hi"))
        server.fail(429, retry_after=847)
        response = site.send("GET", "/chat?q=Hi")
        assert (503, "847") == (response.status, response.headers["Retry-After"])
        if package == "fastapi":
            assert 400 == site.send("GET", "/chat?q=").status


@pytest.mark.process
def test_web_helpers_of_django(folder, server):
    """The Django view on the page about browsers streams events."""
    pytest.importorskip("django")
    path = folder("how-to/web.md")
    (path / "project.py").write_text(DJANGO_PROJECT, encoding="utf-8")
    with serve(["uvicorn", "project:application"], path, server) as site:
        _check_events(site.send("GET", "/chat?q=Hi"))


DJANGO_PROJECT = """\
import os
import sys

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.urls import path

del os.environ["DJANGO_SETTINGS_MODULE"]
settings.configure(SECRET_KEY="only for tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
application = get_asgi_application()

from views import chat

urlpatterns = [path("chat", chat)]
"""


async def test_web_helpers_of_aiohttp(server):
    """The aiohttp application on the page about browsers streams events."""
    from aiohttp.test_utils import TestClient, TestServer

    names = {"__name__": "app"}
    exec(programs(WEB)["aiohttp_app.py"], names)  # noqa: S102 - the page is our own
    async with TestClient(TestServer(names["app"])) as browser, browser.get("/chat?q=Hi") as response:
        source = interpret(await response.read())
    assert ("You said: Hi", "complete") == (source.text, source.last.kind)


async def test_web_helpers_of_any_framework(server):
    """The function on the page about browsers for other frameworks sends the events, or the problem."""
    (block,) = (block for block in blocks(WEB, "python") if "def respond" in block.code)
    heads, body = [], bytearray()

    async def send_head(status, headers):
        heads.append((status, headers["Content-Type"]))

    async def send_bytes(chunk):
        body.extend(chunk)

    async with AsyncNeuralBox() as client:
        names = {}
        exec(block.code, names)  # noqa: S102 - the page is our own
        await names["respond"](client, send_head, send_bytes)
        assert "You said: Hi" == interpret(bytes(body)).text
        server.fail(401)
        await names["respond"](client, send_head, send_bytes)
    assert [(200, "text/event-stream; charset=utf-8"), (502, "application/problem+json")] == heads


@pytest.mark.process
@pytest.mark.parametrize("page", ["tutorials/chat-backend.md", "how-to/fastapi.md"])
def test_tests_of_fastapi(folder, run, page):
    """The tests on a page about FastAPI pass."""
    pytest.importorskip("fastapi")
    pytest.importorskip("httpx")
    plugins = ("-p", "neuralbox_async.testing._pytest_plugin", "-p", "no:cacheprovider")
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONWARNINGS": "default"}
    path = folder(page)
    (path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    done = run(sys.executable, "-m", "pytest", "-q", *plugins, cwd=path, env=environment)

    assert 0 == done.returncode, done.stdout + done.stderr
    (name,) = (name for name in programs(ROOT / "docs" / page) if name.startswith("test_"))
    assert f"{(path / name).read_text().count('def test_')} passed" in done.stdout


@pytest.mark.process
def test_tests_that_never_pay(folder, run):
    """With the option of the page, an application whose client is created at import is tested on a local server."""
    pytest.importorskip("flask")
    plugins = ("-p", "neuralbox_async.testing._pytest_plugin", "-p", "no:cacheprovider")
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONWARNINGS": "default"}
    path = folder("testing.md")
    (settings,) = blocks(ROOT / "docs" / "testing.md", "ini")
    (path / "pytest.ini").write_text(settings.code, encoding="utf-8")
    done = run(sys.executable, "-m", "pytest", "-q", *plugins, cwd=path, env=environment)

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "1 passed" in done.stdout


@pytest.mark.process
def test_tests_of_django(folder, run):
    """The tests on the page about Django pass."""
    pytest.importorskip("django")
    path = folder("how-to/django.md")
    for name, code in DJANGO.items():
        (path / name).write_text(code, encoding="utf-8")
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings", "PYTHONWARNINGS": "default"}
    environment["PYTHONPATH"] = os.pathsep.join([str(path), environment["PYTHONPATH"]])
    done = run(sys.executable, "-m", "django", "test", "chat", cwd=path, env=environment)

    assert 0 == done.returncode, done.stderr
    assert "Ran 1 test" in done.stderr


@pytest.mark.process
def test_a_command_of_django(folder, run, server):
    """The management command on the page about Django generates the missing replies, each once."""
    pytest.importorskip("django")
    path = folder("how-to/django.md")
    for name, code in DJANGO.items():
        (path / name).write_text(code, encoding="utf-8")
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "mysite.settings"}
    environment["PYTHONPATH"] = os.pathsep.join([str(path), environment["PYTHONPATH"]])
    program = """\
import django
from django.core.management import call_command

django.setup()
from chat.models import Text

call_command("migrate", run_syncdb=True, verbosity=0)
Text.objects.bulk_create(Text(prompt=f"text {number}") for number in range(20))
for _ in range(2):
    call_command("write_replies")
print(*Text.objects.order_by("id").values_list("reply", flat=True), sep="\\n")
"""
    done = run(sys.executable, "-c", program, cwd=path, env=environment)

    assert 0 == done.returncode, done.stderr
    assert [f"You said: text {number}" for number in range(20)] == done.stdout.splitlines()
    assert 20 == len(server.billed)


async def test_aiohttp_web(server):
    """The WebSocket of the aiohttp application sends each text in pieces, then its outcome; a disconnect ends it."""
    from aiohttp.test_utils import TestClient, TestServer

    (code,) = programs(ROOT / "docs/how-to/aiohttp-web.md").values()
    names = {"__name__": "app"}
    exec(code, names)  # noqa: S102 - the page is our own
    async with TestClient(TestServer(names["app"])) as browser, browser.ws_connect("/chat") as socket:
        await socket.send_str("Tell a story")
        *pieces, last = await _until_last(socket)
        assert "You said: Tell a story" == "".join(piece["text"] for piece in pieces)
        assert {"complete": True, "tokens_used": 2} == last

        server.fail(401)
        await socket.send_str("Tell a story")
        assert [{"failed": "AuthenticationError", "billed": "no"}] == await _until_last(socket)

        server.stall(3)
        await socket.send_str("Tell a story")
        assert {"text": "You "} == await socket.receive_json()
        await socket.close()
        await asyncio.to_thread(server.wait_for_disconnect, timeout=TIMEOUT)
    assert 1 == len(server.billed)


async def test_aiohttp_web_socket_that_reads_nothing():
    """A browser that neither reads nor answers the pings of the WebSocket ends its generation."""
    from aiohttp.test_utils import TestServer

    (code,) = programs(ROOT / "docs/how-to/aiohttp-web.md").values()
    assert 1 == code.count("heartbeat=20")
    names = {"__name__": "app"}
    exec(code.replace("heartbeat=20", "heartbeat=0.5"), names)  # noqa: S102 - the page is our own
    with NeuralBoxServer(reply=lambda _: itertools.repeat("word " * 20_000)) as server:
        names["AsyncNeuralBox"] = functools.partial(AsyncNeuralBox, **server.client_options)
        async with TestServer(names["app"]) as site:
            with socket.socket() as browser:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                browser.connect(("127.0.0.1", site.port))
                browser.sendall(UPGRADE)
                await server.wait_for_disconnect_async(timeout=TIMEOUT)
    assert () == server.billed


# A request for a WebSocket, and a text message without a mask of other than zeros: "endless".
UPGRADE = b"""\
GET /chat HTTP/1.1\r
Host: localhost\r
Upgrade: websocket\r
Connection: Upgrade\r
Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r
Sec-WebSocket-Version: 13\r
\r
\x81\x87\x00\x00\x00\x00endless"""


async def _until_last(socket):
    messages = [await socket.receive_json()]
    while "text" in messages[-1]:
        messages.append(await socket.receive_json())
    return messages
