"""Users can record and replay with vcrpy, and trace with aiohttp: what these see of a request has no secret."""

from __future__ import annotations

import copy

import aiohttp
import pytest

from neuralbox_async import AsyncNeuralBox, NotFoundError
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

CANARY = "nb_canary_7f3a9c"


async def calls(server, url):
    """Return the texts of a generation, of a stream and of a status request, and the code of an error."""
    options = {"base_url": url, "default_headers": {"X-Tenant": f"tenant-{CANARY}"}, "max_retries": 0}
    async with AsyncNeuralBox(server.api_key, **options) as client:
        reply = await client.generate("gpt-5", "Hi", idempotency_key="one")
        async with client.stream("gpt-5", "Hello", idempotency_key="two") as stream:
            streamed = await stream.get_final_generation()
        again = await client.retrieve(reply)
        with pytest.raises(NotFoundError) as caught:
            await client.retrieve("gen_unknown")
    return reply.content, streamed.content, again.content, caught.value.code


@pytest.mark.parametrize("serializer", ["yaml", "json"])
async def test_vcrpy(tmp_path, serializer):
    """vcrpy records a session without any options of its own, and replays it; the cassette has no secret."""
    vcr = pytest.importorskip("vcr", reason="vcrpy is not installed")
    cassette = tmp_path / f"cassette.{serializer}"
    with NeuralBoxServer(api_key=CANARY) as server:
        with vcr.use_cassette(str(cassette), serializer=serializer, record_mode="once"):
            recorded = await calls(server, server.base_url)
        received = len(server.requests)
    assert all(request.headers["authorization"] == f"Bearer {CANARY}" for request in server.requests)

    written = cassette.read_text()
    assert CANARY not in written
    assert "***" in written
    with vcr.use_cassette(str(cassette), serializer=serializer, record_mode="none") as replay:
        replayed = await calls(server, server.base_url)
    assert recorded == replayed
    assert 5 == received == replay.play_count


@pytest.mark.parametrize("fast_paths", [True, False])
async def test_headers_that_a_session_sees(monkeypatch, fast_paths):
    """A session of aiohttp sees no secret, and its headers can be copied; the server gets them all."""
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: fast_paths)
    seen = []
    request = aiohttp.ClientSession._request

    async def recorded(self, method, url, **options):
        seen.append(copy.deepcopy(options["headers"]))
        return await request(self, method, url, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "_request", recorded)
    with NeuralBoxServer(api_key=CANARY) as server:
        await calls(server, server.base_url)
        headers = [request.headers for request in server.requests]

    assert 5 == len(seen) == len(headers)
    assert CANARY not in str([dict(each) for each in seen])
    assert {"***"} == {each["Authorization"] for each in seen}
    assert {(f"Bearer {CANARY}", f"tenant-{CANARY}") for _ in headers} == {
        (each["authorization"], each["x-tenant"]) for each in headers
    }
