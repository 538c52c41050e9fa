"""The responses of the frameworks, without a server: events, statuses, and the end of a stream whose browser left."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import json
import socket
import types

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from event_source import interpret

from neuralbox_async import AsyncNeuralBox
from neuralbox_async.testing import NeuralBoxServer
from neuralbox_async.web import aiohttp_response, django_response, starlette_response
from neuralbox_sync import NeuralBox
from neuralbox_sync.web import flask_response, server_sent_events


async def starlette(server, *, headers=(), leave=False, more=(("X-More", "yes"),), method="GET"):
    """Return the status, the headers and the body of a response; with *leave*, the browser leaves before the text."""
    pytest.importorskip("starlette")
    sent = []

    async def receive():
        while not leave or not server.in_flight:
            await asyncio.sleep(0.001)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    async with AsyncNeuralBox(**server.client_options, max_retries=0) as client:
        response = starlette_response(client.stream("gpt-5", "Hi"), headers=dict(more))
        await response({"type": "http", "headers": headers, "method": method}, receive, send)
    if not sent:
        return None
    names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    assert len(names) == len(sent[0]["headers"])
    return sent[0]["status"], names, b"".join(message["body"] for message in sent[1:])


async def test_starlette(neuralbox_server):
    """Events with the headers of the application; a problem for an error; a 204 for a second connection."""
    status, headers, body = await starlette(neuralbox_server)
    assert (200, "yes", "no") == (status, headers["x-more"], headers["x-accel-buffering"])
    assert "complete" == interpret(body).last.kind

    neuralbox_server.fail(429, retry_after=847)
    status, headers, body = await starlette(neuralbox_server)
    assert (503, "847", "yes") == (status, headers["retry-after"], headers["x-more"])
    assert ("application/problem+json", str(len(body))) == (headers["content-type"], headers["content-length"])
    assert 503 == json.loads(body)["status"]

    assert (204, {"x-more": "yes", "cache-control": "no-store"}, b"") == await starlette(
        neuralbox_server, headers=[(b"last-event-id", b"0")]
    )


async def test_starlette_disconnect(neuralbox_server):
    """A browser that leaves before the first text gets nothing, and the generation ends."""
    neuralbox_server.stall(1)
    assert await starlette(neuralbox_server, leave=True) is None
    await neuralbox_server.wait_for_disconnect_async()


class BrokenServerError(Exception):
    """A server that cannot receive or send."""


@pytest.mark.parametrize("broken", ["receive", "send"])
async def test_starlette_on_a_broken_server(neuralbox_server, broken):
    """An error of the server ends the generation, and is raised."""
    pytest.importorskip("starlette")
    neuralbox_server.stall(2)

    async def receive():
        while not neuralbox_server.in_flight:
            await asyncio.sleep(0.001)
        if broken == "receive":
            raise BrokenServerError
        await asyncio.Event().wait()

    async def send(_):
        raise BrokenServerError

    async with AsyncNeuralBox(**neuralbox_server.client_options) as client:
        response = starlette_response(client.stream("gpt-5", "Hi"))
        with pytest.raises(BrokenServerError):
            await response({"type": "http", "headers": []}, receive, send)
    await neuralbox_server.wait_for_disconnect_async()


@pytest.mark.parametrize("leave", [False, True])
async def test_starlette_in_a_server_that_ends(neuralbox_server, leave):
    """A response that the server cancels ends as cancelled, even if the browser leaves at the same moment."""
    pytest.importorskip("starlette")
    neuralbox_server.stall(1)
    left, tasks = asyncio.Event(), []

    async def receive():
        await left.wait()
        tasks[0].cancel()
        return {"type": "http.disconnect"}

    async with AsyncNeuralBox(**neuralbox_server.client_options) as client:
        response = starlette_response(client.stream("gpt-5", "Hi"))
        tasks.append(asyncio.create_task(response({"type": "http", "headers": []}, receive, None)))
        await neuralbox_server.wait_until_async(lambda: neuralbox_server.in_flight == 1)
        if leave:
            left.set()
        else:
            tasks[0].cancel()
        await asyncio.wait(tasks)
    assert tasks[0].cancelled()
    await neuralbox_server.wait_for_disconnect_async()


def test_flask(neuralbox_server):
    """Events; a problem for an error; a 204 for a second connection; a response that is closed ends the generation."""
    flask = pytest.importorskip("flask")
    app = flask.Flask(__name__)
    with NeuralBox(**neuralbox_server.client_options, max_retries=0) as client:
        app.get("/")(lambda: flask_response(client.stream("gpt-5", "Hi")))
        browser = app.test_client()

        assert "complete" == interpret(browser.get("/").data).last.kind
        assert 204 == browser.get("/", headers={"Last-Event-ID": "3"}).status_code
        neuralbox_server.fail(402)
        response = browser.get("/")
        assert (502, "application/problem+json") == (response.status_code, response.mimetype)

        neuralbox_server.stall(3)
        response = browser.get("/", buffered=False)
        next(response.iter_encoded())
        response.close()
        neuralbox_server.wait_for_disconnect()


MORE = {"X-More": "yes", "content-type": "text/html", "Retry-After": "1"}  # of the application, for each response


def flask_reply(server, headers, method):
    """Return the response of Flask to a request with *headers*."""
    flask = pytest.importorskip("flask")
    with (
        NeuralBox(**server.client_options, max_retries=0) as client,
        flask.Flask("x").test_request_context(headers=headers, method=method),
    ):
        response = flask_response(client.stream("gpt-5", "Hi"), headers=MORE)
        return response.status_code, list(response.headers.items()), response.data


async def django_reply(server, headers, method):
    """Return the response of Django to a request with *headers*."""
    conf = pytest.importorskip("django.conf")
    if not conf.settings.configured:
        conf.settings.configure()
    async with AsyncNeuralBox(**server.client_options, max_retries=0) as client:
        request = types.SimpleNamespace(headers=headers, method=method)
        response = await django_response(request, client.stream("gpt-5", "Hi"), headers=MORE)
    return response.status_code, response.items(), response.content


async def aiohttp_reply(server, headers, method):
    """Return the response of aiohttp.web to a request with *headers*."""
    async with AsyncNeuralBox(**server.client_options, max_retries=0) as client:

        async def chat(request):
            return await aiohttp_response(request, client.stream("gpt-5", "Hi"), headers=MORE)

        app = web.Application()
        app.router.add_get("/", chat)
        async with TestClient(TestServer(app)) as browser, browser.request(method, "/", headers=headers) as response:
            return response.status, response.headers.items(), await response.read()


async def starlette_reply(server, headers, method):
    """Return the response of Starlette to a request with *headers*."""
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    status, headers, body = await starlette(server, headers=raw, more=MORE, method=method)
    return status, headers.items(), body


async def reply_of(respond, server, headers, method="GET"):
    """Return the status, the headers and the body of a response; no header is there twice."""
    if inspect.iscoroutinefunction(respond):
        status, headers, body = await respond(server, headers, method)
    else:
        status, headers, body = await asyncio.to_thread(respond, server, headers, method)
    names = [name.lower() for name, _ in headers]
    assert len(set(names)) == len(names)
    return status, dict(zip(names, [value for _, value in headers], strict=True)), body


FRAMEWORKS = pytest.mark.parametrize("respond", [flask_reply, django_reply, aiohttp_reply, starlette_reply])


@FRAMEWORKS
async def test_headers_of_an_error(neuralbox_server, respond):
    """An error has the headers of the application, but for those that it has itself."""
    neuralbox_server.fail(429, retry_after=847)
    status, shown, body = await reply_of(respond, neuralbox_server, {})

    assert (503, "yes", "847") == (status, shown["x-more"], shown["retry-after"])
    assert "application/problem+json" == shown["content-type"]
    assert 503 == json.loads(body)["status"]


@FRAMEWORKS
async def test_headers_of_a_reconnection(neuralbox_server, respond):
    """The 204 for a second connection has the headers of the application, is not stored, and sends no request."""
    status, shown, body = await reply_of(respond, neuralbox_server, {"Last-Event-ID": "3"})

    assert (204, "yes", "no-store", b"") == (status, shown["x-more"], shown["cache-control"], body)
    assert () == neuralbox_server.requests


@FRAMEWORKS
async def test_head(neuralbox_server, respond):
    """A HEAD request, which GET routes of most frameworks have as well, gets the headers: nothing is generated."""
    status, shown, body = await reply_of(respond, neuralbox_server, {}, "HEAD")

    assert (200, "yes", "no-store", b"") == (status, shown["x-more"], shown["cache-control"], body)
    assert "content-length" not in shown
    assert () == neuralbox_server.requests


async def test_starlette_browser_reads_nothing(neuralbox_server, caplog):
    """A server that waits for a browser that reads nothing is not waited for: the generation and the response end."""
    pytest.importorskip("starlette")
    neuralbox_server.stall(3)

    async def send(message):
        if message.get("body"):
            await asyncio.Event().wait()

    async with AsyncNeuralBox(**neuralbox_server.client_options) as client:
        response = starlette_response(client.stream("gpt-5", "Hi"), write_timeout=0.05)
        await response({"type": "http", "headers": []}, asyncio.Event().wait, send)
    await neuralbox_server.wait_for_disconnect_async()
    assert any("has read nothing for 0.05 s" in record.getMessage() for record in caplog.records)


@contextlib.asynccontextmanager
async def aiohttp_site(server, **options):
    """Run an application of aiohttp.web and yield its port."""
    async with AsyncNeuralBox(**server.client_options) as client:

        async def chat(request):
            return await aiohttp_response(request, client.stream("gpt-5", "Hi"), **options)

        app = web.Application()
        app.router.add_get("/", chat)
        async with TestServer(app, port=0) as site:
            yield site.port


async def test_aiohttp_browser_reads_nothing():
    """A browser that reads nothing is disconnected, and the generation ends."""
    with NeuralBoxServer(reply=lambda _: itertools.repeat("word " * 20_000)) as server:
        async with aiohttp_site(server, write_timeout=0.2) as port:
            with socket.socket() as browser:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                browser.connect(("127.0.0.1", port))
                browser.sendall(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                await server.wait_for_disconnect_async()


async def test_aiohttp_http_1_0(neuralbox_server):
    """An HTTP/1.0 client, to which the end of the connection is that of the response, gets it also with keep-alive."""
    async with aiohttp_site(neuralbox_server) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        received = await asyncio.wait_for(reader.read(), 60)
        writer.close()

    head, _, body = received.partition(b"\r\n\r\n")
    assert b"keep-alive" not in head.lower()
    assert "complete" == interpret(body).last.kind


def test_blocking_events(neuralbox_server):
    """The blocking events are those of the async ones."""
    with NeuralBox(**neuralbox_server.client_options) as client:
        source = interpret(b"".join(server_sent_events(client.stream("gpt-5", "Hi").open())))

    assert ("You said: Hi", "complete") == (source.text, source.last.kind)


def test_blocking_events_that_are_closed(neuralbox_server):
    """After the events have been closed, no timer runs for their browser: its connection may serve another request."""
    neuralbox_server.stall(3)
    with NeuralBox(**neuralbox_server.client_options) as client:
        events = server_sent_events(client.stream("gpt-5", "Hi").open())
        next(events)
        timeout = events._events._write_timeout
        assert timeout._timer is not None
        events.close()
        neuralbox_server.wait_for_disconnect()
        neuralbox_server.wait_until(lambda: timeout._timer is None)
        assert [] == list(events)


def test_blocking_browser_reads_nothing(neuralbox_server):
    """The connection of a thread that waits for a browser that reads nothing is ended, and so is the generation."""
    flask = pytest.importorskip("flask")
    neuralbox_server.stall(3)
    server, browser = socket.socketpair()
    environ = {"werkzeug.socket": server}
    with (
        server,
        browser,
        NeuralBox(**neuralbox_server.client_options) as client,
        flask.Flask("x").test_request_context(environ_base=environ),
    ):
        response = flask_response(client.stream("gpt-5", "Hi"), write_timeout=0.05)
        chunks = response.iter_encoded()
        next(chunks)
        browser.settimeout(60)
        assert b"" == browser.recv(1)
        neuralbox_server.wait_for_disconnect()
        assert [] == list(chunks)
