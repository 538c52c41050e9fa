"""The local server on later releases of aiohttp: it depends on no fixed signature and on no private attribute."""

import contextlib
import http.client
import logging

import pytest
from aiohttp import web

from neuralbox_async.testing import NeuralBoxServer


@pytest.fixture
def get_balance():
    """Start a server and send one request. Yield the server and the client's connection."""

    @contextlib.contextmanager
    def get_balance():
        with NeuralBoxServer() as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            with contextlib.closing(connection):
                connection.request("GET", "/api/v2/balance", headers={"Authorization": f"Bearer {server.api_key}"})
                yield server, connection

    return get_balance


@pytest.fixture
def extra_argument(monkeypatch):
    """An aiohttp that passes one more argument to the request factory, as aiohttp 4 does, and accepts it there."""
    create_request, initialize = web.Server._make_request, web.RequestHandler.__init__
    received = []

    def initialize_with_extra(handler, *args, **kwargs):
        initialize(handler, *args, **kwargs)
        factory = handler._request_factory
        handler._request_factory = lambda *arguments: factory(*arguments, "extra")

    def create_request_with_extra(server, *arguments):
        *arguments, extra = arguments
        received.append(extra)
        return create_request(server, *arguments)

    monkeypatch.setattr(web.Server, "_make_request", create_request_with_extra)
    monkeypatch.setattr(web.RequestHandler, "__init__", initialize_with_extra)
    return received


@pytest.fixture
def renamed_loop(monkeypatch):
    """An aiohttp whose server has no attribute `_loop` while code of a subclass runs."""
    initialize, create_request, call = web.Server.__init__, web.Server._make_request, web.Server.__call__

    @contextlib.contextmanager
    def private_loop(server):
        server._loop = server._event_loop
        yield
        del server._loop

    def initialize_without_loop(server, *args, **kwargs):
        initialize(server, *args, **kwargs)
        server._event_loop = server.__dict__.pop("_loop")

    def create_request_with_loop(server, *args):
        with private_loop(server):
            return create_request(server, *args)

    def call_with_loop(server):
        with private_loop(server):
            return call(server)

    monkeypatch.setattr(web.Server, "__init__", initialize_without_loop)
    monkeypatch.setattr(web.Server, "_make_request", create_request_with_loop)
    monkeypatch.setattr(web.Server, "__call__", call_with_loop)


def test_a_request_factory_with_one_more_argument(extra_argument, get_balance):
    """The server responds although aiohttp passes one more argument to the request factory."""
    with get_balance() as (_, connection):
        assert 200 == connection.getresponse().status
    assert ["extra"] == extra_argument


@pytest.mark.usefixtures("renamed_loop")
def test_no_private_event_loop(get_balance):
    """The server responds although aiohttp stores the event loop under another private name."""
    with get_balance() as (_, connection):
        assert 200 == connection.getresponse().status


@pytest.mark.parametrize("error", [TypeError("one argument too many"), ValueError("malformed")])
def test_a_request_factory_that_raises_closes_the_connection(monkeypatch, get_balance, caplog, error):
    """If the request factory raises, the error is logged and the connection closed: no client waits indefinitely."""

    def raise_error(*_, **__):
        raise error

    monkeypatch.setattr(web.Server, "_make_request", raise_error)
    with caplog.at_level(logging.ERROR, logger="neuralbox.testing"), get_balance() as (server, connection):
        with pytest.raises(http.client.RemoteDisconnected):
            connection.getresponse()
        server.wait_until(lambda: server.connections == 0)
    assert str(error) in caplog.text


def test_a_handler_that_raises_is_a_500(monkeypatch, get_balance):
    """If the record of a request cannot be created, the response is a 500."""
    monkeypatch.setattr("neuralbox_async.testing._api.ReceivedRequest", lambda **_: 1 / 0)
    with get_balance() as (_, connection):
        assert 500 == connection.getresponse().status


def test_malformed_requests_that_reach_the_handler(monkeypatch, get_balance):
    """A malformed request gets the error of aiohttp and is not recorded: from aiohttp 4 on it reaches the handler."""
    monkeypatch.setattr(web.BaseRequest, "pre_handler_error", web.HTTPBadRequest(text="malformed"), raising=False)
    with get_balance() as (server, connection):
        response = connection.getresponse()
        assert (400, b"malformed") == (response.status, response.read())
        assert () == server.requests
