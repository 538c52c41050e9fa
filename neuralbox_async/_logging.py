"""
The logger ``neuralbox``. It writes nothing unless the application configures logging.

NEURALBOX_LOG=debug or info makes it write to stderr. No record holds a key, a prompt or generated text.
"""

from __future__ import annotations

import logging
import os

logger = logging.getLogger("neuralbox")
logger.addHandler(logging.NullHandler())

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO}


def configure_from_env() -> None:
    """Log to stderr if NEURALBOX_LOG requests it and this logger has no handler of the application. Idempotent."""
    level = _LEVELS.get(os.environ.get("NEURALBOX_LOG", "").strip().lower())
    if level is None or any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)
