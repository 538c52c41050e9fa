"""What the output of a batch repeats of each row of the input, in a temporary file."""

from __future__ import annotations

import json
import tempfile
from array import array
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from neuralbox_async._cli.csv_rows import member


class KeptItems:
    """
    The members of the rows in the *columns*, all members for None.

    In a file, because a million rows must not fill the memory. A context manager: leaving it deletes the file.
    """

    def __init__(self, columns: Iterable[str] | None) -> None:
        self.columns = None if columns is None else tuple(columns)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open until the context is left
        self._offsets = array("Q")
        self._seen: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def missing_columns(self) -> list[str]:
        """The columns that no row had."""
        return [column for column in self.columns or () if column not in self._seen]

    def append(self, row: dict[str, Any]) -> None:
        """Keep the members of the next row."""
        item = {name: value for name, value in row.items() if name} if self.columns is None else self._chosen(row)
        self._offsets.append(self._file.tell())
        self._file.write(json.dumps(item).encode() + b"\n")

    def _chosen(self, row: dict[str, Any]) -> dict[str, Any]:
        found = {column: value for column in self.columns or () if (value := member(row, column)) is not None}
        self._seen.update(found)
        return found

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return what is kept of the row *number*, from 1."""
        self._file.seek(self._offsets[number - 1])
        item: dict[str, Any] = json.loads(self._file.readline())
        return item

    def __contains__(self, column: str) -> bool:
        """Return whether *column* is kept."""
        return self.columns is None or column in self.columns
