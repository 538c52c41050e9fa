"""
The pytest plugin, active wherever the package is installed: fixtures, and a local server for the whole run.

pytest imports this module in every run, so it imports only pytest until a fixture or an option is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuralbox_async.testing._server import NeuralBoxServer

_MARKER: Final = "neuralbox_server(**options): options of the NeuralBoxServer that the fixture neuralbox_server starts."
_LOCAL_SERVER: Final = "neuralbox_local_server"
_LOOPBACK_ONLY: Final = "neuralbox_loopback_only"
_is_prepared: Final = pytest.StashKey[bool]()
_server_of_run: Final[pytest.StashKey[NeuralBoxServer]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the configuration file."""
    parser.addini(
        _LOCAL_SERVER,
        "Start a local NeuralBox API before anything is imported, set NEURALBOX_API_KEY and NEURALBOX_BASE_URL to it, "
        f"and set {_LOOPBACK_ONLY}.",
        type="bool",
        default=False,
    )
    parser.addini(_LOOPBACK_ONLY, "Refuse calls that would leave this machine.", type="bool", default=False)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Prepare the environment before the first conftest.py is imported, which may import the code under test."""
    _prepare(early_config)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, for `--strict-markers`."""
    config.addinivalue_line("markers", _MARKER)
    _prepare(config)  # if a conftest.py loaded this plugin


def pytest_report_header(config: pytest.Config) -> str | None:
    """Name the local server of the run."""
    server = config.stash.get(_server_of_run, None)
    return None if server is None else f"neuralbox: clients use the local server at {server.base_url}"


def _prepare(config: pytest.Config) -> None:
    """Start the server and set the environment as the options say, until the end of the run."""
    if config.stash.get(_is_prepared, False):
        return
    config.stash[_is_prepared] = True
    environment = pytest.MonkeyPatch()
    config.add_cleanup(environment.undo)
    if config.getini(_LOCAL_SERVER):
        # Imported here because of the rule in the docstring of the module.
        from neuralbox_async.testing._server import NeuralBoxServer

        config.stash[_server_of_run] = server = NeuralBoxServer()
        config.add_cleanup(server.close)
        server.start()
        environment.setenv("NEURALBOX_API_KEY", server.api_key)
        environment.setenv("NEURALBOX_BASE_URL", server.base_url)
    if config.getini(_LOCAL_SERVER) or config.getini(_LOOPBACK_ONLY):
        environment.setenv("NEURALBOX_LOOPBACK_ONLY", "1")


@pytest.fixture
def neuralbox_local_server(request: pytest.FixtureRequest) -> NeuralBoxServer:
    """Reset the server that the option `neuralbox_local_server` has started for the whole run, and return it."""
    server = request.config.stash.get(_server_of_run, None)
    if server is None:
        pytest.fail(f"this fixture needs {_LOCAL_SERVER} = true in the configuration file of pytest")
    server.reset()
    return server


@pytest.fixture
def neuralbox_server(request: pytest.FixtureRequest) -> Iterator[NeuralBoxServer]:
    """Start a local NeuralBox API for one test.

    Set options with ``@pytest.mark.neuralbox_server(limit_hour=5)`` on the test, its class or its module. The closest
    marker takes precedence.
    """
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
