"""The errors of batches and journals; the tree of all errors is in `neuralbox_async._errors`."""

from __future__ import annotations

from typing import Any

from neuralbox_async._errors import BillingStatus, NeuralBoxError

_MAX_KEYS_IN_MESSAGE = 5


class BatchStateError(NeuralBoxError):
    """The batch cannot be used now: not entered yet, or entered a second time."""


class BudgetReachedError(NeuralBoxError):
    """
    The next request of a batch, for *model*, could cost more than its budget has left; it was not sent.

    *budget*, *spent*: NeuralBox tokens; *spent* includes the price of requests that may have been billed without a
    response.
    """

    def __init__(self, message: str, *, budget: int = 0, spent: int = 0, model: str | None = None) -> None:
        super().__init__(message)
        self.budget: int = budget
        self.spent: int = spent
        self.model: str | None = model


class OutcomeUnknownError(NeuralBoxError):
    """
    A journal has requests, named by *keys*, that were sent and have no outcome; they may have been billed.

    Raised when a batch is entered, its *keys* are the texts in the journal; otherwise, they are as you passed them. As
    the result of one request: *text* or *body* (bytes) is the part of its response that had arrived.
    """

    def __init__(self, message: str, *, keys: tuple[Any, ...] = (), text: str = "", body: bytes = b"") -> None:
        super().__init__(message)
        self.keys: tuple[Any, ...] = keys
        self.text: str = text
        self.body: bytes = body
        self.request_sent = True
        self.billed: BillingStatus = "unknown"


class RequestChangedError(NeuralBoxError):
    """
    Requests of a batch, named by *keys*, differ from those that earlier runs sent with the same keys; none was sent.

    *keys*: as you passed them.
    """

    def __init__(self, message: str, *, keys: tuple[Any, ...] = ()) -> None:
        super().__init__(message)
        self.keys: tuple[Any, ...] = keys
        self.billed: BillingStatus = "no"


class JournalError(NeuralBoxError):
    """A journal cannot be read or written, or is malformed, at *path* and *line* (from 1, or None)."""

    def __init__(self, message: str, *, path: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.path: str = path
        self.line: int | None = line


class JournalLockedError(JournalError):
    """The journal is in use by another batch, of this process or of another."""


def outcome_unknown_error(keys: tuple[str, ...]) -> OutcomeUnknownError:
    """Return the error of a batch that does not start because earlier requests with *keys* have no outcome."""
    names = ", ".join(keys[:_MAX_KEYS_IN_MESSAGE]) + ("" if len(keys) <= _MAX_KEYS_IN_MESSAGE else ", ...")
    noun = "request" if len(keys) == 1 else "requests"
    return OutcomeUnknownError(f"{len(keys)} {noun} may have been billed without a response: {names}", keys=keys)
