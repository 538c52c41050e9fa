"""The switch of the fast paths."""

from __future__ import annotations

import pytest

from neuralbox_async import _fast_paths


@pytest.fixture
def fast_paths_on(monkeypatch):
    """Switch the fast paths on, also when the environment has switched them off."""
    monkeypatch.setattr(_fast_paths, "enabled", lambda: True)
