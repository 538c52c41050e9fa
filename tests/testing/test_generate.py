"""Generations that are not streamed: responses, bills and error responses. Records and other endpoints."""

import re

import pytest

from neuralbox_async.testing import BilledGeneration

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_response_in_dialect_a(caller):
    """The response to a request with messages has the eight members of the vendor's page."""
    response = caller.post_message()

    assert 200 == response.status
    assert TIME.fullmatch(response.json.pop("created_at"))
    assert "application/json" == response.headers["Content-Type"]
    assert {
        "id": "gen_01j9x00018473",
        "status": "completed",
        "model": "gpt-5",
        "content": "You said: Hello big world",
        "tokens_used": 2,
        "balance_remaining": 999_998,
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        "created_at": response.json["created_at"],
    } == response.json


def test_response_in_dialect_b(caller):
    """The response to a request with a prompt has an integer id and nullable members."""
    params = {
        "system_prompt": "Be brief.",
        "temperature": 0.7,
        "max_tokens": 3,
        "messages": [{"role": "user", "content": "Earlier"}, {"role": "assistant", "content": "Yes"}],
    }
    response = caller.post({"model": "gpt-5", "prompt": "Hello big world", "params": params}).json

    assert isinstance(response.pop("processing_ms"), int)
    assert {
        "id": 18473,
        "status": "completed",
        "model_slug": "gpt-5",
        "result_text": "You said: Hello ",
        "result_url": None,
        "thumbnail_url": None,
        "error": None,
        "tokens_spent": 2,
        "result_metadata": None,
    } == response


@pytest.mark.parametrize("params", [{}, None, {"messages": []}])
def test_params_are_optional(caller, params):
    """A request with a prompt may have no params."""
    assert "You said: Hi" == caller.post({"model": "gpt-5", "prompt": "Hi", "params": params}).json["result_text"]


def test_the_header_chooses_the_dialect(caller):
    """The header X-NeuralBox-Dialect overrides the dialect of the request's form."""
    assert "result_text" in caller.post_message(headers={"X_NeuralBox_Dialect": "b"}).json
    assert "content" in caller.post({"model": "gpt-5", "prompt": "Hi"}, X_NeuralBox_Dialect="A").json
    assert "content" in caller.post_message(headers={"X_NeuralBox_Dialect": "other"}).json


def test_the_server_has_a_default_dialect(serve):
    """A server may respond to messages in dialect B."""
    assert "result_text" in serve(dialect="b").post_message().json


def test_the_last_user_message_is_echoed(caller):
    """The reply echoes the last user message, also before later messages. Without a user message the echo is empty."""
    history = [
        {"role": "user", "content": "First"},
        {"role": "user", "content": "Second"},
        {"role": "assistant", "content": "Third"},
    ]
    assert "You said: Second" == caller.post({"model": "gpt-5", "messages": history}).json["content"]
    assert "You said: " == caller.post({"model": "gpt-5", "messages": history[2:]}).json["content"]


def test_images_are_counted(caller):
    """Images are counted in the reply and in the usage."""
    content = [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "text", "text": "this?"},
    ]
    response = caller.post({"model": "gpt-5", "messages": [{"role": "user", "content": content}]}).json

    assert "You said: What is this? [2 images]" == response["content"]
    assert 3 + 2 * 85 == response["usage"]["prompt_tokens"]


def test_the_system_prompt_counts(caller):
    """The system shorthand is part of the prompt."""
    assert 5 == caller.post_message("One two three", system="Be brief.").json["usage"]["prompt_tokens"]


def test_max_tokens_limits_the_reply(caller):
    """The reply has at most max_tokens tokens. Null sets no limit."""
    assert "You said: " == caller.post_message(max_tokens=2).json["content"]
    assert 2 == caller.post_message(max_tokens=2).json["usage"]["completion_tokens"]
    assert "You said: Hello big world" == caller.post_message(max_tokens=None).json["content"]


@pytest.mark.parametrize("text", ["Grüße \u2028 \U0001f600 \x00 e\u0301", "lone \ud83d surrogate", "a" * 3_000_000])
def test_any_text_is_preserved(caller, text):
    """Any text that JSON can represent is echoed unchanged."""
    assert f"You said: {text}" == caller.post_message(text).json["content"]


def test_reply_may_be_a_string(serve):
    """A string is the reply to every request."""
    assert "The same" == serve(reply="The same").post_message().json["content"]


def test_reply_may_be_a_function(serve):
    """A function of the request's JSON may return a string or an iterable of tokens."""
    assert "gpt-5!" == serve(reply=lambda request: request["model"] + "!").post_message().json["content"]
    assert "ab" == serve(reply=lambda _: ["a", "b", "c"]).post_message(max_tokens=2).json["content"]


def test_reply_that_raises_is_a_500(serve, caplog):
    """The response to a reply that raises is a 500 with the exception. It is logged and not billed."""
    caller = serve(reply=lambda request: request["nothing"])
    response = caller.post_message()

    assert (500, "internal_error", "KeyError('nothing')") == (response.status, *list(response.json.values())[:2])
    assert () == caller.server.billed
    assert "KeyError" in caplog.text


def test_prices(serve):
    """The price of a generation is the configured price, else the vendor's price, else 1."""
    caller = serve(prices={"gpt-5": 7})
    assert 39 == caller.post_message(model="gpt-5.2-pro").json["tokens_used"]
    assert 1 == caller.post_message(model="unknown-model").json["tokens_used"]
    assert 7 == caller.post_message().json["tokens_used"]


def test_bills_are_recorded(caller):
    """Each completed generation has one bill, with its request and its idempotency key."""
    caller.get("/balance")
    caller.post_message(headers={"Idempotency_Key": "k1"})
    caller.post_message(model="claude-sonnet-4.5")

    assert 999_994 == caller.server.balance
    assert (
        BilledGeneration(id="gen_01j9x00018473", model="gpt-5", tokens_used=2, request_index=1, idempotency_key="k1"),
        BilledGeneration(
            id="gen_01j9x00018474", model="claude-sonnet-4.5", tokens_used=4, request_index=2, idempotency_key=None
        ),
    ) == caller.server.billed


def test_a_repeated_key_is_billed_twice(caller):
    """By default a repeated request creates a new generation: the vendor documents no idempotency key."""
    ids = [caller.post_message(headers={"Idempotency_Key": "k"}).json["id"] for _ in range(2)]
    assert 2 == len(set(ids)) == len(caller.server.billed)


def test_a_repeated_key_can_be_honoured(serve):
    """A server that honours keys returns the first generation again, also as a stream, and bills it once."""
    caller = serve(honour_idempotency_key=True)
    first, again = (caller.post_message(headers={"Idempotency_Key": "k"}).json for _ in range(2))
    stream = caller.post_message(headers={"Idempotency_Key": "k"}, stream=True).events
    other = caller.post_message(headers={"Idempotency_Key": "l"}).json

    assert first == again
    assert first["id"] == stream[0]["id"]
    assert first["content"] == "".join(event["delta"] for event in stream[1:-2])
    assert first["id"] != other["id"]
    assert 2 == len(caller.server.billed)


def test_insufficient_balance_is_a_402(serve):
    """A generation that the balance does not cover gets a 402 and is not billed."""
    caller = serve(balance=3)
    caller.post_message()
    response = caller.post_message()

    assert 402 == response.status
    assert {
        "error": "insufficient_tokens",
        "message": "Not enough tokens on the balance.",
        "details": {"balance": 1, "required": 2},
    } == response.json
    assert 1 == caller.server.balance
    caller.server.balance = 2
    assert 200 == caller.post_message().status


def test_running_generations_reserve_their_price(serve):
    """Two concurrent generations cannot spend the same tokens."""
    caller = serve(balance=3, pending_models=["gpt-5"], pending_seconds=60)
    assert [200, 402] == [caller.post_message().status for _ in range(2)]


def test_restricted_models_are_a_403(serve):
    """A model that the plan excludes gets a 403."""
    response = serve(restricted_models=["gpt-5"]).post_message()
    assert (403, "insufficient_plan") == (response.status, response.json["error"])


@pytest.mark.parametrize("credentials", ["", "Bearer wrong", "bearer nb_test_key_for_the_local_server", "Bearer \xe9"])
def test_a_wrong_key_is_a_401(caller, credentials):
    """Every request without the valid key gets a 401."""
    for response in (
        caller.post_message(headers={"Authorization": credentials}),
        caller.get("/balance", Authorization=credentials),
    ):
        assert 401 == response.status
        assert {
            "error": "not_authenticated",
            "message": "Missing or invalid Authorization header.",
            "details": {},
        } == response.json


def test_keys_can_rotate(caller):
    """The valid key can be changed while the server runs."""
    old = caller.server.api_key
    caller.server.api_key = "nb_new"
    assert 401 == caller.post_message(headers={"Authorization": f"Bearer {old}"}).status
    assert 200 == caller.post_message().status


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", ""),
        ("GET", "/generate"),
        ("PUT", "/generate"),
        ("GET", "/nothing"),
        ("GET", "/models/nothing"),
        ("POST", "/models/nothing/calculate-price"),
        ("GET", "/generate/18473"),
        ("GET", "/generate/status/gen_1"),
        ("GET", "/generate/status/gen_x"),
        ("GET", "/generate/%C2%B2"),
    ],
)
def test_unknown_resources_are_a_404(caller, method, path):
    """Unknown paths, methods, models and generations get a 404."""
    response = caller.request(method, path)
    assert (404, "not_found") == (response.status, response.json["error"])


def test_paths_outside_the_api_are_a_404(caller):
    """Paths outside /api/v2 get a 404."""
    assert 404 == caller.get("/../../balance").status


def test_an_oversized_body_is_a_413(serve):
    """A body above the limit gets a 413."""
    assert 413 == serve(max_body_size=100).post_message("x" * 200).status


def test_balance_endpoint(serve):
    """GET /balance returns the balance and the plan. The free plan does not expire."""
    assert {"token_balance": 5, "plan": "free", "plan_expires_at": None} == serve(balance=5, plan="free").get(
        "/balance"
    ).json
    assert serve().get("/balance").json["plan_expires_at"].endswith("Z")


def test_model_endpoint(caller):
    """GET /models/{slug} describes a model of the price list."""
    model = caller.get("/models/dall-e-3").json
    assert ("image", 5, 5, 13, "free", False) == tuple(
        model[name]
        for name in ("category", "token_cost", "min_token_cost", "max_token_cost", "min_plan", "supports_streaming")
    )
    assert caller.get("/models/gpt-5").json["supports_streaming"] is True


def test_price_endpoint(caller):
    """POST /models/{slug}/calculate-price multiplies the base price."""
    assert {"token_cost": 4, "min_token_cost": 2, "max_token_cost": 2, "pricing_type": "fixed"} == caller.post(
        {"params": {}, "count": 2}, "/models/gpt-5/calculate-price"
    ).json
    assert "matrix" == caller.post({}, "/models/dall-e-3/calculate-price").json["pricing_type"]


def test_configured_prices_are_returned(serve):
    """The model and price endpoints return configured prices, also of models outside the price list."""
    caller = serve(prices={"dall-e-3": 7, "mine": 3})
    assert {"token_cost": 14, "min_token_cost": 7, "max_token_cost": 7, "pricing_type": "fixed"} == caller.post(
        {"count": 2}, "/models/dall-e-3/calculate-price"
    ).json
    assert 3 == caller.post({}, "/models/mine/calculate-price").json["max_token_cost"]
    assert (7, 3) == tuple(caller.get(f"/models/{slug}").json["token_cost"] for slug in ("dall-e-3", "mine"))
    assert 404 == caller.post({}, "/models/other/calculate-price").status


@pytest.mark.parametrize("body", [{"count": 0}, {"count": "1"}, {"count": True}, []])
def test_an_invalid_count_is_a_422(caller, body):
    """A count that is not a positive integer gets a 422."""
    response = caller.post(body, "/models/gpt-5/calculate-price")
    assert (422, ["count"]) == (response.status, list(response.json["details"]))


def test_requests_are_recorded(caller):
    """Each request is recorded unchanged, with the status of its response."""
    caller.post_message("One", headers={"X_Custom": "yes"})
    caller.post(b"not json")
    first, second = caller.server.requests

    assert (0, "POST", "/api/v2/generate", 200, False) == (
        first.index,
        first.method,
        first.path,
        first.response_status,
        first.disconnected,
    )
    assert ("yes", "One") == (first.headers["x-custom"], first.json["messages"][0]["content"])
    assert (b"not json", None, 400) == (second.body, second.json, second.response_status)
    assert "Bearer" not in repr(first)


def test_reset_restores_the_initial_state(serve):
    """A reset empties the records and restores the balance. No id is used twice."""
    caller = serve(balance=10, limit_hour=1)
    old = caller.post_message().json["id"]
    caller.server.fail(503)
    caller.server.reset()

    assert ((), (), (), 10) == (
        caller.server.requests,
        caller.server.billed,
        caller.server.faults,
        caller.server.balance,
    )
    assert 404 == caller.get(f"/generate/{old}").status
    response = caller.post_message()
    assert 200 == response.status
    assert old != response.json["id"]
    assert [0, 1] == [received.index for received in caller.server.requests]


def test_history_limits_the_records(serve):
    """history limits the number of records. A running generation that is deleted releases its reserved tokens."""
    caller = serve(history=2, balance=6, honour_idempotency_key=True)
    ids = [
        caller.post_message(headers={"Idempotency_Key": str(number)}, background=True).json["id"] for number in range(2)
    ]
    ids += [caller.post_message().json["id"] for _ in range(2)]

    assert [404, 404, 200, 200] == [caller.get(f"/generate/status/{id_}").status for id_ in ids]
    assert 2 == len(caller.server.requests) == len(caller.server.billed)
    assert 2 == caller.server.balance
    assert ids[0] != caller.post_message(headers={"Idempotency_Key": "0"}).json["id"]
