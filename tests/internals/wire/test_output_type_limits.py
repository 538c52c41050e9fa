"""The limits of output types: unions beside dicts, sets, patterns, huge numbers, and the reasons of validators."""

from __future__ import annotations

import collections.abc
import dataclasses
import json
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import annotated_types
import attrs
import jsonschema
import pydantic
import pytest

from neuralbox_async import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of


@attrs.frozen
class Cat:
    kind: Literal["cat"]
    lives: int


@attrs.frozen
class Dog:
    kind: Literal["dog"]
    name: str


@attrs.frozen
class WithList:
    items: list[int]


@attrs.frozen(eq=False)
class ByIdentity:
    items: list[int]


@attrs.frozen
class WithHash:
    items: list[int]

    def __hash__(self):
        return len(self.items)


@dataclasses.dataclass(frozen=True)
class Frozen:
    text: str
    more: tuple[int, ...] = ()


class Pair(NamedTuple):
    one: int
    two: list[int]


@attrs.frozen
class Checked:
    size: str = attrs.field(default="s", validator=attrs.validators.in_(["s", "m"]))
    code: str = attrs.field(default="x", alias="the_code", validator=attrs.validators.matches_re("x+"))


CHECKER = jsonschema.FormatChecker(["date", "date-time", "uuid"])


def is_valid(output_type, value):
    return jsonschema.Draft202012Validator(output_type.schema, format_checker=CHECKER).is_valid(value)


@pytest.mark.parametrize("other", [dict[str, Any], dict[str, int | str]])
@pytest.mark.parametrize(
    "value, expected",
    [
        ({"kind": "cat", "lives": 9}, Cat("cat", 9)),
        ({"kind": "dog", "name": "Rex"}, Dog("dog", "Rex")),
        ({"kind": "dog", "name": 5}, {"kind": "dog", "name": 5}),
        ({"kind": "bird", "lives": 1}, {"kind": "bird", "lives": 1}),
        ({}, {}),
    ],
)
def test_tagged_unions_beside_a_dict(other, value, expected):
    """An object with the tag of a class that it does not fit may be the dict that the union has as well."""
    output_type = output_type_of(Cat | Dog | other)

    assert (expected, True) == (output_type.structure(value), is_valid(output_type, value))


def test_the_tag_decides():
    """The problems are those of the class that the tag names, in an annotation too."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(Annotated[Cat, "a cat"] | Dog).structure({"kind": "cat", "lives": "9"})

    assert ["$.lives: expected an integer, got a string '9'"] == list(map(str, caught.value.problems))


Lists = NewType("Lists", list)


@pytest.mark.parametrize(
    "item",
    [
        *(dict, Any, object, list[int], list | int, Lists, Pair, WithList, set[int], tuple[int, list[int]], tuple),
        *(tuple[Any, ...], frozenset, Annotated[list[int], "some"], TypedDict("Record", {"a": int}), None),
        pydantic.create_model("Model", a=(int, ...)),
    ],
    ids=repr,
)
def test_sets_of_unhashable_items(item):
    """A set whose items may not be hashable is an error before anything is sent; None: a set of anything."""
    for tp in (set, frozenset, collections.abc.Set):
        with pytest.raises(InvalidParameterError, match="must be hashable"):
            output_type_of(tp if item is None else tp[item])


Metres = Annotated[int, {"unit": "m"}]  # such metadata is not hashable


class WithMetres(NamedTuple):
    heights: list[Metres]


@pytest.mark.parametrize(
    "tp, value",
    [
        (Metres, 5),
        (list[Metres], [5]),
        (dict[str, list[Metres]], {"a": [5]}),
        (dict[Annotated[str, {"of": "names"}], int], {"a": 5}),
        (tuple[Metres, ...], [5]),
        (tuple[Metres, str], [5, "a"]),
        (set[tuple[Metres, ...]], [[5]]),
        (Annotated[list[Metres], annotated_types.MinLen(1)], [5]),
        (WithMetres, {"heights": [5]}),
    ],
    ids=repr,
)
def test_metadata_of_others(tp, value):
    """Annotations may have metadata that others read, which need not be hashable, at any depth."""
    output_type = output_type_of(tp)

    output_type.structure(value)
    assert is_valid(output_type, value)
    with pytest.raises(InvalidOutputError):
        output_type.structure(json.loads(json.dumps(value).replace("5", '"5"')))


@pytest.mark.parametrize("name", [int, Metres, Literal["a"], Annotated[str, annotated_types.MinLen(2)]], ids=repr)
def test_names_of_members(name):
    """A mapping whose keys are not just strings is an error before anything is sent."""
    with pytest.raises(InvalidParameterError, match="names of members are strings without bounds"):
        output_type_of(dict[name, int])


@pytest.mark.parametrize(
    "item, value",
    [
        (tuple[int, str], [1, "a"]),
        (frozenset[int], [1]),
        (Frozen, {"text": "a", "more": [1]}),
        (Cat, {"kind": "cat", "lives": 9}),
        (ByIdentity, {"items": []}),
        (WithHash, {"items": []}),
        (Literal["a", 1] | None, "a"),
        (NewType("Name", str), "a"),
    ],
    ids=repr,
)
def test_sets(item, value):
    """Other items are structured."""
    assert 1 == len(output_type_of(set[item]).structure([value]))


@pytest.mark.parametrize(
    "divisor, value, fits",
    [
        (3, 10**40, False),
        (3, 3 * 10**40, True),
        (0.1, 1e300, True),
        (0.1, 0.3, True),
        (1e-300, 1e300, True),
        (7, 1e300, False),
        (1e300, 1.0, False),
    ],
)
def test_multiples_of_huge_numbers(divisor, value, fits):
    """Multiples are exact, however many digits the numbers have."""
    output_type = output_type_of(Annotated[float, annotated_types.MultipleOf(divisor)])
    if fits:
        assert float(value) == output_type.structure(value)
    else:
        with pytest.raises(InvalidOutputError, match="expected a multiple"):
            output_type.structure(value)


DIGITS = "1" * 5000


@pytest.mark.parametrize(
    "tp, reason",
    [(str, "expected a string, got a number 111"), (int, "expected an integer"), (float, "expected a finite number")],
)
@pytest.mark.parametrize("text", ["[{}]", "see: [{}]", "['x', {}]"])
def test_integers_that_python_does_not_convert(tp, reason, text):
    """An integer of thousands of digits is no string, and no integer that Python reads."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(list[tp]).parse(text.format(DIGITS))
    assert reason in caught.value.problems[-1].reason


def test_decimals_of_many_digits():
    """A Decimal has all digits; an exponent that it cannot have is a problem."""
    assert [Decimal(DIGITS)] == output_type_of(list[Decimal]).parse(f"[{DIGITS}]")
    with pytest.raises(InvalidOutputError, match="that Decimal can represent"):
        output_type_of(Decimal).parse("1e99999999999999999999")


@pytest.mark.parametrize(
    "metadata", [re.compile("^a+$"), pydantic.Field(pattern="^a+$"), pydantic.StringConstraints(pattern="^a+$")]
)
def test_patterns(metadata):
    """A pattern is in the schema, and is checked."""
    output_type = output_type_of(Annotated[str, metadata])

    assert ("^a+$", "aa") == (output_type.schema["pattern"], output_type.structure("aa"))
    with pytest.raises(InvalidOutputError, match="pattern"):
        output_type.structure("ab")


@pytest.mark.parametrize(
    "metadata",
    [
        re.compile("a", re.IGNORECASE),
        re.compile(b"a"),
        pydantic.StringConstraints(to_upper=True),
        pydantic.Field(max_digits=3),
        annotated_types.MultipleOf(0),
        annotated_types.MultipleOf(-1),
        type("Bad", (), {"pattern": "("})(),
    ],
    ids=["flags", "bytes", "to_upper", "max_digits", "zero", "negative", "malformed"],
)
def test_annotations_that_json_schema_lacks(metadata):
    """A restriction that JSON Schema does not have, or a conversion, is an error before anything is sent."""
    with pytest.raises(InvalidParameterError, match="output_type"):
        output_type_of(Annotated[Decimal if isinstance(metadata, annotated_types.MultipleOf) else str, metadata])


@pytest.mark.parametrize(
    "text", ["10:00:00+14:60", "10:00:00+24:00", "24:00:00Z", "23:60:00Z", "23:59:60Z", "10:00:00", "10:00:00+1400"]
)
def test_times_that_are_none(text):
    """A time that RFC 3339 does not have is a problem, with each release of Python."""
    output_type = output_type_of(datetime)

    assert not is_valid(output_type, f"2025-01-31T{text}")
    with pytest.raises(InvalidOutputError, match="expected a time"):
        output_type.structure(f"2025-01-31T{text}")


def test_the_reasons_of_validators():
    """The problem of an attrs validator is at its field, and is a sentence."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of(list[Checked]).structure([{"size": "xl"}, {"the_code": "y"}])

    first, second = caught.value.problems
    assert ("$[0].size", "'size' must be in ['s', 'm'] (got 'xl')") == (first.path, first.reason)
    assert ("$[1].the_code", True) == (second.path, second.reason.startswith("'code' must match regex"))
