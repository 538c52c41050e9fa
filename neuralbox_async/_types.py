"""
The values of the API: requests, generations and the events of a stream.

All are frozen. Those that are made for each call have no slots: a frozen class with slots sets each of them through
object.__setattr__, which takes twice as long. Values that the user makes are validated when they are made; values that
the server sends are read tolerantly by `_wire`. Nothing here knows about JSON.

Source: the vendor's pages "Text Generation", "Streaming Guide" and "Generation status".
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeAlias, get_args

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._images import data_url
from neuralbox_async._request_members import request_fields
from neuralbox_async._response_info import ResponseInfo
from neuralbox_async._validation import (
    SupportsModelDump,
    check_key,
    check_model,
    check_nonempty_text,
    check_optional_count,
    check_text,
    is_blank,
    is_list,
    is_mapping,
    is_number,
    members_of,
    plain_number,
)

Role = Literal["system", "user", "assistant"]
"""Who a message is from."""
GenerationId: TypeAlias = str | int
"""The id of a generation: a string (``"gen_01j9x2abc123"``) or an integer, as the API sent it."""

ROLES: frozenset[str] = frozenset(get_args(Role))
_MAX_TEMPERATURE = 2.0
_OWN_NUMBERS = (float, int, type(None))  # others are converted


def _no_extra() -> Mapping[str, Any]:
    return {}


def _check_url(_part: Any, _field: Any, value: Any) -> None:
    check_nonempty_text("messages[].content[].image_url.url", value, "a URL")


def _check_text_part(_part: Any, _field: Any, value: Any) -> None:
    check_text("messages[].content[].text", value)


# ---------------------------------------------------------------------------------------------------------- responses


@attrs.frozen(kw_only=True, slots=False)
class Usage:
    """The provider's own token counts, for reference; the bill is `Generation.tokens_used`."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


@attrs.frozen(kw_only=True, slots=False)
class Generation:
    """
    One generation, from either dialect of the API; absent members are None.

    * *id*: string or integer, as the API sent it.
    * *status*: ``"completed"``, ``"pending"``, ``"failed"``, a status that this version does not know, or
      ``"incomplete"`` for a stream that has not reached its end.
    * *content*: the text; ``""`` while there is no text.
    * *tokens_used*: NeuralBox tokens billed; *balance_remaining*: the balance afterwards; *usage*: the provider's
      counts.
    * *created_at*, *completed_at*: aware datetimes.
    * *finish_reason*: why the text ends, such as ``"stop"`` or ``"length"``. The vendor does not document it.
    * *url*, *thumbnail_url*, *metadata*: of generations that make files. *error*: why it failed.
    * *progress* (percent), *eta_seconds*: of pending ones. *processing_ms*: milliseconds of work.
    * *problems*: the places of malformed values, such as ``"$.usage.total_tokens"``, whose attributes are None.
    * *raw*: the JSON object as it arrived (null for members nested over 128 levels).
    * *response*: the HTTP response, None without one. *problems*, *raw* and *response* are not part of comparisons.

    Source: the vendor's pages "Text Generation", "Generation status" and "History".
    """

    id: GenerationId | None = None
    status: str = "completed"
    model: str | None = None
    content: str = ""
    tokens_used: int | None = None
    balance_remaining: int | None = None
    usage: Usage | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    url: str | None = None
    thumbnail_url: str | None = None
    metadata: Mapping[str, Any] | None = None
    error: str | None = None
    progress: float | None = None
    eta_seconds: float | None = None
    processing_ms: float | None = None
    finish_reason: str | None = None
    problems: tuple[str, ...] = attrs.field(default=(), eq=False)
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, eq=False, repr=False)
    response: ResponseInfo | None = attrs.field(default=None, eq=False, repr=False)

    def __repr__(self) -> str:
        shown = [field.name for field in attrs.fields(Generation) if field.repr and (self.problems or field.eq)]
        return f"Generation({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def completed(self) -> bool:
        """Whether the status is ``"completed"``: the text is complete."""
        return self.status == "completed"

    @property
    def finished(self) -> bool:
        """Whether the status is final: ``"completed"`` or ``"failed"``."""
        return self.status in {"completed", "failed"}

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes but *raw* and *response* as JSON values: *usage* as a dict, times as strings (ISO)."""
        members = attrs.asdict(self, filter=_is_member, value_serializer=_json_value)
        return {**members, "problems": list(self.problems)}


def _is_member(field: attrs.Attribute[Any], _value: object) -> bool:
    return field.name not in {"raw", "response"}


def _json_value(_owner: object, _field: object, value: object) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


# ----------------------------------------------------------------------------------------------------------- requests


@attrs.frozen
class TextPart:
    """A piece of text in a message. *extra* holds further wire members."""

    text: str = attrs.field(validator=_check_text_part)
    extra: Mapping[str, Any] = attrs.field(factory=_no_extra, kw_only=True)


@attrs.frozen
class ImagePart:
    """
    An image in a message, for models with vision: an ``https:`` URL or a ``data:`` URL.

    *extra* holds further wire members. Source: "Vision (Image Input)" of the vendor's page "Text Generation".
    """

    url: str = attrs.field(validator=_check_url, repr=lambda url: repr(url[:60]))
    extra: Mapping[str, Any] = attrs.field(factory=_no_extra, kw_only=True)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, media_type: str | None = None) -> ImagePart:
        """Return the image in the file *path* as a part; see `data_url`."""
        return cls(data_url(path, media_type=media_type))

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None) -> ImagePart:
        """Return the image with the encoded bytes *data* as a part; see `data_url`."""
        return cls(data_url(data, media_type=media_type))


Part: TypeAlias = TextPart | ImagePart
"""A part of a message: a `TextPart` or an `ImagePart`."""

Content: TypeAlias = str | Iterable[Part | Mapping[str, Any] | SupportsModelDump]
"""The *content* of a message: a string, or parts (`TextPart`, `ImagePart` or dicts)."""


def _content_from(value: Content) -> str | tuple[Part, ...]:
    if isinstance(value, str):
        return check_text("messages[].content", value)
    if is_list(value):
        parts = tuple(_part_from(part) for part in value)
        if parts:
            return parts
    raise InvalidParameterError("messages[].content", value, "a string or a non-empty list of parts")


def _part_from(value: object) -> Part:
    if isinstance(value, TextPart | ImagePart):
        return value
    if (members := members_of(value)) is not None:
        part_type = members.pop("type", None)
        if part_type == "text":
            return TextPart(members.pop("text", None), extra=members)
        if part_type == "image_url":
            return _image_from(members)
    raise InvalidParameterError("messages[].content[]", value, "a part of type 'text' or 'image_url'")


def _image_from(members: dict[str, Any]) -> ImagePart:
    image = members.pop("image_url", None)
    if not is_mapping(image):
        raise InvalidParameterError("messages[].content[].image_url", image, "an object with a 'url'")
    inner = dict(image)
    url = inner.pop("url", None)
    return ImagePart(url, extra={**members, "image_url": inner} if inner else members)


def _check_role(_self: Any, _attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or value not in ROLES:
        raise InvalidParameterError("messages[].role", value, "'system', 'user' or 'assistant'")


@attrs.frozen(slots=False)
class Message:
    """
    One turn of a conversation. The API keeps no state: send the whole history each time.

    *role* is ``"system"``, ``"user"`` or ``"assistant"``; *content* a string or parts (text and images); *extra*
    holds further wire members. Raises `InvalidParameterError`.
    """

    role: Role = attrs.field(validator=_check_role)
    content: str | tuple[Part, ...] = attrs.field(converter=_content_from)
    extra: Mapping[str, Any] = attrs.field(factory=_no_extra, kw_only=True)


MessageLike: TypeAlias = Message | Generation | Mapping[str, Any] | SupportsModelDump
"""A message: a `Message`, a dict or pydantic model of its members, or a `Generation`: the assistant's turn."""
Messages: TypeAlias = str | MessageLike | Iterable[MessageLike]
"""*messages*: a string (one user message), a message, or an iterable of messages (see `MessageLike`)."""


def messages_from(value: Messages) -> tuple[Message, ...]:
    """Return *value* (see `Messages`) as messages, or raise `InvalidParameterError`."""
    if isinstance(value, str):
        return (Message("user", value),)
    if isinstance(value, Message) or members_of(value) is not None:
        return (_message_from(value),)
    if is_list(value):
        messages = tuple(_message_from(message) for message in value)
        if messages:
            return messages
    raise InvalidParameterError("messages", value, "a string or a non-empty list of messages")


def _message_from(value: object) -> Message:
    if isinstance(value, Message):
        return value
    if isinstance(value, Generation):
        if not value.content:
            raise InvalidParameterError("messages[]", value, "a generation that has text")
        return Message("assistant", value.content)
    if (members := members_of(value)) is not None:
        return Message(members.pop("role", None), members.pop("content", None), extra=members)
    text_alone = " (a text alone needs no list)" if isinstance(value, str) else ""
    raise InvalidParameterError("messages[]", value, f"a Message or a dict with 'role' and 'content'{text_alone}")


def check_settings(system: object, temperature: object, max_tokens: object) -> None:
    """Raise `InvalidParameterError` unless `GenerateRequest` accepts these; None means not set."""
    if system is not None:
        check_text("system", system, "a string or None")
    if temperature is not None:
        number = temperature if type(temperature) is float else plain_number(temperature)
        if not (is_number(number) and 0.0 <= number <= _MAX_TEMPERATURE):
            raise InvalidParameterError("temperature", temperature, "a number from 0.0 to 2.0, or None")
    if max_tokens is not None:
        check_optional_count("max_tokens", plain_number(max_tokens), minimum=1)


def _has_only_text_keys(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) for name in value)


def _check_extra_body(value: object) -> None:
    if not is_mapping(value) or not _has_only_text_keys(value):
        raise InvalidParameterError("extra_body", value, "a mapping from strings to JSON values")
    if "stream" in value:
        raise InvalidParameterError("extra_body", value, "without 'stream': call stream() instead")


@attrs.frozen(slots=False)
class GenerateRequest:
    """
    A request for one generation, validated when it is made. Raises `InvalidParameterError`.

    * *model*: a slug such as ``"gpt-5"``; unknown ones pass, the API decides.
    * *messages*: see `Messages`; the last one must not be empty or blank.
    * *system*: shorthand for a system message placed first.
    * *temperature*: 0.0 to 2.0; None leaves the API's default (0.7).
    * *max_tokens*: at least 1; None leaves the model's default.
    * *extra_body*: further top-level wire members, sent as they are.
    * *key*: your own identifier, a string or an integer, for `AsyncNeuralBox.generate_many`; not sent.

    Numbers may be numpy's. Source: the vendor's page "Text Generation".
    """

    model: str
    messages: tuple[Message, ...] = attrs.field(converter=messages_from)
    system: str | None = attrs.field(default=None, kw_only=True)
    temperature: float | None = attrs.field(default=None, kw_only=True)
    max_tokens: int | None = attrs.field(default=None, kw_only=True)
    extra_body: Mapping[str, Any] = attrs.field(factory=_no_extra, kw_only=True)
    key: str | int | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        # Not a validator for each field: most fields are None, and validators would take twice as long.
        check_model(self.model)
        check_settings(self.system, self.temperature, self.max_tokens)
        if type(self.temperature) not in _OWN_NUMBERS or type(self.max_tokens) not in _OWN_NUMBERS:
            object.__setattr__(self, "temperature", plain_number(self.temperature))
            object.__setattr__(self, "max_tokens", plain_number(self.max_tokens))
        last = self.messages[-1].content
        if isinstance(last, str) and is_blank(last):
            name = "prompt" if len(self.messages) == 1 else "messages[-1].content"
            raise InvalidParameterError(name, last, "text that is not empty")
        if self.extra_body != {}:
            _check_extra_body(self.extra_body)
        if self.key is not None:
            check_key(self.key)

    @classmethod
    def from_dict(
        cls,
        members: Mapping[str, Any],
        *,
        model: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> GenerateRequest:
        """
        Return the request that *members* describe: the rule for dicts in `AsyncNeuralBox.generate_many`.

        *members* has ``messages``, or ``prompt`` (a string), and may have the other fields. Further members are not
        sent; use ``extra_body`` to send more. None counts as absent; *model*, *system*, *temperature* and *max_tokens*
        are the values of absent fields. Raises `InvalidParameterError`, also for a member whose name is nearly that of
        an absent field, such as ``temprature``.
        """
        defaults = {"model": model, "system": system, "temperature": temperature, "max_tokens": max_tokens, "key": None}
        return cls(**request_fields(members, defaults))


# ------------------------------------------------------------------------------------------------------------- events


@attrs.frozen(slots=False)
class GenerationStart:
    """The generation began; its *id* identifies it when the stream breaks. *problems*: see `Generation`."""

    id: GenerationId | None = None
    model: str | None = None
    problems: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False, kw_only=True)
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, eq=False, repr=False, kw_only=True)


@attrs.frozen
class ContentDelta:
    """The next piece of text."""

    delta: str
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, eq=False, repr=False, kw_only=True)


@attrs.frozen(slots=False)
class GenerationEnd:
    """The generation is complete. *tokens_used*, *balance_remaining*, *finish_reason*, *problems*: see `Generation`."""

    id: GenerationId | None = None
    tokens_used: int | None = None
    balance_remaining: int | None = None
    usage: Usage | None = None
    finish_reason: str | None = attrs.field(default=None, kw_only=True)
    problems: tuple[str, ...] = attrs.field(default=(), eq=False, repr=False, kw_only=True)
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, eq=False, repr=False, kw_only=True)


@attrs.frozen(slots=False)
class UnknownEvent:
    """An event of a type that this version does not know; *raw*: the whole event, or its text as ``data``."""

    type: str
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, repr=False)


StreamEvent: TypeAlias = GenerationStart | ContentDelta | GenerationEnd | UnknownEvent
"""An event of a stream."""
