"""The retry budget of an API key, as the Google SRE book recommends against retry storms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._retry import is_throttled

if TYPE_CHECKING:
    from neuralbox_async._errors import NeuralBoxError


class RetryBudget:
    """
    A bound on the retries of all calls with one API key, so that an outage does not cause a storm of retries.

    It begins with 500 units, which have nothing to do with NeuralBox tokens. A retry takes 14 (5 when the server
    throttles) and returns them when it succeeds; a call that succeeds at the first attempt adds 1, up to 500. When too
    few are left, the failure is raised without a retry.
    """

    CAPACITY = 500
    COST = 14
    THROTTLE_COST = 5

    def __init__(self) -> None:
        self._left = self.CAPACITY

    def take(self, error: NeuralBoxError) -> int | None:
        """Take the cost of a retry after *error* and return it, or return None when too little is left."""
        cost = self.THROTTLE_COST if is_throttled(error) else self.COST
        if cost > self._left:
            return None
        self._left -= cost
        return cost

    def give_back(self, cost: int) -> None:
        """Add *cost* to the budget: the cost of the last retry, or 1 after a success at the first attempt."""
        if self._left < self.CAPACITY:
            self._left = min(self.CAPACITY, self._left + cost)
