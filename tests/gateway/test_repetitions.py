"""Repetitions of whole calls: what they continue, and what is a new call."""

from __future__ import annotations

import asyncio
import gc
import weakref

import aiohttp
import pytest
from gateways import running

from neuralbox_async.gateway import _exchange, _repetitions, _routes
from neuralbox_async.testing import NeuralBoxServer

AGAIN = {"x-stainless-retry-count": "1"}
ID = "x-neuralbox-generation-id"


def whole_calls(site):
    return site.gateway._routes.whole


async def leave(site, server, count=1):
    """Send requests, and leave when the API has all of them."""
    before = len(server.requests)
    tasks = [asyncio.create_task(site.send()) for _ in range(count)]
    await server.wait_until_async(lambda: len(server.requests) == before + count)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


async def ended(site, server):
    """Wait until no whole call runs, and its client has left."""
    await server.wait_until_async(lambda: not whole_calls(site).running and not site.gateway._exchanges)


async def test_identical_calls(server):
    """Identical calls that leave together are all kept: each repetition gets another one."""
    server.delay(0.3, times=3)
    async with running(server) as site:
        await leave(site, server, count=3)
        replies = [await site.send(headers=AGAIN) for _ in range(3)]

    assert {bill.id for bill in server.billed} == {reply.headers[ID] for reply in replies}
    assert 3 == len(server.billed)


async def test_unsent_call(server):
    """A call that its client left before anything was sent again costs nothing, and its repetition is a new call."""
    server.fail(429, retry_after=0.3)
    async with running(server) as site:
        await leave(site, server)
        await ended(site, server)
        again = await site.send(headers=AGAIN)

    assert 200 == again.status
    assert [bill.id for bill in server.billed] == [again.headers[ID]]


@pytest.mark.parametrize("billed, status", [(False, 200), (True, 502)])
async def test_failed_call(billed, status):
    """A kept error that was not billed is not a result: only one that may be billed is what a repetition gets."""
    with NeuralBoxServer(latency=0.3) as server:
        server.fail(502 if billed else 400, billed=billed)
        async with running(server) as site:
            await leave(site, server)
            await ended(site, server)
            again = await site.send(headers=AGAIN)

    assert status == again.status
    assert status == 200 or "unknown" == again.error["neuralbox"]["billed"]


async def test_old_result(server, monkeypatch):
    """A result that is too old is not what a repetition gets."""
    server.delay(0.2)
    async with running(server) as site:
        await leave(site, server)
        await ended(site, server)
        monkeypatch.setattr(_repetitions, "_KEPT", -1.0)
        again = await site.send(headers=AGAIN)

    assert [again.headers[ID]] == [bill.id for bill in server.billed[1:]]


@pytest.mark.parametrize("status", [None, 502])
async def test_prompt_is_not_kept(monkeypatch, status):
    """The result of a call that ended is kept without its prompt."""
    chats, parse = [], _routes.parse_chat_request

    def parse_and_watch(body):
        chat = parse(body)
        chats.append(weakref.ref(chat))
        return chat

    monkeypatch.setattr(_routes, "parse_chat_request", parse_and_watch)
    with NeuralBoxServer(latency=0.3) as server:
        if status is not None:
            server.fail(status, billed=True)
        async with running(server) as site:
            await leave(site, server)
            await ended(site, server)
            gc.collect()
            assert [None] == [chat() for chat in chats]
            assert 1 == len(whole_calls(site)._repetitions._calls)


async def test_first_attempt_still_runs(server):
    """A repetition continues a call whose client has left in a way that the gateway cannot see."""
    server.delay(0.5)
    async with running(server) as site:
        first = asyncio.create_task(site.send())
        await server.wait_until_async(lambda: server.in_flight == 1)
        again = await site.send(headers=AGAIN)
        replies = [await first, again]
        assert [] == whole_calls(site)._repetitions._calls

    assert [bill.id for bill in server.billed] * 2 == [reply.headers[ID] for reply in replies]


async def test_first_attempt_still_waits(server):
    """A repetition continues a call that still waits for its turn, and takes no other place."""
    server.stall(1)
    async with running(server, max_concurrency=1) as site:
        admission = site.gateway._routes._admission
        holder = asyncio.create_task(site.send(stream=True))
        await server.wait_until_async(lambda: server.in_flight == 1)
        attempts = [asyncio.create_task(site.send())]
        await server.wait_until_async(lambda: admission._waiting == 1)
        attempts.append(asyncio.create_task(site.send(headers=AGAIN)))
        await server.wait_until_async(lambda: [2] == [call.waiting for call in whole_calls(site)._repetitions._calls])
        assert 1 == admission._waiting
        holder.cancel()
        replies = await asyncio.gather(*attempts)
        assert [] == whole_calls(site)._repetitions._calls

    assert [bill.id for bill in server.billed] * 2 == [reply.headers[ID] for reply in replies]


async def test_one_of_two_leaves(server):
    """A call that waits for its turn goes on while one of two clients waits for it, and ends with the last."""
    server.stall(1)
    async with running(server, max_concurrency=1) as site:
        admission = site.gateway._routes._admission
        holder = asyncio.create_task(site.send(stream=True))
        await server.wait_until_async(lambda: server.in_flight == 1)
        first = asyncio.create_task(site.send())
        await server.wait_until_async(lambda: admission._waiting == 1)
        again = asyncio.create_task(site.send(headers=AGAIN))
        await server.wait_until_async(lambda: [2] == [call.waiting for call in whole_calls(site)._repetitions._calls])
        first.cancel()
        await server.wait_until_async(lambda: len(site.gateway._exchanges) == 2)
        assert 1 == admission._waiting
        again.cancel()
        await server.wait_until_async(lambda: admission._waiting == 0)
        later = asyncio.create_task(site.send(headers=AGAIN))
        await server.wait_until_async(lambda: admission._waiting == 1)
        holder.cancel()
        reply = await later

    assert [reply.headers[ID]] == [bill.id for bill in server.billed]


async def test_repetition_of_a_refused_call(server):
    """A call that was refused and is repeated does not get the text of another one that is the same."""
    server.delay(0.5)
    async with running(server, max_concurrency=1, max_wait=0) as site:
        first = asyncio.create_task(site.send())
        await server.wait_until_async(lambda: server.in_flight == 1)
        replies = [await site.send(), await site.send(headers=AGAIN)]
        assert 200 == (await first).status

    assert [429, 429] == [reply.status for reply in replies]
    assert 1 == len(server.billed)


async def test_response_that_is_not_written(site, monkeypatch):
    """A result is kept until its response has been written."""
    send = _exchange.Exchange.send

    async def fail(exchange, *words):
        monkeypatch.setattr(_exchange.Exchange, "send", send)
        exchange.request.transport.abort()
        raise ConnectionResetError

    monkeypatch.setattr(_exchange.Exchange, "send", fail)
    with pytest.raises(aiohttp.ClientConnectionError):
        await site.send()
    again = await site.send(headers=AGAIN)

    assert [again.headers[ID]] == [bill.id for bill in site.server.billed]


async def test_bound(server, monkeypatch):
    """The number of results that are kept is bounded: the oldest ones go."""
    monkeypatch.setattr(_repetitions, "_MAX_LEFT", 2)
    server.delay(0.3, times=4)
    async with running(server) as site:
        await leave(site, server, count=4)
        await ended(site, server)
        replies = [await site.send(headers=AGAIN) for _ in range(3)]

    assert 5 == len(server.billed)
    assert 3 == len({reply.headers[ID] for reply in replies})
