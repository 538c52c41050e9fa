"""
The tree of errors. It has a class where a caller would act differently.

    NeuralBoxError
    +-- InvalidParameterError         a parameter breaks a rule; nothing was sent (also a ValueError)
    +-- ClientClosedError             the client was closed, before the call or during it
    +-- UnsupportedEventLoopError     the call was made outside asyncio
    +-- APIConnectionError            no complete response arrived
    |   +-- APITimeoutError           ... in time (also a TimeoutError)
    |       +-- WaitTimeoutError      the generation was still pending when the wait timed out
    +-- APIStatusError                a response with an error status arrived
    |   +-- BadRequestError           400
    |   +-- AuthenticationError       401
    |   +-- InsufficientTokensError   402
    |   +-- PermissionDeniedError     403
    |   +-- NotFoundError             404
    |   +-- ConflictError             409
    |   +-- RequestTooLargeError      413
    |   +-- UnprocessableEntityError  422
    |   +-- RateLimitError            429
    |   +-- InternalServerError       5xx
    |       +-- ProviderError         500 ``provider_error``: the upstream provider failed, never charged
    |       +-- ModelUnavailableError 503 ``model_unavailable``: the model is down, never charged
    +-- ResponseError                 a response arrived that is malformed or too large
    +-- ParsingError                  the generated text is not of the requested type, also after repairs
    +-- GenerationFailedError         the generation has the status ``failed``; it was not billed
    +-- StreamInterruptedError        a stream ended before its terminal event
    |   +-- StreamTimeoutError        ... because no content arrived in time (also an APITimeoutError)
    +-- StreamStateError              the stream was used before it was opened, by two readers, or after it was closed
    +-- BatchStateError               the batch was read before it was entered, or entered twice
    +-- BudgetReachedError            the next request of a batch could cost more than its budget has left
    +-- RequestChangedError           a journal has other requests with the same keys
    +-- OutcomeUnknownError           a journal has requests without an outcome: they may have been billed
    +-- JournalError                  a journal cannot be read or written, or is malformed
        +-- JournalLockedError        ... or is in use by another batch

Every error can be pickled. No error holds the API key or the text of a prompt.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async._types import Generation

BillingStatus = Literal["no", "yes", "unknown"]
"""Whether the call was charged: ``"no"``, ``"yes"``, or ``"unknown"`` when the client cannot know."""

_MAX_VALUE_LENGTH = 80
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class NeuralBoxError(Exception):
    """
    The base class of the errors that this SDK raises.

    Each fact is an attribute, which every error of the tree has:

    * *message* (str): the human-readable message.
    * *billed*: ``"no"``, ``"yes"`` or ``"unknown"``: whether the call was charged.
    * *request_sent* (bool): whether the request may have left this machine.
    * *attempts* (int): how many attempts were made; 0 when the call was refused before the first.
    * *elapsed* (float): seconds since the start of the call.
    * *idempotency_key*, *generation_id*, *request_id*: what identifies the call, its generation and its response, or
      None.
    * *text* (str): generated text that had arrived; ``""`` by default.
    """

    billed: BillingStatus = "no"
    request_sent: bool = False
    attempts: int = 0
    elapsed: float = 0.0
    idempotency_key: str | None = None
    generation_id: str | int | None = None
    request_id: str | None = None
    text: str = ""

    def __init__(self, message: str) -> None:
        # A server may have sent it: its line breaks and escape sequences must not get into a log or a terminal.
        self.message: str = message if message.isprintable() else _printable(message)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.__dict__)


def _lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _printable(text: str) -> str:
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _restore(error_type: type[NeuralBoxError], message: str, facts: dict[str, Any]) -> NeuralBoxError:
    # Not through the constructor: ordinary exceptions with keyword-only arguments do not unpickle.
    error = error_type.__new__(error_type, message)
    error.args = (message,)  # OSError, a base class of TimeoutError, sets them in its constructor
    error.__dict__.update(facts)
    return error


class InvalidParameterError(NeuralBoxError, ValueError):
    """A parameter breaks a *rule*; nothing was sent. *parameter*: its name; *value*: its `repr`, short, no secret."""

    def __init__(
        self, parameter: str, value: object, rule: str, *, show: bool = True, billed: BillingStatus = "no"
    ) -> None:
        self.parameter: str = parameter
        self.rule: str = rule
        self.billed: BillingStatus = billed
        self.value: str = _short_repr(value) if show else ""
        if show and hasattr(type(value), "__await__"):
            self.value += ", which was not awaited"
        super().__init__(f"{parameter} must be {rule}, not {self.value}" if show else f"{parameter} must be {rule}")


def _short_repr(value: object) -> str:
    try:
        text = ascii(value) if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - of the user's own code, or of a number with too many digits
        text = ""
    text = text if text.strip() else f"<{type(value).__name__}>"  # the message would end in "not"
    return text if len(text) <= _MAX_VALUE_LENGTH else f"{text[:_MAX_VALUE_LENGTH]}..."


class ClientClosedError(NeuralBoxError):
    """The client was closed before the call, or during it (then *billed* is ``"unknown"`` if it was sent)."""

    def __init__(
        self, message: str, *, request_sent: bool = False, text: str = "", generation_id: str | int | None = None
    ) -> None:
        super().__init__(message)
        self.request_sent = request_sent
        self.billed: BillingStatus = "unknown" if request_sent else "no"
        self.text: str = text
        self.generation_id: str | int | None = generation_id


class UnsupportedEventLoopError(NeuralBoxError):
    """The call was made where no asyncio event loop runs; under trio, use `neuralbox_sync` in a worker thread."""


class APIConnectionError(NeuralBoxError):
    """
    No complete response arrived: refused, reset, cut off, or not HTTP.

    *request_sent*: whether the request may have reached the API. *retryable*: False where another attempt cannot help,
    such as for a certificate that is not trusted. *body*: the bytes of an incomplete response that arrived.
    """

    def __init__(self, message: str, *, request_sent: bool = False, retryable: bool = True, body: bytes = b"") -> None:
        super().__init__(message)
        self.request_sent = request_sent
        self.retryable: bool = retryable
        self.body: bytes = body
        if request_sent:
            self.billed: BillingStatus = "unknown"


class APITimeoutError(APIConnectionError, TimeoutError):
    """No complete response arrived in time; *phase*: ``connect``, ``first_event``, ``stall``, ``wait`` or ``total``."""

    def __init__(self, message: str, *, phase: str = "total", request_sent: bool = False, body: bytes = b"") -> None:
        super().__init__(message, request_sent=request_sent, body=body)
        self.phase = phase


class WaitTimeoutError(APITimeoutError):
    """The wait for a generation timed out; *generation* is its last known state."""

    def __init__(self, message: str, *, generation: Generation | None = None, elapsed: float = 0.0) -> None:
        super().__init__(message, phase="wait", request_sent=True)
        self.generation = generation
        self.elapsed = elapsed
        self.generation_id: str | int | None = getattr(generation, "id", None)
        self.text: str = getattr(generation, "content", "")


class APIStatusError(NeuralBoxError):
    """
    The API responded with an error status.

    Attributes: *status_code* (int), *code* (the vendor's machine-readable code, such as ``"rate_limit_exceeded"``, or
    None), *headers* (lower-case names), *body* (bytes, bounded), *details* (the body's ``details`` member or ``{}``),
    *retry_after* (seconds that the server requests to wait, or None). Source: the vendor's error-handling guide.
    """

    default_billed: ClassVar[BillingStatus] = "no"

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes = b"",
        details: Any = None,
        retry_after: float | None = None,
        billed: BillingStatus | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.code = code
        self.headers: Mapping[str, str] = _lower_case(headers)
        self.body = body
        self.details: Any = {} if details is None else details
        self.retry_after = retry_after
        self.request_id: str | None = self.headers.get("x-request-id")
        self.request_sent = True
        self.billed: BillingStatus = billed or self.default_billed


class BadRequestError(APIStatusError):
    """400: parameters are invalid or missing."""


class AuthenticationError(APIStatusError):
    """401: the API key is missing, wrong or revoked."""


class InsufficientTokensError(APIStatusError):
    """402: the token balance does not cover the generation."""


class PermissionDeniedError(APIStatusError):
    """403: the plan does not allow this (code ``insufficient_plan``)."""


class NotFoundError(APIStatusError):
    """404: no such generation or model."""


class ConflictError(APIStatusError):
    """409: the request conflicts with another."""


class RequestTooLargeError(APIStatusError):
    """413: the request body is larger than the API, or a proxy before it, accepts."""


class UnprocessableEntityError(APIStatusError):
    """422: the request breaks the API's schema; *details* has the place."""


class RateLimitError(APIStatusError):
    """429: the hourly or daily limit is reached; *retry_after*: seconds; *plan*, *limit_hour*, *limit_day*: which."""

    def __init__(
        self,
        message: str,
        *,
        plan: str | None = None,
        limit_hour: int | None = None,
        limit_day: int | None = None,
        **response: Any,
    ) -> None:
        super().__init__(message, **response)
        self.plan: str | None = plan
        self.limit_hour: int | None = limit_hour
        self.limit_day: int | None = limit_day


class InternalServerError(APIStatusError):
    """5xx: the API or a gateway before it failed; whether the generation ran and was billed is unknown."""

    default_billed: ClassVar[BillingStatus] = "unknown"


class ProviderError(InternalServerError):
    """500 ``provider_error``: the upstream provider failed; documented as never charged."""

    default_billed: ClassVar[BillingStatus] = "no"


class ModelUnavailableError(InternalServerError):
    """503 ``model_unavailable``: the model is down or overloaded; never charged."""

    default_billed: ClassVar[BillingStatus] = "no"


class ResponseError(NeuralBoxError):
    """
    A response arrived that is malformed: not JSON, not of the documented shape, or too large.

    Attributes: *path* (the place in the JSON, such as ``"$.usage.total_tokens"``, or None), *body* (the bytes that
    arrived, bounded), *status_code*, *headers*.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        body: bytes = b"",
        status_code: int | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        text: str = "",
        generation_id: str | int | None = None,
        billed: BillingStatus = "unknown",
    ) -> None:
        super().__init__(message)
        self.path = path
        self.body = body
        self.status_code = status_code
        self.headers: Mapping[str, str] = _lower_case(headers)
        self.request_id: str | None = self.headers.get("x-request-id")
        self.text: str = text
        self.generation_id: str | int | None = generation_id
        self.billed: BillingStatus = billed
        self.request_sent = True


class GenerationFailedError(NeuralBoxError):
    """
    The generation has the status ``failed``, which is never billed (source: the vendor's error-handling guide).

    *reason*: as the API reports it, or None. *generation*: the `Generation`, or None for an error event of a stream.
    """

    def __init__(self, message: str, *, reason: str | None = None, generation: Generation | None = None) -> None:
        super().__init__(message)
        self.reason: str | None = reason
        self.generation = generation
        self.generation_id: str | int | None = getattr(generation, "id", None)
        self.text: str = getattr(generation, "content", "")
        self.request_sent = True


class StreamInterruptedError(NeuralBoxError):
    """
    A stream ended before its terminal event: cut off, malformed, or ended by an error event.

    *text*: all text that was delivered; *generation*: the same as an incomplete `Generation`; *generation_id*: to
    `retrieve` it later; *reason*: the text of an error event, or None; *recovered*: the completed `Generation` that the
    API has, when its text differs, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        generation: Generation | None = None,
        reason: str | None = None,
        recovered: Generation | None = None,
        billed: BillingStatus = "unknown",
    ) -> None:
        super().__init__(message)
        self.request_sent = True
        self.billed: BillingStatus = billed if recovered is None else "yes"
        self.reason = reason
        self.recovered = recovered
        self.generation = generation
        self.generation_id: str | int | None = getattr(generation, "id", None)
        self.text: str = getattr(generation, "content", "")


class StreamTimeoutError(StreamInterruptedError, APITimeoutError):
    """A stream from which no content arrived in time; *phase* is ``"first_event"``, ``"stall"`` or ``"total"``."""

    def __init__(self, message: str, *, phase: str = "stall", generation: Generation | None = None) -> None:
        super().__init__(message, generation=generation)
        self.phase = phase
        self.retryable = False


class StreamStateError(NeuralBoxError):
    """The stream cannot be read now: not opened yet, being read by another task, or closed by the user."""
