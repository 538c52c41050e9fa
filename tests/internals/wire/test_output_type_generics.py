"""Generic classes as output types: what they accept, and the problems of what they do not."""

from __future__ import annotations

import dataclasses
from typing import Generic, NamedTuple, Optional, TypedDict, TypeVar

import attrs
import pydantic
import pytest

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of

T = TypeVar("T")


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
