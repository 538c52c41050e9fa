"""Images as ``data:`` URLs."""

from __future__ import annotations

import base64
import mimetypes
import os
from pathlib import Path

from neuralbox_async._errors import InvalidParameterError

# The first bytes of the image formats that models accept. The content decides the type of a file before its name does.
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
)


def data_url(source: str | os.PathLike[str] | bytes, *, media_type: str | None = None) -> str:
    """
    Return the image *source* as a ``data:`` URL (RFC 2397) to be sent inside a message.

    *source* is a path, which is read immediately, or the encoded bytes. The media type is *media_type*, or recognised
    by the content (PNG, JPEG, GIF, WebP, BMP) or by the file's name. Raises `InvalidParameterError` when it cannot be
    recognised or is not an image's, and `OSError` when the file cannot be read.
    """
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    name = None if isinstance(source, bytes) else os.fspath(source)
    recognised = media_type or _media_type_of(data) or (mimetypes.guess_type(name)[0] if name else None)
    if recognised is None or not recognised.startswith("image/"):
        raise InvalidParameterError("media_type", recognised, "the media type of an image, such as 'image/png'")
    return f"data:{recognised};base64,{base64.b64encode(data).decode()}"


def _media_type_of(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((media_type for signature, media_type in _SIGNATURES if data.startswith(signature)), None)
