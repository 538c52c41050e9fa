"""Text as the local server counts it: token-sized pieces, and the echo that is its answer by default."""

from __future__ import annotations

import re
from typing import Final

IMAGE_TOKENS: Final = 85
"""Prompt tokens that one image counts for. Only the reported usage depends on it, never a price."""

# A word with the space after it. The bound keeps text without spaces (Chinese, base64) from being one piece; the
# white space in front belongs to the first word, so that the pieces of any text join to it exactly.
_PIECE = re.compile(r"\s*\S{1,32}\s*|\s+")


def pieces(text: str) -> list[str]:
    """Split *text* into token-sized pieces that join to exactly *text*. Empty text has none."""
    return _PIECE.findall(text)


def count_tokens(text: str) -> int:
    """Return the number of pieces of *text*."""
    return sum(1 for _ in _PIECE.finditer(text))


def echo(text: str, images: int) -> str:
    """Return the default answer to *text* sent along with *images* images."""
    if not images:
        return f"You said: {text}"
    return f"You said: {text} [{images} image{'s' if images > 1 else ''}]"
