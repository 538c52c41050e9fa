"""The error messages of both packages: each is a whole sentence."""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

import neuralbox_async
from neuralbox_async import GenerateRequest, InvalidParameterError, Message, RetryPolicy

sys.path.append(str(Path(__file__).parent / "cli"))
from messages import FUNCTION_WORDS

ROOT = Path(neuralbox_async.__file__).parent.parent
# Functions and classes whose arguments are messages, or the part of one after "must be".
REPORTS = re.compile(r"\w*Error|\w*error|BadParameter|UsageError|ClickException|_invalid_image|refuse|rule|_Doubt")
TITLES = ("neuralbox_async/_cli/batch_run.py", "neuralbox_async/_cli/terminal.py")  # lines follow
VALUE = "\N{BLACK SQUARE}"  # stands for what is inserted


def texts(node):
    """Yield the text of *node* if it is a string, with VALUE for each inserted value; of both arms of a condition."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            yield "".join(next(texts(value), VALUE) for value in values)
        case ast.IfExp(body=body, orelse=orelse):
            yield from texts(body)
            yield from texts(orelse)
        case _:
            pass


PATHS = [str(path.relative_to(ROOT)) for name in ("async", "sync") for path in ROOT.glob(f"neuralbox_{name}/**/*.py")]


@functools.cache
def messages(path):
    """Return the messages in the source file *path*, with the places where they are."""
    found = {}
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if REPORTS.fullmatch(name):
                for argument in node.args:
                    for text in texts(argument):
                        if " " in text.strip():
                            found[f"{path}:{argument.lineno}"] = text
    return found


def test_found():
    """The messages are found: there are more than a hundred."""
    assert 100 < sum(len(messages(path)) for path in PATHS)


def check_whole(place, text):
    """Check one message."""
    last = re.findall(rf"[\w']+|{VALUE}", text)[-1]

    assert text == text.strip() or text.startswith(" ")
    assert last.lower() not in FUNCTION_WORDS
    assert "  " not in text
    assert text.rstrip()[-1] not in (",;-(=" if place.startswith(TITLES) else ":,;-(=")
    assert [text.count(bracket) for bracket in "([{"] == [text.count(bracket) for bracket in ")]}"]
    assert 0 == text.count("`") % 2


@pytest.mark.parametrize("path", sorted(PATHS))
def test_whole(path):
    """A message has an end, balanced brackets, single blanks, and nothing inserted that may be empty after "not"."""
    for place, text in messages(path).items():
        check_whole(place, text)


class Blank:
    """An object whose repr is blank."""

    def __repr__(self):
        return " "


VALUES = [None, "", " ", "\n", b"", [], {}, (), 0, -1, 1.5, float("nan"), True, object(), Blank(), "x" * 999]
CALLS = {
    "model": lambda value: GenerateRequest(value, "Hi"),
    "messages": lambda value: GenerateRequest("m", value),
    "message": lambda value: GenerateRequest("m", [value]),
    "content": lambda value: Message("user", value),
    "part": lambda value: Message("user", [value]),
    "role": lambda value: Message(value, "Hi"),
    "system": lambda value: GenerateRequest("m", "Hi", system=value),
    "temperature": lambda value: GenerateRequest("m", "Hi", temperature=value),
    "max_tokens": lambda value: GenerateRequest("m", "Hi", max_tokens=value),
    "extra_body": lambda value: GenerateRequest("m", "Hi", extra_body=value),
    "key": lambda value: GenerateRequest("m", "Hi", key=value),
    "dict": lambda value: GenerateRequest.from_dict({"model": "m", "prompt": value}),
    "api_key": neuralbox_async.AsyncNeuralBox,
    "base_url": lambda value: neuralbox_async.AsyncNeuralBox("nb_key_for_tests", base_url=value),
    "timeout": lambda value: neuralbox_async.AsyncNeuralBox("nb_key_for_tests", timeout=value),
    "headers": lambda value: neuralbox_async.AsyncNeuralBox("nb_key_for_tests", default_headers=value),
    "retry": lambda value: RetryPolicy(max_retries=value),
}


@pytest.mark.parametrize("name", CALLS)
def test_invalid_values(name):
    """Whatever the invalid value is, the message is whole."""
    refused = 0
    for value in VALUES:
        try:
            CALLS[name](value)
        except InvalidParameterError as error:
            refused += 1
            assert "" != str(error).rpartition(" not ")[2].strip()
    assert refused
