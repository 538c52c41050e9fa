"""
Requests for chat completions: OpenAI's members, translated into the parameters of the SDK.

What changes the answer in a way that NeuralBox cannot (tools, several choices, audio, probabilities) is refused.
Everything else that it does not know is harmless: it is ignored, and named in the header ``x-neuralbox-ignored``.

Source: OpenAI's reference "Create chat completion".
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final, NoReturn, cast

import attrs

from neuralbox_async.gateway._errors import invalid

_MAX_STOPS: Final = 16
_MAX_STOP_LENGTH: Final = 1000  # characters
_MAX_SCHEMA: Final = 200_000  # characters of JSON: it is sent with each request, and checking takes time
_ROLES: Final = {"developer": "system", "system": "system", "user": "user", "assistant": "assistant"}
_NO_TOOLS: Final = "NeuralBox has no tools: send the request without them"
# Members that OpenAI documents and that are not used: sampling that the API does not have, and bookkeeping.
IGNORED: Final = (
    "frequency_penalty",
    "logit_bias",
    "metadata",
    "moderation",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "seed",
    "service_tier",
    "store",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
)


@attrs.frozen(kw_only=True, slots=False)
class ChatRequest:
    """
    A request for a chat completion.

    *stops*: stop sequences. *include_usage*: of a stream. *output_type*: that of a response format, for
    `AsyncNeuralBox.parse`; None for text. *ignored*: the members that were not used.
    """

    model: str
    messages: list[dict[str, Any]]
    temperature: float | None = None
    max_tokens: int | None = None
    stops: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False
    output_type: Any = None
    ignored: tuple[str, ...] = ()


def parse_chat_request(body: bytes) -> ChatRequest:
    """Return the request in the JSON *body*. Raises `Refusal`."""
    members = _members(body)
    _refuse_unsupported(members)
    stream, stops, output_type = _flag(members, "stream"), _stops(members), _output_type(members)
    if stops and output_type is not None:
        raise invalid("stop cuts texts, not JSON: send it without response_format", "stop", "unsupported_value")
    return ChatRequest(
        model=_model(members),
        messages=_messages(members),
        temperature=_number(members, "temperature"),
        max_tokens=_max_tokens(members),
        stops=stops,
        stream=stream,
        include_usage=stream and _include_usage(members),
        output_type=output_type,
        ignored=tuple(name for name in IGNORED if members.get(name) is not None),
    )


def _members(body: bytes) -> dict[str, Any]:
    try:
        members: object = _JSON.decode(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise invalid("the body of the request is not valid JSON (RFC 8259) in UTF-8") from None
    if not isinstance(members, dict):
        raise invalid("the body of the request must be a JSON object")
    return cast("dict[str, Any]", members)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


_JSON: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _refuse_unsupported(members: dict[str, Any]) -> None:
    choice = members.get("tool_choice", members.get("function_call"))
    for name in ("tools", "functions"):
        if members.get(name) not in (None, []) and choice != "none":
            raise invalid(_NO_TOOLS, name, "unsupported_parameter")
    if choice not in (None, "none", "auto"):
        raise invalid(_NO_TOOLS, "tool_choice", "unsupported_parameter")
    if members.get("n") not in (None, 1) or isinstance(members.get("n"), bool):
        raise invalid("n must be 1: NeuralBox generates one text for each request", "n", "unsupported_value")
    if members.get("logprobs") not in (None, False):
        raise invalid("NeuralBox reports no probabilities", "logprobs", "unsupported_parameter")
    if members.get("modalities") not in (None, ["text"]) or members.get("audio") is not None:
        raise invalid("NeuralBox chats in text only", "modalities", "unsupported_value")
    if members.get("web_search_options") is not None:
        raise invalid("NeuralBox does not search the web", "web_search_options", "unsupported_parameter")


def _flag(members: dict[str, Any], name: str) -> bool:
    value = members.get(name)
    if value is not None and not isinstance(value, bool):
        raise invalid(f"{name} must be true or false", name, "invalid_type")
    return bool(value)


def _number(members: dict[str, Any], name: str) -> float | None:
    value = members.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise invalid(f"{name} must be a number", name, "invalid_type")
    return value


def _model(members: dict[str, Any]) -> str:
    model = members.get("model")
    if not isinstance(model, str) or not model:
        raise invalid("model must be the name of a model, such as 'gpt-5'", "model", "invalid_type")
    return model


def _max_tokens(members: dict[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = members.get(name)
        if value is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise invalid(f"{name} must be an integer of at least 1", name, "invalid_value")
            return value
    return None


def _stops(members: dict[str, Any]) -> tuple[str, ...]:
    value = members.get("stop")
    given: object = [value] if isinstance(value, str) else value or []
    stops = cast("list[object]", given) if isinstance(given, list) else [None]
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise invalid("stop must be a non-empty string or a list of them", "stop", "invalid_type")
    if len(stops) > _MAX_STOPS or any(len(str(stop)) > _MAX_STOP_LENGTH for stop in stops):
        limits = f"stop must have at most {_MAX_STOPS} strings of at most {_MAX_STOP_LENGTH} characters"
        raise invalid(limits, "stop", "invalid_value")
    return tuple(map(str, stops))


def _include_usage(members: dict[str, Any]) -> bool:
    options = members.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise invalid("stream_options must be an object", "stream_options", "invalid_type")
    return _flag(cast("dict[str, Any]", options), "include_usage")


# ------------------------------------------------------------------------------------------------------------ messages


def _messages(members: dict[str, Any]) -> list[dict[str, Any]]:
    messages = members.get("messages")
    if not isinstance(messages, list) or not messages:
        raise invalid("messages must be a non-empty list", "messages", "invalid_type")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(cast("list[object]", messages))]


def _message(message: object, place: str) -> dict[str, Any]:
    if not isinstance(message, dict):
        raise invalid(f"{place} must be an object", place, "invalid_type")
    members = cast("dict[str, Any]", message)
    role = members.get("role")
    if members.get("tool_calls") or members.get("function_call") or role in ("tool", "function"):
        raise invalid(_NO_TOOLS, place, "unsupported_parameter")
    if not isinstance(role, str) or role not in _ROLES:
        rule = "'developer', 'system', 'user' or 'assistant'"
        raise invalid(f"{place}.role must be {rule}", f"{place}.role", "invalid_value")
    content = members.get("content")
    if content is None and role == "assistant":
        content = members.get("refusal") or ""
    if isinstance(content, list):
        parts = cast("list[object]", content)
        content = [_part(part, f"{place}.content[{i}]") for i, part in enumerate(parts)] or ""
    if not isinstance(content, str | list):
        raise invalid(f"{place}.content must be a string or a list of parts", f"{place}.content", "invalid_type")
    return {"role": _ROLES[role], "content": cast("object", content)}


def _part(part: object, place: str) -> dict[str, Any]:
    members = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
    kind = members.get("type")
    if kind in ("text", "refusal"):
        text = members.get(str(kind))
        if not isinstance(text, str):
            raise invalid(f"{place}.{kind} must be a string", f"{place}.{kind}", "invalid_type")
        return {"type": "text", "text": text}
    if kind == "image_url":
        return {"type": "image_url", "image_url": _image(members.get("image_url"), f"{place}.image_url")}
    raise invalid(f"{place} must be a part of type 'text' or 'image_url'", place, "unsupported_value")


def _image(image: object, place: str) -> dict[str, Any]:
    members = cast("dict[str, Any]", image) if isinstance(image, dict) else {"url": image}
    url, detail = members.get("url"), members.get("detail")
    if not isinstance(url, str) or not url:
        raise invalid(f"{place}.url must be a URL", f"{place}.url", "invalid_type")
    return {"url": url, "detail": detail} if isinstance(detail, str) else {"url": url}


# ----------------------------------------------------------------------------------------------------- response format


def _output_type(members: dict[str, Any]) -> Any:
    value = members.get("response_format")
    kind = value if value is None or not isinstance(value, dict) else cast("dict[str, Any]", value).get("type")
    match kind:
        case None if value is None:
            return None
        case "text":
            return None
        case "json_object":
            return dict[str, Any]
        case "json_schema":
            return _schema_type(cast("dict[str, Any]", value).get("json_schema"))
        case _:
            rule = "an object of type 'text', 'json_object' or 'json_schema'"
            raise invalid(f"response_format must be {rule}", "response_format", "invalid_value")


def _schema_type(value: object) -> Any:
    place = "response_format.json_schema.schema"
    members = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    schema = members.get("schema")
    if not isinstance(schema, dict):
        raise invalid(f"{place} must be a JSON Schema", place, "invalid_type")
    try:
        if len(json.dumps(schema)) > _MAX_SCHEMA:
            raise invalid(f"{place} is too large", place, "invalid_value")
        return _make_type()(cast("object", schema))
    except ModuleNotFoundError:
        missing = "the gateway cannot check JSON Schemas: install neuralbox[cli] where it runs"
        raise invalid(missing, "response_format", "unsupported_value") from None
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise invalid(f"{place}: {reason}", place, "invalid_value") from None


def _make_type() -> Callable[[object], Any]:
    from neuralbox_async._json_schema import output_type_of_schema  # not above: few requests need it

    return output_type_of_schema
