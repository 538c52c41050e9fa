"""The pytest fixtures `neuralbox_server` and `neuralbox_env`, which any project has that installs the package.

pytest imports this in every run: nothing but pytest may be imported before a fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuralbox_async.testing._server import NeuralBoxServer

_MARKER = "neuralbox_server(**options): options of the NeuralBoxServer that the fixture of this name starts."


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, for `--strict-markers`."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def neuralbox_server(request: pytest.FixtureRequest) -> Iterator[NeuralBoxServer]:
    """Start a local NeuralBox API for one test.

    Options come from ``@pytest.mark.neuralbox_server(limit_hour=5)`` on the test, its class or its module; the nearer
    one wins.
    """
    # Not above: see the module's docstring.
    from neuralbox_async.testing._server import NeuralBoxServer

    with NeuralBoxServer(**_options(request)) as server:
        yield server


@pytest.fixture
def neuralbox_env(neuralbox_server: NeuralBoxServer, monkeypatch: pytest.MonkeyPatch) -> NeuralBoxServer:
    """Return the server of `neuralbox_server`, with NEURALBOX_API_KEY and NEURALBOX_BASE_URL pointing to it."""
    monkeypatch.setenv("NEURALBOX_API_KEY", neuralbox_server.api_key)
    monkeypatch.setenv("NEURALBOX_BASE_URL", neuralbox_server.base_url)
    return neuralbox_server


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    # pytest yields the nearest marker first.
    markers = reversed(list(request.node.iter_markers("neuralbox_server")))
    return {name: value for marker in markers for name, value in marker.kwargs.items()}
