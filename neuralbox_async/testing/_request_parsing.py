"""Parse the body of a POST to a generate endpoint: either documented form, validated field by field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias, TypeGuard, cast

import attrs

from neuralbox_async.testing._http_errors import HTTPError, validation_error
from neuralbox_async.testing._text import IMAGE_TOKENS, count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Dialect: TypeAlias = Literal["a", "b"]
JsonObject: TypeAlias = dict[str, Any]

ROLES = ("system", "user", "assistant")


@attrs.frozen(kw_only=True)
class GenerationRequest:
    """A valid request for a generation. *prompt* is the last user message's text, *images* the number of images."""

    data: JsonObject
    model: str
    dialect: Dialect | None
    stream: bool
    background: bool
    prompt: str
    images: int
    prompt_tokens: int
    max_tokens: int | None


def parse_json(body: bytes) -> object:
    """Parse *body* as strict JSON, without `NaN` and `Infinity`.

    Raises:
        HTTPError: 400 if *body* is not valid JSON.
    """
    try:
        return json.loads(body, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise HTTPError(400, message="The body is not valid JSON.") from error


def is_streaming(data: object, path: str) -> bool:
    """Whether the path or the member `stream` of the body requests server-sent events."""
    return path == "/generate/stream" or (_is_object(data) and data.get("stream") is True)


def parse_generation_request(data: object, path: str) -> GenerationRequest:
    """Validate a request in either form: `messages` with top-level options, or `prompt` with `params`.

    The dialect is "b" for the second form and for the path that only dialect B documents, otherwise None (either).

    Raises:
        HTTPError: 422 with the broken rule of each invalid field.
    """
    if not _is_object(data):
        raise validation_error({"body": "must be a JSON object"})
    has_prompt = "prompt" in data and "messages" not in data
    errors = dict(_prompt_form_errors(data) if has_prompt else _messages_form_errors(data))
    if errors:
        raise validation_error(errors)
    return _generation_request(data, path, has_prompt=has_prompt)


def _generation_request(data: JsonObject, path: str, *, has_prompt: bool) -> GenerationRequest:
    options = cast("JsonObject", data.get("params") or {}) if has_prompt else data
    messages: list[JsonObject] = [*(options.get("messages") or [])]
    if has_prompt:
        messages.append({"role": "user", "content": data["prompt"]})
    system: str = options.get("system_prompt" if has_prompt else "system") or ""
    images = sum(_count_images(message["content"]) for message in messages)
    return GenerationRequest(
        data=data,
        model=data["model"],
        dialect="b" if has_prompt or path == "/generate/stream" else None,
        stream=is_streaming(data, path),
        background=data.get("background") is True,
        prompt=_last_user_text(messages),
        images=images,
        prompt_tokens=sum(count_tokens(text) for text in (system, *_texts(messages))) + images * IMAGE_TOKENS,
        max_tokens=options.get("max_tokens"),
    )


def _messages_form_errors(data: JsonObject) -> Iterator[tuple[str, str]]:
    yield from _model_errors(data)
    if "messages" not in data:
        yield "messages", "is required"
    else:
        yield from _message_list_errors(data["messages"], "messages")
    if not _is_text_or_absent(data.get("system")):
        yield "system", "must be a string"
    yield from _option_errors(data, "")


def _prompt_form_errors(data: JsonObject) -> Iterator[tuple[str, str]]:
    yield from _model_errors(data)
    if not isinstance(data["prompt"], str):
        yield "prompt", "must be a string"
    params: object = data.get("params")
    if params is None:
        return
    if not _is_object(params):
        yield "params", "must be an object"
        return
    if params.get("messages"):
        yield from _message_list_errors(params["messages"], "params.messages")
    if not _is_text_or_absent(params.get("system_prompt")):
        yield "params.system_prompt", "must be a string"
    yield from _option_errors(params, "params.")


def _model_errors(data: JsonObject) -> Iterator[tuple[str, str]]:
    if "model" not in data:
        yield "model", "is required"
    elif not isinstance(data["model"], str) or not data["model"]:
        yield "model", "must be a non-empty string"


def _option_errors(options: JsonObject, prefix: str) -> Iterator[tuple[str, str]]:
    temperature = options.get("temperature")
    if temperature is not None and not (_is_number(temperature) and 0 <= temperature <= 2):
        yield f"{prefix}temperature", "must be a number from 0.0 to 2.0"
    max_tokens = options.get("max_tokens")
    if max_tokens is not None and not (_is_integer(max_tokens) and max_tokens >= 1):
        yield f"{prefix}max_tokens", "must be an integer of at least 1, or null"
    if not isinstance(options.get("stream", False), bool):
        yield f"{prefix}stream", "must be true or false"


def _message_list_errors(value: object, field: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, list) or not value:
        yield field, "must be a non-empty array"
        return
    for index, message in enumerate(cast("list[object]", value)):
        yield from _message_errors(message, f"{field}.{index}")


def _message_errors(message: object, field: str) -> Iterator[tuple[str, str]]:
    if not _is_object(message):
        yield field, "must be an object"
        return
    if message.get("role") not in ROLES:
        yield f"{field}.role", "must be one of system, user, assistant"
    content = message.get("content")
    if isinstance(content, list) and content:
        for index, part in enumerate(cast("list[object]", content)):
            yield from _part_errors(part, f"{field}.content.{index}")
    elif not isinstance(content, str):
        yield f"{field}.content", "must be a string or a non-empty array of parts"


def _part_errors(part: object, field: str) -> Iterator[tuple[str, str]]:
    kind = part.get("type") if _is_object(part) else None
    if not _is_object(part) or kind not in ("text", "image_url"):
        yield field, "must be a part of type text or image_url"
    elif kind == "text" and not isinstance(part.get("text"), str):
        yield f"{field}.text", "must be a string"
    elif kind == "image_url" and not _is_image_url(part.get("image_url")):
        yield f"{field}.image_url", "must be an object with the string member url"


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


def _count_images(content: str | list[JsonObject]) -> int:
    return 0 if isinstance(content, str) else sum(part["type"] == "image_url" for part in content)


def _last_user_text(messages: list[JsonObject]) -> str:
    return next((_text(message["content"]) for message in reversed(messages) if message["role"] == "user"), "")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
