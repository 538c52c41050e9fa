"""The logger of the gateway. No record holds a key, a prompt or a generated text."""

from __future__ import annotations

import logging
from typing import Final

logger: Final = logging.getLogger("neuralbox.gateway")
