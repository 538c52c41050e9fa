"""The tree of errors: one base class, facts as attributes, picklable."""

from __future__ import annotations

import copy
import pickle

import pytest

import neuralbox_async
from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BatchStateError,
    BudgetReachedError,
    ClientClosedError,
    Generation,
    GenerationFailedError,
    InternalServerError,
    InvalidParameterError,
    JournalError,
    JournalLockedError,
    NeuralBoxError,
    OutcomeUnknownError,
    ParsingError,
    Problem,
    ProviderError,
    RateLimitError,
    RequestChangedError,
    ResponseError,
    StreamInterruptedError,
    StreamStateError,
    StreamTimeoutError,
    UnsupportedEventLoopError,
    WaitTimeoutError,
)

SO_FAR = Generation(id="gen_1", status="incomplete", content="Once upon")
EXAMPLES = [
    ParsingError("no value", generations=(Generation(content="x"),), problems=(Problem("$", "missing"),), elapsed=1.0),
    InvalidParameterError("temperature", 3, "a number from 0.0 to 2.0"),
    ClientClosedError("the client is closed"),
    UnsupportedEventLoopError("no loop"),
    APIConnectionError("refused"),
    APITimeoutError("timed out", phase="connect"),
    WaitTimeoutError("still pending", generation=Generation(id=7, status="pending")),
    *(
        error_type(
            "went wrong", status_code=499, code="a_code", headers={"x-request-id": "r1"}, body=b"{}", retry_after=3.0
        )
        for error_type in vars(neuralbox_async).values()
        if isinstance(error_type, type) and issubclass(error_type, APIStatusError)
    ),
    ResponseError("not JSON", path="$.id", body=b"<html>", status_code=200),
    GenerationFailedError("failed", reason="policy", generation=Generation(id=1, status="failed")),
    StreamInterruptedError("cut", generation=SO_FAR, reason="provider"),
    StreamTimeoutError("stalled", phase="stall", generation=SO_FAR),
    StreamStateError("closed"),
    BatchStateError("not entered"),
    BudgetReachedError("no more", budget=10, spent=9, model="gpt-5"),
    OutcomeUnknownError("in flight when it died", keys=("a", "b")),
    RequestChangedError("changed", keys=(1, "b")),
    JournalError("no journal", path="run.jsonl", line=3),
    JournalLockedError("in use", path="run.jsonl"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_pickles(error):
    """A pickled or copied error keeps its message and all of its facts."""
    error.attempts, error.elapsed, error.idempotency_key = 2, 1.5, "key"
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert (type(error), str(error), vars(error)) == (type(copied), str(copied), vars(copied))


def test_every_class_has_an_example():
    """Every public error class has an example here, and is a `NeuralBoxError`."""
    classes = {
        value for value in vars(neuralbox_async).values() if isinstance(value, type) and issubclass(value, Exception)
    }

    assert classes - {NeuralBoxError} == {type(error) for error in EXAMPLES}
    assert all(issubclass(error_type, NeuralBoxError) for error_type in classes)


@pytest.mark.parametrize(
    "error, request_sent, billed",
    [
        (InvalidParameterError("model", "", "a slug"), False, "no"),
        (APIConnectionError("refused"), False, "no"),
        (APIConnectionError("reset", request_sent=True), True, "unknown"),
        (APITimeoutError("late", request_sent=True), True, "unknown"),
        (RateLimitError("429", status_code=429), True, "no"),
        (InternalServerError("502", status_code=502), True, "unknown"),
        (ProviderError("500", status_code=500), True, "no"),
        (ResponseError("not JSON"), True, "unknown"),
        (GenerationFailedError("failed"), True, "no"),
        (BudgetReachedError("no more"), False, "no"),
        (OutcomeUnknownError("in flight when it died"), True, "unknown"),
        (RequestChangedError("changed"), False, "no"),
        (JournalError("no journal"), False, "no"),
        (StreamInterruptedError("cut", generation=SO_FAR), True, "unknown"),
        (StreamTimeoutError("stalled", generation=SO_FAR), True, "unknown"),
    ],
)
def test_billing(error, request_sent, billed):
    """Each error has whether the request was sent, and the billing status."""
    assert (request_sent, billed) == (error.request_sent, error.billed)


def test_builtin_base_classes():
    """A timeout is a `TimeoutError`, and an invalid parameter a `ValueError`."""
    assert isinstance(APITimeoutError("late"), TimeoutError)
    assert isinstance(StreamTimeoutError("late"), TimeoutError)
    assert isinstance(StreamTimeoutError("late"), StreamInterruptedError)
    assert isinstance(InvalidParameterError("a", 1, "2"), ValueError)


def test_interruption_keeps_the_text():
    """The error of an interrupted stream has the text so far, the id and the generation."""
    error = StreamTimeoutError("stalled", generation=SO_FAR)

    assert ("Once upon", "gen_1", SO_FAR, "stall") == (error.text, error.generation_id, error.generation, error.phase)


def test_values_are_shortened():
    """A message shows the beginning of a long value, escapes unprintable text, and shows no secret."""
    assert len(str(InvalidParameterError("model", "x" * 10_000, "short"))) < 200
    assert r"\ud800" in str(InvalidParameterError("messages", "\ud800", "text"))
    assert "secret" not in str(InvalidParameterError("api_key", "secret", "ASCII", show=False))
