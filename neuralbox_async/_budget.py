"""
How many tokens a batch may spend: each request reserves its price before it is sent, so that none is one too many.

A value without I/O; what a model costs is told to it, or learned from what was billed.
"""

from __future__ import annotations

from collections import Counter

import attrs


@attrs.define(eq=False)
class Budget:
    """
    What was spent of *limit* NeuralBox tokens by all runs of a batch, and what is reserved.

    *spent* is what the API told, *spent_before* the part of it that earlier runs know of. This run alone spends no more
    than *balance*. None for no bound.
    """

    limit: int | None = None
    balance: int | None = None
    spent_before: int = 0
    spent: int = attrs.field(init=False)
    _lost: int = 0  # the price of what may have been billed without an answer
    _lost_before: int = 0
    _unpriced: Counter[str] = attrs.field(factory=Counter[str])  # the same of earlier runs that knew no price, by model
    _prices: dict[str, int] = attrs.field(factory=dict[str, int])
    _reserved: Counter[str] = attrs.field(factory=Counter[str])
    _asked: int = 0
    _learning: str | None = None  # the model whose first request alone tells its price

    def __attrs_post_init__(self) -> None:
        self.spent = self.spent_before

    @property
    def bounded(self) -> bool:
        """Whether there is any bound."""
        return self.limit is not None or self.balance is not None

    @property
    def tightest(self) -> tuple[str, int, int, int]:
        """The bound that is nearest, by name: how many tokens it is, how many are used, how many of these at risk."""
        bounds: list[tuple[str, int, int, int]] = []
        if self.limit is not None:
            bounds.append(("budget", self.limit, self.spent + self.at_risk, self.at_risk))
        if self.balance is not None:
            bounds.append(("balance", self.balance, self.spent - self.spent_before + self._lost, self._lost))
        return min(bounds, key=lambda bound: bound[1] - bound[2])

    @property
    def at_risk(self) -> int:
        """The price of requests, of all runs, that may have been billed without an answer."""
        dearest = max(self._prices.values(), default=0) if self._unpriced else 0
        unpriced = sum(self._prices.get(model, dearest) * count for model, count in self._unpriced.items())
        return self._lost + self._lost_before + unpriced

    @property
    def unpriced(self) -> tuple[str, ...]:
        """The models that earlier runs may have been billed for, without knowing how much."""
        return tuple(model for model in self._unpriced if model) if self._unpriced else ()

    def quote(self, model: str, price: int) -> None:
        """Note that a generation of *model* costs *price* at most."""
        self._prices[model] = max(price, self._prices.get(model, 0))

    def price(self, model: str) -> int | None:
        """Return what a generation of *model* costs at most, as far as that is known."""
        return self._prices.get(model)

    @property
    def left(self) -> int:
        """What is neither spent nor reserved; 0 while a price is learned, or without a bound."""
        return 0 if self._learning is not None else self._left_beside(None)

    @property
    def holding(self) -> bool:
        """Whether anything is reserved or about to be known, so that waiting may help."""
        return self._reserved.total() > 0 or self._asked > 0

    def reserve(self, model: str) -> bool:
        """Reserve the price of one generation of *model*, if so much is left; where it is unknown, all that is left."""
        if not self.bounded:
            return True
        if self._learning is not None or self.left < self._prices.get(model, 1):
            return False
        if model not in self._prices:
            self._learning = model
        self._reserved[model] += 1
        return True

    def settle(self, model: str, tokens: int | None) -> None:
        """Give one reservation back: *tokens* were billed, None when that is not known."""
        price = self._left_beside(model) if self._learning == model else self._prices.get(model, 0)
        if self.bounded:
            self._reserved[model] -= 1
            if self._learning == model:
                self._learning = None
        if tokens is None:
            self._lost += price
        else:
            self._spend(model, tokens)

    def doubt(self, model: str, reserved: int | None) -> None:
        """Note that an earlier run may have been billed for *model*, for which it had *reserved* so much."""
        if reserved is None:
            self._unpriced[model] += 1
        else:
            self._lost_before += reserved

    def ask(self) -> None:
        """Note that it is asked what became of a `doubt`; `resolve` ends that."""
        self._asked += 1

    def resolve(self, model: str, reserved: int | None, tokens: int | None) -> None:
        """Take back a `doubt`: *tokens* were billed; None when that is not known even now."""
        self._asked -= 1
        if tokens is None:
            return
        if reserved is None:
            self._unpriced[model] -= 1
        else:
            self._lost_before -= reserved
        self._spend(model, tokens)

    def _spend(self, model: str, tokens: int) -> None:
        self.spent += tokens
        if tokens:
            self.quote(model, tokens)

    def _left_beside(self, learning: str | None) -> int:
        """Return what is left but for what the first request of *learning* holds."""
        if not self.bounded:
            return 0
        reserved = sum(self._prices.get(model, 0) * n for model, n in self._reserved.items() if model != learning)
        _, bound, used, _ = self.tightest
        return bound - used - reserved
