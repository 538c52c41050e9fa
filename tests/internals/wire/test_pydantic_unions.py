"""Unions in pydantic models: the places of problems, and that the work for a nested value is bounded."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Optional

import attrs
import pydantic
import pydantic_core
import pytest

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of


class Branch(pydantic.BaseModel):
    children: list[Branch | Leaf]
    length: int


class Leaf(pydantic.BaseModel):
    children: list[Branch | Leaf]
    color: str


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    children: list[Pet]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]
    children: list[Pet]


Pet = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


class Chain(pydantic.BaseModel):
    children: list[Chain] | str
    next: Optional[Chain] = None  # noqa: UP045 - pydantic evaluates it
    kind: str | int = ""


class Lists(pydantic.BaseModel):
    children: list[list[Lists | int] | list[Lists | str]]


class Holder(pydantic.BaseModel):
    pets: list[Cat | int | list[int]] = []
    names: dict[str, int | bool] = {}


@attrs.frozen
class Forest:
    trees: list[Branch | Leaf]


def nested(depth, kind="cat", **members):
    """Return a value whose arrays of children are *depth* levels deep."""
    value = {"children": [], "kind": kind, **members}
    for _ in range(depth):
        value = {"children": [value], "kind": kind, **members}
    return value


@pytest.mark.parametrize(
    "tp, value, paths",
    [
        (Holder, {"pets": [{"kind": "cat"}]}, ["$.pets[0].children", "$.pets[0]", "$.pets[0]"]),
        (Holder, {"pets": [["x"]]}, ["$.pets[0]", "$.pets[0]", "$.pets[0][0]"]),
        (Holder, {"names": {"a b": "x"}}, ['$.names["a b"]', '$.names["a b"]']),
        (Holder, {"pets": 5}, ["$.pets"]),
        (Cat, nested(1, "cow"), ["$.kind", "$.children[0]"]),
        (Forest, {"trees": [{"children": [{"color": "red"}], "color": "red"}]}, ["$.trees[0].children[0].children"]),
    ],
)
def test_paths(tp, value, paths):
    """The path of a problem is a place in the value: the choices of unions, which pydantic names, are no part of it."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(tp).parse(json.dumps(value))

    found = [problem.path for problem in caught.value.problems]
    assert paths == (found if tp is not Forest else sorted(set(found), key=len)[-1:])


@pytest.mark.parametrize("tp", [Branch, list[Leaf], Branch | Leaf, Forest, Lists], ids=repr)
@pytest.mark.parametrize("make", [lambda depth: nested(depth, color="red"), lambda depth: [nested(depth)] * 3])
def test_deep_values_of_unions(tp, make):
    """A value with a hundred levels of unions, which pydantic would check 2**100 times, is a problem."""
    values = [make(100), {"trees": make(100)}, {"children": [[make(100)]]}, json.loads("[" * 90 + "]" * 90)]
    for value in values:
        with pytest.raises(InvalidOutputError) as caught:
            output_type_of(tp).structure(value)
        assert caught.value.problems


def test_the_reason():
    """The problem says why, and a value that is nested less is structured."""
    with pytest.raises(InvalidOutputError, match="nested too deeply"):
        output_type_of(Leaf).structure(nested(100, color="red"))
    members = nested(8, color="red")
    assert "red" == output_type_of(Leaf).structure(members).children[0].color


@pytest.mark.parametrize("kind, tp", [("cat", Cat), ("dog", Dog), ("any", Chain)])
def test_deep_values_of_others(kind, tp):
    """Unions with a discriminator, or of which one choice has the kind of the value, may be nested as other values."""
    value: Any = output_type_of(tp).structure(nested(60, kind))
    depth = 0
    while value.children:
        (value,) = value.children
        depth += 1

    assert 60 == depth


class Size(pydantic.BaseModel):
    x: int


@attrs.define
class Changes:
    size: Size
    count: int

    def __attrs_post_init__(self):
        self.size.x = -1
        if self.count > 5:
            raise ValueError("too many")


@attrs.define
class Keeps:
    size: Size
    count: int


def test_a_model_that_another_alternative_changed():
    """Each alternative of a union gets models of its own: one that fails may have changed them."""
    value = output_type_of(Changes | Keeps).parse('{"size": {"x": 3}, "count": 9}')
    assert Keeps(Size(x=3), 9) == value


def test_problems_that_pydantic_cannot_write():
    """An error of a user's validator that has no text is a problem like others."""

    class Model(pydantic.BaseModel):
        x: int

        @pydantic.field_validator("x")
        @classmethod
        def check(cls, _value: int):
            raise pydantic_core.PydanticCustomError("kind", "bad {x}", {"x": "\udc80"})

    for tp, text in ((Model, '{"x": 1}'), (list[Model], '[{"x": 1}]'), (Model | list[int], '{"x": 1}')):
        with pytest.raises(InvalidOutputError) as caught:
            output_type_of(tp).parse(text)
        assert 1 == len(caught.value.problems)
