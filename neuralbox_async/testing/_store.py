"""The generations of a local server, and the account that pays for them: balance, reservations, bills."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, cast

import attrs

from neuralbox_async.testing._http_errors import HTTPError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from neuralbox_async.testing._request_parsing import GenerationRequest

Status: TypeAlias = Literal["completed", "pending", "failed"]

# The vendor's samples use this number and this prefix.
_FIRST_NUMBER: Final = 18473
_ID_PREFIX: Final = "gen_01j9x"


def timestamp() -> str:
    """Return the current time in the format of the API: ISO 8601 in UTC with seconds and a Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@attrs.frozen(kw_only=True)
class BilledGeneration:
    """A generation that was billed. *request_index* is the index of its request in `NeuralBoxServer.requests`."""

    id: str
    model: str
    tokens_used: int
    request_index: int
    idempotency_key: str | None


@attrs.define(eq=False, kw_only=True)
class Generation:
    """An accepted generation. *reply* yields the tokens still to generate, *output* holds those generated so far."""

    number: int
    model: str
    price: int
    prompt: str = attrs.field(repr=False)
    prompt_tokens: int
    request_index: int
    idempotency_key: str | None
    reply: Iterator[str] = attrs.field(repr=False)
    output: list[str] = attrs.field(factory=list[str], repr=False)
    status: Status = "pending"
    error: str | None = None
    created_at: str = attrs.field(factory=timestamp)
    completed_at: str | None = None
    balance_remaining: int = 0
    started: float = attrs.field(factory=time.monotonic, repr=False)
    elapsed: float = 0.0

    @property
    def id(self) -> str:
        """The id in dialect A. Dialect B uses *number*."""
        return f"{_ID_PREFIX}{self.number:08d}"

    @property
    def text(self) -> str:
        """The text generated so far."""
        return "".join(self.output)


class AccountStore:
    """The generations and the balance of one account.

    Generations change on the server's event loop only. `balance` and `reset` may be used from any thread. The price of
    an accepted generation is reserved until it completes or fails, so that concurrent requests cannot spend the same
    tokens.
    """

    def __init__(self, initial_balance: int, history: int | None = None) -> None:
        """Keep the newest *history* generations and bills; None keeps all."""
        self._initial_balance = initial_balance
        self._history = history
        self._lock = threading.RLock()
        self._numbers = itertools.count(_FIRST_NUMBER)
        self.reset()

    def reset(self) -> None:
        """Delete all generations and bills, and restore the initial balance. No id is used twice."""
        with self._lock:
            self._balance = self._initial_balance
            self._reserved = 0
            self.billed: deque[BilledGeneration] = deque(maxlen=self._history)
            # By model: how many generations were billed, and their tokens; also of those that are not kept.
            self.usage: dict[str, tuple[int, int]] = {}
            self._generations: dict[int, Generation] = {}
            self._by_key: dict[str, Generation] = {}

    @property
    def balance(self) -> int:
        """Remaining tokens, including those reserved for running generations."""
        return self._balance

    @balance.setter
    def balance(self, tokens: int) -> None:
        with self._lock:
            self._balance = tokens

    def create(
        self, request: GenerationRequest, price: int, *, reply: Iterator[str], request_index: int, key: str | None
    ) -> Generation:
        """Create a pending generation and reserve its *price*. *key* is the idempotency key.

        Raises:
            HTTPError: 402 if the balance does not cover *price*.
        """
        generation = Generation(
            number=next(self._numbers),
            model=request.model,
            price=price,
            prompt=request.prompt,
            prompt_tokens=request.prompt_tokens,
            request_index=request_index,
            idempotency_key=key,
            reply=reply,
        )
        with self._lock:
            if self._balance - self._reserved < price:
                raise HTTPError(402, details={"balance": self._balance, "required": price})
            self._reserved += price
            self._add(generation)
        return generation

    def get(self, id_or_number: str) -> Generation | None:
        """Return the generation with this id, which may have the form of either dialect."""
        digits = id_or_number.removeprefix(_ID_PREFIX)
        generation = self._generations.get(int(digits)) if digits.isascii() and digits.isdigit() else None
        if generation is not None and id_or_number in (generation.id, str(generation.number)):
            return generation
        return None

    def newest_first(self) -> list[Generation]:
        """Return the generations that are kept, the newest first."""
        with self._lock:
            return list(reversed(self._generations.values()))

    def get_by_key(self, key: str | None) -> Generation | None:
        """Return the first generation with the idempotency *key*."""
        return None if key is None else self._by_key.get(key)

    def complete(self, generation: Generation) -> None:
        """Generate the rest of the text and bill *generation*, unless it has ended or was deleted."""
        generation.output.extend(generation.reply)
        with self._lock:
            if not self._end(generation, "completed"):
                return
            self._balance -= generation.price
            count, tokens = self.usage.get(generation.model, (0, 0))
            self.usage[generation.model] = (count + 1, tokens + generation.price)
            generation.balance_remaining = self._balance
            self.billed.append(
                BilledGeneration(
                    id=generation.id,
                    model=generation.model,
                    tokens_used=generation.price,
                    request_index=generation.request_index,
                    idempotency_key=generation.idempotency_key,
                )
            )

    def fail(self, generation: Generation, reason: str) -> None:
        """End *generation* as failed and do not bill it. Does nothing if it has ended."""
        with self._lock:
            if self._end(generation, "failed"):
                generation.error = reason

    def _end(self, generation: Generation, status: Status) -> bool:
        """Set the final *status* and release the reservation. Return False if *generation* has ended or was deleted."""
        if generation.status != "pending" or self._generations.get(generation.number) is not generation:
            return False
        self._reserved -= generation.price
        generation.status = status
        generation.completed_at = timestamp()
        generation.elapsed = time.monotonic() - generation.started
        return True

    def _add(self, generation: Generation) -> None:
        self._generations[generation.number] = generation
        if generation.idempotency_key is not None:
            self._by_key.setdefault(generation.idempotency_key, generation)
        if self._history is not None and len(self._generations) > self._history:
            self._delete(next(iter(self._generations.values())))

    def _delete(self, generation: Generation) -> None:
        # A running generation would otherwise hold its reservation indefinitely.
        self._end(generation, "failed")
        del self._generations[generation.number]
        if self.get_by_key(generation.idempotency_key) is generation:
            del self._by_key[cast("str", generation.idempotency_key)]
