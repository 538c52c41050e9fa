"""
The logger ``neuralbox``. It writes nothing unless the application configures logging.

NEURALBOX_LOG=debug or info makes it write to stderr. No record holds a key, a prompt or generated text.
"""

from __future__ import annotations

import logging
import os
import warnings

logger = logging.getLogger("neuralbox")
logger.addHandler(logging.NullHandler())

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO}
_warned: set[str] = set()


def configure_from_env() -> None:
    """
    Log to stderr if NEURALBOX_LOG requests it and this logger has no handler of the application. Idempotent.

    A value that it does not know is a warning, once in the process.
    """
    value = os.environ.get("NEURALBOX_LOG", "").strip().lower()
    level = _LEVELS.get(value)
    if value and level is None and value not in _warned:
        _warned.add(value)
        warnings.warn(f"NEURALBOX_LOG must be debug or info, not {value[:20]!r}; nothing is logged", stacklevel=3)
    if level is None or any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
