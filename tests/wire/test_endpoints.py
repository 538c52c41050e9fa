"""The request of each call: method, path and body."""

from __future__ import annotations

import json

import pytest

from neuralbox_async import GenerateRequest
from neuralbox_async._wire import endpoints


def test_generate_and_stream_differ_in_one_member():
    """A stream is the same request with ``stream``, which no other request has."""
    asked = GenerateRequest("gpt-5", "Hi")
    whole, streamed = endpoints.generate(asked, {}), endpoints.stream(asked, {})

    assert ("POST", "/generate") == (whole.method, whole.path) == (streamed.method, streamed.path)
    assert json.loads(streamed.body) == {**json.loads(whole.body), "stream": True}
    assert (False, True) == (whole.stream, streamed.stream)
    assert not whole.idempotent


@pytest.mark.parametrize(
    "generation_id, path",
    [(18473, "/generate/18473"), ("gen_1", "/generate/gen_1"), ("../a?b#c/d e", "/generate/..%2Fa%3Fb%23c%2Fd%20e")],
)
def test_retrieve(generation_id, path):
    """An id of either kind is quoted into the path, where it cannot do anything but name a generation."""
    request = endpoints.retrieve(generation_id, "/generate/{id}", {})

    assert ("GET", path, None, True) == (request.method, request.path, request.body, request.idempotent)
