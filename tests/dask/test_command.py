"""`neuralbox batch --dask` on a cluster in this process."""

from __future__ import annotations

import io
import json
import sys
import threading

import anyio
import pytest
from command import Result
from journals import entries

pytest.importorskip("distributed")
pytest.importorskip("click")

import distributed

from neuralbox_async._batch.journal import Journal
from neuralbox_async._cli import run
from neuralbox_async._cli.dask_batch import DaskRun, DaskRunner
from neuralbox_async._cluster.plan import make_plan

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

JOURNAL = "out.jsonl.journal.jsonl"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def batch(dask_client, server, folder, capsys, monkeypatch):
    """Run the command with these rows, on the cluster."""
    server.reset()

    def batch(rows, *arguments, output=("-o", "out.jsonl")):
        (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        address = dask_client.scheduler.address
        status = run(("batch", "in.jsonl", *output, "--dask", address, *arguments))
        return Result(status, *capsys.readouterr())

    return batch


def rows_of(count):
    return [{"key": f"k{number}", "prompt": f"p{number}"} for number in range(count)]


def lines(folder):
    """Return the lines of the output by key; no key has two."""
    rows = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    known = {row["key"]: row for row in rows}
    assert len(rows) == len(known)
    return known


def test_results_and_continuation(batch, server, folder):
    """The output, the summary and the status are as on one machine; the next run pays for new rows only."""
    done = batch(rows_of(120))
    assert 0 == done.status
    assert "120 completed; 360 tokens" in done.err
    rows = lines(folder)
    assert {f"k{number}": f"You said: p{number}" for number in range(120)} == {
        key: row["content"] for key, row in rows.items()
    }
    assert {"key", "row", "line", "content", "model", "id", "tokens_used", "attempts", "elapsed"} == set(rows["k0"])
    assert (1, 1) == (rows["k0"]["row"], rows["k0"]["attempts"])

    again = batch(rows_of(130))
    assert 0 == again.status
    assert "10 completed; 120 completed by earlier runs; 30 tokens (390 in all runs)" in again.err
    assert {**rows, **{key: row for key, row in lines(folder).items() if key not in rows}} == lines(folder)
    assert 130 == len(lines(folder)) == len(server.billed)


def test_budgets(batch, server, folder):
    """What the budget does not allow is not sent, and the next command is printed."""
    done = batch(rows_of(50), "--budget", "30")

    assert 4 == done.status
    assert "10 completed; 40 not started" in done.err
    assert "--budget" in done.err.splitlines()[-1]
    assert 10 == len(server.billed) == len(lines(folder))


def test_failures(batch, server, folder):
    """Rows that fail are lines with errors; a request without a response is listed."""
    server.fail(status=404, code="model_not_found", times=1)
    server.drop(when="after", times=1)
    done = batch(rows_of(5))

    assert 3 == done.status
    assert "3 completed; 2 failed" in done.err
    assert "1 request may have been billed without a response" in done.err
    assert 2 == len([row for row in lines(folder).values() if "error_type" in row])

    again = batch(rows_of(5), "--on-unknown", "ask")
    assert 4 == again.status
    assert "nothing was sent" in again.err
    third = batch(rows_of(5), "--on-unknown", "retry")
    assert 0 == third.status
    assert {None} == {row.get("error_type") for row in lines(folder).values()}


def test_schemas(batch, server, folder):
    """Answers are checked in the workers."""
    (folder / "schema.json").write_text('{"type": "integer"}')
    server.reply_with("1", "one", "2")
    done = batch(rows_of(2), "--schema", "schema.json")

    assert 0 == done.status
    assert {1, 2} == {row["value"] for row in lines(folder).values()}
    assert 3 == len(server.billed)


def test_changed_rows(batch, server, folder):
    """A file with another request for a key is refused as a whole."""
    assert 0 == batch(rows_of(3)).status
    changed = [{"key": "k1", "prompt": "other"}, {"key": "k7", "prompt": "new"}]
    refused = batch(changed)

    assert (1, 3) == (refused.status, len(server.billed))
    assert "differ from those that earlier runs sent" in refused.err
    assert 0 == batch(changed, "--on-changed", "retry").status
    assert "You said: other" == lines(folder)["k1"]["content"]


def test_journals_in_use(batch, server, folder):
    """Another run with the journal is refused, and the output stays as it is."""
    assert 0 == batch(rows_of(2)).status
    before = (folder / "out.jsonl").read_text()
    journal = Journal(folder / JOURNAL)
    list(journal.open())
    try:
        refused = batch(rows_of(3))
    finally:
        journal.close()

    assert 1 == refused.status
    assert "in use" in refused.err
    assert (before, 2) == ((folder / "out.jsonl").read_text(), len(server.billed))


def test_a_full_output(batch, server, folder, monkeypatch):
    """When results cannot be written nothing more is sent; the next run writes what the journal has."""
    from neuralbox_async._cli.output import Output

    monkeypatch.setattr(Output, "write", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    failed = batch(rows_of(3000), "-c", "4")
    monkeypatch.undo()
    billed = len(server.billed)

    assert 1 == failed.status
    assert "No space left" in failed.err
    assert billed < 3000
    assert billed == len(entries(folder / JOURNAL, "done"))
    monkeypatch.chdir(folder)
    assert 0 == batch(rows_of(billed + 1)).status
    assert {None} == {row.get("error_type") for row in lines(folder).values()}


@pytest.mark.parametrize(
    "arguments,reason",
    [
        (("--local",), "--local and --dask are mutually exclusive"),
        (("--ordered",), "--ordered and --dask are mutually exclusive"),
        (("--limit-to-balance",), "--limit-to-balance and --dask are mutually exclusive"),
        (("--no-journal",), "--dask needs a journal"),
    ],
)
def test_options_that_a_cluster_does_not_have(batch, server, arguments, reason):
    """They are refused with one sentence, and nothing is sent."""
    refused = batch(rows_of(1), *arguments)

    assert 2 == refused.status
    assert reason in refused.err
    assert () == server.billed
    assert 2 == batch(rows_of(1), output=()).status


def test_no_cluster(folder, capsys, monkeypatch, server):
    """Without a scheduler at the address nothing is sent, and the message names it."""
    monkeypatch.setattr("neuralbox_async._cli.dask_batch._CONNECT_TIMEOUT", 0.2)
    (folder / "in.txt").write_text("Hi\n")
    status = run(("batch", "in.txt", "-o", "out.jsonl", "--dask", "tcp://127.0.0.1:1"))

    assert 1 == status
    assert "no scheduler at tcp://127.0.0.1:1" in capsys.readouterr().err


def test_lost_tasks(batch, server, monkeypatch):
    """An error of the cluster ends the command with its reason."""

    def fail(_):
        raise RuntimeError("all workers are gone")

    monkeypatch.setattr("neuralbox_async.dask.DaskBatch.next_partition", fail)
    failed = batch(rows_of(3))

    assert 1 == failed.status
    assert "the cluster lost a part of the batch: RuntimeError: all workers are gone" in failed.err


def test_without_dask(folder, capsys, monkeypatch, server):
    """Without Dask the message says what to install."""
    monkeypatch.setitem(sys.modules, "distributed", None)
    (folder / "in.txt").write_text("Hi\n")

    assert 2 == run(("batch", "in.txt", "-o", "out.jsonl", "--dask", "tcp://127.0.0.1:1"))
    assert "pip install 'neuralbox[dask]'" in capsys.readouterr().err


@pytest.mark.parametrize("address", ["foo bar", "scheduler", "tcp://scheduler:port", "http://scheduler:80"])
def test_malformed_addresses(folder, capsys, monkeypatch, address):
    """No client of Dask is made: one with such an address blocks for a minute when it is collected."""
    clients = []
    monkeypatch.setattr(distributed, "Client", lambda *_, **__: clients.append(address))
    (folder / "in.txt").write_text("Hi\n")
    status = run(("batch", "in.txt", "-o", "out.jsonl", "--dask", address))

    assert (1, []) == (status, clients)
    assert f"no scheduler at {address}: " in capsys.readouterr().err


class EmptyCluster:
    """Stands in for the client of a cluster without workers: nothing that is submitted starts."""

    def __init__(self, *_, **__):
        self.cancelled = False

    def nthreads(self):
        return {}

    def submit(self, *_, **__):
        return self

    def done(self):
        return False

    def cancel(self):
        self.cancelled = True

    def close(self):
        pass


def test_clusters_without_workers(folder, capsys, monkeypatch):
    """The command says that it waits, and the wait can be interrupted."""
    monkeypatch.setattr(distributed, "Client", EmptyCluster)
    plan = make_plan(journal=folder / "run.jsonl", model="gpt-5", on_changed="retry")

    async def enter():
        async with DaskRunner("tcp://127.0.0.1:1", timeout=1.0, max_retries=0) as runner:
            with anyio.move_on_after(0.5) as scope:
                await DaskRun(runner._client, [], plan, print).__aenter__()
        return scope.cancelled_caught, runner._client.cancelled

    assert (True, True) == anyio.run(enter)
    assert "no workers" in capsys.readouterr().err


def test_schedulers_that_end_at_once(folder, capsys, monkeypatch):
    """One that ends before it has named its workers is reported as one that is not there, and its client is closed."""
    closed = []

    class Client(EmptyCluster):
        def nthreads(self):
            raise OSError("Timed out trying to connect")

        def close(self):
            closed.append(self)

    monkeypatch.setattr(distributed, "Client", Client)
    (folder / "in.txt").write_text("Hi\n")
    status = run(("batch", "in.txt", "-o", "out.jsonl", "--dask", "tcp://127.0.0.1:1"))

    assert (1, 1) == (status, len(closed))
    assert "no scheduler at tcp://127.0.0.1:1: Timed out" in capsys.readouterr().err


def test_starts_that_end_while_they_are_cancelled():
    """The batch is left, so that its journal is free."""
    calls, cancelled = [], threading.Event()

    class Batch:
        def __enter__(self):
            cancelled.wait(60)

        def __exit__(self, *_):
            calls.append("left")

        def cancel_start(self):
            cancelled.set()

    async def enter():
        run_of_batch = DaskRun(None, [], make_plan(journal="run.jsonl", model="gpt-5", on_changed="retry"), print)
        run_of_batch._batch = Batch()
        with anyio.move_on_after(0.2):
            await run_of_batch.__aenter__()

    anyio.run(enter)
    assert ["left"] == calls
