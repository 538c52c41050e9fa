"""
The decoder of stream events: from the data of server-sent events to `StreamEvent`s.

Source: the vendor's "Streaming Guide" (the ``type`` member has the type of an event, and ``[DONE]`` ends a stream).
What has no content is a heartbeat: servers and gateways send them in many forms, and the text of a stream that has
been paid for must not be lost to one of them.
"""

from __future__ import annotations

import operator
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from neuralbox_async._errors import GenerationFailedError, ResponseError
from neuralbox_async._types import (
    ContentDelta,
    Generation,
    GenerationEnd,
    GenerationStart,
    StreamEvent,
    UnknownEvent,
)
from neuralbox_async._wire import fast_path, json
from neuralbox_async._wire.partial_json import without_deep_members
from neuralbox_async._wire.responses import generation_failed
from neuralbox_async._wire.sse import NamedData, SSEDecoder
from neuralbox_async._wire.status_errors import MAX_MESSAGE_LENGTH, message_in
from neuralbox_async._wire.structuring import structure, text_in
from neuralbox_async._wire.surrogates import SurrogateJoiner

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

_ERROR: Final = "error"
_EVENT_TYPES: dict[str, type[GenerationStart | ContentDelta | GenerationEnd]] = {
    "generation_start": GenerationStart,
    "content_delta": ContentDelta,
    "generation_end": GenerationEnd,
}
# Data that is no JSON object and no content, compared by `_word`.
_DONE = "[done]"
_EMPTY = frozenset({"", "null"})
_HEARTBEATS = _EMPTY | {"ping", "pong", "keepalive", "keep-alive", "heartbeat"}
_AROUND_WORDS = " \t\r\n\"'\ufeff"
_BOM = "\ufeff"


class EventDecoder:
    """
    Turns the server-sent events of one stream into its events.

    *ended* is true after the terminal event; what follows it is ignored. Surrogate pairs that are cut between two
    deltas are joined, and the text never has a lone surrogate: it becomes U+FFFD (the event's *raw* keeps it).
    *decode* calls a decoder with what was received, and may change its errors.
    """

    def __init__(self, decode: Callable[..., Any]) -> None:
        self.ended = False
        self._call_decoder = decode
        self._joiner = SurrogateJoiner()
        self._has_text = False
        self._unfinished: str | None = None  # the status of a generation that an event has described

    def decode(self, received: Iterable[bytes | str], pending: deque[StreamEvent | dict[str, Any]]) -> None:
        """
        Append the events in *received*, the data of server-sent events, to *pending*; dicts are deltas.

        Raises `ResponseError` for an event that is malformed, and `GenerationFailedError` for an error event, after the
        events before it.
        """
        left, before = iter(received), len(pending)
        while not self.ended:
            # A surrogate that waits is joined with the next delta, which must not be taken before that.
            data = next(left, None) if self._joiner.high else fast_path.take_deltas(left, pending.append)
            self._has_text = self._has_text or any(event["delta"] for event in _deltas(pending, before))
            if data is None:
                return
            self._decode(data if isinstance(data, str) else data.decode("utf-8", "replace"), pending)
            before = len(pending)

    def _decode(self, data: str, pending: deque[StreamEvent | dict[str, Any]]) -> None:
        if _word(data) == _DONE:
            if self._unfinished is not None and not self._has_text:
                msg = f"the stream ended without text, and its generation is {self._unfinished}"
                raise ResponseError(msg, body=data.encode())
            self._end(pending)
            return
        event: StreamEvent | None = self._call_decoder(decode_event, data)
        if isinstance(event, ContentDelta):
            self._has_text = self._has_text or event.delta != ""
            pending.append(ContentDelta(self._joiner.feed(event.delta), raw=event.raw))
        elif isinstance(event, GenerationEnd):
            self._end(pending)
            if not self._has_text and (text := text_in(event.raw)):  # it is sent in one piece, and paid for
                pending.append(ContentDelta(text, raw=event.raw))
            pending.append(event)
        elif isinstance(event, UnknownEvent) and (generation := _described_by(event)) is not None:
            self._take_generation(generation, event, pending)
        elif event is not None:
            pending.append(event)

    def _end(self, pending: deque[StreamEvent | dict[str, Any]]) -> None:
        self.ended = True
        if rest := self._joiner.flush():
            pending.append(ContentDelta(rest))

    def _take_generation(
        self, generation: Generation, event: UnknownEvent, pending: deque[StreamEvent | dict[str, Any]]
    ) -> None:
        """Take the event of a server that ignores ``stream`` and sends the response of a plain call as an event."""
        raw = event.raw
        if generation.status == "failed":
            raise generation_failed(generation)
        if not generation.finished:
            self._unfinished = generation.status
            pending.append(GenerationStart(generation.id, generation.model, raw=raw, problems=generation.problems))
        elif self._has_text:
            pending.append(event)
        else:
            self.ended = True
            pending.append(ContentDelta(generation.content, raw=raw))
            end = (generation.id, generation.tokens_used, generation.balance_remaining, generation.usage)
            pending.append(GenerationEnd(*end, raw=raw, problems=generation.problems))


def generation_in(body: bytes) -> Generation:
    """
    Return the generation whose events are in *body*: the response of a server that streams without ``stream``.

    Its status is ``"incomplete"`` if they end before a terminal event, or at one that is malformed. Raises
    `GenerationFailedError` for an error event.
    """
    pending: deque[StreamEvent | dict[str, Any]] = deque()
    decoder = EventDecoder(operator.call)
    with suppress(ResponseError):
        decoder.decode(SSEDecoder(max_event_bytes=len(body) + 1).feed_data(body), pending)
    start, end, texts = GenerationStart(), GenerationEnd(), list[str]()
    for event in pending:
        if isinstance(event, dict):
            texts.append(event["delta"])
        elif isinstance(event, ContentDelta):
            texts.append(event.delta)
        elif isinstance(event, GenerationStart) and start.id is None:
            start = event
        elif isinstance(event, GenerationEnd):
            end = event
    return Generation(
        id=start.id if start.id is not None else end.id,
        status="completed" if decoder.ended else "incomplete",
        model=start.model,
        content="".join(texts),
        tokens_used=end.tokens_used,
        balance_remaining=end.balance_remaining,
        usage=end.usage,
        problems=start.problems + end.problems,
        raw=end.raw,
    )


def decode_event(data: str) -> StreamEvent | None:
    """
    Return the event in the *data* of one server-sent event, or None if it is a heartbeat.

    Its type is the ``type`` member; without one, that of the server-sent event (`NamedData`). An event of an unknown
    type that is not a JSON object is an `UnknownEvent` with the text as *raw* ``data``. Raises `ResponseError` when an
    event of a known type, or of none, is malformed, and `GenerationFailedError` for an error event.
    """
    name = data.event if isinstance(data, NamedData) else None
    is_known = name is None or name == _ERROR or name in _EVENT_TYPES
    word = _word(data)
    if word in _HEARTBEATS and is_known and name not in {"generation_end", _ERROR}:
        return None
    body = data.encode(errors="replace")
    members: Any
    try:
        shallow, too_deep = without_deep_members(data.lstrip(_BOM))
        members = {} if word in _EMPTY else json.loads(shallow)
    except (ValueError, RecursionError) as error:
        if name == _ERROR:
            raise _error_event({"message": data}) from None
        if not is_known:
            return UnknownEvent(name or "", {"data": str(data)})
        msg = f"an event of the stream is not JSON ({json.one_line(str(error))}): {json.excerpt(body)}"
        raise ResponseError(msg, body=body) from None
    if not json.is_object(members):
        if name == _ERROR:
            raise _error_event({"message": data})
        if not is_known:
            return UnknownEvent(name or "", {"data": str(data)})
        msg = f"expected a JSON object at $ in an event of the stream, got {json.type_name(members)}"
        raise ResponseError(msg, path="$", body=body)
    return _event_of(members, name, body, too_deep)


def _event_of(members: dict[str, Any], name: str | None, body: bytes, too_deep: Collection[str] = ()) -> StreamEvent:
    event_type = members.get("type")
    if event_type == _ERROR or (event_type is None and (name == _ERROR or members.get("error") is not None)):
        raise _error_event(members)
    if not isinstance(event_type, str) or not event_type:
        event_type = name or ""
    cls = _EVENT_TYPES.get(event_type)
    if cls is GenerationEnd and members.get("status") == "failed":
        raise _error_event(members)
    if cls is None:
        return UnknownEvent(event_type, members)
    if cls is ContentDelta and members.get("delta", "") is None:
        return ContentDelta("", raw=members)  # an explicit null is no text; a missing member may be text elsewhere
    return structure(members, cls, body, too_deep)


def _deltas(pending: deque[StreamEvent | dict[str, Any]], start: int) -> Iterator[dict[str, Any]]:
    """Yield the deltas in *pending*, from *start* on, that the fast path has taken."""
    return (event for event in islice(pending, start, None) if isinstance(event, dict))


def _word(data: str) -> str:
    """Return *data* for comparison with a word: without white space and quotes around it, in lower case."""
    word = data.strip(_AROUND_WORDS)
    return word.lower() if len(word) <= len("keep-alive") else word


def _described_by(event: UnknownEvent) -> Generation | None:
    """Return the generation that an *event* without a type describes, or None."""
    if event.type or not isinstance(event.raw.get("status"), str):
        return None
    try:
        return structure(event.raw, Generation, b"")
    except ResponseError:
        return None


def _error_event(members: dict[str, Any]) -> GenerationFailedError:
    reason = message_in(members) or None
    message = f": {reason[:MAX_MESSAGE_LENGTH]}" if reason else " without a reason"
    return GenerationFailedError(f"the API ended the stream with an error{message}", reason=reason)
