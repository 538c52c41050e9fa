"""Requests that wait for the next iteration of the loop before they are written: a fast path makes them wait."""

import asyncio
import time

import pytest
from fault_server import response
from outcomes import BODY, COMPLETE

from neuralbox_async._http.request_writer import WriteBatch

STRAY = response(BODY.replace(b"Hello", b"Stray"))


@pytest.mark.usefixtures("fast_paths_on")  # without them aiohttp writes, with nothing to observe before that
@pytest.mark.parametrize("what", ["a response", "the end"])
async def test_a_connection_that_changes_before_the_write(serve, connect, monkeypatch, what):
    """What arrives between the choice of a connection and the write is no response: the request takes another one."""

    async def script(connection):
        for _ in range(10):
            await connection.request()
            await connection.send(COMPLETE)
            connections.append(connection)

    connections = []
    server = serve(script)
    client = connect(server, max_retries=1)
    await asyncio.gather(*(client.generate("gpt-5", "Hi") for _ in range(3)))
    before, write_soon, changed = server.posts, WriteBatch.write_soon, []

    def change_and_write(batch, write, loop):
        if not changed:
            changed.extend(connections)
            for connection in connections:
                if what == "a response":
                    asyncio.run_coroutine_threadsafe(connection.send(STRAY), server._loop).result()
                else:
                    server._loop.call_soon_threadsafe(connection.finish)
            time.sleep(0.2)  # the loop reads nothing meanwhile
        write_soon(batch, write, loop)

    monkeypatch.setattr(WriteBatch, "write_soon", change_and_write)
    texts = {reply.content for reply in await asyncio.gather(*(client.generate("gpt-5", "Hi") for _ in range(3)))}

    assert {"Hello"} == texts
    assert changed
    assert before + 3 == server.posts
