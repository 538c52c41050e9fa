"""The pytest plugin, in a pytest of its own."""

import os
import subprocess
import sys
import textwrap

import pytest

PLUGIN = "neuralbox_async.testing._pytest_plugin"


@pytest.fixture
def inner(tmp_path):
    """Run pytest on a file with the plugin, and return its exit status and output."""

    def run(source, *arguments):
        (tmp_path / "test_inner.py").write_text(textwrap.dedent(source), encoding="utf-8")
        (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        # Where the package is installed, its entry point would load the plugin a second time.
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-W", "error", "--strict-markers", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run


def test_server_fixture(inner):
    """Each test gets a running server of its own, with the options of its markers, the nearest first."""
    status, output = inner(
        """
        import os
        import pytest

        pytestmark = pytest.mark.neuralbox_server(balance=7, limit_hour=5)
        seen = set()

        @pytest.mark.neuralbox_server(balance=8)
        def test_options(neuralbox_server):
            assert neuralbox_server.is_running
            assert neuralbox_server.balance == 8
            assert neuralbox_server._settings.limit_hour == 5
            seen.add(neuralbox_server)

        def test_other(neuralbox_server):
            assert neuralbox_server.balance == 7
            assert neuralbox_server not in seen

        def test_environment(neuralbox_env, neuralbox_server):
            assert neuralbox_env is neuralbox_server
            assert os.environ["NEURALBOX_API_KEY"] == neuralbox_server.api_key
            assert os.environ["NEURALBOX_BASE_URL"] == neuralbox_server.base_url

        def test_after():
            assert "NEURALBOX_BASE_URL" not in os.environ
            assert not any(server.is_running for server in seen)
    """,
        "-p",
        "no:randomly",
    )
    assert 0 == status, output
    assert "4 passed" in output


def test_a_wrong_option_is_an_error(inner):
    """An option that does not exist is an error that names it."""
    status, output = inner("""
        import pytest

        @pytest.mark.neuralbox_server(colour="red")
        def test(neuralbox_server):
            pass
    """)
    assert 1 == status
    assert "colour" in output


def test_the_marker_is_documented(inner):
    """The marker is listed with what it does."""
    assert "neuralbox_server(**options)" in inner("", "--markers")[1]


def test_the_plugin_costs_nothing():
    """A project that does not use the fixtures imports nothing of the server for them, and never aiohttp."""
    code = f"""
        import sys
        import pytest
        import neuralbox_async
        before = set(sys.modules)
        import {PLUGIN}
        print(sorted(set(sys.modules) - before), "aiohttp" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert f"['neuralbox_async.testing', '{PLUGIN}'] False\n" == done.stdout
