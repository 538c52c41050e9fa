"""Damaged journals: any bytes give entries or a `JournalError`, and no key that is done is sent again."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from journals import HEADER, entries, opened, opened_and_closed, written
from transports import FunctionTransport, completed, results_of

from neuralbox_async import AsyncNeuralBox, JournalError
from neuralbox_async.testing import FakeResponse

with tempfile.TemporaryDirectory() as _folder:
    GOOD = b"".join(written(Path(_folder) / "good.jsonl"))

FOUND = {"id": "gen", "status": "completed", "content": "found"}
DEEP = b"[" * 100_000
START = b'{"event":"start","key":"a","idempotency_key":"1","model":"m","reserved":3,"at":1}\n'
PENDING = b'{"event":"pending","key":"a","id":%b}\n'
DONE = b'{"event":"done","key":"a","at":1.5,"attempts":1,"elapsed":0.5,"tokens_used":3,"generation":%b}\n'
FAILED = b'{"event":"failed","key":"a","billed":"unknown","text":%b,"body":%b}\n'
VALUES = [
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"NaN",
    b"9" * 5000,
    b'"\\ud800"',
    b'"\xff"',
    b'"\x00"',
    b'"x\\u0000\\n"',
    b"[]",
    b"{}",
    b'"text"',
    b"[" * 900 + b"]" * 900,
    DEEP,
    b'{"id":1,"content":"x"}',
    b'{"id":1,"content":"x","metadata":' + b"[" * 990 + b"]" * 990 + b"}",
    b'{"id":' + b"9" * 5000 + b',"content":"x"}',
]


def read_entries(data, path):
    """Return the entries of a journal with the content *data*; None if it raises a `JournalError` with the place."""
    path.write_bytes(data)
    try:
        found = entries(path)
    except JournalError as error:
        assert str(path) == error.path
        assert error.line is None or 1 <= error.line <= data.count(b"\n") + 1
        return None
    assert all(isinstance(entry.key, str) and isinstance(entry.event, str) for entry in found)
    return found


async def run(path):
    """Run a batch with the journal at *path*; return its results and its transport, or None after a `JournalError`."""
    transport = FunctionTransport(lambda request: FOUND if request["method"] == "GET" else completed(request))
    client = AsyncNeuralBox("nb-key", transport=transport, max_retries=0, timeout=0.2)
    requests = [{"key": key, "prompt": key} for key in ("a", "b", "c \u00e9", "new")]
    try:
        results = await results_of(client.generate_many(requests, model="m", journal=path))
    except JournalError as error:
        assert str(path) == error.path
        return None
    return results, transport


def check(data):
    """Read the journal with the content *data*, and run a batch with it: no error but `JournalError`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.jsonl"
        found = read_entries(data, path)
        outcome = asyncio.run(run(path))
        if outcome is None:
            assert data == path.read_bytes() or data == path.read_bytes() + data[len(path.read_bytes()) :]
        if outcome is None or found is None:
            return
        done = {entry.key for entry in found if entry.event == "done"}
        sent = {request["messages"][-1]["content"] for request in outcome[1].requests if request["method"] == "POST"}
        assert set() == done & sent
        read_entries(path.read_bytes(), path)


flips = st.tuples(st.just("flip"), st.integers(0, len(GOOD) - 1), st.integers(1, 255))
cuts = st.tuples(st.just("cut"), st.integers(0, len(GOOD)), st.integers(0, 40))
copies = st.tuples(st.just("copy"), st.integers(0, len(GOOD)), st.integers(0, 300))
splices = st.tuples(
    st.just("splice"),
    st.integers(0, len(GOOD)),
    st.binary(max_size=30) | st.sampled_from([b"\n", b"\x00" * 9, b"\xff", b"\r\n", b"\xef\xbb\xbf", DEEP, *VALUES]),
)
truncations = st.tuples(st.just("truncate"), st.integers(0, len(GOOD)), st.just(0))


def mutated(data, mutations):
    for kind, place, what in mutations:
        if kind == "flip":
            flipped = bytes(byte ^ what for byte in data[place : place + 1])
            data = data[:place] + flipped + data[place + 1 :]
        elif kind == "cut":
            data = data[:place] + data[place + what :]
        elif kind == "copy":
            data = data[:place] + data[place : place + what] + data[place:]
        elif kind == "splice":
            data = data[:place] + what + data[place:]
        else:
            data = data[:place]
    return data


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: HEADER + data))
@example(b"")
@example(DEEP)
@example(DEEP + b"\n")
@example(HEADER + DEEP + b"\n")
@example(b'{"event":' + DEEP + b"\n" + START)
@example(HEADER.decode().encode("utf-16"))
@example(b"\xef\xbb\xbf" + GOOD)
@example(GOOD.replace(b"\n", b"\r\n"))
@example(GOOD.replace(b"\n", b"\r"))
@example(b"\x00" * 4096)
@example(GOOD + b"\x00" * 4096)
@example(GOOD + GOOD)
@example(GOOD + START)
def test_any_bytes(data):
    """Whatever a file has: entries or a documented error, and a batch that it stops changes nothing."""
    check(data)


@given(st.lists(flips | cuts | copies | splices | truncations, min_size=1, max_size=3))
def test_any_damage(mutations):
    """However a good journal is damaged: entries or a documented error."""
    check(mutated(GOOD, mutations))


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_any_value(value):
    """Whatever value a member has: entries or a documented error."""
    for line in (PENDING % value, DONE % value, FAILED % (value, value)):
        check(HEADER + START + line)
    for old in (b'"1"', b'"m"', b"3", b'"a"', b'"start"'):
        check(HEADER + START.replace(old, value, 1))
        check(HEADER + START.replace(b'"event":"start",', b'"event": "start",').replace(old, value, 1))
    check(HEADER + DONE.replace(b"3", value, 1) % b"{}")


# ------------------------------------------------------------------------------------- what damage must not lead to


@pytest.mark.parametrize("line", [START, PENDING % b'"gen_1"', b'{"event":"failed","key":"a","billed":"no"}\n'])
def test_done_stays_done(make, journal, line):
    """A key that is done is not sent again, whatever lines of it follow."""
    done = DONE % b'{"id":1,"content":"x"}'
    journal.write_bytes(HEADER + START + done + line + done)
    found = opened(journal)
    assert (3, 2, ()) == (found.spent, found.status_of("a"), found.unresolved_keys)
    assert [] == list(found.unresolved)
    found.close()


@pytest.mark.parametrize("key", [b'"a\\nb: c"', b'"\\u00e9"', b"7", b"[]", b'""', b'"x\\u0000"'])
async def test_an_idempotency_key_that_is_no_header(make, journal, key):
    """An edited idempotency key that cannot be sent is replaced by a new one."""
    journal.write_bytes(HEADER + START.replace(b'"1"', key))
    client, transport = make()
    requests = [{"key": "a", "prompt": "x"}]
    (result,) = await results_of(client.generate_many(requests, model="m", journal=journal, on_unknown="retry"))
    assert result.error is None
    assert transport.requests[0]["headers"]["Idempotency-Key"].isascii()


@pytest.mark.parametrize("generation_id", [b'""', b'"."', b"[]", b"1.5", b"true", b'"\\ud800"', b"9" * 4000])
async def test_an_id_that_is_none(make, journal, generation_id):
    """A pending generation whose id cannot be one is unresolved, not polled."""
    journal.write_bytes(HEADER + START + PENDING % generation_id)
    try:
        assert ("a",) == opened_and_closed(journal).unresolved_keys
    except JournalError:
        assert len(generation_id) > 1000  # JSON without such numbers


# ------------------------------------------------------------------------------------------ odd responses, in a journal


@pytest.mark.parametrize("depth", [50, 99, 101, 400, 900, 1000, 1020])
@pytest.mark.parametrize("opening, closing", ["[]", ('{"x":', "}")])
async def test_a_deep_response(make, journal, depth, opening, closing):
    """The text of a response that is nested deeply is in the journal, and can be read by any program."""
    deep = opening * depth + "1" + closing * depth
    body = f'{{"id": 1, "content": "paid", "tokens_used": 2, "metadata": {{"x": {deep}}}}}'
    client, _ = make(lambda _request: FakeResponse(body.encode()))
    batch = client.generate_many(["x", "y"], model="m", journal=journal, max_concurrency=1)
    results = await results_of(batch)
    assert 2 == len(results)
    for line in journal.read_bytes().splitlines():
        json.loads(line)
    assert None is batch.report.stopped_by
    assert ["paid"] * sum(r.error is None for r in results) == [e.generation.content for e in entries(journal, "done")]
    assert [] == await results_of(client.generate_many(["x", "y"], model="m", journal=journal)) or depth > 900


@pytest.mark.parametrize("literal", ["9" * 5000, "1" + "0" * 400, str(2**70), "-" + "9" * 5000, "1e400", "NaN"])
@pytest.mark.parametrize("member", ["other", "tokens_used", "balance_remaining", "id"])
@pytest.mark.parametrize("line_break", ["", "\n"])
async def test_a_huge_number(make, journal, literal, member, line_break):
    """Whatever numbers a response has: its text, or the bytes that came, are in the journal, which stays readable."""
    body = f'{{"{member}": {literal}, {line_break}"content": "paid"}}'
    client, _ = make(lambda _request: FakeResponse(body.encode()))
    batch = client.generate_many(["x"], model="m", journal=journal)
    (result,) = await results_of(batch)
    assert None is batch.report.stopped_by
    last = entries(journal)[-1]
    if result.error is None:
        assert "paid" == result.generation.content == last.generation.content
    else:
        assert "paid" in (last.text or last.body)
    opened_and_closed(journal)
