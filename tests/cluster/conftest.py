"""Coordinators for tests, in this process."""

from __future__ import annotations

import threading

import pytest
from coordinators import lose

from neuralbox_async._cluster import process_worker, session
from neuralbox_async._cluster.service import CoordinatorService, ServiceOptions


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "run.jsonl"


@pytest.fixture
def make_service(journal):
    """Make a coordinator of the journal; all are closed at the end."""
    services = []

    def make_service(**options):
        services.append(CoordinatorService(ServiceOptions(**{"journal": str(journal), **options})))
        return services[-1]

    yield make_service
    for service in services:
        lose(service)


@pytest.fixture
def quick_end(monkeypatch):
    """End workers soon, and wait for that; reconnect soon."""
    monkeypatch.setattr(process_worker, "_IDLE_TIMEOUT", 0.0)
    monkeypatch.setattr(session, "_RECONNECT_INTERVAL", 0.01)
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("neuralbox-"):
            thread.join(60)


@pytest.fixture
def environment_of(monkeypatch):
    """Return a function that lets workers of this process use a server."""

    def environment_of(server):
        monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
        monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)

    return environment_of


@pytest.fixture
def lease_lost_before_repair(monkeypatch):
    """Let the second check of a lease, which comes before the repair, find it lost. Return the claims of all checks."""
    real, checks = session.WorkerSession.check_lease, []

    async def check_lease(self, claim_id):
        checks.append(claim_id)
        if len(checks) == 2:
            raise session.ClaimLostError("the lease of this request expired before it was sent")
        await real(self, claim_id)

    monkeypatch.setattr(session.WorkerSession, "check_lease", check_lease)
    return checks
