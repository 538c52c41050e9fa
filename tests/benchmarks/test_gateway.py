"""The benchmark of the gateway measures what it says."""

import aiohttp
import pytest

from benchmarks import gateway


@pytest.fixture(scope="module")
def proxy(port):
    with gateway.gateway(port) as proxy:
        yield proxy


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as session:
        yield gateway.Client(session)


async def test_proxy(proxy, client):
    """A whole completion and a live stream go through the gateway, which uses CPU for them."""
    before = proxy.cpu()
    for _ in range(50):
        await client.call(proxy)
    count, first = await client.stream(proxy, "live.20.500")

    assert proxy.cpu() > before
    assert 1 <= count <= 20
    assert first > 0


async def test_server(port, client):
    """Without a proxy, the server itself responds in OpenAI's form."""
    direct = gateway.Proxy("the server", port)

    assert 1 == (await client.stream(direct, "bulk.1"))[0]
    assert 0.0 == direct.cpu()


def test_results():
    """The added time of the first text is the difference of the medians, and that of the fastest tenths."""
    results = gateway.Results([1.0, 2.0, 9.0], [3.0], list(range(10, 110)), list(range(100)))

    assert [2.0, 3.0, 10.0, 10.0] == pytest.approx(results.row())
