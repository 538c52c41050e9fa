"""What a project needs to test its use of NeuralBox without paying: a real local server, and pytest fixtures for it.

Everything is loaded on first use: pytest imports this package in every run of every project that has it installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuralbox_async.testing._fake_transport import FakeRequest, FakeResponse, FakeTransport
    from neuralbox_async.testing._faults import Fault
    from neuralbox_async.testing._generations import BilledGeneration
    from neuralbox_async.testing._received import ReceivedRequest
    from neuralbox_async.testing._server import NeuralBoxServer

__all__ = [
    "BilledGeneration",
    "FakeRequest",
    "FakeResponse",
    "FakeTransport",
    "Fault",
    "NeuralBoxServer",
    "ReceivedRequest",
]

_HOME = {
    "BilledGeneration": "_generations",
    "FakeRequest": "_fake_transport",
    "FakeResponse": "_fake_transport",
    "FakeTransport": "_fake_transport",
    "Fault": "_faults",
    "NeuralBoxServer": "_server",
    "ReceivedRequest": "_received",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    # The next look-up finds the name without passing here.
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
