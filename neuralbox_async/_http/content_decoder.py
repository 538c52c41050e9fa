"""
Bodies that a server compresses although a request accepts ``identity`` only.

Not left to aiohttp: it drops what it has decompressed of a damaged body, which is paid for. Brotli and Zstandard are
not decompressed, even where packages for them are installed: their decompressors cannot be copied, as is done here to
read the text before the damage, and not all versions can limit their output.
"""

from __future__ import annotations

import codecs
import re
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
_MIN_TEXT = 16  # bytes at the beginning of a body that show whether it is text; compressed data hardly ever seems so
_MAX_TEXT = 64  # of these bytes
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_KNOWN = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": _ZLIB}


class ContentEncodingError(Exception):
    """The body is not in its content encoding, or that is unknown."""


def new_decoder(encoding: str) -> ContentDecoder | None:
    """Return the decoder of a body with the header ``Content-Encoding: encoding``; None for ``identity``."""
    codings = [name for part in encoding.lower().split(",") if (name := part.strip()) not in _IDENTITY]
    return ContentDecoder(", ".join(codings)) if codings else None


class ContentDecoder:
    """
    Decompresses a body of the content coding *encoding* piece by piece.

    A body that does not begin as its encoding does is passed on as it is: gateways forget to remove the header. With an
    unknown encoding, a body is passed on that begins as text: ``Content-Encoding: utf-8`` is a frequent mistake.
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
        if self._inflate is None and not self._is_plain:
            data = self._begin(self._head + data)
        if self._is_plain:
            yield data
            return
        if self._inflate is None and len(self.raw) == MAX_RAW_BYTES:
            raise self._unknown_encoding()
        for start in range(0, len(data), _STEP):
            yield from self._decompress(data[start : start + _STEP])

    def end(self) -> bytes:
        """Return what is left at the end of the body: one of a few bytes. Raises `ContentEncodingError`."""
        if self._inflate is not None or self._is_plain:
            return b""
        head, self._head = self._head, b""
        if self._encoding not in _KNOWN and not _is_text(head):
            raise self._unknown_encoding()
        return head

    def _unknown_encoding(self) -> ContentEncodingError:
        return ContentEncodingError(f"it has the content encoding {self._encoding[:40]!r}, which was not requested")

    def _begin(self, data: bytes) -> bytes:
        """Return *data*, the beginning of the body, if it shows how to decode it; otherwise keep it, and return b""."""
        self._head = data[:_MAX_TEXT]
        if self._encoding not in _KNOWN:
            self._is_plain = len(data) >= _MIN_TEXT and _is_text(self._head)
        elif len(data) < len(_GZIP_MAGIC):
            pass
        elif data.startswith(_GZIP_MAGIC):
            self._inflate = zlib.decompressobj(_GZIP)
        elif self._encoding == "deflate" and _has_zlib_header(data):
            self._inflate = zlib.decompressobj(_ZLIB)
        elif self._encoding == "deflate" and not _is_json_or_events(data):
            self._inflate = zlib.decompressobj(_DEFLATE)
        else:
            self._is_plain = True
        if self._inflate is None and not self._is_plain:
            return b""
        self._head = b""
        return data

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        may_hold_output = False  # of input that zlib has consumed
        while data or may_hold_output:
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
            may_hold_output = len(piece) == _MAX_PIECE
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
        while held := inflate.decompress(b"", 1):
            output += held
        for number in range(len(data)):
            output += inflate.decompress(data[number : number + 1])
    except zlib.error:
        pass
    if output:
        yield bytes(output)


def _has_zlib_header(data: bytes) -> bool:
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0


def _is_json_or_events(data: bytes) -> bool:
    """Return whether *data* begins like JSON or an event stream."""
    return data.lstrip()[:1] in {b"{", b"["} or data.startswith((b"data", b"event", b"id", b": ", b"\xef\xbb\xbf"))


def _is_text(data: bytes) -> bool:
    """Return whether *data* is UTF-8, of which the last character may be cut, without control characters."""
    try:
        codecs.utf_8_decode(data)
    except UnicodeDecodeError:
        return False
    return not _CONTROL.search(data)
