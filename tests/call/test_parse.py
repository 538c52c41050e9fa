"""`parse`: the conversation until there is a valid value, what it may cost, and what an error keeps."""

from __future__ import annotations

import asyncio
import json
import pickle

import attrs
import pytest

from neuralbox_async import (
    APIConnectionError,
    AsyncNeuralBox,
    InsufficientTokensError,
    InvalidParameterError,
    Message,
    ParsingError,
    RateLimitError,
)
from neuralbox_async._call import polling
from neuralbox_async.testing import FakeTransport, NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")


@attrs.frozen
class City:
    """A city of the world."""

    name: str
    population: int = attrs.field(validator=attrs.validators.ge(0), metadata={"description": "of the city proper"})


VALID = '{"name": "Oslo", "population": 717710}'
INVALID = '{"name": "Oslo", "population": "many"}'
PRICE = 5


@pytest.fixture
def server():
    with NeuralBoxServer(prices={"gpt-5": PRICE}) as server:
        yield server


@pytest.fixture
async def client(server):
    async with AsyncNeuralBox(**server.client_options) as client:
        yield client


def bodies(server):
    return [request.json for request in server.requests]


async def test_a_valid_text(server, client):
    """A valid text is one generation; the schema, with descriptions, is in the system message."""
    server.reply_with(f"Here it is:\n```json\n{VALID}\n```")

    result = await client.parse("gpt-5", "The capital of Norway?", City, system="Be brief.", temperature=0.0)

    assert City("Oslo", 717710) == result.value
    assert (result.generation,) == result.attempts
    assert PRICE == result.tokens_used
    (body,) = bodies(server)
    instructions, _, schema = body["system"].rpartition("\n\n")
    assert instructions.startswith("Be brief.\n\n")
    assert "A city of the world." == json.loads(schema)["description"]
    assert "of the city proper" == json.loads(schema)["properties"]["population"]["description"]
    assert ([{"role": "user", "content": "The capital of Norway?"}], 0.0) == (body["messages"], body["temperature"])


async def test_a_repair(server, client):
    """After an invalid text, the conversation goes on with it and its problems."""
    server.reply_with(INVALID, VALID)

    result = await client.parse("gpt-5", iter([Message("user", "Norway?")]), City)

    assert City("Oslo", 717710) == result.value
    assert [INVALID, VALID] == [generation.content for generation in result.attempts]
    assert 2 * PRICE == result.tokens_used == sum(bill.tokens_used for bill in server.billed)
    first, second = bodies(server)
    assert first["system"] == second["system"]
    assert ["Norway?", INVALID] == [message["content"] for message in second["messages"][:-1]]
    assert ["user", "assistant", "user"] == [message["role"] for message in second["messages"]]
    assert "$.population: expected an integer, got a string 'many'" in second["messages"][-1]["content"]


SURROGATE = '{"name": "Oslo", "population": 717710, "\\ud800": 1}'


@pytest.mark.parametrize("max_repairs", [0, 1])
async def test_a_lone_surrogate_in_a_problem(server, client, max_repairs):
    """A problem at a place that UTF-8 cannot name can be sent in a repair, and loses no text."""
    server.reply_with(SURROGATE, SURROGATE)

    with pytest.raises(ParsingError) as caught:
        await client.parse("gpt-5", "Norway?", City, max_repairs=max_repairs)

    error = caught.value
    assert ((1 + max_repairs) * PRICE, SURROGATE) == (error.tokens_used, error.text)
    assert ['$["\\ud800"]'] == [problem.path for problem in error.problems]
    str(error).encode()


async def test_an_invalid_end(server, client):
    """After the last repair, the error has the text, its problems, all generations and what they cost; it pickles."""
    server.reply_with("Oslo", INVALID, VALID)

    with pytest.raises(ParsingError) as caught:
        await client.parse("gpt-5", "Norway?", City)

    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert ["Oslo", INVALID] == [generation.content for generation in error.generations]
        assert [("$.population", "expected an integer, got a string 'many'")] == [
            (problem.path, problem.reason) for problem in error.problems
        ]
        assert (INVALID, 2, 2 * PRICE, "yes", True) == (
            error.text,
            error.attempts,
            error.tokens_used,
            error.billed,
            error.request_sent,
        )
        assert error.generations[-1].id == error.generation_id
        assert "after 1 repair: $.population: expected an integer" in str(error)


@pytest.mark.parametrize("max_repairs", [0, 1, 3])
async def test_max_repairs(server, client, max_repairs):
    """There are as many repairs as were allowed."""
    server.reply_with(*["No."] * 5)

    with pytest.raises(ParsingError):
        await client.parse("gpt-5", "Norway?", City, max_repairs=max_repairs)

    assert max_repairs + 1 == len(server.billed)


@pytest.mark.parametrize("bound, generations", [(1, 1), (2 * PRICE - 1, 1), (2 * PRICE, 2), (3 * PRICE, 3), (None, 4)])
async def test_max_tokens_used(server, client, bound, generations):
    """A repair that would bring the cost above the bound is not sent."""
    server.reply_with(*["No."] * 5)

    with pytest.raises(ParsingError) as caught:
        await client.parse("gpt-5", "Norway?", City, max_repairs=3, max_tokens_used=bound)

    assert generations == len(server.billed) == len(caught.value.generations)
    assert generations == 4 or "could exceed max_tokens_used" in str(caught.value)


async def test_unknown_cost(make_client):
    """With a bound, there is no repair after a generation whose cost is unknown; the total is unknown as well."""
    transport = FakeTransport({"id": "gen_1", "status": "completed", "content": "No."})

    async with make_client(transport) as client:
        with pytest.raises(ParsingError, match="did not report") as caught:
            await client.parse("gpt-5", "Norway?", City, max_tokens_used=100)

    assert (None, "yes") == (caught.value.tokens_used, caught.value.billed)


async def test_a_repair_that_fails(server, client):
    """When a repair fails, what was paid for is in the error, whose cause is that of the repair."""
    server.reply_with(INVALID)
    server.balance = PRICE

    with pytest.raises(ParsingError, match="and the repair failed") as caught:
        await client.parse("gpt-5", "Norway?", City)

    assert isinstance(caught.value.__cause__, InsufficientTokensError)
    assert (INVALID, PRICE, "yes") == (caught.value.text, caught.value.tokens_used, caught.value.billed)


@pytest.mark.parametrize("price, billed", [(PRICE, "yes"), (0, "unknown")])
async def test_a_repair_whose_outcome_is_unknown(make_client, price, billed):
    """When it is unknown whether a repair was billed, the total is unknown; the cause is kept by pickling."""
    invalid = {"id": "gen_1", "status": "completed", "content": INVALID, "tokens_used": price}
    reset = APIConnectionError("reset", request_sent=True)

    async with make_client(FakeTransport(invalid, reset)) as client:
        with pytest.raises(ParsingError) as caught:
            await client.parse("gpt-5", "Norway?", City)

    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (None, billed, INVALID) == (error.tokens_used, error.billed, error.text)
        assert (APIConnectionError, "unknown") == (type(error.__cause__), error.__cause__.billed)


async def test_a_repair_that_is_cancelled(server, client):
    """The error of a cancellation has the text that was paid for as its cause; the repair may be billed as well."""
    server.reply_with(INVALID)
    server.delay(0)
    server.delay(60)

    call = asyncio.create_task(client.parse("gpt-5", "Norway?", City))
    await server.wait_until_async(lambda: len(server.requests) == 2, timeout=60)
    call.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await call

    error = caught.value.__cause__
    assert isinstance(error, ParsingError)
    assert (INVALID, 1, None, "yes") == (error.text, error.attempts, error.tokens_used, error.billed)
    assert "the repair was cancelled" in str(error)


async def test_no_key_for_a_repair(server):
    """When the key function fails before the repair is sent, the error has the text, and what that cost."""
    keys = iter([server.api_key])

    async def key():
        return next(keys, None) or fail()

    server.reply_with(INVALID)
    async with AsyncNeuralBox(key, base_url=server.base_url) as client:
        with pytest.raises(ParsingError, match="the vault is closed") as caught:
            await client.parse("gpt-5", "Norway?", City)

    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (INVALID, PRICE, "yes") == (error.text, error.tokens_used, error.billed)
    assert isinstance(caught.value.__cause__, OSError)


class PanicError(BaseException):
    """What a validator in another language raises for an error of its own."""


@attrs.frozen
class Panicking:
    name: str

    def __attrs_post_init__(self):
        raise PanicError


async def test_a_check_that_panics(server, client):
    """An exception that is no error of a value goes on; its cause has the text that was paid for."""
    server.reply_with('{"name": "Oslo"}')

    with pytest.raises(PanicError) as caught:
        await client.parse("gpt-5", "Norway?", Panicking)

    error = caught.value.__cause__
    assert isinstance(error, ParsingError)
    assert ('{"name": "Oslo"}', PRICE, "yes") == (error.text, error.tokens_used, error.billed)
    assert "PanicError" in str(error)


def fail():
    raise OSError("the vault is closed")


async def test_the_length_of_a_repair(server, client):
    """However many problems there are, and however long, the message about them is short."""
    name = "x" * 5000
    server.reply_with(json.dumps({f"{name}{number}": "y" * 5000 for number in range(200)}), VALID)

    await client.parse("gpt-5", "Norway?", dict[str, int] | City)

    repair = bodies(server)[1]["messages"][-1]["content"]
    assert "expected an integer, got a string" in repair
    assert len(repair) < 20 * 320 + 500


async def test_the_first_generation_fails(server, client):
    """The errors of the first generation are those of `generate`."""
    server.fail(429, retry_after=0.01)

    with pytest.raises(RateLimitError):
        await client.parse("gpt-5", "Norway?", City, max_retries=0)


@pytest.mark.long
async def test_the_time_is_for_everything(server, client):
    """A repair has only the time that is left: it ends the call when that is over, and keeps the text."""
    server.reply_with(INVALID)
    server.delay(0)
    server.delay(60)

    with pytest.raises(ParsingError) as caught:
        await client.parse("gpt-5", "Norway?", City, timeout=1)

    assert INVALID == caught.value.text
    assert caught.value.elapsed < 30


async def test_a_cut_text(server, client):
    """A text that ends at max_tokens is a problem, whatever the part of the value that is there would be."""
    server.reply_with(f"[{VALID}, {VALID}]")

    with pytest.raises(ParsingError) as caught:
        await client.parse("gpt-5", "Norway?", list[City], max_repairs=0, max_tokens=6)

    assert "the text ends before the JSON value does" == caught.value.problems[0].reason


@pytest.mark.parametrize(
    "members, options, cut",
    [
        ({"finish_reason": "length"}, {}, True),
        ({"finish_reason": "stop"}, {"max_tokens": 1}, False),
        ({"usage": {"completion_tokens": 1}}, {"max_tokens": 1}, True),
        ({"usage": {"completion_tokens": 1}}, {"max_tokens": 2}, False),
        ({"usage": {"completion_tokens": 1}}, {}, False),
        ({"usage": {"completion_tokens": 1}}, {"extra_body": {"max_tokens": 1}}, True),
        ({"usage": {"completion_tokens": 2}}, {"max_tokens": 1, "extra_body": {"max_tokens": 3}}, False),
        ({"usage": {"completion_tokens": 2}}, {"max_tokens": 1, "extra_body": {"max_tokens": None}}, False),
        ({}, {"max_tokens": 1}, False),
    ],
)
async def test_a_number_that_was_cut(make_client, members, options, cut):
    """A number at the end of a text that ends at max_tokens may have had more digits: it is a problem, no guess."""
    transport = FakeTransport(*[{"id": "gen_1", "status": "completed", "content": "12", **members}] * 2)

    async with make_client(transport) as client:
        if cut:
            with pytest.raises(ParsingError, match="ends before"):
                await client.parse("gpt-5", "How many?", int, **options)
        else:
            assert 12 == (await client.parse("gpt-5", "How many?", int, **options)).value


async def test_pending_generations(client, server, monkeypatch):
    """A generation that is pending is waited for."""
    monkeypatch.setattr(polling, "_pause", lambda _interval, _deadline: 0.01)
    server.reply_with(VALID)

    result = await client.parse("gpt-5", "Norway?", City, extra_body={"background": True}, timeout=60)

    assert "Oslo" == result.value.name


async def test_idempotency_keys(server, client):
    """Each generation has a key of its own, made from that of the caller."""
    server.reply_with(INVALID, VALID)

    await client.parse("gpt-5", "Norway?", City, idempotency_key="order-1")

    assert ["order-1", "order-1-1"] == [request.headers["Idempotency-Key"] for request in server.requests]


async def test_an_empty_text(server, client):
    """The repair of an empty text has no empty message of the assistant."""
    server.reply_with("", VALID)

    await client.parse("gpt-5", "Norway?", City)

    assert ["user", "user"] == [message["role"] for message in bodies(server)[1]["messages"]]


@pytest.mark.parametrize(
    "options",
    [
        {"output_type": bytes},
        {"output_type": dict[int, str]},
        {"max_repairs": -1},
        {"max_tokens_used": 0},
        {"messages": []},
    ],
    ids=str,
)
async def test_invalid_parameters(server, client, options):
    """An unsupported type and other invalid parameters are errors before anything is sent."""
    with pytest.raises(InvalidParameterError) as caught:
        await client.parse(**{"model": "gpt-5", "messages": "Norway?", "output_type": City, **options})

    assert (next(iter(options)), 0) == (caught.value.parameter, len(server.requests))
