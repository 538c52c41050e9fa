"""The account of the local server as plain HTTP shows it: both documented forms, and a ledger that agrees."""

from __future__ import annotations

import pytest

PATHS = ["/balance", "/user/balance", "/user/me", "/user/stats", "/user/history", "/models", "/models/gpt-5"]


@pytest.mark.parametrize("path", PATHS)
def test_key(caller, path):
    """Each path needs the key, and answers only to GET."""
    assert (200, 401) == (caller.get(path).status, caller.get(path, Authorization="Bearer nb_wrong").status)
    assert 404 == caller.post({}, path).status


def test_balances(caller):
    """The two paths of the balance and the profile agree, and fall by what is billed."""
    bill = caller.post_message(model="claude-opus-4.5").json["tokens_used"]
    short, long, profile = (caller.get(path).json for path in ("/balance", "/user/balance", "/user/me"))

    assert {"token_balance", "plan", "plan_expires_at"} == set(short)
    assert short.items() <= long.items()
    assert short.items() <= profile.items()
    assert {"plan_tokens_remaining", "bonus_tokens", "next_refill_at"} == set(long) - set(short)
    assert 1_000_000 - bill == short["token_balance"] == long["plan_tokens_remaining"] + long["bonus_tokens"]
    assert bill == profile["tokens_used_this_period"]


def test_history_a(caller):
    """Dialect A has string ids, `type`, `model`, `tokens_used` and the number of pages."""
    caller.post_message("Hello")
    body = caller.get("/user/history").json

    assert {"items", "total", "page", "limit", "pages"} == set(body)
    assert (1, 1, 20, 1) == (body["total"], body["page"], body["limit"], body["pages"])
    (item,) = body["items"]
    assert {"id", "type", "model", "status", "prompt", "url", "tokens_used", "created_at"} == set(item)
    assert ("gen_01j9x00018473", "text", "gpt-5", 2) == (item["id"], item["type"], item["model"], item["tokens_used"])


def test_history_b(caller):
    """Dialect B has integer ids, `category`, `model_slug`, `tokens_spent`, and no number of pages."""
    caller.post_message("Hello")
    body = caller.get("/user/history", X_NeuralBox_Dialect="b").json

    assert {"items", "total", "page", "limit"} == set(body)
    (item,) = body["items"]
    assert {"id": 18473, "category": "text", "model_slug": "gpt-5", "tokens_spent": 2, "prompt": "Hello"}.items() <= (
        item.items()
    )
    assert (None, None, False) == (item["result_text"], item["user_rating"], item["is_favorited"])


def test_filters(caller):
    """Each dialect knows its own names of the filters, and ignores the others."""
    caller.post_message(model="gpt-5")
    caller.post_message(model="musicgen")

    def count(query, dialect):
        return caller.get(f"/user/history?{query}", X_NeuralBox_Dialect=dialect).json["total"]

    assert (1, 2) == (count("type=audio", "a"), count("category=audio", "a"))
    assert (2, 1) == (count("type=audio", "b"), count("category=audio", "b"))
    assert (1, 1) == (count("model=gpt-5", "a"), count("model_slug=gpt-5", "b"))
    assert (2, 0) == (count("status=completed", "a"), count("status=pending", "a"))


@pytest.mark.parametrize(
    "query", ["page=0", "page=x", "page=-1", "limit=0", "limit=101", "limit=", f"page={'9' * 5000}"]
)
def test_invalid_pages(caller, query):
    """A page or a limit out of range is a 422 that names it."""
    response = caller.get(f"/user/history?{query}")

    assert 422 == response.status
    assert {query.partition("=")[0]} == set(response.json["details"])


def test_pages(caller):
    """Pages follow each other without gaps, and end."""
    for number in range(5):
        caller.post_message(f"Prompt {number}")
    pages = [caller.get(f"/user/history?limit=2&page={page}").json for page in (1, 2, 3, 4)]

    assert [2, 2, 1, 0] == [len(page["items"]) for page in pages]
    assert {(5, 3)} == {(page["total"], page["pages"]) for page in pages}
    assert [f"Prompt {number}" for number in (4, 3, 2, 1, 0)] == [
        item["prompt"] for page in pages for item in page["items"]
    ]


def test_statistics_of_a_short_history(serve):
    """The statistics count also the generations that are no longer kept; a reset restores the initial state."""
    caller = serve(history=2)
    for _ in range(4):
        caller.post_message()
    stats = caller.get("/user/stats").json

    assert (4, 8, 2) == (
        stats["total_generations"],
        stats["tokens_spent_total"],
        caller.get("/user/history").json["total"],
    )
    assert {"count": 4, "tokens": 8} == stats["breakdown"]["text"]
    caller.server.reset()
    assert (0, 0) == (caller.get("/user/stats").json["total_generations"], caller.get("/user/history").json["total"])


def test_query(caller):
    """The record of a request has its query."""
    caller.get("/user/history?page=2&limit=5")

    assert {"page": "2", "limit": "5"} == dict(caller.server.requests[-1].query)
    assert "/api/v2/user/history" == caller.server.requests[-1].path
