"""Names of earlier checkouts."""

from __future__ import annotations

import inspect

import pytest
from public_names import resolve

from neuralbox_async import InvalidParameterError, RetryPolicy


@pytest.mark.parametrize(
    "name",
    [
        "Billed",
        "Delivery",
        "UNSET",
        "UnprocessableRequestError",
        "Unset",
        "AsyncNeuralBox.forget_inherited",
        "AsyncNeuralBox.generate_many(check_balance)",
        "AsyncNeuralBox.generate_many(pace)",
        "AsyncStream.close",
        "AsyncStream.text",
        "AsyncStream.until_done",
        "neuralbox_sync.Stream.until_done",
        "BatchProgress.done",
        "BatchReport.tokens_in_all",
        "BatchResult.seconds",
        "BatchResult.tokens",
        "ClientClosedError.when",
        "APIStatusError.redact",
        "APIStatusError.status",
        "RetryPolicy.delay(idempotent)",
        "RetryPolicy.uniform",
    ],
)
def test_removed_names(name):
    """A name that was removed is gone."""
    with pytest.raises((AttributeError, KeyError)):
        resolve(name)


def test_removed_attributes():
    """An attribute that was renamed has its new name only."""
    error = InvalidParameterError("model", "", "a slug")

    assert ("''", False) == (error.value, hasattr(error, "shown"))
    assert "jitter" in inspect.signature(RetryPolicy).parameters
