"""The retry budget of an API key: a token bucket, as the Google SRE book recommends against retry storms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._retry import is_throttled

if TYPE_CHECKING:
    from neuralbox_async._errors import NeuralBoxError


class RetryBudget:
    """
    A token bucket for all calls with one API key, so that an outage does not cause a storm of retries.

    It holds 500 tokens. A retry takes 14 (5 when the server throttles) and returns them when it succeeds; a call that
    succeeds at once adds 1. When too few are left, the failure is raised at once.
    """

    CAPACITY = 500
    COST = 14
    THROTTLE_COST = 5

    def __init__(self) -> None:
        self._tokens = self.CAPACITY

    def take(self, error: NeuralBoxError) -> int | None:
        """Take the cost of a retry after *error* and return it, or return None when too few tokens are left."""
        cost = self.THROTTLE_COST if is_throttled(error) else self.COST
        if cost > self._tokens:
            return None
        self._tokens -= cost
        return cost

    def give_back(self, cost: int) -> None:
        """Return *cost* tokens to the bucket: the cost of the last retry, or 1 after a success at once."""
        if self._tokens < self.CAPACITY:
            self._tokens = min(self.CAPACITY, self._tokens + cost)
