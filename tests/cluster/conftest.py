"""Coordinators for tests, in this process."""

from __future__ import annotations

import pytest
from coordinators import lose

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
