"""The states of one request: its transitions, and the calls of the coordinator that each makes."""

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
from neuralbox_async._batch.coordinator import Claim, NotAdmittedError
from neuralbox_async._batch.key_status import KeyStatus, Unresolved
from neuralbox_async._batch.request_state import RequestState
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
            return self.journal_error if name in {"completed", "failed", "refused"} else None

        return record


def claimed(*, pending=False):
    """Return a request that is CLAIMED, of an earlier run if *pending*."""
    claim = Claim("key", "gpt-5")
    if pending:
        claim = Claim("key", "gpt-5", KeyStatus.PENDING, Unresolved("key", generation_id="gen_1", model="gpt-5"))
    request = GenerateRequest("gpt-5", "Hi")
    wire = Request(method="POST", path="/generate", body=b"{}", headers={"Idempotency-Key": "1"})
    return RequestState(0, claim, request, wire)


def typed(max_repairs=1):
    """Return an item whose values are integers."""
    return TypedOutput.of(int, max_repairs).item(GenerateRequest("gpt-5", "Hi"))


def call_of(state, *, sent=True):
    """Give *state* a call whose attempt has left this machine if *sent*."""
    state._call = Call(state.wire, CallOptions(), 0.0)
    state._call.attempt = HTTPRequest("POST", "https://x/", {}, stage="sent" if sent else "connecting")
    return state._call


async def send(state, coordinator):
    await state._send(coordinator)


async def accept(state, coordinator):
    await state._accept(call_of(state), PENDING, coordinator)


async def refuse(state, coordinator):
    await state._refuse(RateLimitError("429", status_code=429), coordinator)


async def complete(state, coordinator):
    assert 3 == (await state._complete(GENERATION, coordinator)).tokens_used


async def fail(state, coordinator):
    assert 0 == (await state._fail(ProviderError("500", status_code=500), coordinator)).tokens_used


async def lose(state, coordinator):
    result = await state._fail(APIConnectionError("reset", request_sent=True), coordinator)
    assert result.tokens_used is None


async def reject(state, coordinator):
    state.typed = typed(max_repairs=0)
    result = await state._complete_typed(state.typed, GENERATION, coordinator)
    assert ("Hi", 3) == (result.error.text, result.tokens_used)


async def repair(state, coordinator):
    state.typed = typed()
    state.typed.parse(GENERATION)
    coordinator.admits_repairs = True
    assert await state._repair(state.typed, coordinator) is None


async def withdraw(state, coordinator):
    await state._withdraw(coordinator)


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
# The call of the coordinator that belongs to each new state: one, which updates the journal before the budget.
CALLS = {
    RequestStatus.CLAIMED: "admit_repair",
    RequestStatus.INVALID: "completed",
    RequestStatus.SENT: "sent",
    RequestStatus.ACCEPTED: "accepted",
    RequestStatus.REFUSED: "refused",
    RequestStatus.COMPLETED: "completed",
    RequestStatus.FAILED: "failed",
    RequestStatus.UNRESOLVED: "failed",
    RequestStatus.WITHDRAWN: "withdrawn",
}
ALLOWED = [(before, after) for before, afters in TRANSITIONS.items() for after in afters]
OTHERS = [pair for pair in itertools.product(RequestStatus, METHODS) if pair not in ALLOWED]


@pytest.mark.parametrize("before, after", ALLOWED)
async def test_allowed_transitions(before, after):
    """Each transition of the table happens through its method, which makes one call of the coordinator."""
    state, coordinator = claimed(), RecordingCoordinator()
    state.status = before

    await METHODS[after](state, coordinator)

    assert (after, [CALLS[after]]) == (state.status, coordinator.calls)


@pytest.mark.parametrize("before, after", OTHERS)
async def test_other_transitions(before, after):
    """Every other transition is refused, and changes nothing."""
    state, coordinator = claimed(), RecordingCoordinator()
    state.status = before

    with pytest.raises(AssertionError, match=f"{before.name} cannot become {after.name}"):
        await METHODS[after](state, coordinator)

    # A repair is admitted before the request may be claimed for it.
    assert (before, ["admit_repair"] if after is RequestStatus.CLAIMED else []) == (state.status, coordinator.calls)


def test_final_states():
    """A request with an outcome keeps it."""
    final = set(RequestStatus) - set(TRANSITIONS)

    assert {"COMPLETED", "FAILED", "UNRESOLVED", "WITHDRAWN"} == {status.name for status in final}


async def test_a_pending_request_of_an_earlier_run():
    """A generation that an earlier run's journal has as pending is not recorded again."""
    state, coordinator = claimed(pending=True), RecordingCoordinator()

    await accept(state, coordinator)

    assert (RequestStatus.ACCEPTED, []) == (state.status, coordinator.calls)


@pytest.mark.parametrize(
    "before, sent, after, calls, in_flight",
    [
        (RequestStatus.CLAIMED, False, RequestStatus.WITHDRAWN, ["withdrawn"], False),
        (RequestStatus.REFUSED, False, RequestStatus.WITHDRAWN, ["withdrawn"], False),
        (RequestStatus.SENT, False, RequestStatus.WITHDRAWN, ["failed"], True),
        (RequestStatus.SENT, True, RequestStatus.UNRESOLVED, ["unresolved"], True),
        (RequestStatus.ACCEPTED, True, RequestStatus.UNRESOLVED, ["unresolved"], True),
        (RequestStatus.COMPLETED, True, RequestStatus.COMPLETED, [], False),
        (RequestStatus.INVALID, True, RequestStatus.INVALID, [], False),
    ],
)
async def test_cancelling(before, sent, after, calls, in_flight):
    """A cancelled request is withdrawn if it has not left this machine, and unresolved if it may be billed."""
    state, coordinator = claimed(), RecordingCoordinator()
    state.status = before
    if before is not RequestStatus.CLAIMED:
        call_of(state, sent=sent)

    await state._cancel(coordinator)

    assert (after, calls, in_flight) == (state.status, coordinator.calls, state.cancelled_in_flight)


async def test_a_journal_that_cannot_be_written():
    """An outcome that the journal does not take stands, with the error of the journal."""
    error = JournalError("disk full", path="run.jsonl")
    state = claimed()
    state.status = RequestStatus.SENT

    result = await state._complete(GENERATION, RecordingCoordinator(error))

    assert (GENERATION, error) == (result.generation, state.journal_error)


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
        ([GENERATION], "COMPLETED", ["sent", "observe", "completed"]),
        ([ProviderError("500", status_code=500)], "FAILED", ["sent", "observe", "failed"]),
        ([FINAL_REFUSAL], "FAILED", ["sent", "observe", "failed"]),
    ],
)
async def test_runs(outcomes, status, calls):
    """A run records the start, learns the pace from the response, and records the outcome, in this order."""
    state, coordinator = claimed(), RecordingCoordinator()

    result = await state.run(ScriptedExecutor(*outcomes), CallOptions(), coordinator)

    assert (status, calls, 1) == (state.status.name, coordinator.calls, result.attempts)


async def test_a_refusal_at_the_end_of_a_batch():
    """A refused request that may not be sent again is withdrawn."""
    state, coordinator = claimed(), RecordingCoordinator()

    with pytest.raises(NotAdmittedError):
        await state.run(ScriptedExecutor(RATE_LIMITED), CallOptions(), coordinator)

    assert "WITHDRAWN" == state.status.name
    assert ["sent", "observe", "refused", "admit_again", "withdrawn"] == coordinator.calls
    assert not state.cancelled_in_flight


async def test_a_run_that_is_cancelled():
    """A run that is cancelled in flight is recorded as unresolved before its task ends."""
    state, coordinator = claimed(), RecordingCoordinator()
    run = asyncio.ensure_future(state.run(ScriptedExecutor(...), CallOptions(), coordinator))
    await asyncio.sleep(0)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run

    assert ("UNRESOLVED", True, True) == (state.status.name, state.cancelled_in_flight, state.possibly_billed)
    assert ["sent", "observe", "unresolved"] == coordinator.calls


def test_a_run_whose_loop_was_closed():
    """A run that is closed after the end of its loop records nothing: no coordinator can be reached."""
    state, coordinator = claimed(), RecordingCoordinator()

    async def begin():
        coroutine = state.run(ScriptedExecutor(...), CallOptions(), coordinator)
        coroutine.send(None)
        return coroutine

    asyncio.run(begin()).close()

    assert ["sent", "observe"] == coordinator.calls
