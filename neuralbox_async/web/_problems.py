"""Errors as HTTP responses that tell strangers nothing about the account, the API or the server."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import attrs

from neuralbox_async import (
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    BudgetReachedError,
    ClientClosedError,
    InvalidParameterError,
    ModelUnavailableError,
    NeuralBoxError,
    RateLimitError,
    RequestTooLargeError,
    StreamStateError,
    UnprocessableEntityError,
)

logger = logging.getLogger("neuralbox.web")

# The first row that matches counts. A key that is refused and an empty balance are facts of the account: to a stranger
# they look like any other failure of the API.
_STATUSES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], HTTPStatus], ...] = (
    ((InvalidParameterError, BadRequestError, UnprocessableEntityError), HTTPStatus.BAD_REQUEST),
    (RequestTooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    ((RateLimitError, ModelUnavailableError, ClientClosedError, BudgetReachedError), HTTPStatus.SERVICE_UNAVAILABLE),
    (APITimeoutError, HTTPStatus.GATEWAY_TIMEOUT),
    (StreamStateError, HTTPStatus.INTERNAL_SERVER_ERROR),
    (NeuralBoxError, HTTPStatus.BAD_GATEWAY),
)
_DETAILS = {
    400: "The request is not valid.",
    413: "The request is too large.",
    500: "The server failed.",
    502: "The text could not be generated.",
    503: "The service is busy. Try again later.",
    504: "The text was not generated in time.",
}
_NOT_OF_204 = {"content-type", "content-length", "cache-control"}
_MAX_RETRY_AFTER = 86_400  # seconds; the longest limit of the API is that of a day


@attrs.frozen(kw_only=True)
class ProblemDetails:
    """
    A response for an error: an HTTP *status* (400, 413, 500, 502, 503 or 504), and when to try again.

    *detail* is a fixed English sentence for the status. *retry_after*: seconds, at least 1, or None. `headers` and
    `body` are ready to be sent. Source of the body: RFC 9457, "Problem Details for HTTP APIs".
    """

    status: int
    detail: str
    retry_after: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers: ``Content-Type``, ``Cache-Control``, and ``Retry-After`` if the time is known."""
        headers = {"Content-Type": "application/problem+json", "Cache-Control": "no-store"}
        return headers if self.retry_after is None else {**headers, "Retry-After": str(self.retry_after)}

    @property
    def body(self) -> bytes:
        """The body, JSON."""
        return json.dumps(self.to_dict()).encode()

    def to_dict(self) -> dict[str, Any]:
        """Return the members of the body: ``type``, ``title``, ``status`` and ``detail``."""
        title = HTTPStatus(self.status).phrase  # as RFC 9457 wants it for this type
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}


def problem(error: BaseException) -> ProblemDetails:
    """
    Return the response for *error* that a stranger may see: a status and a sentence for it.

    A request that the API, or this SDK, refuses as invalid is a 400, and one that is too large a 413. Rate limits of
    the account, a model that is down, a budget that is used up and a client that is closed are a 503, with
    ``Retry-After`` if the API sent the time. Timeouts are a 504. All other failures are a 502: a wrong key or an empty
    balance looks like any failure of the API. Other exceptions, and a wrong use of a stream, are a 500.
    """
    status = next((status for types, status in _STATUSES if isinstance(error, types)), HTTPStatus.INTERNAL_SERVER_ERROR)
    retry_after = None
    if status == HTTPStatus.SERVICE_UNAVAILABLE and isinstance(error, APIStatusError):
        retry_after = _seconds(error.retry_after)
    return ProblemDetails(status=status.value, detail=_DETAILS[status], retry_after=retry_after)


def logged_problem(error: NeuralBoxError) -> ProblemDetails:
    """Return the response for *error*, and log what the response does not say."""
    answer = problem(error)
    level = logging.INFO if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING
    logger.log(level, "%s (%s, billed: %s)", error, type(error).__name__, error.billed)
    return answer


def error_headers(answer: ProblemDetails, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of *answer*, and those of the application (*headers*) that it does not have itself."""
    return merged_headers(headers or {}, answer.headers)


def merged_headers(headers: Mapping[str, str], stronger: Mapping[str, str]) -> dict[str, str]:
    """Return *stronger*, and those of *headers* that are not in it, in any case."""
    names = {name.lower() for name in stronger}
    return {**{name: value for name, value in headers.items() if name.lower() not in names}, **stronger}


def reconnection_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return the headers of the 204 for an ``EventSource`` that connects again, with those of the application."""
    own = {"Cache-Control": "no-store"}  # a cache that had stored it would end other streams too
    return {**{name: value for name, value in (headers or {}).items() if name.lower() not in _NOT_OF_204}, **own}


def is_reconnection(header_names: Iterable[str]) -> bool:
    """
    Return whether a request with these headers (in any case) is from an ``EventSource`` that connects again.

    Its text would be generated, and billed, a second time.
    """
    return any(name.lower() == "last-event-id" for name in header_names)


def _seconds(retry_after: float | None) -> int | None:
    if retry_after is None or not math.isfinite(retry_after):
        return None
    return min(max(1, math.ceil(retry_after)), _MAX_RETRY_AFTER)
