"""Fixtures for JSON with orjson and without it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from neuralbox_async._wire import json as wire_json

# Test folders are no packages: the tests import the helper modules beside them by this path.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(params=["orjson", "standard library"])
def json_library(request, monkeypatch):
    """Every test here runs with orjson and without: behaviour never depends on which extra is installed."""
    if request.param == "orjson":
        pytest.importorskip("orjson")
    else:
        monkeypatch.setattr(wire_json, "orjson", None)
