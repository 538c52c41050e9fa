"""Generations as text or JSON, and stream events as JSON: lines with members named like the attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from neuralbox_async import (
    ContentDelta,
    Generation,
    GenerationEnd,
    GenerationStart,
    NeuralBoxError,
    StreamEvent,
    UnknownEvent,
)
from neuralbox_async._cli.terminal import TextWriter, print_unwritten

_EVENT_TYPES: Final[Mapping[type[StreamEvent], str]] = {
    GenerationStart: "generation_start",
    ContentDelta: "content_delta",
    GenerationEnd: "generation_end",
}


def print_generation(result: Generation | NeuralBoxError, writer: TextWriter, *, as_json: bool) -> None:
    """
    Print the text or URL of a generation, or the text that arrived before an error, or a line of JSON with it.

    If stdout fails, stderr gets the text or how to get it. Raises `OSError`.
    """
    if isinstance(result, NeuralBoxError):
        if not result.text:
            return
        result = Generation(id=result.generation_id, status="incomplete", content=result.text)
    try:
        writer.write(generation_line(result) if as_json else result.content or result.url or "")
    except OSError:
        print_unwritten(result)
        raise


def print_parsed(value: Any, generation: Generation, writer: TextWriter, *, as_json: bool) -> None:
    """
    Print the JSON *value* that was parsed from *generation*, or a line of JSON with both.

    If stdout fails, stderr gets the text or how to get it. Raises `OSError`.
    """
    try:
        writer.write(_line({"value": value, **_members(generation)} if as_json else value))
    except OSError:
        print_unwritten(generation)
        raise


def generation_line(generation: Generation) -> str:
    """
    Return *generation* as one line: every attribute except *raw*, null for what the API did not send.

    *problems* only if there are any.
    """
    return _line(_members(generation))


def value_line(value: attrs.AttrsInstance) -> str:
    """Return *value*, of the account or the catalogue, as one line like that of `generation_line`."""
    return _line(attrs.asdict(value, filter=_is_shown))


def event_line(event: StreamEvent) -> str:
    """Return *event* as one line that begins with its `type`; an event of an unknown type as it was received."""
    if isinstance(event, UnknownEvent):
        return _line(dict(event.raw))
    return _line({"type": _EVENT_TYPES[type(event)], **_members(event)})


def _members(value: Generation | StreamEvent) -> dict[str, Any]:
    return attrs.asdict(value, filter=_is_shown)


def _is_shown(attribute: attrs.Attribute[Any], value: Any) -> bool:
    return attribute.name != "raw" and (attribute.name != "problems" or bool(value))


def _line(members: Any) -> str:
    return json.dumps(members, ensure_ascii=False, default=_encode) + "\n"


def _encode(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
