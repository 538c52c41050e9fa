"""Polling for a generation while requests fail."""

import pytest
from fault_server import answer, reads_and_stalls, serves
from outcomes import SHORT, WHOLE

from neuralbox_async import APIStatusError


async def test_waiting_lives_through_a_poll_that_hangs(serve, connect, monkeypatch):
    """One question that is never answered does not use up the time for waiting."""
    monkeypatch.setattr("neuralbox_async._call.polling._STATUS_REQUEST_TIMEOUT", SHORT)
    server = serve(reads_and_stalls, serves(WHOLE))

    done = await connect(server).wait("gen_1", timeout=5, poll_interval=0.01)

    assert done.completed
    assert 2 == len(server.requests)


async def test_generation_that_is_lost_while_waiting(serve, connect, monkeypatch):
    """When waiting fails, the generation was posted all the same: the error has its id, and does not call it free."""
    monkeypatch.setattr("random.uniform", lambda _low, _high: 0.0)  # no pause before the first question
    pending = answer({"id": "gen_1", "status": "pending"})
    server = serve(serves(pending, answer({"error": "not_authenticated"}, status="401 No")))

    with pytest.raises(APIStatusError) as caught:
        await connect(server).generate("gpt-5", "Hi", wait=True)

    assert 1 == server.posts
    assert "gen_1" == caught.value.generation_id
    assert "unknown" == caught.value.billed
