"""Dask and what it brings, whose annotations are partial: without types, in one place."""

from __future__ import annotations

import importlib
from typing import Any

import dask as _dask
import distributed as _distributed

dask: Any = _dask
distributed: Any = _distributed


def optional(name: str) -> Any:
    """Return the module *name*, which only some batches need: ``dask.bag``, ``dask.dataframe``, ``pandas``."""
    return importlib.import_module(name)
