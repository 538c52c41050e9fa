"""The input of a batch as text: UTF-8, decoded piece by piece; anything else is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final, TypeAlias

BOM: Final = b"\xef\xbb\xbf"
_SIGNATURES: Final = {
    b"PK\x03\x04": "a spreadsheet or another ZIP archive; save it as CSV",
    b"\xd0\xcf\x11\xe0": "a spreadsheet or another Office file; save it as CSV",
    b"\x1f\x8b": "compressed (gzip); decompress it first",
    b"%PDF-": "a PDF file",
    b"{\\rtf": "a rich-text file",
    b"\xff\xfe": "in UTF-16; choose --encoding utf-16, or save it as UTF-8",
    b"\xfe\xff": "in UTF-16; choose --encoding utf-16, or save it as UTF-8",
}


class InvalidRowError(Exception):
    """A row that cannot be sent; raised instead of yielded, a file that cannot be read. The text is for people."""


class EncodingError(InvalidRowError):
    """A row that is not valid UTF-8."""


Row: TypeAlias = tuple[int, dict[str, Any] | InvalidRowError]
"""A row or what is wrong with it, and the number of its first line or, in a JSON array, of the item."""


def check_signature(head: bytes) -> None:
    """Raise `InvalidRowError` when a file that begins with *head* is certainly not UTF-8 text."""
    for signature, description in _SIGNATURES.items():
        if head.startswith(signature):
            raise InvalidRowError(f"the file is {description}")
    check_binary(head)


def check_binary(data: bytes, line: int | None = None) -> None:
    """Raise `InvalidRowError` when *data* has a NUL byte: it is in UTF-16, or not text."""
    if b"\0" in data:
        place = "" if line is None else f"line {line}: "
        raise InvalidRowError(f"{place}the file has NUL bytes: it is not text, or in UTF-16 (--encoding utf-16)")


class DecodedLines:
    """
    The lines of a file as text; *number* is that of the last line.

    In a line that is not UTF-8, the invalid bytes are replaced and *error* is set: the reader of the rows goes on, and
    refuses the row. Raises `InvalidRowError` at a NUL byte.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._lines = enumerate(file, 1)
        self.number = 0
        self.error: InvalidRowError | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.number, line = next(self._lines)
        check_binary(line, self.number)
        line = line.removeprefix(BOM) if self.number == 1 else line
        try:
            # Not the locale's encoding: the meaning of a prompt must not depend on the machine.
            return line.decode()
        except UnicodeDecodeError as error:
            self.error = EncodingError(f"not valid UTF-8: byte {error.start} of the line is invalid")
            return line.decode(errors="replace")

    def take_error(self) -> InvalidRowError | None:
        """Return *error*, and reset it."""
        error, self.error = self.error, None
        return error
