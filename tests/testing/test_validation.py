"""Validation of generation requests, field by field."""

import pytest

HI = [{"role": "user", "content": "Hi"}]


def part(**members):
    """Return messages with one part."""
    return [{"role": "user", "content": [members]}]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe\xfd", b'{"temperature": NaN}', b'{"temperature": -Infinity}', b"[" * 200_000]
)
def test_malformed_json_is_a_400(caller, body):
    """A body that is not valid JSON gets a 400."""
    response = caller.post(body)
    assert (400, "bad_request") == (response.status, response.json["error"])


@pytest.mark.parametrize(
    "body, field",
    [
        ([], "body"),
        (None, "body"),
        ({"messages": HI}, "model"),
        ({"model": 5, "messages": HI}, "model"),
        ({"model": "", "messages": HI}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": "Hi"}, "messages"),
        ({"model": "m", "messages": ["Hi"]}, "messages.0"),
        ({"model": "m", "messages": [*HI, {"role": "tool", "content": ""}]}, "messages.1.role"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages.0.content"),
        ({"model": "m", "messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"model": "m", "messages": [{"role": ["user"], "content": ""}]}, "messages.0.role"),
        ({"model": "m", "messages": [{"role": "user", "content": ["Hi"]}]}, "messages.0.content.0"),
        ({"model": "m", "messages": part(type="audio")}, "messages.0.content.0"),
        ({"model": "m", "messages": part(type="text")}, "messages.0.content.0.text"),
        ({"model": "m", "messages": part(type="image_url", image_url="x")}, "messages.0.content.0.image_url"),
        ({"model": "m", "messages": part(type="image_url", image_url={})}, "messages.0.content.0.image_url"),
        ({"model": "m", "messages": HI, "temperature": 2.1}, "temperature"),
        ({"model": "m", "messages": HI, "temperature": -1}, "temperature"),
        ({"model": "m", "messages": HI, "temperature": "1"}, "temperature"),
        ({"model": "m", "messages": HI, "temperature": True}, "temperature"),
        ({"model": "m", "messages": HI, "max_tokens": 0}, "max_tokens"),
        ({"model": "m", "messages": HI, "max_tokens": 1.0}, "max_tokens"),
        ({"model": "m", "messages": HI, "max_tokens": True}, "max_tokens"),
        ({"model": "m", "messages": HI, "stream": "yes"}, "stream"),
        ({"model": "m", "messages": HI, "system": ["Be brief."]}, "system"),
        ({"model": "m", "prompt": ["Hi"]}, "prompt"),
        ({"prompt": "Hi"}, "model"),
        ({"model": "m", "prompt": "Hi", "params": "none"}, "params"),
        ({"model": "m", "prompt": "Hi", "params": {"temperature": 3}}, "params.temperature"),
        ({"model": "m", "prompt": "Hi", "params": {"system_prompt": 1}}, "params.system_prompt"),
        ({"model": "m", "prompt": "Hi", "params": {"messages": [{}]}}, "params.messages.0.role"),
    ],
)
def test_an_invalid_field_is_a_422(caller, body, field):
    """A body with an invalid field gets a 422 whose details name the field."""
    response = caller.post(body if body is not None else b"null")
    assert (422, "validation_error") == (response.status, response.json["error"])
    assert field in response.json["details"]
    assert f"{field} {response.json['details'][field]}" in response.json["message"]
    assert () == caller.server.billed


@pytest.mark.parametrize(
    "members",
    [
        {"temperature": 0},
        {"temperature": 2.0},
        {"temperature": None, "max_tokens": None, "system": None},
        {"max_tokens": 1},
        {"stream": False},
        {"anything": "else"},
    ],
)
def test_valid_requests(caller, members):
    """Boundary values, nulls and undocumented members are valid."""
    assert 200 == caller.post_message(**members).status
