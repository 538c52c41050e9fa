"""`RequestWriter` writes requests as aiohttp does: one by one, in a batch, and when a call is cancelled."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp.http import StreamWriter

from neuralbox_async import APIConnectionError, AsyncNeuralBox

pytestmark = pytest.mark.usefixtures("no_task_left", "fast_paths_on")

RESPONSE = json.dumps({"id": "gen_1", "status": "completed", "content": "Hi", "tokens_used": 1}).encode()
KEY = "nb_" + 32 * "k"


class Wire:
    """A server that records head and body of each request, and sends the same response to each."""

    def __init__(self):
        self.bodies = []
        self.heads = []
        self.connections = 0

    async def serve(self, reader, writer):
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"100-continue" in head:
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                length = next(
                    int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
                )
                self.heads.append(head)
                self.bodies.append(json.loads(await reader.readexactly(length)))
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                    % (len(RESPONSE), RESPONSE)
                )
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def wire():
    recorder = Wire()
    server = await asyncio.start_server(recorder.serve, "127.0.0.1", 0, limit=10_000_000)
    recorder.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield recorder


def prompts(wire):
    return [body["messages"][0]["content"] for body in wire.bodies]


@pytest.mark.long
@pytest.mark.parametrize("size", [0, 1000, 16 * 1024, 100_000, 2_000_000])
@pytest.mark.parametrize("concurrency", [1, 20])
async def test_each_body_arrives_whole_and_once(wire, size, concurrency):
    """The server receives each body once and whole, of any size and at any concurrency."""
    texts = [f"{number} {'x' * size}" for number in range(3 * concurrency)]
    async with AsyncNeuralBox(KEY, base_url=wire.url) as client:
        for first in range(0, len(texts), concurrency):
            await asyncio.gather(*(client.generate("gpt-5", text) for text in texts[first : first + concurrency]))
    assert sorted(texts) == sorted(prompts(wire))
    assert wire.connections == concurrency


@pytest.mark.long
async def test_a_large_head_arrives_whole(wire):
    """A head that does not fit into the socket's buffer arrives whole."""
    header = {"X-Large": "x" * 5_000_000}
    async with AsyncNeuralBox(KEY, base_url=wire.url, timeout=20) as client:
        for concurrency in (1, 1, 1, 3):
            await asyncio.gather(*(client.generate("gpt-5", "Hello", extra_headers=header) for _ in range(concurrency)))
    assert 6 == len(wire.bodies)


async def test_expect_continue(wire):
    """With the header "Expect: 100-continue", the body waits for the server's 100."""
    async with AsyncNeuralBox(KEY, base_url=wire.url, timeout=20, default_headers={"Expect": "100-continue"}) as client:
        for concurrency in (1, 1, 1, 3):
            await asyncio.gather(*(client.generate("gpt-5", "Hello") for _ in range(concurrency)))
    assert 6 == len(wire.bodies)


@pytest.mark.parametrize("options", [{}, {"reuse_connections": False}])
async def test_heads_are_those_of_aiohttp(wire, monkeypatch, options):
    """The head of a request is the same as without `RequestWriter`."""

    async def heads():
        wire.heads.clear()
        async with AsyncNeuralBox(KEY, base_url=wire.url, **options) as client:
            for _ in range(4):  # the later ones are written at once
                await client.generate("gpt-5", "Hello", idempotency_key="one")
            await asyncio.gather(*(client.generate("gpt-5", "Hello", idempotency_key="one") for _ in range(3)))
        return set(wire.heads)

    ours = await heads()
    monkeypatch.setattr("neuralbox_async._http.aiohttp_transport.new_direct_sender", lambda *_: None)
    assert ours == await heads()
    assert 1 == len(ours)
    assert options == {} or b"Connection: close" in ours.pop()


async def test_small_bodies_need_no_task(wire):
    """No task is created for a small body: all tasks are those of the callers."""
    counts = []

    async def watch():
        while True:
            counts.append(len(asyncio.all_tasks()))
            await asyncio.sleep(0)

    async with AsyncNeuralBox(KEY, base_url=wire.url) as client:
        await asyncio.gather(*(client.generate("gpt-5", "Hello") for _ in range(10)))
        before = len(asyncio.all_tasks())
        watcher = asyncio.create_task(watch())
        await asyncio.gather(*(client.generate("gpt-5", "Hello") for _ in range(10)))
        watcher.cancel()
    assert max(counts) <= before + 11


@pytest.mark.parametrize("iterations", range(12))
async def test_a_cancelled_call_leaves_no_partial_request(wire, iterations):
    """A call that is cancelled in any iteration of the loop disturbs no other, and a request that is sent is whole."""
    async with AsyncNeuralBox(KEY, base_url=wire.url) as client:
        await asyncio.gather(*(client.generate("gpt-5", "warm") for _ in range(4)))
        calls = [asyncio.create_task(client.generate("gpt-5", f"call {number}")) for number in range(4)]
        for _ in range(iterations):
            await asyncio.sleep(0)
        calls[0].cancel()
        calls[2].cancel()
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert ["Hi", "Hi"] == [outcomes[index].content for index in (1, 3)]
        assert "Hi" == (await client.generate("gpt-5", "after")).content
    received = prompts(wire)
    assert {"call 1", "call 3", "after"} <= set(received)
    assert len(received) == len(set(received)) + 3  # "warm" was sent four times


async def test_a_failed_write_affects_one_call(wire, monkeypatch):
    """Of requests that are written together, only the one that cannot be written fails."""
    write = StreamWriter.write

    async def failing(self, chunk, **options):
        if b"call 1" in chunk:
            raise OSError("no more")
        if b"call 2" in chunk:
            await asyncio.sleep(30)  # which aiohttp does not do for so small a body
        return await write(self, chunk, **options)

    async with AsyncNeuralBox(KEY, base_url=wire.url, max_retries=0, timeout=10) as client:
        monkeypatch.setattr(StreamWriter, "write", failing)
        calls = (client.generate("gpt-5", f"call {number}") for number in range(4))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert ["Hi", "Hi"] == [outcomes[index].content for index in (0, 3)]
    for failed in (outcomes[1], outcomes[2]):
        assert isinstance(failed, APIConnectionError)
        assert "unknown" == failed.billed
    assert {"call 0", "call 3"} == set(prompts(wire))


def test_an_interrupt_affects_one_write():
    """A signal handler that raises during the writes interrupts one of them; the loop writes the others afterwards."""
    loop = asyncio.new_event_loop()
    wire, interrupted = Wire(), []
    write = StreamWriter.write

    async def interrupting(self, chunk, **options):
        if not interrupted:
            interrupted.append(chunk)
            raise KeyboardInterrupt
        return await write(self, chunk, **options)

    async def main():
        server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, AsyncNeuralBox(KEY, base_url=url, timeout=10, max_retries=0) as client:
            calls = (client.generate("gpt-5", f"call {number}") for number in range(5))
            return await asyncio.gather(*calls, return_exceptions=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StreamWriter, "write", interrupting)
        task = loop.create_task(main())
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(task)
        outcomes = loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    assert 4 == len(wire.bodies) == sum(getattr(outcome, "content", "") == "Hi" for outcome in outcomes)
    assert 1 == sum(isinstance(outcome, APIConnectionError) for outcome in outcomes)
