"""
The file of a journal: one process at a time appends whole lines to it.

A line is written by one system call, so a process that is killed loses no line that it wrote, and leaves at most one
torn line, the last. Opening the file removes that. What the disk refuses is tried again when the file is closed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from neuralbox_async._batch.errors import JournalError, JournalLockedError
from neuralbox_async._batch.journal_entries import is_torn_header, not_a_journal, unusable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LINES_AT_ONCE: Final = 2000
_LOCKED_BYTE: Final = 1 << 40  # on Windows, where a lock is on bytes; no journal is so long


class JournalFile:
    """
    The file at *path* of lines, of which *header* is the first. Not thread-safe, except for `check` and `sync`.

    *take_line* is called with each line of an existing file and its number from 1.
    """

    def __init__(self, path: str | os.PathLike[str], header: bytes, take_line: Callable[[bytes, int], None]) -> None:
        self.path = os.fsdecode(path)
        self._header, self._take_line = header, take_line
        self._fd = -1
        self._pid = os.getpid()
        self.unsynced = False  # whether there are lines that the disk may not have
        self.offset = 0  # of the line that is being read
        self._absolute_path = ""  # the program may change its working directory
        self._size = 0  # of whole lines
        self._unwritten: list[bytes] = []  # lines that the disk refused
        self._is_torn = False  # whether the beginning of a line could not be removed

    def open(self) -> Iterator[None]:
        """
        Open and lock the file, repair its end and read its lines; yields now and then to let other tasks run.

        Raises `JournalLockedError` and `JournalError`.
        """
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o666)
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                raise JournalError(f"the journal must be a regular file: {self.path}", path=self.path)
            self._lock()
            self._absolute_path = os.path.abspath(self.path)  # noqa: PTH100 - as above
            self.check()  # another process may have replaced it before it was locked
            yield from self._scan()
        except (OSError, ValueError) as error:
            raise unusable(self.path, error) from error

    @property
    def end(self) -> int:
        """The offset after the last line that was written."""
        return self._size

    def close(self) -> None:
        """Release the file. Idempotent."""
        if self._fd >= 0:
            if self._pid == os.getpid():
                self._write_rest()
            fd, self._fd = self._fd, -1
            # A forked child may hold the file open, so that closing alone would keep the lock. The child itself must
            # not release it, because it is its parent's.
            if self._pid == os.getpid():
                with contextlib.suppress(OSError):  # it may not be locked
                    _unlock(fd)
            os.close(fd)

    def check(self) -> None:
        """
        Raise `JournalError` unless the path still names the open file, whole: it can be removed, replaced or truncated.

        Blocks; from any thread while it is open.
        """
        size = self._size  # it may grow meanwhile
        try:
            mine = os.fstat(self._fd)
            is_there = os.path.samestat(os.stat(self._absolute_path), mine) and mine.st_size >= size  # noqa: PTH116
        except (FileNotFoundError, NotADirectoryError):
            is_there = False
        except OSError as error:
            raise unusable(self.path, error) from error
        if not is_there:
            msg = f"the journal was removed, replaced or truncated while it was in use: {self.path}"
            raise JournalError(msg, path=self.path)

    def sync(self) -> None:
        """Wait until the disk has every line. Blocks; from any thread while it is open. Raises `JournalError`."""
        if self.unsynced:
            self.unsynced = False
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise unusable(self.path, error) from error

    def line_at(self, offset: int) -> bytes:
        """Return the line at *offset*; ``b""`` if it cannot be read."""
        try:
            with open(self._fd, "rb", closefd=False) as lines:
                lines.seek(offset)
                return lines.readline()
        except OSError:
            return b""

    def write(self, line: bytes, *, retry: bool = False) -> None:
        """
        Append *line*. Raises `JournalError`.

        Then, with *retry*, the line is tried again before the next one and when the file is closed.
        """
        try:
            if self._unwritten:
                self._append_unwritten()
            self._append(line)
        except OSError as error:
            if retry:
                self._unwritten.append(line)
            raise unusable(self.path, error) from error

    def _write_rest(self) -> None:
        """Write the lines that the disk refused, if it accepts them now."""
        if self._unwritten:
            with contextlib.suppress(OSError):
                self._append_unwritten()
            with contextlib.suppress(JournalError):
                self.sync()

    def _append_unwritten(self) -> None:
        while self._unwritten:
            self._append(self._unwritten[0])
            del self._unwritten[0]

    def _append(self, line: bytes) -> None:
        if self._is_torn:
            self._remove_torn_line()
        written = os.write(self._fd, line)
        self.unsynced = True
        if written < len(line):  # the disk is nearly full
            try:
                while written < len(line):
                    written += os.write(self._fd, line[written:])
            except OSError:
                self._is_torn = True
                self._remove_torn_line()
                raise
        self._size += len(line)

    def _remove_torn_line(self) -> None:
        os.ftruncate(self._fd, min(self._size, os.fstat(self._fd).st_size))  # only the last line may be torn
        self._is_torn = False

    def _lock(self) -> None:
        try:
            _lock(self._fd)
        except (BlockingIOError, PermissionError):
            message = f"the journal is in use by another batch: {self.path}"
            raise JournalLockedError(message, path=self.path) from None

    def _scan(self) -> Iterator[None]:
        end, tail = 0, b""
        with open(self._fd, "rb", closefd=False) as lines:
            for number, line in enumerate(lines, 1):
                self.offset = end
                if line.endswith(b"\n"):
                    self._take_line(line, number)
                else:
                    tail = line
                end += len(line)
                if number % _LINES_AT_ONCE == 0:
                    yield
        self._repair(end, tail)

    def _repair(self, end: int, tail: bytes) -> None:
        """Make the file, of *end* bytes with the torn line *tail* at its end, one of whole lines."""
        if end == len(tail):
            if not is_torn_header(tail):
                raise not_a_journal(self.path)
            os.ftruncate(self._fd, 0)
            self._append(self._header)
            return
        self._size = end
        if tail:
            try:
                self._take_line(tail, 0)
            except JournalError:
                self._size -= len(tail)
                os.ftruncate(self._fd, self._size)
            else:
                self._append(b"\n")  # only the line's end was missing


def _lock(fd: int) -> None:
    """Lock the file for this process, without waiting. Raises `BlockingIOError` or, on Windows, `PermissionError`."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        os.lseek(fd, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _unlock(fd: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        os.lseek(fd, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)
