"""What the coordinator keeps of a key that is done: its place in the index, not its claim, and not its text."""

from __future__ import annotations

import gc
import tracemalloc

from coordinators import LINE, Worker

from neuralbox_async import Generation
from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.coordinator import ServerSignal
from neuralbox_async._cluster.messages import Decision, Observed, Settled, Wanted

KEYS, AT_ONCE = 6400, 16
TEXT = "x" * 2000
MAX_BYTES = 200  # of each key; with its claim it would have 300, with its text 2,300


def finish_keys(worker, numbers):
    """Claim *numbers* and report their generations: what is claimed is settled by the next exchange."""
    settled = ()
    for start in range(numbers.start, numbers.stop, AT_ONCE):
        keys = [f"row-{number:08}" for number in range(start, start + AT_ONCE)]
        wanted = tuple(Wanted(id=f"claim-{key}", key=key, model="m", request_hash="ab" * 16) for key in keys)
        observed = tuple(Observed(ServerSignal.ADMITTED, 0.1) for _ in settled)
        reply = worker.exchange(wanted=wanted, settled=settled, observed=observed, prices={"m": 3})
        assert [Decision.SEND] * AT_ONCE == [grant.decision for grant in reply.grants]
        settled = tuple(outcome_of(key) for key in keys)
    worker.exchange(settled=settled, observed=tuple(Observed(ServerSignal.ADMITTED, 0.1) for _ in settled))


def outcome_of(key):
    generation = Generation(id=f"gen-{key}", content=TEXT, tokens_used=3)
    body = b'{"id":"gen-%s","content":"%s","tokens_used":3}' % (key.encode(), TEXT.encode())
    return Settled(
        key=key,
        model="m",
        idempotency_key=f"claim-{key}",
        outcome="completed",
        line=journal_lines.done(key, generation, body, **LINE),
        tokens_used=3,
    )


def test_memory_of_the_coordinator(make_service):
    """Its memory grows by some 110 bytes a key: neither claims nor texts are kept."""
    service = make_service(budget=10**9)
    worker = Worker(service)
    finish_keys(worker, range(KEYS // 2))
    gc.collect()
    tracemalloc.start()
    try:
        finish_keys(worker, range(KEYS // 2, KEYS))
        gc.collect()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (KEYS, 0) == (service.report().completed, service.report().in_flight)
    assert kept < MAX_BYTES * (KEYS // 2)
