"""Proxies that fail, and their passwords."""

import pytest
from fault_server import respond_to_each, response
from outcomes import COMPLETE, LONG, URLOnly, assert_never_sent, closed_port, generate, stream

from neuralbox_async import APIConnectionError


def as_proxy(*pieces, then="fin"):
    """Return a script that responds to CONNECT with *pieces*."""

    async def script(connection):
        await connection.head()
        connection.note("CONNECT")
        await connection.send(*pieces)
        if then == "fin":
            connection.finish()

    return script


PROXIES = {
    "407": (as_proxy(b"HTTP/1.1 407 Auth\r\nContent-Length: 0\r\n\r\n"), 1),
    "403": (as_proxy(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"), 1),
    "502": (as_proxy(b"HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n"), 3),
    "200, closed": (as_proxy(b"HTTP/1.1 200 OK\r\n\r\n"), None),
    "200, no tunnel": (as_proxy(b"HTTP/1.1 200 OK\r\n\r\n", response(b"hello"), then="stall"), None),
    "200, silence": (as_proxy(b"HTTP/1.1 200 OK\r\n\r\n", then="stall"), 3),
    "closed": (as_proxy(), 3),
    "half a head": (as_proxy(b"HTTP/1.1 200 O"), 3),
    "garbage": (as_proxy(b"garbage\r\n\r\n", then="stall"), None),
    "silence": (as_proxy(then="stall"), 3),
}


@pytest.mark.parametrize("script, attempts", PROXIES.values(), ids=PROXIES)
@pytest.mark.parametrize("call", [generate, stream])
async def test_proxy(serve, connect, call, script, attempts):
    """A proxy that opens no tunnel has forwarded nothing; connect_timeout holds, and no error has the password."""
    server = serve(script)
    proxy = f"http://user:canary@127.0.0.1:{server.port}"
    client = connect(
        URLOnly("https://api.example/api/v2"), proxy=proxy, connect_timeout=0.2, timeout=3, first_event_timeout=3
    )

    outcome = await call(client)

    assert isinstance(outcome.error, APIConnectionError)
    assert_never_sent(outcome.error, attempts=attempts or outcome.error.attempts)
    assert outcome.elapsed < LONG
    assert "canary" not in repr(vars(outcome.error)) + str(outcome.error)
    assert await server.all_closed()


async def test_proxy_refused(connect):
    """A refused connection to a proxy is retried."""
    with closed_port() as port:
        client = connect(URLOnly("https://api.example/api/v2"), proxy=f"http://127.0.0.1:{port}")
        outcome = await generate(client)

    assert_never_sent(outcome.error, attempts=3)


async def test_proxy_of_plain_http(serve, connect):
    """A plain http request goes through a proxy with the proxy's password."""
    server = serve(respond_to_each(COMPLETE))
    client = connect(URLOnly("http://localhost:9/api/v2"), proxy=f"http://user:pw@127.0.0.1:{server.port}")

    assert "Hello" == (await client.generate("gpt-5", "Hi")).content
    assert ["http://localhost:9/api/v2/generate"] == [request.path for request in server.requests]
    assert "Basic dXNlcjpwdw==" == server.requests[0].headers["proxy-authorization"]
