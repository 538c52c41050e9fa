"""How much work the structure of a value is, and how many problems it reports, whatever a model wrote."""

from __future__ import annotations

import attrs
import pytest

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of

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
