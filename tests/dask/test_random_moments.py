"""Twenty `kill -9` of workers at random moments: with the coordinator, and with tasks that call the SDK themselves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading

import pytest
from ledger import bills, spent
from scripts import environment

pytest.importorskip("distributed")

from neuralbox_async.testing import NeuralBoxServer

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1200)]

COUNT, KILLS, PRICE, TASK = 2000, 20, 3, 50
TIMEOUT = 900  # seconds

PROGRAM = """
import json, os, random, signal, sys, threading, time

import distributed

from neuralbox_async.dask import generate
from neuralbox_sync import NeuralBox


def call(prompts):
    with NeuralBox() as client:
        with client.generate_many(prompts, model="gpt-5", max_concurrency=16) as results:
            return [result.generation.content if result.generation else None for result in results]


def kill_workers(client, spared, chance):
    for _ in sys.stdin:  # a line for each
        while True:  # the last one may not be replaced yet
            pids = [pid for address, pid in client.run(os.getpid, on_error="ignore").items() if address != spared()]
            if pids:
                os.kill(chance.choice(pids), signal.SIGKILL)
                break
            time.sleep(0.1)


def start_killing(client, spared):
    threading.Thread(target=kill_workers, args=(client, spared, random.Random(1)), daemon=True).start()


def naively(client, prompts, size):
    spared = next(iter(client.run(os.getpid)))  # as that of the coordinator
    start_killing(client, lambda: spared)
    parts = [prompts[i : i + size] for i in range(0, len(prompts), size)]
    # Each result is fetched as soon as it is there, so that only what was in flight is lost with a worker.
    tasks = distributed.as_completed(client.map(call, parts, pure=False), with_results=True)
    return sum(content is not None for _, part in tasks for content in part), []


def coordinated(client, prompts, size, journal):
    rows = [{"n": prompt, "prompt": prompt} for prompt in prompts]
    budget = 3 * len(prompts)
    with generate(
        client, rows, model="gpt-5", key="n", journal=journal, budget=budget, lease=5.0, partition_size=size
    ) as batch:
        start_killing(client, lambda: batch._coordinator.address)
        done = sum(result.content is not None for result in batch)
    return done, batch.report.unresolved_keys


def main(journal, count, size):
    prompts = [f"p{i}" for i in range(count)]
    with distributed.LocalCluster(
        n_workers=3, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster, cluster.get_client() as client:
        outcome = coordinated(client, prompts, size, journal) if journal else naively(client, prompts, size)
        print(json.dumps(outcome), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
"""


def run(folder, server, journal):
    """Run the prompts, with workers killed at random moments; return how many are done, and the unresolved keys."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    moments = sorted(random.Random(22).sample(range(50, COUNT - 200), KILLS))
    with subprocess.Popen(
        [sys.executable, str(program), str(journal), str(COUNT), str(TASK)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment(server), "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1000"},
        start_new_session=True,
    ) as process:
        timer = threading.Timer(TIMEOUT, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            for moment in moments:
                server.wait_until(lambda moment=moment: len(server.billed) >= moment, TIMEOUT)
                process.stdin.write("kill\n")
                process.stdin.flush()
            done, unresolved = json.loads(process.stdout.readline())
            process.stdin.close()
            process.wait(60)
        finally:
            timer.cancel()
    return done, unresolved


def show(name, server, done, unresolved):
    """Print the figures, for the reader of the run's output (`-s`)."""
    again = [count - 1 for count in bills(server).values() if count > 1]
    sys.stdout.write(
        f"{name}: {KILLS} kills, {len(server.billed)} of {COUNT} prompts billed, {len(again)} more than once "
        f"({sum(again)} bills too many), {done} with a text, {len(unresolved)} unresolved\n"
    )


def test_the_coordinator(tmp_path):
    """Each prompt is billed at most once, within the budget, and what is not done is listed."""
    with NeuralBoxServer(latency=0.3, prices={"gpt-5": PRICE}) as server:
        done, unresolved = run(tmp_path, server, tmp_path / "run.jsonl")
        show("with a coordinator", server, done, unresolved)

        assert 1 == max(bills(server).values())
        assert spent(server) <= PRICE * COUNT
        assert COUNT <= done + len(unresolved)
        assert len(bills(server)) <= done + len(unresolved)


def test_tasks_alone(tmp_path):
    """The same harness shows what Dask's repetition of tasks costs without one."""
    with NeuralBoxServer(latency=0.3, prices={"gpt-5": PRICE}) as server:
        done, _ = run(tmp_path, server, "")
        show("without", server, done, [])

        assert COUNT == done
        assert 2 <= max(bills(server).values())
