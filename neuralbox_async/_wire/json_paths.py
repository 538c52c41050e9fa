"""Paths into JSON values, such as ``$.items[0].price`` (RFC 9535)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

_name = re.compile(r"[^\W\d]\w*")


def json_path(steps: Iterable[str | int]) -> str:
    """Return the path of *steps*: names of members and indexes of arrays; ``$`` for none."""
    return "$" + "".join(_step(step) for step in steps)


def _step(step: str | int) -> str:
    if isinstance(step, str):
        return f".{step}" if _name.fullmatch(step) else f"[{json.dumps(step, ensure_ascii=False)}]"
    return f"[{step}]"
