"""``--schema``: valid JSON out, or an error with the text that was paid for."""

from __future__ import annotations

import json
import sys

import pytest
from typed_answers import prompt_in, text_for, tries_in

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "length": {"$ref": "#/$defs/length"}},
    "required": ["text", "length"],
    "$defs": {"length": {"type": "integer", "minimum": 0}},
}


@pytest.fixture
def schema(tmp_path):
    """Write a schema, and return the path of its file."""

    def write(contents=SCHEMA):
        path = tmp_path / "schema.json"
        path.write_text(contents if isinstance(contents, str) else json.dumps(contents), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def server(serve):
    """A server whose answers are invalid as often as the prompt says."""
    return serve(reply=text_for)


NESTED = {
    "$id": "https://example.com/root",
    "type": "object",
    "properties": {"text": {"$ref": "inner"}, "length": {"$ref": "inner#/$defs/length"}, "$ref": {"type": "null"}},
    "required": ["text", "length"],
    "$defs": {"inner": {"$id": "inner", "$ref": "#/$defs/text", "$defs": {"text": {"type": "string"}, "length": {}}}},
}


class TestGenerate:
    def test_nested_identifiers(self, run, server, schema):
        """References are relative to the `$id` of the schema in which they are."""
        result = run("generate", "red", "--schema", schema(NESTED))

        assert (0, {"text": "red", "length": 3}) == (result.status, json.loads(result.out))

    def test_a_reference_within_a_nested_identifier(self, run, server, schema):
        """A reference that names nothing where it is, is an error before anything is sent."""
        inner = {"$id": "inner", "$ref": "#/$defs/text"}
        contents = {**NESTED, "$defs": {"inner": inner, "text": {"type": "string"}, "length": {}}}
        result = run("generate", "red", "--schema", schema(contents))

        assert (2, ()) == (result.status, server.requests)

    def test_valid_json(self, run, server, schema):
        """Stdout gets the value, after a repair if need be; the schema is sent."""
        result = run("generate", "red-1", "--schema", schema())

        assert (0, {"text": "red", "length": 3}) == (result.status, json.loads(result.out))
        assert 2 == len(server.billed)
        assert '"minimum":0' in server.requests[0].json["system"]
        assert "$.length" in server.requests[1].json["messages"][-1]["content"]

    def test_json(self, run, server, schema):
        """With ``--json``, the line has the value, the generation, and the tokens of both generations."""
        line = json.loads(run("generate", "red-1", "--schema", schema(), "--json").out)

        assert ({"text": "red", "length": 3}, "completed") == (line["value"], line["status"])
        assert line["tokens_used"] == sum(bill.tokens_used for bill in server.billed) > 0

    @pytest.mark.parametrize("repairs, sent", [(0, 1), (1, 2), (3, 4)])
    def test_an_invalid_answer(self, run, server, schema, repairs, sent):
        """Stdout gets nothing that is invalid; stderr has the problems and the text."""
        result = run("generate", "red-9", "--schema", schema(), "--max-repairs", str(repairs))

        assert (1, "", sent) == (result.status, result.out, len(server.billed))
        assert "$.length: 'long' is not of type 'integer'" in result.err
        assert '{"text": "red", "length": "long"}' in result.err

    @pytest.mark.parametrize("text", ['{"length": NaN}', '{"length": 1e999}'])
    def test_numbers_that_json_lacks(self, run, serve, schema, text):
        """A number that JSON does not have is invalid, whatever the schema."""
        serve(reply=text)
        result = run("generate", "x", "--schema", schema({}), "--max-repairs", "0")

        assert (1, "") == (result.status, result.out)

    def test_no_stream(self, run, server, schema):
        """JSON is valid as a whole, so it is not streamed."""
        result = run("generate", "x", "--schema", schema(), "--stream")

        assert (2, ()) == (result.status, server.requests)
        assert "--stream and --schema are mutually exclusive" in result.err


@pytest.mark.parametrize(
    "contents, reason",
    [
        ("{", "Expecting property name"),
        ("[]", "it is not an object"),
        ("true", "it is not an object"),
        ({"type": "text"}, "$.type: 'text' is not valid"),
        ({"$ref": "#/$defs/none"}, "'#/$defs/none'"),
        ({"items": [{"$ref": "https://example.com/schema.json"}], "$schema": "http://json-schema.org/draft-07/schema#"},
         "'https://example.com/schema.json'"),
        ({"$ref": "#"}, "no value can be checked with it"),
        ({"pattern": "("}, "$.pattern: '(' is not a 'regex'"),
        ("[" * 100_000, "nested too deeply"),
        ('{"maximum": NaN}', "not JSON compliant"),
    ],
)  # fmt: skip
def test_files_that_are_no_schemas(run, server, schema, contents, reason):
    """A file that is not a schema, or that needs another file, is a usage error; nothing is sent."""
    result = run("generate", "x", "--schema", schema(contents))

    assert (2, ()) == (result.status, server.requests)
    assert reason in result.err


def test_earlier_drafts(run, server, schema):
    """A schema is checked under the draft that it names."""
    draft4 = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "properties": {"length": {"exclusiveMinimum": True}},
    }

    assert 2 == run("generate", "x", "--schema", schema(draft4)).status
    draft4["properties"]["length"]["minimum"] = 3
    assert 1 == run("generate", "red", "--schema", schema(draft4)).status
    assert 0 == run("generate", "green", "--schema", schema(draft4)).status


def test_without_the_library(run, server, schema, monkeypatch):
    """Without jsonschema, the message names the extra."""
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    result = run("generate", "x", "--schema", schema())

    assert (2, ()) == (result.status, server.requests)
    assert "neuralbox[cli]" in result.err


class TestBatch:
    @pytest.fixture
    def batch(self, run, schema, tmp_path):
        """Run a batch with a schema; return its result and its lines by key or prompt."""
        rows, output = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"

        def batch(prompts, *options, contents=SCHEMA, keyed=True):
            lines = [{"prompt": prompt, **({"key": prompt} if keyed else {})} for prompt in prompts]
            rows.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
            result = run("batch", str(rows), "-o", str(output), "--schema", schema(contents), "--ordered", *options)
            written = output.read_text("utf-8").splitlines() if output.exists() else []
            return result, [json.loads(line) for line in written]

        return batch

    def test_values(self, batch, server):
        """Each line has the value beside the text; a row whose answer stays invalid has the error and the text."""
        result, (red, blue, green) = batch(["red", "blue-1", "green-2"])

        assert ([{"text": "red", "length": 3}, {"text": "blue", "length": 4}], 3) == (
            [red["value"], blue["value"]],
            result.status,
        )
        assert ('{"text": "red", "length": 3}', "value" in green) == (red["content"], False)
        assert ("ParsingError", "yes", '{"text": "green", "length": "long"}') == (
            green["error_type"],
            green["billed"],
            green["text"],
        )
        assert sum(bill.tokens_used for bill in server.billed) == sum(
            line["tokens_used"] for line in (red, blue, green)
        )
        assert "2 completed; 1 failed (1 ParsingError)" in result.err

    def test_running_again(self, batch, server):
        """Another run pays for no text again, writes the same lines, and repairs further if it may."""
        _, first = batch(["red", "blue-1", "green-2"])
        _, second = batch(["red", "blue-1", "green-2"])
        assert 5 == len(server.billed)
        assert [_without_times(line) for line in first] == [_without_times(line) for line in second]

        result, (_, _, green) = batch(["red", "blue-1", "green-2"], "--max-repairs", "2")
        assert (0, {"text": "green", "length": 5}, 6) == (result.status, green["value"], len(server.billed))

    @pytest.mark.parametrize("keyed", [False, True])
    def test_another_schema(self, batch, server, keyed):
        """With another schema, rows without keys are new; one with a key can keep its text, valid or not."""
        batch(["red"], keyed=keyed)
        _, (red,) = batch(["red"], "--on-changed", "skip", contents={**SCHEMA, "maxProperties": 1}, keyed=keyed)

        assert (1 if keyed else 3) == len(server.billed)
        assert "ParsingError" == red["error_type"]
        assert '{"text": "red", "length": 3}' == red["text"]

    def test_dry_run(self, batch, server):
        """A dry run shows the instructions that are sent."""
        result, _ = batch(["red"], "--dry-run")

        assert "JSON Schema" in result.out
        assert () == server.billed


def _without_times(line):
    return {name: value for name, value in line.items() if name != "elapsed"}


def test_prompts():
    """The answers of the tests are what they say."""
    request = {"messages": [{"role": "user", "content": "red-1"}, {"role": "assistant", "content": ""}]}

    assert ("red-1", 1, '{"text": "red", "length": 3}') == (prompt_in(request), tries_in(request), text_for(request))
