"""Uploads that are rejected, reset or stalled."""

import asyncio
import time

import pytest
from fault_server import response
from outcomes import MIB, assert_unknown

from neuralbox_async import APIConnectionError, APIStatusError, APITimeoutError

LARGE = "x" * (8 * MIB)


async def test_rejected_upload(serve, connect):
    """An error response before the body was read raises its error."""

    async def script(connection):
        await connection.head()
        await connection.send(response({"error": "too_large"}, "Connection: close", status="413 Too Large"))
        await connection.until_client_closes()

    server = serve(script)
    with pytest.raises(APIStatusError) as caught:
        await connect(server).generate("gpt-5", LARGE)

    assert 413 == caught.value.status_code
    assert await server.all_closed()
    assert 1 == len(server.connections)


async def test_reset_upload(serve, connect):
    """An upload that is reset has an unknown billing status, and no writer is left."""

    async def script(connection):
        await connection.head()
        await connection.reader.read(65536)
        connection.reset()

    server = serve(script)
    with pytest.raises(APIConnectionError) as caught:
        await connect(server).generate("gpt-5", LARGE)

    assert_unknown(caught.value)
    assert 1 == len(server.connections)


@pytest.mark.timing
async def test_stalled_upload(serve, connect):
    """An upload that nobody reads times out."""

    async def script(connection):
        connection.writer.transport.pause_reading()
        await asyncio.sleep(20)
        connection.reset()

    server = serve(script)
    started = time.monotonic()
    with pytest.raises(APITimeoutError) as caught:
        await connect(server, timeout=0.8).generate("gpt-5", "x" * (16 * MIB))

    assert_unknown(caught.value)
    assert time.monotonic() - started < 10
    assert 1 == len(server.connections)
