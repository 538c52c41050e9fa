"""Reruns of typed batches: a text that is paid for is never generated again, valid or not."""

from __future__ import annotations

import attrs
import pytest
from journals import entries, opened_and_closed
from transports import CONNECTION_RESET, results_of
from typed_answers import Word, answer, priced_answer, tries_in

from neuralbox_async import (
    BudgetReachedError,
    OutcomeUnknownError,
    ParsingError,
    ProviderError,
    RequestChangedError,
)
from neuralbox_async._call import parsing

pytestmark = pytest.mark.usefixtures("no_task_left")


@attrs.frozen
class Other:
    """Another type of value, with fewer fields."""

    text: str


def rows(*prompts):
    """Return requests with keys."""
    return [{"key": f"row {number}", "prompt": prompt} for number, prompt in enumerate(prompts)]


@pytest.fixture
def generate(make, journal):
    """Run a typed batch with the journal, and return its results, its report and the requests that were sent."""

    async def generate(requests, respond=answer, **options):
        client, transport = make(respond, max_retries=0)
        options = {"output_type": Word, "model": "m", "journal": journal, "ordered": True, **options}
        batch = client.generate_many(requests, **options)
        results = await results_of(batch)
        return results, batch.report, transport.requests

    return generate


@pytest.mark.parametrize("keyed", [False, True])
async def test_cut_anywhere(generate, journal, keyed):
    """Wherever a crash cuts the journal, the rerun sends exactly the tries that it lacks, and has the same values."""
    prompts = ["red", "blue-1", "green-2"]
    requests = rows(*prompts) if keyed else prompts
    first, _, sent = await generate(requests, max_repairs=2, max_concurrency=1)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert (6, 13) == (len(sent), len(lines))

    for count in range(1, 1 + len(lines)):
        journal.write_bytes(b"".join(lines[:count]))
        paid = len(entries(journal, "done")) + len(entries(journal, "invalid"))
        again, report, sent_again = await generate(
            requests, max_repairs=2, include_done=True, on_unknown="retry", max_concurrency=1
        )
        assert [result.value for result in first] == [result.value for result in again]
        assert [result.tokens_used for result in first] == [result.tokens_used for result in again]
        assert [result.attempts for result in first] == [result.attempts for result in again]
        assert (6 - paid, 6 - paid, paid) == (len(sent_again), report.tokens_used, report.tokens_used_before)
        assert sent[paid]["messages"] == sent_again[0]["messages"] if paid < 6 else not sent_again


async def test_earlier_values(generate):
    """With *include_done*, values are parsed from the journal, with the tokens of all their generations."""
    await generate(rows("red", "blue-1"))
    results, report, sent = await generate(rows("red", "blue-1"), include_done=True)

    assert [Word("red", 3), Word("blue", 4)] == [result.value for result in results]
    assert [(True, 1), (True, 2)] == [(result.from_journal, result.tokens_used) for result in results]
    assert (0, 2, 0, 3, []) == (report.tokens_used, report.skipped, report.completed, report.tokens_used_before, sent)


async def test_an_invalid_text_of_an_earlier_run(generate):
    """A text that stayed invalid is the result of each rerun, at no cost; more repairs continue with it."""
    await generate(rows("red-2"))
    for _ in range(2):
        (result,), report, sent = await generate(rows("red-2"))
        assert (ParsingError, 2, True) == (type(result.error), len(result.error.generations), result.from_journal)
        assert (2, 0, 2, 1, []) == (
            result.tokens_used,
            report.tokens_used,
            report.tokens_used_before,
            report.failed,
            sent,
        )
    (result,), report, sent = await generate(rows("red-2"), max_repairs=2)
    assert (Word("red", 3), 3, 1, 2) == (result.value, result.tokens_used, report.tokens_used, tries_in(sent[0]))
    assert (3, False) == (result.attempts, result.from_journal)


async def test_a_repair_that_was_not_billed(generate):
    """After a failure that is not billed, the rerun sends the repair, and not the first request."""
    failed = ProviderError("500", status_code=500, code="provider_error")
    await generate(rows("red-1"), lambda request: failed if tries_in(request) else answer(request))
    (result,), report, sent = await generate(rows("red-1"))

    assert (Word("red", 3), [1], 1) == (result.value, list(map(tries_in, sent)), report.tokens_used)


async def test_a_repair_that_may_be_billed(generate):
    """A repair without a response is unknown; it is sent again only if that is wished, with its own key."""
    (lost,), report, sent = await generate(
        rows("red-1"), lambda request: CONNECTION_RESET if tries_in(request) else answer(request)
    )
    assert (ParsingError, 1) == (type(lost.error), report.unknown)
    (result,), report, unsent = await generate(rows("red-1"))
    assert (OutcomeUnknownError, [], ("row 0",)) == (type(result.error), unsent, report.unknown_keys)
    (result,), report, sent_again = await generate(rows("red-1"), on_unknown="retry")
    assert (Word("red", 3), 1) == (result.value, report.tokens_used)
    assert sent[1]["headers"]["Idempotency-Key"] == sent_again[0]["headers"]["Idempotency-Key"]
    assert sent[1]["messages"] == sent_again[0]["messages"]


async def test_a_pending_repair(generate, journal, poll_every):
    """A repair that the API accepted is polled, and its text parsed."""
    poll_every(0.001)
    await generate(rows("red-1"), max_repairs=0)
    with journal.open("ab") as file:
        file.write(b'{"event":"start","key":"row 0","idempotency_key":"1","model":"m","reserved":null,"at":1.5}\n')
        file.write(b'{"event":"pending","key":"row 0","at":1.5,"id":"gen_7"}\n')
    done = {"id": "gen_7", "status": "completed", "content": '{"text": "red", "length": 3}', "tokens_used": 1}
    (result,), report, sent = await generate(rows("red-1"), lambda _request: done)

    assert (Word("red", 3), 2, 1) == (result.value, result.tokens_used, report.tokens_used)
    assert ["GET"] == [request["method"] for request in sent]


async def test_other_instructions(generate, monkeypatch):
    """Another wording of the instructions, as of another version of the SDK, makes no request another one."""
    prompts = ["red", "blue-1"]
    await generate([*rows(*prompts), *prompts])
    monkeypatch.setattr(parsing, "_INSTRUCTIONS", "Please: ")
    results, report, sent = await generate([*rows(*prompts), *prompts], include_done=True)

    assert ([], 4) == (sent, report.skipped)
    assert [Word("red", 3), Word("blue", 4)] * 2 == [result.value for result in results]


async def test_another_type(generate):
    """Another type makes a request another one: without a key it is new, and with a key it has changed."""
    await generate(["red"])
    (result,), _, sent = await generate(["red"], output_type=Other)
    assert ("ParsingError", 2) == (type(result.error).__name__, len(sent))  # it has a member too many

    await generate(rows("red"))
    with pytest.raises(RequestChangedError):
        await generate(rows("red"), output_type=Other)
    skipped, report, sent = await generate(rows("red"), output_type=Other, on_changed="skip")
    assert ([], 1, []) == (skipped, report.skipped, sent)
    (result,), _, sent = await generate(rows("red"), output_type=Other, on_changed="skip", include_done=True)
    assert (ParsingError, 1, []) == (type(result.error), result.tokens_used, sent)
    _, _, sent = await generate(rows("red"), output_type=Other, on_changed="retry")
    assert 2 == len(sent)


@pytest.mark.parametrize("output_type, value", [(Other, None), (dict[str, object], {"text": "red", "length": "long"})])
async def test_an_invalid_text_and_another_type(generate, output_type, value):
    """With ``on_changed="skip"``, an invalid text is parsed as the other type, and not repaired."""
    await generate(rows("red-1"), max_repairs=0)
    options = {"output_type": output_type, "max_repairs": 5}
    with pytest.raises(RequestChangedError):
        await generate(rows("red-1"), **options)
    (result,), report, sent = await generate(rows("red-1"), on_changed="skip", **options)

    assert (value, 1, 0, []) == (result.value, result.tokens_used, report.tokens_used, sent)
    assert (ParsingError if value is None else type(None)) is type(result.error)


async def test_without_a_type(generate):
    """Without a type, any text is the result: it is paid for."""
    await generate(rows("red-1"), max_repairs=0)
    (result,), _, sent = await generate(rows("red-1"), output_type=None, on_changed="skip")

    assert ('{"text": "red", "length": "long"}', True, []) == (result.unwrap().content, result.from_journal, sent)


async def test_a_changed_request(generate, journal):
    """A changed prompt with the same key begins anew: the invalid text of the other one is not repaired."""
    await generate(rows("red-1"), max_repairs=0)
    (result,), report, sent = await generate(rows("blue-1"), on_changed="retry")

    assert (Word("blue", 4), [0, 1], 2, 1) == (
        result.value,
        list(map(tries_in, sent)),
        result.tokens_used,
        report.tokens_used_before,
    )
    (result,), _, sent = await generate(rows("blue-1"), include_done=True)
    assert (Word("blue", 4), 2, []) == (result.value, result.tokens_used, sent)
    assert 3 == opened_and_closed(journal).spent


async def test_the_budget_of_reruns(generate, journal):
    """Invalid texts count in the budget of all runs, each at its own price."""
    await generate(rows("red-1", "blue"), priced_answer, max_repairs=0)
    state = opened_and_closed(journal)
    assert (10, {"m": 5}) == (state.spent, state.prices)

    _, report, sent = await generate(rows("red-1", "blue"), priced_answer, budget=14)
    assert (BudgetReachedError, 0, 10) == (type(report.stopped_by), report.tokens_used, report.tokens_used_before)
    assert all("messages" not in request for request in sent)
    (result,), report, _ = await generate(rows("red-1", "blue"), priced_answer, budget=15)
    assert (Word("red", 3), 10, 15) == (result.value, result.tokens_used, report.tokens_used_total)


async def test_an_unreadable_text(generate, journal):
    """An invalid line without a readable generation is a failed result: nothing is paid for again."""
    await generate(rows("red-1"), max_repairs=0)
    journal.write_bytes(journal.read_bytes().replace(b'"generation":{', b'"generation":5,"x":{'))
    (result,), _, sent = await generate(rows("red-1"))

    assert ("JournalError", []) == (type(result.error).__name__, sent)
