"""The part of a coordinator that one request on its way uses: the local one, or that of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neuralbox_async._batch.claim import Claim
    from neuralbox_async._batch.coordinator import ServerSignal
    from neuralbox_async._batch.errors import JournalError
    from neuralbox_async._batch.journal_entries import JournalEntry
    from neuralbox_async._batch.results import BatchResult
    from neuralbox_async._types import GenerationId


class RequestCoordinator(Protocol):
    """See `Coordinator`, which documents each method."""

    @property
    def has_journal(self) -> bool: ...

    async def response_of(self, claim: Claim, /) -> tuple[str, bytes]: ...

    async def earlier_result(self, claim: Claim, /) -> JournalEntry: ...

    async def invalid_entries(self, claim: Claim, /) -> tuple[JournalEntry, ...]: ...

    async def admit_repair(self, claim: Claim, /) -> int | None: ...

    async def admit_again(self) -> None: ...

    async def record_sent(self, claim: Claim, idempotency_key: str, reserved: int | None, /) -> None: ...

    async def observe(self, signal: ServerSignal, started: float, /) -> None: ...

    async def record_accepted(self, claim: Claim, generation_id: GenerationId, /) -> JournalError | None: ...

    async def record_completed(
        self,
        claim: Claim,
        result: BatchResult,
        body: bytes,
        /,
        *,
        is_valid: bool = True,
        tokens_of_invalid: Sequence[int | None] = (),
    ) -> JournalError | None: ...

    async def record_failed(
        self, claim: Claim, result: BatchResult, generation_id: GenerationId | None, /
    ) -> JournalError | None: ...

    async def record_refused(
        self, claim: Claim, result: BatchResult, generation_id: GenerationId | None, /
    ) -> JournalError | None: ...

    async def record_unresolved(self, claim: Claim, /) -> None: ...

    async def record_withdrawn(self, claim: Claim, /) -> None: ...
