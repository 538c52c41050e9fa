"""
How many tokens a batch may spend: each request reserves its price before it is sent, so that the limit is never passed.

A value without I/O. The price of a model is quoted to it, or learned from the first bill.
"""

from __future__ import annotations

from collections import Counter

import attrs

from neuralbox_async._batch.errors import BudgetReachedError


@attrs.define(eq=False)
class Budget:
    """
    The NeuralBox tokens that all runs of a batch have spent of *limit*, and those that are reserved.

    *spent*: as the API reported; *spent_before*: the part of earlier runs. This run alone spends at most *balance*.
    None: no limit.
    """

    limit: int | None = None
    balance: int | None = None
    spent_before: int = 0
    limited: bool = attrs.field(init=False)  # whether there is any limit
    spent: int = attrs.field(init=False)
    _unresolved: int = 0  # the price of requests that may have been billed without a response
    _unresolved_before: int = 0
    _unpriced: Counter[str] = attrs.field(
        factory=Counter[str]
    )  # such requests of earlier runs without a price, by model
    _prices: dict[str, int] = attrs.field(factory=dict[str, int])
    _reserved: Counter[str] = attrs.field(factory=Counter[str])
    _pending_before: int = 0  # requests of earlier runs whose outcome is being retrieved
    _learning: str | None = None  # the model whose first request runs alone, to learn its price

    def __attrs_post_init__(self) -> None:
        self.spent = self.spent_before
        self.limited = self.limit is not None or self.balance is not None

    @property
    def tightest(self) -> tuple[str, int, int, int]:
        """The nearest limit: its name, its tokens, how many of them are used, and how many of these possibly billed."""
        limits: list[tuple[str, int, int, int]] = []
        if self.limit is not None:
            limits.append(("budget", self.limit, self.spent + self.possibly_billed, self.possibly_billed))
        if self.balance is not None:
            used = self.spent - self.spent_before + self._unresolved
            limits.append(("balance", self.balance, used, self._unresolved))
        return min(limits, key=lambda limit: limit[1] - limit[2])

    def reached_error(self, model: str) -> BudgetReachedError:
        """Return the error when the nearest limit does not cover another generation of *model*."""
        name, limit, used, possibly_billed = self.tightest
        message = f"the {name} of {limit} tokens does not cover another generation of {model}: {used} are spent"
        if possibly_billed:
            message += f", counting {possibly_billed} that may have been billed without a response"
        return BudgetReachedError(message, budget=limit, spent=used, model=model)

    @property
    def possibly_billed(self) -> int:
        """The price of the requests, of all runs, that may have been billed without a response."""
        highest = max(self._prices.values(), default=0) if self._unpriced else 0
        unpriced = sum(self._prices.get(model, highest) * count for model, count in self._unpriced.items())
        return self._unresolved + self._unresolved_before + unpriced

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The models for which earlier runs may have been billed at an unknown price."""
        return tuple(model for model in self._unpriced if model) if self._unpriced else ()

    def quote(self, model: str, price: int) -> None:
        """Record that a generation of *model* costs at most *price*."""
        self._prices[model] = max(price, self._prices.get(model, 0))

    def price(self, model: str) -> int | None:
        """Return the most that a generation of *model* costs, as far as it is known."""
        return self._prices.get(model)

    @property
    def left(self) -> int:
        """The tokens that are neither spent nor reserved; 0 while a price is being learned, or without a limit."""
        return 0 if self._learning is not None else self._left_without(None)

    @property
    def holding(self) -> bool:
        """Whether tokens are reserved, or may become free, so that waiting can help."""
        return self._reserved.total() > 0 or self._pending_before > 0

    def reserve(self, model: str) -> bool:
        """Reserve the price of a generation of *model* if it is left; all that is left while the price is unknown."""
        if not self.limited:
            return True
        if self._learning is not None or self.left < self._prices.get(model, 1):
            return False
        if model not in self._prices:
            self._learning = model
        self._reserved[model] += 1
        return True

    def settle(self, model: str, tokens: int | None) -> None:
        """Release one reservation: *tokens* were billed, None when that is unknown."""
        price = known = self._prices.get(model, 0)
        if self.limited:
            if self._learning == model:
                price = self._left_without(model)
                self._learning = None
            self._reserved[model] -= 1
        if tokens is None:
            self._unresolved += price
        elif tokens > known:
            self._spend(model, tokens)
        else:
            self.spent += tokens

    def add_unresolved(self, model: str, reserved: int | None) -> None:
        """Record that an earlier run may have been billed for *model*; it had *reserved* so many tokens."""
        if reserved is None:
            self._unpriced[model] += 1
        else:
            self._unresolved_before += reserved

    def begin_retrieval(self) -> None:
        """Record that an outcome of an earlier run is being retrieved, until `resolve`."""
        self._pending_before += 1

    def resolve(self, model: str, reserved: int | None, tokens: int | None) -> None:
        """Settle a request of `add_unresolved`: *tokens* were billed; None when that is still unknown."""
        self._pending_before -= 1
        if tokens is None:
            return
        if reserved is None:
            self._unpriced[model] -= 1
        else:
            self._unresolved_before -= reserved
        self._spend(model, tokens)

    def _spend(self, model: str, tokens: int) -> None:
        self.spent += tokens
        if tokens:
            self.quote(model, tokens)

    def _left_without(self, learning: str | None) -> int:
        """Return the tokens that are left, not counting the reservation of the model that is *learning* its price."""
        if not self.limited:
            return 0
        reserved = sum(self._prices.get(model, 0) * n for model, n in self._reserved.items() if model != learning)
        _, limit, used, _ = self.tightest
        return limit - used - reserved
