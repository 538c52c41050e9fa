"""The coordinator as one row's request sees it: its transitions become the outcomes that a session reports."""

from __future__ import annotations

import itertools
import os
import time
from typing import TYPE_CHECKING

from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.coordinator import NotAdmittedError, ServerSignal
from neuralbox_async._batch.errors import BudgetReachedError
from neuralbox_async._batch.journal_entries import entry_of
from neuralbox_async._batch.request_status import RequestStatus
from neuralbox_async._cluster.messages import Decision, Settled, Wanted, unsent_line
from neuralbox_async._cluster.session import ClaimLostError
from neuralbox_async._errors import NeuralBoxError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import anyio

    from neuralbox_async._batch.batch_request import BatchRequest
    from neuralbox_async._batch.claim import Claim
    from neuralbox_async._batch.errors import JournalError
    from neuralbox_async._batch.journal_entries import JournalEntry
    from neuralbox_async._batch.results import BatchResult
    from neuralbox_async._cluster.messages import ClaimKind, Grant, Outcome
    from neuralbox_async._cluster.session import WorkerSession
    from neuralbox_async._types import GenerationId

_numbers = itertools.count()


def new_id() -> str:
    """Return an id for a claim, and for its request."""
    return f"{os.urandom(12).hex()}-{next(_numbers)}"


class RowClaims:
    """
    The claims of one row, with the interface of `Coordinator` that `BatchRequest` uses.

    The start of a request is in the journal of the coordinator before it is granted, so `record_sent` only
    checks the lease.

    *places*: one for each request that may be in flight. The row has one from `take_place` until `give_up_place`,
    except while it waits until it may send again: what it waits for may belong to rows that need a place.
    """

    has_journal = True
    has_budget = False

    def __init__(
        self, session: WorkerSession, places: anyio.Semaphore, key: str, model: str, request_hash: str | None
    ) -> None:
        self._places, self._has_place = places, False
        self._session, self._key, self._model, self._request_hash = session, key, model, request_hash
        self._idempotency_key = self._claim_id = ""
        self._has_start = False  # in the journal, without an outcome
        self._lines: tuple[bytes, ...] = ()
        self._received: tuple[str, bytes] = "", b""
        self.batch_request: BatchRequest | None = None

    # ----------------------------------------------------------------------------------------------------------- places

    async def take_place(self) -> None:
        """Wait for a place, in the order of the calls."""
        await self._places.acquire()
        self._has_place = True

    def give_up_place(self) -> None:
        """Give the place up, if the row has one."""
        if self._has_place:
            self._has_place = False
            self._places.release()

    # ----------------------------------------------------------------------------------------------------------- claims

    async def claim(self, kind: ClaimKind = "new", idempotency_key: str | None = None) -> Grant:
        """Claim the key, or a further request of it, with *idempotency_key*, None for a new one."""
        wanted = Wanted(
            id=new_id(),
            key=self._key,
            model=self._model,
            request_hash=self._request_hash,
            kind=kind,
            idempotency_key=idempotency_key,
            previous=None if kind == "new" else self._claim_id,
        )
        grant = await self._session.claim(wanted)
        self._lines, self._received = grant.lines or self._lines, (grant.text, grant.body)
        if grant.decision is not Decision.STOPPED:  # then what it holds is the same as before
            self._idempotency_key = grant.idempotency_key or wanted.id
            self._claim_id = grant.claim_id or wanted.id
        self._has_start = grant.decision is Decision.SEND
        return grant

    async def claim_further(self, kind: ClaimKind, idempotency_key: str | None = None) -> Grant:
        """
        Claim a further request of the key: SEND or STOPPED.

        Raises `ClaimLostError` when another one has had the key meanwhile, so that it is to be claimed anew.
        """
        grant = await self.claim(kind, idempotency_key)
        if grant.decision in {Decision.SEND, Decision.STOPPED}:
            return grant
        if grant.decision is Decision.ASK:
            self._settle("unresolved", None, None)
        elif grant.decision is Decision.INVALID:
            self._settle("released", None, None)
        self._idempotency_key = self._claim_id = ""  # what this row reports from now on is of no request
        raise ClaimLostError("another worker has since claimed the key of this request")

    async def admit_again(self) -> None:
        """Wait until a refused request may be sent again. Raises `NotAdmittedError` and `ClaimLostError`."""
        await self._admit("again", self._idempotency_key)

    async def admit_repair(self, _claim: Claim) -> int | None:
        """
        Wait until the repair of an invalid text may be sent.

        Raises `BudgetReachedError`, `NotAdmittedError` and `ClaimLostError`.
        """
        return await self._admit("repair", self._repair_id())

    def _repair_id(self) -> str:
        batch_request = self.batch_request
        if batch_request is None or batch_request.typed is None:
            raise AssertionError("only a typed request has repairs")
        return batch_request.typed.repair(batch_request.wire.headers).headers["Idempotency-Key"]

    async def _admit(self, kind: ClaimKind, idempotency_key: str) -> int | None:
        self.give_up_place()
        try:
            grant = await self.claim_further(kind, idempotency_key)
        except ClaimLostError:
            raise
        except NeuralBoxError as error:  # without a coordinator; what the row has paid for is its result
            raise NotAdmittedError(str(error)) from error
        if grant.decision is Decision.SEND:
            await self._take_place_again()
            return grant.reserved
        if isinstance(self._session.stopped_by, BudgetReachedError):
            raise self._session.stopped_by
        raise NotAdmittedError

    async def _take_place_again(self) -> None:
        try:
            await self.take_place()
        except BaseException:
            self._withdraw_start()
            self._idempotency_key = self._claim_id = ""
            raise

    def _withdraw_start(self) -> None:
        """Report that the request that was let start will not be sent."""
        self._session.observe(self._key, self._claim_id, ServerSignal.NONE, time.monotonic())
        self._settle("withdrawn", unsent_line(self._key), 0)

    def release(self) -> None:
        """Release the key, if it has no outcome that released it."""
        if not self._session.holds(self._key, self._claim_id):
            return
        if self._has_start and (self.batch_request is None or self.batch_request.status is RequestStatus.CLAIMED):
            self._withdraw_start()
        else:
            self._settle("released", None, None)

    # -------------------------------------------------------------------------------------- results of earlier requests

    async def response_of(self, _claim: Claim) -> tuple[str, bytes]:
        """Return what had arrived of a response: a text, or else a part of its body."""
        return self._received

    async def earlier_result(self, _claim: Claim) -> JournalEntry:
        """Return the ``"done"`` entry. Raises `JournalError`."""
        return entry_of(self._lines[0], "", 0)

    async def invalid_entries(self, _claim: Claim) -> tuple[JournalEntry, ...]:
        """Return the ``"invalid"`` entries. Raises `JournalError`."""
        return tuple(entry_of(line, "", 0) for line in self._lines)

    # --------------------------------------------------------------------------------------------------------- outcomes

    async def record_sent(self, _claim: Claim, _idempotency_key: str, _reserved: int | None) -> None:
        """Check that the request may still be sent. Raises `ClaimLostError`, and `NotAdmittedError` after a stop."""
        await self._session.check_lease(self._claim_id)
        if self._session.stopped_by is not None:
            raise NotAdmittedError

    async def observe(self, signal: ServerSignal, started: float) -> None:
        """Report what the end of a request that started at *started* shows of the server."""
        self._session.observe(self._key, self._claim_id, signal, started)

    async def record_accepted(self, _claim: Claim, generation_id: GenerationId) -> JournalError | None:
        """Report that the API accepted the request."""
        self._settle("accepted", journal_lines.pending(self._key, generation_id), None)
        return None

    async def record_completed(
        self,
        _claim: Claim,
        result: BatchResult,
        body: bytes,
        *,
        is_valid: bool = True,
        tokens_of_invalid: Sequence[int | None] = (),
    ) -> JournalError | None:
        """Report the generation of *result*, with the *body* of its response; see `Coordinator.record_completed`."""
        if result.generation is None:
            raise AssertionError("a completed request has a generation")
        line = journal_lines.done(
            self._key,
            result.generation,
            body,
            attempts=result.attempts,
            elapsed=result.elapsed,
            tokens_used=result.tokens_used,
            is_valid=is_valid,
            tokens_of_invalid=tokens_of_invalid,
        )
        self._settle("completed" if is_valid else "invalid", line, result.tokens_used)
        return None

    async def record_failed(
        self, _claim: Claim, result: BatchResult, generation_id: GenerationId | None
    ) -> JournalError | None:
        """Report the error of *result*; *generation_id* if it was accepted."""
        self._settle("failed", self._failed_line(result, generation_id), result.tokens_used)
        return None

    async def record_refused(
        self, _claim: Claim, result: BatchResult, generation_id: GenerationId | None
    ) -> JournalError | None:
        """Report a 429, after which the request is sent again."""
        self._settle("refused", self._failed_line(result, generation_id), 0)
        return None

    async def record_unresolved(self, _claim: Claim) -> None:
        """Report that the request ended without a response and may be billed."""
        self._settle("unresolved", None, None)

    async def record_withdrawn(self, _claim: Claim) -> None:
        """Report that the request, which is new or was refused, will not be sent."""
        self._settle("withdrawn", unsent_line(self._key) if self._has_start else None, 0)

    def _failed_line(self, result: BatchResult, generation_id: GenerationId | None) -> bytes | None:
        if result.error is None:
            return None
        return journal_lines.failed(
            self._key, result.error, generation_id, attempts=result.attempts, elapsed=result.elapsed
        )

    def _settle(self, outcome: Outcome, line: bytes | None, tokens_used: int | None) -> None:
        self._has_start = False
        if not self._claim_id:
            return
        self._session.settle(
            Settled(
                key=self._key,
                model=self._model,
                idempotency_key=self._idempotency_key,
                claim_id=self._claim_id,
                outcome=outcome,
                line=line,
                tokens_used=tokens_used,
            )
        )
