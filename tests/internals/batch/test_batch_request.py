"""One request of a batch: its transitions, and the calls of the coordinator that each makes."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from neuralbox_async import (
    APIConnectionError,
    GenerateRequest,
    Generation,
    JournalError,
    ProviderError,
    RateLimitError,
)
from neuralbox_async._batch.batch_request import BatchRequest
from neuralbox_async._batch.coordinator import Claim, NotAdmittedError
from neuralbox_async._batch.key_status import KeyStatus, Unresolved
from neuralbox_async._batch.request_status import TRANSITIONS, RequestStatus
from neuralbox_async._batch.typed_items import TypedOutput
from neuralbox_async._call.executor import Call
from neuralbox_async._call.monitor import Monitor
from neuralbox_async._http.transport import HTTPRequest
from neuralbox_async._options import CallOptions
from neuralbox_async._wire.requests import Request

pytestmark = pytest.mark.usefixtures("no_task_left")

GENERATION = Generation(id="gen_1", status="completed", content="Hi", tokens_used=3)
PENDING = Generation(id="gen_1", status="pending")


class RecordingCoordinator:
    """A coordinator that records the names of its calls, and the cost of each outcome."""

    def __init__(self, journal_error=None, *, admits_repairs=False):
        self.calls = []
        self.admits_repairs = admits_repairs
        self.journal_error = journal_error

    def __getattr__(self, name):
        async def record(*_arguments, **_options):
            self.calls.append(name)
            if name == "admit_again" or (name == "admit_repair" and not self.admits_repairs):
                raise NotAdmittedError
            return self.journal_error if name in {"record_completed", "record_failed", "record_refused"} else None

        return record


def claimed(*, pending=False):
    """Return a request that is CLAIMED, of an earlier run if *pending*."""
    claim = Claim("key", "gpt-5")
    if pending:
        claim = Claim("key", "gpt-5", KeyStatus.PENDING, Unresolved("key", generation_id="gen_1", model="gpt-5"))
    request = GenerateRequest("gpt-5", "Hi")
    wire = Request(method="POST", path="/generate", body=b"{}", headers={"Idempotency-Key": "1"})
    return BatchRequest(0, claim, request, wire)


def typed(max_repairs=1):
    """Return an item whose values are integers."""
    return TypedOutput.of(int, max_repairs).item(GenerateRequest("gpt-5", "Hi"))


def call_of(batch_request, *, sent=True):
    """Give *batch_request* a call whose attempt has left this machine if *sent*."""
    batch_request._call = Call(batch_request.wire, CallOptions(), 0.0)
    batch_request._call.attempt = HTTPRequest("POST", "https://x/", {}, stage="sent" if sent else "connecting")
    return batch_request._call


async def send(batch_request, coordinator):
    await batch_request._send(coordinator)


async def accept(batch_request, coordinator):
    await batch_request._accept(call_of(batch_request), PENDING, coordinator)


async def refuse(batch_request, coordinator):
    await batch_request._refuse(RateLimitError("429", status_code=429), coordinator)


async def complete(batch_request, coordinator):
    assert 3 == (await batch_request._complete(GENERATION, coordinator)).tokens_used


async def fail(batch_request, coordinator):
    assert 0 == (await batch_request._fail(ProviderError("500", status_code=500), coordinator)).tokens_used


async def lose(batch_request, coordinator):
    result = await batch_request._fail(APIConnectionError("reset", request_sent=True), coordinator)
    assert result.tokens_used is None


async def reject(batch_request, coordinator):
    batch_request.typed = typed(max_repairs=0)
    result = await batch_request._complete_typed(batch_request.typed, GENERATION, coordinator)
    assert ("Hi", 3) == (result.error.text, result.tokens_used)


async def repair(batch_request, coordinator):
    batch_request.typed = typed()
    batch_request.typed.parse(GENERATION)
    coordinator.admits_repairs = True
    assert await batch_request._repair(batch_request.typed, coordinator) is None


async def withdraw(batch_request, coordinator):
    await batch_request._withdraw(coordinator)


METHODS = {
    RequestStatus.CLAIMED: repair,
    RequestStatus.INVALID: reject,
    RequestStatus.SENT: send,
    RequestStatus.ACCEPTED: accept,
    RequestStatus.REFUSED: refuse,
    RequestStatus.COMPLETED: complete,
    RequestStatus.FAILED: fail,
    RequestStatus.UNRESOLVED: lose,
    RequestStatus.WITHDRAWN: withdraw,
}
# The call of the coordinator that belongs to each new status: one, which updates the journal before the budget.
CALLS = {
    RequestStatus.CLAIMED: "admit_repair",
    RequestStatus.INVALID: "record_completed",
    RequestStatus.SENT: "record_sent",
    RequestStatus.ACCEPTED: "record_accepted",
    RequestStatus.REFUSED: "record_refused",
    RequestStatus.COMPLETED: "record_completed",
    RequestStatus.FAILED: "record_failed",
    RequestStatus.UNRESOLVED: "record_failed",
    RequestStatus.WITHDRAWN: "record_withdrawn",
}
ALLOWED = [(before, after) for before, afters in TRANSITIONS.items() for after in afters]
OTHERS = [pair for pair in itertools.product(RequestStatus, METHODS) if pair not in ALLOWED]


@pytest.mark.parametrize("before, after", ALLOWED)
async def test_allowed_transitions(before, after):
    """Each transition of the table happens through its method, which makes one call of the coordinator."""
    batch_request, coordinator = claimed(), RecordingCoordinator()
    batch_request.status = before

    await METHODS[after](batch_request, coordinator)

    assert (after, [CALLS[after]]) == (batch_request.status, coordinator.calls)


@pytest.mark.parametrize("before, after", OTHERS)
async def test_other_transitions(before, after):
    """Every other transition is refused, and changes nothing."""
    batch_request, coordinator = claimed(), RecordingCoordinator()
    batch_request.status = before

    with pytest.raises(AssertionError, match=f"{before.name} cannot become {after.name}"):
        await METHODS[after](batch_request, coordinator)

    # A repair is admitted before the request may be claimed for it.
    assert (before, ["admit_repair"] if after is RequestStatus.CLAIMED else []) == (
        batch_request.status,
        coordinator.calls,
    )


def test_final_states():
    """A request with an outcome keeps it."""
    final = set(RequestStatus) - set(TRANSITIONS)

    assert {"COMPLETED", "FAILED", "UNRESOLVED", "WITHDRAWN"} == {status.name for status in final}


async def test_a_pending_request_of_an_earlier_run():
    """A generation that an earlier run's journal has as pending is not recorded again."""
    batch_request, coordinator = claimed(pending=True), RecordingCoordinator()

    await accept(batch_request, coordinator)

    assert (RequestStatus.ACCEPTED, []) == (batch_request.status, coordinator.calls)


@pytest.mark.parametrize(
    "before, sent, after, calls, in_flight",
    [
        (RequestStatus.CLAIMED, False, RequestStatus.WITHDRAWN, ["record_withdrawn"], False),
        (RequestStatus.REFUSED, False, RequestStatus.WITHDRAWN, ["record_withdrawn"], False),
        (RequestStatus.SENT, False, RequestStatus.WITHDRAWN, ["record_failed"], True),
        (RequestStatus.SENT, True, RequestStatus.UNRESOLVED, ["record_unresolved"], True),
        (RequestStatus.ACCEPTED, True, RequestStatus.UNRESOLVED, ["record_unresolved"], True),
        (RequestStatus.COMPLETED, True, RequestStatus.COMPLETED, [], False),
        (RequestStatus.INVALID, True, RequestStatus.INVALID, [], False),
    ],
)
async def test_cancelling(before, sent, after, calls, in_flight):
    """A cancelled request is withdrawn if it has not left this machine, and unresolved if it may be billed."""
    batch_request, coordinator = claimed(), RecordingCoordinator()
    batch_request.status = before
    if before is not RequestStatus.CLAIMED:
        call_of(batch_request, sent=sent)

    await batch_request._cancel(coordinator)

    assert (after, calls, in_flight) == (batch_request.status, coordinator.calls, batch_request.cancelled_in_flight)


async def test_a_journal_that_cannot_be_written():
    """An outcome that the journal does not take stands, with the error of the journal."""
    error = JournalError("disk full", path="run.jsonl")
    batch_request = claimed()
    batch_request.status = RequestStatus.SENT

    result = await batch_request._complete(GENERATION, RecordingCoordinator(error))

    assert (GENERATION, error) == (result.generation, batch_request.journal_error)


# ---------------------------------------------------------------------------------------------------------------- runs


class ScriptedExecutor:
    """An executor whose calls end with *outcomes*, one after the other; ``...`` waits indefinitely."""

    monitor = Monitor()
    base_url = "http://127.0.0.1"

    def __init__(self, *outcomes):
        self.outcomes = iter(outcomes)

    async def execute(self, call, decode):
        call.attempts += 1
        call.attempt = HTTPRequest("POST", "https://x/", {}, stage="sent")
        outcome = next(self.outcomes)
        if outcome is ...:
            await asyncio.Event().wait()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


RATE_LIMITED = RateLimitError("429", status_code=429)
FINAL_REFUSAL = RateLimitError("429", status_code=429, headers={"x-should-retry": "false"})


@pytest.mark.parametrize(
    "outcomes, status, calls",
    [
        ([GENERATION], "COMPLETED", ["record_sent", "observe", "record_completed"]),
        ([ProviderError("500", status_code=500)], "FAILED", ["record_sent", "observe", "record_failed"]),
        ([FINAL_REFUSAL], "FAILED", ["record_sent", "observe", "record_failed"]),
    ],
)
async def test_runs(outcomes, status, calls):
    """A run records the start, learns the pace from the response, and records the outcome, in this order."""
    batch_request, coordinator = claimed(), RecordingCoordinator()

    result = await batch_request.run(ScriptedExecutor(*outcomes), CallOptions(), coordinator)

    assert (status, calls, 1) == (batch_request.status.name, coordinator.calls, result.attempts)


async def test_a_refusal_at_the_end_of_a_batch():
    """A refused request that may not be sent again is withdrawn."""
    batch_request, coordinator = claimed(), RecordingCoordinator()

    with pytest.raises(NotAdmittedError):
        await batch_request.run(ScriptedExecutor(RATE_LIMITED), CallOptions(), coordinator)

    assert "WITHDRAWN" == batch_request.status.name
    assert ["record_sent", "observe", "record_refused", "admit_again", "record_withdrawn"] == coordinator.calls
    assert not batch_request.cancelled_in_flight


async def test_a_run_that_is_cancelled():
    """A run that is cancelled in flight is recorded as unresolved before its task ends."""
    batch_request, coordinator = claimed(), RecordingCoordinator()
    run = asyncio.ensure_future(batch_request.run(ScriptedExecutor(...), CallOptions(), coordinator))
    await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert ("UNRESOLVED", True, True) == (
        batch_request.status.name,
        batch_request.cancelled_in_flight,
        batch_request.possibly_billed,
    )
    assert ["record_sent", "observe", "record_unresolved"] == coordinator.calls


def test_a_run_whose_loop_was_closed():
    """A run that is closed after the end of its loop records nothing: no coordinator can be reached."""
    batch_request, coordinator = claimed(), RecordingCoordinator()

    async def begin():
        coroutine = batch_request.run(ScriptedExecutor(...), CallOptions(), coordinator)
        coroutine.send(None)
        return coroutine

    asyncio.run(begin()).close()

    assert ["record_sent", "observe"] == coordinator.calls
