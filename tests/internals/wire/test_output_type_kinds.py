"""Output types one by one: their schemas, what they accept, descriptions, bounds, pydantic, and what is no type."""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import pickle
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)
from uuid import UUID

import annotated_types
import attrs
import cattrs.gen
import jsonschema
import pydantic
import pytest

from neuralbox_async import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError, Problem
from neuralbox_async._wire import output_fields
from neuralbox_async._wire.output_types import output_type_of

T = TypeVar("T")
U = TypeVar("U")
UserId = NewType("UserId", int)


@attrs.frozen
class Cat:
    """A cat."""

    kind: Literal["cat"]
    lives: int


@dataclasses.dataclass
class Dog:
    kind: Literal["dog"]
    name: str


@attrs.define
class Node:
    value: int
    children: list[Node] = attrs.field(factory=list)


class Movie(TypedDict, total=False):
    title: Required[str]
    year: int


class Book(TypedDict):
    title: str
    pages: NotRequired[int]


class Point(NamedTuple):
    """A point of the plane."""

    x: float
    y: float = 0.0


@attrs.frozen
class Box(Generic[T]):
    content: T
    others: list[T] = attrs.field(factory=list)


class IntBox(Box[int]):
    pass


class PairBox(Box[list[U]], Generic[U]):
    pass


class SameVariable(Box[list[T]], Generic[T]):
    pass


@dataclasses.dataclass
class WithInitVar:
    a: int
    b: dataclasses.InitVar[int]


class Tree(pydantic.BaseModel):
    """A tree."""

    height: int = pydantic.Field(gt=0, description="in metres")
    planted: date | None = None
    branches: list[Tree] = []


class LaxTree(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=False)
    height: int


@attrs.frozen
class Garden:
    trees: list[Tree]
    cat: Cat | None = None


@attrs.frozen
class Checked:
    name: str
    age: int = attrs.field()

    @age.validator
    def _check(self, _field, age):
        if age == 13:
            raise RuntimeError("13 is no age")


class Flag(enum.Enum):
    ON = True
    OFF = False


def problems(tp, value):
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(tp).structure(value)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "tp, value, expected",
    [
        (float, 5, 5.0),
        (int, 5.0, 5),
        (Decimal, 5, Decimal(5)),
        (int | float, 5.0, 5.0),
        (UserId, 5, 5),
        (Any, {"a": [1]}, {"a": [1]}),
        (list, [1, "a"], [1, "a"]),
        (tuple[int, ...], [1, 2], (1, 2)),
        (tuple[()], [], ()),
        (set[int], [1, 1], {1}),
        (frozenset[str], ["a"], frozenset("a")),
        (collections.abc.Sequence[int], [1], (1,)),
        (collections.abc.Mapping[str, int], {"a": 1}, {"a": 1}),
        (datetime, "2025-01-31T23:59:00Z", datetime(2025, 1, 31, 23, 59, tzinfo=UTC)),
        (date, "2025-01-31", date(2025, 1, 31)),
        (UUID, "12345678-1234-5678-1234-567812345678", UUID("12345678-1234-5678-1234-567812345678")),
        (Flag, True, Flag.ON),
        (Cat | None, None, None),
        (Cat | Dog, {"kind": "dog", "name": "Rex"}, Dog("dog", "Rex")),
        (Node, {"value": 1, "children": [{"value": 2}]}, Node(1, [Node(2)])),
        (Movie, {"title": "M"}, {"title": "M"}),
        (Book, {"title": "B", "pages": 3}, {"title": "B", "pages": 3}),
        (Point, {"x": 1}, Point(1.0, 0.0)),
        (Box[int], {"content": 1, "others": [2]}, Box(1, [2])),
        (IntBox, {"content": 1, "others": [2]}, IntBox(1, [2])),
        (PairBox[str], {"content": ["a"], "others": [["b"]]}, PairBox(["a"], [["b"]])),
        (Annotated[int, annotated_types.Interval(ge=1, le=3)], 3, 3),
        (Tree, {"height": 3, "planted": "2020-02-02"}, Tree(height=3, planted=date(2020, 2, 2))),
        (
            Garden,
            {"trees": [{"height": 1, "branches": [{"height": 2}]}]},
            Garden([Tree(height=1, branches=[Tree(height=2)])]),
        ),
    ],
)
def test_structure(tp, value, expected):
    """A JSON value is the value of the type, of its class; the schema accepts it."""
    output_type = output_type_of(tp)
    structured = output_type.structure(value)

    assert (expected, type(expected)) == (structured, type(structured))
    jsonschema.Draft202012Validator.check_schema(output_type.schema)
    jsonschema.validate(value, output_type.schema)


@pytest.mark.parametrize(
    "tp, value, expected",
    [
        (int, "5", ["$: expected an integer, got a string '5'"]),
        (int, True, ["$: expected an integer, got a boolean"]),
        (int, 5.5, ["$: expected an integer, got a number 5.5"]),
        (str, 5, ["$: expected a string, got a number 5"]),
        (bool, 1, ["$: expected true or false, got a number 1"]),
        (list[int], "12", ["$: expected an array, got a string '12'"]),
        (
            list[int],
            [1, "a", None],
            ["$[1]: expected an integer, got a string 'a'", "$[2]: expected an integer, got null"],
        ),
        (dict[str, int], {"a b": None}, ['$["a b"]: expected an integer, got null']),
        (tuple[int, str], [1], ["$: expected an array of 2 items, got 1"]),
        (
            datetime,
            "2025-01-31",
            ["$: expected a time with its offset, as 2025-01-31T23:59:00Z (RFC 3339), got a string '2025-01-31'"],
        ),
        (date, "2025-02-30", ["$: expected a date, as 2025-01-31, got a string '2025-02-30'"]),
        (Flag, 1, ["$: expected one of True, False, got a number 1"]),
        (Literal["a", 1], True, ["$: expected one of 'a', 1, got a boolean"]),
        (Cat, [1], ["$: expected an object, got an array"]),
        (Cat, {"kind": "cat", "legs": 4}, ["$.lives: a required member is missing", "$.legs: there is no such member"]),
        (Cat | Dog, {"kind": "dog", "name": 5}, ["$.name: expected a string, got a number 5"]),
        (Cat | None, "Tom", ["$: expected object or null, got a string 'Tom'"]),
        (
            Node,
            {"value": 1, "children": [{"value": "2"}]},
            ["$.children[0].value: expected an integer, got a string '2'"],
        ),
        (Movie, {"year": 1}, ["$.title: a required member is missing"]),
        (Annotated[int, annotated_types.Ge(1)], 0, ["$: expected at least 1, got 0"]),
        (Annotated[list[int], annotated_types.Len(1, 2)], [], ["$: expected a length of at least 1, got 0"]),
        (Annotated[float, annotated_types.MultipleOf(0.1)], 0.25, ["$: expected a multiple of 0.1, got 0.25"]),
        (Checked, {"name": "a", "age": 13}, ["$: 13 is no age"]),
        (Tree, {"height": "3"}, ["$.height: Input should be a valid integer"]),
        (Garden, {"trees": [{"height": 0}]}, ["$.trees[0].height: Input should be greater than 0"]),
    ],
)
def test_problems(tp, value, expected):
    """A value of another type, or out of bounds, is a problem with its path: each of them, and nothing is converted."""
    assert expected == problems(tp, value)


@pytest.mark.parametrize(
    "tp",
    [
        bytes,
        complex,
        object(),
        "Cat",
        5,
        dict[int, str],
        set[list[int]],
        set[Node],
        list[bytes],
        type("Plain", (), {}),
        Annotated[date, annotated_types.Ge(date(2020, 1, 1))],
        Annotated[str, annotated_types.Predicate(str.islower)],
        collections.abc.Callable[[], int],
        attrs.make_class("Unresolved", {"a": attrs.field(type="NoSuchType")}),
        attrs.make_class("Reserved", {"converter": attrs.field(type=str)}),
        list[attrs.make_class("Reserved", {"cl": attrs.field(type=str)})],
        TypedDict("Reserved", {"converter": str}),
        NamedTuple("Reserved", [("typevar_map", str)]),
        WithInitVar,
        SameVariable[int],
        PairBox,
        Box,
    ],
    ids=lambda tp: re.sub(" at 0x[0-9a-f]+", "", repr(tp)),  # the same in each process of a run
)
def test_unsupported(tp):
    """A type that JSON cannot represent, wherever it is, is an error of the parameter."""
    with pytest.raises(InvalidParameterError, match="output_type must be a type that JSON can represent") as caught:
        output_type_of(tp)

    assert "output_type" == caught.value.parameter


def test_reserved_names():
    """No field may be called like a parameter of cattrs' functions, which take the names of fields as further ones."""
    parameters = {
        name
        for function in (cattrs.gen.make_dict_structure_fn, cattrs.gen.make_dict_structure_fn_from_attrs)
        for name in inspect.signature(function).parameters
    }

    assert {name for name in parameters if not name.startswith("_cattrs_")} - {"kwargs"} <= output_fields._RESERVED


def test_the_type_argument_of_a_base():
    """A class that inherits from a generic one checks the types that it gives that."""
    assert ["$.content: expected an integer, got a string 'nope'"] == problems(IntBox, {"content": "nope"})


def test_lax_models():
    """A pydantic model whose configuration has ``strict=False`` converts, as its author wants."""
    assert LaxTree(height=3) == output_type_of(LaxTree).structure({"height": "3"})


def test_schema():
    """The schema of a class is an object with its descriptions; recursive classes are references."""
    described = attrs.make_class(
        "Described",
        {
            "a": attrs.field(type=Annotated[int, "how many", annotated_types.Ge(0)]),
            "b": attrs.field(
                type=str, default="", metadata={"description": "why"}, validator=attrs.validators.max_len(9)
            ),
            "c": attrs.field(type=Node | None, default=None),
            "d": attrs.field(type=Annotated[Cat, pydantic.Field(description="the cat")], default=None),
        },
    )

    assert {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "a": {"type": "integer", "minimum": 0, "description": "how many"},
            "b": {"type": "string", "maxLength": 9, "description": "why"},
            "c": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
            "d": {"$ref": "#/$defs/Cat", "description": "the cat"},
        },
        "required": ["a"],
        "additionalProperties": False,
        "$defs": {
            "Node": {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
                },
                "required": ["value"],
                "additionalProperties": False,
            },
            "Cat": {
                "description": "A cat.",
                "type": "object",
                "properties": {"kind": {"type": "string", "const": "cat"}, "lives": {"type": "integer"}},
                "required": ["kind", "lives"],
                "additionalProperties": False,
            },
        },
    } == output_type_of(described).schema


def test_classes_of_one_name():
    """Two classes of one name have a definition each."""
    one, other = (attrs.make_class("Same", {name: attrs.field(type=int)}) for name in "ab")

    assert {"Same", "Same_2"} == set(output_type_of(tuple[one, other]).schema["$defs"])


def test_the_order_of_a_union():
    """Unions that differ only in their order are types of their own, though Python takes them for equal."""
    assert ["integer", "string"] == [member["type"] for member in output_type_of(int | str).schema["anyOf"]]
    assert ["string", "integer"] == [member["type"] for member in output_type_of(str | int).schema["anyOf"]]


def test_decimals():
    """A Decimal has each digit that was written; a float beside it is a plain float."""
    value = output_type_of(dict[str, Decimal | None]).parse('{"price": 19.900000000000000000001}')

    assert Decimal("19.900000000000000000001") == value["price"]
    numbers = output_type_of(tuple[Decimal, float]).parse("[1e400, 0.5]")
    assert (Decimal("1e400"), 0.5, float) == (*numbers, type(numbers[1]))


@pytest.mark.long
def test_deep_values():
    """A value that is nested too deeply is a problem."""
    depth = 100_000
    text = '{"value": 1, "children": [' * depth + "]}" * depth

    with pytest.raises(InvalidOutputError):
        output_type_of(Node).parse(text)


def test_problems_are_values():
    """A problem is frozen, can be compared and pickled, and reads as one line."""
    problem = Problem("$.a", "missing")

    assert (problem, "$.a: missing") == (pickle.loads(pickle.dumps(problem)), str(problem))
