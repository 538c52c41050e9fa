"""
The decoder of stream events: from the data of a server-sent event to a `StreamEvent`.

Source: the vendor's "Streaming Guide" (the ``type`` member has the type of an event).
"""

from __future__ import annotations

from typing import Any, Final, cast

from neuralbox_async._errors import GenerationFailedError, ResponseError
from neuralbox_async._types import ContentDelta, GenerationEnd, GenerationStart, StreamEvent, UnknownEvent
from neuralbox_async._wire import json
from neuralbox_async._wire.partial_json import without_deep_members
from neuralbox_async._wire.status_errors import MAX_MESSAGE_LENGTH, message_in
from neuralbox_async._wire.structuring import structure

DONE: Final = "[DONE]"
"""The data of the other documented terminal event, which is not JSON."""

_EVENT_TYPES: dict[str, type[Any]] = {
    "generation_start": GenerationStart,
    "content_delta": ContentDelta,
    "generation_end": GenerationEnd,
}


def decode_event(data: str) -> StreamEvent:
    """
    Return the event in the *data* of one server-sent event.

    Raises `ResponseError` when it is malformed, and `GenerationFailedError` for an error event.
    """
    body = data.encode(errors="replace")
    try:
        shallow, too_deep = without_deep_members(data)
        members = json.loads(shallow)
    except (ValueError, RecursionError) as error:
        msg = f"an event of the stream is not JSON ({json.one_line(str(error))}): {json.excerpt(body)}"
        raise ResponseError(msg, body=body) from None
    if not json.is_object(members):
        msg = f"expected a JSON object @ $ in an event of the stream, got {json.type_name(members)}"
        raise ResponseError(msg, path="$", body=body)
    event_type = members.get("type")
    if event_type == "error" or (event_type is None and members.get("error") is not None):
        raise _error_event(members)
    cls = _EVENT_TYPES.get(event_type) if isinstance(event_type, str) else None
    if cls is None:
        return UnknownEvent(event_type if isinstance(event_type, str) else "", members)
    return cast("StreamEvent", structure(members, cls, body, too_deep))


def _error_event(members: dict[str, Any]) -> GenerationFailedError:
    reason = message_in(members) or None
    message = f": {reason[:MAX_MESSAGE_LENGTH]}" if reason else " without a reason"
    return GenerationFailedError(f"the API ended the stream with an error{message}", reason=reason)
