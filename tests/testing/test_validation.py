"""What a generate request must be, field by field."""

import pytest

HI = [{"role": "user", "content": "Hi"}]


def part(**members):
    """Return messages with one part."""
    return [{"role": "user", "content": [members]}]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe\xfd", b'{"temperature": NaN}', b'{"temperature": -Infinity}', b"[" * 200_000]
)
def test_what_is_not_json_is_a_400(caller, body):
    """A body that is not JSON is refused as such."""
    answer = caller.post(body)
    assert (400, "bad_request") == (answer.status, answer.json["error"])


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
def test_what_breaks_a_rule_is_a_422(caller, body, field):
    """A body that breaks a rule is refused, and the details name the field."""
    answer = caller.post(body if body is not None else b"null")
    assert (422, "validation_error") == (answer.status, answer.json["error"])
    assert field in answer.json["details"]
    assert f"{field} {answer.json['details'][field]}" in answer.json["message"]
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
def test_what_is_valid_passes(caller, members):
    """Bounds, nulls and members unknown to the documentation pass."""
    assert 200 == caller.say(**members).status
