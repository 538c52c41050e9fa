"""The texts of errors, as they stand in the source: whole, plain English."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import neuralbox_async
import neuralbox_sync

PACKAGES = [Path(package.__file__).parent for package in (neuralbox_async, neuralbox_sync)]
NAMES = {"msg", "message", "rule", "advice", "reason"}  # of variables with a text, or with a part of one
CALLS = {"_invalid", "_error", "not_a_journal", "unusable", "debug", "info", "warning", "error", "exception", "fail"}
PLACEHOLDER = "\N{BLACK SQUARE}"

# A text that ends with one of these was meant to go on.
UNFINISHED = re.compile(r"\b(?:not|no|or|and|but|nor|the|an?|is|are|be|than|that)$|[,;(-]$")
UNPLAIN = re.compile(
    r"n't\b|\b(?:please|oops|sorry|unfortunately|invalid value|an error occurred)\b|!$|\.\.$|  ", re.IGNORECASE
)


def text_of(node: ast.expr) -> str | None:
    """Return the text of a literal *node*, with a placeholder for each value in it; None if it is no text."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(text_of(part) or PLACEHOLDER for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = text_of(left), text_of(right)
            return None if texts == (None, None) else "".join(text or PLACEHOLDER for text in texts)
        case _:
            return None


def literals(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of each literal that is raised or logged, or is, or belongs to, an error."""
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(args=values)):
                found = values
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=values):
                found = values if name.endswith("Error") or name in CALLS else []
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                found = [value] if name in NAMES else []
            case _:
                found = []
        yield from ((value.lineno, text) for value in found if (text := text_of(value)) and " " in text)


TEXTS = [
    (f"{file.relative_to(package.parent)}:{line}", text)
    for package in PACKAGES
    for file in sorted(package.rglob("*.py"))
    for line, text in sorted(set(literals(ast.parse(file.read_text(encoding="utf-8")))))
]


def test_count():
    """The texts are found: hundreds, of which some are well known."""
    texts = {text for _, text in TEXTS}
    assert len(texts) > 150
    assert {
        "a function, or None",
        "a batch can be entered only once; call generate_many() again for another",
        f"the journal is in use by another batch: {PLACEHOLDER}",
    } <= texts


@pytest.mark.parametrize("pattern", [UNFINISHED, UNPLAIN], ids=["whole", "plain"])
def test_texts(pattern):
    """No text ends where more should follow, and none has contractions, courtesies, or marks without need."""
    assert [] == [f"{place}: {text}" for place, text in TEXTS if pattern.search(text.strip("\n"))]


@pytest.mark.parametrize("text", ["it must not", "a number or", "one, "])
def test_unfinished(text):
    """What is no whole text is found."""
    assert UNFINISHED.search(text.strip())


@pytest.mark.parametrize("text", ["it can't be read", "Please try again", "an error occurred", "one  two", "done.."])
def test_unplain(text):
    """What is no plain text is found."""
    assert UNPLAIN.search(text)
