"""
When a call may be sent: the bound of concurrency, the rate limits of the account, and the budget.

A call waits for each of them, up to a limit; then it is refused, which costs nothing. So is a call when too many wait.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Final, TypeVar

import anyio
import attrs

from neuralbox_async import AsyncNeuralBox, NotFoundError, RateLimitError
from neuralbox_async.gateway._budget import Budget
from neuralbox_async.gateway._errors import ErrorBody, Refusal

T = TypeVar("T")

_RECHECK: Final = 0.1  # seconds; a call that ends may make room earlier than the window that was announced
_REFUSAL_PAUSE: Final = 1.0  # seconds after a 429 that names no time
_PRICE_TIMEOUT: Final = 10.0  # seconds; a call has its slot meanwhile


class Admission:
    """
    Admits the calls of one gateway to *client*.

    *max_wait*: seconds that a call may wait in all. *max_waiting*: how many may wait for a slot.
    """

    def __init__(
        self, client: AsyncNeuralBox, *, max_concurrency: int, max_wait: float, max_waiting: int, budget: int | None
    ) -> None:
        self._client, self._max_wait, self._max_waiting = client, max_wait, max_waiting
        self._slots = anyio.Semaphore(max_concurrency, fast_acquire=True)
        self._waiting = 0
        self._uncounted = 0  # sent, and not counted yet in the limits that the client knows
        self._closed_until = 0.0  # after a 429
        self.budget = Budget(budget)

    async def admit(self, model: str, *, generations: int = 1) -> Ticket:
        """
        Wait for a turn of a call to *model*, which generates up to *generations* texts.

        The ticket must be released. Raises `Refusal`, and the errors of `AsyncNeuralBox.get_model`.
        """
        deadline = time.monotonic() + self._max_wait
        await self._take_slot()
        try:
            if not self.budget.knows(model):
                await self._learn_price(model, deadline)
            reserved = await self._reserve(model, generations, deadline)
        except BaseException:
            self._slots.release()
            raise
        return Ticket(self, model, reserved, deadline)

    def check_room(self) -> None:
        """Raise `Refusal` if a call could not even wait."""
        if self._slots.value == 0 and self._waiting >= self._max_waiting:
            raise Refusal(_busy(f"{self._waiting} calls are already waiting"))

    @contextmanager
    def _place_in_queue(self) -> Generator[None]:
        if self._waiting >= self._max_waiting:
            raise Refusal(_busy(f"{self._waiting} calls are already waiting"))
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def _take_slot(self) -> None:
        with suppress(anyio.WouldBlock):
            self._slots.acquire_nowait()
            return
        with self._place_in_queue(), anyio.move_on_after(self._max_wait):
            await self._slots.acquire()
            return
        raise Refusal(_busy(f"no slot became available in {self._max_wait:g} s"))

    async def get(self, request: Callable[[], Awaitable[T]], deadline: float | None = None) -> T:
        """
        Return the result of *request*, a GET, which waits after a 429 as calls do.

        It is sent at once: whether a GET counts for the rate limits is not documented. *deadline*: by `time.monotonic`.
        Raises the errors of *request* and `Refusal`.
        """
        deadline = time.monotonic() + self._max_wait if deadline is None else deadline
        attempt = 0
        while True:
            attempt += 1
            try:
                return await request()
            except RateLimitError as error:
                refused = error
            self.refused(refused, attempt)
            with self._place_in_queue():
                await self.wait_for_rate_limit(deadline, refused)

    async def _learn_price(self, model: str, deadline: float) -> None:
        try:
            entry = await self.get(lambda: self._client.get_model(model, timeout=_PRICE_TIMEOUT), deadline)
        except NotFoundError:
            return  # the API decides whether it can generate; the price is learned from the bill
        price = entry.token_cost if entry.max_token_cost is None else entry.max_token_cost
        if price is not None:
            self.budget.quote(model, price)

    async def _reserve(self, model: str, generations: int, deadline: float) -> int:
        while (reserved := self.budget.reserve(model, generations)) is None:
            if not self.budget.holding or time.monotonic() >= deadline:
                raise Refusal(_over_budget(self.budget))
            await anyio.sleep(_RECHECK)
        return reserved

    def release(self) -> None:
        """Make room for another call."""
        self._slots.release()

    async def wait_for_rate_limit(
        self, deadline: float, error: RateLimitError | None, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """
        Wait until the account may send a request.

        Raises *error*, or a `Refusal`, if that is after *deadline*, and a `Refusal` when *is_wanted* returns false.
        """
        while is_wanted():
            delay = self._delay()
            if delay <= 0:
                return
            if time.monotonic() + delay > deadline:
                raise Refusal(_rate_limited(delay)) if error is None else error
            await anyio.sleep(min(delay, _RECHECK))
        raise Refusal(_unwanted())

    def _delay(self) -> float:
        """Return the seconds until the account may send a request."""
        closed = self._closed_until - time.monotonic()
        hour = self._client.rate_limits.hour
        # The vendor documents no end of the day's window: that one is learned from a 429.
        if hour.remaining is None or hour.resets_at is None or hour.remaining > self._uncounted:
            return closed
        return max(closed, (hour.resets_at - datetime.now(UTC)).total_seconds())

    def refused(self, error: RateLimitError, attempt: int) -> None:
        """Learn from a 429 to the *attempt* (from 1 on) of a request: nothing is sent before its time has passed."""
        # Its time may be wrong: many requests in a short time could close the account for longer.
        least = min(_REFUSAL_PAUSE, _RECHECK * 2 ** min(attempt - 1, 9))
        pause = max(error.retry_after or _REFUSAL_PAUSE, least)
        # A little later, each call at another moment, so that they do not all return together.
        jitter = random.uniform(0.0, min(1.0, 0.05 * pause))  # noqa: S311 - not a secret
        self._closed_until = max(self._closed_until, time.monotonic() + pause + jitter)

    def sent(self, change: int) -> None:
        """Count a request that was sent (1), or one whose response has arrived (-1)."""
        self._uncounted += change


@attrs.define(eq=False)
class Ticket:
    """
    The turn of one call to *model*: it has a place among the concurrent ones, and *reserved* tokens of the budget.

    *deadline*: until when it may wait for a rate limit, by `time.monotonic`. *is_wanted*: returns whether anybody waits
    for the response; checked before each attempt.
    """

    _admission: Admission
    model: str
    reserved: int
    deadline: float
    is_wanted: Callable[[], bool] = lambda: True
    _is_sent: bool = False
    _released: bool = False

    @property
    def is_sent(self) -> bool:
        """Whether a request was sent that may be billed."""
        return self._is_sent

    @property
    def generations(self) -> int:
        """How many generations the reserved tokens pay for; any number without a budget."""
        budget = self._admission.budget
        return 1_000_000 if budget.limit is None else budget.affordable(self.model, self.reserved)

    @property
    def max_tokens_used(self) -> int | None:
        """What all generations together may cost; None without a budget."""
        return None if self._admission.budget.limit is None else self.reserved

    async def send(self, call: Callable[[], Awaitable[T]]) -> T:
        """
        Return the result of *call*, a request that a 429 repeats: it waits for the limit, which costs nothing.

        Raises the errors of *call*, `RateLimitError` when the wait would be too long, and `Refusal`.
        """
        error: RateLimitError | None = None
        attempt = 0
        while True:
            attempt += 1
            await self._admission.wait_for_rate_limit(self.deadline, error, self.is_wanted)
            self._admission.sent(1)
            self._is_sent = True
            try:
                return await call()
            except RateLimitError as refused:  # never billed
                self._is_sent, error = False, refused
                self._admission.refused(refused, attempt)
            finally:
                self._admission.sent(-1)

    def release(self, tokens: int | None = None, *, generations: int = 1) -> None:
        """End it: *tokens* were spent for *generations*, None if that is unknown. Idempotent."""
        if self._released:
            return
        self._released = True
        tokens = tokens if self._is_sent else 0
        budget = self._admission.budget
        if tokens:
            budget.learn(self.model, math.ceil(tokens / generations))
        budget.settle(self.reserved, tokens)
        self._admission.release()


def _busy(reason: str) -> ErrorBody:
    msg = f"the gateway is busy: {reason}"
    return ErrorBody(status=429, message=msg, type="requests", code="rate_limit_exceeded", retry=True, retry_after=1)


def _rate_limited(seconds: float) -> ErrorBody:
    msg = f"the rate limit of the NeuralBox account is reached; try again in {seconds:.0f} s"
    return ErrorBody(
        status=429, message=msg, type="requests", code="rate_limit_exceeded", retry=True, retry_after=seconds
    )


def _over_budget(budget: Budget) -> ErrorBody:
    msg = (
        f"the budget of the gateway, {budget.limit} NeuralBox tokens, does not cover this call: {budget.spent} are used"
    )
    return ErrorBody(status=429, message=msg, type="insufficient_quota", code="insufficient_quota")


def _unwanted() -> ErrorBody:
    return ErrorBody(status=499, message="the client has disconnected", type="server_error")
