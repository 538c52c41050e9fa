"""A large malformed body costs little: no more than one look at it, and no copies."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest

from neuralbox_async import ResponseError
from neuralbox_async._wire.responses import decode_generation

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("json_library")]

MIB = 1024 * 1024
SIZE = 60 * MIB
BODIES = {
    "a cut text": lambda: b'{"id": "gen_1", "content": "' + b"x" * SIZE,
    "a cut text of two bytes a letter": lambda: b'{"id": "gen_1", "content": "' + "ы".encode() * (SIZE // 2),
    "a cut list": lambda: b'{"id": "gen_1", "more": [' + b"1," * (SIZE // 2),
    "a list": lambda: b"[" + b"1," * (SIZE // 2) + b"1]",
    "HTML": lambda: b"<html>" + b"<p>hi</p>\n" * (SIZE // 10),
    "zeros": lambda: b"\0" * SIZE,
    "brackets": lambda: b"[" * SIZE,
    "blanks": lambda: b" " * SIZE,
    "bytes that are not UTF-8": lambda: b'{"content": "' + b"\xff" * SIZE + b'"}',
    "a malformed end": lambda: b'{"content": "' + b"x" * SIZE + b'"}}',
    "an odd id": lambda: b'{"id": [], "content": "' + b"x" * SIZE + b'"}',
    "digits": lambda: b'{"content": 5, "id": ' + b"9" * SIZE + b"}",
}


def refuse(body):
    with pytest.raises(ResponseError) as caught:
        decode_generation(200, {}, body)
    assert len(str(caught.value)) < 600
    assert body is caught.value.body


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
def test_memory(make):
    """Decoding a malformed body of 60 MiB takes at most twice its size in addition."""
    body = make()
    tracemalloc.start()
    try:
        refuse(body)
        assert tracemalloc.get_traced_memory()[1] < 2 * SIZE + 8 * MIB
    finally:
        tracemalloc.stop()


@pytest.mark.timing
@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
def test_time(make):
    """Decoding it takes little more than the standard library takes to decode a text of that size."""
    body = make()
    text = b'{"content": "' + b"x" * SIZE + b'"}'
    started = time.process_time()
    json.loads(text)
    bound = time.process_time() - started
    started = time.process_time()
    refuse(body)
    assert time.process_time() - started < 8 * bound + 0.3
