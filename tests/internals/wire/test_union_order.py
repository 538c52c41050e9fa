"""Unions of the same members in another order: Python takes them for equal, but the first member that fits counts."""

from __future__ import annotations

import dataclasses
from datetime import date
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypedDict, TypeVar

import annotated_types
import attrs
import pytest
import typing_extensions

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of

T = TypeVar("T")

DAY = date(2025, 1, 31)
TEXT = "2025-01-31"


@attrs.frozen
class Box(Generic[T]):
    content: T


@attrs.frozen
class Attrs:
    a: str | date
    b: date | str


@attrs.frozen
class Reversed:
    a: date | str
    b: str | date


@dataclasses.dataclass(frozen=True)
class Data:
    a: str | date
    b: date | str


class Typed(TypedDict):
    a: str | date
    b: date | str


class Tuple(NamedTuple):
    a: str | date
    b: date | str


@attrs.frozen
class Bounded:
    a: Annotated[str | date, annotated_types.MinLen(1)]
    b: Annotated[date | str, annotated_types.MinLen(2)]


@attrs.frozen
class Lists:
    a: list[dict[str, str | date]]
    b: list[dict[str, date | str]]


@attrs.frozen
class Tuples:
    a: tuple[str | date, ...]
    b: tuple[date | str, ...]


@attrs.frozen
class Pairs:
    a: tuple[str | date, date | str]
    b: tuple[date | str, str | date]


@attrs.frozen
class Unions:
    a: list[str | date] | int
    b: list[date | str] | int


@attrs.frozen
class Classes:
    a: Box[str] | Box[date]
    b: Box[date] | Box[str]


@pytest.mark.parametrize(
    "tp, written, expected",
    [
        *((tp, [TEXT, TEXT], [TEXT, DAY]) for tp in (Attrs, Data, Typed, Tuple, Bounded)),
        (Reversed, [TEXT, TEXT], [DAY, TEXT]),
        (Lists, [[{"x": TEXT}]] * 2, [[{"x": TEXT}], [{"x": DAY}]]),
        (Tuples, [[TEXT]] * 2, [(TEXT,), (DAY,)]),
        (Pairs, [[TEXT, TEXT]] * 2, [(TEXT, DAY), (DAY, TEXT)]),
        (Unions, [[TEXT]] * 2, [[TEXT], [DAY]]),
        (Classes, [{"content": TEXT}] * 2, [Box(TEXT), Box(DAY)]),
    ],
)
@pytest.mark.parametrize("in_list", [False, True])
def test_both_orders_in_one_type(tp, written, expected, in_list):
    """Each field has the first member that fits, in the order in which it is written."""
    value: Any = dict(zip("ab", written, strict=True))
    if in_list:
        (found,) = output_type_of(list[tp]).structure([value])
    else:
        found = output_type_of(tp).structure(value)

    assert expected == ([found["a"], found["b"]] if isinstance(found, dict) else [found.a, found.b])


def test_both_orders_in_a_tuple():
    """So has each item of a tuple, and each member of a union."""
    assert (TEXT, DAY) == output_type_of(tuple[str | date, date | str]).structure([TEXT, TEXT])
    assert [DAY] == output_type_of(tuple[int] | list[date | str] | list[str | date]).structure([TEXT])


@attrs.frozen
class FloatFirst(Generic[T]):
    x: float | T
    y: tuple[T, ...] | list[T]


@attrs.frozen
class ArgumentFirst(Generic[T]):
    x: T | float
    y: list[T] | tuple[T, ...]


@pytest.mark.parametrize("order", [(FloatFirst, ArgumentFirst), (ArgumentFirst, FloatFirst)])
def test_both_orders_with_type_variables(order):
    """Unions of a type variable have their own order, too, whichever is read first."""
    expected = {FloatFirst: (float, tuple), ArgumentFirst: (int, list)}
    for cls in order:
        value = output_type_of(cls[int]).parse('{"x": 1, "y": [1]}')
        assert expected[cls] == (type(value.x), type(value.y))


Perhaps = typing_extensions.TypeAliasType("Perhaps", T | None, type_params=(T,))
Noted = typing_extensions.TypeAliasType("Noted", Annotated[T, "a note"], type_params=(T,))
Listed = typing_extensions.TypeAliasType("Listed", list[Annotated[T | None, "a note"]], type_params=(T,))


class Aliases(NamedTuple):
    a: Perhaps[str | date]
    b: Perhaps[date | str]


@pytest.mark.parametrize(
    "alias, value", [(Perhaps, TEXT), (Noted, TEXT), (Listed, [TEXT]), (Perhaps[Listed[T]], [TEXT])]
)
def test_both_orders_as_arguments_of_an_alias(alias, value):
    """So have those that are arguments of an alias, whichever was read first."""
    for _ in range(2):
        for argument, expected in ((str | date, TEXT), (date | str, DAY)):
            found = output_type_of(alias[argument]).structure(value)
            assert expected == (found[0] if isinstance(found, list) else found)
    assert (TEXT, DAY) == output_type_of(Aliases).parse('{"a": "2025-01-31", "b": "2025-01-31"}')


@attrs.frozen
class Cat:
    kind: Literal["cat"]
    x: int = 0


@attrs.frozen
class Dog:
    kind: Literal["dog"]
    x: int = 0


def test_a_union_as_the_argument_of_an_alias():
    """It is one union with the others: each type once, and the tag decides."""
    output_type: Any = output_type_of(Perhaps[Cat | Dog | None])

    assert 3 == len(output_type.schema["anyOf"])
    assert (Dog("dog", 5), None) == (output_type.parse('{"kind": "dog", "x": 5}'), output_type.parse("null"))
    with pytest.raises(InvalidOutputError) as caught:
        output_type.parse('{"kind": "dog", "x": "5"}')
    assert ["$.x"] == [problem.path for problem in caught.value.problems]
