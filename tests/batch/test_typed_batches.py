"""Batches with an output type: values, repairs, and invalid texts."""

from __future__ import annotations

import asyncio
import pickle

import pytest
from transports import CONNECTION_RESET, results_of
from typed_answers import Word, answer, priced_answer, prompt_in, tries_in

from neuralbox_async import (
    AuthenticationError,
    BudgetReachedError,
    GenerateRequest,
    InvalidParameterError,
    ParsingError,
    ProviderError,
    RateLimitError,
)

pytestmark = pytest.mark.usefixtures("no_task_left")


def outcomes(results):
    """Return the values of *results* by prompt, or the names of the errors."""
    return {result.item: type(result.error).__name__ if result.error else result.value for result in results}


async def test_values(make):
    """A result has the value of its text, and the tokens of its repairs."""
    client, transport = make(answer)
    batch = client.generate_many(["red", "blue-1"], model="m", output_type=Word, ordered=True)
    red, blue = await results_of(batch)

    assert (Word("red", 3), Word("blue", 4)) == (red.value, blue.value)
    assert ((1, 1), (2, 2)) == ((red.attempts, red.tokens_used), (blue.attempts, blue.tokens_used))
    assert ("gen_blue-1_1", None) == (blue.unwrap().id, blue.error)
    assert (2, 0, 3) == (batch.report.completed, batch.report.failed, batch.report.tokens_used)
    assert 3 == len(transport.requests)


async def test_the_conversation(make):
    """The schema is sent with each request, and a repair continues with the invalid text and its problems."""
    client, transport = make(answer)
    await results_of(client.generate_many(["red-1"], model="m", system="Be brief.", output_type=Word))
    first, repair = transport.requests

    assert first["system"] == repair["system"]
    assert first["system"].startswith("Be brief.")
    assert '"length"' in first["system"]
    assert ["user", "assistant", "user"] == [message["role"] for message in repair["messages"]]
    assert first["messages"] == repair["messages"][:1]
    assert "$.length" in repair["messages"][2]["content"]
    keys = [request["headers"]["Idempotency-Key"] for request in transport.requests]
    assert keys[0] != keys[1]


async def test_an_invalid_text(make):
    """A text that stays invalid is a result with all its texts; the others are not affected."""
    client, transport = make(answer)
    batch = client.generate_many(["red-3", "blue"], model="m", output_type=Word, max_repairs=2, ordered=True)
    red, blue = await results_of(batch)
    error = red.error

    assert (ParsingError, None, None, Word("blue", 4)) == (type(error), red.value, red.generation, blue.value)
    assert ('{"text": "red", "length": "long"}', ["$.length"]) == (error.text, [one.path for one in error.problems])
    assert ["gen_red-3_0", "gen_red-3_1", "gen_red-3_2"] == [generation.id for generation in error.generations]
    assert ("yes", 3, 3) == (error.billed, red.tokens_used, error.tokens_used)
    assert "after 2 repairs" in error.message
    assert ({"ParsingError": 1}, 0, 4) == (batch.report.failed_by_type, batch.report.unknown, batch.report.tokens_used)
    assert 4 == len(transport.requests)
    with pytest.raises(ParsingError):
        red.unwrap()
    assert error.text == pickle.loads(pickle.dumps(red)).error.text


@pytest.mark.parametrize("max_repairs", [0, 1])
async def test_a_lone_surrogate_in_a_problem(make, max_repairs, tmp_path):
    """A problem at a place that UTF-8 cannot name ends no batch, and is in the journal."""
    text = '{"text": "red", "length": 3, "\\ud800": 1}'
    client, transport = make(lambda request: answer(request, content=text))
    journal = tmp_path / "journal.jsonl"
    for _ in range(2):
        batch = client.generate_many(
            ["a", "b"], model="m", output_type=Word, max_repairs=max_repairs, journal=journal, include_done=True
        )
        results = await results_of(batch)

        assert [text] * 2 == [result.error.text for result in results]
        assert {1 + max_repairs} == {result.tokens_used for result in results}
    assert 0 == batch.report.unknown
    assert 2 * (1 + max_repairs) == len(transport.requests)


@pytest.mark.parametrize("options", [{"max_tokens": 1}, {"extra_body": {"max_tokens": 1}}, {"max_tokens": 2}, {}])
async def test_a_number_that_was_cut(make, options):
    """A number at the end of a text that ends at max_tokens, however that is sent, may have had more digits."""
    client, _ = make(lambda request: answer(request, content="12", usage={"completion_tokens": 1}))
    request = GenerateRequest("m", "How many?", **options)
    (result,) = await results_of(client.generate_many([request], output_type=int, max_repairs=0))

    assert (None if 1 in (options.get("max_tokens"), *options.get("extra_body", {}).values()) else 12) == result.value


@pytest.mark.parametrize("max_repairs", [0, 1, 2])
async def test_the_number_of_repairs(make, max_repairs):
    """At most *max_repairs* requests follow the first one."""
    client, transport = make(answer)
    await results_of(client.generate_many(["x-9"], model="m", output_type=Word, max_repairs=max_repairs))

    assert 1 + max_repairs == len(transport.requests)


@pytest.mark.parametrize("options", [{"output_type": asyncio.Lock}, {"output_type": Word, "max_repairs": -1}])
def test_options(make, options):
    """A type that JSON cannot have, and a negative number of repairs, are errors before anything is sent."""
    client, transport = make(answer)
    with pytest.raises(InvalidParameterError, match=list(options)[-1]):
        client.generate_many(["x"], model="m", **options)
    assert [] == transport.requests


@pytest.mark.parametrize(
    "failure, billed, unknown",
    [
        (ProviderError("500", status_code=500, code="provider_error"), "no", 0),
        (CONNECTION_RESET, "unknown", 1),
        (AuthenticationError("401", status_code=401), "no", 0),
    ],
)
async def test_a_repair_that_fails(make, failure, billed, unknown):
    """When the repair fails, the result keeps the text that was paid for, with the failure as the cause."""
    client, _ = make(lambda request: failure if tries_in(request) else answer(request), max_retries=0)
    batch = client.generate_many(["red-1"], model="m", output_type=Word)
    (result,) = await results_of(batch)

    assert (ParsingError, '{"text": "red", "length": "long"}') == (type(result.error), result.error.text)
    assert (type(failure), billed) == (type(result.error.__cause__), result.error.__cause__.billed)
    assert (None if unknown else 1) == result.tokens_used
    assert (unknown, 1) == (batch.report.unknown, batch.report.tokens_used)
    assert isinstance(batch.report.stopped_by, AuthenticationError) == isinstance(failure, AuthenticationError)


async def test_a_refused_repair(make):
    """A repair that is refused by a rate limit is sent again."""
    refusals = [RateLimitError("429", status_code=429, retry_after=0.01)]

    def respond(request):
        return refusals.pop() if tries_in(request) and refusals else answer(request)

    client, transport = make(respond)
    batch = client.generate_many(["red-1"], model="m", output_type=Word)
    (result,) = await results_of(batch)

    assert (Word("red", 3), 2, 3) == (result.value, result.tokens_used, len(transport.requests))
    assert 1 == batch.report.rate_limited


async def test_pending_generations(make, poll_every):
    """A repair may be pending, too."""
    poll_every(0.001)

    def respond(request):
        if request["method"] == "GET":
            _, prompt, tries = request["path"].rpartition("/")[2].split("_")
            roles = ["assistant"] * int(tries)
            return answer({"messages": [{"role": "user", "content": prompt}, *({"role": role} for role in roles)]})
        return answer(request, status="pending", content=None, tokens_used=None)

    client, transport = make(respond)
    (result,) = await results_of(client.generate_many(["red-1"], model="m", output_type=Word))

    assert (Word("red", 3), 2) == (result.value, result.tokens_used)
    assert ["POST", "GET", "POST", "GET"] == [request["method"] for request in transport.requests]


async def test_stopping(make):
    """After `stop` no repair is sent: the result has the text that is paid for."""
    client, transport = make(answer)
    batch = client.generate_many(["red-1"], model="m", output_type=Word)
    transport.respond = lambda request: batch.stop() or answer(request)
    (result,) = await results_of(batch)

    assert (ParsingError, 1, 1) == (type(result.error), result.tokens_used, len(transport.requests))
    assert "the batch has ended" in result.error.message


async def test_closing_while_a_repair_is_in_flight(make):
    """Closing loses no text: the result is there, and says that the repair may be billed."""
    client, transport = make(answer, delay=lambda request: 10**6 if tries_in(request) else 1)
    batch = client.generate_many(["red-1"], model="m", output_type=Word)
    async with batch:
        while len(transport.requests) < 2:
            await asyncio.sleep(0)
    (result,) = await batch.read_batch()

    assert (ParsingError, '{"text": "red", "length": "long"}') == (type(result.error), result.error.text)
    assert ("unknown", None) == (result.error.__cause__.billed, result.tokens_used)
    report = batch.report
    assert (1, (result.key,), 0, 1) == (report.unknown, report.unknown_keys, report.not_started, report.tokens_used)


# ----------------------------------------------------------------------------------------------------------- the budget


@pytest.mark.parametrize("budget, expected", [(10, Word("red", 3)), (9, "ParsingError")])
async def test_a_repair_within_the_budget(make, budget, expected):
    """A repair reserves its price as any request does; if that is not left, the batch ends with the text so far."""
    client, transport = make(priced_answer)
    batch = client.generate_many(["red-1"], model="m", output_type=Word, budget=budget)
    (result,) = await results_of(batch)

    assert expected == (result.value or type(result.error).__name__)
    assert (10 if result.value else 5) == batch.report.tokens_used == result.tokens_used
    assert isinstance(batch.report.stopped_by, BudgetReachedError) == (result.value is None)
    assert (result.error and type(result.error.__cause__)) in (None, BudgetReachedError)
    assert len(transport.requests) <= 3


@pytest.mark.parametrize("budget", range(0, 105, 15))
async def test_many_repairs_within_the_budget(make, budget):
    """However repairs and new requests compete for the budget, the batch ends, and never spends more."""
    client, transport = make(
        priced_answer, delay=lambda request: len(prompt_in(request)) if "messages" in request else 1
    )
    prompts = [f"{'x' * number}-{number % 3}" for number in range(1, 10)]
    batch = client.generate_many(prompts, model="m", output_type=Word, max_repairs=2, budget=budget + 1)
    async with asyncio.timeout(60):
        results = await results_of(batch)
    billed = 5 * sum("messages" in request for request in transport.requests)

    assert billed == batch.report.tokens_used <= budget + 1
    assert billed == sum(result.tokens_used for result in results)
    assert billed > budget - 5 or all(value != "ParsingError" for value in outcomes(results).values())
