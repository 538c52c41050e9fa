"""`SSEDecoder` follows each rule of the HTML standard for event streams, wherever the network cuts the bytes."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async import ResponseError
from neuralbox_async._options import DEFAULT_MAX_EVENT_BYTES
from neuralbox_async._wire.sse import ServerSentEvent, SSEDecoder, decode

# One rule a row: the bytes of a stream, and the events that the standard defines for them, as (data, event, id).
RULES = {
    "a blank line dispatches": (b"data: a\n\n", [("a", "message", "")]),
    "LF, CR LF and CR end lines": (b"data: a\ndata: b\r\ndata: c\r\r\n", [("a\nb\nc", "message", "")]),
    "CR CR is a blank line": (b"data: a\r\rdata: b\r\r", [("a", "message", ""), ("b", "message", "")]),
    "CR LF is one line end, not two": (b"data: a\r\ndata: b\r\n\r\n", [("a\nb", "message", "")]),
    "nothing else ends a line": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei\n\n".encode(),
        [("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei", "message", "")],
    ),
    "one leading BOM is removed": (b"\xef\xbb\xbfdata: a\n\n", [("a", "message", "")]),
    "only one BOM is removed": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [("b", "message", "")]),
    "a BOM is removed only at the start": ("data: \ufeffa\n\n".encode(), [("\ufeffa", "message", "")]),
    "one space after the colon is removed": (b"data:  a \n\n", [(" a ", "message", "")]),
    "no space is required": (b"data:a\n\n", [("a", "message", "")]),
    "a tab is not a space": (b"data:\ta\n\n", [("\ta", "message", "")]),
    "data lines are joined by LF": (b"data: a\ndata:\ndata: b\n\n", [("a\n\nb", "message", "")]),
    "empty data is data": (b"data:\n\n", [("", "message", "")]),
    "a field without a colon has an empty value": (b"data\ndata\n\n", [("\n", "message", "")]),
    "no data, no event": (b"event: x\nid: 1\n\ndata: a\n\n", [("a", "message", "1")]),
    "an event type applies to one event": (b"event: x\ndata: a\n\ndata: b\n\n", [("a", "x", ""), ("b", "message", "")]),
    "the last event type applies": (b"event: x\nevent: y\ndata: a\n\n", [("a", "y", "")]),
    "the id applies to later events": (
        b"id: 7\ndata: a\n\ndata: b\n\n",
        [("a", "message", "7"), ("b", "message", "7")],
    ),
    "an empty id resets": (b"id: 7\ndata: a\n\nid\ndata: b\n\n", [("a", "message", "7"), ("b", "message", "")]),
    "an id with NUL is ignored": (b"id: 7\nid: \x008\ndata: a\n\n", [("a", "message", "7")]),
    "comments are ignored": (b": ping\n:\n:data: x\ndata: a\n: pong\n\n: ping\n\n", [("a", "message", "")]),
    "unknown fields are ignored": (b"foo: x\nDATA: y\n data: z\ndata: a\n\n", [("a", "message", "")]),
    "a value may contain colons": (b"data: a: b\n\n", [("a: b", "message", "")]),
    "an incomplete event at the end is not dispatched": (b"data: a\n\ndata: b\n", [("a", "message", "")]),
    "invalid UTF-8 is replaced": (b"data: \xff\xc3\xe2\x82\n\n", [("\ufffd\ufffd\ufffd", "message", "")]),
    "a character may be cut anywhere": (
        "data: \u00e9\u20ac\U0001f600\n\n".encode(),
        [("\u00e9\u20ac\U0001f600", "message", "")],
    ),
    "retry alone is not an event": (b"retry: 10\n\ndata: a\n\n", [("a", "message", "")]),
    "blank lines do nothing": (b"\n\r\n\rdata: a\n\n\n\n", [("a", "message", "")]),
}


def new_decoder() -> SSEDecoder:
    return SSEDecoder(max_event_bytes=DEFAULT_MAX_EVENT_BYTES)


def decoded(pieces: list[bytes]) -> list[tuple[str, str, str]]:
    decoder, bare = new_decoder(), new_decoder()
    events = [tuple(event) for piece in pieces for event in decoder.feed(piece)]
    assert [data for data, _, _ in events] == texts([data for piece in pieces for data in bare.feed_data(piece)])
    return events


def texts(data: list[bytes | str]) -> list[str]:
    """Return the items of `feed_data` as text."""
    return [item if isinstance(item, str) else item.decode("utf-8", "replace") for item in data]


def cut(stream: bytes, step: int) -> list[bytes]:
    return [stream[i : i + step] for i in range(0, len(stream), step)]


@pytest.mark.parametrize("stream, events", RULES.values(), ids=RULES)
def test_each_rule_of_the_standard_holds(stream, events):
    """Each rule holds wherever the network cuts the bytes."""
    for step in range(1, len(stream) + 1):
        assert events == decoded(cut(stream, step))
    for at in range(len(stream) + 1):
        assert events == decoded([stream[:at], b"", stream[at:]])


@given(
    st.lists(
        st.sampled_from(
            [b"data", b":", b" ", b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b"id", b"\0", b"x", b"event", b"\xe2"]
        )
    ),
    st.data(),
)
def test_cuts_do_not_change_the_events(pieces, data):
    """Any bytes, cut anywhere, decode to the events of the uncut bytes."""
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    assert decoded([stream]) == decoded(parts)


@pytest.mark.parametrize(
    "value, retry",
    [(b"10", 10), (b"007", 7), (b"", None), (b"-1", None), (b"1.5", None), (b"x", None), (b"\xb2", None)],
)
def test_only_ascii_digits_set_the_reconnection_time(value, retry):
    """Only ASCII digits set the reconnection time."""
    decoder = new_decoder()

    assert [] == decoder.feed(b"retry: " + value + b"\n\n")
    assert retry == decoder.retry


_PARTS = [
    b"data: a",
    b"data: a\n\n",
    b"data:b",
    b"event: x",
    b"id: 1",
    b": c",
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\xe2",
]


@given(st.lists(st.lists(st.sampled_from(_PARTS), max_size=8).map(b"".join), max_size=8))
def test_feed_data_returns_the_data_of_feed(chunks):
    """`feed_data` returns the data of the events that `feed` returns, for any chunks."""
    decoder, bare = new_decoder(), new_decoder()

    for chunk in chunks:
        assert [event.data for event in decoder.feed(chunk)] == texts(bare.feed_data(chunk))


_CHUNK_ENDS = [
    b"b\n\n",
    b"b\rdata: c\n\n",
    b"b\r\n\r\n",
    b"b\n\r\n",
    b"b\n\r",
    b"\n\n",
    b"\n",
    b"b\n\n\n",
    b"b\n",
    b"b\nx",
    b"b",
]


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_feed_data_keeps_types(step):
    """`feed_data` keeps the types of events that have one, however the bytes are cut."""
    stream = b"data: a\n\nevent: x\ndata: b\n\ndata: c\n\ndata: d\nevent: y\n\nevent: message\ndata: e\n\nevent: z\n\n"
    decoder, bare = new_decoder(), new_decoder()

    events = [event for piece in cut(stream, step) for event in decoder.feed(piece)]
    data = [item for piece in cut(stream, step) for item in bare.feed_data(piece)]

    assert ["message", "x", "message", "y", "message"] == [event.event for event in events]
    assert [event.event for event in events] == [getattr(item, "event", "message") for item in data]
    assert [event.data for event in events] == texts(data)


@pytest.mark.parametrize("rest", _CHUNK_ENDS)
@pytest.mark.parametrize("start", [b"data: ", b"data:", b": "])
def test_feed_data_of_a_live_stream(start, rest):
    """`feed_data` agrees with `feed` when chunks with whole events and chunks with parts of events alternate."""
    decoder, bare = new_decoder(), new_decoder()

    for chunk in b"data: a\n\n", start + rest, b"data: z\n\n", b"\n\n", b"data: z\n\n":
        assert [event.data for event in decoder.feed(chunk)] == texts(bare.feed_data(chunk))


def test_a_reconnection_time_of_many_digits():
    """A reconnection time of ten thousand digits raises no error and does not hang."""
    decoder = new_decoder()

    decoder.feed(b"retry: " + b"9" * 10_000 + b"\n")

    assert decoder.retry is not None


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
@pytest.mark.parametrize("large", [b"data: " + b"x" * 200, b"data: x\n" * 100, b": " + b"x" * 200, b"x" * 200])
def test_an_event_that_is_too_large(large, step):
    """An event or line above the bound is an error after the events before it, wherever the bytes are cut."""
    decoder = SSEDecoder(max_event_bytes=100)
    events = []
    pieces = [*cut(b"data: a\n\n" + large + b"\n\ndata: b\n\n", step), b"\n"]

    with pytest.raises(ResponseError, match="larger than 100 bytes"):
        for piece in pieces:
            events += decoder.feed(piece)

    assert [ServerSentEvent("a")] == events

    decoder, data = SSEDecoder(max_event_bytes=100), []
    with pytest.raises(ResponseError, match="larger than 100 bytes"):
        for piece in pieces:
            data += decoder.feed_data(piece)
    assert ["a"] == texts(data)


@pytest.mark.parametrize("size, fits", [(100, True), (101, False)])
def test_the_bound_in_a_live_stream(size, fits):
    """The bound is the same for an event that is a chunk of its own, as in a live stream."""
    decoder, bare = SSEDecoder(max_event_bytes=100), SSEDecoder(max_event_bytes=100)
    event = b"data: ".ljust(size, b"x") + b"\n\n"

    for feed in decoder.feed, bare.feed_data:
        assert 1 == len(feed(b"data: a\n\n"))
        assert fits == len(feed(event))

    assert fits == (decoder.error is None) == (bare.error is None)


@pytest.mark.parametrize("large", [b"data: 0123456789\n\n", b"data: 0123456789\n", b"data: 0123456789"])
def test_nothing_is_decoded_after_an_error(large):
    """After an event that is too large, every further call raises the error."""
    decoder, bare = SSEDecoder(max_event_bytes=10), SSEDecoder(max_event_bytes=10)

    for feed in decoder.feed, bare.feed_data:
        feed(b"data: a\n\n")
        feed(large)
        for _ in range(2):
            with pytest.raises(ResponseError, match="larger than 10 bytes"):
                feed(b"data: z\n\n")


def test_the_bound_holds_for_one_event():
    """Many small events in one chunk may together exceed the bound of one event."""
    assert 1000 == len(SSEDecoder(max_event_bytes=20).feed(b"data: 0123456789\n\n" * 1000))
    assert 1000 == len(SSEDecoder(max_event_bytes=20).feed_data(b"data: 0123456789\n\n" * 1000))


@pytest.mark.timing
def test_time_is_linear_in_the_length_of_a_line():
    """A line of ten megabytes in chunks of a kilobyte takes less than 5 s (in quadratic time: minutes)."""
    decoder, bare = new_decoder(), new_decoder()
    line = b"data: " + b"x" * (10 * 1024 * 1024)
    started = time.process_time()

    events = [event for piece in cut(line + b"\n\n", 1024) for event in decoder.feed(piece)]
    data = [event for piece in cut(line + b"\n\n", 1024) for event in bare.feed_data(piece)]

    assert [len(line) - 6] == [len(event.data) for event in events] == [len(text) for text in data]
    assert time.process_time() - started < 5.0


@pytest.mark.timing
def test_time_is_linear_in_the_number_of_events():
    """Two hundred thousand small events take less than 20 s."""
    started = time.process_time()

    assert 200_000 == len(decoded(cut(b"data:x\n\n" * 200_000, 65536)))
    assert 200_000 == len(new_decoder().feed_data(b"data: x\n\n" * 200_000))
    assert time.process_time() - started < 20.0


async def test_a_new_generator_continues_with_the_same_decoder():
    """A new generator over the same decoder continues where the closed one ended."""
    chunks = iter([b"data: a\n\nda", b"ta: b\n\n", b""])

    async def read() -> bytes:
        return next(chunks)

    decoder = new_decoder()
    first = decode(read, decoder)
    assert ["a"] == texts(await anext(first))
    await first.aclose()

    assert [["b"]] == [texts(data) async for data in decode(read, decoder)]


async def test_the_error_comes_after_the_events_before_it():
    """The generator yields the events before one that is too large, then raises its error."""

    async def read() -> bytes:
        return b"data: a\n\n" + b"x" * 200

    decoding = decode(read, SSEDecoder(max_event_bytes=100))

    assert ["a"] == texts(await anext(decoding))
    with pytest.raises(ResponseError):
        await anext(decoding)
