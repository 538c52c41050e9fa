"""The canned bytes of the server: answers and events as NeuralBox, OpenAI and Anthropic put them on the wire."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

# The headers that an API sends, with those that NeuralBox documents for every answer: each client has to read them all.
# A plan that is never used up, so that no batch waits.
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
_MARK = "(mark)"  # stands for what is filled in later


def whole(body: bytes) -> bytes:
    """Return an answer with the JSON *body*."""
    return f"{_HEADERS}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


STREAM_HEAD = f"{_HEADERS}Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
STREAM_TAIL = b"0\r\n\r\n"


def segment(content: bytes) -> bytes:
    """Return *content* as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(content), content)


@dataclass(frozen=True)
class Wire:
    """One API's way: *reply* with a place for a number of 12 digits, *delta* with one for the text."""

    reply: bytes
    begin: bytes
    delta: bytes
    end: bytes

    def answer(self, number: int) -> bytes:
        """Return the answer to a call, with an id made of *number*; about 400 bytes of JSON."""
        return self.reply % number

    def event(self, text: bytes) -> bytes:
        """Return the event of one more piece of *text*."""
        return self.delta % text

    def stream(self, text: bytes, events: int, size: int) -> bytes:
        """
        Return the whole answer of *events* pieces of *text*, in segments of about *size* bytes.

        Segments end where events end, so that a raw socket client gets by without looking for where they are cut.
        """
        event = self.event(text)
        at_once = max(1, size // len(event))
        full, rest = divmod(events, at_once)
        pieces = [STREAM_HEAD, segment(self.begin), segment(event * at_once) * full]
        if rest:
            pieces.append(segment(event * rest))
        return b"".join([*pieces, segment(self.end), STREAM_TAIL])


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _template(text: str, place: str) -> bytes:
    return text.replace("%", "%%").replace(_MARK, place).encode()


def _reply(members: dict[str, Any]) -> bytes:
    body = _template(_compact(members), "%012d")
    return whole(body % 0).partition(b"\r\n\r\n")[0].replace(b"%", b"%%") + b"\r\n\r\n" + body


def _data(members: dict[str, Any]) -> str:
    return f"data: {_compact(members)}\n\n"


def _named(members: dict[str, Any]) -> str:
    return f"event: {members['type']}\n{_data(members)}"


def _choice(delta: dict[str, Any], reason: str | None = None) -> str:
    return _data(
        {
            "id": "chatcmpl-000000000001",
            "object": "chat.completion.chunk",
            "created": 1772971200,
            "model": "gpt-5",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
    )


_ID = f"gen_{_MARK}"
NEURALBOX = Wire(
    reply=_reply(
        {
            "id": _ID,
            "status": "completed",
            "model": "claude-sonnet-4.5",
            "content": _TEXT,
            "tokens_used": 3,
            "balance_remaining": 297,
            "usage": _USAGE,
            "created_at": "2026-03-08T12:00:00Z",
        }
    ),
    begin=_data({"type": "generation_start", "id": "gen_01j9x2abc123", "model": "gpt-5"}).encode(),
    delta=_template(_data({"type": "content_delta", "delta": _MARK}), "%b"),
    end=_data({"type": "generation_end", "id": "gen_01j9x2abc123", "tokens_used": 3, "balance_remaining": 297}).encode()
    + b"data: [DONE]\n\n",
)
OPENAI = Wire(
    reply=_reply(
        {
            "id": _ID,
            "object": "chat.completion",
            "created": 1772971200,
            "model": "gpt-5",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}],
            "usage": _USAGE,
        }
    ),
    begin=_choice({"role": "assistant", "content": ""}).encode(),
    delta=_template(_choice({"content": _MARK}), "%b"),
    end=_choice({}, "stop").encode() + b"data: [DONE]\n\n",
)
_MESSAGE = {"type": "message", "role": "assistant", "model": "claude-sonnet-4.5", "stop_sequence": None}
_ANTHROPIC_USAGE = {"input_tokens": 142, "output_tokens": 387}
ANTHROPIC = Wire(
    reply=_reply(
        {
            "id": _ID,
            **_MESSAGE,
            "content": [{"type": "text", "text": _TEXT}],
            "stop_reason": "end_turn",
            "usage": _ANTHROPIC_USAGE,
        }
    ),
    begin=(
        _named(
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
        + _named({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
    ).encode(),
    delta=_template(
        _named({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": _MARK}}), "%b"
    ),
    end=(
        _named({"type": "content_block_stop", "index": 0})
        + _named(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "end_turn", "stop_sequence": None},
                "usage": {"output_tokens": 387},
            }
        )
        + _named({"type": "message_stop"})
    ).encode(),
)
BY_PATH = {b"/api/v2/generate": NEURALBOX, b"/v1/chat/completions": OPENAI, b"/v1/messages": ANTHROPIC}
