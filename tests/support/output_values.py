"""Strategies for output types, each with JSON values and the values that these stand for, and for texts around them."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import keyword
import re
import types as pytypes
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NotRequired, Optional, TypedDict, TypeVar, Union
from uuid import UUID

import annotated_types
import attrs
from hypothesis import strategies as st

from neuralbox_async._wire.output_kinds import json_types_of

_numbers = itertools.count()


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


texts = st.text(st.characters(codec="utf-8"), max_size=12)
names = st.from_regex(r"[a-z]{1,5}", fullmatch=True).filter(
    lambda name: not hasattr(str, name) and not keyword.iskeyword(name) and name not in {"attrs", "cl"}
)
integers = st.integers(-(2**53), 2**53)
floats = st.floats(allow_nan=False, allow_infinity=False)
times = st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat)


@dataclasses.dataclass(frozen=True)
class Example:
    """A *type* with pairs of a JSON value and the value that it stands for."""

    type: Any
    pairs: st.SearchStrategy[tuple[Any, Any]] = dataclasses.field(repr=False)  # long, and in each message


def example(tp, values, structure=lambda value: value):
    return Example(tp, values.map(lambda value: (value, structure(value))))


scalars = st.sampled_from(
    [
        example(str, texts),
        example(int, integers),
        example(float, floats),
        example(bool, st.booleans()),
        example(None, st.none()),
        example(Decimal, st.one_of(floats, integers), lambda number: Decimal(repr(number))),
        example(datetime, times, datetime.fromisoformat),
        example(date, st.dates().map(date.isoformat), date.fromisoformat),
        example(UUID, st.uuids().map(str), UUID),
        example(Annotated[int, annotated_types.Interval(ge=-3, lt=9)], st.integers(-3, 8)),
        example(
            Annotated[str, annotated_types.Len(1, 3)], st.text(st.characters(codec="utf-8"), min_size=1, max_size=3)
        ),
        example(Literal["a", 1], st.sampled_from(["a", 1])),
        example(Color, st.sampled_from(["red", "blue"]), Color),
        example(Level, st.sampled_from([1, 2]), Level),
    ]
)


def _attrs_class(name, types, optional):
    return attrs.make_class(
        name,
        {
            member: attrs.field(type=tp, **({"default": None} if member in optional else {}))
            for member, tp in types.items()
        },
        kw_only=True,
    )


def _dataclass(name, types, optional):
    fields = [
        (m, tp, dataclasses.field(default=None) if m in optional else dataclasses.field()) for m, tp in types.items()
    ]
    return dataclasses.make_dataclass(name, fields, kw_only=True)


def _typed_dict(name, types, optional):
    return TypedDict(name, {m: NotRequired[tp] if m in optional else tp for m, tp in types.items()})


def _named_tuple(name, types, optional):
    return NamedTuple(name, list(types.items()))


def _generic(name, types, optional):
    """Return an attrs class whose type arguments are the types of its members."""
    variables = [TypeVar(f"T{number}") for number in range(len(types))]
    body = {"__annotations__": dict(zip(types, variables, strict=True)), **dict.fromkeys(optional)}
    cls = pytypes.new_class(name, (Generic[*variables],), exec_body=lambda namespace: namespace.update(body))
    return attrs.define(cls, kw_only=True, slots=False)[*types.values()]


@st.composite
def _objects(draw, inner):
    """An object of a class of each kind, some members of which may be absent."""
    members = draw(st.dictionaries(names, inner, min_size=1, max_size=3))
    make = draw(st.sampled_from([_attrs_class, _dataclass, _typed_dict, _named_tuple, _generic]))
    optional = set() if make is _named_tuple else draw(st.sets(st.sampled_from(sorted(members))))
    cls = make(f"Made{next(_numbers)}", {name: member.type for name, member in members.items()}, optional)

    @st.composite
    def pairs(draw):
        drawn = {name: draw(member.pairs) for name, member in members.items()}
        absent = draw(st.sets(st.sampled_from(sorted(optional)))) if optional else set()
        present = {name: pair for name, pair in drawn.items() if name not in absent}
        return {name: pair[0] for name, pair in present.items()}, cls(**{n: pair[1] for n, pair in present.items()})

    return Example(cls, pairs())


def _collections(inner):
    def unzipped(pairs):
        return [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    return st.one_of(
        inner.map(lambda item: Example(list[item.type], st.lists(item.pairs, max_size=3).map(unzipped))),
        inner.map(lambda item: Example(Optional[item.type], st.one_of(item.pairs, st.just((None, None))))),  # noqa: UP045 - also of None
        inner.map(
            lambda item: Example(
                dict[str, item.type],
                st.dictionaries(texts, item.pairs, max_size=3).map(
                    lambda pairs: ({k: v[0] for k, v in pairs.items()}, {k: v[1] for k, v in pairs.items()})
                ),
            )
        ),
        st.tuples(inner, inner).map(
            lambda items: Example(
                tuple[items[0].type, items[1].type],
                st.tuples(items[0].pairs, items[1].pairs).map(
                    lambda pairs: (unzipped(pairs)[0], tuple(unzipped(pairs)[1]))
                ),
            )
        ),
    )


@st.composite
def _tagged_unions(draw, inner):
    """A union of classes with a tag, each with members of its own, perhaps beside null."""
    members = []
    for tag in draw(st.lists(st.sampled_from(["cat", "dog", "x", 1, 2]), min_size=2, max_size=3, unique=True)):
        fields = {"kind": example(Literal[tag], st.just(tag)), **draw(st.dictionaries(names, inner, max_size=2))}
        make = draw(st.sampled_from([_attrs_class, _dataclass, _typed_dict, _named_tuple]))
        cls = make(f"Made{next(_numbers)}", {name: field.type for name, field in fields.items()}, ())
        members.append(Example(cls, _pairs_of(cls, fields)))
    return _united(members)


@st.composite
def _pairs_of(draw, cls, fields):
    drawn = {name: draw(field.pairs) for name, field in fields.items()}
    return {name: pair[0] for name, pair in drawn.items()}, cls(**{name: pair[1] for name, pair in drawn.items()})


def _united(members):
    union = Union[tuple(member.type for member in members)]  # noqa: UP007 - of any number
    return Example(union, st.one_of(*(m.pairs for m in members)))


def _are_apart(members):
    """Return whether no JSON value can be of two of the *members*: else the first that fits is taken."""
    types = [{"number" if name == "integer" else name for name in json_types_of(member.type)} for member in members]
    return sum(map(len, types)) == len(set().union(*types))


def _plain_unions(inner):
    return st.lists(inner, min_size=2, max_size=3).filter(_are_apart).map(_united)


@attrs.frozen
class Node:
    """A node of a tree, which may be deep."""

    children: list[Node]


def _nested(depth):
    value, expected = {"children": []}, Node([])
    for _ in range(depth):
        value, expected = {"children": [value]}, Node([expected])
    return value, expected


nodes = Example(Node, st.integers(0, 50).map(_nested))
examples = st.recursive(
    st.one_of(scalars, st.just(nodes)),
    lambda inner: st.one_of(_collections(inner), _objects(inner), _plain_unions(inner), _tagged_unions(inner)),
    max_leaves=6,
)
"""Output types of every kind, and their values."""

# Since CPython 3.14 an optional list is written `list[...] | None`; a bare `null` cannot be found in prose.
roots = st.one_of(
    examples.filter(
        lambda made: re.match(r"(list|dict|tuple|<class '.*Made)(?!.*\| None$)", repr(made.type)) is not None
    ),
    _tagged_unions(scalars),
    st.just(nodes),
)
"""Output types whose values are arrays or objects, which can be found in prose."""

json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), integers, floats, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


@st.composite
def altered(draw, value):
    """*value* with a part of it replaced, removed or added."""
    if isinstance(value, list | dict) and draw(st.booleans()):
        if not value or draw(st.integers(0, 3)) == 0:
            return [*value, draw(json_values)] if isinstance(value, list) else {**value, draw(texts): draw(json_values)}
        key = draw(st.sampled_from(range(len(value)) if isinstance(value, list) else sorted(value)))
        copy = value.copy()
        if draw(st.integers(0, 3)) == 0:
            del copy[key]
        else:
            copy[key] = draw(altered(value[key]))
        return copy
    return draw(json_values)


@st.composite
def written(draw, value, *, wild=True):
    """*value* as a model may write it: JSON, with trailing commas, comments, other quotes, Python's constants."""
    quotes = draw(st.sampled_from(['""', "\u201c\u201d", "\u201e\u201c", "''"])) if wild else '""'

    def blank():
        return draw(st.sampled_from(["", " ", "\n", " // a comment, {\n", " # one\n", "/* [ */"])) if wild else ""

    def comma():
        return draw(st.sampled_from(["", ","])) if wild else ""

    def string(text):
        escaped = json.dumps(text, ensure_ascii=quotes != '""')
        if quotes == '""':
            return escaped
        inner = escaped[1:-1].replace("'", "\\u0027")
        return f"{quotes[0]}{inner}{quotes[1]}"

    def write(value):
        if isinstance(value, str):
            return string(value)
        if isinstance(value, list):
            items = ",".join(f"{blank()}{write(item)}{blank()}" for item in value)
            return f"[{items}{comma() if value else ''}{blank()}]"
        if isinstance(value, dict):
            members = ",".join(f"{blank()}{string(k)}{blank()}:{blank()}{write(v)}{blank()}" for k, v in value.items())
            return f"{{{members}{comma() if value else ''}{blank()}}}"
        if wild and (value is None or isinstance(value, bool)):
            return draw(st.sampled_from([json.dumps(value), repr(value)]))
        return json.dumps(value)

    return write(value)


wrappers = st.sampled_from(
    [
        "{}",
        " \n{}\n",
        "```json\n{}\n```",
        "```\n{}\n```",
        'Sure! Here is the JSON (see [the docs], {{braces}}):\n\n{}\n\nI hope that it\'s what "you" need.',
        "Here it is:\n```json\n{}\n```\nThe [second] line.",
        "<think>Is it {{x}}? No: [...]</think>\n{}",
        '{{"something": ["else", 0.5]}} is wrong. {}',
        "I thought [hard], in [0, 1) and {{x or [1 2 and }}]:\n{}\nor [rather [so",
        "[See {{the docs}}, and [x\n```\n{}\n```\n[y",
        'Begin with {{"some": thing, [and end with it: {}',
    ]
)
"""What models write around a value."""
