"""Keys of requests: strings and integers, which results and reports have as they were given."""

from __future__ import annotations

import pytest
from journals import entries, opened
from transports import results_of

from neuralbox_async import APIConnectionError, InvalidParameterError, OutcomeUnknownError

pytestmark = pytest.mark.usefixtures("no_task_left")

numpy = pytest.importorskip("numpy")


@pytest.mark.parametrize("key", [1, -7, 2**70, "1", "a b", numpy.int64(1), numpy.str_("x")], ids=repr)
@pytest.mark.parametrize("with_journal", [False, True])
async def test_keys_as_given(make, journal, key, with_journal):
    """A result has the key that was given, the same object."""
    client, _ = make()
    options = {"journal": journal} if with_journal else {}
    (result,) = await results_of(client.generate_many([{"prompt": "x", "key": key}], model="m", **options))

    assert key is result.key
    if with_journal:
        assert str(key) == entries(journal, "done")[0].key


async def test_keys_in_the_report(make, journal):
    """The report, errors and the function *on_unknown* have keys as they were given."""
    client, _ = make(lambda _request: APIConnectionError("reset", request_sent=True), max_retries=0)
    rows = [{"prompt": "x", "key": 1}, {"prompt": "y", "key": "2"}]
    batch = client.generate_many(rows, model="m", journal=journal)
    await results_of(batch)
    assert {1, "2"} == set(batch.report.unknown_keys)

    seen = []
    batch = client.generate_many(rows, model="m", journal=journal, on_unknown=seen.append)
    results = await results_of(batch)
    assert [1, "2"] == seen
    assert {(1,), ("2",)} == {result.error.keys for result in results}
    with pytest.raises(OutcomeUnknownError) as caught:
        await results_of(client.generate_many(rows, model="m", journal=journal, on_unknown="raise"))
    assert {"1", "2"} == set(caught.value.keys)  # the journal has texts


async def test_keys_are_one_text(make, journal):
    """A journal holds texts: the keys 1 and "1" are the same, in one run and in the next."""
    client, transport = make()
    rows = [{"prompt": "x", "key": 1}, {"prompt": "x", "key": "1"}]
    results = await results_of(client.generate_many(rows, model="m", journal=journal, ordered=True))
    assert [None, InvalidParameterError] == [result.error and type(result.error) for result in results]
    batch = client.generate_many(rows[1:], model="m", journal=journal)
    assert [] == await results_of(batch)
    assert (1, 1) == (batch.report.skipped, len(transport.requests))


async def test_keys_of_the_journals_of_earlier_versions(make, journal):
    """A request of an earlier version's journal, which has no hashes, is never a changed one."""
    late = opened(journal)
    late.write_start("1", "k", "m", None)
    late.close()
    client, transport = make()
    (result,) = await results_of(client.generate_many([{"prompt": "x", "key": 1}], model="m", journal=journal))

    assert OutcomeUnknownError is type(result.error)
    assert [] == transport.requests
