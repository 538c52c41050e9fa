"""
One tree of exceptions; a class of its own only where a caller would act differently.

    NeuralBoxError
    +-- InvalidParameterError         a parameter breaks a rule; nothing was sent (also a ValueError)
    +-- ClientClosedError             the client was closed, before the call or during it
    +-- UnsupportedEventLoopError     the call was made outside asyncio
    +-- APIConnectionError            no complete answer came
    |   +-- APITimeoutError           ... in time (also a TimeoutError)
    |       +-- WaitTimeoutError      the generation waited for was still pending
    +-- APIStatusError                an answer with an error status came
    |   +-- BadRequestError           400
    |   +-- AuthenticationError       401
    |   +-- InsufficientTokensError   402
    |   +-- PermissionDeniedError     403
    |   +-- NotFoundError             404
    |   +-- ConflictError             409
    |   +-- RequestTooLargeError      413
    |   +-- UnprocessableRequestError 422
    |   +-- RateLimitError            429
    |   +-- InternalServerError       5xx
    |       +-- ProviderError         500 ``provider_error``: the upstream provider failed, never charged
    |       +-- ModelUnavailableError 503 ``model_unavailable``: the model is down, never charged
    +-- ResponseError                 an answer came and could not be understood
    +-- GenerationFailedError         the generation ended as ``failed``; it was not billed
    +-- StreamInterruptedError        a stream ended before its last event
    |   +-- StreamTimeoutError        ... because nothing came any more (also an APITimeoutError)
    +-- StreamStateError              the stream was used before it was opened, by two readers, or after it was closed
    +-- BatchStateError               the batch was read before it was entered, or entered twice
    +-- BudgetReachedError            the next request of a batch could cost more than is left of its budget
    +-- OutcomeUnknownError           a journal does not know what became of requests: they may have been billed
    +-- JournalError                  a journal cannot be read, written, or is none
        +-- JournalLockedError        ... or is in use by another batch

Every error pickles, and none holds the API key or the text of a prompt.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping

Billed = Literal["no", "yes", "unknown"]
"""Whether the call was charged: ``"no"``, ``"yes"``, or ``"unknown"`` when it cannot be known from here."""

_SHOWN_VALUE = 80
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class NeuralBoxError(Exception):
    """
    The root of every error that this SDK raises on purpose.

    Each fact is an attribute, there on every error of the tree:

    * *message* (str): the sentence for people.
    * *billed*: ``"no"``, ``"yes"`` or ``"unknown"``; what is known of the charge.
    * *request_sent* (bool): whether the request may have left this machine.
    * *attempts* (int): how many times it was tried; 0 when it was refused before the first.
    * *elapsed* (float): seconds from the start of the call.
    * *idempotency_key*, *generation_id*, *request_id*: what identifies the call, its generation and its answer, or
      None.
    * *text* (str): generated text that had arrived; ``""`` when none had.
    """

    billed: Billed = "no"
    request_sent: bool = False
    attempts: int = 0
    elapsed: float = 0.0
    idempotency_key: str | None = None
    generation_id: str | int | None = None
    request_id: str | None = None
    text: str = ""

    def __init__(self, message: str) -> None:
        # Much of it comes from outside: no line break or escape sequence of a server gets into a log or a terminal.
        self.message = message if message.isprintable() else _printable(message)
        super().__init__(self.message)

    def redact(self, secret: str) -> None:
        """Replace *secret* by ``***`` in what the server sent, which may echo it; generated text stays as it is."""
        for name, fact in vars(self).items():
            if name not in {"text", "generation"} and secret in str(fact):
                self.__dict__[name] = _redacted(fact, secret)
        self.args = (self.message,)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.__dict__)


def lower_case(headers: Mapping[str, str]) -> dict[str, str]:
    """Return *headers* with their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def _redacted(fact: object, secret: str) -> object:
    if isinstance(fact, str):
        return fact.replace(secret, "***")
    if isinstance(fact, bytes):
        return fact.replace(secret.encode(), b"***")
    if _is_dict(fact):
        return {_redacted(name, secret): _redacted(value, secret) for name, value in fact.items()}
    return "***" if secret in str(fact) else fact


def _is_dict(fact: object) -> TypeGuard[dict[object, object]]:
    return isinstance(fact, dict)


def _printable(text: str) -> str:
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _restore(kind: type[NeuralBoxError], message: str, facts: dict[str, Any]) -> NeuralBoxError:
    # Past the constructor: its keyword-only arguments are what keeps ordinary exceptions from unpickling.
    error = kind.__new__(kind, message)
    error.args = (message,)  # OSError, which TimeoutError is, sets them in its constructor
    error.__dict__.update(facts)
    return error


class InvalidParameterError(NeuralBoxError, ValueError):
    """
    A parameter breaks a rule; nothing was sent.

    Attributes: *parameter* (its name), *shown* (its value, shortened; a key is never shown), *rule* (what it must be).
    """

    def __init__(self, parameter: str, value: object, rule: str, *, show: bool = True) -> None:
        self.parameter = parameter
        self.shown = _shorten(value) if show else ""
        self.rule = rule
        super().__init__(f"{parameter} must be {rule}, not {self.shown}" if show else f"{parameter} must be {rule}")


def _shorten(value: object) -> str:
    shown = ascii(value) if isinstance(value, str) else repr(value)
    return shown if len(shown) <= _SHOWN_VALUE else f"{shown[:_SHOWN_VALUE]}..."


class ClientClosedError(NeuralBoxError):
    """The client was closed: before the call, or by someone else while the call ran (see *billed*)."""

    @classmethod
    def when(cls, moment: Literal["before", "during"], *, sent: bool = True) -> ClientClosedError:
        """Return the error of a call, told whether the client was closed before or during it, and what was *sent*."""
        error = cls(f"the client was closed {moment} the call")
        error.request_sent = sent and moment == "during"
        error.billed = "unknown" if error.request_sent else "no"
        return error


class UnsupportedEventLoopError(NeuralBoxError):
    """The call was made where no asyncio event loop runs; under trio, use `neuralbox_sync` in a worker thread."""


class APIConnectionError(NeuralBoxError):
    """
    No complete answer came: refused, reset, cut off, or not HTTP.

    *request_sent* tells whether the request may have reached the API; *retryable* is False for what no
    repetition mends, such as a certificate that is not trusted; *body* is what had come of an answer that broke off.
    """

    body: bytes = b""

    def __init__(self, message: str, *, request_sent: bool = False, retryable: bool = True) -> None:
        super().__init__(message)
        self.request_sent = request_sent
        self.retryable = retryable
        if request_sent:
            self.billed = "unknown"


class APITimeoutError(APIConnectionError, TimeoutError):
    """No complete answer came in time; *phase*: ``connect``, ``first_event``, ``stall``, ``wait`` or ``total``."""

    def __init__(self, message: str, *, phase: str = "total", request_sent: bool = False) -> None:
        super().__init__(message, request_sent=request_sent)
        self.phase = phase


class WaitTimeoutError(APITimeoutError):
    """The generation was not finished when the time for waiting was over; *generation* is its last known state."""

    def __init__(self, message: str, *, generation: Any = None) -> None:
        super().__init__(message, phase="wait", request_sent=True)
        self.generation = generation


class APIStatusError(NeuralBoxError):
    """
    The API answered with an error status.

    Attributes: *status* (int), *code* (the vendor's machine-readable code, such as ``"rate_limit_exceeded"``, or None),
    *headers* (lower-case names), *body* (bytes, bounded), *details* (the body's ``details`` member or ``{}``),
    *retry_after* (seconds that the server asks to wait, or None). Source: the vendor's error-handling guide.
    """

    default_billed: ClassVar[Billed] = "no"
    retry_after: float | None = None

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        body: bytes = b"",
        details: Any = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = lower_case(headers)
        self.body = body
        self.details: Any = {} if details is None else details
        self.retry_after = retry_after
        self.request_id = self.headers.get("x-request-id")
        self.request_sent = True
        self.billed = self.default_billed


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
    """413: the request body is larger than the API, or a proxy before it, takes."""


class UnprocessableRequestError(APIStatusError):
    """422: the request breaks the API's schema; *details* says where."""


class RateLimitError(APIStatusError):
    """429: the hourly or daily limit is reached; *retry_after*: seconds; *plan*, *limit_hour*, *limit_day*: which."""

    plan: str | None = None
    limit_hour: int | None = None
    limit_day: int | None = None


class InternalServerError(APIStatusError):
    """5xx: the API or a gateway before it failed; whether the generation ran and was billed is unknown."""

    default_billed: ClassVar[Billed] = "unknown"


class ProviderError(InternalServerError):
    """500 ``provider_error``: the upstream provider failed; documented as never charged."""

    default_billed: ClassVar[Billed] = "no"


class ModelUnavailableError(InternalServerError):
    """503 ``model_unavailable``: the model is down or overloaded; never charged."""

    default_billed: ClassVar[Billed] = "no"


class ResponseError(NeuralBoxError):
    """
    An answer came and could not be understood: not JSON, not of the documented shape, too large.

    Attributes: *path* (where in the JSON, such as ``"$.usage.total_tokens"``, or None), *body* (the bytes that
    came, bounded), *status*, *headers*.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        body: bytes = b"",
        status: int | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
        billed: Billed = "unknown",
    ) -> None:
        super().__init__(message)
        self.path = path
        self.body = body
        self.status = status
        self.headers = lower_case(headers)
        self.billed = billed
        self.request_sent = True


class GenerationFailedError(NeuralBoxError):
    """
    The generation ended as ``failed``, which is never billed; *reason* says why, *generation* is what the API answered.

    Source: the vendor's error-handling guide (provider errors and failed generations cost nothing).
    """

    def __init__(self, message: str, *, reason: str | None = None, generation: Any = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.generation = generation
        self.generation_id = getattr(generation, "id", None)
        self.request_sent = True


class StreamInterruptedError(NeuralBoxError):
    """
    A stream ended before its last event: cut, garbled, or ended by an error event.

    Attributes: *text* (all text that was delivered), *generation* (the same as an incomplete `Generation`),
    *generation_id* (to `retrieve` the whole of it later), *billed*, *reason* (the API's own words, from an error event,
    or None), *recovered* (the completed `Generation` that the API has instead, when its text is another, or None).
    """

    def __init__(
        self, message: str, *, generation: Any = None, reason: str | None = None, recovered: Any = None
    ) -> None:
        super().__init__(message)
        self.request_sent = True
        self.billed = "unknown" if recovered is None else "yes"
        self.reason = reason
        self.recovered = recovered
        self.generation = generation
        self.generation_id = getattr(generation, "id", None)
        self.text = getattr(generation, "content", "")


class StreamTimeoutError(StreamInterruptedError, APITimeoutError):
    """A stream from which no content came for too long; *phase* is ``"first_event"``, ``"stall"`` or ``"total"``."""

    def __init__(self, message: str, *, phase: str = "stall", generation: Any = None) -> None:
        super().__init__(message, generation=generation)
        self.phase = phase
        self.retryable = False


class StreamStateError(NeuralBoxError):
    """The stream cannot be read now: not opened yet, being read by another task, or closed by the user."""

    @classmethod
    def closed(cls) -> Self:
        """Return the error of a reader whose stream was closed under it."""
        return cls("the stream was closed while it was being read")


class BatchStateError(NeuralBoxError):
    """The batch cannot be used now: not entered yet, or entered a second time."""


class BudgetReachedError(NeuralBoxError):
    """
    The next request of a batch could cost more than is left; it was not sent.

    Attributes: *budget*, *spent* (NeuralBox tokens; *spent* includes the price of what may have been billed without an
    answer), *model* (the one asked for next).
    """

    def __init__(self, message: str, *, budget: int = 0, spent: int = 0, model: str | None = None) -> None:
        super().__init__(message)
        self.budget = budget
        self.spent = spent
        self.model = model


class OutcomeUnknownError(NeuralBoxError):
    """
    A journal does not know what became of requests: they were sent, and no outcome was written.

    Attribute: *keys*. Sending them again may bill them twice; `AsyncNeuralBox.generate_many` does it only when told.
    """

    def __init__(self, message: str, *, keys: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys
        self.request_sent = True
        self.billed = "unknown"


class JournalError(NeuralBoxError):
    """A journal cannot be read or written, or is none; *path*, and *line* (from 1, or None) where one is to blame."""

    def __init__(self, message: str, *, path: str = "", line: int | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.line = line


class JournalLockedError(JournalError):
    """The journal is in use by another batch, of this process or of another."""
