"""Workers that come back after their lease, whose key another one has had meanwhile."""

from __future__ import annotations

import threading

import pytest
from cluster_processes import settings_of
from coordinators import Worker, forget
from journals import entries

from neuralbox_async._cluster.messages import Decision, Exchange, Held, Wanted
from neuralbox_async._cluster.process_worker import run_rows
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("quick_end")


def held(key, idempotency_key):
    return Held(key=key, model="m", idempotency_key=idempotency_key, reserved=None, counted=True)


def after_a_lost_invalid_text(make_service):
    """Return two workers: the first was lost after an invalid text of a key, which the second has claimed."""
    service = make_service()
    one, two = Worker(service), Worker(service, "two")
    one.claim("a")
    one.settle("a", "invalid")
    forget(service, "one")
    two.claim("a")
    return one, two


@pytest.mark.parametrize("ends, decision", [("done", Decision.DONE), ("lost", Decision.UNRESOLVED)])
def test_repairs_of_keys_that_another_one_repaired(make_service, journal, ends, decision):
    """A repair starts only if the last text is invalid still: what another worker did, or may have done, is final."""
    one, two = after_a_lost_invalid_text(make_service)
    two.exchange(wanted=(Wanted(id="two-repair", key="a", model="m", kind="repair"),))
    if ends == "done":
        two.settle("a", idempotency_key="two-repair")
    else:
        forget(two.service, "two")

    reply = one.exchange(
        holding=(held("a", "one-a"),), wanted=(Wanted(id="one-repair", key="a", model="m", kind="repair"),)
    )

    assert ("a",) == reply.revoked
    assert [decision] == [grant.decision for grant in reply.grants]
    assert ["one-a", "two-repair"] == [entry.idempotency_key for entry in entries(journal, "start")]


def test_repairs_of_a_worker_that_comes_back_first(make_service):
    """Nobody had the key meanwhile: the repair starts."""
    service = make_service()
    one = Worker(service)
    one.claim("a")
    one.settle("a", "invalid")
    forget(service, "one")

    reply = one.exchange(
        holding=(held("a", "one-a"),), wanted=(Wanted(id="one-repair", key="a", model="m", kind="repair"),)
    )

    assert () == reply.revoked
    assert [Decision.SEND] == [grant.decision for grant in reply.grants]


def test_repairs_of_keys_that_another_one_repaired_in_vain(make_service, journal):
    """A repair of the other one counts: the row gets all invalid texts, and asks for no more than are allowed."""
    one, two = after_a_lost_invalid_text(make_service)
    repairs = {
        name: Wanted(id=f"{name}-repair", key="a", model="m", kind="repair", previous=f"{name}-a")
        for name in ("one", "two")
    }
    two.exchange(wanted=(repairs["two"],))
    reply = one.exchange(holding=(held("a", "one-a"),), wanted=(repairs["one"],))
    assert (("a",), {"one-repair"}) == (reply.revoked, reply.busy)
    two.settle("a", "invalid", idempotency_key="two-repair")
    two.exchange(left=True)

    (grant,) = one.exchange(wanted=(repairs["one"],)).grants
    assert (Decision.INVALID, 2) == (grant.decision, len(grant.lines))
    assert ["one-a", "two-repair"] == [entry.idempotency_key for entry in entries(journal, "start")]
    assert [Decision.SEND] == one.claim("a", kind="repair")


class CutLink:
    """The link of a worker whose network is cut as soon as an exchange *is_last*, after it was delivered."""

    def __init__(self, service, is_last):
        self.service, self.is_last = service, is_last
        self.cut, self.mended = threading.Event(), threading.Event()

    def exchange(self, message):
        if not self.cut.is_set() and self.is_last(message):
            self.service.exchange(Exchange(session=message.session, number=message.number, settled=message.settled))
            self.cut.set()
        if self.cut.is_set() and not self.mended.is_set():
            raise ConnectionResetError
        return self.service.exchange(message)


def test_rows_of_a_worker_that_comes_back(make_service, environment_of):
    """Its row has the value that the other one repaired, and nothing is sent twice."""
    rows, results = [{"n": "k", "prompt": "x"}], []
    with NeuralBoxServer() as server:
        environment_of(server)
        server.reply_with("no number", "1", "2", "3")
        service = make_service(lease=60.0)
        link = CutLink(service, lambda message: any(one.outcome == "invalid" for one in message.settled))
        settings = settings_of("cut", output_type=int, needs_prices=False)
        thread = threading.Thread(target=lambda: results.extend(run_rows(settings, lambda: link, rows)))
        thread.start()
        assert link.cut.wait(60)
        forget(service, *service._peers)
        (other,) = run_rows(settings_of("other", output_type=int, needs_prices=False), lambda: service, rows)
        link.mended.set()
        thread.join(60)

        assert [(1, None), (1, None)] == [(one.value, one.error_type) for one in (other, *results)]
        assert 2 == len(server.billed)


def test_claims_of_refused_requests_that_another_one_has_done(make_service, environment_of):
    """After a 429 and a lost lease the row has the generation of the other one."""
    rows, results = [{"n": "k", "prompt": "x"}], []
    with NeuralBoxServer() as server:
        environment_of(server)
        server.fail(status=429, times=1, retry_after=0.1)
        service = make_service(lease=60.0)
        link = CutLink(service, lambda message: any(one.outcome == "refused" for one in message.settled))
        settings = settings_of("cut-again", needs_prices=False)
        thread = threading.Thread(target=lambda: results.extend(run_rows(settings, lambda: link, rows)))
        thread.start()
        assert link.cut.wait(60)
        forget(service, *service._peers)
        run_rows(settings_of("other-again", needs_prices=False), lambda: service, rows)
        link.mended.set()
        thread.join(60)

        assert [("You said: x", None)] == [(one.content, one.error_type) for one in results]
        assert 1 == len(server.billed)


@pytest.mark.usefixtures("lease_lost_before_repair")
def test_a_lease_that_is_lost_before_a_repair(make_service, environment_of):
    """The row is claimed anew, and the batch goes on."""
    with NeuralBoxServer() as server:
        environment_of(server)
        server.reply_with("no number", "1", "2")
        service = make_service(lease=60.0)
        rows = [{"n": "a", "prompt": "x"}, {"n": "b", "prompt": "y"}]
        settings = settings_of("repair", output_type=int, needs_prices=False, width=1)
        results = [run_rows(settings, lambda: service, [row])[0] for row in rows]

        assert [(1, None), (2, None)] == [(one.value, one.error_type) for one in results]
        assert service.report().stopped_by is None
