"""Whole completions, models and the other endpoints of the gateway."""

from __future__ import annotations

import json
import re

import pytest
from gateways import COMPLETION, HI, MODEL, MODELS, check_form, running

from neuralbox_async.testing import NeuralBoxServer


async def test_form(site):
    """A completion has exactly the members that OpenAI documents, and the cost is in headers."""
    reply = await site.send()
    (bill,) = site.server.billed

    check_form(reply.json, COMPLETION)
    assert f"chatcmpl-{bill.id}" == reply.json["id"]
    assert {"role": "assistant", "content": "You said: Hi", "refusal": None} == reply.json["choices"][0]["message"]
    assert bill.id == reply.headers["x-neuralbox-generation-id"]
    assert str(bill.tokens_used) == reply.headers["x-neuralbox-tokens-used"]
    assert str(site.server.balance) == reply.headers["x-neuralbox-balance-remaining"]
    assert reply.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    "members, sent",
    [
        ({}, {}),
        ({"temperature": 0.5, "max_tokens": 7}, {"temperature": 0.5, "max_tokens": 7}),
        ({"max_completion_tokens": 7, "max_tokens": None}, {"max_tokens": 7}),
        ({"tools": [], "tool_choice": "auto", "n": 1, "stop": None, "logprobs": False, "response_format": None}, {}),
        ({"tools": [{"type": "function"}], "tool_choice": "none"}, {}),
        ({"response_format": {"type": "text"}, "modalities": ["text"]}, {}),
        ({"top_p": 1, "seed": 3, "user": "u", "store": False, "x_unknown": [1]}, {}),
    ],
)
async def test_what_is_sent(site, members, sent):
    """The API gets the members that it documents, under its own names, and nothing else."""
    reply = await site.send(**members)

    assert 200 == reply.status
    assert {"model": "gpt-5", "messages": HI, **sent} == site.server.requests[-1].json


async def test_ignored_members(site):
    """Members without an effect are named, if OpenAI documents them."""
    reply = await site.send(top_p=1, seed=None, user="u", x_unknown="\r\n")

    assert "top_p, user" == reply.headers["x-neuralbox-ignored"]


@pytest.mark.parametrize(
    "message, sent",
    [
        ({"role": "developer", "content": "Be brief", "name": "x"}, {"role": "system", "content": "Be brief"}),
        (
            {"role": "assistant", "content": None, "refusal": None, "tool_calls": []},
            {"role": "assistant", "content": ""},
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "a", "extra": 1}]},
            {"role": "user", "content": [{"type": "text", "text": "a"}]},
        ),
        (
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}],
            },
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}}],
            },
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "no"}]},
        ),
    ],
)
async def test_messages(site, message, sent):
    """Messages are sent in the API's form: its roles, text and images."""
    await site.send(messages=[message, *HI])

    assert [sent, *HI] == site.server.requests[-1].json["messages"]


async def test_pending_generation():
    """A generation that is pending at first is waited for."""
    with NeuralBoxServer(pending_models={"gpt-5"}, pending_seconds=0.01) as server:
        async with running(server) as site:
            reply = await site.send()

    assert "You said: Hi" == reply.json["choices"][0]["message"]["content"]


async def test_dialect_b():
    """A response in the API's other dialect, without usage, makes a completion without usage."""
    with NeuralBoxServer(dialect="b") as server:
        async with running(server) as site:
            reply = await site.send()

    check_form(reply.json, {name: form for name, form in COMPLETION.items() if name != "usage"})
    assert "chatcmpl-18473" == reply.json["id"]


async def test_long_text_is_cut_off(site):
    """A text that ends at the limit of tokens has the finish reason of the API, or else stop."""
    for reason in ("length", "max_tokens", "strange"):
        site.server.fail(200, body={"id": "g", "status": "completed", "content": "a", "finish_reason": reason})
    replies = [await site.send() for _ in range(3)]

    assert ["length", "length", "stop"] == [reply.json["choices"][0]["finish_reason"] for reply in replies]


async def test_id_that_is_no_header(site):
    """An id with a line break is in the body only."""
    site.server.fail(200, body={"id": "g\r\nX-Evil: 1", "status": "completed", "content": "a"})
    reply = await site.send()

    assert 200 == reply.status
    assert not {"X-Evil", "x-neuralbox-generation-id"} & set(reply.headers)


# ------------------------------------------------------------------------------------------------------ stop sequences


async def test_stop(site):
    """The text ends before a stop sequence, the API's stream is closed, and the cost is that of the status endpoint."""
    site.server.reply_with("one two three four")
    reply = await site.send(stop=["five", " three"])

    check_form(reply.json, COMPLETION)
    assert "one two" == reply.json["choices"][0]["message"]["content"]
    assert "stop" == reply.json["choices"][0]["finish_reason"]
    assert str(site.server.billed[0].tokens_used) == reply.headers["x-neuralbox-tokens-used"]


async def test_stop_in_a_broken_stream(site):
    """A stream that breaks before a stop sequence is an error with the text that had arrived."""
    site.server.cut(after_events=3)
    reply = await site.send(stop="never")

    assert (502, "stream_interrupted") == (reply.status, reply.error["code"])
    assert "You said: Hi".startswith(reply.error["neuralbox"]["text"])


async def test_stop_closes_the_stream_of_the_api():
    """What comes after a stop sequence is not waited for."""
    with NeuralBoxServer(reply=lambda _: iter(lambda: "a b ", None), event_interval=0.01) as server:
        async with running(server) as site:
            reply = await site.send(stop="b")
            await server.wait_for_disconnect_async()

    assert "a " == reply.json["choices"][0]["message"]["content"]


# ----------------------------------------------------------------------------------------------------- response format

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}


@pytest.mark.parametrize(
    "response_format, text, content",
    [
        ({"type": "json_object"}, '{"a": 1.50}', '{"a": 1.50}'),
        ({"type": "json_object"}, 'Here:\n```json\n{"a": "ä"}\n```', '{"a": "ä"}'),
        (JSON_SCHEMA, '{"a": 1}', '{"a": 1}'),
        (JSON_SCHEMA, 'The value is {"a": 1}.', '{"a": 1}'),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_response_format(site, response_format, text, content, stream):
    """The content is valid JSON and nothing else; the schema is sent in the system message."""
    site.server.reply_with(text)
    reply = await site.send(response_format=response_format, stream=stream)

    if stream:
        assert "[DONE]" == reply.events[-1]
        deltas = [event["choices"][0]["delta"].get("content", "") for event in reply.events[:-1]]
        assert content == "".join(deltas)
    else:
        check_form(reply.json, COMPLETION)
        assert content == reply.json["choices"][0]["message"]["content"]
    assert "JSON Schema" in site.server.requests[-1].json["system"]


async def test_repair(site):
    """A text that is not valid is repaired once, and the cost is that of both generations."""
    site.server.reply_with('{"a": "x"}', '{"a": 2}')
    reply = await site.send(response_format=JSON_SCHEMA)

    assert '{"a": 2}' == reply.json["choices"][0]["message"]["content"]
    assert str(sum(bill.tokens_used for bill in site.server.billed)) == reply.headers["x-neuralbox-tokens-used"]
    assert 2 == len(site.server.billed)


async def test_invalid_after_the_repair(site, log):
    """A text that stays invalid is an error with text and cost, and is not to be repeated; the log has the cost."""
    site.server.reply_with('{"a": "x"}', "no JSON")
    reply = await site.send(response_format=JSON_SCHEMA)

    assert 502 == reply.status
    assert "invalid_output" == reply.error["code"]
    facts = reply.error["neuralbox"]
    assert ("yes", "no JSON", 4) == (facts["billed"], facts["text"], facts["tokens_used"])
    assert "false" == reply.headers["x-should-retry"]
    assert f" 4 tokens {facts['generation_id']} invalid_output" in log()[-1]


# --------------------------------------------------------------------------------------------------------------- others


async def test_models(site):
    """The models are the API's text models, and the list is requested once."""
    lists = [await site.send("GET", "/v1/models") for _ in range(2)]
    model = await site.send("GET", "/v1/models/gpt-5")

    check_form(lists[0].json, MODELS)
    ids = {entry["id"] for entry in lists[0].json["data"]}
    assert "gpt-5" in ids
    assert "dall-e-3" not in ids
    assert lists[0].body == lists[1].body
    assert 1 == [request.path for request in site.server.requests].count("/api/v2/models")
    check_form(model.json, MODEL)
    assert "gpt-5" == model.json["id"]


@pytest.mark.parametrize("slug", ["gpt-55", "a/b", "%2e%2e", "..", "%00", "a%20b", "%ff"])
async def test_unknown_model(site, slug):
    """A model that does not exist is OpenAI's error of that name, or an invalid parameter."""
    reply = await site.send("GET", f"/v1/models/{slug}")

    assert reply.status in {400, 404}
    assert reply.error["code"] in {"model_not_found", "unknown_url", None}


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/healthz", 200),
        ("POST", "/v1/embeddings", 404),
        ("GET", "/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models/gpt-5", 405),
        ("POST", "/chat/completions", 404),
    ],
)
async def test_paths(site, method, path, status):
    """Other paths and methods get OpenAI's error form."""
    reply = await site.send(method, path)

    assert status == reply.status
    assert reply.json == {"status": "ok"} if status == 200 else reply.error["type"] == "invalid_request_error"


async def test_log(site, log):
    """The log has method, path, status, model, cost and id, and no text and no key."""
    await site.send(messages=[{"role": "user", "content": "secret prompt"}])
    await site.send("GET", "/v1/%1b[2J\nsecret?token=abc")
    lines = log()

    (bill,) = site.server.billed
    assert re.fullmatch(rf"POST /v1/chat/completions 200 gpt-5 \d+\.\d{{3}} s 2 tokens {bill.id}", lines[0])
    assert "secret prompt" not in json.dumps(lines)
    assert site.server.api_key not in json.dumps(lines)
    assert lines[1].isprintable()
    assert "token=abc" not in lines[1]
