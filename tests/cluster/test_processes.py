"""Workers and coordinator in processes, killed at random moments; the server's ledger says what was paid."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter

import pytest
from cluster_processes import Cluster
from ledger import bills, refusals, spent
from scripts import environment

from neuralbox_async.testing import NeuralBoxServer

pytestmark = [pytest.mark.process, pytest.mark.slow]

COUNT, PRICE = 300, 3


def killer(cluster, moments, victims):
    """Return a function that kills one of *victims* at each of *moments*: when so many generations were billed."""

    def kill(server):
        if moments and len(server.billed) >= moments[0]:
            moments.pop(0)
            victims.pop(0)(cluster)

    return kill


def kill_worker(cluster):
    random.choice(cluster.workers).kill()


@pytest.mark.parametrize("seed", range(2))
def test_killed_processes(tmp_path, seed):
    """Whoever is killed: nothing is paid twice, the budget holds, all else is listed, and a rerun pays for nothing."""
    moves = random.Random(seed)
    with NeuralBoxServer(latency=0.03, limit_hour=200, hour_seconds=2.0, prices={"gpt-5": PRICE}) as server:
        server.fail(status=500, code="provider_error", times=3)
        server.drop(when="after", times=2)
        rows = [{"n": f"k{i}", "prompt": f"p{i}"} for i in range(COUNT)]
        partitions = [rows[start : start + 25] for start in range(0, COUNT, 25)]
        options = {"journal": str(tmp_path / "run.jsonl"), "budget": PRICE * COUNT, "lease": 2.0, "driver_lease": 90.0}
        victims = [kill_worker, kill_worker, Cluster.kill_host]
        moves.shuffle(victims)
        with Cluster(tmp_path, environment(server), options, run="first") as cluster:
            kill = killer(cluster, sorted(moves.sample(range(20, 250), 3)), victims)
            cluster.submit(partitions)
            results = cluster.wait(lambda: kill(server))
            report = cluster.service().report()
        assert [] == victims

        assert 1 == max(bills(server).values())
        assert spent(server) <= PRICE * COUNT
        assert 0 == refusals(server)
        assert [row["n"] for row in rows] == [result["key"] for result in results]
        failed = {result["key"] for result in results if result["error_type"]}
        assert failed <= set(report.unresolved_keys)
        paid = {f"k{prompt[1:]}" for prompt in bills(server)}
        done = {result["key"] for result in results if result["content"]}
        assert paid <= done | set(report.unresolved_keys)

        before = len(server.billed)
        with Cluster(tmp_path, environment(server), options, run="second") as cluster:
            cluster.submit(partitions)
            again = cluster.wait()
        assert before == len(server.billed)
        assert done == {result["key"] for result in again if result["content"]}


def test_stopped_workers(tmp_path):
    """A worker that stood still for longer than its lease sends nothing that others may have."""
    with NeuralBoxServer(latency=0.05, prices={"gpt-5": PRICE}) as server:
        rows = [{"n": f"k{i}", "prompt": f"p{i}"} for i in range(120)]
        partitions = [rows[start : start + 20] for start in range(0, 120, 20)]
        options = {"journal": str(tmp_path / "run.jsonl"), "lease": 1.0, "driver_lease": 90.0, "on_unknown": "retry"}
        with Cluster(tmp_path, environment(server), options, count=2) as cluster:
            cluster.submit(partitions)
            server.wait_until(lambda: len(server.billed) >= 20)
            stopped = cluster.workers[0]
            stopped.send_signal(signal.SIGSTOP)
            time.sleep(2.5)
            stopped.send_signal(signal.SIGCONT)
            results = cluster.wait()

        assert {None} == {result["error_type"] for result in results}
        twice = [prompt for prompt, count in bills(server).items() if count > 1]
        in_flight = 2 * 8  # at most: a busy machine may stop the other worker for as long
        assert len(twice) <= in_flight
        assert Counter(bills(server).values())[1] >= 120 - in_flight
