"""The alternatives of a union: each has values of its own, whatever the constructor of another one did to its own."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import annotated_types
import attrs
import pydantic
import pytest
from call_counts import calls_of

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of

T = TypeVar("T")


@attrs.define
class One:
    name: str


@dataclasses.dataclass
class Two:
    name: str
    size: int = 0


class Model(pydantic.BaseModel):
    name: str


class OtherModel(pydantic.BaseModel):
    name: str
    size: int = 0


def changed(value: Any) -> Any:
    """Change *value*, and what is in it."""
    if isinstance(value, list):
        for item in value:
            changed(item)
        value.clear()
    elif isinstance(value, dict):
        for member in value.values():
            changed(member)
        value["changed"] = True
    elif not isinstance(value, int | str):
        value.name = "changed"
    return value


@dataclasses.dataclass
class Changing(Generic[T]):
    x: T

    def __post_init__(self):
        changed(self.x)
        raise ValueError("no")


@attrs.define
class ChangingAttrs(Generic[T]):
    x: T

    def __attrs_post_init__(self):
        changed(self.x)
        raise ValueError("no")


@attrs.define
class Converting(Generic[T]):
    x: T = attrs.field(converter=changed)
    y: int = attrs.field(
        default=attrs.Factory(lambda self: len(str(self.x)), takes_self=True), validator=lambda *_: fail()
    )


@attrs.define(init=False)
class OwnConstructor(Generic[T]):
    x: T

    def __init__(self, x: T):
        changed(x)
        raise ValueError("no")


class OneMember(NamedTuple):
    x: Any


class InNew(OneMember):
    def __new__(cls, x: Any):
        changed(x)
        raise ValueError("no")


@dataclasses.dataclass
class Inner(Generic[T]):
    """A class that changes its argument and does not fail."""

    x: T

    def __post_init__(self):
        changed(self.x)


@dataclasses.dataclass
class Outer(Generic[T]):
    """A class that fails after the one in it has changed its argument."""

    x: T
    y: Inner[T]
    z: Literal["z"]


@dataclasses.dataclass
class Keeping(Generic[T]):
    x: T


@dataclasses.dataclass
class KeepingOuter(Generic[T]):
    x: T
    y: Keeping[T]
    z: Literal["other"]


def fail():
    raise ValueError("no")


CASES = [
    (One | Two, {"name": "a"}, One("a")),
    (Model | OtherModel, {"name": "a"}, Model(name="a")),
    (Model, {"name": "a"}, Model(name="a")),
    (list[int] | list[str], [1, 2], [1, 2]),
    (list[One | Two], [{"name": "a"}], [One("a")]),
    (list[int], [1, 2], [1, 2]),
    (dict[str, list[int] | None], {"a": [1]}, {"a": [1]}),
    (Any, [1, {"a": [2]}], [1, {"a": [2]}]),
    (Any, {"a": [2]}, {"a": [2]}),
    (dict[str, Any], {"a": {"b": []}}, {"a": {"b": []}}),
    (dict, {"a": {"b": []}}, {"a": {"b": []}}),
    (list[Any] | dict[str, Any], [[], {}], [[], {}]),
]


@pytest.mark.parametrize("tp, written, expected", CASES, ids=repr)
@pytest.mark.parametrize("changing", [Changing, ChangingAttrs, Converting, OwnConstructor], ids=repr)
def test_values_of_an_alternative_that_fails(changing, tp, written, expected):
    """What the constructor of a type that fails changes is not what the next one gets."""
    value = {"x": written}
    assert Keeping(expected) == output_type_of(changing[tp] | Keeping[tp]).structure(value)
    assert [Keeping(expected)] == output_type_of(list[changing[tp]] | list[Keeping[tp]]).structure([value])
    assert {"x": written} == value


@pytest.mark.parametrize("tp, written, expected", CASES, ids=repr)
def test_values_within_an_alternative_that_fails(tp, written, expected):
    """Nor what one within it changes."""
    value = {"x": written, "y": {"x": written}, "z": "other"}
    kept = KeepingOuter(expected, Keeping(expected), "other")
    assert kept == output_type_of(Outer[tp] | KeepingOuter[tp]).structure(json.loads(json.dumps(value)))


def test_a_named_tuple_with_a_constructor():
    """The constructor of a NamedTuple may change its argument, too."""
    assert Keeping([1]) == output_type_of(InNew | Keeping[Any]).structure({"x": [1]})


def test_the_problems_of_a_value_that_its_class_changed():
    """They are those of the value as it was written."""

    @dataclasses.dataclass
    class Emptied:
        x: Any

        def __post_init__(self):
            if self.x:
                self.x.clear()
                raise ValueError("not empty")

    with pytest.raises(InvalidOutputError, match="not empty"):
        output_type_of(Emptied).parse('{"x": [1]}')


@dataclasses.dataclass
class Short:
    """A class whose children are structured before its last member does not fit."""

    children: list[Short | Long]
    kind: Annotated[str, annotated_types.MaxLen(3)]

    def __post_init__(self):
        assert type(self.children) is list


@dataclasses.dataclass
class Long:
    children: list[Short | Long]
    kind: str

    def __post_init__(self):
        assert type(self.children) is list


@attrs.frozen
class PlainShort:
    children: list[PlainShort | PlainLong]
    kind: Annotated[str, annotated_types.MaxLen(3)]


@attrs.frozen
class PlainLong:
    children: list[PlainShort | PlainLong]
    kind: str


def nested(depth, width=0):
    """Return a value that is *depth* levels deep, with *width* values in the innermost one."""
    leaf = {"children": [], "kind": "long"}
    value: Any = {"children": [leaf] * width, "kind": "long"}
    for _ in range(depth):
        value = {"children": [value], "kind": "long"}
    return json.loads(json.dumps(value))  # no part of it is there twice


def test_values_that_are_nested():
    """Types that fail late at each level have the parts below made again, which is a problem from some depth on."""
    assert "long" == output_type_of(Short | Long).structure(nested(12)).children[0].kind
    assert "long" == output_type_of(PlainShort | PlainLong).structure(nested(60)).children[0].kind
    with pytest.raises(InvalidOutputError, match="nested too deeply"):
        output_type_of(Short | Long).structure(nested(30))


@pytest.mark.long
@pytest.mark.parametrize("tp, most", [(Short | Long, 120), (PlainShort | PlainLong, 30)], ids=["changing", "plain"])
@pytest.mark.parametrize("depth, width", [(12, 500), (30, 500), (60, 20)])
def test_the_work_for_nested_values(tp, most, depth, width):
    """The work for a value is proportional to its length, however deep it is."""
    value = nested(depth, width)
    output_type = output_type_of(tp)

    assert calls_of(lambda: output_type.structure(value)) < most * len(json.dumps(value))


made: list[int] = []


@attrs.frozen
class Item:
    x: int = attrs.field(validator=lambda _item, _field, value: made.append(value))


@attrs.frozen
class WithMost:
    items: list[Item]
    most: int


@attrs.frozen
class WithOtherMost:
    items: list[Item]
    most: float | None


@attrs.frozen
class WithLeast:
    items: list[Item]
    least: Any = None


@pytest.mark.parametrize(
    "members, cls",
    [
        ({"most": 1}, WithMost),
        ({"most": 1.0}, WithMost),
        ({"most": None}, WithOtherMost),
        ({}, WithLeast),
        ({"least": "a"}, WithLeast),
    ],
)
def test_types_of_another_shape(members, cls):
    """The members of a value are not structured as those of a class that lacks one, or that one has another type in."""
    made.clear()
    value = output_type_of(WithMost | WithOtherMost | WithLeast).structure({"items": [{"x": 1}, {"x": 2}], **members})

    assert (cls, [1, 2]) == (type(value), made)


def test_numbers_of_any_shape():
    """A number is not excluded by its notation, also one of thousands of digits."""
    output_type: Any = output_type_of(dict[str, WithMost | WithOtherMost | list[Decimal]])

    value = output_type.parse('{"a": {"items": [], "most": 1e3}, "b": {"items": [], "most": 1.5}, "c": [1.50]}')
    assert (1000, 1.5, "1.50") == (value["a"].most, value["b"].most, str(value["c"][0]))
    with pytest.raises(InvalidOutputError, match="expected an integer, got a number 111"):
        output_type.parse('{"a": {"items": [], "most": ' + "1" * 5000 + "}}")
