"""A generation that is not streamed: what is answered, what is billed, what is refused."""

import re

import pytest

from neuralbox_async.testing import BilledGeneration

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def test_answer_in_dialect_a(caller):
    """A generation made with messages is answered with the eight members of the vendor's page."""
    answer = caller.say()

    assert 200 == answer.status
    assert TIME.fullmatch(answer.json.pop("created_at"))
    assert "application/json" == answer.headers["Content-Type"]
    assert {
        "id": "gen_01j9x00018473",
        "status": "completed",
        "model": "gpt-5",
        "content": "You said: Hello big world",
        "tokens_used": 2,
        "balance_remaining": 999_998,
        "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
        "created_at": answer.json["created_at"],
    } == answer.json


def test_answer_in_dialect_b(caller):
    """A generation made with a prompt is answered with an integer id and nullable members."""
    params = {
        "system_prompt": "Be brief.",
        "temperature": 0.7,
        "max_tokens": 3,
        "messages": [{"role": "user", "content": "Earlier"}, {"role": "assistant", "content": "Yes"}],
    }
    answer = caller.post({"model": "gpt-5", "prompt": "Hello big world", "params": params}).json

    assert isinstance(answer.pop("processing_ms"), int)
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
    } == answer


@pytest.mark.parametrize("params", [{}, None, {"messages": []}])
def test_params_are_optional(caller, params):
    """A prompt needs no params."""
    assert "You said: Hi" == caller.post({"model": "gpt-5", "prompt": "Hi", "params": params}).json["result_text"]


def test_the_header_chooses_the_dialect(caller):
    """The header X-NeuralBox-Dialect overrides what the form of the request implies."""
    assert "result_text" in caller.say(headers={"X_NeuralBox_Dialect": "b"}).json
    assert "content" in caller.post({"model": "gpt-5", "prompt": "Hi"}, X_NeuralBox_Dialect="A").json
    assert "content" in caller.say(headers={"X_NeuralBox_Dialect": "other"}).json


def test_the_server_has_a_default_dialect(serve):
    """A server may answer messages in dialect B."""
    assert "result_text" in serve(dialect="b").say().json


def test_the_last_user_message_is_echoed(caller):
    """The echo is of the last user message, whatever comes after it; without one it is of nothing."""
    history = [
        {"role": "user", "content": "First"},
        {"role": "user", "content": "Second"},
        {"role": "assistant", "content": "Third"},
    ]
    assert "You said: Second" == caller.post({"model": "gpt-5", "messages": history}).json["content"]
    assert "You said: " == caller.post({"model": "gpt-5", "messages": history[2:]}).json["content"]


def test_images_are_counted(caller):
    """Images are mentioned in the answer and counted in the usage."""
    content = [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg"}},
        {"type": "text", "text": "What is"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        {"type": "text", "text": "this?"},
    ]
    answer = caller.post({"model": "gpt-5", "messages": [{"role": "user", "content": content}]}).json

    assert "You said: What is this? [2 images]" == answer["content"]
    assert 3 + 2 * 85 == answer["usage"]["prompt_tokens"]


def test_the_system_prompt_counts(caller):
    """The system shorthand is part of the prompt."""
    assert 5 == caller.say("One two three", system="Be brief.").json["usage"]["prompt_tokens"]


def test_max_tokens_cuts(caller):
    """The answer has at most max_tokens pieces; null is no limit."""
    assert "You said: " == caller.say(max_tokens=2).json["content"]
    assert 2 == caller.say(max_tokens=2).json["usage"]["completion_tokens"]
    assert "You said: Hello big world" == caller.say(max_tokens=None).json["content"]


@pytest.mark.parametrize("text", ["Grüße \u2028 \U0001f600 \x00 e\u0301", "lone \ud83d surrogate", "a" * 3_000_000])
def test_any_text_comes_back(caller, text):
    """Any text that JSON can carry comes back unharmed."""
    assert f"You said: {text}" == caller.say(text).json["content"]


def test_reply_may_be_a_text(serve):
    """A server may always say the same."""
    assert "The same" == serve(reply="The same").say().json["content"]


def test_reply_may_be_a_function(serve):
    """A function of the request's JSON says what is answered, as a text or as pieces."""
    assert "gpt-5!" == serve(reply=lambda request: request["model"] + "!").say().json["content"]
    assert "ab" == serve(reply=lambda _: ["a", "b", "c"]).say(max_tokens=2).json["content"]


def test_reply_that_raises_is_a_500(serve, caplog):
    """A reply that raises is answered with 500 and its reason, billed nothing, and logged."""
    caller = serve(reply=lambda request: request["nothing"])
    answer = caller.say()

    assert (500, "internal_error", "KeyError('nothing')") == (answer.status, *list(answer.json.values())[:2])
    assert () == caller.server.billed
    assert "KeyError" in caplog.text


def test_prices_are_those_of_the_catalogue(serve):
    """A generation costs what the server was told, else what the catalogue says, else 1."""
    caller = serve(prices={"gpt-5": 7})
    assert 39 == caller.say(model="gpt-5.2-pro").json["tokens_used"]
    assert 1 == caller.say(model="never-heard-of").json["tokens_used"]
    assert 7 == caller.say().json["tokens_used"]


def test_what_was_billed_is_recorded(caller):
    """Each completed generation is billed once, with its request and its idempotency key."""
    caller.get("/balance")
    caller.say(headers={"Idempotency_Key": "k1"})
    caller.say(model="claude-sonnet-4.5")

    assert 999_994 == caller.server.balance
    assert (
        BilledGeneration(id="gen_01j9x00018473", model="gpt-5", tokens=2, request=1, idempotency_key="k1"),
        BilledGeneration(id="gen_01j9x00018474", model="claude-sonnet-4.5", tokens=4, request=2, idempotency_key=None),
    ) == caller.server.billed


def test_a_repeated_key_is_billed_twice(caller):
    """The vendor documents no idempotency key: by default a repeated request is a generation of its own."""
    ids = [caller.say(headers={"Idempotency_Key": "k"}).json["id"] for _ in range(2)]
    assert 2 == len(set(ids)) == len(caller.server.billed)


def test_a_repeated_key_can_be_honoured(serve):
    """A server that honours keys gives the first generation again, also as a stream, and bills it once."""
    caller = serve(honour_idempotency_key=True)
    first, again = (caller.say(headers={"Idempotency_Key": "k"}).json for _ in range(2))
    stream = caller.say(headers={"Idempotency_Key": "k"}, stream=True).events
    other = caller.say(headers={"Idempotency_Key": "l"}).json

    assert first == again
    assert first["id"] == stream[0]["id"]
    assert first["content"] == "".join(event["delta"] for event in stream[1:-2])
    assert first["id"] != other["id"]
    assert 2 == len(caller.server.billed)


def test_too_little_balance_is_a_402(serve):
    """A generation that the balance does not cover is refused and costs nothing."""
    caller = serve(balance=3)
    caller.say()
    answer = caller.say()

    assert 402 == answer.status
    assert {
        "error": "insufficient_tokens",
        "message": "Not enough tokens on the balance.",
        "details": {"balance": 1, "required": 2},
    } == answer.json
    assert 1 == caller.server.balance
    caller.server.balance = 2
    assert 200 == caller.say().status


def test_running_generations_reserve_their_price(serve):
    """Two generations at once cannot spend the same tokens."""
    caller = serve(balance=3, pending_models=["gpt-5"], pending_seconds=60)
    assert [200, 402] == [caller.say().status for _ in range(2)]


def test_restricted_models_are_a_403(serve):
    """A model above the plan is refused."""
    answer = serve(restricted_models=["gpt-5"]).say()
    assert (403, "insufficient_plan") == (answer.status, answer.json["error"])


@pytest.mark.parametrize("given", ["", "Bearer wrong", "bearer nb_test_key_for_the_local_server", "Bearer \xe9"])
def test_a_wrong_key_is_a_401(caller, given):
    """Without the right key nothing is answered but 401."""
    for answer in (caller.say(headers={"Authorization": given}), caller.get("/balance", Authorization=given)):
        assert 401 == answer.status
        assert {
            "error": "not_authenticated",
            "message": "Missing or invalid Authorization header.",
            "details": {},
        } == answer.json


def test_keys_can_rotate(caller):
    """The key that is accepted can be changed while the server runs."""
    old = caller.server.api_key
    caller.server.api_key = "nb_new"
    assert 401 == caller.say(headers={"Authorization": f"Bearer {old}"}).status
    assert 200 == caller.say().status


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
def test_what_is_not_there_is_a_404(caller, method, path):
    """Unknown paths, methods, models and generations are answered with 404."""
    answer = caller.ask(method, path)
    assert (404, "not_found") == (answer.status, answer.json["error"])


def test_only_the_api_has_paths(caller):
    """Outside of /api/v2 there is nothing."""
    assert 404 == caller.get("/../../balance").status


def test_a_body_too_large_is_a_413(serve):
    """A body above the limit is refused."""
    assert 413 == serve(max_body=100).say("x" * 200).status


def test_balance_endpoint(serve):
    """GET /balance tells the balance and the plan, which does not expire if it is the free one."""
    assert {"token_balance": 5, "plan": "free", "plan_expires_at": None} == serve(balance=5, plan="free").get(
        "/balance"
    ).json
    assert serve().get("/balance").json["plan_expires_at"].endswith("Z")


def test_model_endpoint(caller):
    """GET /models/{slug} describes a model of the catalogue."""
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


def test_prices_are_told(serve):
    """Prices given to the server are those that it tells, of models in the catalogue and of others."""
    caller = serve(prices={"dall-e-3": 7, "mine": 3})
    assert {"token_cost": 14, "min_token_cost": 7, "max_token_cost": 7, "pricing_type": "fixed"} == caller.post(
        {"count": 2}, "/models/dall-e-3/calculate-price"
    ).json
    assert 3 == caller.post({}, "/models/mine/calculate-price").json["max_token_cost"]
    assert (7, 3) == tuple(caller.get(f"/models/{slug}").json["token_cost"] for slug in ("dall-e-3", "mine"))
    assert 404 == caller.post({}, "/models/other/calculate-price").status


@pytest.mark.parametrize("body", [{"count": 0}, {"count": "1"}, {"count": True}, []])
def test_price_of_no_count_is_a_422(caller, body):
    """A count that is no count is refused."""
    answer = caller.post(body, "/models/gpt-5/calculate-price")
    assert (422, ["count"]) == (answer.status, list(answer.json["details"]))


def test_requests_are_recorded(caller):
    """Each request is kept as it came, with what was answered."""
    caller.say("One", headers={"X_Custom": "yes"})
    caller.post(b"not json")
    first, second = caller.server.requests

    assert (0, "POST", "/api/v2/generate", 200, False) == (
        first.index,
        first.method,
        first.path,
        first.answered,
        first.disconnected,
    )
    assert ("yes", "One") == (first.headers["x-custom"], first.json["messages"][0]["content"])
    assert (b"not json", None, 400) == (second.body, second.json, second.answered)
    assert "Bearer" not in repr(first)


def test_reset_is_a_fresh_start(serve):
    """After a reset the records are empty and the balance is whole, but no id comes twice."""
    caller = serve(balance=10, limit_hour=1)
    old = caller.say().json["id"]
    caller.server.fail(503)
    caller.server.reset()

    assert ((), (), (), 10) == (
        caller.server.requests,
        caller.server.billed,
        caller.server.faults,
        caller.server.balance,
    )
    assert 404 == caller.get(f"/generate/{old}").status
    answer = caller.say()
    assert 200 == answer.status
    assert old != answer.json["id"]
    assert [0, 1] == [received.index for received in caller.server.requests]


def test_keep_bounds_the_records(serve):
    """A server may keep the newest of its records only; what it forgets while it runs gives its tokens back."""
    caller = serve(keep=2, balance=6, honour_idempotency_key=True)
    ids = [caller.say(headers={"Idempotency_Key": str(number)}, background=True).json["id"] for number in range(2)]
    ids += [caller.say().json["id"] for _ in range(2)]

    assert [404, 404, 200, 200] == [caller.get(f"/generate/status/{id_}").status for id_ in ids]
    assert 2 == len(caller.server.requests) == len(caller.server.billed)
    assert 2 == caller.server.balance
    assert ids[0] != caller.say(headers={"Idempotency_Key": "0"}).json["id"]
