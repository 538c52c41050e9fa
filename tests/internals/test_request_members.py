"""The members of a dict that describes a request: fields, names that are nearly fields, and all others."""

from __future__ import annotations

import pytest

from neuralbox_async import GenerateRequest, InvalidParameterError
from neuralbox_async._request_members import FIELDS, intended_field

ORDINARY_NAMES = """
    id text title topic name index date url email comment review rating stars body content input question answer
    language mode module node method code label category score count row number price customer product token tokens
    extra temp max min keys keyword key_id key2 message_id model_name model_id models model2 systems system_id
    ecosystem temperatures temperature_c temperature2 temperate template prompt_id prompt_text prompts_sent tokens_used
    max_tokens_used extra_info stream user top_p stop seed metadata
"""

NEAR_MISSES = {
    "temprature": "temperature",
    "Temperature": "temperature",
    " temperature": "temperature",
    "temperture": "temperature",
    "max_token": "max_tokens",
    "maxTokens": "max_tokens",
    "Max tokens": "max_tokens",
    "max-tokens": "max_tokens",
    "MAX_TOKENS": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "sytem": "system",
    "system_prompt": "system",
    "System": "system",
    "Model": "model",
    "modle": "model",
    "modell": "model",
    "Key": "key",
    "key ": "key",
    "extraBody": "extra_body",
    "extra-body": "extra_body",
}


@pytest.mark.parametrize("name", sorted(ORDINARY_NAMES.split()))
def test_ordinary_names(name):
    """An ordinary name of a column is not mistaken for a field, and is not sent."""
    assert name not in FIELDS
    assert GenerateRequest("m", "Hi") == GenerateRequest.from_dict({"prompt": "Hi", "model": "m", name: "x"})


@pytest.mark.parametrize("name, field", NEAR_MISSES.items())
def test_near_misses(name, field):
    """A name that is nearly a field is an error with both names, whatever its value."""
    for value in ("x", None):
        with pytest.raises(InvalidParameterError) as caught:
            GenerateRequest.from_dict({"prompt": "Hi", name: value}, model="m")
        assert name == caught.value.parameter
        assert name in str(caught.value)
        assert repr(field) in str(caught.value)


@pytest.mark.parametrize("name, field", NEAR_MISSES.items())
def test_names_beside_their_field(name, field):
    """A name that is nearly a field is a name of its own if that field is there."""
    members = {"prompt": "Hi", "model": "m"}
    value = {"temperature": 1, "max_tokens": 5, "extra_body": {"a": 1}}.get(field, "m")
    members[field] = value
    assert GenerateRequest.from_dict(members) == GenerateRequest.from_dict({**members, name: "x"})


@pytest.mark.parametrize("name", ["message", "prompts", "Prompt", "promt", "Messages"])
def test_names_of_the_content(name):
    """What is nearly "prompt" or "messages" is refused where both are missing, and left out where one is there."""
    with pytest.raises(InvalidParameterError, match=r"spelled '(prompt|messages)'"):
        GenerateRequest.from_dict({name: "Hi"}, model="m")
    assert GenerateRequest("m", "Hi") == GenerateRequest.from_dict({"prompt": "Hi", name: "x"}, model="m")


def test_missing_content():
    """The error of a dict without prompt and messages has the names that it has."""
    with pytest.raises(InvalidParameterError, match="'id', 'text'") as caught:
        GenerateRequest.from_dict({"id": 1, "text": "Hi"}, model="m")
    assert "prompt" == caught.value.parameter
    with pytest.raises(InvalidParameterError, match="no members"):
        GenerateRequest.from_dict({}, model="m")


def test_names_that_are_no_strings():
    """A table may have columns whose names are numbers."""
    assert GenerateRequest("m", "Hi") == GenerateRequest.from_dict({"prompt": "Hi", 5: 6, None: 7}, model="m")


def test_extra_body():
    """*extra_body* sends further members."""
    request = GenerateRequest.from_dict({"prompt": "Hi", "extra_body": {"top_p": 1}, "seed": 4}, model="m")

    assert {"top_p": 1} == request.extra_body


def test_fields_are_no_near_misses():
    """No field is nearly another one."""
    assert {field: field for field in FIELDS} == {field: intended_field(field) for field in FIELDS}


@pytest.mark.parametrize("prompt", ["", " ", "\n\t", "\u00a0"])
def test_empty_prompts(prompt):
    """A prompt, or a last message, of nothing but white space is refused: it would be billed."""
    for messages in (prompt, [{"role": "user", "content": prompt}], [{"role": "user", "content": "Hi"},
                     {"role": "assistant", "content": prompt}]):  # fmt: skip
        with pytest.raises(InvalidParameterError) as caught:
            GenerateRequest("m", messages)
        name = "prompt" if len(messages) < 2 or isinstance(messages, str) else "messages[-1].content"
        assert f"{name} must be text that is not empty, not {prompt!a}" == str(caught.value)
    with pytest.raises(InvalidParameterError, match="prompt must be text that is not empty"):
        GenerateRequest.from_dict({"prompt": prompt}, model="m")


def test_empty_turns():
    """An earlier turn may be empty: a model may have generated nothing."""
    turns = [("user", "Hi"), ("assistant", ""), ("user", "Hello?")]
    assert 3 == len(GenerateRequest("m", [{"role": role, "content": text} for role, text in turns]).messages)
