"""Clients that leave, and gateways that stop."""

from __future__ import annotations

import asyncio

import pytest
from gateways import ERROR, check_form, running

from neuralbox_async.testing import NeuralBoxServer

ENDLESS = {"reply": lambda _: iter(lambda: "word ", None), "event_interval": 0.01}


async def leave(site, server, **members):
    """Send a request, and leave when the API has it."""
    before = len(server.requests)
    headers = members.pop("headers", None)
    task = asyncio.create_task(site.send(headers=headers, **members))
    await server.wait_until_async(lambda: len(server.requests) > before and server.in_flight > 0)
    task.cancel()
    await asyncio.wait([task])


async def test_stream_before_the_first_text(server, log):
    """A client that leaves before the first text closes the stream of the API."""
    server.stall(1)
    async with running(server) as site:
        await leave(site, server, stream=True)
        await server.wait_for_disconnect_async()
        assert not site.gateway._exchanges

    assert any("disconnected gpt-5" in line for line in log())


async def test_stream_after_the_first_text(log):
    """A client that leaves in the middle closes the stream of the API; the log has the id."""
    with NeuralBoxServer(**ENDLESS) as server:
        async with running(server) as site:
            async with site.open(stream=True) as response:
                await response.content.readany()
            await server.wait_for_disconnect_async()
            await server.wait_until_async(lambda: not site.gateway._exchanges)

    assert "POST /v1/chat/completions disconnected gpt-5" in log()[0]
    assert response.headers["x-neuralbox-generation-id"] in log()[0]


async def test_many_streams():
    """When half of the clients leave, nothing of theirs stays in flight, and the others go on."""
    with NeuralBoxServer(**ENDLESS) as server:
        async with running(server, max_concurrency=40) as site:
            responses = [await site.open(stream=True).__aenter__() for _ in range(40)]
            for response in responses[::2]:
                response.close()
            await server.wait_until_async(lambda: server.in_flight == 20)
            assert all([await response.content.readany() for response in responses[1::2]])
            for response in responses[1::2]:
                response.close()
            await server.wait_until_async(lambda: server.in_flight == 0 and not site.gateway._exchanges)
            assert 200 == (await site.send("GET", "/v1/models")).status


@pytest.mark.parametrize("response_format", [None, {"type": "json_object"}])
async def test_whole_call_is_not_lost(server, log, response_format):
    """A whole call whose client leaves is completed, and its id and cost are in the log."""
    server.delay(0.2)
    server.reply_with("{}")
    async with running(server) as site:
        await leave(site, server, response_format=response_format)
        await server.wait_until_async(lambda: len(server.billed) == 1 and site.gateway._routes.whole.running == 0)

    (bill,) = server.billed
    assert [f"the client left; generation {bill.id!r} was completed for 2 tokens: `neuralbox retrieve` has it"] == [
        line for line in log() if "the client left" in line
    ]


async def test_failure_of_a_left_call(log):
    """A whole call that fails after its client has left is in the log, with what is known of the bill."""
    with NeuralBoxServer(latency=0.3) as server:
        server.fail(502, billed=True)
        async with running(server) as site:
            await leave(site, server)
            await server.wait_until_async(lambda: site.gateway._routes.whole.running == 0)

    (line,) = (line for line in log() if "the client left" in line)
    assert "InternalServerError (billed: unknown, generation: None)" in line


@pytest.mark.parametrize("delay", [0.0, 0.3])
async def test_repetition_is_not_paid_for_again(server, delay):
    """The automatic repetition of a request whose client had left gets the text of the first, once."""
    server.delay(0.2)
    async with running(server) as site:
        await leave(site, server)
        await asyncio.sleep(delay)
        again = await site.send(headers={"x-stainless-retry-count": "1"})
        third = await site.send(headers={"x-stainless-retry-count": "1"})

    assert (200, 200) == (again.status, third.status)
    assert [bill.id for bill in server.billed] == [
        reply.headers["x-neuralbox-generation-id"] for reply in (again, third)
    ]


async def test_another_request_is_paid_for(server):
    """Only the same request, and only if the client says that it is a repetition, gets the earlier text."""
    server.delay(0.2)
    async with running(server) as site:
        await leave(site, server)
        replies = [
            await site.send(headers={"x-stainless-retry-count": "1"}, temperature=1),
            await site.send(),
        ]
        await server.wait_until_async(lambda: len(server.billed) == 3)

    assert [200, 200] == [reply.status for reply in replies]


async def test_left_while_waiting(server):
    """A client that leaves while its call waits for a rate limit costs nothing."""
    server.fail(429, retry_after=0.5)
    async with running(server) as site:
        before = site.gateway._routes.whole
        task = asyncio.create_task(site.send())
        await server.wait_until_async(lambda: len(server.requests) == 1 and server.in_flight == 0)
        task.cancel()
        await asyncio.wait([task])
        await server.wait_until_async(lambda: before.running == 0)

    assert 1 == len(server.requests)
    assert () == server.billed


# ---------------------------------------------------------------------------------------------------------------- stop


async def test_stop_lets_calls_finish(server):
    """A gateway that stops accepts no more calls, and running ones are completed."""
    server.delay(0.5, times=2)
    async with running(server) as site:
        calls = [asyncio.create_task(site.send(stream=stream)) for stream in (False, True)]
        await server.wait_until_async(lambda: server.in_flight == 2)
        kept = await site.session.get(site.gateway.base_url.removesuffix("/v1") + "/healthz")
        await kept.read()
        site.gateway.stop()
        await asyncio.sleep(0.1)
        with pytest.raises(OSError, match="onnect"):
            async with asyncio.timeout(20):
                await asyncio.open_connection("127.0.0.1", int(site.gateway.base_url.split(":")[2][:-3]))
        replies = await asyncio.gather(*calls)
        await site.task

    assert [200, 200] == [reply.status for reply in replies]
    assert "[DONE]" == replies[1].events[-1]


async def test_stop_on_a_kept_connection(server):
    """A call on a connection that was open already is refused while the gateway stops, and may be repeated."""
    server.delay(1.0)
    async with running(server) as site:
        await site.send("GET", "/healthz")
        call = asyncio.create_task(site.send())
        await server.wait_until_async(lambda: server.in_flight == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", int(site.gateway.base_url.split(":")[2][:-3]))
        head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        writer.write(head)
        first = await reader.readuntil(b"}")
        site.gateway.stop()
        await asyncio.sleep(0.1)
        writer.write(head + b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
        second = await reader.readuntil(b"}}")
        writer.close()
        await call

    assert b'{"status": "ok"}' in first
    assert 2 == second.count(b"HTTP/1.1 503")
    assert b"shutting_down" in second
    assert b"x-should-retry" not in second


async def test_stop_is_bounded(log):
    """Calls that do not end in time are ended; the log says that a whole one may have been billed."""
    with NeuralBoxServer(**ENDLESS) as server:
        server.delay(60, stream=False)
        async with running(server, shutdown_timeout=0.2) as site:
            response = await site.open(stream=True).__aenter__()
            whole = asyncio.create_task(site.send())
            await server.wait_until_async(lambda: server.in_flight == 2)
            site.gateway.stop()
            await asyncio.wait_for(site.task, 60)
            reply = await whole
            response.close()

    assert (503, "shutting_down") == (reply.status, reply.error["code"])
    assert "unknown" == reply.error["neuralbox"]["billed"]
    assert "false" == reply.headers["x-should-retry"]
    assert any("may have been billed" in line for line in log())


async def test_stop_ends_streams_with_an_error(log):
    """A stream that the end of the gateway cuts off has its text, an error as its last event, and no [DONE]."""
    with NeuralBoxServer(**ENDLESS) as server:
        async with running(server, shutdown_timeout=0.2) as site:
            # "word " is the beginning of a stop sequence: it is held back until the end.
            streams = [asyncio.create_task(site.send(stream=True, stop=stop)) for stop in (None, "d word.")]
            await server.wait_until_async(lambda: server.in_flight == 2)
            site.gateway.stop()
            replies = await asyncio.gather(*streams)
            await asyncio.wait_for(site.task, 60)
            await server.wait_until_async(lambda: server.in_flight == 0)

    for reply in replies:
        assert 200 == reply.status
        *chunks, last = reply.events
        check_form(last, ERROR)
        assert ("server_error", "shutting_down") == (last["error"]["type"], last["error"]["code"])
        assert {"billed": "unknown", "generation_id": reply.headers["x-neuralbox-generation-id"]} == last["error"][
            "neuralbox"
        ]
        text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
        assert text == "word " * text.count("word ")
        assert text
    assert 2 == sum("200 gpt-5" in line and line.endswith("shutting_down") for line in log())


@pytest.mark.parametrize("stop", [None, "never"])
async def test_stop_before_the_first_text(server, stop):
    """A call that the end of the gateway ends before its first text gets a 503 that is not repeated."""
    server.stall(1)
    async with running(server, shutdown_timeout=0.1) as site:
        task = asyncio.create_task(site.send(stream=stop is None, stop=stop))
        await server.wait_until_async(lambda: server.in_flight == 1)
        site.gateway.stop()
        reply = await task
        await server.wait_for_disconnect_async()

    assert (503, "shutting_down") == (reply.status, reply.error["code"])
    assert "unknown" == reply.error["neuralbox"]["billed"]
    assert "false" == reply.headers["x-should-retry"]


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_while_a_call_waits(server, stream):
    """A call that still waits for its turn when the gateway ends gets a 503 that may be repeated elsewhere."""
    server.stall(1)
    async with running(server, max_concurrency=1, shutdown_timeout=0.1) as site:
        first = asyncio.create_task(site.send(stream=True))
        await server.wait_until_async(lambda: server.in_flight == 1)
        waiting = asyncio.create_task(site.send(stream=stream))
        await server.wait_until_async(lambda: site.gateway._routes._admission._waiting == 1)
        site.gateway.stop()
        reply = await waiting
        await first

    assert (503, "shutting_down") == (reply.status, reply.error["code"])
    assert "no" == reply.error["neuralbox"]["billed"]
    assert "x-should-retry" not in reply.headers
    assert 1 == len(server.requests)


async def test_stop_after_the_last_text(server):
    """A stream whose text is complete ends as usual when only the request for the usage is cut off."""
    server.delay(60, method="GET")
    async with running(server, shutdown_timeout=0.1) as site:
        task = asyncio.create_task(site.send(stream=True, stream_options={"include_usage": True}))
        await server.wait_until_async(lambda: len(server.requests) == 2)
        site.gateway.stop()
        reply = await task

    assert "[DONE]" == reply.events[-1]
    assert "stop" == reply.events[-2]["choices"][0]["finish_reason"]


async def test_stop_after_the_text_of_a_whole_call(server):
    """A whole text up to a stop sequence is sent when only the request for its cost is cut off."""
    server.delay(60, method="GET")
    async with running(server, shutdown_timeout=0.1) as site:
        task = asyncio.create_task(site.send(stop="never"))
        await server.wait_until_async(lambda: len(server.requests) == 2)
        site.gateway.stop()
        reply = await task

    assert 200 == reply.status
    assert "You said: Hi" == reply.json["choices"][0]["message"]["content"]


async def test_serves_once(server):
    """A gateway serves once, and stopping it twice is the same as once."""
    async with running(server) as site:
        site.gateway.stop()
        site.gateway.stop()
        await site.task
        with pytest.raises(RuntimeError):
            await site.gateway.serve()
