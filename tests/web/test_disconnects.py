"""Whether the browser of a blocking server has left, by its socket."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from neuralbox_sync.web import _has_ended


@contextlib.contextmanager
def pair(timeout):
    """A connection; the server's end has *timeout* (seconds)."""
    server, browser = socket.socketpair()
    with server, browser:
        server.settimeout(timeout)
        yield server, browser


@pytest.mark.parametrize("timeout", [None, 0.0, 0.5])
def test_open_and_ended(timeout):
    """An open connection is open with any timeout, also with unread bytes; one that was closed has ended."""
    with pair(timeout) as (server, browser):
        assert not _has_ended(server)
        browser.send(b"x")
        assert not _has_ended(server)
        assert b"x" == server.recv(1)  # it was left for the server
        browser.close()
        assert _has_ended(server)
        server.close()
        assert _has_ended(server)


def test_high_descriptor():
    """A descriptor above 1023, which select does not know, is checked as any other."""
    resource = pytest.importorskip("resource")
    fcntl = pytest.importorskip("fcntl")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1600:
        pytest.skip("so many files cannot be open here")
    if soft != resource.RLIM_INFINITY and soft < 1600:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1600, hard))
    try:
        with (
            pair(0.5) as (server, browser),
            socket.socket(fileno=fcntl.fcntl(server, fcntl.F_DUPFD, 1500)) as high,
        ):
            high.settimeout(0.5)
            assert not _has_ended(high)
            browser.close()
            assert _has_ended(high)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(os.name == "nt", reason="a reset is not sent")
def test_reset():
    """A connection that was reset has ended."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        browser = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with server:
            server.settimeout(0.5)
            server.send(b"x")
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            browser.close()
            assert _has_ended(server)
