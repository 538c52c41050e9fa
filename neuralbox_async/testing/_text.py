"""The tokenizer of the local server, and the echo that is its default reply."""

from __future__ import annotations

import re
from typing import Final

IMAGE_TOKENS: Final = 85
"""Prompt tokens per image. They count in the reported usage only, never in a price."""

# A word with the space after it. The bound splits text without spaces (Chinese, base64). Leading white space belongs
# to the first word, so that the tokens of any text join to that text.
_TOKEN = re.compile(r"\s*\S{1,32}\s*|\s+")


def tokenize(text: str) -> list[str]:
    """Split *text* into tokens that join to exactly *text*. Empty text has no tokens."""
    return _TOKEN.findall(text)


def count_tokens(text: str) -> int:
    """Return the number of tokens in *text*."""
    return sum(1 for _ in _TOKEN.finditer(text))


def echo(text: str, images: int) -> str:
    """Return the default reply to *text* sent with *images* images."""
    if not images:
        return f"You said: {text}"
    return f"You said: {text} [{images} image{'s' if images > 1 else ''}]"
