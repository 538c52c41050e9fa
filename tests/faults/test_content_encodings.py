"""Bodies that a server compresses although the request accepts `identity` only; paid text of damaged ones is read."""

import gzip
import itertools
import random
import zlib

import pytest
from fault_server import STREAM_HEAD, events, generation, respond_once, response
from outcomes import assert_unknown, generate, stream

from neuralbox_async import APIConnectionError, StreamInterruptedError

TEXT = random.Random(5).randbytes(40_000).hex()  # that cannot be compressed to a few bytes
BODY = response(generation(TEXT)).partition(b"\r\n\r\n")[2]
GZIP = gzip.compress(BODY, mtime=0)
HALF = len(GZIP) // 2


def raw_deflate(body):
    """Return *body* compressed without the header of zlib, as old servers do."""
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(body) + compressor.flush()


WHOLE = {
    "gzip": ("gzip", GZIP),
    "x-gzip, in capitals": (" X-GZIP ", GZIP),
    "gzip of two members": ("gzip", gzip.compress(BODY[:9000]) + gzip.compress(BODY[9000:])),
    "bytes behind gzip": ("gzip", GZIP + b"\0" * 100),
    "deflate": ("deflate", zlib.compress(BODY)),
    "deflate without its header": ("deflate", raw_deflate(BODY)),
    "identity": ("identity", BODY),
    "plain, called gzip": ("gzip", BODY),
    "plain, called deflate": ("deflate", BODY),
    "plain, called br": ("br", BODY),
    "plain, called by its charset": ("utf-8", BODY),
    "a list with identity": ("gzip, identity", GZIP),
    "gzip, called deflate": ("deflate", GZIP),
}
DAMAGED = {
    "checksum": ("gzip", GZIP[:-8] + bytes(8), len(TEXT)),
    "in the middle": ("gzip", GZIP[:HALF] + bytes(100) + GZIP[HALF + 100 :], 30_000),
    "unknown encoding": ("br", b"\x5b\x6f\x11\x11\x51\xd4" + GZIP, 0),
    "unknown encoding of a few bytes": ("br", b"\x06", 0),
    "of a gateway": ("deflate", b"\xff" + zlib.compress(BODY), 0),
}


def encoded(encoding, body, **options):
    """Return a script that responds with *body*."""
    return respond_once(response(body, f"Content-Encoding: {encoding}", **options))


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize("encoding, body", WHOLE.values(), ids=WHOLE)
async def test_whole(serve, connect, streamed, encoding, body):
    """The text is that of the body before it was compressed."""
    server = serve(encoded(encoding, body))
    client = connect(server)

    if streamed:
        async with client.stream("gpt-5", "Hi") as opened:
            reply = await opened.get_final_generation()
    else:
        reply = await client.generate("gpt-5", "Hi")

    assert TEXT == reply.content
    assert 1 == server.posts


@pytest.mark.parametrize("encoding, body, length", DAMAGED.values(), ids=DAMAGED)
async def test_damaged(serve, connect, encoding, body, length):
    """The error has the text before the damage, and the bytes; billing is unknown, and nothing is retried."""
    server = serve(encoded(encoding, body))

    error = (await generate(connect(server))).error

    assert isinstance(error, APIConnectionError)
    assert_unknown(error)
    assert error.body.startswith(BODY[:1000] if length else body[:1000])
    assert TEXT[:length] == error.text[:length]  # damage can be decoded to something before it is noticed
    assert ("gen_1" if length else None) == error.generation_id
    assert "content" not in str(error) or "not requested" in str(error)
    assert await server.all_closed()
    assert 1 == server.posts


@pytest.mark.parametrize("damage", [b"", bytes(20)], ids=["cut", "damaged"])
async def test_stream(serve, connect, damage):
    """A stream that is compressed delivers what can be read of it."""
    deltas = [TEXT[start : start + 100] for start in range(0, 40_000, 100)]
    body = gzip.compress(events(*deltas), mtime=0)
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    server = serve(respond_once(head, body[: len(body) // 2] + damage))

    outcome = await stream(connect(server))

    assert isinstance(outcome.error, StreamInterruptedError)
    assert_unknown(outcome.error)
    assert TEXT[:10_000] == outcome.error.text[:10_000]


@pytest.mark.parametrize("streamed", [False, True], ids=["generate", "stream"])
@pytest.mark.parametrize("behind", [0, 1, 2, 15])
async def test_members_that_arrive_separately(serve, connect, streamed, behind):
    """A gateway may compress each event separately; each piece here ends *behind* bytes behind the end of a member."""
    parts = events("Hel", "lo").splitlines(keepends=True) if streamed else [BODY[:9000], BODY[9000:]]
    members = [gzip.compress(part, mtime=0) for part in parts]
    ends = [size + behind for size in itertools.accumulate(map(len, members))][:-1]
    compressed = b"".join(members)
    pieces = [compressed[start:end] for start, end in itertools.pairwise([0, *ends, None])]
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")
    server = serve(respond_once(head, *pieces, every=0.01))
    client = connect(server)

    if streamed:
        async with client.stream("gpt-5", "Hi") as opened:
            assert "Hello" == (await opened.get_final_generation()).content
    else:
        assert TEXT == (await client.generate("gpt-5", "Hi")).content


@pytest.mark.parametrize("encoding", ["utf-8", "none", "br"])
async def test_a_plain_stream(serve, connect, encoding):
    """Events that are not encoded at all are read, whatever the header says."""
    head = STREAM_HEAD.replace(b"\r\n\r\n", f"\r\nContent-Encoding: {encoding}\r\n\r\n".encode())
    server = serve(respond_once(head, b":\n\n", events("Hel", "lo"), every=0.01))

    async with connect(server).stream("gpt-5", "Hi") as opened:
        assert "Hello" == (await opened.get_final_generation()).content


async def test_one_byte(serve, connect):
    """A body of one byte, which is the beginning of no encoding, is not lost."""
    server = serve(encoded("gzip", b"7"))

    error = (await generate(connect(server))).error

    assert b"7" == error.body


@pytest.mark.parametrize("status", ["402 No", "404 No"])
async def test_an_error_status(serve, connect, status):
    """The status decides, though the body cannot be read."""
    server = serve(encoded("gzip", GZIP[:100] + bytes(100), status=status))

    error = (await generate(connect(server))).error

    assert int(status[:3]) == error.status_code
    assert "no" == error.billed
