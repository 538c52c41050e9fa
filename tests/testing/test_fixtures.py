"""The pytest plugin, in a separate pytest process."""

import os
import subprocess
import sys
import textwrap

import pytest

PLUGIN = "neuralbox_async.testing._pytest_plugin"


@pytest.fixture
def inner(tmp_path):
    """Run pytest with the plugin on a test file. Return its exit status and output."""

    def run(source, *arguments):
        (tmp_path / "test_inner.py").write_text(textwrap.dedent(source), encoding="utf-8")
        (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
        # If the package is installed, its entry point would load the plugin a second time.
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-W", "error", "--strict-markers", *arguments]
        process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return process.returncode, process.stdout + process.stderr

    return run


@pytest.mark.process
def test_server_fixture(inner):
    """Each test gets its own running server with the options of its markers. The closest marker takes precedence."""
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


@pytest.mark.process
def test_an_unknown_option_is_an_error(inner):
    """An unknown option is an error that names the option."""
    status, output = inner("""
        import pytest

        @pytest.mark.neuralbox_server(colour="red")
        def test(neuralbox_server):
            pass
    """)
    assert 1 == status
    assert "colour" in output


@pytest.mark.process
def test_the_marker_is_documented(inner):
    """`pytest --markers` lists the marker with its description."""
    assert "neuralbox_server(**options)" in inner("", "--markers")[1]


@pytest.mark.process
def test_the_plugin_imports_no_server():
    """Without a use of the fixtures the plugin imports neither the server nor aiohttp."""
    code = f"""
        import sys
        import pytest
        import neuralbox_async
        before = set(sys.modules)
        import {PLUGIN}
        print(sorted(set(sys.modules) - before), "aiohttp" in sys.modules)
    """
    process = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert f"['neuralbox_async.testing', '{PLUGIN}'] False\n" == process.stdout
