"""Test code that uses NeuralBox without paying: a local HTTP server, pytest fixtures for it, and a fake transport.

The modules are imported on first use: pytest imports this package in every run of a project that has it installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralbox_async.testing._fake_transport import FakeRequest, FakeResponse, FakeTransport
    from neuralbox_async.testing._faults import Fault
    from neuralbox_async.testing._received_request import ReceivedRequest
    from neuralbox_async.testing._server import NeuralBoxServer
    from neuralbox_async.testing._store import BilledGeneration

__all__ = [
    "BilledGeneration",
    "FakeRequest",
    "FakeResponse",
    "FakeTransport",
    "Fault",
    "NeuralBoxServer",
    "ReceivedRequest",
]

_MODULES = {
    "BilledGeneration": "_store",
    "FakeRequest": "_fake_transport",
    "FakeResponse": "_fake_transport",
    "FakeTransport": "_fake_transport",
    "Fault": "_faults",
    "NeuralBoxServer": "_server",
    "ReceivedRequest": "_received_request",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    # The next lookup does not call `__getattr__`.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
