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
    What was spent of *limit* NeuralBox tokens (None for no limit), and what is reserved.

    *spent* is what the API told; *at_risk* the price of requests that may have been billed without an answer.
    """

    limit: int | None = None
    spent: int = 0
    at_risk: int = 0
    _prices: dict[str, int] = attrs.field(factory=dict[str, int])
    _reserved: Counter[str] = attrs.field(factory=Counter[str])
    _learning: str | None = None  # the model whose first request alone tells its price

    def quote(self, model: str, price: int) -> None:
        """Note that a generation of *model* costs *price* at most."""
        self._prices[model] = max(price, self._prices.get(model, 0))

    def knows(self, model: str) -> bool:
        """Whether the price of *model* is known."""
        return model in self._prices

    @property
    def left(self) -> int:
        """What is neither spent nor reserved; 0 without a limit."""
        if self.limit is None or self._learning is not None:
            return 0
        reserved = sum(self._prices.get(model, 0) * count for model, count in self._reserved.items())
        return self.limit - self.spent - self.at_risk - reserved

    @property
    def holding(self) -> bool:
        """Whether anything is reserved, so that waiting may help."""
        return self._reserved.total() > 0

    def reserve(self, model: str) -> bool:
        """Reserve the price of one generation of *model*, if so much is left; where it is unknown, all that is left."""
        if self.limit is not None:
            if self._learning is not None or self.left < self._prices.get(model, 1):
                return False
            if model not in self._prices:
                self._learning = model
        self._reserved[model] += 1
        return True

    def settle(self, model: str, tokens: int | None) -> None:
        """Give one reservation back: *tokens* were billed, None when that is not known."""
        price = self._price_of(model)
        self._reserved[model] -= 1
        if self._learning == model:
            self._learning = None
        if tokens is None:
            self.at_risk += price
            return
        self.spent += tokens
        if tokens:
            self.quote(model, tokens)

    def _price_of(self, model: str) -> int:
        if self._learning == model:
            others = sum(self._prices.get(name, 0) * n for name, n in self._reserved.items() if name != model)
            return (self.limit or 0) - self.spent - self.at_risk - others
        return self._prices.get(model, 0)
