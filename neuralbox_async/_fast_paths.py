"""
The switch of the fast paths, for tests and for comparison: NEURALBOX_FAST_PATHS=off takes the general path everywhere.

Each fast path has one entry point and does the same as the general path in less time: `_wire.fast_path` (plain
requests, responses and deltas), `_http.request_writer` (small requests) and `_clock` (deadlines and timers).
"""

from __future__ import annotations

import functools
import os


@functools.cache
def enabled() -> bool:
    """Return whether the fast paths are on. The environment is read once, when the first call needs it."""
    return os.environ.get("NEURALBOX_FAST_PATHS", "").strip().lower() != "off"
