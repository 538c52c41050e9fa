"""A cluster whose processes are killed: workers, the coordinator's, the driver. The ledger has what was paid."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from ledger import bills, refusals, spent
from scripts import environment

distributed = pytest.importorskip("distributed")

from neuralbox_async import read_journal  # noqa: E402 - after the test of whether Dask is there
from neuralbox_async.testing import NeuralBoxServer  # noqa: E402

pytestmark = pytest.mark.process

PRICE = 3
TIMEOUT = 200  # seconds

PROGRAM = """
import json, os, signal, sys, time

import distributed

from neuralbox_async.dask import generate


def kill_one(client, batch, victim):
    # The last victim may not be replaced yet; one that was killed while it started never is, so the wait ends.
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        for address, pid in client.run(os.getpid, on_error="ignore").items():
            if (address == batch._coordinator.address) == (victim == "host"):
                return os.kill(pid, signal.SIGKILL)
        time.sleep(0.2)


def main(journal, count, budget):
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster, cluster.get_client() as client:
        for line in sys.stdin:  # a run each
            kills = json.loads(line)
            rows = ({"n": f"k{i}", "prompt": f"p{i}"} for i in range(count))
            results = {}
            with generate(
                client, rows, model="gpt-5", key="n", journal=journal, budget=budget, lease=5.0, partition_size=50
            ) as batch:
                for result in batch:
                    results[result.key] = [result.content, result.error_type, result.billed]
                    if kills and len(results) >= kills[0][0]:
                        _, victim = kills.pop(0)
                        if victim == "driver":
                            print("dying", flush=True)
                            os.kill(os.getpid(), signal.SIGKILL)
                        kill_one(client, batch, victim)
            outcome = {"results": results, "unresolved": batch.report.unresolved_keys, "left": kills}
            print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


class Driver:
    """A program with a cluster of its own that runs *count* prompts, and kills as it is told."""

    def __init__(self, folder, server, count):
        program = folder / "program.py"
        program.write_text(PROGRAM)
        self.journal = folder / "run.jsonl"
        command = [sys.executable, program, self.journal, str(count), str(PRICE * count)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(server), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "20"},
            start_new_session=True,
        )

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.stdout.close()
        self._process.wait()

    def run(self, kills=()):
        """Run the prompts, with kills at so many results; return what the driver knows."""
        self._process.stdin.write(json.dumps(kills) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        return line if line in {"", "dying\n"} else json.loads(line)


def check(server, count, outcome):
    """Check the ledger against what the driver knows."""
    paid = {f"k{prompt[1:]}" for prompt in bills(server)}
    done = {key for key, (content, *_) in outcome["results"].items() if content}
    # For the reader of the run's output (`-s`).
    sys.stdout.write(
        f"{len(server.billed)} of {count} billed, at most {max(bills(server).values())} time, for {spent(server)} of "
        f"{PRICE * count} tokens; {refusals(server)} refused, {len(outcome['unresolved'])} unresolved\n"
    )
    assert count == len(outcome["results"])
    assert [] == outcome["left"]
    assert 1 == max(bills(server).values())
    assert spent(server) <= PRICE * count
    assert paid <= done | set(outcome["unresolved"])
    assert set(outcome["results"]) - done <= set(outcome["unresolved"])
    return done


@pytest.fixture
def server():
    """Run a server with latency, faults, and a limit that clients do not know."""
    with NeuralBoxServer(latency=0.05, limit_hour=900, hour_seconds=4.0, prices={"gpt-5": PRICE}) as server:
        server.fail(status=500, code="provider_error", times=5)
        server.drop(when="before", times=2)
        server.drop(when="after", times=2)
        yield server


@pytest.mark.timeout(TIMEOUT + 60)
def test_killed_workers(tmp_path, server):
    """A worker and the coordinator's host are killed: paid once, within the budget; a second run pays for nothing."""
    count = 2000
    with Driver(tmp_path, server, count) as driver:
        outcome = driver.run([(300, "worker"), (900, "host")])
        done = check(server, count, outcome)
        assert 0 == refusals(server)

        before = len(server.billed)
        again = driver.run()
        assert before == len(server.billed)
        assert done == {key for key, (content, *_) in again["results"].items() if content}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", range(4))
def test_many_killed_workers(tmp_path, server, seed):
    """The same at many random moments."""
    count, moves = 2000, random.Random(seed)
    victims = moves.choices(["worker", "worker", "host"], k=5)
    with Driver(tmp_path, server, count) as driver:
        check(server, count, driver.run(list(zip(sorted(moves.sample(range(50, 1700), 5)), victims, strict=True))))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_driver(tmp_path, server):
    """A driver is killed, and its cluster with it: the rest is paid by the next one, and nothing twice."""
    count = 1000
    with Driver(tmp_path, server, count) as driver:
        assert "dying\n" == driver.run([(200, "driver")])
    started = {entry.key for entry in read_journal(driver.journal) if entry.event == "start"}
    settled = {entry.key for entry in read_journal(driver.journal) if entry.event in {"done", "failed"}}
    time.sleep(1)  # what was on its way is billed

    with Driver(tmp_path, server, count) as driver:
        outcome = driver.run()
        check(server, count, outcome)
    assert started - settled <= set(outcome["unresolved"])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_calls_without_a_coordinator(tmp_path, server):
    """What the harness shows: tasks that call the SDK themselves pay again for what a killed worker had paid."""
    program = tmp_path / "naive.py"
    program.write_text(NAIVE)
    command = [sys.executable, program]
    done = subprocess.run(command, env=environment(server), capture_output=True, text=True, check=True, timeout=TIMEOUT)

    assert "600" == done.stdout.strip()
    assert 2 <= max(Counter(bills(server)).values())


NAIVE = """
import os, signal, time

import distributed

from neuralbox_sync import NeuralBox


def call(prompts):
    with NeuralBox() as client:
        with client.generate_many(prompts, model="gpt-5", max_concurrency=16) as results:
            return [result.generation.content if result.generation else None for result in results]


def main():
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster, cluster.get_client() as client:
        prompts = [f"p{i}" for i in range(600)]
        futures = client.map(call, [prompts[i : i + 100] for i in range(0, 600, 100)], pure=False)
        first = next(distributed.as_completed(futures))
        time.sleep(0.2)  # by now each worker has paid for a part of its next prompts
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        print(sum(len(part) for part in client.gather(futures)))


if __name__ == "__main__":
    main()
"""
