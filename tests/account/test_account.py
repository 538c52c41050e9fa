"""Balance, profile, statistics, models and prices: against a local server, whose ledger they agree with."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from neuralbox_async import (
    AuthenticationError,
    Balance,
    ClientClosedError,
    InvalidParameterError,
    NotFoundError,
    RateLimitError,
    UsageTotals,
)


async def test_balance(client, server):
    """The balance falls by what each generation is billed."""
    before = await client.get_balance()
    generation = await client.generate("claude-sonnet-4.5", "Hi")
    after = await client.get_balance()

    assert (server.balance, 4) == (after.token_balance, generation.tokens_used)
    assert before.token_balance - generation.tokens_used == after.token_balance == generation.balance_remaining
    assert ("vip", datetime(2030, 1, 1, tzinfo=UTC), ()) == (after.plan, after.plan_expires_at, after.problems)
    assert {"token_balance", "plan", "plan_expires_at"} == set(after.raw)


async def test_balance_at_the_other_path(make_client, fake):
    """After a 404 the other documented path is tried, and the next time it is the first."""
    body = {"plan": "pro", "token_balance": 283, "plan_tokens_remaining": 183, "bonus_tokens": 100}
    transport = fake((404, {"error": "not_found"}), body, body)
    async with make_client(transport) as client:
        balance = await client.get_balance()
        await client.with_options(timeout=5).get_balance()

    assert Balance(token_balance=283, plan="pro", plan_tokens_remaining=183, bonus_tokens=100) == balance
    assert ["/balance", "/user/balance", "/user/balance"] == [
        request.url.partition("/api/v2")[2] for request in transport.requests
    ]


async def test_balance_at_no_path(make_client, fake):
    """If neither path exists, the error is that of the first."""
    transport = fake((404, {"message": "first"}), (404, {"message": "second"}))
    async with make_client(transport) as client:
        with pytest.raises(NotFoundError, match="first") as caught:
            await client.get_balance()

    assert "no" == caught.value.billed


async def test_account(serve, connect):
    """The account has the plan, the rate limits and the tokens that were used."""
    server = serve(balance=500, limit_hour=100)
    client = connect(server)
    await client.generate("gpt-5", "Hi")
    account = await client.get_account()

    assert (500, 2, 498) == (account.token_limit, account.tokens_used_this_period, account.token_balance)
    assert (100, 0) == (account.rate_limit_hourly, account.rate_limit_daily)
    assert (1, "Local server", "vip") == (account.id, account.name, account.plan)
    assert {"telegram": False, "google": False, "email": True} == account.auth_methods


async def test_stats(serve, connect):
    """The statistics count the completed generations and their bills; failed ones cost nothing."""
    server = serve(failing_models=["grok-4-fast"], prices={"own-model": 7})
    client = connect(server)
    for model in ("gpt-5", "gpt-5", "own-model", "musicgen", "whisper"):
        await client.generate(model, "Hi")
    await client.list_models()
    with pytest.raises(Exception, match="failed"):
        await client.generate("grok-4-fast", "Hi")
    stats = await client.get_stats()

    billed = sum(generation.tokens_used for generation in server.billed)
    assert (5, 22, billed) == (stats.total_generations, stats.tokens_used_total, 22)
    assert UsageTotals(generations=3, tokens_used=11) == stats.breakdown["text"]
    assert UsageTotals(generations=2, tokens_used=11) == stats.breakdown["audio"]
    assert UsageTotals(generations=5, tokens_used=22) == stats.recent_30d
    assert {"text", "image", "video", "audio", "tools"} == set(stats.breakdown)


async def test_models(serve, connect):
    """The list has each model once, and is made of the same values as `get_model`."""
    client = connect(serve(prices={"own-model": 7}))
    models = {model.slug: model for model in await client.list_models()}

    assert {"gpt-5", "dall-e-3", "own-model"} <= set(models)
    assert models["dall-e-3"] == await client.get_model("dall-e-3")
    assert (5, 5, 13, "image", False) == (
        models["dall-e-3"].token_cost,
        models["dall-e-3"].min_token_cost,
        models["dall-e-3"].max_token_cost,
        models["dall-e-3"].category,
        models["dall-e-3"].supports_streaming,
    )
    assert ("text", True, 7) == (
        models["gpt-5"].category,
        models["gpt-5"].supports_streaming,
        models["own-model"].token_cost,
    )


async def test_models_of_pages(make_client, fake):
    """A list of models in pages is read to its end; one that reports nothing of pages is whole."""
    pages = [{"items": [{"slug": name}], "total": 2, "page": 1, "limit": 1} for name in ("a", "b")]
    transport = fake(*pages, [{"slug": "a"}, "b"], {"data": ["c"]})
    async with make_client(transport) as client:
        lists = [[model.slug for model in await client.list_models()] for _ in range(3)]

    assert [["a", "b"], ["a", "b"], ["c"]] == lists
    assert ["/models", "/models?page=2", "/models", "/models"] == [
        request.url.partition("/api/v2")[2] for request in transport.requests
    ]


@pytest.mark.parametrize("model", ["gpt-5", "claude-opus-4.5", "own-model"])
async def test_price(serve, connect, model):
    """The price of a generation is what it is billed."""
    client = connect(serve(prices={"own-model": 7}))
    price = await client.get_price(model)
    generation = await client.generate(model, "Hi")

    assert price.token_cost == price.max_token_cost == generation.tokens_used
    assert "fixed" == price.pricing_type
    assert 5 * price.token_cost == (await client.get_price(model, count=5)).token_cost


async def test_request_of_a_price(client, server):
    """The options and the count are sent as they were given."""
    price = await client.get_price("dall-e-3", {"quality": "hd"}, 3)

    assert (15, 5, 13, "matrix") == (
        price.token_cost,
        price.min_token_cost,
        price.max_token_cost,
        price.pricing_type,
    )
    assert {"params": {"quality": "hd"}, "count": 3} == server.requests[-1].json
    assert "/api/v2/models/dall-e-3/calculate-price" == server.requests[-1].path
    assert 0 == len(server.billed)


@pytest.mark.parametrize(
    "name, arguments", [("get_model", ["nope"]), ("get_price", ["nope"]), ("get_model", ["a/b?c"])]
)
async def test_unknown_model(client, name, arguments):
    """An unknown model is a `NotFoundError`, which was not billed."""
    with pytest.raises(NotFoundError) as caught:
        await getattr(client, name)(*arguments)

    assert ("no", 1) == (caught.value.billed, caught.value.attempts)


@pytest.mark.parametrize(
    "name, arguments, parameter",
    [
        ("get_model", [""], "model"),
        ("get_model", [".."], "model"),
        ("get_model", [5], "model"),
        ("get_price", ["."], "model"),
        ("get_price", ["gpt-5", [1]], "params"),
        ("get_price", ["gpt-5", {"a": object()}], "params"),
        ("get_price", ["gpt-5", None, 0], "count"),
    ],
)
async def test_invalid_parameters(client, server, name, arguments, parameter):
    """An invalid parameter raises before anything is sent."""
    with pytest.raises(InvalidParameterError) as caught:
        await getattr(client, name)(*arguments)

    assert parameter == caught.value.parameter
    assert 0 == len(server.requests)


METHODS = ["get_balance", "get_account", "get_stats", "list_models"]


@pytest.mark.parametrize("method", [*METHODS, "get_model", "get_price"])
async def test_retries(client, server, method):
    """A lost connection, a 500 and a 502 are retried, with POST as well: nothing is billed."""
    path = "*" if method in METHODS else "/models/gpt-5*"
    arguments = [] if method in METHODS else ["gpt-5"]
    kind = "POST" if method == "get_price" else "GET"
    server.drop(method=kind, path=path)
    server.fail(502, method=kind, path=path)
    await getattr(client, method)(*arguments)

    assert 3 == len(server.requests)
    assert len({request.path for request in server.requests}) == 1


@pytest.mark.parametrize("method", METHODS)
async def test_errors(server, connect, method):
    """Errors are those of the other calls, were not billed, and know their attempts."""
    client = connect(server)
    with pytest.raises(AuthenticationError) as caught:
        await getattr(client.with_options(api_key="nb_wrong"), method)()
    assert ("no", 1) == (caught.value.billed, caught.value.attempts)

    server.fail(429, retry_after=847, times=3, method="GET")
    with pytest.raises(RateLimitError) as caught:
        await getattr(client, method)(max_retries=0)
    assert (847.0, "no") == (caught.value.retry_after, caught.value.billed)

    await client.aclose()
    with pytest.raises(ClientClosedError):
        await getattr(client, method)()


async def test_headers(client, server):
    """Further headers are sent; there is no idempotency key."""
    await client.get_balance(extra_headers={"X-Trace": "7"})

    assert "7" == server.requests[-1].headers["X-Trace"]
    assert "Idempotency-Key" not in server.requests[-1].headers
