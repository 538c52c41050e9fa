"""
The decoder of error responses: from status code, headers and body to an `APIStatusError`.

Source: the vendor's pages "Rate limits" and "Error handling".
"""

from __future__ import annotations

import math
import re
import time
from datetime import UTC
from typing import TYPE_CHECKING, Any, Final

from neuralbox_async._errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    InsufficientTokensError,
    InternalServerError,
    ModelUnavailableError,
    NotFoundError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    RequestTooLargeError,
    UnprocessableEntityError,
)
from neuralbox_async._wire import json

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_MESSAGE_LENGTH: Final = 500
"""Characters of a server's message that an error's message quotes."""

_SUCCESS = 200
_REDIRECTION = 300
_CLIENT_ERROR = 400
_REQUEST_TIMEOUT = 408
_SERVER_ERROR = 500
_MAX_WAIT = 1e9  # seconds

_ERROR_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientTokensError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: RequestTooLargeError,
    422: UnprocessableEntityError,
    429: RateLimitError,
}
_ERROR_BY_CODE: dict[tuple[int, str], type[APIStatusError]] = {
    (500, "provider_error"): ProviderError,
    (503, "model_unavailable"): ModelUnavailableError,
}


def is_success(status_code: int) -> bool:
    """Return whether a response should describe a generation (the vendor does not document which of 2xx it has)."""
    return _SUCCESS <= status_code < _REDIRECTION


def error_from(status_code: int, headers: Mapping[str, str], body: bytes) -> APIStatusError:
    """
    Return the error of a response with an error status; *headers* have lower-case names.

    Reads the documented envelope ``{"error", "message", "details"}``, the flat 429 body, and the usual bodies of
    frameworks and gateways: ``{"error": {"code", "message"}}``, ``{"detail": ...}``, text, HTML, nothing.
    """
    members = _members_of(body)
    code = _code_in(members)
    cls = _ERROR_BY_CODE.get((status_code, code or "")) or _ERROR_BY_STATUS.get(status_code)
    if cls is None:
        cls = InternalServerError if status_code >= _SERVER_ERROR else APIStatusError
    message = message_in(members) or (json.excerpt(body) if not members else "") or _phrase(status_code, headers)
    # A 408 is often a proxy's, and 1xx and 2xx are no errors: they do not show what the API did.
    unknown = status_code == _REQUEST_TIMEOUT or status_code < _REDIRECTION
    return cls(
        f"{status_code} {code or ''}: {message[:MAX_MESSAGE_LENGTH]}".replace(" :", ":").rstrip(": "),
        status_code=status_code,
        code=code,
        headers=headers,
        body=body,
        details=members.get("details", members.get("detail")),
        retry_after=_retry_after(headers, members),
        billed="unknown" if unknown else None,
        **(_limits_in(members) if cls is RateLimitError else {}),
    )


def _phrase(status_code: int, headers: Mapping[str, str]) -> str:
    """Return a message for a response without a body."""
    if _REDIRECTION <= status_code < _CLIENT_ERROR:
        return f"a redirect, not followed, to {headers.get('location', '')[:MAX_MESSAGE_LENGTH]!r}"
    from http import HTTPStatus

    try:
        return HTTPStatus(status_code).phrase
    except ValueError:
        return ""


def _members_of(body: bytes) -> dict[str, Any]:
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return members if json.is_object(members) else {}


def _code_in(members: Mapping[str, Any]) -> str | None:
    error = members.get("error")
    code = error.get("code") or error.get("type") if json.is_object(error) else error
    # A code is one word; free text in "error" is a message.
    return code if isinstance(code, str) and re.fullmatch(r"[\w.\-]{1,64}", code) else None


def message_in(members: Mapping[str, Any]) -> str:
    """Return the message for people in a JSON error object of any known shape, or ``""``."""
    error = members.get("error")
    inner = error.get("message") if json.is_object(error) else None
    for value in (members.get("message"), inner, members.get("detail"), error):
        if isinstance(value, str) and value:
            return value
        if json.is_array(value) and value:
            return "; ".join(_detail_line(item) for item in value[:5])
    return ""


def _detail_line(item: object) -> str:
    if not json.is_object(item):
        return _scalar(item)
    place = item.get("loc")
    where = ".".join(_scalar(step) for step in place[:10]) if json.is_array(place) else ""
    return f"{where}: {_scalar(item.get('msg'))}".strip(": ")


def _scalar(value: object) -> str:
    # Nothing nested: it may be nested more deeply than str() can follow.
    return str(value)[:MAX_MESSAGE_LENGTH] if isinstance(value, str | int | float) else ""


def _limits_in(members: Mapping[str, Any]) -> dict[str, Any]:
    plan, hour, day = members.get("plan"), members.get("limit_hour"), members.get("limit_day")
    return {
        "plan": plan if isinstance(plan, str) else None,
        "limit_hour": hour if isinstance(hour, int) else None,
        "limit_day": day if isinstance(day, int) else None,
    }


def _retry_after(headers: Mapping[str, str], members: Mapping[str, Any]) -> float | None:
    """Return the seconds that the server requests to wait: the header before the body's ``retry_after``."""
    from_header = parse_retry_after(headers.get("retry-after", ""))
    if from_header is not None:
        return from_header
    value = members.get("retry_after")
    return None if value is None or isinstance(value, bool) else parse_retry_after(_scalar(value))


def parse_retry_after(value: str, *, now: float | None = None) -> float | None:
    """
    Return the seconds of a ``Retry-After`` *value*, or None when it is malformed.

    Seconds, whole or decimal, or an HTTP date (RFC 9110, section 10.2.3; a date in the past is 0). *now* is a Unix
    time.
    """
    text = value.strip()
    # float() alone accepts "1_000", "nan" and the digits of other alphabets.
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{0,12})?", text):
        seconds = float(text)
    else:
        from email.utils import parsedate_to_datetime

        try:
            date = parsedate_to_datetime(text)
        except (ValueError, IndexError, TypeError, OverflowError):
            return None
        aware = date if date.tzinfo else date.replace(tzinfo=UTC)
        seconds = max(0.0, aware.timestamp() - (time.time() if now is None else now))
    return seconds if math.isfinite(seconds) and seconds <= _MAX_WAIT else None
