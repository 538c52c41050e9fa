"""
The values of the API: what a user sends, what comes back, what a stream tells.

All are frozen; those that are made for each call have no slots, which would be written one by one through
object.__setattr__ and take twice as long. What the user makes is checked when it is made; what the server sends is read
tolerantly by the codec. Nothing here knows of JSON.

Source: the vendor's pages "Text Generation", "Streaming Guide" and "Generation status".
"""

from __future__ import annotations

import base64
import mimetypes
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeGuard, get_args

import attrs

from neuralbox_async._errors import InvalidParameterError

Role = Literal["system", "user", "assistant"]
GenerationId: TypeAlias = str | int
"""The id of a generation: a string (``"gen_01j9x2abc123"``) or an integer, as the API gave it."""

ROLES: frozenset[str] = frozenset(get_args(Role))
_MAX_TEMPERATURE = 2.0
_KEY_RULE = "a non-empty string, or None"
_MODEL_RULE = "a model slug, such as 'gpt-5'"


def _no_extra() -> Mapping[str, Any]:
    return {}


def _has_only_names(value: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) for name in value)


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether *value* is a mapping; of strings, as far as the type checker is concerned."""
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[Iterable[Any]]:
    return isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)


def checked_text(parameter: str, text: object, rule: str = "a string") -> str:
    """Return *text* when it is a string that UTF-8 can carry; raise `InvalidParameterError` otherwise."""
    if not isinstance(text, str):
        raise InvalidParameterError(parameter, text, rule)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            shown = text[max(0, error.start - 10) : error.end + 10]
            raise InvalidParameterError(parameter, shown, "text without lone surrogates") from None
    return text


def _text(parameter: str) -> Callable[[Any, Any, Any], None]:
    def check(_self: Any, _attribute: Any, value: Any) -> None:
        checked_text(parameter, value)

    return check


def _required_text(parameter: str, rule: str) -> Callable[[Any, Any, Any], None]:
    def check(_self: Any, _attribute: Any, value: Any) -> None:
        if not checked_text(parameter, value, rule):
            raise InvalidParameterError(parameter, value, rule)

    return check


# ----------------------------------------------------------------------------------------------------------- requests


@attrs.frozen
class TextPart:
    """A piece of text in a message. *extra* holds further wire members."""

    text: str = attrs.field(validator=_text("messages[].content[].text"))
    extra: Mapping[str, Any] = attrs.field(factory=_no_extra, kw_only=True)


@attrs.frozen
class ImagePart:
    """
    A picture in a message, for models that see: an ``https:`` URL or a ``data:`` URL.

    *extra* holds further wire members. Source: "Vision (Image Input)" of the vendor's page "Text Generation".
    """

    url: str = attrs.field(
        validator=_required_text("messages[].content[].image_url.url", "a URL"), repr=lambda url: repr(url[:60])
    )
    extra: Mapping[str, Any] = attrs.field(factory=_no_extra, kw_only=True)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], *, media_type: str | None = None) -> ImagePart:
        """Return the picture in the file *path* as a part; see `data_url`."""
        return cls(data_url(path, media_type=media_type))

    @classmethod
    def from_bytes(cls, data: bytes, *, media_type: str | None = None) -> ImagePart:
        """Return the picture whose encoded bytes are *data* as a part; see `data_url`."""
        return cls(data_url(data, media_type=media_type))


Part: TypeAlias = TextPart | ImagePart

Content: TypeAlias = str | Iterable[Part | Mapping[str, Any]]
"""What a message's *content* takes: a string, or parts (`TextPart`, `ImagePart` or dicts)."""

# The first bytes of what models take as pictures; the type of a file is told by its content before its name.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)


def data_url(source: str | os.PathLike[str] | bytes, *, media_type: str | None = None) -> str:
    """
    Return the picture *source* as a ``data:`` URL (RFC 2397) to be sent inside a message.

    *source* is a path, read at once and whole, or the encoded bytes. The media type is *media_type*, or told by the
    content (PNG, JPEG, GIF, WebP, BMP), or by the file's name. Raises `InvalidParameterError` when it cannot be told or
    is not an image's, and `OSError` when the file cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    name = None if isinstance(source, bytes) else os.fspath(source)
    kind = media_type or _sniffed(data) or (mimetypes.guess_type(name)[0] if name else None)
    if kind is None or not kind.startswith("image/"):
        raise InvalidParameterError("media_type", kind, "the media type of an image, such as 'image/png'")
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _sniffed(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def _content_from(value: Content) -> str | tuple[Part, ...]:
    if isinstance(value, str):
        return checked_text("messages[].content", value)
    if _is_list(value):
        parts = tuple(_part_from(part) for part in value)
        if parts:
            return parts
    raise InvalidParameterError("messages[].content", value, "a string or a non-empty list of parts")


def _part_from(value: object) -> Part:
    if isinstance(value, TextPart | ImagePart):
        return value
    if is_mapping(value):
        members = dict(value)
        kind = members.pop("type", None)
        if kind == "text":
            return TextPart(members.pop("text", None), extra=members)
        if kind == "image_url":
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

    *role* is ``"system"``, ``"user"`` or ``"assistant"``; *content* a string or parts (text and pictures); *extra*
    holds further wire members. Raises `InvalidParameterError`.
    """

    role: Role = attrs.field(validator=_check_role)
    content: str | tuple[Part, ...] = attrs.field(converter=_content_from)
    extra: Mapping[str, Any] = attrs.field(factory=_no_extra, kw_only=True)


MessageLike: TypeAlias = Message | Mapping[str, Any]
Messages: TypeAlias = str | MessageLike | Iterable[MessageLike]
"""What *messages* takes: a string (one user message), a message, or an iterable of messages (`Message` or dicts)."""


def messages_from(value: Messages) -> tuple[Message, ...]:
    """Return *value* (see `Messages`) as messages, or raise `InvalidParameterError`."""
    if isinstance(value, str):
        return (_user_message(checked_text("messages[].content", value)),)
    if isinstance(value, Message) or is_mapping(value):
        return (_message_from(value),)
    if _is_list(value):
        messages = tuple(_message_from(message) for message in value)
        if messages:
            return messages
    raise InvalidParameterError("messages", value, "a string or a non-empty list of messages")


def _user_message(text: str) -> Message:
    # Without the constructor, which checks the role too, and takes twice as long.
    message = object.__new__(Message)
    vars(message).update(role="user", content=text, extra={})
    return message


def _message_from(value: object) -> Message:
    if isinstance(value, Message):
        return value
    if is_mapping(value):
        members = dict(value)
        return Message(members.pop("role", None), members.pop("content", None), extra=members)
    raise InvalidParameterError("messages[]", value, "a Message or a dict with 'role' and 'content'")


def _check_temperature(value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0.0 <= value <= _MAX_TEMPERATURE:
        raise InvalidParameterError("temperature", value, "a number from 0.0 to 2.0, or None")


def _check_max_tokens(value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidParameterError("max_tokens", value, "an integer of at least 1, or None")


def check_settings(system: object, temperature: object, max_tokens: object) -> None:
    """Raise `InvalidParameterError` unless these, None for what is not given, are what `GenerateRequest` takes."""
    if system is not None:
        checked_text("system", system, "a string or None")
    if temperature is not None:
        _check_temperature(temperature)
    if max_tokens is not None:
        _check_max_tokens(max_tokens)


def _check_extra_body(value: object) -> None:
    if not is_mapping(value) or not _has_only_names(value):
        raise InvalidParameterError("extra_body", value, "a mapping from strings to JSON values")
    if "stream" in value:
        raise InvalidParameterError("extra_body", value, "without 'stream': call stream() instead")


@attrs.frozen(slots=False)
class GenerateRequest:
    """
    What to generate, checked when it is made. Raises `InvalidParameterError`.

    * *model*: a slug such as ``"gpt-5"``; unknown ones pass, the API decides.
    * *messages*: see `Messages`.
    * *system*: shorthand for a system message placed first.
    * *temperature*: 0.0 to 2.0; None leaves the API's default (0.7).
    * *max_tokens*: at least 1; None leaves the model's default.
    * *extra_body*: further top-level wire members, sent as they are.
    * *key*: the caller's own name for it, by which `AsyncNeuralBox.generate_many` knows it again; not sent.

    Source: the vendor's page "Text Generation".
    """

    model: str
    messages: tuple[Message, ...] = attrs.field(converter=messages_from)
    system: str | None = attrs.field(default=None, kw_only=True)
    temperature: float | None = attrs.field(default=None, kw_only=True)
    max_tokens: int | None = attrs.field(default=None, kw_only=True)
    extra_body: Mapping[str, Any] = attrs.field(factory=_no_extra, kw_only=True)
    key: str | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        # In one place: a validator for each field takes twice as long, and most fields are seldom given.
        if not checked_text("model", self.model, _MODEL_RULE):
            raise InvalidParameterError("model", self.model, _MODEL_RULE)
        check_settings(self.system, self.temperature, self.max_tokens)
        if self.extra_body != {}:
            _check_extra_body(self.extra_body)
        if self.key is not None and not checked_text("key", self.key, _KEY_RULE):
            raise InvalidParameterError("key", self.key, _KEY_RULE)


# ---------------------------------------------------------------------------------------------------------- responses


@attrs.frozen(kw_only=True, slots=False)
class Usage:
    """The provider's own token counts; for reference, not what is billed (that is `Generation.tokens_used`)."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


@attrs.frozen(kw_only=True, slots=False)
class Generation:
    """
    One generation, in whichever dialect the API told of it; what it left out is None.

    * *id*: string or integer, as given.
    * *status*: ``"completed"``, ``"pending"``, ``"failed"``, one yet unknown, or ``"incomplete"`` for a stream that
      has not reached its end.
    * *content*: the text; ``""`` when there is none (yet).
    * *tokens_used*: NeuralBox tokens billed; *balance_remaining*: the balance afterwards; *usage*: the provider's
      counts.
    * *created_at*, *completed_at*: aware datetimes.
    * *url*, *thumbnail_url*, *metadata*: of generations that make files. *error*: why it failed.
    * *progress* (percent), *eta_seconds*: of pending ones. *processing_ms*: milliseconds of work.
    * *raw*: the JSON object that came, with every member; not part of comparisons.

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
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, eq=False, repr=False)

    @property
    def completed(self) -> bool:
        """Whether the generation is finished and whole."""
        return self.status == "completed"

    @property
    def finished(self) -> bool:
        """Whether the status is final: ``"completed"`` or ``"failed"``."""
        return self.status in {"completed", "failed"}


# ------------------------------------------------------------------------------------------------------------- events


@attrs.frozen(slots=False)
class GenerationStart:
    """The generation began; its *id* finds it again when the stream breaks."""

    id: GenerationId | None = None
    model: str | None = None
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, eq=False, repr=False, kw_only=True)


@attrs.frozen
class ContentDelta:
    """The next piece of text."""

    delta: str
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, eq=False, repr=False, kw_only=True)


@attrs.frozen(slots=False)
class GenerationEnd:
    """The generation is complete: what it cost, in NeuralBox tokens, and the balance afterwards, as far as told."""

    id: GenerationId | None = None
    tokens_used: int | None = None
    balance_remaining: int | None = None
    usage: Usage | None = None
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, eq=False, repr=False, kw_only=True)


@attrs.frozen(slots=False)
class UnknownEvent:
    """An event of a type that this version does not know; *raw* is the whole of it."""

    type: str
    raw: Mapping[str, Any] = attrs.field(factory=_no_extra, repr=False)


StreamEvent: TypeAlias = GenerationStart | ContentDelta | GenerationEnd | UnknownEvent
