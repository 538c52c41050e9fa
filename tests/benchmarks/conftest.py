"""The server of the benchmarks, one for all tests."""

import contextlib

import pytest

from benchmarks import processes


@pytest.fixture(scope="session")
def port():
    with processes.server() as found:
        yield found


@pytest.fixture
def control(port):
    with contextlib.closing(processes.Control(port)) as found:
        yield found
