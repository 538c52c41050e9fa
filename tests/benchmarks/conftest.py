"""One benchmark server for all tests."""

import contextlib

import pytest

from benchmarks import processes
from benchmarks.clients.adapter import Address


@pytest.fixture(scope="session")
def port():
    with processes.server() as plain_port:
        yield plain_port


@pytest.fixture
def control(port):
    with contextlib.closing(processes.ServerControl(port)) as server_control:
        yield server_control


@pytest.fixture(params=["plain", "tls"])
def address(request, port, control):
    return control.tls_address() if request.param == "tls" else Address(port)
