"""The file behind the output of a batch: a regular file is replaced in one step, anything else is written to."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import BinaryIO, Final

_WAIT_FOR_READER: Final = 5.0  # seconds, for the reader of a FIFO, which may start after the command
_POLL_INTERVAL: Final = 0.05  # seconds
_NONBLOCK: Final = getattr(os, "O_NONBLOCK", 0)  # Windows has none
_BINARY: Final = getattr(os, "O_BINARY", 0)  # nor do others have this
_DESCRIPTOR: Final = re.compile(r"/(?:dev|proc/self)/fd/(\d+)")


def descriptor_of(path: str) -> int | None:
    """Return the descriptor that *path* stands for, such as 1 for ``/dev/stdout``; otherwise None."""
    path = os.path.abspath(path)  # noqa: PTH100 - not the target of the link, which may have no path
    match = _DESCRIPTOR.fullmatch(path)
    return int(match[1]) if match else {"/dev/stdout": 1, "/dev/stderr": 2}.get(path)


def is_replaceable(path: str) -> bool:
    """Return whether *path* is a regular file or nothing yet: not a pipe, a device or a descriptor."""
    if descriptor_of(path) is not None:
        return False
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 - one path, one style
    except FileNotFoundError:
        return True


def open_stream(path: str) -> BinaryIO:
    """
    Return a pipe, a device or a descriptor, open for writing.

    Raises `OSError`, also when no process reads a FIFO: opening it would wait for one indefinitely.
    """
    descriptor = descriptor_of(path)
    # A copy of a descriptor: a socket cannot be opened by its path, and a file would be written from its beginning.
    opened = _open_writer(path) if descriptor is None else os.dup(descriptor)
    try:
        if _NONBLOCK:  # as it was opened here, or by another program
            os.set_blocking(opened, True)
        os.write(opened, b"")  # fails if it is open for reading only
        return os.fdopen(opened, "wb", buffering=0)
    except BaseException:
        os.close(opened)
        raise


def _open_writer(path: str) -> int:
    deadline = time.monotonic() + _WAIT_FOR_READER
    while True:
        try:
            opened = os.open(path, os.O_WRONLY | os.O_APPEND | _NONBLOCK | _BINARY)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116
                raise
            if time.monotonic() > deadline:
                raise OSError(errno.ENXIO, "no process reads from it", path) from None
            time.sleep(_POLL_INTERVAL)
        else:
            return opened


def write_temporary(path: str, lines: Iterable[bytes]) -> str:
    """Write *lines* to a new file beside *path*, with the permissions of that, and return its path. `OSError`."""
    folder = os.path.dirname(path)  # noqa: PTH120
    # Made exclusively: whatever has this name already is not ours to overwrite.
    temporary = os.path.join(folder, f".neuralbox-{secrets.token_hex(8)}.new")  # noqa: PTH118
    try:
        created = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    try:
        with os.fdopen(created, "wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        _copy_permissions(path, temporary)
    except BaseException:
        remove(temporary)
        raise
    return temporary


def replace(temporary: str, path: str) -> None:
    """Replace *path* by *temporary*. Neither may be open: Windows refuses that."""
    try:
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        remove(temporary)
        raise


def remove(path: str) -> None:
    """Remove *path* if it exists and can be removed."""
    with suppress(OSError):
        os.remove(path)  # noqa: PTH107


def _copy_permissions(source: str, target: str) -> None:
    try:
        status = os.stat(source)  # noqa: PTH116
    except FileNotFoundError:
        return
    with suppress(OSError, AttributeError):  # only root may give a file away; Windows has no owners of this kind
        os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, stat.S_IMODE(status.st_mode))  # noqa: PTH101
