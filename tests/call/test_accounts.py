"""Rate limits and retry budget belong to the key, not to the connections."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import weakref
from contextlib import asynccontextmanager

import pytest

from neuralbox_async import APIConnectionError, AsyncNeuralBox, RateLimitError, RetryPolicy
from neuralbox_async.testing import FakeResponse, FakeTransport

pytestmark = pytest.mark.usefixtures("no_task_left")

REPLY = {"id": "gen_1", "status": "completed", "content": "Hello"}
WITHOUT_DELAY = RetryPolicy(jitter=lambda low, _high: low)


@asynccontextmanager
async def server_of(respond):
    """Serve HTTP on a socket: *respond* returns status line, further header lines and body for a key."""

    async def handle(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:] if line)
                await reader.readexactly(int(fields.get("content-length", 0)))
                status, headers, body = respond(fields["authorization"].removeprefix("bearer "))
                data = json.dumps(body).encode()
                lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(data)}", *headers, "", ""]
                writer.write("\r\n".join(lines).encode() + data)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


REFUSED = "429 Too Many", ["Retry-After: 3000"], {"error": "rate_limit_exceeded", "limit_hour": 100}
USED_UP = "200 OK", ["X-RateLimit-Limit-Hour: 100", "X-RateLimit-Remaining-Hour: 0"], REPLY
DAY_USED_UP = "200 OK", ["X-RateLimit-Limit-Day: 100", "X-RateLimit-Remaining-Day: 0"], REPLY


@pytest.mark.parametrize("response", [REFUSED, USED_UP, DAY_USED_UP], ids=["429", "hour", "day"])
@pytest.mark.parametrize("base_is_limited", [True, False])
async def test_limits_of_another_key(response, base_is_limited):
    """A tenant's refusal, or the end of its window, does not hold up the batch of another tenant."""
    async with server_of(lambda key: response if key == "one" else ("200 OK", [], REPLY)) as url:
        async with AsyncNeuralBox("one" if base_is_limited else "base", base_url=url, max_retries=0) as client:
            one = client if base_is_limited else client.with_options(api_key="one")
            two = client.with_options(api_key="two")
            if response is REFUSED:
                with pytest.raises(RateLimitError):
                    await one.generate("gpt-5", "Hi")
            else:
                await one.generate("gpt-5", "Hi")
            async with asyncio.timeout(20), two.generate_many(map(str, range(20)), model="gpt-5") as results:
                assert [None] * 20 == [result.error async for result in results]


async def test_limits_of_the_same_key():
    """A client that is derived with the same key knows the limits of the first; with another option, too."""
    async with server_of(lambda _key: REFUSED) as url:
        async with AsyncNeuralBox("one", base_url=url, max_retries=0) as client:
            with pytest.raises(RateLimitError):
                await client.with_options(api_key="two").generate("gpt-5", "Hi")
            for derived in (client.with_options(api_key="two"), client.with_options(api_key="two", timeout=3)):
                async with derived.generate_many(["a"], model="gpt-5") as results:
                    await waits_for_a_limit(results)
            async with client.with_options(timeout=3).generate_many(["a"], model="gpt-5") as results:
                assert results.progress.waiting_until is None


async def waits_for_a_limit(results):
    """Wait until a batch waits for a rate limit."""
    async with asyncio.timeout(20):
        while results.progress.waiting_until is None:
            await asyncio.sleep(0.001)


async def requests_of_failing_calls(client, transport, *, calls=40):
    """Return how many requests *calls* failing calls make; each has two retries, as long as the retry budget lasts."""
    before = len(transport.requests)
    for _ in range(calls):
        with pytest.raises(APIConnectionError):
            await client().generate("gpt-5", "Hi")
    return len(transport.requests) - before


async def test_retry_budget_of_another_key():
    """A tenant that has used up its retry budget leaves another's whole."""
    transport = FakeTransport(APIConnectionError("refused"))
    client = AsyncNeuralBox("one", transport=transport, retry_policy=WITHOUT_DELAY)
    two = client.with_options(api_key="two")

    assert 40 + 35 == await requests_of_failing_calls(lambda: client, transport)
    assert 3 == await requests_of_failing_calls(lambda: two, transport, calls=1)
    assert 1 == await requests_of_failing_calls(lambda: client.with_options(timeout=9), transport, calls=1)


async def test_retry_budget_of_a_client_for_each_request():
    """A server that derives a client for each request has one retry budget for each tenant all the same."""
    transport = FakeTransport(APIConnectionError("refused"))
    client = AsyncNeuralBox("base", transport=transport, retry_policy=WITHOUT_DELAY)

    assert 40 + 35 == await requests_of_failing_calls(lambda: client.with_options(api_key="two"), transport)


async def test_account_of_a_function():
    """A client whose key a function returns has one account, whatever the function returns."""
    keys = iter(map(str, range(1000)))
    transport = FakeTransport(APIConnectionError("refused"))
    client = AsyncNeuralBox("base", transport=transport, retry_policy=WITHOUT_DELAY)
    rotating = client.with_options(api_key=lambda: next(keys))

    assert 40 + 35 == await requests_of_failing_calls(lambda: rotating.with_options(timeout=9), transport)
    assert 3 == await requests_of_failing_calls(lambda: client, transport, calls=1)


@pytest.mark.long
async def test_accounts_are_forgotten():
    """A client for each of 10,000 tenants leaves few accounts behind, and none of a client that is dropped."""
    client = AsyncNeuralBox("base", transport=FakeTransport(REPLY))
    accounts = [weakref.ref(client.with_options(api_key=f"key-{n}")._executor.account_state) for n in range(10_000)]
    held = client.with_options(api_key="held")
    for number in range(1000):
        client.with_options(api_key=f"other-{number}")
    gc.collect()

    assert not [reference for reference in accounts if reference() is not None]
    assert held._executor.account_state is client.with_options(api_key="held")._executor.account_state
    assert len(client._executor.shared.account_states._recent) < 300
    assert len(client._executor.lifetime._derived) < 300


@pytest.mark.long
async def test_threads_share_an_account():
    """Threads that derive clients with the same keys get the same accounts."""
    client = AsyncNeuralBox("base", transport=FakeTransport(REPLY))
    failures = []

    def derive():
        try:
            for number in range(2000):
                client.with_options(api_key=f"key-{number % 400}")
        except Exception as error:  # noqa: BLE001 - the test fails with it
            failures.append(error)

    threads = [threading.Thread(target=derive) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == failures


async def test_a_key_never_appears_in_the_accounts():
    """No `repr` of the accounts shows a key."""
    client = AsyncNeuralBox("nb_canary", transport=FakeTransport(REPLY))
    derived = client.with_options(api_key="nb_canary_2")
    accounts = client._executor.shared.account_states

    for value in (accounts, vars(accounts), dict(accounts._states), derived._executor, derived._executor.shared):
        assert "canary" not in repr(value)


async def test_learned_endpoints_are_shared():
    """What a client learns of the server, such as the path of status requests, holds for every key."""
    transport = FakeTransport(FakeResponse(b"{}", status_code=404), REPLY)
    client = AsyncNeuralBox("one", transport=transport)
    await client.retrieve("gen_1")
    await client.with_options(api_key="two").retrieve("gen_1")

    assert transport.requests[1].url == transport.requests[2].url
