"""Random events on a cluster: whatever is lost, late or repeated, the money and the texts are accounted for."""

from __future__ import annotations

import random

import pytest
from simulated_cluster import Cluster

from neuralbox_async._cluster.service import CoordinatorService

SEEDS = (*range(57), 71, 261, 959)  # the last three find faults that there have been


@pytest.mark.parametrize("first", range(0, len(SEEDS), 12))
def test_random_events(monkeypatch, tmp_path, first):
    """The budget is kept, no key is billed twice, the report is true, and the journal has each text that is paid."""
    monkeypatch.setattr(CoordinatorService, "_keep_house", lambda _: None)
    for seed in SEEDS[first : first + 12]:
        cluster = Cluster(random.Random(seed), tmp_path / f"{seed}.jsonl")
        try:
            cluster.run()
        except AssertionError as error:
            error.add_note("\n".join([f"seed {seed}:", *cluster.events]))
            raise
