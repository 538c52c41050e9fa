"""A driver that is killed while its cluster lives: the journal is complete, and the next driver takes over."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
from journals import entries
from ledger import bills, spent
from scripts import environment

pytest.importorskip("distributed")

from neuralbox_async.testing import NeuralBoxServer

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(600)]

COUNT, PRICE = 1000, 3
TIMEOUT = 120.0  # seconds

CLUSTER = """
import sys

import distributed


if __name__ == "__main__":
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""

DRIVER = """
import json, sys, time

import attrs
import distributed

from neuralbox_async import JournalLockedError
from neuralbox_async.dask import generate


def main(address, journal, count, budget):
    rows = ({"n": f"k{i}", "prompt": f"p{i}"} for i in range(count))
    with distributed.Client(address) as client:
        while True:
            batch = generate(client, rows, model="gpt-5", key="n", journal=journal, budget=budget, partition_size=25)
            plan = batch._coordinator._plan  # so that no test has to wait for half a minute
            batch._coordinator._plan = attrs.evolve(plan, service=attrs.evolve(plan.service, driver_lease=6.0))
            try:
                with batch:
                    print("started", flush=True)
                    sys.stdin.readline()
                    results = {result.key: [result.content, result.error_type] for result in batch}
                print(json.dumps({"results": results, "unresolved": batch.report.unresolved_keys}), flush=True)
                return
            except JournalLockedError:
                print("locked", flush=True)
                time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
"""


@contextmanager
def program(folder, server, name, text, *arguments):
    """Start a program in a process of its own, and kill it at the end."""
    path = folder / f"{name}.py"
    path.write_text(text)
    with subprocess.Popen(
        [sys.executable, str(path), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(server),
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if name == "cluster":
                process.stdin.close()  # it ends its workers
                process.wait(TIMEOUT)
            process.kill()


def outcomes(journal):
    """Return the keys in the journal that are done, and those that were started and have no outcome."""
    done = {entry.key for entry in entries(journal, "done")}
    settled = done | {entry.key for entry in entries(journal, "failed")}
    return done, {entry.key for entry in entries(journal, "start")} - settled


def command(folder, server, address):
    """Start the command with the rows of *folder*."""
    arguments = ["batch", "in.jsonl", "-o", "out.jsonl", "--dask", address, "-c", "4"]
    return subprocess.Popen(
        [sys.executable, "-m", "neuralbox_async", *arguments],
        cwd=folder,
        env=environment(server),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_interrupted_commands(tmp_path):
    """After Ctrl-C the requests in flight finish, and their results are written; the same command sends the rest."""
    rows = [{"key": f"k{number}", "prompt": f"p{number}"} for number in range(1000)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with NeuralBoxServer(latency=0.2, prices={"gpt-5": PRICE}) as server:
        with program(tmp_path, server, "cluster", CLUSTER) as cluster:
            address = cluster.stdout.readline().strip()
            with command(tmp_path, server, address) as first:
                server.wait_until(lambda: len(server.billed) >= 20, TIMEOUT)
                first.send_signal(signal.SIGINT)
                _, errors = first.communicate(timeout=TIMEOUT)
            assert (130, True) == (first.returncode, "press Ctrl-C again" in errors)
            lines = (tmp_path / "out.jsonl").read_text().splitlines()
            assert 20 <= len(lines) == len(server.billed) < 1000
            assert f"{len(lines)} completed; {1000 - len(lines)} not started" in errors
            with command(tmp_path, server, address) as second:
                _, errors = second.communicate(timeout=TIMEOUT)

    assert (0, 1000) == (second.returncode, len(server.billed))
    assert {1} == set(bills(server).values())
    keys = [json.loads(line)["key"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert sorted(keys) == sorted(row["key"] for row in rows)


def go(process):
    """Let a driver send its rows."""
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.mark.parametrize("seed", range(3))
def test_killed_drivers(tmp_path, seed):
    """The next driver is refused until the coordinator of the first one has recorded all; it pays for the rest."""
    journal = tmp_path / "run.jsonl"
    moment = random.Random(seed).randrange(20, COUNT - 300)
    with NeuralBoxServer(latency=0.1, prices={"gpt-5": PRICE}) as server:
        with program(tmp_path, server, "cluster", CLUSTER) as cluster:
            address = cluster.stdout.readline().strip()
            arguments = ("driver", DRIVER, address, journal, COUNT, PRICE * COUNT)
            with program(tmp_path, server, *arguments) as first:
                assert "started\n" == first.stdout.readline()
                with program(tmp_path, server, *arguments) as second:
                    assert "locked\n" == second.stdout.readline()
                    go(first)
                    server.wait_until(lambda: len(server.billed) >= moment, TIMEOUT)
                    first.kill()
                    assert {"locked\n"} >= set(iter(second.stdout.readline, "started\n"))

                    paid = {f"k{prompt[1:]}" for prompt in bills(server)}
                    assert (paid, set()) == outcomes(journal)
                    go(second)
                    outcome = json.loads(second.stdout.readline())

        assert moment <= len(paid) < COUNT
        assert {1} == set(bills(server).values())
        assert spent(server) <= PRICE * COUNT
        assert [] == outcome["unresolved"]
        assert {None} == {error for _, error in outcome["results"].values()}
        assert COUNT == len(outcome["results"]) == len(server.billed)
