"""`neuralbox_async.ray` on a cluster of Ray, in whose driver the tests run."""

from __future__ import annotations

import gc

import pytest
from documents import ROOT, blocks
from journals import entries

ray = pytest.importorskip("ray")
pytest.importorskip("ray.data")

from neuralbox_async import InvalidParameterError, JournalLockedError  # noqa: E402 - after the test for Ray
from neuralbox_async._cluster.service import CoordinatorService, ServiceOptions  # noqa: E402
from neuralbox_async.ray import RayBatch, RowGenerator, generate  # noqa: E402

# Ray's own processes, sockets and interfaces.
pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.filterwarnings("default")]

COLUMNS = ["key", "content", "tokens_used", "error_type", "message", "billed"]


@pytest.fixture(scope="module")
def driver(cluster):
    """Connect this process to the cluster."""
    ray.init(address=cluster.address, log_to_driver=False)
    yield
    gc.collect()
    ray.shutdown()


@pytest.fixture
def journal(tmp_path, driver, server):
    server.reset()
    yield tmp_path / "run.jsonl"
    gc.collect()


def items(count):
    return ray.data.from_items([{"id": f"k{i}", "text": f"t{i}"} for i in range(count)], override_num_blocks=4)


def test_datasets(journal, server, recwarn):
    """Each row gets its columns; what is executed again, or by another batch, is not paid for again."""
    dataset = generate(items(60), journal=journal, model="gpt-5", prompt="Say {text}", key="id", workers=2)
    rows = dataset.take_all()

    assert ["id", "text", *COLUMNS] == dataset.columns()
    assert {f"k{i}": f"You said: Say t{i}" for i in range(60)} == {row["id"]: row["content"] for row in rows}
    assert {(None, "yes", 3)} == {(row["error_type"], row["billed"], row["tokens_used"]) for row in rows}
    assert 60 == dataset.count()
    again = generate(items(60), journal=journal, model="gpt-5", prompt="Say {text}", key="id").take_all()
    assert sorted(row["content"] for row in rows) == sorted(row["content"] for row in again)
    assert 60 == len(server.billed) == len(entries(journal, "done"))
    assert [] == [str(one.message) for one in recwarn if "ray_remote_args" in str(one.message)]  # Ray 2.64 has neither


def test_bad_rows(journal, server):
    """A row that is no request is a row with an error."""
    dataset = ray.data.from_items([{"prompt": "x"}, {"prompt": ""}, {"prompt": "y"}])
    rows = generate(dataset, journal=journal, model="gpt-5").take_all()

    assert {"x": None, "": "InvalidParameterError", "y": None} == {row["prompt"]: row["error_type"] for row in rows}
    assert 2 == len(server.billed)


def test_typed_rows(journal, server):
    """Values of the output type are Python objects."""
    server.reply_with("1", "2")
    rows = generate(items(2), journal=journal, model="gpt-5", prompt="{text}", key="id", output_type=int).take_all()

    assert {1, 2} == {row["value"] for row in rows}


@pytest.mark.parametrize("batch_format", ["pyarrow", "pandas"])
def test_map_batches(journal, server, batch_format):
    """The callable class does the same in the user's own call, within one budget."""
    reports = []
    with RayBatch(
        journal=journal, model="gpt-5", prompt="{text}", key="id", budget=30, on_progress=reports.append
    ) as batch:
        dataset = items(20).map_batches(
            RowGenerator,
            fn_constructor_args=(batch.setup,),
            batch_format=batch_format,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_cpus=0.25,
        )
        rows = dataset.take_all()

    assert 10 == len([row for row in rows if row["content"]]) == len(server.billed)
    assert {None, "BudgetReachedError"} == {row["error_type"] for row in rows}
    # Not `completed`, which counts anew if, on a busy machine, the second worker starts long after the first has ended.
    assert (30, 0) == (batch.report.tokens_used, batch.report.in_flight)
    assert batch.report == reports[-1]


def test_journals_in_use(journal):
    """A journal that another coordinator uses is refused where `generate` is called."""
    other = CoordinatorService(ServiceOptions(journal=str(journal)))
    try:
        with pytest.raises(JournalLockedError):
            generate(items(1), journal=journal, model="gpt-5", prompt="{text}")
    finally:
        assert other.finish()


def test_keys_in_parameters(journal, server):
    """A key is refused, and not repeated; what travels has none."""
    with pytest.raises(InvalidParameterError) as caught:
        generate(items(1), journal=journal, model="gpt-5", api_key="nb_secret")
    assert "nb_secret" not in str(caught.value)
    with RayBatch(journal=journal, model="gpt-5") as batch:
        assert server.api_key.encode() not in ray.cloudpickle.dumps((batch.setup, batch._service))


def test_page(journal, server, monkeypatch):
    """The code of the page about Ray runs."""
    monkeypatch.chdir(journal.parent)
    pieces = [block.code for block in blocks(ROOT / "docs" / "how-to" / "ray.md", "python")]
    for piece in pieces:
        exec(compile(piece, "ray.md", "exec"), {"__name__": "__main__"})  # noqa: S102 - the pages are our own

    assert 2 == len(pieces)
    assert 40 == len(server.billed)
