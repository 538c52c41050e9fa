"""Types that are rare: each is structured as its schema says, or is an error before anything is sent."""

from __future__ import annotations

import abc
import collections
import dataclasses
import enum
import itertools
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, Generic, List, Literal, NamedTuple, Protocol, TypedDict, TypeVar  # noqa: UP035 - a type

import annotated_types
import attrs
import jsonschema
import pydantic
import pytest
import typing_extensions

from neuralbox_async import InvalidParameterError
from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of

T = TypeVar("T")
Ts = typing_extensions.TypeVarTuple("Ts")
Items = typing_extensions.TypeAliasType("Items", list[T], type_params=(T,))
Many = typing_extensions.TypeAliasType("Many", tuple[*Ts], type_params=(Ts,))
Untyped = collections.namedtuple("Untyped", "a b", defaults=[None])  # noqa: PYI024 - one without annotations


@attrs.frozen
class Box(Generic[T]):
    a: T


@dataclasses.dataclass
class DataBox(Generic[T]):
    a: T


class TupleBox(NamedTuple, Generic[T]):
    a: T


class DictBox(TypedDict, Generic[T]):
    a: T


class Typed(NamedTuple):
    a: int
    b: str = "x"


class Inherited(Typed):
    c: int = 3


@attrs.frozen
class Abstract(abc.ABC):
    a: int

    @abc.abstractmethod
    def area(self) -> int: ...


@attrs.frozen
class Variadic(Generic[T, *Ts]):
    a: T


class Interface(Protocol):
    a: int


class AbstractModel(pydantic.BaseModel, abc.ABC):
    a: int

    @abc.abstractmethod
    def area(self) -> int: ...


class ChoosingModel(pydantic.BaseModel, abc.ABC):
    """An abstract model whose validator returns one of another class."""

    a: int

    @abc.abstractmethod
    def area(self) -> int: ...

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _chosen(cls, value, handler):
        return ChosenModel.model_validate(value) if cls is ChoosingModel else handler(value)


class ChosenModel(ChoosingModel):
    def area(self) -> int:
        return self.a


@dataclasses.dataclass(init=False)
class BuiltinDict(dict):
    a: int


@dataclasses.dataclass(init=False)
class NoParameters:
    a: int


@attrs.define(init=False)
class OtherParameters:
    a: int

    def __init__(self, b: int = 1):
        self.a = b


@dataclasses.dataclass
class BadSignature:
    a: int
    __signature__ = "bad"


@dataclasses.dataclass(init=False)
class PositionalOnly:
    a: int

    def __init__(self, a: int, /):
        self.a = a


@dataclasses.dataclass(init=False)
class AnyMembers:
    a: int

    def __init__(self, **members: int):
        self.a = members["a"]


@dataclasses.dataclass
class Endless:
    a: Endless
    b: int = 0


class EndlessPair(TypedDict):
    a: tuple[EndlessPair | Endless, int]


class EndlessList(NamedTuple):
    a: Annotated[list[EndlessList], annotated_types.MinLen(1)]


class ModelWithEnd(pydantic.BaseModel):
    """A model whose schema has no value, but its validator accepts one."""

    a: ModelWithEnd

    @pydantic.field_validator("a", mode="wrap")
    @classmethod
    def accept_null(cls, value: Any, validate: Any) -> Any:
        return None if value is None else validate(value)


@attrs.define(init=False)
class FewerParameters:
    a: int
    b: int = 5

    def __init__(self, a: int):
        self.__attrs_init__(a)


class Incomparable:
    """Metadata that is not hashable, and whose comparison raises, as that of an array."""

    __hash__: Any = None

    def __eq__(self, other: object) -> bool:
        raise ValueError("ambiguous")


@attrs.define
class WithIncomparable:
    a: Annotated[int, Incomparable()]
    b: Annotated[int, Incomparable()]


class WithEnd(NamedTuple):
    a: list[WithEnd | Endless] | int


UNUSABLE: list[Any] = [
    dataclasses.dataclass(Interface),
    AbstractModel,
    list[AbstractModel],
    BuiltinDict,
    NoParameters,
    OtherParameters,
    BadSignature,
    Endless,
    EndlessPair,
    EndlessList,
    tuple[Endless],
    Literal[()],
    enum.Enum("Empty", []),
    enum.Enum("Empty", [], type=DataBox),
]


class Shy(enum.Enum):
    """An enumeration whose members have no representation."""

    X = "x"

    def __repr__(self):
        raise RuntimeError


@attrs.frozen
class WithShy:
    a: list[Literal[Shy.X] | int]


VALUES: Any = [
    1,
    "x",
    None,
    [1],
    ["x"],
    {"a": 1},
    {"a": "x"},
    {"a": 1, "b": 2},
    {"a": {"a": 1}},
    {"a": [1]},
    [{"a": 1}],
    [[1], 1],
]


def aliases():
    """Return types of the statement ``type``, and such that cannot be evaluated or have no end."""
    found: dict[str, Any] = {}
    if sys.version_info >= (3, 12):
        code = """
type Members[T] = dict[str, T]
type Nested[T] = T | list[Nested[T]]
type Absent = list[NoSuchName]
type Endless = Endless
type Member = int | Endless2
type Endless2 = Member | str
type Function[**P] = list[P]
"""
        exec(code, found)  # noqa: S102 - earlier versions do not know the statement
    return found


NEW: list[Any] = []
REFUSED: list[Any] = []
if ALIASES := aliases():
    MEMBERS, NESTED = ALIASES["Members"], ALIASES["Nested"]
    NEW = [MEMBERS[int], NESTED[int], NESTED, dict[str, NESTED[str]], MEMBERS[NESTED[int]]]
    REFUSED = [ALIASES[name] for name in ("Absent", "Endless", "Member", "Endless2", "Function")]


@pytest.mark.parametrize(
    "tp",
    [
        *(box[T] for box in (Box, DataBox, TupleBox, DictBox)),
        *(box[Box[int]] for box in (Box, DataBox, TupleBox, DictBox)),
        list[Box[T]],
        Untyped,
        Inherited,
        Items,
        Items[int],
        Items[str] | None,
        Box[Items[int]],
        Annotated[int, ["a list"]],
        list[Annotated[int, ["a list"]]],
        Box[Annotated[int, ["a list"]]],
        PositionalOnly,
        AnyMembers,
        WithEnd,
        WithShy,
        list[Literal[Shy.X]],
        Annotated[Items[int], annotated_types.MinLen(1)],
        *NEW,
    ],
    ids=itertools.count(),
)
def test_structured(tp):
    """What is structured is exactly what the schema accepts, and some values are."""
    output_type = output_type_of(tp)
    validator = jsonschema.Draft202012Validator(output_type.schema)
    found = []
    for value in VALUES:
        try:
            output_type.parse(json.dumps(value))
        except InvalidOutputError:
            assert not validator.is_valid(value)
        else:
            assert validator.is_valid(value)
            found.append(value)

    assert found


@pytest.mark.parametrize(
    "tp",
    [
        Callable[[int], str],
        Abstract,
        List[Abstract],  # noqa: UP006 - another notation
        Many[int, str],
        Variadic[int],
        Variadic[int, str, str],
        *REFUSED,
        *UNUSABLE,
        *map(list.__class_getitem__, REFUSED),
    ],
    ids=itertools.count(),
)
def test_refused(tp):
    """A type that no value would ever be of, or that cannot be evaluated, is an error of the parameter."""
    with pytest.raises(InvalidParameterError, match="output_type"):
        output_type_of(tp)


@pytest.mark.parametrize(
    "value, written",
    [
        (ModelWithEnd(a=ModelWithEnd.model_construct(a=None)), {"a": {"a": None}}),
        (FewerParameters(1), {"a": 1}),
        (WithIncomparable(1, 2), {"a": 1, "b": 2}),
    ],
    ids=itertools.count(),
)
def test_accepted(value, written):
    """A type that has values is accepted, whatever its validators, constructor or metadata are."""
    assert value == output_type_of(type(value)).structure(written)


def test_a_named_tuple_without_annotations():
    """Its members are any JSON, and its defaults are used."""
    assert [Untyped(1, "x"), Untyped([2])] == output_type_of(list[Untyped]).structure([{"a": 1, "b": "x"}, {"a": [2]}])


def test_an_abstract_model_that_chooses_another():
    """A model is abstract, but its own validator returns one that is not."""
    assert ChosenModel(a=1) == output_type_of(ChoosingModel).parse('{"a": 1}')


@pytest.mark.parametrize("depth", [500, 3_000])
def test_a_type_that_is_nested_too_deeply(depth):
    """A type that Python cannot walk through is an error of the parameter."""
    tp: Any = int
    for _ in range(depth):
        tp = list[tp]

    with pytest.raises(InvalidParameterError, match="not nested so deeply"):
        output_type_of(tp)
