"""Results of earlier runs, which a batch yields with *include_done*."""

from __future__ import annotations

import pytest
from journals import HEADER, entries
from transports import completed, prompt_of, results_of

from neuralbox_async import (
    APIConnectionError,
    InsufficientTokensError,
    InvalidParameterError,
    JournalError,
    ProviderError,
)
from neuralbox_sync import NeuralBox

pytestmark = pytest.mark.usefixtures("no_task_left")

FAILED = ProviderError("500", status_code=500, code="provider_error")


def rows(*prompts):
    """Return requests whose keys are the lengths of their prompts."""
    return [{"key": len(prompt), "prompt": prompt, "note": f"of {prompt}"} for prompt in prompts]


@pytest.mark.parametrize("ordered", [False, True])
async def test_all_results(make, journal, ordered):
    """A rerun yields the results of earlier runs too, with the items and keys of this one, and pays for none."""
    client, transport = make()
    first = await results_of(client.generate_many(rows("x", "xx"), model="m", journal=journal, ordered=True))
    table = rows("xxx", "xx", "x")
    batch = client.generate_many(table, model="m", journal=journal, include_done=True, ordered=ordered)
    results = await results_of(batch)

    assert {len(row["prompt"]): row["prompt"] for row in table} == {r.key: r.unwrap().content for r in results}
    assert [0, 1, 2] == sorted(result.index for result in results)
    assert all(table[result.index] is result.item for result in results)
    assert not ordered or [0, 1, 2] == [result.index for result in results]
    assert {1, 2} == {result.key for result in results if result.from_journal}
    (earlier,) = (result for result in results if result.key == 1)
    assert (first[0].generation, first[0].generation.raw) == (earlier.generation, earlier.generation.raw)
    assert (first[0].attempts, 1, None) == (earlier.attempts, earlier.tokens_used, earlier.error)
    assert first[0].request == earlier.request
    assert 3 == len(transport.requests)
    assert (2, 1, 1, 2, 3) == (
        batch.report.skipped,
        batch.report.completed,
        batch.report.tokens_used,
        batch.report.tokens_used_before,
        batch.report.tokens_used_total,
    )


async def test_prompts_without_keys(make, journal):
    """Repeated prompts without keys each get the result that is theirs."""
    client, _ = make()
    first = await results_of(client.generate_many(["x", "x", "y"], model="m", journal=journal, ordered=True))
    again = client.generate_many(["x", "x", "y"], model="m", journal=journal, ordered=True, include_done=True)

    assert [result.key for result in first] == [result.key for result in await results_of(again)]


async def test_many_results(make, journal):
    """Results of earlier runs are read as they are needed: a reader that reads nothing holds them up."""
    client, transport = make()
    prompts = [str(number) for number in range(300)]
    await results_of(client.generate_many(prompts, model="m", journal=journal))
    taken = []

    def requests():
        for prompt in prompts:
            taken.append(prompt)
            yield prompt

    batch = client.generate_many(requests(), model="m", journal=journal, include_done=True, max_concurrency=5)
    async with batch as results:
        first = await anext(results)
        assert len(taken) <= 11
        others = [result async for result in results]
    assert prompts == [result.unwrap().content for result in [first, *others]]
    assert (300, 300) == (len(transport.requests), batch.report.skipped)


async def test_results_after_the_balance(make, journal):
    """When nothing more can be sent, results of earlier runs are still yielded."""
    client, _ = make()
    await results_of(client.generate_many(rows("x", "xx"), model="m", journal=journal))
    poor, _ = make(lambda _request: InsufficientTokensError("402", status_code=402), max_retries=0)
    table = rows("xxx", "xxxx", "x", "xx")
    batch = poor.generate_many(table, model="m", journal=journal, include_done=True, max_concurrency=1)
    results = await results_of(batch)

    assert {1, 2} == {result.key for result in results if result.error is None}
    assert InsufficientTokensError is type(batch.report.stopped_by)


async def test_without_a_journal(make):
    """Without a journal there are no earlier runs."""
    client, _ = make()
    (result,) = await results_of(client.generate_many(["x"], model="m", include_done=True))

    assert (False, "x") == (result.from_journal, result.unwrap().content)


async def test_a_result_that_cannot_be_read(make, journal):
    """A done line without a generation is a failed result, which stops the batch: the text is not paid for again."""
    done = b'{"event":"done","key":"1","at":1.5,"attempts":1,"elapsed":0.5,"tokens_used":3,"generation":5}\n'
    journal.write_bytes(HEADER + done)
    client, transport = make()
    batch = client.generate_many(rows("x"), model="m", journal=journal, include_done=True)
    (result,) = await results_of(batch)

    assert (JournalError, JournalError) == (type(result.error), type(batch.report.stopped_by))
    assert [] == transport.requests


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_options(make, value):
    """*include_done* is True or False."""
    client, _ = make()
    with pytest.raises(InvalidParameterError, match="include_done"):
        client.generate_many(["x"], model="m", include_done=value)


async def test_unwrap(make):
    """`unwrap` returns the generation, or raises the error of the result."""
    client, _ = make(lambda request: FAILED if prompt_of(request) == "bad" else completed(request), max_retries=0)
    good, bad, odd = await results_of(client.generate_many(["good", "bad", 5], model="m", ordered=True))

    assert good.generation is good.unwrap()
    with pytest.raises(ProviderError) as caught:
        bad.unwrap()
    assert bad.error is caught.value
    with pytest.raises(InvalidParameterError):
        odd.unwrap()


async def test_later_versions_of_a_request(make, journal):
    """Of a key that was paid for twice, the last result counts."""
    client, _ = make()
    await results_of(client.generate_many([{"key": 1, "prompt": "x"}], model="m", journal=journal))
    again = [{"key": 1, "prompt": "changed"}]
    await results_of(client.generate_many(again, model="m", journal=journal, on_changed="retry"))
    (result,) = await results_of(client.generate_many(again, model="m", journal=journal, include_done=True))

    assert ("changed", 2) == (result.unwrap().content, len(entries(journal, "done")))


async def test_failures_are_not_done(make, journal):
    """Requests that failed in an earlier run are sent again, with *include_done* as without."""
    failing, _ = make(lambda _request: APIConnectionError("refused"), max_retries=0)
    await results_of(failing.generate_many(["x"], model="m", journal=journal))
    client, _ = make()
    (result,) = await results_of(client.generate_many(["x"], model="m", journal=journal, include_done=True))

    assert (False, "x") == (result.from_journal, result.unwrap().content)


def test_blocking(neuralbox_server, journal):
    """The blocking client yields them as well."""
    with NeuralBox(**neuralbox_server.client_options) as client:
        for _ in range(2):
            with client.generate_many(rows("x", "xx"), model="gpt-5", journal=journal, include_done=True) as results:
                assert {1, 2} == {result.key for result in results if result.unwrap().content}
    assert 2 == len(neuralbox_server.billed)
