"""Workers whose wall clocks are wrong: leases are durations, and the times in the journal are the coordinator's."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from cluster_processes import Cluster
from journals import entries
from ledger import bills
from scripts import environment

from neuralbox_async import APIConnectionError, read_journal
from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.journal_entries import entry_of
from neuralbox_async.testing import NeuralBoxServer

HOURS = 5 * 3600


@pytest.mark.process
def test_wrong_clocks(tmp_path):
    """No lease expires, though it is shorter than the difference; the times in the journal are right, and in order."""
    journal = tmp_path / "run.jsonl"
    options = {"journal": str(journal), "lease": 30.0, "driver_lease": 90.0}
    rows = [{"n": f"k{i}", "prompt": f"p{i}"} for i in range(20)]
    server = NeuralBoxServer(latency=0.3, pending_models=["gpt-4o"], pending_seconds=0.1)
    with server, Cluster(tmp_path, environment(server), options, count=2, clocks=(HOURS, -HOURS)) as cluster:
        server.fail(status=422, code="invalid_request", times=2)
        started = time.time()
        pending = [{"n": f"pending-{i}", "prompt": f"pending {i}", "model": "gpt-4o"} for i in range(2)]
        cluster.submit([[*rows[:10], pending[0]], [*rows[10:], pending[1]]])
        results = cluster.wait()
        ended = time.time()
        report = cluster.service().report()

    assert {None: 20, "UnprocessableEntityError": 2} == Counter(result["error_type"] for result in results)
    assert {1} == set(bills(server).values())
    assert ((), 0) == (report.unresolved_keys, report.unresolved)
    times = [entry.at.timestamp() for entry in read_journal(journal)]
    assert times == sorted(times)
    assert started - 1 <= times[0] <= times[-1] <= ended + 1
    kinds = {kind: len(entries(journal, kind)) for kind in ("start", "pending", "done", "failed")}
    assert {"start": 22, "pending": 2, "done": 20, "failed": 2} == kinds


@pytest.mark.parametrize("key", ["k", "\u00e4", 'a","at":5,"b', "\\", '\\"'])
def test_stamps(key):
    """A line gets another time, and is the same otherwise, whatever its key is."""
    line = journal_lines.pending(key, "gen_1").replace(b'"at":', b'"at":1')
    before, after = entry_of(line, "", 0), entry_of(journal_lines.stamped(line), "", 0)

    assert abs(after.at.timestamp() - time.time()) < 60
    assert abs(before.at.timestamp() - time.time()) > 60
    assert (before.key, before.generation_id) == (after.key, after.generation_id) == (key, "gen_1")


def test_lines_without_a_time():
    """A line of another form stays as it is, also if its response has a time."""
    for line in (b'{"event":"done","key":"a","generation":{"id":1,"at":5}}\n', b"[]\n", b"\n"):
        assert line == journal_lines.stamped(line)


def test_stamps_of_escaped_text():
    """A line with text that only JSON's escapes can carry has the form of others."""
    error = APIConnectionError("lost")
    error.text = "half \ud83d"
    line = journal_lines.failed("k", error, None, attempts=1, elapsed=1.0).replace(b'"at":', b'"at":1')
    assert abs(entry_of(journal_lines.stamped(line), "", 0).at.timestamp() - time.time()) < 60
