"""The canned bytes of the server: responses and events in the wire formats of NeuralBox, OpenAI and Anthropic."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# The headers of an API's response, including those that NeuralBox documents for every response: each client parses
# them all. The rate limits are never exhausted, so that no batch waits.
_HEADERS = (
    "HTTP/1.1 200 OK\r\n"
    "Date: Sun, 08 Mar 2026 12:00:00 GMT\r\n"
    "Server: canned\r\n"
    "X-Request-Id: 7c1e4f6a0b9d4b7e\r\n"
    "X-RateLimit-Limit-Hour: 1000000000\r\n"
    "X-RateLimit-Remaining-Hour: 999999999\r\n"
    "X-RateLimit-Reset-Hour: 4102444800\r\n"
    "X-RateLimit-Limit-Day: 1000000000\r\n"
    "X-RateLimit-Remaining-Day: 999999999\r\n"
)
_TEXT = (
    "Here's a safe JSON parsing function in Python:\n\n```python\nimport json\n\n\ndef parse_json_safe(text):\n"
    "    try:\n        return json.loads(text)\n    except ValueError:\n        return None\n```"
)
_USAGE = {"prompt_tokens": 142, "completion_tokens": 387, "total_tokens": 529}
_PLACEHOLDER = "(placeholder)"


def json_response(body: bytes) -> bytes:
    """Return a response with the JSON *body*."""
    return f"{_HEADERS}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


STREAM_HEAD = f"{_HEADERS}Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
STREAM_END = b"0\r\n\r\n"


def chunk(content: bytes) -> bytes:
    """Return *content* as one chunk of a chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(content), content)


@dataclass(frozen=True)
class WireFormat:
    """
    The messages of one API.

    *response*: the response to a call, a template for a number of 12 digits; *start* and *end*: the first and the last
    events of a stream; *delta*: an event with text, a template for the text.
    """

    response: bytes
    start: bytes
    delta: bytes
    end: bytes

    def call(self, number: int) -> bytes:
        """Return the response to a call, with an id made of *number*; about 400 bytes of JSON."""
        return self.response % number

    def event(self, text: bytes) -> bytes:
        """Return the event of one piece of *text*."""
        return self.delta % text

    def stream(self, text: bytes, events: int, chunk_size: int) -> bytes:
        """
        Return the whole response of a stream: *events* pieces of *text*, in chunks of up to *chunk_size* bytes.

        A chunk has at least one event and ends where an event ends: a client without a chunk parser can read it.
        """
        event = self.event(text)
        events_per_chunk = max(1, chunk_size // len(event))
        full_chunks, rest = divmod(events, events_per_chunk)
        pieces = [STREAM_HEAD, chunk(self.start), chunk(event * events_per_chunk) * full_chunks]
        if rest:
            pieces.append(chunk(event * rest))
        return b"".join([*pieces, chunk(self.end), STREAM_END])


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _template(text: str, conversion: str) -> bytes:
    """Return *text* as a template for the operator ``%``, with *conversion* instead of the placeholder."""
    return text.replace("%", "%%").replace(_PLACEHOLDER, conversion).encode()


def _response(members: dict[str, Any]) -> bytes:
    """Return the template of a response with a JSON object of *members*."""
    body = _template(_compact(members), "%012d")
    head, separator, _ = json_response(body % 0).partition(b"\r\n\r\n")
    return head.replace(b"%", b"%%") + separator + body


def _event(members: dict[str, Any]) -> str:
    return f"data: {_compact(members)}\n\n"


def _named_event(members: dict[str, Any]) -> str:
    return f"event: {members['type']}\n{_event(members)}"


def _choice(delta: dict[str, Any], reason: str | None = None) -> str:
    return _event(
        {
            "id": "chatcmpl-000000000001",
            "object": "chat.completion.chunk",
            "created": 1772971200,
            "model": "gpt-5",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
    )


_ID = f"gen_{_PLACEHOLDER}"
_NEURALBOX_RESPONSE = {
    "id": _ID,
    "status": "completed",
    "model": "claude-sonnet-4.5",
    "content": _TEXT,
    "tokens_used": 3,
    "balance_remaining": 297,
    "usage": _USAGE,
    "created_at": "2026-03-08T12:00:00Z",
}
NEURALBOX = WireFormat(
    response=_response(_NEURALBOX_RESPONSE),
    start=_event({"type": "generation_start", "id": "gen_01j9x2abc123", "model": "gpt-5"}).encode(),
    delta=_template(_event({"type": "content_delta", "delta": _PLACEHOLDER}), "%b"),
    end=_event(
        {"type": "generation_end", "id": "gen_01j9x2abc123", "tokens_used": 3, "balance_remaining": 297}
    ).encode()
    + b"data: [DONE]\n\n",
)
OPENAI = WireFormat(
    response=_response(
        {
            "id": _ID,
            "object": "chat.completion",
            "created": 1772971200,
            "model": "gpt-5",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}],
            "usage": _USAGE,
        }
    ),
    start=_choice({"role": "assistant", "content": ""}).encode(),
    delta=_template(_choice({"content": _PLACEHOLDER}), "%b"),
    end=_choice({}, "stop").encode() + b"data: [DONE]\n\n",
)
_MESSAGE = {"type": "message", "role": "assistant", "model": "claude-sonnet-4.5", "stop_sequence": None}
_ANTHROPIC_USAGE = {"input_tokens": 142, "output_tokens": 387}
ANTHROPIC = WireFormat(
    response=_response(
        {
            "id": _ID,
            **_MESSAGE,
            "content": [{"type": "text", "text": _TEXT}],
            "stop_reason": "end_turn",
            "usage": _ANTHROPIC_USAGE,
        }
    ),
    start=(
        _named_event(
            {
                "type": "message_start",
                "message": {
                    "id": "msg_1",
                    **_MESSAGE,
                    "content": [],
                    "stop_reason": None,
                    "usage": {"input_tokens": 142, "output_tokens": 1},
                },
            }
        )
        + _named_event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    ).encode(),
    delta=_template(
        _named_event(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": _PLACEHOLDER}}
        ),
        "%b",
    ),
    end=(
        _named_event({"type": "content_block_stop", "index": 0})
        + _named_event(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 387},
            }
        )
        + _named_event({"type": "message_stop"})
    ).encode(),
)
BY_PATH = {b"/api/v2/generate": NEURALBOX, b"/v1/chat/completions": OPENAI, b"/v1/messages": ANTHROPIC}

_OBJECT = {
    "title": "Ocean Blue Hotel",
    "city": "Lisbon",
    "stars": 4,
    "price": 129.5,
    "pool": True,
    "rooms": 212,
    "languages": ["pt", "en", "fr"],
    "opened": "1998-05-21",
}
_TYPED_RESPONSE = _response({**_NEURALBOX_RESPONSE, "content": json.dumps(_OBJECT)})


def typed_response(number: int) -> bytes:
    """Return the response of NeuralBox to a call whose text is a JSON object, with an id made of *number*."""
    return _TYPED_RESPONSE % number
