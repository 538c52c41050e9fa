"""`neuralbox_async.dask.generate` on a cluster in this process, with sockets between its parts."""

from __future__ import annotations

import pickle

import pytest
from journals import entries
from ledger import bills

distributed = pytest.importorskip("distributed")

from neuralbox_async import InvalidParameterError, JournalLockedError  # noqa: E402 - after the test for Dask
from neuralbox_async._batch.errors import BatchStateError  # noqa: E402
from neuralbox_async.dask import RowResult, generate  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def journal(tmp_path):
    return tmp_path / "run.jsonl"


@pytest.fixture
def batch_of(dask_client, server, journal):
    """Make a batch with a journal of its own."""
    server.reset()
    return lambda rows, **options: generate(dask_client, rows, journal=journal, model="gpt-5", **options)


def test_results_as_they_come(batch_of, server, journal):
    """All rows of an iterator have a result; a second run pays for nothing."""
    rows = [{"id": f"k{i}", "text": f"t{i}"} for i in range(60)]
    with batch_of(iter(rows), prompt="Say {text}", key="id", partition_size=7) as batch:
        results = list(batch)

    assert sorted((row["id"], f"You said: Say {row['text']}") for row in rows) == sorted(
        (result.key, result.content) for result in results
    )
    assert all(isinstance(result, RowResult) and result.row in rows for result in results)
    assert (60, None, 180) == (batch.report.completed, batch.report.stopped_by, batch.report.tokens_used)

    with batch_of(rows, prompt="Say {text}", key="id") as batch:
        assert [True] * 60 == [result.from_journal for result in batch]
    assert 60 == len(server.billed)
    assert 60 == len(entries(journal, "done"))


def test_clients_of_other_clusters(dask_client, server, journal):
    """The coordinator belongs to the client that is given, whichever one is the latest of this process."""
    server.reset()
    with distributed.Client(dask_client.scheduler.address, set_as_default=False) as client:
        with generate(client, ["a", "b"], journal=journal, model="gpt-5") as batch:
            assert 2 == len(list(batch))
            assert batch._coordinator._actor._client is client


def test_bags(batch_of):
    """A bag becomes a bag of dicts in the same order, whose partitions stay on the cluster."""
    import dask.bag

    rows = [{"prompt": f"p{i}", "n": i} for i in range(12)]
    with batch_of(dask.bag.from_sequence(rows, npartitions=3), key="n") as batch:
        bag = batch.to_bag()

    assert 3 == bag.npartitions
    dicts = bag.compute()
    assert rows == [{"prompt": one["prompt"], "n": one["n"]} for one in dicts]
    assert [f"You said: p{i}" for i in range(12)] == [one["content"] for one in dicts]
    assert {"prompt", "n", "key", "content", "tokens_used", "error_type", "message", "billed"} == dicts[0].keys()


def test_data_frames(batch_of):
    """A DataFrame gets columns, with its index, its types and its order."""
    pandas = pytest.importorskip("pandas")
    dataframe = pytest.importorskip("dask.dataframe")
    frame = pandas.DataFrame({"text": list("abcdef"), "number": range(6)}, index=[10, 11, 12, 13, 14, 15])
    with batch_of(dataframe.from_pandas(frame, npartitions=2), prompt="{text}", key="number") as batch:
        done = batch.to_dataframe()

    result = done.compute()
    assert [f"You said: {letter}" for letter in "abcdef"] == result["content"].tolist()
    assert frame.index.tolist() == result.index.tolist()
    assert frame["number"].tolist() == result["number"].tolist()
    assert [3] * 6 == result["tokens_used"].tolist()
    assert ["text", "number", "key", "content", "tokens_used", "error_type", "message", "billed"] == list(done.columns)


@pytest.mark.parametrize(
    "template, prompts",
    [("Say {text}", ["Say a"]), ("{stars:.0f}", ["5", "1"]), ("{at:%Y}", ["1970", "1971"]), (None, ["a"])],
)
def test_missing_values(batch_of, server, template, prompts):
    """A row of a DataFrame that lacks its prompt, or what the template names, has an error, and is not paid for."""
    pandas = pytest.importorskip("pandas")
    dataframe = pytest.importorskip("dask.dataframe")
    text = "prompt" if template is None else "text"
    times = [pandas.Timestamp("1970-01-01"), pandas.NaT, pandas.Timestamp("1971-01-01")]
    frame = pandas.DataFrame({text: ["a", None, pandas.NA], "stars": [5.0, None, 1.0], "at": times, "id": range(3)})
    with batch_of(dataframe.from_pandas(frame, npartitions=1), prompt=template, key="id") as batch:
        done = batch.to_dataframe().compute()

    assert dict.fromkeys(prompts, 1) == bills(server)
    failed = done[done["content"].isna()]
    assert 3 - len(prompts) == len(failed)
    assert {("InvalidParameterError", "no")} == set(zip(failed["error_type"], failed["billed"], strict=True))


def test_typed_rows(batch_of, server):
    """Results have values of the output type."""
    server.reply_with("1", "2")
    with batch_of(["a", "b"], output_type=int) as batch:
        assert {1, 2} == {result.value for result in batch}


def test_bad_rows(batch_of, server):
    """A row that is no request is a row with an error."""
    with batch_of([{"text": "x"}, {"other": "y"}], prompt="{text}") as batch:
        assert [None, "InvalidParameterError"] == [result.error_type for result in batch]
    assert 1 == len(server.billed)


def test_the_second_driver_is_refused(batch_of):
    """While a batch runs, its journal is in use; afterwards it is free."""
    with batch_of(["a"]):
        with pytest.raises(JournalLockedError):
            batch_of(["a"]).__enter__()
    with batch_of(["a"]) as batch:
        assert 1 == len(list(batch))


def test_leaving_early(batch_of, server, journal):
    """After leaving nothing more is sent, and what was on its way is in the journal."""
    with batch_of((f"p{i}" for i in range(100_000)), partition_size=5) as batch:
        next(batch)

    count = len(server.billed)
    assert count < 1000
    assert count == len(entries(journal, "done"))
    assert 0 == batch.report.in_flight
    assert batch.report.stopped_by is not None


def test_progress(batch_of):
    """The reports arrive while the batch runs."""
    reports = []
    with batch_of(["a", "b"], on_progress=reports.append) as batch:
        list(batch)

    assert 2 == reports[-1].completed


def test_errors_of_the_progress_function(batch_of):
    """An exception of the user's own function is raised where the results are read."""

    def on_progress(report):
        if report.workers:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        with batch_of((f"p{i}" for i in range(100_000)), on_progress=on_progress, partition_size=5) as batch:
            for _ in batch:
                pass


def test_one_way_to_the_results(batch_of):
    """A batch is entered before it is used, and read once."""
    with pytest.raises(BatchStateError):
        next(batch_of(["a"]))
    with batch_of(["a"]) as batch:
        list(batch)
        with pytest.raises(BatchStateError):
            batch.to_bag()
        with pytest.raises(BatchStateError):
            batch.to_dataframe()


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "nb_secret"},
        {"prompt": 5},
        {"key": 5},
        {"on_unknown": lambda _key: True},
        {"budget": 0},
        {"lease": 0.1},
        {"partition_size": 0},
        {"max_concurrency_per_worker": 0},
        {"journal": ""},
    ],
)
def test_wrong_options(dask_client, journal, options):
    """Options are checked before anything is started; a key is refused, and not repeated."""
    with pytest.raises(InvalidParameterError) as caught:
        generate(dask_client, ["a"], **{"journal": journal, "model": "gpt-5", **options})
    assert "nb_secret" not in str(caught.value)


def test_the_key_does_not_travel(batch_of, server):
    """What is sent to the workers has no key: it comes from their environment."""
    batch = batch_of(["a"])

    assert server.api_key.encode() not in pickle.dumps(batch._plan)


class _NoPeers(dict[str, object]):
    """The sessions of a coordinator whose process is gone."""

    def get(self, *_: object) -> object:
        raise ConnectionResetError("the worker is gone")


def test_lost_coordinators(batch_of, server, journal, dask_client):
    """A coordinator that is lost is replaced, and no result with it."""
    cluster = dask_client.cluster
    with batch_of((f"p{i}" for i in range(400)), partition_size=10) as batch:
        results = [next(batch)]
        first = batch._coordinator.address
        worker = next(worker for worker in cluster.workers.values() if worker.address == first)
        key = batch._coordinator._future.key
        service = worker.state.actors[key]._service
        with service._lock:  # as if its process had been killed: calls that run in it have no reply either
            service._peers = _NoPeers()
            service._journal.close()
            del worker.state.actors[key]
        results.extend(batch)
        service._closed = True  # so that its thread ends

    assert {None} == {result.error_type for result in results}
    assert 400 == len({result.content for result in results}) == len(server.billed)
    assert 400 == len(entries(journal, "done"))
    assert 2 == batch._coordinator._count
