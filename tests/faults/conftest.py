"""Fault servers, their clients, and checks that hold for every fault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl

import pytest
import trustme
from fault_server import FaultServer
from secret_checks import CANARY, PROMPT

from neuralbox_async import AsyncNeuralBox, RetryPolicy, preload

KEY = "nb_test_key"
NO_BACKOFF = RetryPolicy(jitter=lambda _low, _high: 0.0)

preload()  # the first call would load aiohttp, which takes as long as the shortest timeouts of these tests


@pytest.fixture
def serve():
    """Return a function that starts a fault server; all are stopped after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *scripts, **options: stack.enter_context(FaultServer(*scripts, **options))


@pytest.fixture
async def connect():
    """Return a function that makes a client which retries without a wait; all are closed after the test."""
    async with contextlib.AsyncExitStack() as stack:

        def new_client(server, **options):
            options = {"base_url": server.url, "timeout": 60, "retry_policy": NO_BACKOFF, **options}
            client = AsyncNeuralBox(KEY, **options)
            stack.push_async_callback(client.aclose)
            return client

        yield new_client


@pytest.fixture(autouse=True)
async def no_task_is_left():
    """Check that no task of the client outlives the test."""
    yield
    await asyncio.sleep(0)
    assert {asyncio.current_task()} == asyncio.all_tasks()


@pytest.fixture
def no_secret_in_logs(caplog, capfd, monkeypatch):
    """Check that no log record of any level, and no output, has the key, a prompt or a text."""
    monkeypatch.setenv("NEURALBOX_LOG", "debug")
    logger = logging.getLogger("neuralbox")
    monkeypatch.setattr(logger, "handlers", list(logger.handlers))  # removes the handler that NEURALBOX_LOG adds
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    asyncio_logger = logging.getLogger("asyncio")
    monkeypatch.setattr(asyncio_logger, "level", logging.DEBUG)
    caplog.set_level(logging.DEBUG)
    yield
    output = capfd.readouterr()
    for text in (*(f"{record.getMessage()} {vars(record)!r}" for record in caplog.records), output.out, output.err):
        assert CANARY not in text
        assert PROMPT not in text
        assert "Hello world" not in text


@pytest.fixture(scope="session")
def authority():
    """A certificate authority that is not trusted by default."""
    return trustme.CA()


@pytest.fixture(scope="session")
def tls(authority):
    """The TLS context of a server on 127.0.0.1."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture
def trusting(authority):
    """The TLS context of a client that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
