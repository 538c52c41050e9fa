"""The decoder of compressed bodies: pieces, damage and bounds."""

import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async._http.content_decoder import MAX_RAW_BYTES, ContentEncodingError, new_decoder

BODIES = st.binary(max_size=200).map(lambda part: b"{" + part * 50)
MIB = 1024 * 1024
BROTLI = bytes.fromhex("5b6f111151d487222a5a3f0cd04859387f3fd3d6f353969c7e62e7db")  # of 70,000 bytes of JSON; a "["
ZSTD = b"\x28\xb5\x2f\xfd"
GZIP_OF_A = gzip.compress(b"a", mtime=0)


def decode(encoding, pieces):
    """Return what *pieces* decode to, and the error."""
    decoder, output = new_decoder(encoding), b""
    try:
        for piece in pieces:
            for part in decoder.decode(piece):
                output += part
        output += decoder.end()
    except ContentEncodingError as error:
        return output, error
    return output, None


def cut(body, places):
    """Return *body* cut at *places*."""
    edges = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


@given(body=BODIES, places=st.lists(st.integers(0, 10_000), max_size=5), deflate=st.booleans())
def test_pieces(body, places, deflate):
    """Where the network cuts a body makes no difference."""
    encoding, compressed = ("deflate", zlib.compress(body)) if deflate else ("gzip", gzip.compress(body))

    assert (body, None) == decode(encoding, cut(compressed, places))
    assert (body, None) == decode(encoding, cut(body, places))


@given(body=BODIES, place=st.integers(0, 10_000), damage=st.binary(min_size=1, max_size=20), data=st.data())
def test_any_damage(body, place, damage, data):
    """A damaged body gives bytes or the one error; up to the damage, the bytes are right."""
    compressed = gzip.compress(body, mtime=0)
    place = 10 + place % (len(compressed) - 10)  # behind the header
    damaged = compressed[:place] + damage + compressed[place + len(damage) :]

    output, _error = decode("gzip", cut(damaged, data.draw(st.lists(st.integers(0, 10_000), max_size=3))))

    intact, _ = decode("gzip", [compressed[:place]])
    assert output.startswith(intact)
    assert body.startswith(intact)


@pytest.mark.parametrize("padding", [b"", b"\0" * 3], ids=["", "padded"])
@pytest.mark.parametrize("parts", [[b'{"content": "paid ', b'text"}'], [b"data: a\n\n", b"", b"data: b\n\n", b"d"]])
def test_members_in_pieces(parts, padding):
    """A body of several gzip members is decoded to its end, wherever the network cuts it."""
    body = b"".join(parts)
    compressed = b"".join(gzip.compress(part, mtime=0) + padding for part in parts)

    assert (body, None) == decode("gzip", [bytes([byte]) for byte in compressed])
    for place in range(len(compressed) + 1):
        assert (body, None) == decode("gzip", cut(compressed, [place]))


@given(parts=st.lists(st.binary(max_size=50), min_size=2, max_size=5), places=st.lists(st.integers(0, 10_000)))
def test_members(parts, places):
    """Any number of gzip members is one body."""
    compressed = b"".join(gzip.compress(part, mtime=0) for part in parts)

    assert (b"".join(parts), None) == decode("gzip", cut(compressed, places))


@pytest.mark.parametrize("size", [*range(4090, 4103), *range(8186, 8199)])
def test_a_member_behind_a_step(size):
    """The second member may begin anywhere around a multiple of 4096 bytes, by which the decoder divides its input."""
    first = bytes(size - len(gzip.compress(bytes(4000), 0)) + 4000)
    member = gzip.compress(first, 0)
    assert size == len(member)

    assert (first + b"paid", None) == decode("gzip", [member + gzip.compress(b"paid")])


@pytest.mark.parametrize("behind", [b"x", b"\x1f", b"\x1fx", b"\0\0x\x1f\x8b", b"x\x1f\x8bx", b"x" * 5000 + GZIP_OF_A])
def test_bytes_behind_members(behind):
    """Bytes behind the last member that are not another one are ignored, wherever the network cuts them."""
    pieces = [GZIP_OF_A + behind], [GZIP_OF_A, behind], [bytes([byte]) for byte in GZIP_OF_A + behind]

    assert [(b"a", None)] * 3 == [decode("gzip", each) for each in pieces]


def raw_deflate(body):
    """Return *body* compressed without the header and checksum of zlib."""
    compressor = zlib.compressobj(9, wbits=-15)
    return compressor.compress(body) + compressor.flush()


@pytest.mark.parametrize("pieces", [1, 2])
def test_output_that_zlib_holds(pieces):
    """No output is lost or late that zlib still has when it has consumed all input."""
    sizes = [size + 64 * 1024 * pieces for size in range(-5, 705)]

    for size in sizes:
        assert [b"a" * size] == [b"".join(new_decoder("deflate").decode(raw_deflate(b"a" * size)))]


def test_a_bomb():
    """No piece of the output is larger than 64 KiB, however small the input is."""
    decoder = new_decoder("gzip")
    sizes = [len(piece) for piece in decoder.decode(gzip.compress(bytes(8 * MIB)))]

    assert max(sizes) <= 64 * 1024
    assert 8 * MIB == sum(sizes)
    assert len(decoder.raw) <= MAX_RAW_BYTES


UNKNOWN = ["utf-8", "none", "8bit", "br", "zstd", "gzip, br", "x" * 1000]


@pytest.mark.parametrize("encoding", UNKNOWN)
@pytest.mark.parametrize("body", [b"\xff", b"[\0", ZSTD, BROTLI, bytes(10 * MAX_RAW_BYTES)], ids=len)
def test_unknown_encodings(encoding, body):
    """The error names the encoding, at the end of the body or when 64 KiB of it are kept, wherever it is cut."""
    for pieces in ([body], [body[:1], body[1:]], [body[:20], body[20:]]):
        output, error = decode(encoding, pieces)
        assert b"" == output
        assert encoding[:40] in str(error)
        assert len(str(error)) < 200


@pytest.mark.parametrize("encoding", UNKNOWN)
@pytest.mark.parametrize("text", ["", "7", "{}", '{"content": "ä"}', ":\n\ndata: ä\n\n", "ä" * 200, "x" * MIB], ids=len)
def test_text_of_unknown_encodings(encoding, text):
    """Text that has an unknown encoding is passed on as it is, wherever the network cuts it."""
    body = text.encode()

    assert (body, None) == decode(encoding, [*(body[place : place + 1] for place in range(100)), body[100:]])
    for place in range(min(100, len(body) + 1)):
        assert (body, None) == decode(encoding, cut(body, [place]))


def test_text_is_not_held_back():
    """An event that has an unknown encoding is passed on when it arrives."""
    decoder = new_decoder("utf-8")

    for data in (b"data: {}\n\ndata: ", b"{}\n\n"):
        assert [data] == list(decoder.decode(data))


@pytest.mark.parametrize("encoding", ["gzip, identity", "Identity,GZIP", ", gzip ,"])
def test_identity_in_a_list(encoding):
    """`identity` in a list changes nothing."""
    assert (b"a", None) == decode(encoding, [GZIP_OF_A])


@pytest.mark.parametrize("encoding", ["", " ", "identity", " Identity ", "identity, identity"])
def test_identity(encoding):
    """A body that is not compressed needs no decoder."""
    assert new_decoder(encoding) is None
