"""Output types: the schema, the structure, and what is found in a text, agree for every type and value."""

from __future__ import annotations

import json

import jsonschema
from hypothesis import assume, given
from hypothesis import strategies as st
from output_values import altered, examples, json_values, roots, wrappers, written

from neuralbox_async._parsed import InvalidOutputError
from neuralbox_async._wire.output_types import output_type_of

CHECKER = jsonschema.FormatChecker(["date", "date-time", "uuid"])


def accepts(output_type, value):
    validator = jsonschema.Draft202012Validator(output_type.schema, format_checker=CHECKER)
    return validator.is_valid(value)


def structured(output_type, value):
    """Return the structured *value* in a list, or an empty list when it is invalid."""
    try:
        return [output_type.structure(value)]
    except InvalidOutputError as error:
        assert error.problems
        return []


@given(st.data())
def test_schemas_are_valid(data):
    """Each schema is one of draft 2020-12, by the meta-schema, and is the same each time."""
    made = data.draw(examples)

    schema = output_type_of(made.type).schema

    jsonschema.Draft202012Validator.check_schema(schema)
    output_type_of.__globals__["_made"].cache_clear()
    assert json.dumps(schema) == json.dumps(output_type_of(made.type).schema)


@given(st.data())
def test_values(data):
    """A JSON value is structured as the value that it stands for, and the schema accepts it."""
    made = data.draw(examples)
    output_type = output_type_of(made.type)
    value, expected = data.draw(made.pairs)

    assert expected == output_type.structure(value)
    assert accepts(output_type, value)


@given(st.data())
def test_the_schema_accepts_what_is_structured(data):
    """The schema accepts exactly the JSON values that are structured: any value, and almost valid ones."""
    made = data.draw(examples)
    output_type = output_type_of(made.type)
    value = data.draw(st.one_of(json_values, made.pairs.flatmap(lambda pair: altered(pair[0]))))

    assert accepts(output_type, value) == bool(structured(output_type, value))


@given(st.data())
def test_every_way_to_write_a_value(data):
    """A text in which a model wrote a value in its own way, with anything around it, is parsed as that value."""
    made = data.draw(roots)
    output_type = output_type_of(made.type)
    value, expected = data.draw(made.pairs)
    wrapper = data.draw(wrappers)
    # The object before the value must not be one itself.
    assume("something" not in wrapper or not accepts(output_type, {"something": ["else", 0.5]}))

    assert expected == output_type.parse(wrapper.format(data.draw(written(value))))


@given(st.data())
def test_cut_texts(data):
    """A text that ends inside of its value has none, wherever it ends."""
    made = data.draw(roots)
    value, _ = data.draw(made.pairs)
    text = data.draw(written(value))
    end = data.draw(st.integers(0, len(text) - 1))
    assume(text[:end].strip())

    try:
        parsed = output_type_of(made.type).parse(text[:end])
    except InvalidOutputError:
        return
    raise AssertionError(parsed)


@given(st.data())
def test_random_texts(data):
    """Any text is a value or an error with problems; nothing else is raised."""
    made = data.draw(examples)
    pieces = st.sampled_from(
        [*'{}[]":,\\\n`/*#', '{"a":', "```", "NaN", "-1e5", "\u201c", "\\u", "true", " ", "x", "[1,"]
    )
    text = data.draw(st.one_of(st.text(max_size=60), st.lists(pieces, max_size=25).map("".join)))

    try:
        output_type_of(made.type).parse(text)
    except InvalidOutputError as error:
        assert error.problems
    output_type_of(made.type).parse_partial(text)


@given(st.data())
def test_growing_values(data):
    """The growing value of a text is there from its bracket on, never shrinks, and ends as the whole value."""
    value = data.draw(json_values.filter(lambda value: isinstance(value, list | dict)))
    text = data.draw(written(value))
    output_type = output_type_of(type(value))

    sizes = []
    for end in range(1, len(text) + 1):
        partial = output_type.parse_partial(text[:end])
        sizes.append(len(json.dumps(partial)))

    assert sorted(sizes) == sizes
    assert value == output_type.parse_partial(text)
