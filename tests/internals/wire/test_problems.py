"""A malformed value of a minor member costs nobody the text: it is left out, named in `problems`, and kept in `raw`."""

from __future__ import annotations

import json
import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_values import JSON_VALUES

from neuralbox_async import Generation, GenerationEnd, GenerationStart, ResponseError, Usage
from neuralbox_async._wire.events import decode_event
from neuralbox_async._wire.responses import decode_generation, structure_generation
from neuralbox_async._wire.structuring import GENERATION_NAMES

pytestmark = pytest.mark.usefixtures("json_library", "fast_paths")

SAMPLE = {
    "id": "gen_01",
    "status": "completed",
    "model": "claude-sonnet-4.5",
    "content": "paid for",
    "tokens_used": 3,
    "balance_remaining": 297,
    "usage": {"prompt_tokens": 142, "completion_tokens": 387, "total_tokens": 529},
    "created_at": "2026-03-08T12:00:00Z",
}
ESSENTIAL = {"id", "status", "content", "result_text"}
MINOR = [*sorted({name for names in GENERATION_NAMES.values() for name in names} - ESSENTIAL), "duration", "more"]
MINOR_NAMES = st.sampled_from(MINOR) | st.text().filter(lambda name: name not in ESSENTIAL)
ODD_VALUES = JSON_VALUES | st.sampled_from(
    [97.5, [], {}, "5", "100%", True, math.nan, -math.inf, 2**63, -(2**63) - 1, 10**400, "2026-03-08 noon", "\ud800"]
)
USAGES = st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "more"]), ODD_VALUES)


@pytest.fixture(params=["on", "off"])
def fast_paths(request, monkeypatch):
    """Run the test with the fast paths and without them."""
    monkeypatch.setattr("neuralbox_async._fast_paths.enabled", lambda: request.param == "on")


def load(**members):
    return decode_generation(200, {}, json.dumps({**SAMPLE, **members}).encode())


ODD = {
    "a fraction": ({"balance_remaining": 97.5}, "balance_remaining", "$.balance_remaining"),
    "a string of digits": ({"tokens_used": "5"}, "tokens_used", "$.tokens_used"),
    "a boolean": ({"tokens_used": True}, "tokens_used", "$.tokens_used"),
    "not a number": ({"tokens_used": math.nan}, "tokens_used", "$.tokens_used"),
    "65 bits": ({"tokens_used": 2**63}, "tokens_used", "$.tokens_used"),
    "65 bits, negative": ({"tokens_used": -(2**63) - 1}, "tokens_used", "$.tokens_used"),
    "70 bits": ({"tokens_used": 2**70}, "tokens_used", "$.tokens_used"),
    "a large float": ({"balance_remaining": 1e300}, "balance_remaining", "$.balance_remaining"),
    "hundreds of digits": ({"tokens_used": 10**400}, "tokens_used", "$.tokens_used"),
    "the second dialect": ({"tokens_used": None, "tokens_spent": 3.5}, "tokens_used", "$.tokens_spent"),
    "an empty list": ({"usage": []}, "usage", "$.usage"),
    "percent": ({"progress": "100%"}, "progress", "$.progress"),
    "infinity": ({"eta_seconds": math.inf}, "eta_seconds", "$.eta_seconds"),
    "a Unix time": ({"created_at": 1709903600}, "created_at", "$.created_at"),
    "a time in words": ({"completed_at": "yesterday"}, "completed_at", "$.completed_at"),
    "a model object": ({"model": {"slug": "gpt-5"}}, "model", "$.model"),
    "an error object": ({"error": {"code": 0}}, "error", "$.error"),
    "a list of URLs": ({"result_url": ["u"]}, "url", "$.result_url"),
    "text for metadata": ({"result_metadata": "x"}, "metadata", "$.result_metadata"),
}


@pytest.mark.parametrize("members, field, path", ODD.values(), ids=ODD)
def test_odd_values(members, field, path):
    """A malformed value becomes None and is named by its path; everything else is read as usual."""
    generation = load(**members)

    assert getattr(generation, field) is None
    assert (path,) == generation.problems
    assert repr({**SAMPLE, **members}) == repr(dict(generation.raw))
    others = {name for name in vars(load()) if name not in {field, "problems", "raw"}}
    assert {name: getattr(load(), name) for name in others} == {name: getattr(generation, name) for name in others}


def test_one_count_of_the_usage():
    """Of the usage, only the odd count is None."""
    generation = load(usage={"prompt_tokens": 1, "completion_tokens": "2", "total_tokens": 3.0, "cached": []})

    assert Usage(prompt_tokens=1, completion_tokens=None, total_tokens=3) == generation.usage
    assert ("$.usage.completion_tokens",) == generation.problems


def test_the_other_name_of_a_member():
    """Where one dialect's member is odd, the other's is used."""
    generation = load(tokens_used="5", tokens_spent=5, model=1, model_slug="gpt-5")

    assert (5, "gpt-5") == (generation.tokens_used, generation.model)
    assert {"$.tokens_used", "$.model"} == set(generation.problems)


def test_a_plain_response_has_no_problems():
    """Without an odd value, *problems* is empty and not shown."""
    assert () == load().problems == Generation().problems
    assert "problems" not in repr(load())


def test_problems_as_part_of_a_generation():
    """*problems* is shown and pickled, and takes no part in comparisons."""
    generation = load(usage=[])

    assert "problems=('$.usage',)" in repr(generation)
    assert ("$.usage",) == pickle.loads(pickle.dumps(generation)).problems
    assert generation == load(usage=None)
    assert ("$.usage",) == structure_generation(generation.raw).problems


@given(st.dictionaries(MINOR_NAMES, ODD_VALUES), USAGES | ODD_VALUES)
def test_any_value_of_a_minor_member(members, usage):
    """Any value of any minor member of a response with text gives that text."""
    generation = load(**{"usage": usage, **members})

    assert ("paid for", "completed", "gen_01") == (generation.content, generation.status, generation.id)
    assert all(path.removeprefix("$.").partition(".")[0] in {"usage", *members} for path in generation.problems)
    for name in (generation.tokens_used, generation.balance_remaining):
        assert name is None or -(2**63) <= name < 2**63


@given(st.dictionaries(MINOR_NAMES, ODD_VALUES), USAGES | ODD_VALUES, st.sampled_from(["start", "end"]))
def test_any_value_of_a_minor_member_of_an_event(members, usage, which):
    """Any value of any minor member of the first or the last event gives that event, with its id."""
    event = decode_event(json.dumps({"usage": usage, **members, "type": f"generation_{which}", "id": "gen_1"}))

    assert (GenerationStart if which == "start" else GenerationEnd) is type(event)
    assert "gen_1" == event.id
    assert all(path.removeprefix("$.").partition(".")[0] in {"usage", *members} for path in event.problems)


@pytest.mark.parametrize("name", [*MINOR, "prompt_tokens"])
def test_thousands_of_digits(name):
    """An integer that Python does not convert is a string of digits in *raw*, and no count."""
    digits = b"9" * 5000
    value = b'{"prompt_tokens":%b}' % digits if name == "prompt_tokens" else digits
    wire = b"usage" if name == "prompt_tokens" else name.encode()
    body = b'{"%b":%b,"id":"gen_01","status":"completed","content":"paid for"}' % (wire, value)

    generation = decode_generation(200, {}, body)

    assert ("paid for", None, None) == (generation.content, generation.tokens_used, generation.balance_remaining)
    assert digits.decode() in repr(generation.raw)


def nested(depth, opening="[", closing="]"):
    return opening * depth + "1" + closing * depth


@pytest.mark.parametrize("depth", [129, 900, 985, 1000, 1030, 100_000])
@pytest.mark.parametrize("name", ["usage", "more", "result_metadata", "created_at"])
@pytest.mark.parametrize("opening, closing", [("[", "]"), ('{"a":', "}")])
def test_deep_nesting(depth, name, opening, closing):
    """A member that is nested too deeply is left out and named; the text is there, and all can be pickled and shown."""
    deep = nested(min(depth, 10_000) if "{" in opening else depth, opening, closing)
    text = "a [[{{ in a text"
    body = f'{{"{name}": {deep}, "id": "gen_01", "content": "{text}"}}'.encode()

    generation = decode_generation(200, {}, body)

    assert (text, "gen_01", (f"$.{name}",)) == (generation.content, generation.id, generation.problems)
    assert {name: None, "id": "gen_01", "content": text} == generation.raw
    assert generation == pickle.loads(pickle.dumps(generation))
    end = decode_event(f'{{"{name}": {deep}, "type": "generation_end", "id": 1}}')
    assert (1, (f"$.{name}",)) == (end.id, end.problems)


@pytest.mark.parametrize("name", sorted(ESSENTIAL))
def test_deep_nesting_of_an_essential_member(name):
    """An essential member that is nested too deeply is an error, with the text that can be read."""
    other = {"id": '"status": "completed"', "status": '"id": 1'}.get(name, '"status": "completed"')
    text = "" if name in {"content", "result_text"} else '"content": "paid for", '
    with pytest.raises(ResponseError, match="nested too deeply") as caught:
        decode_generation(200, {}, f'{{{text}{other}, "{name}": {nested(1000)}}}'.encode())

    assert (f"$.{name}", "paid for" if text else "") == (caught.value.path, caught.value.text)


def test_a_moderate_depth_is_kept():
    """Up to 128 levels are kept."""
    value = json.loads(nested(128))

    assert value == load(more=value).raw["more"]
    assert () == load(more=value).problems


BROKEN = {
    "cut in the text": (b'{"id": "gen_1", "content": "paid f', "paid f"),
    "cut in an escape": (b'{"id": "gen_1", "content": "paid\\u00', "paid"),
    "cut in a pair": (b'{"id": "gen_1", "content": "paid \\ud83d\\ude', "paid "),
    "cut after the text": (b'{"id": "gen_1", "content": "paid", "usage": {"tot', "paid"),
    "cut at a deep place": (b'{"id": "gen_1", "content": "paid", "usage": ' + b"[" * 100_000, "paid"),
    "bytes after it": (b'{"id": "gen_1", "content": "paid"}}', "paid"),
    "a malformed value": (b'{"id": "gen_1", "content": "paid", "usage": nul}', "paid"),
    "a malformed escape": (b'{"id": "gen_1", "content": "paid\\x"}', "paid"),
    "not UTF-8": (b'{"id": "gen_1", "content": "pa\xefd"}', "pa\N{REPLACEMENT CHARACTER}d"),
}


@pytest.mark.parametrize("body, text", BROKEN.values(), ids=BROKEN)
def test_text_of_a_malformed_body(body, text):
    """The error of a body that is not JSON has the text and the id that can be read."""
    with pytest.raises(ResponseError, match="not JSON") as caught:
        decode_generation(200, {}, body)

    assert ("gen_1", text, body) == (caught.value.generation_id, caught.value.text, caught.value.body)


@given(st.integers(0, 200), st.binary(max_size=3))
def test_a_body_that_is_cut_anywhere(cut, garbage):
    """Wherever a body is cut, the text of the error is the beginning of the text."""
    body = json.dumps({"usage": {"a": [1, "\\"]}, "content": 'a "quoted" \\ \U0001f600 \n text', "more": None}).encode()
    try:
        generation = decode_generation(200, {}, body[:cut] + garbage)
    except ResponseError as error:
        text = error.text
    else:
        text = generation.content
    if cut < len(body) and not garbage:
        assert 'a "quoted" \\ \U0001f600 \n text'.startswith(text)


def test_the_reason_of_a_failure_in_an_object():
    """A failed generation whose ``error`` is an object has its message as reason."""
    from neuralbox_async import GenerationFailedError

    with pytest.raises(GenerationFailedError, match="content policy") as caught:
        load(status="failed", error={"code": "policy", "message": "content policy"})

    assert ("content policy", "no", "paid for") == (caught.value.reason, caught.value.billed, caught.value.text)


@pytest.mark.parametrize("value", [None, 5, "text", [], [SAMPLE]])
def test_what_is_not_an_object(value):
    """Other JSON than an object is no generation, also from a journal."""
    with pytest.raises(ResponseError, match="expected a JSON object"):
        structure_generation(value)
