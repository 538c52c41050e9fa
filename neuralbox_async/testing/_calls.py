"""What one POST to a generate endpoint asks for: either documented form of the body, checked field by field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeGuard, cast

import attrs

from neuralbox_async.testing._refusals import RefusalError, invalid
from neuralbox_async.testing._text import IMAGE_TOKENS, count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Dialect: TypeAlias = Literal["a", "b"]
JsonObject: TypeAlias = dict[str, Any]

ROLES = ("system", "user", "assistant")


@attrs.frozen(kw_only=True)
class Call:
    """A valid request for a generation. *prompt* is the last user message's text, *images* how many there are."""

    data: JsonObject
    model: str
    dialect: Dialect | None
    stream: bool
    background: bool
    prompt: str
    images: int
    prompt_tokens: int
    max_tokens: int | None


def load_json(body: bytes) -> object:
    """Parse *body* as strict JSON.

    Raises:
        RefusalError: 400, when it is something else; `NaN` and `Infinity` are.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RefusalError(400, message="The body is not valid JSON.") from error


def wants_stream(data: object, path: str) -> bool:
    """Whether the request asks for server-sent events, by its path or by its `stream` member."""
    return path == "/generate/stream" or (_is_object(data) and data.get("stream") is True)


def load_call(data: object, path: str) -> Call:
    """Read a generate request in either form: `messages` with top-level options, or `prompt` with `params`.

    The dialect is "b" for the second form and for the path that only dialect B documents; None where it is open.

    Raises:
        RefusalError: 422, with a rule for each field that breaks one.
    """
    if not _is_object(data):
        raise invalid({"body": "must be a JSON object"})
    has_prompt = "prompt" in data and "messages" not in data
    problems = dict(_prompt_form_problems(data) if has_prompt else _messages_form_problems(data))
    if problems:
        raise invalid(problems)
    return _call(data, path, has_prompt=has_prompt)


def _call(data: JsonObject, path: str, *, has_prompt: bool) -> Call:
    options = cast("JsonObject", data.get("params") or {}) if has_prompt else data
    messages: list[JsonObject] = [*(options.get("messages") or [])]
    if has_prompt:
        messages.append({"role": "user", "content": data["prompt"]})
    system: str = options.get("system_prompt" if has_prompt else "system") or ""
    images = sum(_images(message["content"]) for message in messages)
    return Call(
        data=data,
        model=data["model"],
        dialect="b" if has_prompt or path == "/generate/stream" else None,
        stream=wants_stream(data, path),
        background=data.get("background") is True,
        prompt=_last_user_text(messages),
        images=images,
        prompt_tokens=sum(count_tokens(text) for text in (system, *_texts(messages))) + images * IMAGE_TOKENS,
        max_tokens=options.get("max_tokens"),
    )


def _messages_form_problems(data: JsonObject) -> Iterator[tuple[str, str]]:
    yield from _model_problems(data)
    if "messages" not in data:
        yield "messages", "is required"
    else:
        yield from _message_list_problems(data["messages"], "messages")
    if not _is_text_or_absent(data.get("system")):
        yield "system", "must be a string"
    yield from _option_problems(data, "")


def _prompt_form_problems(data: JsonObject) -> Iterator[tuple[str, str]]:
    yield from _model_problems(data)
    if not isinstance(data["prompt"], str):
        yield "prompt", "must be a string"
    params: object = data.get("params")
    if params is None:
        return
    if not _is_object(params):
        yield "params", "must be an object"
        return
    if params.get("messages"):
        yield from _message_list_problems(params["messages"], "params.messages")
    if not _is_text_or_absent(params.get("system_prompt")):
        yield "params.system_prompt", "must be a string"
    yield from _option_problems(params, "params.")


def _model_problems(data: JsonObject) -> Iterator[tuple[str, str]]:
    if "model" not in data:
        yield "model", "is required"
    elif not isinstance(data["model"], str) or not data["model"]:
        yield "model", "must be a non-empty string"


def _option_problems(options: JsonObject, where: str) -> Iterator[tuple[str, str]]:
    temperature = options.get("temperature")
    if temperature is not None and not (_is_number(temperature) and 0 <= temperature <= 2):
        yield f"{where}temperature", "must be a number from 0.0 to 2.0"
    max_tokens = options.get("max_tokens")
    if max_tokens is not None and not (_is_integer(max_tokens) and max_tokens >= 1):
        yield f"{where}max_tokens", "must be an integer of at least 1, or null"
    if not isinstance(options.get("stream", False), bool):
        yield f"{where}stream", "must be true or false"


def _message_list_problems(value: object, where: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, list) or not value:
        yield where, "must be a non-empty array"
        return
    for index, message in enumerate(cast("list[object]", value)):
        yield from _message_problems(message, f"{where}.{index}")


def _message_problems(message: object, where: str) -> Iterator[tuple[str, str]]:
    if not _is_object(message):
        yield where, "must be an object"
        return
    if message.get("role") not in ROLES:
        yield f"{where}.role", "must be one of system, user, assistant"
    content = message.get("content")
    if isinstance(content, list) and content:
        for index, part in enumerate(cast("list[object]", content)):
            yield from _part_problems(part, f"{where}.content.{index}")
    elif not isinstance(content, str):
        yield f"{where}.content", "must be a string or a non-empty array of parts"


def _part_problems(part: object, where: str) -> Iterator[tuple[str, str]]:
    kind = part.get("type") if _is_object(part) else None
    if not _is_object(part) or kind not in ("text", "image_url"):
        yield where, "must be a part of type text or image_url"
    elif kind == "text" and not isinstance(part.get("text"), str):
        yield f"{where}.text", "must be a string"
    elif kind == "image_url" and not _is_image_url(part.get("image_url")):
        yield f"{where}.image_url", "must be an object with the string member url"


def _is_image_url(value: object) -> bool:
    return _is_object(value) and isinstance(value.get("url"), str)


def _is_object(value: object) -> TypeGuard[JsonObject]:
    return isinstance(value, dict)


def _is_text_or_absent(value: object) -> bool:
    return value is None or isinstance(value, str)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, float) or _is_integer(value)


def _texts(messages: Iterable[JsonObject]) -> Iterator[str]:
    for message in messages:
        yield _text(message["content"])


def _text(content: str | list[JsonObject]) -> str:
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if part["type"] == "text")


def _images(content: str | list[JsonObject]) -> int:
    return 0 if isinstance(content, str) else sum(part["type"] == "image_url" for part in content)


def _last_user_text(messages: list[JsonObject]) -> str:
    return next((_text(message["content"]) for message in reversed(messages) if message["role"] == "user"), "")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
