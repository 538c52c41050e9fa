"""Conversations: generations and pydantic models among the messages, and generations as dicts."""

from __future__ import annotations

import enum
import json

import pytest

from neuralbox_async import AsyncNeuralBox, GenerateRequest, Generation, InvalidParameterError, Message, TextPart
from neuralbox_async._wire.events import decode_event
from neuralbox_async._wire.responses import decode_generation
from neuralbox_async.testing import FakeResponse, FakeTransport, NeuralBoxServer
from neuralbox_sync import NeuralBox

pydantic = pytest.importorskip("pydantic")


class Role(enum.Enum):
    USER = "user"


class Turn(pydantic.BaseModel):
    """A turn as applications define it: with members that may be absent."""

    role: Role = Role.USER
    content: str | list[Part]
    name: str | None = None


class Part(pydantic.BaseModel):
    type: str = "text"
    text: str


@pytest.fixture
def server():
    with NeuralBoxServer() as server:
        yield server


ASSISTANT = {"role": "assistant", "content": "You said: Hi"}
TURNS = [{"role": "user", "content": "Hi"}, ASSISTANT, {"role": "user", "content": "And?"}]


async def test_a_generation_is_the_turn_of_the_assistant(server):
    """A generation in a list of messages is sent as the assistant's text, by `generate`, streams and batches."""
    async with AsyncNeuralBox(**server.client_options) as client:
        messages = [Message("user", "Hi"), await client.generate("gpt-5", "Hi"), {"role": "user", "content": "And?"}]
        await client.generate("gpt-5", messages)
        async with client.stream("gpt-5", messages) as stream:
            await stream.get_final_generation()
        async with client.generate_many([{"messages": messages}], model="gpt-5") as results:
            assert [None] == [result.error async for result in results]

    assert [TURNS] * 3 == [request.json["messages"] for request in server.requests[1:]]


def test_a_conversation_in_blocking_code(server):
    """A conversation is a list to which the user's texts and the replies are added."""
    with NeuralBox(**server.client_options) as client:
        history = [Message("user", "Hi")]
        history.append(client.generate("gpt-5", history))
        with client.stream("gpt-5", [*history, Message("user", "And?")]) as stream:
            assert stream.get_final_generation().completed

    assert TURNS == server.requests[1].json["messages"]


def test_the_text_of_a_stream_that_broke():
    """The text so far of a stream is a turn as well."""
    request = GenerateRequest("gpt-5", [Generation(status="incomplete", content="Once")])

    assert (Message("assistant", "Once"),) == request.messages


@pytest.mark.parametrize("generation", [Generation(id=1, status="pending"), Generation(status="failed", error="x")])
def test_a_generation_without_text(generation):
    """A generation without text is no turn: a pending one was not waited for."""
    with pytest.raises(InvalidParameterError, match=r"messages\[\] must be a generation that has text, not Generation"):
        GenerateRequest("gpt-5", [generation])


PARTS = [{"type": "text", "text": "Hi"}]


@pytest.mark.parametrize(
    "messages, content",
    [
        ([Turn(content="Hi")], "Hi"),
        (Turn(content="Hi"), "Hi"),
        ((Turn(content=text) for text in ["Hi"]), "Hi"),
        ([Turn(content=[Part(text="Hi")])], PARTS),
        ([{"role": "user", "content": [Part(text="Hi")]}], PARTS),
    ],
    ids=["list", "alone", "generator", "parts", "part in a dict"],
)
async def test_pydantic_models(messages, content):
    """A model is taken for its members: without those that are None, and enums as their values."""
    transport = FakeTransport({"id": 1, "status": "completed", "content": "x"})
    async with AsyncNeuralBox("key", transport=transport) as client:
        await client.generate("gpt-5", messages)

    assert [{"role": "user", "content": content}] == transport.requests[0].json["messages"]


def test_members_that_are_no_part_of_a_message():
    """Further members of a model are sent, as those of a dict are."""
    (message,) = GenerateRequest("gpt-5", Turn(content="Hi", name="Ivan")).messages

    assert Message("user", "Hi", extra={"name": "Ivan"}) == message
    assert (Message("user", (TextPart("Hi"),)),) == GenerateRequest("gpt-5", [Turn(content=[Part(text="Hi")])]).messages


def test_a_model_that_is_no_message():
    """A model without the members of a message has the error of such a dict."""
    with pytest.raises(InvalidParameterError, match="content must be"):
        GenerateRequest("gpt-5", [Part(text="Hi")])


def generation(**members):
    return decode_generation(200, {}, json.dumps({"id": 1, "status": "completed", "content": "Hi", **members}).encode())


def test_to_dict():
    """`to_dict` has each attribute but *raw*, as values that JSON has."""
    members = generation(
        usage={"total_tokens": 3}, created_at="2026-03-08T12:00:00Z", metadata={"a": [1]}, tokens_used="many"
    ).to_dict()

    assert members == json.loads(json.dumps(members))
    assert "raw" not in members
    assert (1, "Hi", None) == (members["id"], members["content"], members["tokens_used"])
    assert {"prompt_tokens": None, "completion_tokens": None, "total_tokens": 3} == members["usage"]
    assert "2026-03-08T12:00:00+00:00" == members["created_at"]
    assert ({"a": [1]}, ["$.tokens_used"]) == (members["metadata"], members["problems"])


@pytest.mark.parametrize("name", ["finish_reason", "stop_reason"])
def test_finish_reason(name):
    """`finish_reason` is what the API sends under one of the usual names, in a response or at the end of a stream."""
    assert "length" == generation(**{name: "length"}).finish_reason
    assert "length" == decode_event(json.dumps({"type": "generation_end", "id": 1, name: "length"})).finish_reason


def test_no_finish_reason():
    """It is None when the API sends none, and when it is malformed, which `problems` names."""
    assert generation().finish_reason is None
    malformed = generation(finish_reason=["length"])
    assert (None, ("$.finish_reason",)) == (malformed.finish_reason, malformed.problems)


@pytest.mark.parametrize("streamed", [True, False], ids=["events", "JSON instead of events"])
async def test_finish_reason_of_a_stream(streamed):
    """The generation of a stream has the finish reason of its terminal event, or of the response instead of events."""
    end = b'data: {"type": "generation_end", "id": 1, "finish_reason": "length"}\n\n'
    events = FakeResponse(end, headers={"content-type": "text/event-stream"})
    whole = {"id": 1, "status": "completed", "content": "Hi", "finish_reason": "length"}
    async with AsyncNeuralBox("key", transport=FakeTransport(events if streamed else whole)) as client:
        async with client.stream("gpt-5", "Hi") as stream:
            assert "length" == (await stream.get_final_generation()).finish_reason
