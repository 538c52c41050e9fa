"""Numbers of other libraries, such as numpy's, as parameters of a request."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import pytest

from neuralbox_async import GenerateRequest, InvalidParameterError
from neuralbox_async._call import parsing
from neuralbox_async._wire import endpoints

numpy = pytest.importorskip("numpy")

INTEGERS = [numpy.int64(5), numpy.uint8(5), numpy.int32(5)]
FLOATS = [numpy.float64(0.5), numpy.float32(0.5), numpy.float16(0.5), Fraction(1, 2)]


def body_of(**settings):
    """Return the body of a single call with *settings*, which is also that of a request of a batch."""
    options = {"system": None, "temperature": None, "max_tokens": None, **settings}
    single = endpoints.generate_from("m", "Hi", **options, extra_body=None, headers={}).body
    assert single == endpoints.generate(GenerateRequest("m", "Hi", **settings), {}).body
    return json.loads(single)


@pytest.mark.parametrize("number", INTEGERS, ids=repr)
def test_integers(number):
    """A numpy integer is sent as an integer."""
    assert 5 == body_of(max_tokens=number)["max_tokens"]
    assert 1 == body_of(temperature=type(number)(1))["temperature"]
    assert int is type(GenerateRequest("m", "Hi", max_tokens=number).max_tokens)


@pytest.mark.parametrize("number", INTEGERS, ids=repr)
@pytest.mark.parametrize(
    "place", [lambda number: (number, None), lambda number: (None, {"max_tokens": number})], ids=["argument", "body"]
)
def test_the_limit_of_a_text(number, place):
    """A numpy integer as max_tokens bounds a text: a number at its end may have been cut."""
    assert 5 == parsing.token_limit(*place(number))


@pytest.mark.parametrize("number", FLOATS, ids=repr)
def test_floats(number):
    """A numpy number is sent as a number."""
    assert 0.5 == body_of(temperature=number)["temperature"]
    assert float is type(GenerateRequest("m", "Hi", temperature=number).temperature)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_tokens": numpy.float64(5)},
        {"max_tokens": numpy.int64(0)},
        {"max_tokens": numpy.bool_(True)},
        {"temperature": numpy.float64(math.nan)},
        {"temperature": numpy.int64(3)},
        {"temperature": numpy.bool_(True)},
        {"temperature": Fraction(10**400)},
        {"temperature": numpy.array([0.5])},
        {"key": numpy.float64(1)},
        {"key": numpy.bool_(True)},
        {"key": True},
        {"key": (1, 2)},
        {"key": 1.0},
    ],
    ids=repr,
)
def test_refused(settings):
    """Numbers that are out of range or of the wrong kind are refused like Python's."""
    with pytest.raises(InvalidParameterError):
        GenerateRequest("m", "Hi", **settings)


@pytest.mark.parametrize("key", [1, 0, -7, 2**64, numpy.int64(1), numpy.uint64(2**63), numpy.str_("a"), "a"], ids=repr)
def test_keys(key):
    """A key is kept as it was given: a string or an integer, also numpy's."""
    assert key is GenerateRequest("m", "Hi", key=key).key
