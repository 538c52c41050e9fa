"""What is loaded with the first call and not with the package, because it takes longer than all that comes before."""

from __future__ import annotations

import importlib
import logging  # noqa: F401  # pyright: ignore[reportUnusedImport] - see `_loading`
import os
import sys
import threading
from typing import TYPE_CHECKING

MODULES = ("neuralbox_async._transport", "cattrs.gen", "anyio._backends._asyncio", "encodings.idna")


_loading = threading.RLock()  # what a thread imports during a fork can never be imported in the child
# A fork takes the locks that were registered last first: this one must come after logging's, which loading needs (as it
# would after those of other libraries that are taken during imports).
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release)


def preload() -> None:
    """
    Load now what the first call would load, in about 0.2 s: at a server's start, say, or before it forks its workers.

    From any thread, and any number of times; a fork meanwhile waits for it. Raises `ImportError` when something is
    missing.
    """
    # Not in this thread: an import that Ctrl-C breaks off can leave a module that is never whole again.
    failures: list[Exception] = []
    loading = threading.Thread(target=_load, args=(failures,), name="neuralbox-import", daemon=True)
    loading.start()
    loading.join()
    if failures:
        raise failures.pop()


def _load(failures: list[Exception]) -> None:
    with _loading:
        try:
            for module in MODULES:
                importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - for the thread that waits
            failures.append(error)


class _Later:
    """Stands for the module *name*, under that name, until something of it is asked for: then that takes its place."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        if attribute == "_name":  # of a copy that is being made
            raise AttributeError(attribute)
        module = importlib.import_module(self._name)
        for user in list(sys.modules.values()):
            if getattr(user, "__dict__", {}).get(self._name) is self:
                setattr(user, self._name, module)
        return getattr(module, attribute)


if TYPE_CHECKING:
    import asyncio
    import hashlib

    import anyio
    import anyio.from_thread  # pyright: ignore[reportUnusedImport]
    import anyio.to_thread  # pyright: ignore[reportUnusedImport]
else:
    # With OpenSSL, which two of them load, they would be two fifths of what importing the package takes.
    anyio, asyncio, hashlib = _Later("anyio"), _Later("asyncio"), _Later("hashlib")

__all__ = ["MODULES", "anyio", "asyncio", "hashlib", "preload"]
