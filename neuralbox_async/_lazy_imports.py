"""Modules that are loaded with the first call, not with the package: they take longer to load than the package does."""

from __future__ import annotations

import importlib
import logging  # noqa: F401  # pyright: ignore[reportUnusedImport] - see `_import_lock`
import os
import sys
import threading
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Any

from neuralbox_async._fork_delay import forks_wait_for_thread

MODULES = (
    "neuralbox_async._batch.estimate",
    "neuralbox_async._batch.opening",
    "neuralbox_async._batch.typed_items",
    "neuralbox_async._call.generating",
    "neuralbox_async._call.masking",
    "neuralbox_async._call.parsing",
    "neuralbox_async._call.polling",
    "neuralbox_async._http.aiohttp_transport",
    "neuralbox_async._wire.endpoints",
    "neuralbox_async._wire.events",
    "neuralbox_async._wire.sse",
    "anyio._backends._asyncio",
    "cattrs.gen",
    "encodings.idna",
    "html",
)
"""The modules that calls, streams and batches need."""
_IMPORT_THREAD = "neuralbox-import"
_OUR_PACKAGES = ("neuralbox_async", "neuralbox_sync")

# A fork waits for it: a module that another thread imports during the fork could never be imported in the child. A fork
# acquires the locks in reverse order of their registration. Imports need logging's lock, so this one comes after it.
# The wait of forks for threads is registered before it: it begins when the imports are done.
_import_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_import_lock.acquire, after_in_parent=_import_lock.release, after_in_child=_import_lock.release
    )


def preload() -> None:
    """
    Load now the modules that the first call would load, in about 0.2 s: when a server starts, or before it forks.

    From any thread, any number of times; a concurrent fork waits for it. Raises `ImportError` when a module is missing.
    """
    # Not in this thread: an import that Ctrl-C interrupts can leave a module that is never whole again.
    failures: list[Exception] = []
    thread = threading.Thread(target=_import_all, args=(failures,), name=_IMPORT_THREAD, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures.pop()


def _import_all(failures: list[Exception]) -> None:
    with _import_lock, forks_wait_for_thread():
        try:
            for module in MODULES:
                importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - for the thread that waits
            failures.append(error)


def _import(name: str) -> ModuleType:
    """Return the module *name*; the first time, all `MODULES` are loaded with it, by `preload`."""
    if threading.current_thread().name != _IMPORT_THREAD and not all(module in sys.modules for module in MODULES):
        with suppress(RuntimeError):  # no thread can be started: the interpreter is about to exit
            preload()
    return importlib.import_module(name)


class _LazyModule:
    """
    A proxy for the module *name*.

    The first attribute access imports the module and replaces the proxy in our own modules.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._variable = name.rpartition(".")[2]

    def __getattr__(self, attribute: str) -> object:
        if attribute in {"_name", "_variable"}:  # of a copy that is not initialised yet
            raise AttributeError(attribute)
        module = _import(self._name)
        # Our own modules only: access to a module of another package may trigger that package's own lazy imports.
        for name, user in list(sys.modules.items()):
            if name.partition(".")[0] in _OUR_PACKAGES and getattr(user, "__dict__", {}).get(self._variable) is self:
                setattr(user, self._variable, module)
        return getattr(module, attribute)


def lazy_module(name: str) -> Any:
    """
    Return a proxy for the module *name* of ours, which the first attribute access imports.

    To be assigned to a variable with the last part of the name, which then holds the module itself.
    """
    return _LazyModule(name)


if TYPE_CHECKING:
    import asyncio
    import hashlib

    import anyio
    import anyio.from_thread  # pyright: ignore[reportUnusedImport]
    import anyio.to_thread  # pyright: ignore[reportUnusedImport]
else:
    # With OpenSSL, which two of them load, they would be two fifths of the time that importing the package takes.
    anyio, asyncio, hashlib = _LazyModule("anyio"), _LazyModule("asyncio"), _LazyModule("hashlib")

__all__ = ["MODULES", "anyio", "asyncio", "hashlib", "lazy_module", "preload"]
