"""The driver's view of a coordinator that was lost, without a cluster."""

from __future__ import annotations

import threading

import pytest

pytest.importorskip("distributed")

import distributed

from neuralbox_async import JournalError, JournalLockedError
from neuralbox_async.dask import _coordinator
from neuralbox_async.dask._coordinator import CoordinatorActor
from neuralbox_async.dask._tasks import ActorLink, CoordinatorPlugin


@pytest.mark.parametrize(
    "errors,comes_back,timeout,lost",
    [
        ([JournalLockedError("in use"), None], False, 60.0, None),  # the lost one ends in the meantime
        ([JournalLockedError("in use")], True, 60.0, None),  # it was only slow
        ([JournalLockedError("in use")], False, 0.0, JournalLockedError),
        ([JournalError("no disk")], False, 60.0, JournalError),
        ([OSError("no worker"), None], False, 60.0, None),
        ([OSError("no worker")], False, 0.0, OSError),
    ],
)
def test_replacements(monkeypatch, errors, comes_back, timeout, lost):
    """Another coordinator is started as long as that can succeed; then the batch gets the reason."""
    monkeypatch.setattr(_coordinator, "LOCK_TIMEOUT", timeout)
    monkeypatch.setattr(_coordinator, "_REPORT_INTERVAL", 0.01)
    reports, losses, starts = [], [], iter(errors)

    def start(*, restarted):
        assert restarted
        if (error := next(starts)) is not None:
            raise error

    def report():
        if not comes_back:
            raise TimeoutError
        return "report"

    actor = CoordinatorActor(None, None, None, reports.append, losses.append)
    monkeypatch.setattr(actor, "_start", start)
    monkeypatch.setattr(actor, "_report", report)

    assert (lost is None) == actor._restart()
    assert ([] if lost is None else [lost]) == [type(error) for error in losses]
    assert (["report"] if comes_back else []) == reports


def test_losses_for_good(monkeypatch):
    """The thread that watches the coordinator ends when there is none any more."""
    monkeypatch.setattr(_coordinator, "_REPORT_INTERVAL", 0.01)
    losses = []
    actor = CoordinatorActor(None, None, None, lambda _: None, losses.append)

    def start(**_):
        raise JournalError("no disk")

    monkeypatch.setattr(actor, "_start", start)  # and without an actor, each report fails
    watch = threading.Thread(target=actor._watch)
    watch.start()
    watch.join(60)

    assert [JournalError] == [type(error) for error in losses]


def test_stops_during_a_replacement(monkeypatch):
    """What is to be stopped while there is no coordinator is stopped when the next one has started."""
    calls = []

    class Actor:
        def __init__(self, name):
            self.name = name

        def stop(self):
            calls.append(self.name)

    actor = CoordinatorActor(None, None, None, lambda _: None, lambda _: None)
    actor._actor = Actor("lost")

    def start(*, restarted):
        assert restarted
        actor.stop_sending()
        actor._actor = Actor("new")

    monkeypatch.setattr(actor, "_start", start)

    assert actor._restart()
    assert ["lost", "new"] == calls


def test_calls_of_a_coordinator_that_has_ended(monkeypatch):
    """A worker that leaves late makes none: Dask would log an error for each."""
    calls = []

    class Actor:
        def __init__(self, *_):
            pass

        def exchange(self, message):
            calls.append(message)
            raise TimeoutError

    monkeypatch.setattr(distributed.actor, "Actor", Actor)
    plugin = CoordinatorPlugin("run", "tcp://127.0.0.1:1", "key")
    plugin.setup("worker")
    link = ActorLink("run")
    with pytest.raises(TimeoutError):
        link.exchange("message")
    plugin.teardown("worker")

    with pytest.raises(ConnectionError, match="lost"):
        link.exchange("another")
    with pytest.raises(ConnectionError):
        ActorLink("run")
    assert ["message"] == calls
