"""Prompts and generated text, as the semantic conventions describe them; only for those who opt in."""

from __future__ import annotations

import enum
import os
import warnings
from collections.abc import Mapping
from typing import Any, TypeGuard

from neuralbox_async import CallEnded
from neuralbox_async.otel import _names


class ContentCapture(enum.Enum):
    """Where prompts and generated text are exported: nowhere, in spans, in events (log records), or in both."""

    NO_CONTENT = "NO_CONTENT"
    SPAN_ONLY = "SPAN_ONLY"
    EVENT_ONLY = "EVENT_ONLY"
    SPAN_AND_EVENT = "SPAN_AND_EVENT"

    @property
    def in_spans(self) -> bool:
        """Whether spans have the content."""
        return self in {ContentCapture.SPAN_ONLY, ContentCapture.SPAN_AND_EVENT}

    @property
    def in_events(self) -> bool:
        """Whether events have the content."""
        return self in {ContentCapture.EVENT_ONLY, ContentCapture.SPAN_AND_EVENT}


def capture_from_env() -> ContentCapture:
    """Return the mode in the environment. An unknown value is a warning, and means no content."""
    value = os.environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").strip().upper() or "NO_CONTENT"
    try:
        return ContentCapture(value)
    except ValueError:
        modes = ", ".join(mode.value for mode in ContentCapture)
        name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
        warnings.warn(f"{name} must be one of {modes}; no content is captured", stacklevel=2)
        return ContentCapture.NO_CONTENT


def content_of(body: Mapping[str, Any], ended: CallEnded, *, broken: bool) -> dict[str, Any]:
    """Return the attributes with the prompt in the request's *body* and the text of *ended*, as values."""
    attributes: dict[str, Any] = {}
    if body.get("system") is not None:
        attributes[_names.SYSTEM_INSTRUCTIONS] = [_text(body["system"])]
    messages = body.get("messages")
    if _is_list(messages):
        attributes[_names.INPUT_MESSAGES] = [_message(message) for message in messages if _is_object(message)]
    if ended.content:
        output: dict[str, Any] = {"role": "assistant", "parts": [_text(ended.content)]}
        if broken:
            output["finish_reason"] = "error"
        attributes[_names.OUTPUT_MESSAGES] = [output]
    return attributes


def _text(text: object) -> dict[str, Any]:
    return {"type": "text", "content": str(text)}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    parts = [_part(part) for part in content if _is_object(part)] if _is_list(content) else [_text(content)]
    return {"role": str(message.get("role")), "parts": parts}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    image = part.get("image_url")
    if not _is_object(image):
        return _text(part.get("text"))
    url = str(image.get("url"))
    # The bytes of an image are too much for a span.
    return {"type": "uri", "modality": "image", "uri": "data:" if url.startswith("data:") else url}


def _is_object(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
