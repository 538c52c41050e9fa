"""Fixtures for JSON with orjson and without it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from neuralbox_async._wire import json as wire_json


@pytest.fixture(params=["orjson", "standard library"])
def json_library(request, monkeypatch):
    """Run the test with orjson and without it: behaviour does not depend on the extras that are installed."""
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(wire_json, "orjson", None)


@pytest.fixture
def parses(json_library, monkeypatch):
    """Return a list to which each pass of a JSON decoder over its input adds the name of the decoder."""
    passes = []

    def counted(name, function):
        return lambda *args: passes.append(name) or function(*args)

    decoder = wire_json._decoder
    monkeypatch.setattr(
        wire_json,
        "_decoder",
        SimpleNamespace(
            raw_decode=counted("standard library", decoder.raw_decode),
            decode=counted("standard library", decoder.decode),
        ),
    )
    if (orjson := wire_json.orjson) is not None:
        fake = SimpleNamespace(
            loads=counted("orjson", orjson.loads), dumps=orjson.dumps, JSONDecodeError=orjson.JSONDecodeError
        )
        monkeypatch.setattr(wire_json, "orjson", fake)
    return passes
