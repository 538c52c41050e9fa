"""Responses about the account: members in both dialects; an odd one is None, named in `problems`, and kept in `raw`."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON_VALUES

from neuralbox_async import (
    Account,
    AccountStats,
    Balance,
    HistoryEntry,
    Model,
    Price,
    ResponseError,
    UsageTotals,
)
from neuralbox_async._wire.account import decode_page, decode_value

pytestmark = pytest.mark.usefixtures("json_library")

ODD_VALUES = JSON_VALUES | st.sampled_from(
    [
        97.5,
        [],
        {},
        "5",
        True,
        -1,
        math.nan,
        -math.inf,
        2**63,
        10**400,
        "noon",
        "\ud800",
        {"text": [], "a": {"count": []}},
    ]
)

# A documented response of each class. The vendor's samples, where there are any.
SAMPLES = {
    Balance: {
        "token_balance": 283,
        "plan": "pro",
        "plan_expires_at": "2026-04-08T12:00:00Z",
        "plan_tokens_remaining": 183,
        "bonus_tokens": 100,
        "next_refill_at": "2026-04-08T12:00:00Z",
    },
    Account: {
        "id": 7,
        "name": "Ivan",
        "email": "ivan@example.com",
        "telegram_username": "ivan",
        "avatar_url": "https://x/y.png",
        "plan": "vip",
        "plan_expires_at": "2026-04-08T12:00:00Z",
        "token_balance": 283,
        "token_limit": 1500,
        "tokens_used_this_period": 1217,
        "rate_limit_hourly": 100,
        "rate_limit_daily": 0,
        "auth_methods": {"telegram": True, "google": False, "email": True},
    },
    AccountStats: {
        "total_generations": 10,
        "tokens_spent_total": 40,
        "breakdown": {"text": {"count": 9, "tokens": 27}, "image": {"count": 1, "tokens": 13}},
        "recent_30d": {"generations": 3, "tokens_spent": 9},
    },
    HistoryEntry: {
        "id": 18473,
        "model_slug": "gpt-5",
        "model_name": "GPT-5",
        "category": "text",
        "prompt": "Hi",
        "status": "completed",
        "result_text": "Hello",
        "result_url": "https://x/y",
        "tokens_spent": 2,
        "is_favorited": False,
        "user_rating": 5,
        "created_at": "2026-03-08T12:00:00Z",
    },
    Model: {
        "slug": "dall-e-3",
        "name": "DALL-E 3",
        "category": "image",
        "provider": "OpenAI",
        "min_plan": "free",
        "token_cost": 5,
        "min_token_cost": 5,
        "max_token_cost": 13,
        "description_en": "Images",
        "supports_streaming": False,
        "config": {"sizes": ["1024x1024"]},
    },
    Price: {"token_cost": 13, "min_token_cost": 5, "max_token_cost": 13, "pricing_type": "matrix"},
}
ESSENTIAL = {Balance: "token_balance", Price: "token_cost", Model: "slug"}
CLASSES = st.sampled_from(list(SAMPLES))


def load(cls, members):
    return decode_value(cls, 200, {}, json.dumps(members).encode())


def facts(value):
    """Return the fields of *value* without those about the response."""
    return {name: found for name, found in vars(value).items() if name not in {"problems", "raw"}}


@pytest.mark.parametrize("cls", SAMPLES)
def test_samples(cls):
    """A documented response gives every field, and no problems."""
    value = load(cls, SAMPLES[cls])

    assert () == value.problems
    assert SAMPLES[cls] == value.raw
    assert None not in facts(value).values()


def test_values():
    """Times are aware, nested objects are values, and totals have the same names everywhere."""
    assert datetime(2026, 4, 8, 12, tzinfo=UTC) == load(Balance, SAMPLES[Balance]).plan_expires_at
    stats = load(AccountStats, SAMPLES[AccountStats])
    assert {
        "text": UsageTotals(generations=9, tokens_used=27),
        "image": UsageTotals(generations=1, tokens_used=13),
    } == stats.breakdown
    assert (40, UsageTotals(generations=3, tokens_used=9)) == (stats.tokens_used_total, stats.recent_30d)


def test_the_other_dialect():
    """The names of both dialects mean the same; an odd member under one name is looked up under the other."""
    first = load(
        HistoryEntry,
        {"id": "gen_1", "type": "text", "model": "gpt-5", "content": "Hello", "url": "u", "tokens_used": 2},
    )
    second = load(
        HistoryEntry,
        {"id": "gen_1", "category": "text", "model_slug": "gpt-5", "result_text": "Hello", "result_url": "u"}
        | {"tokens_used": "2", "tokens_spent": 2},
    )

    assert first == second
    assert ("$.tokens_used",) == second.problems
    assert ("Ivan", "Text") == (
        load(Account, {"username": "Ivan"}).name,
        load(Model, {"slug": "m", "description_ru": "Text"}).description,
    )


@pytest.mark.parametrize(
    "cls, members, field, path",
    [
        (Balance, {"plan": 5}, "plan", "$.plan"),
        (Balance, {"plan_expires_at": "soon"}, "plan_expires_at", "$.plan_expires_at"),
        (Balance, {"bonus_tokens": -1}, "bonus_tokens", "$.bonus_tokens"),
        (Account, {"id": []}, "id", "$.id"),
        (Account, {"auth_methods": ["email"]}, "auth_methods", "$.auth_methods"),
        (AccountStats, {"recent_30d": 5}, "recent_30d", "$.recent_30d"),
        (AccountStats, {"breakdown": []}, "breakdown", "$.breakdown"),
        (HistoryEntry, {"is_favorited": 1}, "is_favorited", "$.is_favorited"),
        (HistoryEntry, {"user_rating": 4.5}, "user_rating", "$.user_rating"),
        (Model, {"supports_streaming": "yes"}, "supports_streaming", "$.supports_streaming"),
        (Price, {"max_token_cost": None, "min_token_cost": "5"}, "min_token_cost", "$.min_token_cost"),
    ],
)
def test_odd_values(cls, members, field, path):
    """A malformed minor member is None and is named; everything else is as ever."""
    value = load(cls, {**SAMPLES[cls], **members})
    usual = facts(load(cls, SAMPLES[cls]))

    assert (path,) == value.problems
    found = getattr(value, field)
    assert found is None or found == UsageTotals()
    assert {name for name in usual if facts(value)[name] != usual[name]} <= {field, *members}


def test_one_total():
    """Of the statistics, only the odd number is None."""
    stats = load(AccountStats, {"breakdown": {"text": {"count": "9", "tokens": 27}, "image": [], "new": {"count": 1}}})

    assert {
        "text": UsageTotals(tokens_used=27),
        "image": UsageTotals(),
        "new": UsageTotals(generations=1),
    } == stats.breakdown
    assert ("$.breakdown.text.count", "$.breakdown.image") == stats.problems


@pytest.mark.parametrize("cls", ESSENTIAL)
@pytest.mark.parametrize("odd", [None, [], 5.5, -1, True, 2**70])
def test_essential_members(cls, odd):
    """Without its essential member, a value is an error that names it, keeps the body, and is not billed."""
    body = json.dumps({**SAMPLES[cls], ESSENTIAL[cls]: odd}).encode()
    with pytest.raises(ResponseError) as caught:
        decode_value(cls, 200, {"x-request-id": "7"}, body)

    assert (f"$.{ESSENTIAL[cls]}", body, "no", 200) == (
        caught.value.path,
        caught.value.body,
        caught.value.billed,
        caught.value.status_code,
    )


@pytest.mark.parametrize(
    "body", [b"", b"  ", b"<html>", b"[]", b"5", b"{}", b'{"error": "x"}', b'{"plan": ', b"[" * 100_000]
)
@pytest.mark.parametrize("cls", SAMPLES)
def test_no_object(cls, body):
    """A body without a readable member is an error that keeps it."""
    with pytest.raises(ResponseError) as caught:
        decode_value(cls, 200, {}, body)

    assert (body, "no") == (caught.value.body, caught.value.billed)


@given(st.data(), CLASSES)
def test_any_value_of_a_minor_member(data, cls):
    """Any value of any minor member gives the others; what is malformed is named."""
    names = st.sampled_from(sorted({*SAMPLES[cls], "more", "tokens_used", "type"} - {ESSENTIAL.get(cls)}))
    odd = data.draw(st.dictionaries(names, ODD_VALUES))
    value = load(cls, {**SAMPLES[cls], **odd}) if len(odd) < len(SAMPLES[cls]) else load(cls, SAMPLES[cls])

    assert {path.removeprefix("$.").partition(".")[0] for path in value.problems} <= set(odd)
    for name, found in facts(value).items():
        assert not isinstance(found, int) or isinstance(found, bool) or name == "id" or 0 <= found < 2**63
    json.dumps(str(value)).encode()
    str(value).encode()


@given(st.lists(ODD_VALUES | st.dictionaries(st.sampled_from(["id", "slug", "status"]), ODD_VALUES)), CLASSES)
def test_any_entries(entries, cls):
    """A page has an entry for each entry of the list, however odd: nothing is dropped."""
    if cls in {Balance, Price}:
        return
    for body in (entries, {"items": entries, "total": "x"}, {"data": entries, "pages": -1}):
        page = decode_page(cls, 200, {}, json.dumps(body).encode())
        assert len(entries) == len(page.items)
        assert (None, None) == (page.total, page.pages)
        for entry, value in zip(entries, page.items, strict=True):
            assert isinstance(entry, dict | str) or ("$",) == value.problems


@pytest.mark.parametrize("body", [b"{}", b'{"items": {}}', b'{"items": null, "total": 5}', b"5", b"", b"null"])
def test_no_list(body):
    """A response without a list is an error: it would look like an empty history."""
    with pytest.raises(ResponseError) as caught:
        decode_page(HistoryEntry, 200, {}, body)

    assert (body, "no") == (caught.value.body, caught.value.billed)


def test_deep_and_long_members():
    """A member nested too deeply is null in *raw* and named; a long id keeps all its digits."""
    deep = b'{"slug": "m", "name": "M", "config": ' + b"[" * 1000 + b"]" * 1000 + b"}"
    model = decode_value(Model, 200, {}, deep)
    assert ("m", "M", None, ("$.config",)) == (model.slug, model.name, model.raw["config"], model.problems)

    (entry,) = decode_page(HistoryEntry, 200, {}, b'[{"id": 12345678901234567890123}]').items
    assert 12345678901234567890123 == entry.id


def test_lone_surrogates():
    """Texts can be written to files: a lone surrogate is U+FFFD."""
    (entry,) = decode_page(HistoryEntry, 200, {}, b'[{"prompt": "a\\ud800b", "model": "\\ud83d\\ude00"}]').items

    assert ("a\ufffdb", "\U0001f600") == (entry.prompt, entry.model)


def test_models_by_name():
    """A list of slugs is a list of models; an entry without a slug is named."""
    page = decode_page(Model, 200, {}, b'{"models": ["gpt-5", {"slug": 5, "name": "Five"}, {"name": "Six"}]}')

    assert ["gpt-5", "", ""] == [model.slug for model in page.items]
    assert [(), ("$.slug",), ("$.slug",)] == [model.problems for model in page.items]
