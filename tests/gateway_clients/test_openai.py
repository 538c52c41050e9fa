"""The official client of OpenAI, which validates every response strictly."""

from __future__ import annotations

import asyncio

import pytest
from gateway_thread import in_thread

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def client(site):
    """A blocking client."""
    with openai.OpenAI(base_url=site.url, api_key="none", _strict_response_validation=True, timeout=60) as client:
        yield client


@pytest.fixture
async def async_client(site):
    """An async client."""
    options = {"base_url": site.url, "api_key": "none", "_strict_response_validation": True, "timeout": 60}
    async with openai.AsyncOpenAI(**options) as client:
        yield client


def create(client, **parameters):
    return client.chat.completions.create(**{"model": "gpt-5", "messages": HI, **parameters})


class Person(pydantic.BaseModel):
    """What structured outputs are parsed as."""

    name: str
    age: int


# ----------------------------------------------------------------------------------------------------------- blocking


def test_whole(client, site):
    """A completion is valid, with usage, id and cost."""
    response = client.chat.completions.with_raw_response.create(
        model="gpt-5", messages=HI, temperature=0.5, max_completion_tokens=50, user="u", seed=1
    )
    completion = response.parse()

    assert "You said: Hi" == completion.choices[0].message.content
    assert "stop" == completion.choices[0].finish_reason
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens
    assert f"chatcmpl-{site.server.billed[0].id}" == completion.id
    assert completion._request_id.startswith("req_")
    assert "2" == response.headers["x-neuralbox-tokens-used"]
    assert "seed, user" == response.headers["x-neuralbox-ignored"]
    assert {"temperature": 0.5, "max_tokens": 50} == {
        name: site.server.requests[0].json[name] for name in ("temperature", "max_tokens")
    }


def test_stream(client):
    """A stream has the text, the finish reason, and at the end the usage that was requested."""
    chunks = list(create(client, stream=True, stream_options={"include_usage": True}))

    assert "You said: Hi" == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert "stop" == chunks[-2].choices[0].finish_reason
    assert ([], True) == (chunks[-1].choices, chunks[-1].usage.total_tokens > 0)
    assert "assistant" == chunks[0].choices[0].delta.role


def test_stream_helper(client):
    """The helper that accumulates a stream has the whole completion."""
    with client.chat.completions.stream(model="gpt-5", messages=HI) as stream:
        events = [event.type for event in stream]
        completion = stream.get_final_completion()

    assert "You said: Hi" == completion.choices[0].message.content
    assert {"chunk", "content.delta", "content.done"} <= set(events)


def test_stop(client):
    """Stop sequences end whole completions and streams."""
    whole = create(client, stop=[" Hi"])
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in create(client, stop=" Hi", stream=True))

    assert ("You said:", "You said:") == (whole.choices[0].message.content, streamed)


def test_structured_outputs(client, site):
    """`parse` returns a value of a pydantic model, by its strict JSON Schema."""
    site.server.reply_with('Sure:\n```json\n{"name": "Ada", "age": 36}\n```')
    completion = client.chat.completions.parse(model="gpt-5", messages=HI, response_format=Person)

    assert Person(name="Ada", age=36) == completion.choices[0].message.parsed


def test_json_object(client, site):
    """The JSON mode returns JSON."""
    site.server.reply_with('{"a": 1}')

    assert '{"a": 1}' == create(client, response_format={"type": "json_object"}).choices[0].message.content


def test_image(client, site):
    """Images and roles of OpenAI are sent on."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = [
        {"role": "developer", "content": "Be brief"},
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]},
    ]
    create(client, messages=messages)

    assert ["system", "user"] == [message["role"] for message in site.server.requests[0].json["messages"]]
    assert image == site.server.requests[0].json["messages"][1]["content"][1]


def test_models(client):
    """The models are valid."""
    assert "gpt-5" in [model.id for model in client.models.list()]
    assert "gpt-5" == client.models.retrieve("gpt-5").id
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-55")


@pytest.mark.parametrize(
    "status, kind",
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (402, openai.RateLimitError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (502, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(client, site, status, kind, stream):
    """Each error has its class, and is not sent again."""
    paths = 2 if stream and status == 404 else 1  # the SDK tries the other path of streams
    site.server.fail(status, paths)
    with pytest.raises(kind) as caught:
        create(client, stream=stream)

    assert paths == len(site.server.requests)
    assert "message" in caught.value.body
    if status == 402:
        assert ("insufficient_quota", "insufficient_quota") == (caught.value.code, caught.value.type)


def test_tools(client):
    """Tools are refused."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    with pytest.raises(openai.BadRequestError) as caught:
        create(client, tools=[tool])

    assert ("tools", "unsupported_parameter") == (caught.value.param, caught.value.code)


def test_cut_stream(client, site):
    """A stream that breaks raises after the text that arrived."""
    site.server.cut(after_events=3)
    texts = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in create(client, stream=True):
            texts.append(chunk.choices[0].delta.content or "")

    assert "stream_interrupted" == caught.value.code
    assert "You said: Hi".startswith("".join(texts))
    assert any(texts)


def test_wrong_token(server):
    """A wrong token is the error of a wrong key."""
    with in_thread(server, token="x" * 20) as site:
        with openai.OpenAI(base_url=site.url, api_key="y" * 20) as wrong, pytest.raises(openai.AuthenticationError):
            create(wrong)
        with openai.OpenAI(base_url=site.url, api_key="x" * 20) as right:
            assert create(right).choices


def test_timeout_is_paid_for_once(site):
    """A client that times out and repeats its request automatically gets the text of the first one."""
    site.server.delay(1.5)
    with openai.OpenAI(base_url=site.url, api_key="none", timeout=0.7, max_retries=5) as client:
        completion = create(client)

    assert "You said: Hi" == completion.choices[0].message.content
    assert [completion.id] == [f"chatcmpl-{bill.id}" for bill in site.server.billed]


def test_rate_limit_is_waited_for(client, site):
    """A rate limit of the account is waited for by the gateway."""
    site.server.fail(429, retry_after=0.2)

    assert "You said: Hi" == create(client).choices[0].message.content


# ------------------------------------------------------------------------------------------------------------- async


async def test_async(async_client):
    """The async client gets whole completions and streams, many at the same time."""
    completions = await asyncio.gather(*(create(async_client) for _ in range(20)))
    stream = await create(async_client, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]

    assert {"You said: Hi"} == {completion.choices[0].message.content for completion in completions}
    assert "You said: Hi" == "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.total_tokens > 0


async def test_async_errors(async_client, site):
    """The async client raises the same errors."""
    site.server.fail(402)
    site.server.cut(after_events=3)
    with pytest.raises(openai.RateLimitError):
        await create(async_client)
    with pytest.raises(openai.APIError):
        _ = [chunk async for chunk in await create(async_client, stream=True)]


async def test_async_client_that_leaves(async_client, site):
    """Closing a stream early closes that of the API."""
    site.server.stall(3)
    stream = await create(async_client, stream=True)
    await anext(aiter(stream))
    await stream.close()

    await site.server.wait_for_disconnect_async(60)
