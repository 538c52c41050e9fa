"""Generations and stream events as lines of JSON, under the names that the attributes have."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any, Final

import attrs

from neuralbox_async import ContentDelta, Generation, GenerationEnd, GenerationStart, StreamEvent, UnknownEvent

_TYPES: Final = {
    GenerationStart: "generation_start",
    ContentDelta: "content_delta",
    GenerationEnd: "generation_end",
}


def generation_line(generation: Generation) -> str:
    """Return *generation* as one line: every attribute, null for what the API did not tell."""
    return _line(_members(generation))


def event_line(event: StreamEvent) -> str:
    """Return *event* as one line, its `type` first; one that is not known as it came."""
    if isinstance(event, UnknownEvent):
        return _line(dict(event.raw))
    return _line({"type": _TYPES[type(event)], **_members(event)})


def _members(value: Generation | StreamEvent) -> dict[str, Any]:
    return attrs.asdict(value, filter=lambda attribute, _: attribute.name != "raw")


def _line(members: dict[str, Any]) -> str:
    return json.dumps(members, ensure_ascii=False, default=_dump) + "\n"


def _dump(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
