"""
Bodies that a server compresses although a request accepts ``identity`` only.

Not left to aiohttp: it drops what it has decompressed of a damaged body, which is paid for.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_RAW_BYTES = 64 * 1024  # that are kept of a body that cannot be decompressed
_MAX_PIECE = 64 * 1024  # bytes of output; a few bytes of input can have a thousand times as many
_STEP = 4096  # bytes of input, before each of which the state is copied
_GZIP, _ZLIB, _DEFLATE = 31, 15, -15  # the window sizes by which zlib names the formats
_GZIP_MAGIC = b"\x1f\x8b"
_IDENTITY = frozenset({"", "identity"})
_KNOWN = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class ContentEncodingError(Exception):
    """The body is not in its content encoding, or that is unknown."""


def new_decoder(encoding: str) -> ContentDecoder | None:
    """Return the decoder of a body with the header ``Content-Encoding: encoding``; None for ``identity``."""
    encoding = encoding.strip().lower()
    return None if encoding in _IDENTITY else ContentDecoder(encoding)


class ContentDecoder:
    """
    Decompresses a body of the content coding *encoding* piece by piece.

    A body that does not begin as its encoding does is passed on as it is: gateways forget to remove the header.
    """

    def __init__(self, encoding: str) -> None:
        self.raw = b""  # the beginning of the body as it came
        self._encoding = encoding
        self._inflate: Any = None  # a `zlib.decompressobj`
        self._is_plain = False
        self._head = b""  # the first bytes of the body, or behind a member, until they show what it is

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield what *data* adds, in pieces of 64 KiB at most. Raises `ContentEncodingError` behind the last one."""
        self.raw += data[: MAX_RAW_BYTES - len(self.raw)]
        if self._encoding not in _KNOWN:
            if len(self.raw) == MAX_RAW_BYTES:
                raise self._unknown_encoding()
            return
        if self._inflate is None and not self._is_plain:
            self._head += data
            if len(self._head) < len(_GZIP_MAGIC):
                return
            data = self._begin()
        if self._is_plain:
            yield data
            return
        for start in range(0, len(data), _STEP):
            yield from self._decompress(data[start : start + _STEP])

    def end(self) -> bytes:
        """Return what is left at the end of the body: one of a single byte. Raises `ContentEncodingError`."""
        if self.raw and self._encoding not in _KNOWN:
            raise self._unknown_encoding()
        if self._inflate is not None:
            return b""
        head, self._head = self._head, b""
        return head

    def _unknown_encoding(self) -> ContentEncodingError:
        return ContentEncodingError(f"it has the content encoding {self._encoding[:40]!r}, which was not requested")

    def _begin(self) -> bytes:
        data, self._head = self._head, b""
        if data.startswith(_GZIP_MAGIC):
            self._inflate = zlib.decompressobj(_GZIP)
        elif self._encoding == "deflate" and _has_zlib_header(data):
            self._inflate = zlib.decompressobj(_ZLIB)
        elif self._encoding == "deflate" and not _is_text(data):
            self._inflate = zlib.decompressobj(_DEFLATE)
        else:
            self._is_plain = True
        return data

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._inflate.eof and not (data := self._begin_member(data)):
                return
            inflate = self._inflate
            before = inflate.copy()
            try:
                piece = inflate.decompress(data, _MAX_PIECE)
            except zlib.error:
                yield from _decompress_bytewise(before, data)
                msg = f"it is damaged: it is not valid {self._encoding}"
                raise ContentEncodingError(msg) from None
            data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
            if piece:
                yield piece

    def _begin_member(self, data: bytes) -> bytes:
        """
        Return the data of the next member of a gzip file, as far as *data*, behind the last one, has it.

        Gateways that compress each event make a member of it. Zeros between members are padding, and whatever else
        follows the last one is ignored, as by gzip itself.
        """
        data = (self._head + data).lstrip(b"\0")
        if data.startswith(_GZIP_MAGIC):
            self._inflate, self._head = zlib.decompressobj(_GZIP), b""
            return data
        self._head = data[: len(_GZIP_MAGIC)]
        return b""


def _decompress_bytewise(inflate: Any, data: bytes) -> Iterator[bytes]:
    """Yield all output before the error that *data* causes."""
    output = bytearray()
    try:
        for number in range(len(data)):
            output += inflate.decompress(data[number : number + 1])
    except zlib.error:
        pass
    if output:
        yield bytes(output)


def _has_zlib_header(data: bytes) -> bool:
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0


def _is_text(data: bytes) -> bool:
    """Return whether *data* begins like JSON or an event stream."""
    return data.lstrip()[:1] in {b"{", b"["} or data.startswith((b"data", b"event", b"id", b": ", b"\xef\xbb\xbf"))
