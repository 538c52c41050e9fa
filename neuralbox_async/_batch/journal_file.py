"""
The file of a journal: one process at a time appends whole lines to it.

A line is written by one system call, so a process that is killed loses no line that it wrote and leaves at most one
torn line, the last. Opening the file removes that.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from neuralbox_async._errors import JournalError, JournalLockedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LINES_AT_ONCE: Final = 2000
_LOCKED_BYTE: Final = 1 << 40  # on Windows, where a lock is on bytes; no journal is so long


class JournalFile:
    """
    The file at *path* of lines, of which *header* is the first. Not thread-safe, except for `sync`.

    *take_line* is called with each line of an existing file and its number from 1.
    """

    def __init__(self, path: str | os.PathLike[str], header: bytes, take_line: Callable[[bytes, int], None]) -> None:
        self.path = os.fspath(path)
        self._header, self._take_line = header, take_line
        self._fd = -1
        self._pid = os.getpid()
        self.unsynced = False  # whether there are lines that the disk may not have

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
            yield from self._scan()
        except OSError as error:
            raise unusable(self.path, error) from error

    def close(self) -> None:
        """Release the file. Idempotent."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            # A forked child may hold the file open, so that closing alone would keep the lock. The child itself must
            # not release it, because it is its parent's.
            if self._pid == os.getpid():
                with contextlib.suppress(OSError):  # it may not be locked
                    _unlock(fd)
            os.close(fd)

    def sync(self) -> None:
        """Wait until the disk has every line. Blocks; from any thread while it is open. Raises `JournalError`."""
        if self.unsynced:
            self.unsynced = False
            try:
                os.fsync(self._fd)
            except OSError as error:
                raise unusable(self.path, error) from error

    def write(self, line: bytes) -> None:
        """Append *line*. Raises `JournalError`."""
        try:
            self._append(line)
        except OSError as error:
            raise unusable(self.path, error) from error

    def _append(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        self.unsynced = True
        if written < len(line):  # the disk is nearly full
            try:
                while written < len(line):
                    written += os.write(self._fd, line[written:])
            except OSError:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)  # only the last line may be torn
                raise

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
            if not self._header.startswith(tail):
                raise not_a_journal(self.path)
            os.ftruncate(self._fd, 0)
            self._append(self._header)
        elif tail:
            try:
                self._take_line(tail, 0)
            except JournalError:
                os.ftruncate(self._fd, end - len(tail))
            else:
                self._append(b"\n")  # only the line's end was missing


def unusable(path: str, error: OSError) -> JournalError:
    """Return the error of a journal that the operating system refuses."""
    return JournalError(f"the journal cannot be used: {path}: {error.strerror}", path=path)


def not_a_journal(path: str) -> JournalError:
    """Return the error of another file."""
    return JournalError(f"the file is not a journal of a batch: {path}", path=path, line=1)


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
