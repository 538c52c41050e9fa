"""How often a value is validated and explained where a union, or a text, has many candidates."""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import operator
import sys
from typing import Any

import attrs
import pydantic
import pytest

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire import output_structuring, pydantic_models
from neuralbox_async._wire.output_types import output_type_of


def missing():
    return attrs.field(type=int)


CLASSES = [attrs.make_class(f"Class{i}", {f"a{i}": missing(), "b": missing()}, frozen=True) for i in range(8)]
MODELS = [pydantic.create_model(f"Model{i}", **{f"a{i}": (int, ...), "b": (int, ...)}) for i in range(8)]
ONE_OF_CLASSES: Any = functools.reduce(operator.or_, CLASSES)
ONE_OF_MODELS: Any = functools.reduce(operator.or_, MODELS)


class Counter:
    """A function that counts its calls."""

    def __init__(self, function):
        self.function = function
        self.calls = 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        return self.function(*args, **kwargs)


@pytest.fixture
def counted(monkeypatch):
    """Return a function that counts the calls of a function of a module."""

    def count(module, name):
        counter = Counter(getattr(module, name))
        monkeypatch.setattr(module, name, counter)
        return counter

    return count


def failing(output_type, text):
    with pytest.raises(InvalidOutputError) as caught:
        output_type.parse(text)
    return caught.value.problems


@pytest.mark.parametrize(
    "tp, value",
    [
        (ONE_OF_MODELS, {"b": "x"}),
        (list[ONE_OF_MODELS], [{"b": "x"}]),
        (dict[str, ONE_OF_MODELS], {"x": {"b": "x"}}),
    ],
    ids=range(3),
)
def test_each_model_validates_a_value_once(counted, tp, value):
    """However many members a union has, and in both passes, a value is encoded once, and validated once by each."""
    structured, texts = counted(pydantic_models, "_structure"), counted(pydantic_models, "_texts")

    assert failing(output_type_of(tp), json.dumps(value))
    assert (8, 1) == (structured.calls, texts.calls)


def test_the_problems_of_one_model(counted):
    """Only the problems that are reported are made."""
    problems = counted(pydantic_models, "_problems")

    assert {"$.a0", "$.b"} == {problem.path for problem in failing(output_type_of(ONE_OF_MODELS), '{"b": "x"}')}
    assert 1 == problems.calls


@pytest.mark.parametrize(
    "value, copies", [({"b": 0.5}, 0), ({"b": 5.0}, 1), ({"b": 1e16}, 1), ({"b": 1e-7}, 0), ({"b": 15}, 0)]
)
def test_copies_with_integers(counted, value, copies):
    """A value is copied for its integers with a fraction only if it has one."""
    counter = counted(pydantic_models, "_with_integers")
    failing(output_type_of(MODELS[0]), json.dumps({**value, "a0": "x"}))

    assert (copies > 0) == (counter.calls > 0)
    assert 5 == output_type_of(MODELS[0]).structure({"a0": 5.0, "b": 1e16}).a0


@pytest.mark.parametrize("tp", [ONE_OF_CLASSES, ONE_OF_MODELS])
def test_one_value_of_a_text_is_explained(monkeypatch, tp):
    """Of the values in a text that fit no type, only the problems of the longest, which is reported, are found."""
    explained = []
    explain = output_structuring.first_problems
    monkeypatch.setattr(output_structuring, "first_problems", lambda error: explained.append(error) or explain(error))

    problems = failing(output_type_of(tp), '{"b": "x"} and {"b": "longer"} and {"b": 1} ' * 20)
    assert 1 == len(explained)
    assert {"$.a0", "$.b"} == {problem.path for problem in problems}


@pytest.mark.parametrize(
    "tp, text, expected",
    [
        (list[int], 'first ["a"] then [1, 2]', [1, 2]),
        (list[int], 'first [1, 2] then ["a"]', [1, 2]),
        (list[int], "first [1] then [2, 3] and [4, 5]", [4, 5]),
        (list[int], "first\n```json\n[1, 2]\n```\nthen [3, 4]", [1, 2]),
        (list[int], 'see ["a"] and ["b", "c"] and ["d"]', ["$[0]", "$[1]"]),
        (list[int], 'see ["a", "b"] and [1, "b"]', ["$[0]", "$[1]"]),
        (list[int], 'see [1, "bb"] and ["a", "b"]', ["$[0]", "$[1]"]),
        (list[int], 'see ["a", 1] and [1, "b"]', ["$[1]"]),
        (list[int], 'see [1, "b"] and ["a", 1]', ["$[0]"]),
        (CLASSES[0], 'see {"a0": 1, "b": 2} and {"a0": 1}', CLASSES[0](1, 2)),
        (CLASSES[0], 'see {"a0": 1} and {"b": 2, "c": 3}', ["$.a0", "$.c"]),
        (CLASSES[0] | CLASSES[1], 'see {"a0": 1, "b": 2} and {"a1": 3, "b": 4}', CLASSES[1](3, 4)),
        (CLASSES[0] | CLASSES[1], 'see {"a1": 1, "c": 2} and {"b": 4}', ["$.b", "$.c"]),
    ],
)
def test_the_order_of_the_values_in_a_text(tp, text, expected):
    """The value is the best that fits, in the order of the search; the problems are those of the longest."""
    try:
        found = output_type_of(tp).parse(text)
    except InvalidOutputError as error:
        found = sorted(problem.path for problem in error.problems)

    assert expected == found


def test_a_value_that_is_structured_within_another():
    """A constructor that structures further values has no part in what is known of the outer one."""
    pair: Any = list[int] | list[str]
    inner = output_type_of(list[pair])

    def structured(_self, _attribute, value):
        for item in (1, "x") * value:
            assert [[item]] == inner.parse(json.dumps([[item]]))

    outer = attrs.make_class(
        "Outer", {"size": attrs.field(type=int, validator=structured), "x": attrs.field(type=pair)}
    )
    for items in ([1], ["x"]):
        value = [{"size": 20, "x": items}]
        assert [outer(0, items).x] == [found.x for found in output_type_of(list[outer] | list[int]).structure(value)]


def invalid_outputs():
    return [found for found in gc.get_objects() if isinstance(found, InvalidOutputError)]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="how long frames live is a detail of the interpreter")
@pytest.mark.parametrize("text", ["{}", "see {} and {}", '[{"b": 1}]'])
def test_an_invalid_value_is_freed(text):
    """Nothing of an invalid value, and of its errors, waits for the garbage collector, which may come late."""
    output_types = [output_type_of(tp) for tp in (ONE_OF_MODELS, list[ONE_OF_MODELS] | int, MODELS[0])]
    for output_type in output_types:
        failing(output_type, text)
    gc.collect()
    gc.disable()
    try:
        before = invalid_outputs()
        for output_type in output_types:
            with contextlib.suppress(InvalidOutputError):
                output_type.parse(text)
        assert len(before) == len(invalid_outputs())
    finally:
        gc.enable()
