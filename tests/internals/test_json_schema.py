"""JSON Schemas of users as output types: the results of the jsonschema library, with bounded work."""

from __future__ import annotations

import json
import pickle

import jsonschema
import pytest
from call_counts import calls_of
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async import _json_schema
from neuralbox_async._json_schema import output_type_of_schema
from neuralbox_async._parsed import InvalidOutputError

DRAFT_3 = "http://json-schema.org/draft-03/schema#"
LENGTH = 30_000
TREE = {
    "anyOf": [
        {"properties": {"children": {"items": {"$ref": "#"}}, "length": {"type": "integer"}}, "required": ["length"]},
        {"properties": {"children": {"items": {"$ref": "#"}}, "color": {"type": "string"}}, "required": ["color"]},
    ]
}
DYNAMIC = {
    "$id": "https://example.com/root",
    "$ref": "tree",
    "$defs": {
        "strict": {"$dynamicAnchor": "node", "required": ["color"], "$ref": "tree"},
        "tree": {
            "$id": "tree",
            "$dynamicAnchor": "node",
            "anyOf": [{"properties": {"children": {"items": {"$dynamicRef": "#node"}}}}, {"type": "null"}],
        },
    },
}


def fits(output_type, value):
    """Return whether *value* is of *output_type*."""
    try:
        output_type.structure(value)
    except InvalidOutputError as error:
        assert error.problems
        return False
    return True


leaves = st.sampled_from([None, True, False, 0, 1, 1.0, 1.5, "", "a", "length"])
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["children", "color", "length", "a"]), inner, max_size=3)
    ),
    max_leaves=10,
)
simple = st.one_of(
    st.sampled_from([True, False, {}, {"uniqueItems": True}, {"uniqueItems": False}, {"minItems": 1}, {"$ref": "#"}]),
    st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"]).map(
        lambda name: {"type": name}
    ),
    leaves.map(lambda value: {"const": value}),
)
schemas = st.recursive(
    simple,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["anyOf", "oneOf", "allOf"]), st.lists(inner, min_size=1, max_size=3)).map(
            lambda pair: dict([pair])
        ),
        inner.map(lambda schema: {"items": schema}),
        inner.map(lambda schema: {"not": schema}),
        inner.map(lambda schema: {"properties": {"a": schema}, "uniqueItems": True}),
    ),
    max_leaves=6,
).map(lambda schema: {"properties": {"children": schema, "a": schema}, "items": schema})


@given(schemas, values)
def test_any_schema(schema, value):
    """A value is accepted exactly if the library accepts it."""
    assert jsonschema.Draft202012Validator(schema).is_valid(value) == fits(output_type_of_schema(schema), value)


@pytest.mark.parametrize("schema", [TREE, DYNAMIC], ids=["$ref", "$dynamicRef"])
@given(value=values)
def test_recursive_schemas(schema, value):
    """So it is with a schema that refers to itself."""
    assert jsonschema.Draft202012Validator(schema).is_valid(value) == fits(output_type_of_schema(schema), value)


def nested(depth, **leaf):
    """Return a tree of one branch, *depth* levels deep, above *leaf*."""
    value = {"children": [], **leaf}
    for _ in range(depth):
        value = {"children": [value], "color": "red"}
    return value


@pytest.mark.long
@pytest.mark.parametrize("color, valid", [("red", True), (5, False)])
def test_deep_trees(color, valid):
    """Each part of a value is checked once with each of several schemas, however deep it is."""
    output_type = output_type_of_schema(TREE)
    value = nested(20, color=color)

    assert valid == fits(output_type, value)
    assert calls_of(lambda: output_type.structure(value)) < 100_000


NAMED = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
PETS = [
    {**NAMED, "properties": {"kind": {"const": "cat"}, **NAMED["properties"]}},
    {**NAMED, "properties": {"kind": {"const": "dog"}, **NAMED["properties"]}},
    {"type": "null"},
    {"enum": ["none"]},
]


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
@pytest.mark.parametrize(
    "value, problem",
    [
        ({"kind": "dog", "name": 5}, "$[0].name: 5 is not of type 'string'"),
        ({"kind": "cat"}, "$[0]: 'name' is a required property"),
        ({"kind": "dog", "name": [5]}, "$[0].name: [5] is not of type 'string'"),
        ("some", "$[0]: 'some' is not valid under any of the given schemas"),
        (5, "$[0]: 5 is not valid under any of the given schemas"),
    ],
)
def test_the_problems_of_several_schemas(keyword, value, problem):
    """A value that fits none of several schemas has the problems with the one that it almost fits."""
    with pytest.raises(InvalidOutputError) as caught:
        output_type_of_schema({"items": {keyword: PETS}}).structure([value])

    assert [problem] == list(map(str, caught.value.problems))


def test_pickles():
    """The type can be pickled, as for the workers of a cluster."""
    output_type = pickle.loads(pickle.dumps(output_type_of_schema(TREE)))

    assert (True, False) == (fits(output_type, nested(3, color="red")), fits(output_type, nested(3, color=5)))
    assert TREE == output_type.schema


def test_a_value_of_two_schemas():
    """A value that fits two schemas of `oneOf` is a problem."""
    with pytest.raises(InvalidOutputError, match="valid under each of"):
        output_type_of_schema({"oneOf": [{}, NAMED]}).structure({"name": "Rex"})


def many(piece):
    return "[" + ",".join([piece] * (LENGTH // len(piece))) + "]"


MIXED = json.dumps([{"a": number} for number in range(3_000)])
NESTED_ITEMS = "[" * 50 + many("[0]") + "]" * 50


@pytest.mark.long
@pytest.mark.parametrize(
    "schema, text",
    [
        ({"uniqueItems": True}, MIXED),
        ({"uniqueItems": True, "items": {"$ref": "#"}}, NESTED_ITEMS),
        ({"anyOf": [{"items": {"type": "integer"}}, {"items": {"type": "null"}}]}, many('"x"')),
        ({"oneOf": [{"items": {"type": "integer"}}, {"items": {"type": "null"}}]}, many('"x"')),
        ({"items": {"type": "object"}}, many("{}")),
        ({"items": {"allOf": [{"type": "object"}] * 20}}, many("{}")),
        (TREE, json.dumps(nested(40, color=5))),
        (
            {"properties": {"children": {"items": {"$ref": "#"}}}, "allOf": [TREE], "unevaluatedProperties": False},
            json.dumps(nested(40, color="red")),
        ),
        (
            {
                "if": {"properties": {"children": {"items": {"$ref": "#"}}}},
                "then": {"properties": {"children": {"items": {"$ref": "#"}}}},
            },
            json.dumps(nested(40)),
        ),
    ],
    ids=range(9),
)
def test_hostile_texts(monkeypatch, schema, text):
    """The work for a value is bounded, whatever the schema makes of it."""
    monkeypatch.setattr(_json_schema, "_MAX_WORK", 10_000)
    output_type = output_type_of_schema(schema)

    assert calls_of(lambda: output_type.parse(text)) < 500_000


@pytest.mark.long
def test_too_much_work(monkeypatch):
    """A value with more to check than the bound is a problem; the next value has all of it."""
    monkeypatch.setattr(_json_schema, "_MAX_WORK", 1000)
    output_type = output_type_of_schema({"items": {"allOf": [{"type": "object"}] * 20}})

    for _ in range(2):
        with pytest.raises(InvalidOutputError, match="too much to check"):
            output_type.structure([{}] * 50)
        assert fits(output_type, [{}] * 30)


@pytest.mark.parametrize(
    "schema, value",
    [
        ({"$schema": DRAFT_3, "type": [{"properties": {"a": {"type": "string"}}}, "array"]}, {"a": "b"}),
        ({"enum": [{"a": 1}, [2]]}, {"a": 1}),
        ({"const": [2]}, [2]),
    ],
)
def test_the_types_of_a_schema(schema, value):
    """Schemas as types, and arrays and objects as constants, are read in prose, too."""
    output_type = output_type_of_schema(schema)

    assert value == output_type.parse(f"Here: {json.dumps(value)} it is.")
    with pytest.raises(InvalidOutputError, match="ends before"):
        output_type.parse(f"Here: {json.dumps(value)}, or {json.dumps(value)[:1]}")
