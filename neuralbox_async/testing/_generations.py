"""The generations of a local server, and its books: the balance, what is reserved, what was billed."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

import attrs

from neuralbox_async.testing._refusals import RefusalError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuralbox_async.testing._calls import Call

Status: TypeAlias = Literal["completed", "pending", "failed"]

# The numbers start where the vendor's samples are.
_FIRST_NUMBER: Final = 18473
_ID_PREFIX: Final = "gen_01j9x"


def timestamp() -> str:
    """Return the time now, as the API writes it: ISO 8601 in UTC with seconds and a Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@attrs.frozen(kw_only=True)
class BilledGeneration:
    """One generation that was paid for. *request* is the index of its request in `NeuralBoxServer.requests`."""

    id: str
    model: str
    tokens: int
    request: int
    idempotency_key: str | None


@attrs.define(eq=False, kw_only=True)
class Generation:
    """One generation, from its acceptance on. *source* is what it will say, *said* what it has said so far."""

    number: int
    model: str
    price: int
    prompt_tokens: int
    request: int
    idempotency_key: str | None
    source: Iterator[str] = attrs.field(repr=False)
    said: list[str] = attrs.field(factory=list[str], repr=False)
    status: Status = "pending"
    error: str | None = None
    created_at: str = attrs.field(factory=timestamp)
    completed_at: str | None = None
    balance_remaining: int = 0
    started: float = attrs.field(factory=time.monotonic, repr=False)
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """The id in dialect A. Dialect B uses *number*."""
        return f"{_ID_PREFIX}{self.number:08d}"

    @property
    def text(self) -> str:
        """What was said so far."""
        return "".join(self.said)


class Books:
    """Who owes what. Changed on the server's loop; the balance may be set, and all be reset, from any thread.

    The price of an accepted generation is reserved until it is billed or given up, so that concurrent requests
    cannot spend the same tokens.
    """

    def __init__(self, opening_balance: int, keep: int | None = None) -> None:
        """Open the books. Of billed and unbilled generations the newest *keep* are remembered, all if None."""
        self._opening_balance = opening_balance
        self._keep = keep
        self._lock = threading.RLock()
        self._numbers = itertools.count(_FIRST_NUMBER)
        self.reset()

    def reset(self) -> None:
        """Forget every generation and go back to the opening balance. Ids go on: none is given twice."""
        with self._lock:
            self._balance = self._opening_balance
            self._reserved = 0
            self.billed: deque[BilledGeneration] = deque(maxlen=self._keep)
            self._generations: dict[int, Generation] = {}
            self._by_key: dict[str, Generation] = {}

    @property
    def balance(self) -> int:
        """Tokens left, those reserved for running generations included."""
        return self._balance

    @balance.setter
    def balance(self, tokens: int) -> None:
        with self._lock:
            self._balance = tokens

    def open(self, call: Call, price: int, *, source: Iterator[str], request: int, key: str | None) -> Generation:
        """Accept a generation and reserve its *price*.

        Raises:
            RefusalError: 402, when the balance does not cover it.
        """
        generation = Generation(
            number=next(self._numbers),
            model=call.model,
            price=price,
            prompt_tokens=call.prompt_tokens,
            request=request,
            idempotency_key=key,
            source=source,
        )
        with self._lock:
            if self._balance - self._reserved < price:
                raise RefusalError(402, details={"balance": self._balance, "required": price})
            self._reserved += price
            self._remember(generation)
        return generation

    def find(self, id_or_number: str) -> Generation | None:
        """Return the generation with this id, in either dialect's form."""
        digits = id_or_number.removeprefix(_ID_PREFIX)
        found = self._generations.get(int(digits)) if digits.isascii() and digits.isdigit() else None
        return found if found is not None and id_or_number in (found.id, str(found.number)) else None

    def find_by_key(self, key: str | None) -> Generation | None:
        """Return the generation that the idempotency *key* was first used for."""
        return None if key is None else self._by_key.get(key)

    def complete(self, generation: Generation) -> None:
        """Let *generation* say what is left of it, and bill it: once, and not after a reset."""
        generation.said.extend(generation.source)
        with self._lock:
            if not self._close(generation, "completed"):
                return
            self._balance -= generation.price
            generation.balance_remaining = self._balance
            self.billed.append(
                BilledGeneration(
                    id=generation.id,
                    model=generation.model,
                    tokens=generation.price,
                    request=generation.request,
                    idempotency_key=generation.idempotency_key,
                )
            )

    def fail(self, generation: Generation, reason: str) -> None:
        """End *generation* as failed, at no cost. One that has ended stays as it is."""
        with self._lock:
            if self._close(generation, "failed"):
                generation.error = reason

    def _close(self, generation: Generation, status: Status) -> bool:
        if generation.status != "pending" or self._generations.get(generation.number) is not generation:
            return False
        self._reserved -= generation.price
        generation.status = status
        generation.completed_at = timestamp()
        generation.seconds = time.monotonic() - generation.started
        return True

    def _remember(self, generation: Generation) -> None:
        self._generations[generation.number] = generation
        if generation.idempotency_key is not None:
            self._by_key.setdefault(generation.idempotency_key, generation)
        if self._keep is not None and len(self._generations) > self._keep:
            self._forget(next(iter(self._generations.values())))

    def _forget(self, generation: Generation) -> None:
        # One still running would otherwise hold its reservation for ever.
        self._close(generation, "failed")
        del self._generations[generation.number]
        if self.find_by_key(generation.idempotency_key) is generation:
            del self._by_key[cast("str", generation.idempotency_key)]
