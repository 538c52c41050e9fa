"""TLS: certificates, handshakes, and streams that are cut off."""

import asyncio
import socket
import ssl

import pytest
import trustme
from fault_server import answer, serves
from outcomes import LONG, START, WHOLE, assert_never_sent, generate, stream

from neuralbox_async import APIConnectionError, StreamInterruptedError


@pytest.fixture(scope="module")
def authority():
    """An authority that nobody trusts but who is told to."""
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority):
    """The server's side of TLS for 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority):
    """The client's side of TLS, trusting the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.mark.parametrize("call", [generate, stream])
async def test_untrusted_certificate(serve, connect, tls, call):
    """A certificate that is not trusted is a matter of configuration: not sent, and not tried again."""
    server = serve(serves(WHOLE), tls=tls)

    outcome = await call(connect(server))

    assert APIConnectionError is type(outcome.error)
    assert not outcome.error.retryable
    assert_never_sent(outcome.error, attempts=1)
    assert 0 == server.posts


async def test_certificate_of_another_host(serve, connect, authority, trusting):
    """So is one for another name."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    server = serve(serves(WHOLE), tls=context)

    outcome = await generate(connect(server, ssl_context=trusting))

    assert_never_sent(outcome.error, attempts=1)
    assert 0 == server.posts


async def test_trusted_certificate(serve, connect, tls, trusting):
    """With a context of one's own, one's own authority is trusted."""
    server = serve(serves(WHOLE), tls=tls)

    assert "Hello" == (await connect(server, ssl_context=trusting).generate("gpt-5", "Hi")).content


async def hello_and_http(connection):
    """Answer whatever comes in plain HTTP."""
    await connection.reader.read(10)
    await connection.send(answer({"error": "bad_request"}, status="400 Bad Request"))
    connection.finish()


async def hello_and_silence(connection):
    """Take the first bytes of a handshake and say nothing."""
    await connection.reader.read(10)


async def hello_and_close(connection):
    """Take the first bytes of a handshake and close."""
    await connection.reader.read(10)
    connection.finish()


@pytest.mark.parametrize("script", [hello_and_http, hello_and_silence, hello_and_close])
async def test_no_handshake(serve, connect, script):
    """Where nobody speaks TLS nothing is sent; connect_timeout holds for the handshake."""
    server = serve(script, scheme="https")

    outcome = await generate(connect(server, connect_timeout=0.2))

    assert isinstance(outcome.error, APIConnectionError)
    assert "no" == outcome.error.billed
    assert not outcome.error.request_sent
    assert outcome.elapsed < LONG
    assert await server.all_left()


@pytest.mark.parametrize("then", ["fin", "reset"])
async def test_tls_cut(serve, connect, tls, trusting, then):
    """A stream whose TLS is cut off without a goodbye is not complete."""

    async def script(connection):
        await connection.request()
        await connection.send(START)
        await asyncio.sleep(0.05)
        if then == "fin":  # of TCP, below TLS
            connection.writer.get_extra_info("socket")._sock.shutdown(socket.SHUT_WR)
        else:
            connection.reset()

    server = serve(script, tls=tls)

    outcome = await stream(connect(server, ssl_context=trusting))

    assert isinstance(outcome.error, StreamInterruptedError)
    assert ["Hello ", "world"] == outcome.texts
    assert 1 == server.posts
