"""What is loaded with the first call and not with the package, because it takes longer than all that comes before."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

MODULES = ("neuralbox_async._transport", "cattrs.gen", "anyio._backends._asyncio", "encodings.idna")


def preload() -> None:
    """
    Load now what the first call would load, in about 0.2 s: at a server's start, say, or before it forks its workers.

    What one thread loads while another one forks can never be loaded in the child.
    """
    for module in MODULES:
        importlib.import_module(module)


class _Later:
    """Stands for the module *name*, under that name, until something of it is asked for: then that takes its place."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> object:
        module = importlib.import_module(self._name)
        for user in list(sys.modules.values()):
            if getattr(user, "__dict__", {}).get(self._name) is self:
                setattr(user, self._name, module)
        return getattr(module, attribute)


if TYPE_CHECKING:
    import asyncio
    import hashlib

    import anyio
    import anyio.from_thread
    import anyio.to_thread
else:
    # With OpenSSL, which two of them load, they would be half of what importing the package takes.
    anyio, asyncio, hashlib = _Later("anyio"), _Later("asyncio"), _Later("hashlib")

__all__ = ["MODULES", "anyio", "asyncio", "hashlib", "preload"]
