"""The states of a batch at work: each transition of the diagram of `RunState`."""

from __future__ import annotations

import asyncio

import pytest
from transports import completed, prompt_of

from neuralbox_async import AuthenticationError, BudgetReachedError, ClientClosedError, InsufficientTokensError
from neuralbox_async._batch.runner import RunState
from neuralbox_async.testing import FakeResponse

pytestmark = pytest.mark.usefixtures("no_task_left")


def error_for(prompt, status_code, code):
    """Return a function that responds with an error to *prompt*, and with a generation to others."""
    response = FakeResponse(b'{"error": "%b"}' % code.encode(), status_code=status_code)
    return lambda request: response if prompt_of(request) == prompt else completed(request)


def state_of(batch):
    return batch._runner._state


def spy(batch):
    """Return a list that gets each state that *batch* enters."""
    states = [state_of(batch)]
    runner = batch._runner

    class Spied(type(runner)):
        def __setattr__(self, name, value):
            if name == "_state" and value is not states[-1]:
                states.append(value)
            super().__setattr__(name, value)

    runner.__class__ = Spied
    return states


NORMAL = [RunState.RUNNING, RunState.FINISHED]
DRAINED = [RunState.RUNNING, RunState.DRAINING, RunState.FINISHED]
STOPPED = [RunState.RUNNING, RunState.STOPPING, RunState.FINISHED]


@pytest.mark.parametrize(
    "respond, options, states, stopped_by",
    [
        (completed, {}, NORMAL, type(None)),
        (error_for("3", 400, "bad_request"), {}, NORMAL, type(None)),
        (error_for("3", 402, "insufficient_tokens"), {}, DRAINED, InsufficientTokensError),
        (
            lambda request: {"max_token_cost": 5} if "price" in request["path"] else completed(request, tokens_used=5),
            {"budget": 12},
            DRAINED,
            BudgetReachedError,
        ),
        (error_for("3", 401, "unauthorized"), {}, STOPPED, AuthenticationError),
    ],
)
async def test_states(make, respond, options, states, stopped_by):
    """A batch drains when there is no money, stops when each request would fail, and finishes with the last result."""
    client, _ = make(respond)
    async with client.generate_many(map(str, range(20)), model="m", max_concurrency=2, **options) as results:
        seen = spy(results)
        while await results.read_batch():
            pass

    assert (states, stopped_by) == (seen, type(results.report.stopped_by))


async def test_stop_while_draining(make, journal):
    """A batch that drains can be stopped; one that stops does not drain again."""
    client, _ = make(delay=lambda _request: 50)
    async with client.generate_many(map(str, range(9)), model="m", max_concurrency=2, journal=journal) as results:
        seen = spy(results)
        await asyncio.sleep(0)
        runner = results._runner
        runner._stop_sending(RunState.DRAINING, BudgetReachedError("none left", budget=1, spent=1, model="m"))
        runner.stop(ClientClosedError("closed"))
        runner._stop_sending(RunState.DRAINING, None)
        while await results.read_batch():
            pass

    assert [RunState.RUNNING, RunState.DRAINING, RunState.STOPPING, RunState.FINISHED] == seen
    assert BudgetReachedError is type(results.report.stopped_by)


async def test_stopping_a_finished_batch(make):
    """A batch that has finished stays finished."""
    client, _ = make()
    async with client.generate_many(["a"], model="m") as results:
        seen = spy(results)
        while await results.read_batch():
            pass
        results.stop()

    assert NORMAL == seen
