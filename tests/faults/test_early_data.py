"""Servers that send, or close, as soon as a connection is made: before the request."""

import ssl

import pytest
from fault_server import response
from outcomes import generate, stream

from neuralbox_async import APIConnectionError, InternalServerError

BUSY = response({"error": "overloaded"}, status="503 Service Unavailable")


@pytest.fixture
def tls_1_2(tls, monkeypatch):
    """The TLS context of a server; with TLS 1.2 its data can come in the packet that ends the handshake."""
    monkeypatch.setattr(tls, "maximum_version", ssl.TLSVersion.TLSv1_2)
    return tls


def greets(tls, data):
    """Return a script that sends *data* in the packet that ends the handshake."""

    async def script(connection):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        secure = tls.wrap_bio(incoming, outgoing, server_side=True)
        while True:
            try:
                secure.do_handshake()
                break
            except ssl.SSLWantReadError:
                await connection.send(outgoing.read())
                incoming.write(await connection.reader.read(65536))
        secure.write(data)
        await connection.send(outgoing.read())
        await connection.until_client_closes()

    return script


@pytest.mark.parametrize("call", [generate, stream])
@pytest.mark.parametrize(
    "data, expected",
    [(BUSY, InternalServerError), (b"SSH-2.0-OpenSSH_9.6\r\n", APIConnectionError)],
    ids=["an error", "a banner of another protocol"],
)
async def test_data_before_the_request(serve, connect, tls_1_2, trusting, call, data, expected):
    """What a server sends on a new connection is its response: the client does not connect again and again."""
    server = serve(greets(tls_1_2, data), scheme="https")

    outcome = await call(connect(server, ssl_context=trusting, timeout=2))

    assert expected is type(outcome.error)
    assert 1 == len(server.connections)
