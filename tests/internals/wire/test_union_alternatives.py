"""The alternatives of a union: each has values of its own, whatever the constructor of another one did to its own."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import annotated_types
import attrs
import pydantic
import pytest
from call_counts import calls_of

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_fields import changes_arguments
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


@pytest.mark.parametrize("tp", [Short | Long, PlainShort | PlainLong])
def test_values_that_are_nested(tp):
    """A value has one of the types however deep it is, and however many types fail late at each level."""
    made, depth = output_type_of(tp).structure(nested(60)), 0
    while made.children:
        made, depth = made.children[0], depth + 1
    assert (60, "long") == (depth, made.kind)


@pytest.mark.long
@pytest.mark.parametrize("tp, most", [(Short | Long, 120), (PlainShort | PlainLong, 30)], ids=["changing", "plain"])
@pytest.mark.parametrize("depth, width", [(12, 500), (30, 500), (60, 20), (60, 500)])
def test_the_work_for_nested_values(tp, most, depth, width):
    """The work for a value is proportional to its length, however deep it is."""
    value = nested(depth, width)
    output_type = output_type_of(tp)

    assert calls_of(lambda: output_type.structure(value)) < most * len(json.dumps(value))


@attrs.define
class WithTags:
    child: WithTags | dict[str, Any] | list[Any]
    tags: list[int]

    def __attrs_post_init__(self):
        assert type(self.tags) is list


@pytest.mark.long
@pytest.mark.parametrize("depth", [10, 60])
def test_the_work_for_any_json(depth):
    """Nor are parts of any type copied at each level, if a type of the union fails late at each."""
    text = '{"tags": ["x"], "child": ' * depth + json.dumps([[]] * 10_000) + "}" * depth
    value, output_type = json.loads(text), output_type_of(WithTags | dict[str, Any])

    assert calls_of(lambda: output_type.structure(value)) < 15 * len(text)
    assert value == output_type.structure(value)


def test_any_json_that_is_nested():
    """Any JSON may be nested as deeply as Python's parser allows, also beside a class with a constructor."""
    text = "[" * 900 + "]" * 900

    assert json.loads(text) == output_type_of(Changing[int] | list[Any]).parse(text)


class FailingInInit(OneMember):
    def __init__(self, x: Any):
        changed(x)
        raise ValueError("no")


class FailingWhenCalled(type):
    def __call__(cls, x: Any):
        changed(x)
        raise ValueError("no")


@dataclasses.dataclass
class OfMetaclass(metaclass=FailingWhenCalled):
    x: Any


@dataclasses.dataclass
class FailingWhenSet:
    x: Any

    def __setattr__(self, name: str, value: Any):
        changed(value)
        raise ValueError("no")


@pytest.mark.parametrize(
    "cls",
    [
        *(attrs.define, attrs.frozen, attrs.define(slots=False), attrs.define(on_setattr=attrs.setters.validate)),
        *(dataclasses.dataclass, dataclasses.dataclass(frozen=True), dataclasses.dataclass(slots=True)),
        lambda cls: NamedTuple("Named", [("x", Any)]),
        lambda cls: TypedDict("Typed", {"x": Any}),
    ],
)
def test_constructors_that_change_nothing(cls):
    """What attrs, dataclasses and typing generate changes no arguments: their values need not be made once more."""
    assert not changes_arguments(cls(type("Plain", (), {"__annotations__": {"x": Any}})))


@pytest.mark.parametrize("cls", [FailingInInit, OfMetaclass, FailingWhenSet])
def test_other_ways_of_construction(cls):
    """Each of the user's own functions that construct a value may change its arguments."""
    assert Keeping([1]) == output_type_of(cls | Keeping[Any]).structure({"x": [1]})


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
