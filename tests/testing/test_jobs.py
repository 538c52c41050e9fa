"""Generations that are pending at first, and generations that fail."""

import pytest


def wait_for_bill(caller):
    """Wait until a generation is billed."""
    caller.server.wait_until(lambda: caller.server.billed)


@pytest.mark.parametrize("members", [{"model": "gpt-5.2"}, {"background": True}])
def test_pending_then_completed_in_dialect_a(serve, members):
    """A pending generation reports its progress. On completion it is billed and its text is available."""
    caller = serve(pending_models=["gpt-5.2"], pending_seconds=0.15)
    first = caller.post_message(**members).json

    assert {"id", "status", "model", "progress", "eta_seconds", "created_at"} == set(first)
    assert ("pending", ()) == (first["status"], caller.server.billed)
    assert caller.get(f"/generate/status/{first['id']}").json["status"] == "pending"
    wait_for_bill(caller)
    done = caller.get(f"/generate/status/{first['id']}").json
    assert ("completed", "You said: Hello big world") == (done["status"], done["content"])
    assert caller.server.balance == done["balance_remaining"]
    assert done["completed_at"] >= done["created_at"]


def test_pending_then_completed_in_dialect_b(serve):
    """In dialect B a pending generation has no spent tokens and no processing time."""
    caller = serve(pending_models=["gpt-5"], dialect="b", pending_seconds=0.1)
    first = caller.post_message().json

    assert ("pending", 0, None, None) == tuple(
        first[name] for name in ("status", "tokens_spent", "processing_ms", "result_text")
    )
    wait_for_bill(caller)
    done = caller.get(f"/generate/{first['id']}").json
    assert ("completed", 2, "You said: Hello big world") == tuple(
        done[name] for name in ("status", "tokens_spent", "result_text")
    )
    assert 100 <= done["processing_ms"]


def test_pending_seconds_may_be_zero(serve):
    """With pending_seconds=0 the first response reports the highest progress."""
    caller = serve(pending_models=["gpt-5"], pending_seconds=0)
    first = caller.post_message().json
    assert (99, 0) == (first["progress"], first["eta_seconds"])
    wait_for_bill(caller)


def test_reset_deletes_pending_generations(serve):
    """A pending generation that a reset deleted is never billed."""
    caller = serve(pending_models=["gpt-5"], pending_seconds=0.02)
    caller.post_message()
    caller.server.reset()
    caller.post_message()
    wait_for_bill(caller)
    assert 1 == len(caller.server.billed)


def test_both_status_endpoints_accept_both_ids(caller):
    """Each status endpoint accepts either form of an id and responds in its own dialect."""
    caller.post_message()
    for id_ in ("gen_01j9x00018473", "18473"):
        assert "content" in caller.get(f"/generate/status/{id_}").json
        assert "result_text" in caller.get(f"/generate/{id_}").json
        assert "content" in caller.get(f"/generate/{id_}", X_NeuralBox_Dialect="a").json
    assert 404 == caller.get("/generate/gen_18473").status


@pytest.mark.parametrize("paths, expected", [(["a"], [200, 404]), (["b"], [404, 200]), ([], [404, 404])])
def test_a_status_path_may_be_missing(serve, paths, expected):
    """A server may have only one status endpoint, or none."""
    caller = serve(status_paths=paths)
    caller.post_message()
    assert expected == [caller.get(path).status for path in ("/generate/status/18473", "/generate/18473")]


def test_failed_generations_are_not_billed(serve):
    """The response for a failed generation has status failed and the reason, in either dialect."""
    caller = serve(failing_models=["gpt-5"], balance=2)
    reason = "Provider error: content policy violation"
    a, b = caller.post_message().json, caller.post_message(headers={"X_NeuralBox_Dialect": "b"}).json

    assert {"id": a["id"], "status": "failed", "model": "gpt-5", "error": reason, "tokens_used": 0} == {
        name: value for name, value in a.items() if name != "created_at"
    }
    assert {"id": 18474, "status": "failed", "error": reason, "tokens_spent": 0} == b
    assert "failed" == caller.get(f"/generate/status/{a['id']}").json["status"]
    assert (2, ()) == (caller.server.balance, caller.server.billed)


def test_failed_streams_send_an_error_event(serve):
    """A stream of a failing model ends with an error event."""
    caller = serve(failing_models=["gpt-5"])
    events = caller.post_message(stream=True).events
    assert ["generation_start", "error"] == [event["type"] for event in events]
    assert "Provider error: content policy violation" == events[-1]["message"]
    assert () == caller.server.billed
