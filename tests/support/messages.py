"""What every message of the command must be: whole."""

from __future__ import annotations

import re

# A sentence that ends with one of these has lost its end.
FUNCTION_WORDS = {"a", "an", "the", "and", "or", "but", "not", "no", "nor", "of", "to", "for", "from", "by", "with"}
FUNCTION_WORDS |= {"without", "in", "on", "at", "as", "than", "that", "is", "are", "was", "were", "be"}


def check_messages(text):
    """Check that no line of *text*, from stderr, ends in the middle of a sentence."""
    lines = [line for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).splitlines() if line.strip()]
    for number, line in enumerate(lines):
        words = re.findall(r"[\w']+", line)
        last = line.rstrip()[-1]
        is_title = last == ":" and number + 1 < len(lines)
        assert words, line
        assert is_title or last not in ":,;-(=" or re.search(r"neuralbox batch .* --$", line), line
        assert not re.search(rf"(?i)\b({'|'.join(FUNCTION_WORDS)})\W*$", line) or line.endswith(("'", '"')), line
        assert not re.search(r"\bnot (\(see|;|,)|: ?(\(see|;)|\bNone\b|<class|object at 0x", line), line
