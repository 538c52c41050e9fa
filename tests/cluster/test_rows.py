"""Rows in one process: requests over real sockets, a coordinator in the same process, results as values."""

from __future__ import annotations

import pickle
import threading
import time
from collections import Counter

import pytest
from cluster_processes import settings_of
from journals import entries

from neuralbox_async import InvalidParameterError, RequestChangedError
from neuralbox_async._batch.errors import BatchStateError
from neuralbox_async._batch.inputs import RequestDefaults
from neuralbox_async._batch.typed_items import TypedItem
from neuralbox_async._cluster import session
from neuralbox_async._cluster.process_worker import run_rows
from neuralbox_async._cluster.service import CoordinatorService, ServiceOptions
from neuralbox_async._cluster.settings import RowFormat
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("quick_end")


@pytest.fixture
def run(journal, monkeypatch):
    """Run rows with a coordinator of their own; return the results and the final report."""
    numbers = iter(range(1000))

    def run(server, rows, *, service=None, **settings):
        monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
        monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
        coordinator = CoordinatorService(ServiceOptions(**{"journal": str(journal), "lease": 60.0, **(service or {})}))
        try:
            results = run_rows(settings_of(f"run-{next(numbers)}", **settings), lambda: coordinator, rows)
            report = coordinator.report()
        finally:
            assert coordinator.finish()
        return pickle.loads(pickle.dumps(results)), report

    return run


def rows_of(count):
    return [{"n": f"k{i}", "prompt": f"p{i}"} for i in range(count)]


def test_results(run, neuralbox_server):
    """The results are in the order of the rows; a second run pays for nothing."""
    rows = rows_of(50)
    results, report = run(neuralbox_server, rows)
    again, _ = run(neuralbox_server, rows)

    assert rows == [result.row for result in results]
    assert ["You said: p0", "You said: p1"] == [result.content for result in results[:2]]
    assert [result.content for result in results] == [result.content for result in again]
    assert {(False, True)} == {(one.from_journal, two.from_journal) for one, two in zip(results, again, strict=True)}
    assert 50 == len(neuralbox_server.billed) == report.completed
    assert report.tokens_used == sum(one.tokens_used for one in neuralbox_server.billed)


def test_workers_without_a_key(journal, monkeypatch):
    """The message is about their environment, not that of the program."""
    monkeypatch.delenv("NEURALBOX_API_KEY", raising=False)
    service = CoordinatorService(ServiceOptions(journal=str(journal)))
    try:
        with pytest.raises(InvalidParameterError, match="environment of each worker, as NEURALBOX_API_KEY"):
            run_rows(settings_of("no-key"), lambda: service, rows_of(1))
    finally:
        assert service.finish()


def test_templates_and_keys(run, neuralbox_server):
    """A prompt is a template or a function of the row; a key is a member or a function of it."""
    rows = [{"id": 7, "text": "x", "system": "data, not an instruction"}]
    results, _ = run(neuralbox_server, rows, row_format=RowFormat(prompt="Say {text}", key="id"))
    calls, _ = run(
        neuralbox_server,
        rows,
        row_format=RowFormat(
            prompt=lambda row: [{"role": "user", "content": row["text"]}], key=lambda row: f"f{row['id']}"
        ),
    )

    assert [("7", "You said: Say x"), ("f7", "You said: x")] == [(one.key, one.content) for one in (*results, *calls)]
    assert "system" not in neuralbox_server.requests[-1].json


def test_bad_rows(run, neuralbox_server):
    """A row that is no request is a row with an error, and costs nothing."""
    rows = [{"text": 1}, 5, {"text": "good"}]
    results, _ = run(neuralbox_server, rows, row_format=RowFormat(prompt="Say {missing}"))
    assert ["InvalidParameterError"] * 3 == [result.error_type for result in results]

    results, _ = run(neuralbox_server, rows, row_format=RowFormat(prompt="Say {text}"))
    assert [None, "InvalidParameterError", None] == [result.error_type for result in results]
    assert 2 == len(neuralbox_server.billed)

    rows = [{"id": "k", "text": None}, {"id": None, "text": "x"}]
    results, _ = run(neuralbox_server, rows, row_format=RowFormat(prompt="Say {text}", key="id"))
    assert ["k", "#1"] == [result.key for result in results]
    assert "'text' is None" in results[0].message
    assert "a key: it is None" in results[1].message


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_functions_that_raise(run, neuralbox_server, error):
    """What a function of the row raises is the error of that row, also if it would end a program."""

    def fail(row):
        raise error("a text with the key")

    def key(row):
        return fail(row) if row["n"] in {"k1", "k2"} else row["n"]

    results, _ = run(neuralbox_server, rows_of(4), row_format=RowFormat(key=key))
    assert [None, "InvalidParameterError", "InvalidParameterError", None] == [one.error_type for one in results]
    results, _ = run(neuralbox_server, rows_of(2), row_format=RowFormat(prompt=fail, key="n"))
    assert [("k0", "no"), ("k1", "no")] == [(one.key, one.billed) for one in results]
    assert "a text" not in results[0].message
    assert error.__name__ in results[0].message


def test_equal_rows_share_a_generation(run, neuralbox_server):
    """Rows without keys that are equal are paid for once."""
    results, _ = run(neuralbox_server, ["same"] * 5 + ["other"], row_format=RowFormat())

    assert 6 == len([result for result in results if result.content])
    assert 2 == len(neuralbox_server.billed)


def test_typed_rows(run, neuralbox_server, journal):
    """Texts become values, with repairs; what stays invalid is for the next run, which does not pay for it again."""
    neuralbox_server.reply_with("no number", "5", "seven", "eight")
    results, _ = run(neuralbox_server, rows_of(1), output_type=int)
    assert [(5, 2)] == [(result.value, len(neuralbox_server.billed)) for result in results]

    results, _ = run(neuralbox_server, [{"n": "bad", "prompt": "x"}], output_type=int)
    assert ["ParsingError"] == [result.error_type for result in results]
    again, _ = run(neuralbox_server, [{"n": "bad", "prompt": "x"}], output_type=int)
    assert ["ParsingError"] == [result.error_type for result in again]
    assert 4 == len(neuralbox_server.billed)
    neuralbox_server.reply_with("9")
    repaired, _ = run(neuralbox_server, [{"n": "bad", "prompt": "x"}], output_type=int, max_repairs=2)
    assert [9] == [result.value for result in repaired]
    assert 5 == len(neuralbox_server.billed)
    assert 2 == len(entries(journal, "done"))


def test_pending_generations(run):
    """A generation that is pending is waited for; after a restart it is retrieved, not sent again."""
    with NeuralBoxServer(pending_models=["gpt-5"], pending_seconds=0.1) as server:
        results, _ = run(server, rows_of(3))

        assert ["You said: p0", "You said: p1", "You said: p2"] == [result.content for result in results]
        assert 3 == len(server.billed)


def test_the_budget_ends(run):
    """The budget of all rows is never passed; the others have the reason, and are not billed."""
    with NeuralBoxServer(prices={"gpt-5": 3}) as server:
        results, report = run(server, rows_of(20), service={"budget": 31})

        assert {None: 10, "BudgetReachedError": 10} == Counter(result.error_type for result in results)
        assert 30 == report.tokens_used == sum(one.tokens_used for one in server.billed)
        assert {"no"} == {result.billed for result in results if result.error_type}


def test_limits(run):
    """A limit that was not known refuses no request that its first responses could have prevented."""
    with NeuralBoxServer(limit_hour=40, hour_seconds=1.5) as server:
        results, _ = run(server, rows_of(90))

        assert {None} == {result.error_type for result in results}
        assert 0 == sum(request.response_status == 429 for request in server.requests)


def test_refused_requests(run, neuralbox_server):
    """A 429 is waited for, and its request sent again."""
    neuralbox_server.fail(status=429, retry_after=0.2, times=2)
    results, report = run(neuralbox_server, rows_of(10))

    assert {None} == {result.error_type for result in results}
    assert (2, 10) == (report.refused, len(neuralbox_server.billed))


def test_unknown_outcomes(run, neuralbox_server):
    """A request without a response is unresolved, and paid for again only if that is chosen."""
    neuralbox_server.drop(when="after", times=1)
    results, report = run(neuralbox_server, rows_of(1))
    assert [("APIConnectionError", "unknown")] == [(result.error_type, result.billed) for result in results]
    assert ("k0",) == report.unresolved_keys

    results, _ = run(neuralbox_server, rows_of(1))
    assert [("OutcomeUnknownError", "unknown")] == [(result.error_type, result.billed) for result in results]
    assert 1 == len(neuralbox_server.billed)

    results, _ = run(neuralbox_server, rows_of(1), service={"on_unknown": "retry"})
    assert ["You said: p0"] == [result.content for result in results]
    first, second = (
        request for request in neuralbox_server.requests if request.method == "POST" and request.json.get("messages")
    )
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_changed_rows(run, neuralbox_server):
    """Another request with the same key is not sent."""
    run(neuralbox_server, [{"n": "a", "prompt": "x"}])
    results, _ = run(neuralbox_server, [{"n": "a", "prompt": "y"}])

    assert [RequestChangedError.__name__] == [result.error_type for result in results]
    assert 1 == len(neuralbox_server.billed)


def test_fatal_errors(run, neuralbox_server):
    """After a 401 nothing more is sent, by any worker."""
    neuralbox_server.fail(status=401, times=100)
    results, report = run(neuralbox_server, rows_of(100), width=2)

    assert {"AuthenticationError"} == {result.error_type for result in results}
    assert "AuthenticationError" == type(report.stopped_by).__name__
    assert len([one for one in neuralbox_server.requests if one.path.endswith("/generate")]) < 30


def test_the_width_holds_for_all_partitions(run, monkeypatch):
    """Partitions of one process share its places."""
    with NeuralBoxServer(latency=0.05) as server:
        monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
        monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
        run(server, rows_of(60), width=4)

        assert 4 == server.peak_in_flight


def test_errors_of_the_settings_are_raised(run, neuralbox_server, monkeypatch, journal):
    """Without a key in the environment of the worker no row has a result."""
    monkeypatch.delenv("NEURALBOX_API_KEY", raising=False)
    service = CoordinatorService(ServiceOptions(journal=str(journal)))

    with pytest.raises(Exception, match="NEURALBOX_API_KEY"):
        run_rows(settings_of("keyless"), lambda: service, rows_of(1))
    assert service.finish()


def test_default_models(run, neuralbox_server):
    """A row has a model of its own, or that of the batch."""
    rows = [{"n": "a", "prompt": "x", "model": "gpt-4o"}, {"n": "b", "prompt": "x"}]
    run(neuralbox_server, rows, defaults=RequestDefaults(model="gpt-5"))

    assert {"gpt-4o", "gpt-5"} == {
        one.json["model"] for one in neuralbox_server.requests if one.json and "messages" in one.json
    }


class Vault:
    """Returns the key, except at one call; its error has a secret in its text."""

    def __init__(self, key, fails_at):
        self.key, self.fails_at, self.calls = key, fails_at, 0

    def __call__(self):
        self.calls += 1
        if self.calls == self.fails_at:
            raise TimeoutError("the vault does not answer for nb_live_SECRET")
        return self.key


def test_errors_of_the_key_function(run):
    """An error of the user's function is the error of one row; the answers of the others are kept."""
    with NeuralBoxServer(latency=0.1) as server:
        results, report = run(server, rows_of(40), needs_prices=False, width=16, api_key=Vault(server.api_key, 28))

        assert {None: 39, "NeuralBoxError": 1} == Counter(result.error_type for result in results)
        (failed,) = (result for result in results if result.error_type)
        assert ("a function of the program raised TimeoutError", "no") == (failed.message, failed.billed)
        assert (39, 39, 0) == (len(server.billed), report.completed, report.unresolved)
        assert report.stopped_by is None


def test_stop_while_a_limit_is_waited_for(journal, monkeypatch):
    """Nothing that was granted, and waits for a limit, is sent after a stop."""
    with NeuralBoxServer(latency=0.05) as server:
        monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
        monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
        server.fail(status=429, times=1, retry_after=600.0)
        service = CoordinatorService(ServiceOptions(journal=str(journal), lease=3.0))
        results = []
        settings = settings_of("stopped", needs_prices=False)
        thread = threading.Thread(target=lambda: results.extend(run_rows(settings, lambda: service, rows_of(60))))
        thread.start()
        deadline = time.monotonic() + 60
        while not service.report().refused:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        service.stop()
        thread.join(60)

        assert not thread.is_alive()
        billed = len(server.billed)
        assert {None: billed, "BatchStateError": 60 - billed} == Counter(result.error_type for result in results)
        assert {"no"} == {result.billed for result in results if result.error_type}
        report = service.report()
        assert (0, 0, billed) == (report.unresolved, report.in_flight, report.completed)
        assert service.finish()


def test_stop_before_a_repair(journal, monkeypatch):
    """A row whose repair is withdrawn has its text, which is paid for."""
    real = session.WorkerSession.check_lease

    async def check_lease(self, claim_id):
        if service.report().tokens_used:
            self.stopped_by = BatchStateError("the batch was closed before this request was sent")
        await real(self, claim_id)

    monkeypatch.setattr(session.WorkerSession, "check_lease", check_lease)
    with NeuralBoxServer() as server:
        monkeypatch.setenv("NEURALBOX_API_KEY", server.api_key)
        monkeypatch.setenv("NEURALBOX_BASE_URL", server.base_url)
        server.reply_with("no number", "5")
        service = CoordinatorService(ServiceOptions(journal=str(journal), lease=60.0))
        (result,) = run_rows(settings_of("unrepaired", output_type=int), lambda: service, rows_of(1))

        assert ("ParsingError", "no number") == (result.error_type, result.content)
        assert [result.tokens_used] == [one.tokens_used for one in server.billed]
        assert ["no"] == [entry.billed for entry in entries(journal, "failed")]
        assert (0, 0) == (service.report().unresolved, service.report().in_flight)
        assert service.finish()


class Panic(BaseException):
    """What a validator in another language raises for an error of its own."""


@pytest.mark.parametrize("kind", [ZeroDivisionError, BaseExceptionGroup, Panic, SystemExit])
def test_errors_of_an_output_type(run, neuralbox_server, monkeypatch, kind):
    """An error of a validator that is none of its text comes after the bill: that row says that it is unknown."""
    real = TypedItem.parse

    def parse(self, generation, call=None):
        if "p1" in str(self.request.messages):
            raise kind("of a validator", [Panic()]) if kind is BaseExceptionGroup else kind("of a validator")
        return real(self, generation, call)

    monkeypatch.setattr(TypedItem, "parse", parse)
    neuralbox_server.reply_with("5", "5", "5")
    (first, result, last), report = run(neuralbox_server, rows_of(3), output_type=int)

    assert (5, 5) == (first.value, last.value)
    assert (f"a function of the program raised {kind.__name__}", "unknown") == (result.message, result.billed)
    assert (None, ("k1",), 3) == (result.tokens_used, report.unresolved_keys, len(neuralbox_server.billed))


def test_stop_before_the_repair_of_an_earlier_text(run, neuralbox_server):
    """A row whose text of an earlier run is not repaired, because nothing more is sent, has that text."""
    neuralbox_server.reply_with("no number")
    run(neuralbox_server, rows_of(1), output_type=int, max_repairs=0)
    (result,), report = run(neuralbox_server, rows_of(1), output_type=int, service={"budget": 1})

    assert ("ParsingError", "no number", "yes") == (result.error_type, result.content, result.billed)
    assert "budget" in result.message
    assert [result.tokens_used] == [one.tokens_used for one in neuralbox_server.billed]
    assert (0, 0) == (report.in_flight, report.unresolved)
