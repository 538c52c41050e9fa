"""Requests that are refused, and odd ones."""

from __future__ import annotations

import gzip
import json
import string

import pytest
from gateways import HI, running
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralbox_async.gateway._errors import Refusal
from neuralbox_async.gateway._requests import IGNORED, parse_chat_request

TOOL = {"type": "function", "function": {"name": "f"}}


def chat(**members):
    return {"model": "gpt-5", "messages": HI, **members}


@pytest.mark.parametrize(
    "members, param",
    [
        (chat(tools=[TOOL]), "tools"),
        (chat(functions=[{"name": "f"}], function_call="auto"), "functions"),
        (chat(tool_choice="required"), "tool_choice"),
        (chat(tool_choice={"type": "function"}), "tool_choice"),
        (chat(n=2), "n"),
        (chat(n=True), "n"),
        (chat(logprobs=True), "logprobs"),
        (chat(modalities=["text", "audio"]), "modalities"),
        (chat(audio={"voice": "x"}), "modalities"),
        (chat(web_search_options={}), "web_search_options"),
        (chat(messages=[]), "messages"),
        (chat(messages="Hi"), "messages"),
        (chat(messages=[1]), "messages[0]"),
        (chat(messages=[{"role": "tool", "content": "x", "tool_call_id": "1"}]), "messages[0]"),
        (chat(messages=[{"role": "assistant", "tool_calls": [TOOL]}]), "messages[0]"),
        (chat(messages=[{"role": "x", "content": "x"}]), "messages[0].role"),
        (chat(messages=[{"role": ["user"], "content": "x"}]), "messages[0].role"),
        (chat(messages=[{"role": "user"}]), "messages[0].content"),
        (chat(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]), "messages[0].content[0]"),
        (chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content[0].image_url.url"),
        ({"messages": HI}, "model"),
        (chat(model=["x"]), "model"),
        (chat(temperature="x"), "temperature"),
        (chat(max_tokens=0), "max_tokens"),
        (chat(max_completion_tokens=1.5), "max_completion_tokens"),
        (chat(stop=[""]), "stop"),
        (chat(stop=["x"] * 17), "stop"),
        (chat(stop="x" * 1001), "stop"),
        (chat(stop={"x": 1}), "stop"),
        (chat(stream="yes"), "stream"),
        (chat(stream=True, stream_options=1), "stream_options"),
        (chat(response_format="json"), "response_format"),
        (chat(response_format={"type": "xml"}), "response_format"),
        (chat(response_format={"type": ["text"]}), "response_format"),
        (chat(response_format={"type": "json_object"}, stop="x"), "stop"),
        (chat(response_format={"type": "json_schema"}), "response_format.json_schema.schema"),
        (
            chat(response_format={"type": "json_schema", "json_schema": {"schema": {"type": 1}}}),
            "response_format.json_schema.schema",
        ),
        (
            chat(response_format={"type": "json_schema", "json_schema": {"schema": {"$schema": 5}}}),
            "response_format.json_schema.schema",
        ),
        (
            chat(response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "#/x/y", "x": 5}}}),
            "response_format.json_schema.schema",
        ),
        (
            chat(response_format={"type": "json_schema", "json_schema": {"schema": {"$schema": ["x"]}}}),
            "response_format.json_schema.schema",
        ),
        (
            chat(response_format={"type": "json_schema", "json_schema": {"schema": {"$ref": "http://example.com"}}}),
            "response_format.json_schema.schema",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(members, param):
    """What NeuralBox cannot do, and what is malformed, is refused by the name of its member."""
    with pytest.raises(Refusal) as caught:
        parse_chat_request(json.dumps(members).encode())

    assert (400, param) == (caught.value.body.status, caught.value.body.param)


@pytest.mark.parametrize(
    "members, param",
    [
        (chat(messages=[{"role": "user", "content": ""}]), "messages"),
        (chat(temperature=2.5), "temperature"),
        (chat(model="a b"), "model"),
    ],
)
async def test_refused_by_the_sdk(site, members, param):
    """What the SDK refuses is an error with the name of the member, and nothing is sent."""
    reply = await site.send(body=json.dumps(members).encode())

    assert (400, param) == (reply.status, reply.error["param"])
    assert () == site.server.requests


ODD = [
    b"",
    b"null",
    b"[]",
    b"{",
    b'{"model": NaN}',
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"1" * 5000,
    b'{"model": "gpt-5", "messages": [{"role": "user", "content": "\\ud800"}]}',
    b'{"model": "\\ud800", "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "\\u0000", "messages": [{"role": "user", "content": "x"}]}',
    b'{"model": "gpt-5", "messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
    b'{"model": "gpt-5", "messages": [{"role": "user", "content": "x"}], "max_tokens": ' + b"9" * 4000 + b"}",
    b'{"model": "gpt-5", "messages": [{"role": "user", "content": "x"}], "stop": ["\\ud800"]}',
]


@pytest.mark.parametrize("body", ODD, ids=lambda body: body[:70].decode(errors="replace"))
async def test_odd_bodies(site, body):
    """An odd body gets an error of the client, or a text."""
    reply = await site.send(body=body)

    assert reply.status in {200, 400}
    assert reply.status == 200 or reply.error["type"] == "invalid_request_error"


NAMES = "model messages temperature max_tokens max_completion_tokens stop stream stream_options n tools tool_choice"
MEMBERS = st.sampled_from([*NAMES.split(), "response_format", "logprobs", "modalities", *IGNORED])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["user", "text"]),
    lambda values: (
        st.lists(values, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "json_schema", "schema", "url"]), values)
    ),
    max_leaves=8,
)
REQUESTS = st.dictionaries(MEMBERS, JSON, max_size=5).map(lambda members: chat(**members))


@given(REQUESTS | JSON)
def test_odd_members(members):
    """Any JSON is translated or refused as an error of the client."""
    try:
        parsed = parse_chat_request(json.dumps(members).encode())
    except Refusal as refusal:
        assert 400 == refusal.body.status
        json.loads(refusal.body.encode())
    else:
        assert parsed.messages


@given(st.binary(max_size=50) | st.text(string.printable, max_size=50).map(str.encode))
def test_odd_bytes(body):
    """Bytes that are not a request are refused."""
    with pytest.raises(Refusal):
        parse_chat_request(body)


@settings(max_examples=20)
@given(requests=st.lists(REQUESTS, max_size=12))
async def test_odd_requests(server, requests):
    """Over a socket, odd requests get texts or errors of the client: no failure, no traceback and no key."""
    server.reset()
    async with running(server, max_concurrency=2) as site:
        for members in requests:
            reply = await site.send(body=json.dumps(members).encode())
            assert reply.status in {200, 400, 404, 422} or reply.error["code"] == "invalid_output"
            assert "Traceback" not in reply.body.decode()
            assert server.api_key not in reply.body.decode() + str(reply.headers)


# ------------------------------------------------------------------------------------------------------ HTTP


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_other_types(site, content_type):
    """Types that any website can send without asking are refused."""
    reply = await site.send(headers={"Content-Type": content_type})

    assert 415 == reply.status
    assert () == site.server.requests


async def test_compressed_body(site):
    """A compressed body is read; a damaged one is an error of the client."""
    packed = gzip.compress(json.dumps(chat()).encode())
    replies = [
        await site.send(body=body, headers={"Content-Encoding": "gzip"}) for body in (packed, packed[:20], b"garbage")
    ]

    assert [200, 400, 400] == [reply.status for reply in replies]


@pytest.mark.parametrize("packed", [False, True])
async def test_large_body(server, packed):
    """A body above the limit is refused, also one that is small until it is decompressed."""
    body = json.dumps(chat(user="x" * 1_040_000)).encode()
    async with running(server, max_body_bytes=1_000_000) as site:
        headers = {"Content-Encoding": "gzip"} if packed else {}
        reply = await site.send(body=gzip.compress(body) if packed else body, headers=headers)

    assert 413 == reply.status
    assert "1000000 bytes" in reply.error["message"]
