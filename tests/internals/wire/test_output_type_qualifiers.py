"""Qualifiers of fields in output types: Required, NotRequired, ReadOnly and Final, alone and in Annotated."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Final, NotRequired, Required, TypedDict

import annotated_types
import pytest
import typing_extensions

from neuralbox_async import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of


class Movie(TypedDict, total=False):
    title: Required[Annotated[str, "as on the poster"]]
    year: Annotated[Required[Annotated[int, annotated_types.Ge(1888)]], "of the premiere"]
    minutes: Annotated[int, annotated_types.Gt(0)]


class Book(typing_extensions.TypedDict):
    title: typing_extensions.ReadOnly[str]
    pages: Annotated[NotRequired[typing_extensions.ReadOnly[int]], "in all volumes"]


@dataclasses.dataclass
class Planet:
    name: Final[str]
    moons: Final[int] = 0
    star: ClassVar[str] = "Sun"


@pytest.mark.parametrize(
    "tp, value",
    [
        (Movie, {"title": "Metropolis", "year": 1927, "minutes": 153}),
        (Movie, {"title": "Metropolis", "year": 1927}),
        (Book, {"title": "Ulysses"}),
        (Book, {"title": "Ulysses", "pages": 730}),
    ],
)
def test_values(tp, value):
    """The members that are not required may be absent."""
    assert value == output_type_of(tp).structure(value)


@pytest.mark.parametrize(
    "tp, value, paths",
    [
        (Movie, {"minutes": 0}, ["$.title", "$.year", "$.minutes"]),
        (Movie, {"title": "Metropolis", "year": 1700}, ["$.year"]),
        (Book, {"pages": "730"}, ["$.title", "$.pages"]),
        (Planet, {"moons": None, "star": "Sirius"}, ["$.name", "$.moons", "$.star"]),
    ],
)
def test_problems(tp, value, paths):
    """Required members are checked, and the types and bounds of all."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(tp).structure(value)

    assert paths == [problem.path for problem in caught.value.problems]


def test_a_final_field():
    """A field that is final is one as others; a class variable is none."""
    assert Planet("Mars", 2) == output_type_of(Planet).structure({"name": "Mars", "moons": 2})


def test_schemas():
    """The descriptions beside a qualifier, and within it, are in the schema."""
    movie, book = output_type_of(Movie).schema, output_type_of(Book).schema

    assert {"type": "integer", "minimum": 1888, "description": "of the premiere"} == movie["properties"]["year"]
    assert {"type": "string", "description": "as on the poster"} == movie["properties"]["title"]
    assert (["title", "year"], ["title"]) == (movie["required"], book["required"])
    assert "in all volumes" == book["properties"]["pages"]["description"]


def test_tuples_of_any_length():
    """A tuple with some fixed items and any number of others is an error before anything is sent."""
    with pytest.raises(InvalidParameterError, match="must be fixed"):
        output_type_of(tuple[int, *tuple[str, ...]])
