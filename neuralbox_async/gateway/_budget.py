"""How many NeuralBox tokens a gateway may spend: a call reserves its price before it is sent."""

from __future__ import annotations

import attrs


@attrs.define(eq=False)
class Budget:
    """
    The tokens of *limit* (None: no limit) that are spent, reserved, or perhaps spent.

    A model's price is the catalogue's, or what its most expensive call cost. While there is none, a call reserves all
    that is left, so that it runs alone.
    """

    limit: int | None = None
    spent: int = 0
    _reserved: int = 0
    _prices: dict[str, int] = attrs.field(factory=dict[str, int])

    @property
    def left(self) -> int:
        """The tokens that are neither spent nor reserved; 0 without a limit."""
        return 0 if self.limit is None else max(0, self.limit - self.spent - self._reserved)

    @property
    def holding(self) -> bool:
        """Whether tokens are reserved, so that some may become free."""
        return self._reserved > 0

    def knows(self, model: str) -> bool:
        """Return whether the price of *model* is known, or not needed."""
        return self.limit is None or model in self._prices

    def quote(self, model: str, price: int) -> None:
        """Record that a generation of *model* costs up to *price*."""
        self._prices[model] = max(price, self._prices.get(model, 0))

    def reserve(self, model: str, generations: int) -> int | None:
        """Reserve tokens for up to so many *generations* of *model*, at least one; return how many tokens, or None."""
        if self.limit is None:
            return 0
        price = self._prices.get(model)
        if price is None:
            reserved = self.left
            if reserved == 0 or self.holding:
                return None
        else:
            affordable = generations if price == 0 else min(generations, self.left // price)
            if affordable < 1:
                return None
            reserved = affordable * price
        self._reserved += reserved
        return reserved

    def affordable(self, model: str, reserved: int) -> int:
        """Return how many generations of *model* the *reserved* tokens pay for, at least 1."""
        price = self._prices.get(model)
        return max(1, reserved // price) if price else 1

    def settle(self, reserved: int, tokens: int | None) -> None:
        """Release *reserved* tokens, of which *tokens* were spent: None if that is unknown, and then all of them."""
        self._reserved -= reserved
        self.spent += reserved if tokens is None else tokens

    def learn(self, model: str, tokens: int) -> None:
        """Record that one generation of *model* cost *tokens*."""
        if self.limit is not None and tokens > 0:
            self.quote(model, tokens)
