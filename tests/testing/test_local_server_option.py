"""The options of the pytest plugin by which tests never pay, each in a separate pytest process."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

PLUGIN = "neuralbox_async.testing._pytest_plugin"

APPLICATION = """
    from flask import Flask
    from neuralbox_async import AsyncNeuralBox
    from neuralbox_sync import NeuralBox

    client, async_client = NeuralBox(), AsyncNeuralBox()  # without a key of its own
    app = Flask(__name__)

    @app.get("/title/<text>")
    def title(text):
        return client.generate("gpt-5", text).content

    @app.get("/async/<text>")
    def async_title(text):
        import asyncio
        return asyncio.run(async_client.generate("gpt-5", text)).content
"""

TESTS = """
    import asyncio
    import pytest
    from application import app, client
    from neuralbox_async import AsyncNeuralBox, InvalidParameterError
    from neuralbox_sync import NeuralBox

    @pytest.mark.parametrize("path", ["title", "async"])
    def test_application(neuralbox_local_server, path):
        response = app.test_client().get(f"/{path}/River")
        assert response.text == "You said: River"
        (request,) = neuralbox_local_server.requests  # those of this test
        assert request.json["messages"][0]["content"] == "River"

    def test_faults(neuralbox_local_server):
        neuralbox_local_server.fail(429, retry_after=0)
        assert client.generate("gpt-5", "Hi").content == "You said: Hi"
        assert [request.response_status for request in neuralbox_local_server.requests] == [429, 200]

    def test_own_server(neuralbox_env, neuralbox_local_server):
        assert neuralbox_env is not neuralbox_local_server
        with NeuralBox() as own:
            own.generate("gpt-5", "Hi")
        assert len(neuralbox_env.billed) == 1

    @pytest.mark.parametrize("url", ["https://neuralbox.top/api/v2", "https://203.0.113.1"])
    def test_another_machine(url):
        with NeuralBox("nb_real_key", base_url=url) as live:
            with pytest.raises(InvalidParameterError, match="on this machine while NEURALBOX_LOOPBACK_ONLY"):
                live.generate("gpt-5", "Hi")
            with pytest.raises(InvalidParameterError, match="on this machine"):
                with live.stream("gpt-5", "Hi"):
                    pass

        async def call():
            async with AsyncNeuralBox("nb_real_key", base_url=url) as live:
                await live.generate("gpt-5", "Hi")

        with pytest.raises(InvalidParameterError, match="on this machine"):
            asyncio.run(call())
"""


@pytest.fixture
def run(tmp_path):
    """Run pytest with the plugin, a configuration and files, in an environment with a real key and no URL."""

    def run(*arguments, ini="", **files):
        for name, source in files.items():
            (tmp_path / f"{name}.py").write_text(textwrap.dedent(source), encoding="utf-8")
        (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = .\n{ini}\n", encoding="utf-8")
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "NEURALBOX_API_KEY": "nb_real_key"}
        for name in ("NEURALBOX_BASE_URL", "NEURALBOX_LOOPBACK_ONLY", "PYTEST_ADDOPTS"):
            environment.pop(name, None)
        # Warnings are errors, but for those of modules that Flask and other plugins import.
        command = [sys.executable, "-m", "pytest", "-p", PLUGIN, "-W", "error::ResourceWarning", *arguments]
        process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        return process.returncode, process.stdout + process.stderr

    return run


SERVER = "neuralbox_local_server = true"


@pytest.mark.process
@pytest.mark.parametrize("workers", [0, 2])
def test_clients_of_modules(run, workers):
    """
    Clients that are created when conftest.py imports the application use the local server, not the key of the user.

    With pytest-xdist, each worker has a server of its own.
    """
    conftest = f"""
        import os
        import application

        def pytest_unconfigure(config):
            assert os.environ["NEURALBOX_API_KEY"] != "nb_real_key"
            assert application.async_client._executor.base_url == os.environ["NEURALBOX_BASE_URL"]
            print("{workers} workers")
    """
    xdist = ["-p", "xdist.plugin", "-n", str(workers)] if workers else []
    status, output = run(*xdist, ini=SERVER, application=APPLICATION, test_it=TESTS, conftest=conftest)

    assert 0 == status, output
    assert "6 passed" in output
    assert "neuralbox: clients use the local server at http://127.0.0.1:" in output
    assert f"{workers} workers" in output


@pytest.mark.process
def test_loopback_only_without_a_server(run):
    """The guard alone starts no server, and refuses the real API before anything is sent."""
    test = """
        import os, sys
        import pytest
        from neuralbox_async import InvalidParameterError
        from neuralbox_sync import NeuralBox

        def test_no_server():
            assert "NEURALBOX_BASE_URL" not in os.environ
            assert "neuralbox_async.testing._server" not in sys.modules

        def test_real_api():
            with NeuralBox() as client, pytest.raises(InvalidParameterError, match="not 'https://neuralbox.top'"):
                client.generate("gpt-5", "Hi")

        def test_fixture(neuralbox_env):
            with NeuralBox() as client:
                assert client.generate("gpt-5", "Hi").content == "You said: Hi"
    """
    status, output = run("-p", "no:randomly", ini="neuralbox_loopback_only = true", test_it=test)

    assert 0 == status, output
    assert "3 passed" in output


@pytest.mark.process
def test_without_the_options(run):
    """
    Without the options, or with `-o` for one run, the plugin changes nothing, and the fixture names its option.

    A run inside of that one (pytester) has its own server, and leaves the environment as it was.
    """
    test = f"""
        import os
        from neuralbox_sync import NeuralBox

        pytest_plugins = "pytester"

        def environment():
            return [os.environ.get(f"NEURALBOX_{{name}}") for name in ("API_KEY", "BASE_URL", "LOOPBACK_ONLY")]

        def test_environment():
            assert environment() == ["nb_real_key", None, None]

        def test_fixture(neuralbox_local_server):
            pass

        def test_inner(pytester):
            pytester.makeini("[pytest]\\nneuralbox_local_server = true")
            pytester.makepyfile('''
                from neuralbox_sync import NeuralBox
                client = NeuralBox()

                def test(neuralbox_local_server):
                    with client:
                        assert client.generate("gpt-5", "Hi").content == "You said: Hi"
                    assert len(neuralbox_local_server.requests) == 1
            ''')
            pytester.runpytest_inprocess("-p", "{PLUGIN}").assert_outcomes(passed=1)
            assert environment() == ["nb_real_key", None, None]
    """
    options = ["-o", "neuralbox_local_server=false", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    status, output = run(*options, ini=SERVER, test_it=test)

    assert 1 == status
    assert "2 passed, 1 error" in output, output
    assert "this fixture needs neuralbox_local_server = true in the configuration file of pytest" in output
    assert "neuralbox:" not in output
