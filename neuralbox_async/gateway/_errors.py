"""Errors in the form of OpenAI: the statuses, types and codes that its clients know."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import attrs

from neuralbox_async import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    ClientClosedError,
    ConflictError,
    GenerationFailedError,
    InsufficientTokensError,
    InternalServerError,
    InvalidParameterError,
    ModelUnavailableError,
    NeuralBoxError,
    NotFoundError,
    ParsingError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    StreamInterruptedError,
    WaitTimeoutError,
)

_NOTHING: Final[Mapping[str, Any]] = {}


@attrs.frozen(kw_only=True)
class ErrorBody:
    """
    An error response.

    *status*, *type*, *code*, *param*: as OpenAI has them. *facts*: of NeuralBox, for the member ``neuralbox``.
    *retry*: whether clients that repeat requests automatically may do that: OpenAI's do, after each 429 and 5xx.
    *retry_after*: seconds.
    """

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry: bool = False
    retry_after: float | None = None
    facts: Mapping[str, Any] = _NOTHING

    def encode(self) -> bytes:
        """Return the JSON of the response."""
        members: dict[str, Any] = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        if self.facts:
            members["neuralbox"] = self.facts
        return json.dumps({"error": members}).encode()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        headers = {} if self.retry else {"x-should-retry": "false"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(max(0, math.ceil(self.retry_after)))
        return headers


class Refusal(Exception):  # noqa: N818 - not an error of this program
    """A request gets the error response *body*."""

    def __init__(self, body: ErrorBody) -> None:
        super().__init__(body.message)
        self.body = body


def invalid(message: str, param: str | None = None, code: str | None = None, status: int = 400) -> Refusal:
    """Return the refusal of a request that is not valid: *param* is its member that is not."""
    return Refusal(ErrorBody(status=status, message=message, param=param, code=code))


STOPPED: Final = ErrorBody(
    status=503,
    message="the gateway stopped before the call ended",
    type="server_error",
    code="shutting_down",
    facts={"billed": "unknown"},
)

# The first class that fits decides: status, type, code. None: the status or the code of the API.
_TABLE: Final[tuple[tuple[type[NeuralBoxError], int | None, str, str | None], ...]] = (
    (InvalidParameterError, 400, "invalid_request_error", None),
    (AuthenticationError, 401, "authentication_error", "invalid_api_key"),
    # OpenAI has no 402.
    (InsufficientTokensError, 429, "insufficient_quota", "insufficient_quota"),
    (PermissionDeniedError, 403, "permission_error", None),
    (NotFoundError, 404, "invalid_request_error", "model_not_found"),
    (ConflictError, 409, "invalid_request_error", None),
    (RateLimitError, 429, "requests", "rate_limit_exceeded"),
    (ModelUnavailableError, 503, "server_error", "model_unavailable"),
    (ProviderError, 500, "server_error", "provider_error"),
    (InternalServerError, 502, "server_error", None),
    (APIStatusError, None, "invalid_request_error", None),
    (GenerationFailedError, 500, "server_error", "generation_failed"),
    (ParsingError, 502, "server_error", "invalid_output"),
    (WaitTimeoutError, 504, "server_error", "generation_pending"),
    (APITimeoutError, 504, "server_error", "timeout"),
    (StreamInterruptedError, 502, "server_error", "stream_interrupted"),
    (ClientClosedError, 503, "server_error", "shutting_down"),
    (APIConnectionError, 502, "server_error", "connection_error"),
    (NeuralBoxError, 502, "server_error", "invalid_response"),
)
_OF_THE_GATEWAY: Final = "the NeuralBox API refuses the key of this gateway: "


def error_body(error: NeuralBoxError, *, with_text: bool = True) -> ErrorBody:
    """
    Return the response for *error*.

    It has the generated text that had arrived, which may be paid for, unless the client has it already (*with_text*).
    """
    status, kind, code = _row_of(error)
    message, param, retry_after = error.message, None, None
    match error:
        case InvalidParameterError():
            # The SDK names the only message as its own users give it.
            param = "messages" if error.parameter == "prompt" else error.parameter.partition("[")[0]
        case AuthenticationError():
            message = _OF_THE_GATEWAY + message
        case APIStatusError():
            status = status or (error.status_code if 400 <= error.status_code < 500 else 502)
            retry_after = error.retry_after
            code = code or error.code
        case _:
            pass
    transient = isinstance(error, RateLimitError | ProviderError | ModelUnavailableError | APIConnectionError)
    return ErrorBody(
        status=status or 502,
        message=message,
        type="server_error" if (status or 502) >= 500 else kind,  # a redirect, say
        code=code,
        param=param,
        retry=transient and error.billed == "no",
        retry_after=retry_after,
        facts=_facts(error, with_text=with_text),
    )


def _row_of(error: Exception) -> tuple[int | None, str, str | None]:
    return next((status, kind, code) for error_type, status, kind, code in _TABLE if isinstance(error, error_type))


def _facts(error: NeuralBoxError, *, with_text: bool) -> dict[str, Any]:
    facts: dict[str, Any] = {"billed": error.billed}
    if error.generation_id is not None:
        facts["generation_id"] = error.generation_id
    if isinstance(error, ParsingError) and error.tokens_used is not None:
        facts["tokens_used"] = error.tokens_used
    recovered = error.recovered if isinstance(error, StreamInterruptedError) else None
    if recovered is not None:
        facts["recovered_text"] = recovered.content
    if with_text and error.text:
        facts["text"] = error.text
    return facts
