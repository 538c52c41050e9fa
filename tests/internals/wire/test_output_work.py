"""How much work the structure of a value is, and how many problems it reports, whatever a model wrote."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import attrs
import pytest
from call_counts import calls_of

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire import output_unions
from neuralbox_async._wire.output_types import output_type_of

pytestmark = pytest.mark.long

DEPTH = 40
checked = []


@attrs.frozen
class Branch:
    children: list[Branch | Leaf]
    length: int = attrs.field(validator=lambda *_: checked.append("branch"))


@attrs.frozen
class Leaf:
    children: list[Branch | Leaf]
    color: str = attrs.field(validator=lambda *_: checked.append("leaf"))


def nested(value):
    for _ in range(DEPTH):
        value = {"children": [value], "color": "red"}
    return value


def test_recursive_unions():
    """Each part of a value is tried once as each type of a union, however deep it is."""
    checked.clear()
    leaf = output_type_of(Branch | Leaf).structure(nested({"children": [], "color": "red"}))

    assert (Leaf, DEPTH + 1) == (type(leaf), len(checked))


def test_a_misfit_in_recursive_unions():
    """So is one that fits none."""
    checked.clear()
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(Branch | Leaf).structure(nested({"children": [], "color": 5}))

    assert ([], True) == (checked, bool(caught.value.problems))


CHAIN = nested({})
WIDE = {"children": [nested({"children": [], "color": "red"})["children"][0]] * 20 + [{}], "color": "red"}


@pytest.mark.parametrize(
    "tp, value",
    [(Branch, {"children": [CHAIN] * 50}), (Branch | Leaf, WIDE), (list[Branch | Leaf], [CHAIN, WIDE, *[CHAIN] * 50])],
    ids=range(3),
)
def test_the_work_for_problems(monkeypatch, tp, value):
    """The problems of a large value in recursive unions are found in a bounded number of steps."""
    monkeypatch.setattr(output_unions, "_MAX_EXPLAINED", 50)
    output_type = output_type_of(tp)
    value = json.loads(json.dumps(value))  # no part of it is there twice

    assert calls_of(lambda: output_type.structure(value)) < 5 * len(json.dumps(value))


def test_parts_that_are_not_explained(monkeypatch):
    """Beyond a number of parts that fit no type, it is their problem that they fit none; the next value has all."""
    output_type = output_type_of(list[Branch | Leaf])
    monkeypatch.setattr(output_unions, "_MAX_EXPLAINED", 2)

    for _ in range(2):
        with pytest.raises(InvalidOutputError) as caught:
            output_type.structure(
                [{}, {"children": [], "color": "red"}, {"children": [], "color": 5}, {"color": "red"}]
            )
        assert {
            "$[0].children: a required member is missing",
            "$[0].length: a required member is missing",
            "$[2].color: expected a string, got a number 5",
            "$[3]: it fits no type of the union",
        } == set(map(str, caught.value.problems))


WRITTEN = '{"a": [{"b": 1.5, "c": null}, {"b": -2, "c": "x\\u00e9y\\n"}], "d": {"e": true, "f": []}}'
PROSE = f"I thought [hard] about {{it}}, see [1]:\n```json\n{WRITTEN}\n```\nIt's done, and {WRITTEN} as well."
PIECES = [
    *"[]{}\"',:\\`/*#- \n0eE.",
    "```",
    "\u201c",
    "\u2019",
    "\u00ab",
    "\\ud800",
    "NaN",
    "null",
    '{"',
    "['",
    "//",
    "/*",
    "*/",
]


@pytest.mark.parametrize("seed", range(10))
def test_mutations(seed):
    """Valid JSON in prose, with random changes, is a value or an error with problems, whatever the type."""
    types = [
        dict[str, Any],
        list[str],
        Branch | Leaf,
        int,
        dict[str, list[dict[str, float | str | None]] | dict[str, Any]],
    ]
    outputs = list(map(output_type_of, types))
    random = Random(seed)
    for number in range(200):
        text = random.choice([WRITTEN, PROSE])
        for _ in range(random.randrange(1, 12)):
            start = random.randrange(len(text) + 1)
            end = random.choice([start, start, start + 1, start + random.randrange(30)])
            text = text[:start] + random.choice(["", random.choice(PIECES), text[start:end] * 2]) + text[end:]
        output_type = outputs[number % len(outputs)]
        output_type.parse_partial(text)
        try:
            output_type.parse(text, cut=bool(number % 2))
        except InvalidOutputError as error:
            assert error.problems


@pytest.mark.parametrize(
    "tp, value",
    [
        (list[int], ["x"] * 1000),
        (dict[str, list[int]], {str(number): ["x"] * 10 for number in range(1000)}),
        (list[Leaf], [{}] * 1000),
        (Leaf, {str(number): number for number in range(1000)}),
        (list[tuple[int, int]], [["x", "y"]] * 1000),
    ],
    ids=range(5),
)
def test_many_problems(tp, value):
    """The first hundred problems are reported."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(tp).structure(value)

    assert 100 == len(caught.value.problems)
