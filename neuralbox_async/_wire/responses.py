"""The decoder of responses: from the bytes of a body to a `Generation`, or the price of one."""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async._errors import GenerationFailedError, ResponseError
from neuralbox_async._types import Generation
from neuralbox_async._wire import fast_path, json
from neuralbox_async._wire.partial_json import leading_members, without_deep_members
from neuralbox_async._wire.status_errors import MAX_MESSAGE_LENGTH, message_in
from neuralbox_async._wire.structuring import id_in, structure, text_in
from neuralbox_async._wire.surrogates import without_lone_surrogates

if TYPE_CHECKING:
    from neuralbox_async._types import GenerationId

# A response that describes a generation has at least one of these members.
_GENERATION_MEMBERS = ("id", "status", "content", "result_text", "url", "result_url", "output_url")
_SIZE_OF_CHUNK = re.compile(rb"\A[0-9a-fA-F]{1,8}[ \t]*\r\n")
_LARGE, _MAX_BLANKS = 1024 * 1024, 64 * 1024  # bytes


def decode_generation(status_code: int, headers: Mapping[str, str], body: bytes) -> Generation:
    """
    Return the generation in a response, whatever its status.

    Raises `ResponseError`, which keeps the body and the text, when it has no generation, and `GenerationFailedError`
    when that failed.
    """
    try:
        members = load_members(body)
        generation = fast_path.plain_generation(members)
        if generation is None:
            generation = _general_generation(members, body)
        if b"\\u" in body:  # no surrogate comes without such an escape
            generation = _without_lone_surrogates(generation)
    except ResponseError as error:
        streamed = _streamed_generation(headers, body)
        if streamed is not None and streamed.finished:
            return streamed
        raise ResponseError(
            error.message,
            path=error.path,
            body=body,
            status_code=status_code,
            headers=headers,
            text=error.text if streamed is None else streamed.content,
            generation_id=error.generation_id if streamed is None else streamed.id,
        ) from None
    if generation.status == "failed":
        raise generation_failed(generation)
    return generation


def _general_generation(members: Any, body: bytes) -> Generation:
    shallow, too_deep = without_deep_members(body)
    if too_deep or json.has_long_number(body):
        members = json.loads_exactly(shallow)
    members = _check_object(members, body)
    if all(members.get(name) is None and name not in too_deep for name in _GENERATION_MEMBERS):
        if members.get("error") is not None:
            message = message_in(members)[:MAX_MESSAGE_LENGTH] or json.excerpt(body)
            msg = f"a response with a status of success contains an error: {message}"
            raise ResponseError(msg, body=body, path="$.error")
        msg = f"the JSON object does not describe a generation: {json.excerpt(body)}"
        raise ResponseError(msg, body=body, path="$")
    return structure(members, Generation, body, too_deep)


def _streamed_generation(headers: Mapping[str, str], body: bytes) -> Generation | None:
    if "text/event-stream" not in headers.get("content-type", "").lower():
        return None
    from neuralbox_async._wire import events  # which imports this module

    return events.generation_in(body)


def structure_generation(members: Mapping[str, Any]) -> Generation:
    """Return the generation that the JSON object *members* describes. Raises `ResponseError`."""
    value = fast_path.plain_generation(members) or structure(_check_object(members, b""), Generation, b"")
    return _without_lone_surrogates(value)


def _without_lone_surrogates(generation: Generation) -> Generation:
    # UTF-8 cannot carry them: the text could be neither written nor sent as history. *raw* keeps them.
    content = without_lone_surrogates(generation.content)
    return generation if content is generation.content else attrs.evolve(generation, content=content)


def generation_failed(generation: Generation) -> GenerationFailedError:
    """Return the error of a *generation* with status ``failed``."""
    reason = generation.error or message_in(generation.raw) or None
    message = (reason or "no reason in the response")[:MAX_MESSAGE_LENGTH]
    return GenerationFailedError(f"the generation failed: {message}", reason=reason, generation=generation)


def decode_price(status_code: int, headers: Mapping[str, str], body: bytes) -> int:
    """
    Return the most that one generation costs, in NeuralBox tokens. Raises `ResponseError`.

    Source: the vendor's page "Calculate price" (POST /models/{slug}/calculate-price, ``max_token_cost``).
    """
    members = load_members(body)
    count = members.get("max_token_cost") if json.is_object(members) else None
    if not json.is_count(count) or count < 0:
        raise ResponseError(
            f"expected a whole number at $.max_token_cost: {json.excerpt(body)}",
            path="$.max_token_cost",
            body=body,
            status_code=status_code,
            headers=headers,
            billed="no",
        )
    return count


def load_members(body: bytes) -> Any:
    """Return the JSON value in *body*; see `json.loads_approximately`. Raises `ResponseError`."""
    try:
        if len(body) > _LARGE:
            _check_both_ends(body)
        return _load_shallow(body)
    except (ValueError, RecursionError) as error:
        if not body or body.isspace():
            msg = "the response body is empty"
            raise ResponseError(msg, body=body) from None
        reason = "nested too deeply" if isinstance(error, RecursionError) else json.one_line(str(error))
        msg = f"the response body is not JSON ({reason}): {json.excerpt(body)}"
    generation_id, text = beginning_of(body)
    raise ResponseError(msg, body=body, path="$", text=text, generation_id=generation_id)


def beginning_of(body: bytes) -> tuple[GenerationId | None, str]:
    """
    Return the id and the text in the beginning of a *body* that is cut or malformed: None and ``""`` if unknown.

    It may be a whole response whose head is malformed, and its first chunk.
    """
    if body.startswith(b"HTTP/"):
        body = _SIZE_OF_CHUNK.sub(b"", body.partition(b"\r\n\r\n")[2], count=1)
    members = leading_members(body)
    return id_in(members), text_in(members)


def _load_shallow(body: bytes) -> Any:
    try:
        return json.loads_approximately(body)
    except RecursionError:
        shallow, too_deep = without_deep_members(body)
        if not too_deep:
            raise
    return json.loads_exactly(shallow)


def _check_both_ends(body: bytes) -> None:
    """Raise `ValueError` if a large *body* cannot be an object: decoding would take seconds, and times its memory."""
    if not body[:_MAX_BLANKS].removeprefix(BOM_UTF8).lstrip().startswith(b"{"):
        msg = "it does not begin with {"
        raise ValueError(msg)
    if not body[-_MAX_BLANKS:].rstrip().endswith(b"}"):
        msg = "it does not end with }"
        raise ValueError(msg)


def _check_object(value: Any, body: bytes) -> dict[str, Any]:
    if not json.is_object(value):
        msg = f"expected a JSON object at $, got {json.type_name(value)}"
        raise ResponseError(msg, body=body, path="$")
    return value
