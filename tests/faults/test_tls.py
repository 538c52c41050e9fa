"""TLS: certificates, handshakes, and streams that are cut."""

import asyncio
import socket
import ssl

import pytest
from fault_server import respond_to_each, response
from outcomes import COMPLETE, LONG, START, assert_never_sent, generate, stream

from neuralbox_async import APIConnectionError, StreamInterruptedError


@pytest.mark.parametrize("call", [generate, stream])
async def test_untrusted_certificate(serve, connect, tls, call):
    """A request to a server with an untrusted certificate is not sent and not retried."""
    server = serve(respond_to_each(COMPLETE), tls=tls)

    outcome = await call(connect(server))

    assert APIConnectionError is type(outcome.error)
    assert not outcome.error.retryable
    assert_never_sent(outcome.error, attempts=1)
    assert 0 == server.posts


async def test_certificate_of_another_host(serve, connect, authority, trusting):
    """A request to a server with a certificate of another host is not sent."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("elsewhere.example").configure_cert(context)
    server = serve(respond_to_each(COMPLETE), tls=context)

    outcome = await generate(connect(server, ssl_context=trusting))

    assert_never_sent(outcome.error, attempts=1)
    assert 0 == server.posts


async def test_trusted_certificate(serve, connect, tls, trusting):
    """*ssl_context* adds a trusted authority."""
    server = serve(respond_to_each(COMPLETE), tls=tls)

    assert "Hello" == (await connect(server, ssl_context=trusting).generate("gpt-5", "Hi")).content


async def hello_and_http(connection):
    """Respond to the handshake in plain HTTP."""
    await connection.reader.read(10)
    await connection.send(response({"error": "bad_request"}, status="400 Bad Request"))
    connection.finish()


async def hello_and_silence(connection):
    """Read the first bytes of the handshake and send nothing."""
    await connection.reader.read(10)


async def hello_and_close(connection):
    """Read the first bytes of the handshake and close."""
    await connection.reader.read(10)
    connection.finish()


@pytest.mark.parametrize("script", [hello_and_http, hello_and_silence, hello_and_close])
async def test_no_handshake(serve, connect, script):
    """A request is not sent without a handshake, and connect_timeout holds for the handshake."""
    server = serve(script, scheme="https")

    outcome = await generate(connect(server, connect_timeout=0.2))

    assert isinstance(outcome.error, APIConnectionError)
    assert "no" == outcome.error.billed
    assert not outcome.error.request_sent
    assert outcome.elapsed < LONG
    assert await server.all_closed()


@pytest.mark.parametrize("then", ["fin", "reset"])
async def test_tls_cut(serve, connect, tls, trusting, then):
    """A stream whose TLS connection is cut without a close_notify is not complete."""

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
