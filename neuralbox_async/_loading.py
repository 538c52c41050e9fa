"""What the first call loads: aiohttp takes longer than all that the package needs before."""

from __future__ import annotations

import importlib

MODULES = ("neuralbox_async._transport", "cattrs.gen", "anyio._backends._asyncio", "encodings.idna")


def preload() -> None:
    """
    Load now what the first call would load, in about 0.1 s: at a server's start, say, or before it forks its workers.

    What one thread loads while another one forks can never be loaded in the child.
    """
    for module in MODULES:
        importlib.import_module(module)
