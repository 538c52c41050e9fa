"""Real hosts of blocking code, in subprocesses that end with the test."""

import sys
import textwrap
from pathlib import Path

import pytest
from scripts import Script, environment

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def in_time():
    """Return a function that checks that one of three attempts takes less than *limit* seconds."""
    return lambda limit, attempt: any(attempt() < limit for _ in range(3))


@pytest.fixture(scope="session", name="environment_for")
def _environment_for():
    return environment


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Return a function that starts a program, such as ``launch(server, "-m", "gunicorn", ...)``."""
    hosts = []

    def run(server, *command, env=(), **options):
        errors = tmp_path_factory.mktemp("host") / "errors"
        hosts.append(Script(command, errors, env={**environment(server), **dict(env)}, cwd=HERE, **options))
        return hosts[-1]

    yield run
    for host in hosts:
        host.kill()
        result = host.end()
        sys.stderr.write("\n".join([*result.lines, result.errors]))  # pytest shows it when a test fails


@pytest.fixture
def start(tmp_path, neuralbox_server, launch):
    """Return a function that starts a script, given as text, until the test ends."""

    def run(code, *options):
        path = tmp_path / "script.py"
        path.write_text(textwrap.dedent(code))
        host = launch(neuralbox_server, *options, str(path))
        hosts.append(host)
        return host

    hosts = []
    yield run
    for host in hosts:
        host.kill()
        host.end()
