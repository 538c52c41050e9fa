"""Ray, loaded with the first batch, and without types: it is large, and need not be there to read this package."""

from __future__ import annotations

import importlib
from typing import Any


def ray() -> Any:
    """Return the module ``ray``."""
    return importlib.import_module("ray")


def ray_data() -> Any:
    """Return the module ``ray.data``."""
    return importlib.import_module("ray.data")
