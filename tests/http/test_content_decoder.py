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


def test_a_bomb():
    """No piece of the output is larger than 64 KiB, however small the input is."""
    decoder = new_decoder("gzip")
    sizes = [len(piece) for piece in decoder.decode(gzip.compress(bytes(8 * MIB)))]

    assert max(sizes) <= 64 * 1024
    assert 8 * MIB == sum(sizes)
    assert len(decoder.raw) <= MAX_RAW_BYTES


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "x" * 1000])
def test_unknown_encodings(encoding):
    """The error names the encoding, at the end of the body or when 64 KiB of it are kept."""
    for size in (1, 10 * MAX_RAW_BYTES):
        output, error = decode(encoding, [b"x"] * 1 if size == 1 else [bytes(size)])
        assert b"" == output
        assert encoding[:40] in str(error)
        assert len(str(error)) < 200


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_identity(encoding):
    """A body that is not compressed needs no decoder."""
    assert new_decoder(encoding) is None
