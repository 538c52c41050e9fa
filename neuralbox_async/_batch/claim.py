"""The key that a batch has claimed for one request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.key_status import KeyStatus

if TYPE_CHECKING:
    from neuralbox_async._batch.key_status import Unresolved


@attrs.frozen(slots=False)  # without slots it is made in half the time
class Claim:
    """
    A *key* that this batch has claimed for a request of *model*, and the state in which earlier runs left it.

    *request_hash*: of the body, None if the key itself is that. *changed*: whether earlier runs sent another body, and
    may have been billed for that. *invalid*: where the journal has the generations of earlier runs that were not of the
    output type.
    """

    key: str
    model: str
    status: KeyStatus = KeyStatus.NEW
    unresolved: Unresolved | None = None
    request_hash: str | None = None
    changed: bool = False
    invalid: tuple[int, ...] = ()

    @property
    def is_pending(self) -> bool:
        """Whether an earlier run left it pending: its outcome is retrieved, and it is not sent."""
        return self.unresolved is not None and self.status is KeyStatus.PENDING
