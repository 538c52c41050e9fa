"""The request of each endpoint: method, path and body."""

from __future__ import annotations

import json

import pytest

from neuralbox_async import GenerateRequest
from neuralbox_async._wire import endpoints


def test_a_stream_differs_in_one_member():
    """The request of a stream is that of a generation with ``"stream": true``."""
    request = GenerateRequest("gpt-5", "Hi")
    whole, streamed = endpoints.generate(request, {}), endpoints.stream(request, {})

    assert ("POST", "/generate") == (whole.method, whole.path) == (streamed.method, streamed.path)
    assert json.loads(streamed.body) == {**json.loads(whole.body), "stream": True}
    assert (False, True) == (whole.stream, streamed.stream)
    assert not whole.costs_nothing


@pytest.mark.parametrize(
    "generation_id, path",
    [(18473, "/generate/18473"), ("gen_1", "/generate/gen_1"), ("../a?b#c/d e", "/generate/..%2Fa%3Fb%23c%2Fd%20e")],
)
def test_retrieve(generation_id, path):
    """An id of either type is quoted in the path, so that it can only name a generation."""
    request = endpoints.retrieve(generation_id, "/generate/{id}", {})

    assert ("GET", path, None, True) == (request.method, request.path, request.body, request.costs_nothing)


@pytest.mark.parametrize("extra_body", [None, {}, {"seed": 7}])
@pytest.mark.parametrize("messages", ["Hi", [{"role": "user", "content": "Hi", "name": "Ivan"}]])
def test_generate_from_parameters(messages, extra_body):
    """The request made of parameters is the one made of a `GenerateRequest` of them."""
    request = GenerateRequest("gpt-5", messages, system="Be brief.", extra_body=extra_body or {})

    made = endpoints.generate_from(
        "gpt-5", messages, "Be brief.", None, None, extra_body=extra_body, headers={"A": "b"}
    )

    assert endpoints.generate(request, {"A": "b"}) == made
