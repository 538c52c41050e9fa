"""`neuralbox_async.ray` without Ray: what its actor, its workers and its driver do; tests/ray has real clusters."""

from __future__ import annotations

import gc
import math
import pickle
import sys
import threading
import types

import pytest
from coordinators import Worker, lose
from fake_ray import FakeDataset, FakeRay
from journals import entries, opened_and_closed

from neuralbox_async import InvalidParameterError, JournalLockedError
from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._cluster import process_worker
from neuralbox_async._cluster.messages import Decision, Exchange, Held, Wanted
from neuralbox_async._cluster.service import CoordinatorService, ServiceOptions
from neuralbox_async.ray import RayBatch, RowGenerator, _batch, _coordinator, generate

pyarrow = pytest.importorskip("pyarrow")
pandas = pytest.importorskip("pandas")

COLUMNS = ["key", "content", "tokens_used", "error_type", "message", "billed"]


@pytest.fixture(autouse=True)
def quick_end(monkeypatch):
    """End threads soon, and wait for that."""
    monkeypatch.setattr(process_worker, "_IDLE_TIMEOUT", 0.0)
    monkeypatch.setattr(_batch, "_REPORT_INTERVAL", 0.02)
    monkeypatch.setattr(_batch, "_LOCK_TIMEOUT", 0.1)
    monkeypatch.setattr(_coordinator, "_IDLE_TIMEOUT", 0.0)
    yield
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("neuralbox-"):
            thread.join(60)


@pytest.fixture
def ray(monkeypatch):
    fake = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setitem(sys.modules, "ray.data", types.SimpleNamespace(ActorPoolStrategy=lambda **options: options))
    return fake


@pytest.fixture
def journal(tmp_path, neuralbox_server, monkeypatch):
    monkeypatch.setenv("NEURALBOX_API_KEY", neuralbox_server.api_key)
    monkeypatch.setenv("NEURALBOX_BASE_URL", neuralbox_server.base_url)
    return tmp_path / "run.jsonl"


def table(count=5):
    return pyarrow.table({"id": [f"k{i}" for i in range(count)], "text": [f"t{i}" for i in range(count)]})


def options_of(journal, **changes):
    return {"journal": journal, "model": "gpt-5", "prompt": "Say {text}", "key": "id", **changes}


def has_ended(ray):
    return not ray.actors


def test_datasets(ray, journal, neuralbox_server):
    """A dataset has the columns of its results each time that it is executed, and is paid for once."""
    dataset = generate(FakeDataset(table()), **options_of(journal))
    first, second = dataset.execute(), dataset.execute()

    assert ["id", "text", *COLUMNS] == first.column_names
    assert [f"You said: Say t{i}" for i in range(5)] == first.column("content").to_pylist()
    assert first.equals(second)
    assert 5 == len(neuralbox_server.billed) == len(entries(journal, "done"))
    assert (2, 100) == (dataset.options["compute"]["size"], dataset.options["batch_size"])
    assert {"ray_remote_args_fn", "scheduling_strategy"}.isdisjoint(dataset.options)  # which Ray 2.64 does not have
    assert ({"node_id": "node", "soft": True}, 0) == (ray.options["scheduling_strategy"], ray.options["num_cpus"])
    assert ray.actors
    del dataset
    gc.collect()
    neuralbox_server.wait_until(lambda: has_ended(ray))


def test_journals_are_free_after_an_execution(ray, journal, neuralbox_server):
    """While nothing is executed, others may use the journal; the next execution opens it again."""
    dataset = generate(FakeDataset(table()), **options_of(journal))
    dataset.execute()
    (handle,) = ray.actors.values()
    neuralbox_server.wait_until(lambda: handle.actor._service is None)

    other = CoordinatorService(ServiceOptions(journal=str(journal)))
    assert {"JournalLockedError"} == set(dataset.execute().column("error_type").to_pylist())
    assert other.finish()
    assert {None} == set(dataset.execute().column("error_type").to_pylist())
    assert 5 == len(neuralbox_server.billed)


def test_typed_rows(ray, journal, neuralbox_server):
    """With an output type the result is a DataFrame, which has its values."""
    neuralbox_server.reply_with("1", "2")
    with RayBatch(**options_of(journal, output_type=int)) as batch:
        frame = RowGenerator(batch.setup)(table(2))

    assert {1, 2} == set(frame["value"])
    assert ["k0", "k1"] == list(frame["id"])


def test_data_frames(ray, journal):
    """pandas DataFrames get the same columns; other batches are refused."""
    with RayBatch(**options_of(journal)) as batch:
        generator = RowGenerator(batch.setup)
        assert ["id", "text", *COLUMNS] == list(generator(table().to_pandas()).columns)
        with pytest.raises(InvalidParameterError):
            generator({"id": ["k0"], "text": ["t0"]})
    assert (5, 0, None) == (batch.report.completed, batch.report.in_flight, batch.report.stopped_by)


def test_lost_actors(ray, journal, neuralbox_server):
    """An actor that is made again waits for the workers of the lost one, and keeps what is done."""
    with RayBatch(**options_of(journal)) as batch:
        (handle,) = ray.actors.values()
        RowGenerator(batch.setup)(table())
        lose_actor(handle)
        again = RowGenerator(batch.setup)(table())

    assert {None} == set(again.column("error_type").to_pylist())
    assert 5 == len(neuralbox_server.billed)


@pytest.fixture
def batch_with_a_claim(ray, journal):
    """A batch whose worker holds a claim of an actor that was lost, and that Ray has made again."""
    with RayBatch(**options_of(journal)) as batch:
        (handle,) = ray.actors.values()
        worker = Worker(handle.actor)
        assert [Decision.SEND] == worker.claim("a")
        lose_actor(handle)
        worker.service = handle.actor
        yield batch, worker


def lose_actor(handle):
    """Make the actor of *handle* again, as if its process had been killed."""
    lost = handle.actor
    with lost._lock:  # calls that run in it have no reply either
        if lost._service is not None:
            lose(lost._service)
        handle.restart()


def test_early_ends_after_a_restart(ray, journal, batch_with_a_claim, neuralbox_server):
    """A driver that leaves before the new actor has read the journal loses no text that a worker holds."""
    batch, worker = batch_with_a_claim
    leaving = threading.Thread(target=batch.__exit__, args=(None, None, None))
    leaving.start()
    neuralbox_server.wait_until(lambda: worker.service._service is not None)
    worker.settle("a", holding=(Held(key="a", model="m", idempotency_key="one-a", reserved=None, counted=True),))
    worker.exchange(left=True)
    worker.service._service._absent_until = 0.0
    leaving.join(60)

    assert not leaving.is_alive()
    assert has_ended(ray)
    assert ["a"] == [entry.key for entry in entries(journal, "done")]
    opened_and_closed(journal)


def test_journals_that_are_replaced_between_executions(ray, journal, neuralbox_server):
    """The next execution does not pay again because the journal of the first one is gone."""
    dataset = generate(FakeDataset(table()), **options_of(journal))
    dataset.execute()
    (handle,) = ray.actors.values()
    neuralbox_server.wait_until(lambda: handle.actor._service is None)
    journal.unlink()

    assert {"JournalError"} == set(dataset.execute().column("error_type").to_pylist())
    assert 5 == len(neuralbox_server.billed)


def test_actors_that_cannot_be_reached_at_the_end(ray, journal):
    """The driver tries again, and the actor ends with its lock."""
    with RayBatch(**options_of(journal)):
        (handle,) = ray.actors.values()
        handle.lost_calls = 5
    assert has_ended(ray)
    assert handle.lost_calls == 0


def test_idle_workers_keep_the_journal(ray, journal):
    """A worker that waits for rows keeps its session as long as Ray keeps its generator."""
    with RayBatch(**options_of(journal)) as batch:
        (handle,) = ray.actors.values()
        generator = RowGenerator(batch.setup)
        generator(table())
        (worker,) = process_worker._workers.values()
        assert worker._idle_timeout == math.inf
        assert handle.actor._service is not None
        del generator
        assert not worker._thread.is_alive()


def test_second_drivers(ray, journal):
    """A journal that is in use is refused, where `generate` is called, and no actor stays."""
    with RayBatch(**options_of(journal)) as batch:
        with pytest.raises(JournalLockedError):
            generate(FakeDataset(table()), **options_of(journal))
        with pytest.raises(BatchStateError):
            batch.__enter__()
        assert 1 == len(ray.actors)
    assert has_ended(ray)


def test_progress(ray, journal):
    """Reports arrive while the batch runs; an error of the user's function ends them, and nothing else."""
    reports = []

    def on_progress(report):
        reports.append(report)
        if report.completed:
            raise ZeroDivisionError

    with RayBatch(**options_of(journal), on_progress=on_progress) as batch:
        RowGenerator(batch.setup)(table())
    assert 5 == batch.report.completed
    assert reports[0].completed == 0


def test_lost_clusters(ray, journal):
    """A driver whose cluster has ended, or whose actor is lost for good, leaves without an error."""
    with RayBatch(**options_of(journal)) as batch:
        (handle,) = ray.actors.values()
        assert handle.actor.finish()
        ray.is_running = False
    ray.is_running = True
    ray.actors.clear()
    with RayBatch(**options_of(journal)) as batch:
        (handle,) = ray.actors.values()
        assert handle.actor.finish()
        ray.kill(handle)
    assert 0 == batch.report.completed


@pytest.mark.parametrize(
    "changes", [{"api_key": "nb_secret"}, {"workers": 0}, {"batch_size": 0}, {"on_progress": 5}, {"budget": 0}]
)
def test_wrong_options(ray, journal, changes):
    """Options are checked before anything is started; a key is refused, and not repeated."""
    with pytest.raises(InvalidParameterError) as caught:
        generate(FakeDataset(table()), **options_of(journal, **changes))
    assert "nb_secret" not in str(caught.value)
    assert has_ended(ray)


def test_other_values(ray, journal):
    """What is no dataset is refused; a batch has no report before it is entered."""
    with pytest.raises(InvalidParameterError):
        generate([1], **options_of(journal))
    with pytest.raises(BatchStateError):
        RayBatch(**options_of(journal)).report


def test_the_key_does_not_travel(ray, journal, neuralbox_server):
    """What workers and the actor get has no key."""
    with RayBatch(**options_of(journal)) as batch:
        sent = pickle.dumps((batch.setup, batch._service))
    assert neuralbox_server.api_key.encode() not in sent


def test_claims_in_flight_at_the_end(ray, journal, monkeypatch):
    """Leaving waits a while for what is in flight; what then has no outcome is unresolved in the journal."""
    monkeypatch.setattr(_batch, "_DRAIN_TIMEOUT", 0.3)
    with RayBatch(**options_of(journal)) as batch:
        (handle,) = ray.actors.values()
        handle.actor.exchange(Exchange(session="s", number=1, wanted=(Wanted(id="i", key="a", model="gpt-5"),)))
        lost = handle.actor
    assert 1 == batch.report.in_flight
    assert has_ended(ray)
    lost._service._claims.lose(lost._service._peers["s"].session)  # so that its thread ends
    assert lost.finish()
    assert ["start"] == [entry.event for entry in entries(journal)]


@pytest.mark.parametrize("is_lost", [False, True])
@pytest.mark.parametrize("node", [None, "of another cluster"])
def test_ray_is_shut_down_while_a_batch_ends(ray, journal, monkeypatch, is_lost, node):
    """A program that ends its connection to Ray meanwhile starts no cluster, and uses no other that it has by then."""
    real = ray.get

    def shut_down(future, timeout):
        report = real(future, timeout)
        ray.is_running, ray.node = node is not None, node
        if is_lost:
            raise ConnectionError
        return report

    with RayBatch(**options_of(journal)) as batch:
        monkeypatch.setattr(ray, "get", shut_down)
        batch._ended.set()
        batch._thread.join()

    assert (0, node is not None) == (ray.starts, ray.is_running)
    (handle,) = ray.actors.values()
    assert not handle.actor._has_ended
    assert handle.actor.finish(None)


def test_errors_of_ray(ray, journal, monkeypatch, neuralbox_server):
    """As long as the program is connected, an error of Ray is a report that failed, also at the end."""
    real, errors = ray.get_runtime_context, []

    def fail():
        if threading.current_thread() is not batch._thread or len(errors) >= limit:
            return real()
        errors.append(ConnectionError("of a RPC"))
        raise errors[-1]

    with RayBatch(**options_of(journal)) as batch:
        (handle,) = ray.actors.values()
        actor, limit = handle.actor, 5
        monkeypatch.setattr(ray, "get_runtime_context", fail)
        neuralbox_server.wait_until(lambda: len(errors) == limit or not batch._thread.is_alive())
        RowGenerator(batch.setup)(table())
        neuralbox_server.wait_until(lambda: batch.report.completed == 5 or not batch._thread.is_alive())
        limit = 8
    assert 8 == len(errors)
    assert has_ended(ray)
    assert actor._service is None


def test_ray_is_shut_down_while_it_is_asked(ray, journal, monkeypatch):
    """The batch ends at once, and starts no cluster."""

    def shut_down():
        ray.is_running = False
        raise AssertionError("Ray is not initialized")

    with RayBatch(**options_of(journal)) as batch:
        (handle,) = ray.actors.values()
        monkeypatch.setattr(ray, "get_runtime_context", shut_down)
        batch._thread.join(60)
        assert not batch._thread.is_alive()
    assert (0, False) == (ray.starts, ray.is_running)
    assert handle.actor.finish(None)


def test_actors_that_cannot_be_ended(ray, journal, monkeypatch):
    """An error of Ray at the very end is not one of the program."""

    def kill(_handle):
        raise ConnectionError

    with RayBatch(**options_of(journal)) as batch:
        monkeypatch.setattr(ray, "kill", kill)
    assert 0 == batch.report.completed
