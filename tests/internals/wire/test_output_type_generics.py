"""Generic classes as output types: what they accept, and the problems of what they do not."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Generic, NamedTuple, Optional, TypedDict, TypeVar

import attrs
import pydantic
import pytest
import typing_extensions

from neuralbox_async import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of

T = TypeVar("T")
U = TypeVar("U")


@attrs.frozen
class AttrsBox(Generic[T]):
    content: T = attrs.field(alias="value")
    other: Optional[AttrsBox[T]] = None  # noqa: UP045 - evaluated for each type argument


@dataclasses.dataclass(frozen=True)
class DataBox(Generic[T]):
    value: T
    other: Optional[DataBox[T]] = None  # noqa: UP045


class DictBox(TypedDict, Generic[T], total=False):
    value: T
    other: Optional[DictBox[T]]  # noqa: UP045


class TupleBox(NamedTuple, Generic[T]):
    value: T
    other: Optional[TupleBox[T]] = None  # noqa: UP045


class ModelBox(pydantic.BaseModel, Generic[T]):
    value: T
    other: Optional[ModelBox[T]] = None  # noqa: UP045


boxes = pytest.mark.parametrize("box", [AttrsBox, DataBox, DictBox, TupleBox, ModelBox])


@boxes
def test_values(box):
    """Each kind of class structures its members as the types that its arguments are."""
    output_type = output_type_of(box[int])
    expected = {"value": 1, "other": box(value=2)} if box is DictBox else box[int](value=1, other=box[int](value=2))

    assert expected == output_type.parse('{"value": 1, "other": {"value": 2}}')
    assert [box(value="a")] == output_type_of(list[box[str]]).parse('[{"value": "a"}]')


@boxes
@pytest.mark.parametrize(
    "text, path",
    [
        ('{"value": "1"}', "$.value"),
        ('{"value": 1, "other": {"value": null}}', "$.other.value"),
        ('{"value": 1, "other": 5}', "$.other"),
    ],
)
def test_problems(box, text, path):
    """A value of another type is a problem at its place, under the name of the member."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(box[int]).parse(text)

    assert [path] == [problem.path for problem in caught.value.problems]


Metres = Annotated[int, {"unit": "m"}]  # such metadata is not hashable


@pytest.mark.parametrize("box", [AttrsBox, DataBox, DictBox, TupleBox])
def test_type_arguments_that_are_not_hashable(box):
    """A type argument may have metadata that is not hashable, also of a recursive class."""
    text = '{"value": 1, "other": {"value": 2, "other": {"value": 3}}}'

    assert output_type_of(box[int]).parse(text) == output_type_of(box[Metres]).parse(text)
    assert ["Box_Annotated_int_dict"] == [
        name.removeprefix(box.__name__[:-3]) for name in output_type_of(list[box[Metres]]).schema["$defs"]
    ]
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(box[Metres]).parse(text.replace("3", '"3"'))
    assert ["$.other.other.value"] == [problem.path for problem in caught.value.problems]


def test_a_set_of_them():
    """The items of a set may be of such a class."""
    assert {DataBox(1)} == output_type_of(set[DataBox[Metres]]).parse('[{"value": 1}]')


Models = typing_extensions.TypeAliasType("Models", list[ModelBox[T]], type_params=(T,))
Optionals = typing_extensions.TypeAliasType("Optionals", list[ModelBox[T | None]], type_params=(T,))


@dataclasses.dataclass
class Holder(Generic[T]):
    value: ModelBox[T]


@pytest.mark.parametrize(
    "tp, value, other",
    [
        (Models[int], [{"value": 1}], [{"value": "a"}]),
        (Models[int | None], [{"value": None}], [{"value": "a"}]),
        (Optionals[int], [{"value": None}, {"value": 1}], [{"value": "a"}]),
        (Holder[int], {"value": {"value": 1}}, {"value": {"value": "a"}}),
        (Holder[list[str]], {"value": {"value": ["a"]}}, {"value": {"value": [1]}}),
    ],
)
def test_models_of_type_variables(tp, value, other):
    """A generic pydantic model in an alias or in a class has the type arguments of that."""
    output_type = output_type_of(tp)

    output_type.structure(value)
    with pytest.raises(InvalidOutputError):
        output_type.structure(other)


Annotations = typing_extensions.TypeAliasType(
    "Annotations", dict[Annotated[T, "outer"], Annotated[T, "outer"] | float], type_params=(T,)
)
Sets = typing_extensions.TypeAliasType("Sets", set[Annotated[T, "outer"]], type_params=(T,))


def test_annotations_in_annotations():
    """An annotation whose type is an argument that is annotated too is one annotation, as Python makes it."""
    described = output_type_of(Annotations[Annotated[str, "inner"]])
    any_of = described.schema["additionalProperties"]["anyOf"]
    assert [{"type": "string", "description": "inner"}, {"type": "number"}] == any_of
    with pytest.raises(InvalidParameterError, match="must be hashable"):
        output_type_of(Sets[Annotated[list[int], "inner"]])


def test_a_model_that_has_no_support_for_an_argument():
    """A type argument that pydantic refuses is an error before anything is sent."""
    with pytest.raises(InvalidParameterError, match="output_type"):
        output_type_of(Models[object()])


Whole: Any = typing_extensions.TypeVar("Whole", default=int)
Many: Any = typing_extensions.TypeVar("Many", default=list[T])
Items = typing_extensions.TypeAliasType("Items", list[Whole], type_params=(Whole,))
Pairs = typing_extensions.TypeAliasType("Pairs", tuple[T, Many], type_params=(T, Many))


@attrs.frozen
class AttrsDefault(Generic[Whole]):
    value: Whole


@dataclasses.dataclass(frozen=True)
class DataDefault(Generic[Whole]):
    value: Whole


class TupleDefault(NamedTuple, Generic[Whole]):
    value: Whole


class DictDefault(TypedDict, Generic[Whole]):
    value: Whole


@dataclasses.dataclass(frozen=True)
class Inherited(DataDefault):
    other: int = 0


@dataclasses.dataclass(frozen=True)
class Two(Generic[T, Many]):
    one: T
    two: Many


class Middle(DictBox[U], Generic[U]):
    more: U


class Last(Middle[int]):
    last: str


def test_a_typed_dict_of_generic_ones():
    """The type arguments of the TypedDicts that it inherits from are known, however many there are."""
    value = {"value": 1, "more": 2, "last": "a"}

    assert value == output_type_of(Last).structure(value)
    for name in ("value", "more"):
        with pytest.raises(InvalidOutputError) as caught:
            output_type_of(Last).structure({**value, name: "a"})
        assert [f"$.{name}"] == [problem.path for problem in caught.value.problems]


@pytest.mark.parametrize(
    "tp, value, other",
    [
        *((cls, {"value": 1}, {"value": "a"}) for cls in (AttrsDefault, DataDefault, TupleDefault, DictDefault)),
        (AttrsDefault[str], {"value": "a"}, {"value": 1}),
        (TupleDefault[str], {"value": "a"}, {"value": 1}),
        (list[DataDefault], [{"value": 1}], [{"value": "a"}]),
        (Inherited, {"value": 1}, {"value": "a"}),
        (Items, [1], ["a"]),
        (Items[str], ["a"], [1]),
        (Two[str], {"one": "a", "two": ["b"]}, {"one": "a", "two": [1]}),
        (Two[str, int], {"one": "a", "two": 1}, {"one": "a", "two": ["b"]}),
        (Pairs[str], ["a", ["b"]], ["a", [1]]),
    ],
    ids=repr,
)
def test_defaults_of_type_variables(tp, value, other):
    """A type variable without an argument is its default (PEP 696), in which others may be."""
    output_type = output_type_of(tp)

    output_type.structure(value)
    with pytest.raises(InvalidOutputError):
        output_type.structure(other)
