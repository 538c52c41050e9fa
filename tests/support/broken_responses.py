"""Bodies and streams that break off or are malformed, as scripts of `FaultServer`."""

from __future__ import annotations

import gzip

from fault_server import STREAM_HEAD, event, events, respond_once, response
from outcomes import BODY, COMPLETE, HEAD, START

CHUNKED_START = STREAM_HEAD[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"


def streamed_in_chunks(data, end):
    """Return a stream with *data* in one chunk, then *end*."""
    return CHUNKED_START + b"%x\r\n%s\r\n" % (len(data), data) + end


BROKEN_STREAMS = {
    "closed": respond_once(START),
    "reset": respond_once(START, then="reset"),
    "closed inside an event": respond_once(START + b'data: {"type": "content_del'),
    "closed before the blank line": respond_once(START + b'data: {"type": "content_delta", "delta": "!"}\n'),
    "closed inside a chunk": respond_once(streamed_in_chunks(events("Hello ", "world", end=False), b"ff\r\ndata: {")),
    "closed by a last chunk": respond_once(streamed_in_chunks(events("Hello ", "world", end=False), b"0\r\n\r\n")),
    "bad chunk size": respond_once(
        streamed_in_chunks(events("Hello ", "world", end=False), b""), b"zz\r\n\r\n", then="stall", every=0.05
    ),
    "not JSON": respond_once(START + b"data: {nope}\n\n" + events("never")),
    "not an object": respond_once(START + b"data: [1]\n\n" + events("never")),
    "a delta that is not a string": respond_once(START + event(type="content_delta", delta=5) + events("never")),
    "a delta that is missing": respond_once(START + event(type="content_delta") + events("never")),
    "an error event": respond_once(START + event(type="error", message="overloaded") + events("never")),
    "an error event without a message": respond_once(START + event(type="error") + events("never")),
    "bad UTF-8 for JSON": respond_once(START + b"data: \xff\xfe\n\n" + events("never")),
    "lone [DONE]-like": respond_once(START + b"data: [DONE\n\n"),
    "text in place of JSON": respond_once(START + b"data: never\n\n" + events("never")),
    "a known type with broken JSON": respond_once(START + b"event: content_delta\ndata: {\n\n" + events("never")),
}


def chunked(*chunks, end=b"0\r\n\r\n"):
    """Return a response in chunks."""
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + framed + end


LONGER = HEAD + b"Content-Length: %d\r\n\r\n" % (len(BODY) + 10) + BODY
CUT = BODY[:40]

BROKEN_BODIES = {
    "cut short of its length": (respond_once(COMPLETE[:-10]), BODY[:-10]),
    "reset short of its length": (respond_once(COMPLETE[:-10], then="reset"), BODY[:-10]),
    "length larger than the body": (respond_once(LONGER), BODY),
    "cut between chunks": (respond_once(chunked(CUT, end=b"")), CUT),
    "reset between chunks": (respond_once(chunked(CUT, end=b""), then="reset"), CUT),
    "cut inside a chunk": (respond_once(chunked(CUT, end=b"ff\r\nabc")), CUT + b"abc"),
    "bad size of the second chunk": (respond_once(chunked(CUT, end=b""), b"zz\r\n", every=0.05), CUT),
    "chunk longer than its size": (respond_once(chunked(CUT, end=b""), b"3\r\nabcdef\r\n", every=0.05), CUT),
    "no body": (respond_once(HEAD + b"Content-Length: 10\r\n\r\n"), b""),
    "no framing, cut": (respond_once(HEAD + b"\r\n" + CUT), CUT),
    "HTTP/1.0, cut": (respond_once(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n" + CUT), CUT),
    "length smaller than the body": (respond_once(HEAD + b"Content-Length: 40\r\n\r\n" + BODY), b""),
    "empty": (respond_once(response(b"")), b""),
    "damaged gzip": (respond_once(response(b"\x1f\x8bgarbage", "Content-Encoding: gzip")), b"\x1f\x8bgarbage"),
    "compressed and cut": (respond_once(response(gzip.compress(BODY)[:-20], "Content-Encoding: gzip")), b""),
}
