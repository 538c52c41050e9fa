"""The state of a key in a journal, and the number that holds it in an index."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import attrs

if TYPE_CHECKING:
    from neuralbox_async._types import GenerationId


class KeyStatus(enum.IntEnum):
    """The state in which earlier runs left a key."""

    NEW = 0  # never sent
    UNRESOLVED = 1  # sent, without an outcome or an id
    DONE = 2  # it has its generation
    FAILED = 3  # not billed
    PENDING = 4  # accepted: its id identifies the generation
    INVALID = 5  # its generations are not of the output type; its next repair was not sent, or not billed


BILLED: Final = (KeyStatus.UNRESOLVED, KeyStatus.DONE, KeyStatus.PENDING, KeyStatus.INVALID)  # certainly, or perhaps

# The number of a key in the index: its status, whether this run has claimed it, and 24 bits of the hash of its request,
# or 0 if that is unknown.
STATUS_BITS: Final = 0x7F
CLAIMED_BIT: Final = 0x80
HASH_SHIFT: Final = 8
_HASH_DIGITS: Final = 6  # hexadecimal


@attrs.define
class Unresolved:
    """A key that was sent and has no outcome, with the facts that may help to find it."""

    key: str
    idempotency_key: str | None = None
    generation_id: GenerationId | None = None
    model: str = ""
    reserved: int | None = None  # tokens
    offset: int | None = None  # in the journal, of the line with the part of a response that had arrived
    earlier: Unresolved | None = None  # of the same key, which was sent again nevertheless: both may be billed
    short_hash: int = 0  # of its request
    done_before: int = 0  # the number in the index of another request that was done with the same key
    has_outcome: bool = False  # which did not say what it cost
    claim_id: str | None = None  # on a cluster, of the claim that it was sent for, unless that is its idempotency key

    @property
    def status(self) -> KeyStatus:
        """PENDING if its generation has an id, otherwise UNRESOLVED."""
        return KeyStatus.UNRESOLVED if self.generation_id is None else KeyStatus.PENDING

    def is_of_claim(self, claim_id: str) -> bool:
        """Return whether it was sent for the claim *claim_id* of a worker on a cluster."""
        return claim_id == (self.idempotency_key if self.claim_id is None else self.claim_id)


def short_hash(request_hash: object) -> int:
    """Return 24 bits of *request_hash*, hexadecimal digits; 0 if it is not that."""
    if not isinstance(request_hash, str | bytes):
        return 0
    try:
        return max(1, int(request_hash[:_HASH_DIGITS], 16))
    except ValueError:  # a user has edited it
        return 0


def is_changed(number: int, request: int) -> bool:
    """Return whether *number*, of a key in the index, has the hash of another request than *request*."""
    known = number >> HASH_SHIFT
    return known > 0 and request > 0 and known != request
