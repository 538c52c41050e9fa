"""A Ray cluster whose nodes are removed, and whose driver is killed; the server's ledger has what was paid."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from journals import entries
from ledger import bills, spent
from ray_nodes import NODE, PRICE
from scripts import environment

pytest.importorskip("ray.data")

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.filterwarnings("default")]

COUNT = 1500
MARK = "test:"
TIMEOUT = 300  # seconds
PROGRAM = """
import functools, json, os, sys, time

import ray
import ray.data
from ray.util import scheduling_strategies

from neuralbox_async.ray import generate


def say(value):
    print("test:" + json.dumps(value), flush=True)  # Ray prints to the same stream


def main(address, journal, count, budget, host):
    ray.init(address=address, log_to_driver=False)
    if host:  # the coordinator is to be on a node that can be removed
        original = scheduling_strategies.NodeAffinitySchedulingStrategy
        scheduling_strategies.NodeAffinitySchedulingStrategy = lambda node_id, soft: original(host, soft=True)
    rows = [{"n": f"k{i}", "prompt": f"p{i}"} for i in range(count)]
    reports = []
    dataset = generate(
        ray.data.from_items(rows, override_num_blocks=15),
        model="gpt-5",
        key="n",
        journal=journal,
        budget=budget,
        lease=5.0,
        workers=3,
        on_progress=reports.append,
    )
    for row in dataset.iter_rows():
        say([row["n"], row["content"], row["error_type"], row["billed"]])
    time.sleep(1)
    say(reports[-1].unresolved_keys)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
"""

NAIVE = """
import json, sys

import ray
import ray.data

from neuralbox_sync import NeuralBox


class Generator:
    def __call__(self, batch):
        with NeuralBox() as client:
            with client.generate_many(list(batch["prompt"]), model="gpt-5", max_concurrency=16) as results:
                contents = {one.item: one.generation.content for one in results if one.generation}
        batch["content"] = [contents.get(prompt) for prompt in batch["prompt"]]
        return batch


def main(address, count):
    ray.init(address=address, log_to_driver=False)
    rows = [{"n": f"k{i}", "prompt": f"p{i}"} for i in range(count)]
    dataset = ray.data.from_items(rows, override_num_blocks=15).map_batches(
        Generator,
        batch_size=100,
        compute=ray.data.ActorPoolStrategy(size=3),
        num_cpus=0.25,
    )
    for row in dataset.iter_rows():
        print("test:" + json.dumps([row["n"], row["content"]]), flush=True)
    print("test:[]", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[3]))
"""


@pytest.fixture
def journal(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "naive.py").write_text(NAIVE)
    return tmp_path / "run.jsonl"


def start(cluster, server, journal, host="", program="program.py"):
    """Start a driver."""
    command = [sys.executable, journal.parent / program, cluster.address, journal, COUNT, PRICE * COUNT, host]
    return subprocess.Popen(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, env={**environment(server), **os.environ}
    )


def outcome_of(process):
    """Return the rows of a driver by key, and the keys that it lists as unresolved."""
    with process, contextlib.ExitStack() as stack:
        timer = threading.Timer(TIMEOUT, process.kill)
        timer.start()
        stack.callback(timer.cancel)
        lines = [json.loads(line[len(MARK) :]) for line in process.stdout if line.startswith(MARK)]
    assert 0 == process.returncode
    return {key: row for key, *row in lines[:-1]}, set(lines[-1])


def check(server, rows, unresolved):
    """Check the ledger against what the driver knows; return the keys that are done."""
    paid = {f"k{prompt[1:]}" for prompt in bills(server)}
    done = {key for key, (content, *_) in rows.items() if content}
    assert COUNT == len(rows)
    assert 1 == max(bills(server).values())
    assert spent(server) <= PRICE * COUNT
    assert paid <= done | unresolved
    assert set(rows) - done <= unresolved
    return done


def show(figures):
    """Print *figures*, for the reader of the run's output (`-s`)."""
    sys.stdout.write(f"{figures}\n")


def check_second_run(cluster, server, journal, done):
    """Run again: nothing is paid that was done."""
    before = len(server.billed)
    rows, unresolved = outcome_of(start(cluster, server, journal))
    assert done <= check(server, rows, unresolved)
    assert before == len(server.billed)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_removed_nodes(cluster, server, journal, seed):
    """Nodes are removed at random moments, that of the coordinator too: paid once, and the rest is listed."""
    server.reset()
    server.drop(when="after", times=2)
    server.fail(status=500, code="provider_error", times=3)
    moves = random.Random(seed)
    moments = sorted(moves.sample(range(50, COUNT - 300), 2))
    nodes = list(cluster.worker_nodes)
    victims = moves.sample(nodes, 2)
    process = start(cluster, server, journal, moves.choice(victims).node_id)
    with ThreadPoolExecutor(1) as executor:
        outcome = executor.submit(outcome_of, process)
        for moment, victim in zip(moments, victims, strict=True):
            server.wait_until(lambda moment=moment: len(server.billed) >= moment or outcome.done(), TIMEOUT)
            cluster.remove_node(victim, allow_graceful=False)
            cluster.add_node(**NODE)
        rows, unresolved = outcome.result()
    done = check(server, rows, unresolved)
    show(f"removed at {moments}: billed {len(server.billed)}, done {len(done)}, unresolved {len(unresolved)}")
    check_second_run(cluster, server, journal, done)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2))
def test_killed_drivers(cluster, server, journal, seed):
    """A driver is killed while its cluster lives: the next one starts at once, and pays for nothing that was done."""
    server.reset()
    moment = random.Random(seed).randrange(50, COUNT - 300)
    with start(cluster, server, journal) as process:
        server.wait_until(lambda: len(server.billed) >= moment, TIMEOUT)
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
    started = {entry.key for entry in entries(journal, "start")}
    rows, unresolved = outcome_of(start(cluster, server, journal))
    done = check(server, rows, unresolved)
    show(f"killed at {moment}: started {len(started)}, billed {len(server.billed)}, unresolved {len(unresolved)}")
    assert unresolved <= {entry.key for entry in entries(journal, "start")}
    check_second_run(cluster, server, journal, done)


@pytest.mark.timeout(900)
def test_removed_nodes_without_a_coordinator(cluster, server, journal):
    """What the harness shows: actors that call the SDK themselves pay again for what a lost node had paid."""
    server.reset()
    process = start(cluster, server, journal, program="naive.py")
    with ThreadPoolExecutor(1) as executor:
        outcome = executor.submit(outcome_of, process)
        for moment in (400, 800):
            server.wait_until(lambda moment=moment: len(server.billed) >= moment or outcome.done(), TIMEOUT)
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
            cluster.add_node(**NODE)
        rows, _ = outcome.result()
    again = [count - 1 for count in bills(server).values() if count > 1]
    show(f"without a coordinator: billed {len(server.billed)}, more than once {len(again)} of {len(rows)}")

    assert COUNT == len(rows)
    assert again
