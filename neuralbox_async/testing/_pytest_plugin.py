"""The pytest fixtures `neuralbox_server` and `neuralbox_env`, available wherever the package is installed.

pytest imports this module in every run, so it imports only pytest until a fixture is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuralbox_async.testing._server import NeuralBoxServer

_MARKER = "neuralbox_server(**options): options of the NeuralBoxServer that the fixture `neuralbox_server` starts."


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for `--strict-markers`."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def neuralbox_server(request: pytest.FixtureRequest) -> Iterator[NeuralBoxServer]:
    """Start a local NeuralBox API for one test.

    Set options with ``@pytest.mark.neuralbox_server(limit_hour=5)`` on the test, its class or its module. The closest
    marker takes precedence.
    """
    # Imported here because of the rule in the docstring of the module.
    from neuralbox_async.testing._server import NeuralBoxServer

    with NeuralBoxServer(**_options(request)) as server:
        yield server


@pytest.fixture
def neuralbox_env(neuralbox_server: NeuralBoxServer, monkeypatch: pytest.MonkeyPatch) -> NeuralBoxServer:
    """Set NEURALBOX_API_KEY and NEURALBOX_BASE_URL to the server of `neuralbox_server`, and return that server."""
    monkeypatch.setenv("NEURALBOX_API_KEY", neuralbox_server.api_key)
    monkeypatch.setenv("NEURALBOX_BASE_URL", neuralbox_server.base_url)
    return neuralbox_server


def _options(request: pytest.FixtureRequest) -> dict[str, Any]:
    # pytest yields the closest marker first.
    markers = reversed(list(request.node.iter_markers("neuralbox_server")))
    return {name: value for marker in markers for name, value in marker.kwargs.items()}
