"""Disks that are full: a small file system, and a limit to the size of files."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess

_MOUNT, _UNMOUNT = shutil.which("mount") or "mount", shutil.which("umount") or "umount"


@contextlib.contextmanager
def file_size_limit(size):
    """Let no file of this process grow beyond *size* bytes: the system refuses the write, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def mount(folder, size):
    """Mount a file system of *size* at *folder*; return whether that is allowed here."""
    command = [_MOUNT, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


def resize(folder, size):
    """Give the file system at *folder* another *size*."""
    subprocess.run([_MOUNT, "-o", f"remount,size={size}", str(folder)], check=True)


def make_read_only(folder):
    """Remount the file system at *folder* read-only; return whether that is possible with its open files."""
    command = [_MOUNT, "-o", "remount,ro", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder):
    """Unmount the file system at *folder*."""
    subprocess.run([_UNMOUNT, "-l", str(folder)], check=True)
