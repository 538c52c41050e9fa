"""
Errors without secrets: a server, a proxy, or whatever responds at their address, may echo the key or a password.

Only what was received is masked, never our own words: `decode_failure` masks what an error is made of, `mask_error` the
attributes that are received as they are, and the exceptions behind an error. A generation that is written to a file is
masked by `mask_generation`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from json import dumps
from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async._errors import APIConnectionError, NeuralBoxError
from neuralbox_async._wire import json
from neuralbox_async._wire.structuring import GENERATION_NAMES
from neuralbox_async._wire.surrogates import without_lone_surrogates

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._secret import Mask
    from neuralbox_async._types import Generation

_MAX_JSON = 1024 * 1024  # bytes of a body that is unescaped for the mask; a larger one is masked as it is
_escape = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
# The attributes that are received. Text that was generated is the user's.
_RECEIVED = (
    "body",
    "headers",
    "details",
    "code",
    "reason",
    "plan",
    "request_id",
    "generation_id",
)
_GENERATIONS = ("generation", "recovered")
_COMPOSED = ("message", "path")  # of our words and of what was received
# Characters. No word of ours, or of aiohttp's, is taken for a secret as long as that.
_LONGER_THAN_OUR_WORDS, _LONGER_THAN_WORDS = 16, 8


def decode_failure(error: NeuralBoxError, decode: Callable[..., object], received: tuple[Any, ...], mask: Mask) -> bool:
    """
    Mask *error*, which is the result of ``decode(*received)``; return whether *received* has a secret.

    Its type and its facts are those of what was received; its texts become those of the same with the secrets masked.
    """
    masked = tuple(_mask_received(value, mask) for value in received)
    if all(new is old for new, old in zip(masked, received, strict=True)):
        return False
    facts, again = vars(error), _failure_of(decode, masked)
    for name in _COMPOSED:
        if name in facts and again is not None:
            facts[name] = getattr(again, name, None)
        elif name in facts:  # what is malformed has a secret as its name
            facts[name] = mask.at_least(_LONGER_THAN_WORDS).apply(facts[name])
    error.args = (error.message,)
    return True


def _failure_of(decode: Callable[..., object], received: tuple[Any, ...]) -> object:
    try:
        result = decode(*received)
    except NeuralBoxError as error:
        return error
    return result if isinstance(result, NeuralBoxError) else None


def _mask_received(value: Any, mask: Mask) -> Any:
    if isinstance(value, str | bytes) and len(value) <= _MAX_JSON:
        unescaped = _unescape(value)
        masked = mask.apply_to_text(unescaped)
        if masked is not unescaped:
            with suppress(ValueError, RecursionError):
                masked = dumps(mask.apply(json.loads(value)))
            return masked.encode() if isinstance(value, bytes) else masked
    return mask.apply(value)


def _unescape(value: str | bytes) -> str:
    """
    Return *value*, which may be JSON, without the escapes of its strings; ``""`` when it has none.

    Any character of a secret may be escaped. To parse *value* would take seconds for a mebibyte of short members, and
    Python cannot follow deep nesting.
    """
    text = value if isinstance(value, str) else value.decode("utf-8", "replace") if b"\\" in value else ""
    return without_lone_surrogates(_escape.sub(_unescaped, text)) if "\\" in text else ""


def _unescaped(escape: re.Match[str]) -> str:
    return chr(int(escape[1], 16)) if escape[1] else _ESCAPES.get(escape[0][1], escape[0][1])


def mask_error(error: NeuralBoxError, mask: Mask, clean_body: bytes | None = None) -> None:
    """Mask what *error* has received, in its attributes, notes, cause and context; a *clean_body* has no secret."""
    facts = vars(error)
    for name in _RECEIVED:
        if name == "body" and name in facts:
            facts[name] = facts[name] if facts[name] is clean_body else _mask_received(facts[name], mask)
        elif name in facts:
            facts[name] = mask.apply(facts[name])
    for name in _GENERATIONS:
        if facts.get(name) is not None:
            facts[name] = _mask_generation(facts[name], mask)
    foreign_mask, composed_mask = mask.at_least(_LONGER_THAN_WORDS), mask.at_least(_LONGER_THAN_OUR_WORDS)
    if isinstance(error, APIConnectionError) and _is_foreign(error.__cause__):
        ours, colon, theirs = error.message.partition(": ")
        error.message = ours + colon + foreign_mask.apply_to_text(theirs)
    for name in (*_COMPOSED, "__notes__"):
        if name in facts:
            facts[name] = composed_mask.apply(facts[name])
    error.args = (error.message,)
    _mask_chain(error, foreign_mask)


def mask_text(text: str, mask: Mask) -> str:
    """Return the generated *text*, of which an error reports what is wrong with it: without secrets, if it has any."""
    masked: str = _mask_received(text, mask)
    return masked


def mask_generation(generation: Generation, body: bytes, mask: Mask) -> tuple[Generation, bytes]:
    """
    Return *generation* and the *body* that it was decoded from, for a file: as they are unless a secret is echoed.

    Then everything is masked but the text, which is the user's, and the body is empty.
    """
    # Any character of a secret may be written as an escape in the body; the members have none.
    is_echoed = mask.apply(body) is not body or (
        (body.find(b"\\u") >= 0 or not body) and mask.apply(generation.raw) is not generation.raw
    )
    if not is_echoed:
        return generation, body
    masked: Generation = _mask_generation(generation, mask)
    texts = {name: text for name, text in generation.raw.items() if name in GENERATION_NAMES["content"]}
    return attrs.evolve(masked, raw={**masked.raw, **texts}), b""


def _mask_generation(generation: Any, mask: Mask) -> Any:
    """Return *generation* with everything but its text masked."""
    fields: Any = attrs.fields(generation.__class__)
    members: dict[str, Any] = {field.name: getattr(generation, field.name) for field in fields}
    content = members.pop("content", "")
    masked = {name: mask.apply(value) for name, value in members.items()}
    if all(masked[name] is value for name, value in members.items()):
        return generation
    return type(generation)(content=content, **masked)


def _is_foreign(error: BaseException | None) -> bool:
    return error is not None and not isinstance(error, NeuralBoxError)


def _mask_chain(error: BaseException, mask: Mask) -> None:
    """Replace the foreign exceptions behind *error* that show a secret, and remove the frames of the others."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        cause, context = error.__cause__, error.__context__
        if _is_foreign(context) and context is not cause and _shows_secret(context, mask):
            error.__context__ = None
        if cause is None:
            return
        if _is_foreign(cause) and _shows_secret(cause, mask):
            substitute = Exception(f"{type(cause).__name__}: {mask.apply_to_text(str(cause))}")
            error.__cause__ = error.__context__ = substitute
            return
        if _is_foreign(cause):
            _remove_frames(cause)
        error = cause


def _remove_frames(error: BaseException | None) -> None:
    """Remove the frames of *error* and of those behind it, which hold received bytes."""
    while error is not None and error.__traceback__ is not None:
        error.with_traceback(None)
        error = error.__cause__ or error.__context__


def _shows_secret(error: BaseException | None, mask: Mask) -> bool:
    """Return whether *error*, or an exception behind it, shows a secret."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        texts = [str(error), repr(error), repr(error.args), repr(vars(error))]
        if mask.apply(texts) is not texts:
            return True
        error = error.__cause__ or error.__context__
    return False
