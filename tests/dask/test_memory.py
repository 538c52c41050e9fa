"""Resident memory over many prompts: of the driver, of the process with the coordinator, and of another worker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading

import pytest
from scripts import environment

pytest.importorskip("distributed")

from neuralbox_async.testing import NeuralBoxServer

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT, TASK, TEXT = 24_000, 8, 4000  # prompts, prompts of a task, bytes of a text
MAX_GROWTH = 20_000_000  # bytes over the second half, whose texts alone have 48,000,000
TIMEOUT = 600  # seconds

PROGRAM = """
import json, subprocess, sys

import distributed
import psutil

from neuralbox_async.dask import generate


def memory():
    return psutil.Process().memory_info().rss


def serve():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()


def sizes(client, batch):
    workers = client.run(memory)
    coordinator = workers.pop(batch._coordinator.address)
    return {"driver": memory(), "coordinator": coordinator, "worker": sum(workers.values())}


def main(journal, count, task):
    # The scheduler is no part of the driver: it has a process of its own.
    command = [sys.executable, __file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as cluster, distributed.Client(
        cluster.stdout.readline().strip()
    ) as client:
        rows = ({"n": f"k{i}", "prompt": f"p{i}"} for i in range(count))
        with generate(
            client, rows, model="gpt-5", key="n", journal=journal, partition_size=task, max_concurrency_per_worker=32
        ) as batch:
            done = failed = 0
            for result in batch:
                done, failed = done + 1, failed + (result.content is None)
                if done == count // 2:
                    half = sizes(client, batch)
            whole = sizes(client, batch)
        print(json.dumps({"half": half, "whole": whole, "done": done, "failed": failed}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])) if sys.argv[1:] else serve()
"""


def run(folder, count, task):
    """Run *count* prompts in tasks of *task*; return the sizes of processes at half of it and at the end."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, program, folder / "run.jsonl", str(count), str(task)]
    with NeuralBoxServer(reply="x" * TEXT, prices={"gpt-5": 1}, history=100) as server:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(server)) as process:
            timer = threading.Timer(TIMEOUT, process.kill)
            timer.start()
            try:
                return json.loads(process.stdout.readline())
            finally:
                timer.cancel()


def test_memory(tmp_path):
    """Texts, results and claims that are done stay in no process; the coordinator's index has some bytes of each."""
    sizes = run(tmp_path, COUNT, TASK)

    assert (COUNT, 0) == (sizes["done"], sizes["failed"])
    growth = {name: sizes["whole"][name] - sizes["half"][name] for name in sizes["whole"]}
    sys.stdout.write(f"{sizes} {growth}\n")
    assert {} == {name: size for name, size in growth.items() if size > MAX_GROWTH}
