"""Fixtures for the code in the documentation: it runs against a local server, never against the API."""

from __future__ import annotations

import logging
import os
import subprocess

import pytest
import trustme
from documents import ROOT, TIMEOUT, programs

from neuralbox_async import _observers
from neuralbox_async.testing import NeuralBoxServer

COMPANY_CA = trustme.CA().cert_pem.bytes()
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """An invalid key, an address where no server listens, and a folder of its own with an image and a certificate."""
    for name in list(os.environ):
        if name.startswith("NEURALBOX_") or name in {"FORCE_COLOR", "NO_COLOR"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("NEURALBOX_API_KEY", "nb_invalid")
    monkeypatch.setenv("NEURALBOX_BASE_URL", "http://127.0.0.1:9/api/v2")
    # The packages can be imported even if they are not installed.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("_RJEM_MALLOC_CONF", "")  # polars sets it when it is imported
    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("neuralbox")  # some pieces of code configure it
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr(logger, "handlers", list(logger.handlers))
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    (tmp_path / "company-ca.pem").write_bytes(COMPANY_CA)


@pytest.fixture(autouse=True)
def no_observer_left():
    """Remove the observers of the process that a piece of code installs."""
    before = list(_observers.installed)
    yield
    _observers.installed[:] = before


@pytest.fixture
def server(monkeypatch):
    """A server whose address and key are in the environment."""
    with NeuralBoxServer() as server:
        monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
        monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
        yield server


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes the programs of a page into a folder, which it returns."""

    def write(page):
        for name, code in programs(ROOT / "docs" / page).items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def run():
    """Run a command to its end and return it, with its output as text."""

    def run(*command, stdin="", **options):
        return subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT, check=False, **options
        )

    return run
