"""Polling for a generation while status requests fail."""

import pytest
from fault_server import never_responds, respond_to_each, response
from outcomes import COMPLETE, SHORT

from neuralbox_async import APIStatusError


async def test_status_request_without_a_response(serve, connect, monkeypatch):
    """A status request without a response does not use up the timeout of the wait."""
    monkeypatch.setattr("neuralbox_async._call.polling._STATUS_REQUEST_TIMEOUT", SHORT)
    server = serve(never_responds, respond_to_each(COMPLETE))

    done = await connect(server).wait("gen_1", timeout=5, poll_interval=0.01)

    assert done.completed
    assert 2 == len(server.requests)


async def test_failed_wait(serve, connect, monkeypatch):
    """The error of a failed wait has the id of the generation and an unknown billing status."""
    monkeypatch.setattr("random.uniform", lambda _low, _high: 0.0)  # no pause before the first status request
    pending = response({"id": "gen_1", "status": "pending"})
    server = serve(respond_to_each(pending, response({"error": "not_authenticated"}, status="401 No")))

    with pytest.raises(APIStatusError) as caught:
        await connect(server).generate("gpt-5", "Hi", wait=True)

    assert 1 == server.posts
    assert "gen_1" == caught.value.generation_id
    assert "unknown" == caught.value.billed
