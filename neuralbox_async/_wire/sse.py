"""
Server-sent events by the rules of the WHATWG standard: bytes in, cut anywhere; events out.

HTML, section 9.2 "Server-sent events". The decoder does no I/O, takes time linear in its input, and holds no more than
one event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, cast

from neuralbox_async._errors import ResponseError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

_BOM = b"\xef\xbb\xbf"
_LF = 10
_DEFAULT_TYPE = "message"


class ServerSentEvent(NamedTuple):
    """One dispatched event: its *data*, its *event* type (default ``"message"``) and the last event id."""

    data: str
    event: str = _DEFAULT_TYPE
    id: str = ""


class NamedData(str):
    """The data of a server-sent event whose type, *event*, is not the default."""

    __slots__ = ("event",)
    event: str


_new_tuple: Callable[[type[ServerSentEvent], tuple[str, str, str]], ServerSentEvent] = cast("Any", tuple).__new__


class SSEDecoder:
    """
    Turn the bytes of an event stream into events.

    *max_event_bytes* bounds one event; a longer one is the `ResponseError` in *error*. *retry* is the reconnection time
    that the server requests, in milliseconds, or None. As the standard says, the lines after the last blank line are
    not an event.
    """

    def __init__(self, *, max_event_bytes: int) -> None:
        self.retry: int | None = None
        self.error: ResponseError | None = None
        self._max_event_bytes = max_event_bytes
        self._partial: list[bytes] = []  # of a line that has not ended; joined once, when it ends
        self._partial_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._event = ""
        self._last_id = ""
        self._after_cr = False
        self._head: bytes | None = b""  # the first bytes, until it is known whether they are a BOM
        self._is_between_events = False  # True only where it is certain

    def feed(self, chunk: bytes) -> list[ServerSentEvent]:
        """
        Return the events that *chunk* completes, in order.

        An event that is too large sets *error* and ends the decoding: the events before it are still returned, and a
        further call raises it.
        """
        if self.error is not None:
            raise self.error
        self._is_between_events = False
        events: list[ServerSentEvent] = []
        data, limit = self._data, self._max_event_bytes
        for line in self._lines(chunk):
            if line:
                if len(line) + self._data_bytes > limit:
                    self._refuse()
                    return events
                if line.startswith(b"data: "):  # nearly every line; the general way takes twice as long
                    data.append(line[6:])
                    self._data_bytes += len(line)
                else:
                    self._take_field(line)
            elif data:
                # Inlined: half of the time that an event takes here.
                text = (data[0] if len(data) == 1 else b"\n".join(data)).decode("utf-8", "replace")
                events.append(_new_tuple(ServerSentEvent, (text, self._event or _DEFAULT_TYPE, self._last_id)))
                data.clear()
                self._data_bytes = 0
                self._event = ""
            else:
                self._event = ""
        if self._partial_bytes + self._data_bytes > limit:
            self._refuse()
        return events

    def feed_data(self, chunk: bytes) -> list[bytes | str]:
        """
        Return the data of the events that *chunk* completes; the bytes as they arrived where no decoding is needed.

        The data of an event with a type is a `NamedData`. For callers that do not need the ids of events, at a third of
        the cost of `feed`: an event of one line is found by the blank line after it.
        """
        if (
            self._is_between_events
            and chunk[:6] == b"data: "
            and chunk.find(b"\n") == len(chunk) - 2
            and chunk[-1] == _LF
            and b"\r" not in chunk
            and len(chunk) - 2 <= self._max_event_bytes
        ):
            return [chunk[6:-2]]  # a live stream, an event a chunk
        if self.error is not None:
            raise self.error
        data: list[bytes | str] = []
        if not self._is_between_events or b"\r" in chunk:
            end = 0 if b"\r" in chunk else chunk.find(b"\n\n") + 2
            ended, chunk = (chunk[:end], chunk[end:]) if end > 1 else (chunk, b"")
            data.extend(map(_data_of, self.feed(ended)))
            if self._has_failed():
                return data
        *blocks, rest = chunk.split(b"\n\n")
        for block in blocks:
            if block[:6] == b"data: " and b"\n" not in block and len(block) <= self._max_event_bytes:
                data.append(block[6:])
            else:
                data.extend(map(_data_of, self.feed(block + b"\n\n")))
                if self._has_failed():
                    return data
        if rest:
            self.feed(rest)
        if not self._is_between_events:
            self._is_between_events = not (self._has_failed() or self._is_within_event())
        return data

    def _has_failed(self) -> bool:
        return self.error is not None

    def _is_within_event(self) -> bool:
        return bool(self._partial or self._data or self._event or self._after_cr or self._head is not None)

    def _refuse(self) -> None:
        # Whole lines are counted, with their field names, so that it does not depend on how the network cut them.
        self.error = ResponseError(
            f"one event of the stream is larger than {self._max_event_bytes:,} bytes (max_event_bytes)"
        )

    def _lines(self, chunk: bytes) -> list[bytes]:
        """Return the lines that *chunk* completes; they end at CR LF, LF or CR, and at nothing else."""
        if self._head is not None:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk:
            # The line ended at the CR; an LF that comes with the next bytes belongs to it.
            self._after_cr = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._partial:
            self._partial.append(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial.clear()
            self._partial_bytes = 0
        if rest:
            self._partial.append(rest)
            self._partial_bytes += len(rest)
        return lines

    def _without_bom(self, chunk: bytes) -> bytes:
        head = (self._head or b"") + chunk
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._data_bytes += len(line)
        elif name == b"event":
            self._event = _text(value)
        elif name == b"id":
            if b"\0" not in value:
                self._last_id = _text(value)
        elif name == b"retry" and value.isdigit():
            self.retry = int(value[:18])  # int() refuses thousands of digits
        # Everything else is a comment (no name before the colon) or a field to ignore.


def _data_of(event: ServerSentEvent) -> str:
    if event.event == _DEFAULT_TYPE:
        return event.data
    data = NamedData(event.data)
    data.event = event.event
    return data


def _text(value: bytes) -> str:
    # The standard decodes the stream before it splits lines. Line ends are ASCII, so decoding each line gives the same.
    return value.decode("utf-8", "replace")


async def decode(read: Callable[[], Awaitable[bytes]], decoder: SSEDecoder) -> AsyncGenerator[list[bytes | str]]:
    """
    Yield the data of the events that *read* returns, those of one chunk together, until it returns ``b""``.

    The list is empty for a chunk that completes no event with data, so that a caller can check its timeouts.
    Raises the errors of *read*, and the decoder's *error* after the events before it. The generator holds nothing: the
    bytes that have been read are in *decoder*, so a new generator over the same decoder continues where this one ended.
    """
    while chunk := await read():
        yield decoder.feed_data(chunk)
        if decoder.error is not None:
            raise decoder.error
