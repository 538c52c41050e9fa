"""Items and options that are odd: each bad item is a failed result, each bad option an `InvalidParameterError`."""

from __future__ import annotations

import asyncio
import gc
import math

import pytest
from priced_requests import without_price
from transports import FunctionTransport, prompt_of, results_of

from neuralbox_async import AsyncNeuralBox, GenerateRequest, InvalidParameterError
from neuralbox_async._batch.options import BatchOptions
from neuralbox_async._validation import check_backoff, check_rate

pytestmark = pytest.mark.usefixtures("no_task_left")

METHODS = ["__repr__", "__str__", "__eq__", "__ne__", "__hash__", "__bool__", "__len__", "__format__", "encode", "get"]


def broken(base, *, without=()):
    """Return a class derived from *base* whose methods all raise."""

    def fail(*_arguments, **_options):
        raise ZeroDivisionError("a method of a value")

    return type("Broken", (base,), {name: fail for name in METHODS if name not in without})


class LazyMapping(dict):
    """A mapping whose values cannot be read."""

    def items(self):
        raise LookupError("no connection to the database")

    def get(self, *_):
        raise LookupError("no connection to the database")

    def __iter__(self):
        raise LookupError("no connection to the database")


class Nothing:
    """An object whose class cannot be asked for."""

    @property
    def __class__(self):
        raise RuntimeError("no class")


DEEP = []
gc.disable()  # it would look through all of them many times, which takes a second in each process
for _ in range(1_000_000):  # CPython 3.14 can encode 10,000
    DEEP = [DEEP]
gc.enable()

BAD = {
    "object": broken(object)(),
    "dict": broken(dict)(prompt=5),
    "lazy mapping": LazyMapping(prompt="x"),
    "no class": Nothing(),
    "prompt": {"prompt": broken(object)()},
    "prompt int": {"prompt": broken(int)(5)},
    "key": {"prompt": "x", "key": broken(object)()},
    "huge key": {"prompt": "x", "key": 10**5000},
    "huge temperature": {"prompt": "x", "temperature": 10**400},
    "nan": {"prompt": "x", "temperature": math.nan},
    "huge max_tokens": {"prompt": "x", "max_tokens": 10**5000},
    "extra body": {"prompt": "x", "extra_body": {"metadata": broken(object)()}},
    "extra body deep": {"prompt": "x", "extra_body": {"metadata": DEEP}},
    "extra body mapping": {"prompt": "x", "extra_body": LazyMapping(a=1)},
    "extra body huge": {"prompt": "x", "extra_body": {"seed": 10**5000}},
    "extra body names": {"prompt": "x", "extra_body": {5: 6}},
    "extra": GenerateRequest("m", "x", extra_body={"a": broken(object)()}),
    "messages": {"messages": broken(object)()},
    "parts": {"messages": [{"role": broken(object)(), "content": [broken(object)()]}]},
    "surrogate": {"prompt": "\ud800"},
    "bytes": b"x",
    "none": None,
    "huge": 10**5000,
    "type": int,
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("with_journal", [False, True])
async def test_bad_items(make, journal, name, with_journal):
    """One bad item is one failed result, which costs nothing; the others are generated."""
    client, transport = make()
    options = {"journal": journal} if with_journal else {}
    results = await results_of(client.generate_many(["a", BAD[name], "b"], model="m", ordered=True, **options))

    assert [None, InvalidParameterError, None] == [r.error and type(r.error) for r in results]
    assert (0, "no", 0) == (results[1].tokens_used, results[1].error.billed, results[1].attempts)
    assert isinstance(results[1].key, str)
    assert repr(results[1].error) == f"InvalidParameterError({results[1].error.message!r})"
    assert ["a", "b"] == [prompt_of(request) for request in transport.requests]


@pytest.mark.parametrize("with_journal", [False, True])
async def test_strings_with_broken_methods(make, journal, with_journal):
    """A string of a class whose methods do not work is sent as its text."""
    client, transport = make(without_price)
    odd = broken(str, without=("encode", "__len__", "__bool__", "__str__"))
    options = {"journal": journal} if with_journal else {}
    items = [{"prompt": "x", "key": odd("k")}, {"prompt": "y", "model": odd("other")}, "z"]
    results = await results_of(client.generate_many(items, model="m", ordered=True, budget=50, **options))

    assert 3 == len(results)
    for result in results:
        assert result.error is None or isinstance(result.error, InvalidParameterError)
    assert results[2].error is None
    assert len(transport.requests) >= 1


async def test_what_is_no_error(make):
    """An exception of an item's method that is not an error, such as a cancellation, is not taken for a bad item."""

    class Item(dict):
        def get(self, *_):
            raise asyncio.CancelledError

    client, _ = make()
    with pytest.raises(RuntimeError, match="cancelled"):
        await results_of(client.generate_many([Item(prompt="x")], model="m"))


# ------------------------------------------------------------------------------------------------------------- options


def respond(request):
    """Respond to any request."""
    return {"token_balance": 50} if request["method"] == "GET" else without_price(request)


HUGE = [10**400, 10**5000, -(10**400), math.nan, math.inf, -math.inf, 0, -1, True, False, "5", b"5", 1j, [], {}]


@pytest.mark.parametrize("value", [*HUGE, *(broken(base)() for base in (object, int, float, str))], ids=range(19))
@pytest.mark.parametrize("name", ["max_rate", "max_concurrency", "budget", "limit_to_balance", "ordered", "journal",
                                  "on_unknown", "on_progress", "timeout"])  # fmt: skip
async def test_options(make, name, value):
    """Each option either is accepted, and the batch runs, or raises `InvalidParameterError` before anything is sent."""
    client, transport = make(respond, max_retries=0)
    if name == "journal" and isinstance(value, str):
        pytest.skip("a path")
    try:
        batch = client.generate_many(["a"], model="m", **{name: value})
    except InvalidParameterError as error:
        assert error.parameter in {name, "timeout"}
        assert [] == transport.requests
        return
    async with asyncio.timeout(10):
        assert 1 == len(await results_of(batch))


@pytest.mark.parametrize("value", [2**63 - 1, 2**40, 10**6])
@pytest.mark.parametrize("name", ["max_rate", "max_concurrency", "budget"])
async def test_large_options(name, value):
    """Numbers up to 64 bits are accepted, alone and together with a rate."""
    client = AsyncNeuralBox("nb-key", transport=FunctionTransport(respond))
    batch = client.generate_many(map(str, range(20)), model="m", **{"max_rate": 1e9, name: value})
    async with asyncio.timeout(10):
        assert 20 == len(await results_of(batch))


@pytest.mark.parametrize("rate", [10**400, 2**63, math.inf, math.nan, 0.0, -0.5, True])
def test_rates(rate):
    """A rate is a number above 0 of at most 64 bits."""
    with pytest.raises(InvalidParameterError):
        check_rate("max_rate", rate)
    with pytest.raises(InvalidParameterError):
        BatchOptions(max_rate=rate)


def test_backoffs():
    """A time that no float can hold is refused."""
    assert math.inf == check_backoff("backoff", math.inf)
    with pytest.raises(InvalidParameterError):
        check_backoff("backoff", 10**400)
