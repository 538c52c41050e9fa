"""pydantic models as output types: the schema that is sent accepts what is validated."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Annotated, Any, Literal

import attrs
import jsonschema
import pydantic
import pytest

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of


class Everything(pydantic.BaseModel):
    count: int = 0
    numbers: set[int] = set()
    frozen: frozenset[str] = frozenset()
    share: float = 0.0
    price: Decimal = Decimal(0)
    anything: Any = None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Owner(pydantic.BaseModel):
    pet: Cat | Dog = pydantic.Field(discriminator="kind")


class Lax(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=False)
    count: int
    inner: Everything = Everything()


class Strict(pydantic.BaseModel):
    lax: Lax
    asked: Annotated[int, pydantic.Field(strict=False)] = 0


def is_valid(output_type, value):
    return jsonschema.Draft202012Validator(output_type.schema).is_valid(value)


@pytest.mark.parametrize(
    "value, expected",
    [
        ({"count": 5.0}, Everything(count=5)),
        ({"count": 5.0, "share": 1.0, "anything": [1.5]}, Everything(count=5, share=1.0, anything=[1.5])),
        ({"numbers": [1, 1, 2.0]}, Everything(numbers={1, 2})),
        ({"frozen": ["a", "a"]}, Everything(frozen=frozenset("a"))),
        ({"share": 5}, Everything(share=5.0)),
        ({"price": 19.9}, Everything(price=Decimal("19.9"))),
        ({"price": "19.90"}, Everything(price=Decimal("19.90"))),
    ],
)
def test_values(value, expected):
    """What the schema accepts is structured: 5.0 as an integer, sets with repeated items."""
    output_type = output_type_of(Everything)

    assert (expected, True) == (output_type.parse(json.dumps(value)), is_valid(output_type, value))


@pytest.mark.parametrize(
    "text, problems",
    [
        ('{"share": NaN, "anything": [1, Infinity]}', {"$.share": "nan", "$.anything[1]": "inf"}),
        ('{"price": 1e400}', {"$.price": "inf"}),
        ('{"share": ' + "1" * 5000 + "}", {"$.share": "inf"}),
        ('{"count": 5.5}', {"$.count": "integer"}),
        ('{"count": "5", "share": 1.0}', {"$.count": "integer"}),
        ('{"count": true}', {"$.count": "integer"}),
    ],
)
def test_problems(text, problems):
    """A number that JSON does not have is a problem at its place, as in other types; nothing is converted."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(Everything).parse(text)

    assert problems.keys() == {problem.path for problem in caught.value.problems}
    assert all(problems[problem.path] in problem.reason for problem in caught.value.problems)


def test_what_is_asked_for():
    """The configuration of the outermost model decides whether values are converted, in all of it."""
    assert Lax(count=5) == output_type_of(Lax).parse('{"count": "5", "inner": {"count": "0"}}')
    for text in ('{"lax": {"count": "5"}}', '{"lax": {"count": 5}, "asked": "5"}'):
        with pytest.raises(InvalidOutputError):
            output_type_of(Strict).parse(text)


class Failing(pydantic.BaseModel):
    number: int

    @pydantic.field_validator("number")
    @classmethod
    def _check(cls, number):
        return 1 // number


@pytest.mark.parametrize("tp", [Failing, list[Failing] | Failing])
def test_errors_of_validators(tp):
    """An error of the user's own, of which pydantic makes no validation error, is a problem as well."""
    assert 1 == output_type_of(tp).structure({"number": 1}).number
    with pytest.raises(InvalidOutputError, match="division"):
        output_type_of(tp).structure({"number": 0})


def references(schema):
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "mapping":
                yield from value.values()
            elif key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from references(item)


def test_names_of_definitions():
    """Definitions of the same name are kept apart, and each reference names one, also in a discriminator."""
    first = attrs.make_class("Cat", {"lives": attrs.field(type=int)})
    second = attrs.make_class("Cat_2", {"name": attrs.field(type=str)})
    schema = output_type_of(tuple[first, first, second, second, Owner]).schema

    assert {"Cat", "Cat_2", "Cat_3", "Dog", "Owner"} <= schema["$defs"].keys()
    assert {f"#/$defs/{name}" for name in schema["$defs"]} == set(references(schema))
    owner = schema["$defs"]["Owner"]["properties"]
    assert {"cat": "#/$defs/Cat_3", "dog": "#/$defs/Dog"} == owner["pet"]["discriminator"]["mapping"]
    value = [{"lives": 9}, {"lives": 9}, {"name": "Tom"}, {"name": "Tom"}, {"pet": {"kind": "cat"}}]
    assert is_valid(output_type_of(tuple[first, first, second, second, Owner]), value)


def test_names_that_are_taken_twice():
    """A new name is none that another definition of the same model has."""
    cat = attrs.make_class("Cat", {"lives": attrs.field(type=int)})
    inner = pydantic.create_model("Cat", kind=(str, ...))
    other = pydantic.create_model("Cat_2", number=(int, ...))
    owner = pydantic.create_model("Owner", one=(inner, ...), two=(other, ...))
    output_type = output_type_of(tuple[cat, cat, owner])

    assert is_valid(output_type, [{"lives": 9}, {"lives": 9}, {"one": {"kind": "a"}, "two": {"number": 1}}])
    assert not is_valid(output_type, [{"lives": 9}, {"lives": 9}, {"one": {"number": 1}, "two": {"number": 1}}])
