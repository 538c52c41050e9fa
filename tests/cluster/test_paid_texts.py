"""Invalid texts of workers that lose their coordinator, or their claim, before the repair: they are paid for."""

from __future__ import annotations

import pytest
from cluster_processes import settings_of
from coordinators import Worker, forget

from neuralbox_async._cluster.messages import Decision, Wanted
from neuralbox_async._cluster.process_worker import run_rows
from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("quick_end")

ROW = {"n": "k0", "prompt": "p"}


class BreakingLink:
    """A link to *service* that breaks for good when *breaks_at* returns True for a message."""

    def __init__(self, service, breaks_at):
        self.service, self.breaks_at = service, breaks_at
        self.is_broken = False

    def exchange(self, message):
        self.is_broken = self.is_broken or self.breaks_at(message)
        if self.is_broken:
            raise ConnectionResetError
        return self.service.exchange(message)


def has_outcome(message, outcome):
    return any(one.outcome == outcome for one in message.settled)


def wants_repair(message):
    return any(one.kind == "repair" for one in message.wanted)


@pytest.fixture
def server(environment_of):
    with NeuralBoxServer() as server:
        environment_of(server)
        server.reply_with("no number", "5")
        yield server


def run(link, name):
    settings = settings_of(name, output_type=int, needs_prices=False, reconnect_timeout=0.3)
    (result,) = run_rows(settings, lambda: link, [ROW])
    return result


def check(result, server):
    """Check that *result* has the one text that *server* has billed."""
    (billed,) = server.billed
    assert ("no number", billed.tokens_used, "yes") == (result.content, result.tokens_used, result.billed)
    assert "ParsingError" == result.error_type


@pytest.mark.parametrize("outcome", ["invalid", "refused"])
def test_repairs_without_a_coordinator(make_service, server, outcome):
    """The text is the result of the row when its repair, or the repair after a 429, cannot be claimed."""

    def breaks_at(message):
        if has_outcome(message, "invalid"):
            server.fail(status=429, retry_after=0.05, times=1)
        return has_outcome(message, outcome)

    result = run(BreakingLink(make_service(lease=60.0), breaks_at), f"lost-{outcome}")
    check(result, server)
    assert "lost" in result.message or "refused" == outcome


def test_repairs_of_earlier_texts_without_a_coordinator(make_service, server):
    """So is a text of an earlier worker."""
    service = make_service(lease=60.0)
    settings = settings_of("before", output_type=int, max_repairs=0, needs_prices=False)
    (first,) = run_rows(settings, lambda: service, [ROW])
    check(first, server)
    check(run(BreakingLink(service, wants_repair), "after"), server)


def test_repairs_whose_lease_is_lost_with_the_coordinator(make_service, server, lease_lost_before_repair):
    """The row cannot be claimed anew; the text stays its result."""
    check(run(BreakingLink(make_service(lease=60.0), lambda _: len(lease_lost_before_repair) > 1), "lease"), server)


def test_repairs_whose_key_another_worker_gets_before_the_coordinator_is_lost(make_service, server):
    """The same after the answer that the key has been another worker's."""
    service = make_service(lease=60.0)
    other, repairs = Worker(service, "other"), []

    def breaks_at(message):
        if repairs:
            return True
        if wants_repair(message):
            (wanted,) = message.wanted
            repairs.append(wanted)
            forget(service, message.session)
            service_settles(message)
            for kind, decision in [("new", Decision.INVALID), ("repair", Decision.SEND)]:
                mine = Wanted(id=f"other-{kind}", key="k0", model="gpt-5", request_hash=wanted.request_hash, kind=kind)
                assert [decision] == [one.decision for one in other.exchange(wanted=(mine,)).grants]
            forget(service, "other")
        return False

    def service_settles(message):
        Worker(service, "late").exchange(settled=message.settled)

    result = run(BreakingLink(service, breaks_at), "other-worker")
    assert repairs
    check(result, server)
