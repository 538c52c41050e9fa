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
from neuralbox_async._wire.partial_json import without_deep_members

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_MESSAGE_LENGTH: Final = 500
"""Characters of a server's message that an error's message quotes."""

_SUCCESS = 200
_REDIRECTION = 300
_CLIENT_ERROR = 400
_WRONG_URL = frozenset({404, 405})
_REQUEST_TIMEOUT = 408
_SERVER_ERROR = 500
_MAX_WAIT = 1e9  # seconds
_MAX_ENVELOPES = 8  # objects of a body that may describe the error

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


def error_from(status_code: int, headers: Mapping[str, str], body: bytes, request: str = "") -> APIStatusError:
    """
    Return the error of a response with an error status; *headers* have lower-case names.

    *request*: its method and URL, which the message has if the status is that of a wrong URL.

    Reads the documented envelope ``{"error", "message", "details"}``, the flat 429 body, either of them inside of
    ``error`` or ``detail``, and the usual bodies of frameworks and gateways: ``{"error": {"code", "message"}}``,
    ``{"detail": ...}``, ``{"title", "detail"}`` (RFC 9457), text, HTML, nothing.
    """
    members = _members_of(body)
    envelopes = _envelopes_in(members)
    code = _code_in(envelopes)
    cls = _ERROR_BY_CODE.get((status_code, code or "")) or _ERROR_BY_STATUS.get(status_code)
    if cls is None:
        cls = InternalServerError if status_code >= _SERVER_ERROR else APIStatusError
    message = message_in(members) or (json.excerpt(body) if not members else "") or _phrase(status_code, headers)
    # A 408 is often a proxy's, and 1xx and 2xx are no errors: they do not show what the API did.
    unknown = status_code == _REQUEST_TIMEOUT or status_code < _REDIRECTION
    # Of a wrong base_url, such as one without a path: its server may have no better message.
    where = f" ({request})" if request and status_code in _WRONG_URL else ""
    return cls(
        f"{status_code} {code or ''}: {message[:MAX_MESSAGE_LENGTH]}".replace(" :", ":").rstrip(": ") + where,
        status_code=status_code,
        code=code,
        headers=headers,
        body=body,
        details=_first(envelopes, "details", lambda value: value is not None) or members.get("detail"),
        retry_after=_retry_after(headers, envelopes),
        billed="unknown" if unknown else None,
        **(_limits_in(envelopes) if cls is RateLimitError else {}),
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
        members = json.loads(without_deep_members(body)[0])
    except (ValueError, RecursionError):
        return {}
    return members if json.is_object(members) else {}


def _envelopes_in(members: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return *members* and the objects in its ``error`` and ``detail``, which may describe the error as well."""
    found = [members]
    for outer in found:
        inner = [outer.get(name) for name in ("error", "detail")]
        found += [value for value in inner if json.is_object(value)][: _MAX_ENVELOPES - len(found)]
    return found


def _first(envelopes: Iterable[Mapping[str, Any]], name: str, accept: Callable[[Any], bool]) -> Any:
    return next((members[name] for members in envelopes if name in members and accept(members[name])), None)


def _code_in(envelopes: Iterable[Mapping[str, Any]]) -> str | None:
    for depth, members in enumerate(envelopes):
        # At the top, "type" is a URL (RFC 9457) or the type of an event.
        for name in ("error", "code", "type")[: 2 if depth == 0 else 3]:
            code = members.get(name)
            # A code is one word; free text in "error" is a message.
            if isinstance(code, str) and re.fullmatch(r"[\w.\-]{1,64}", code):
                return code
    return None


def message_in(members: Mapping[str, Any]) -> str:
    """Return the message for people in a JSON error object of any known shape, or ``""``."""
    envelopes = _envelopes_in(members)
    for name in ("message", "detail", "error", "errors", "title"):
        for envelope in envelopes:
            value = envelope.get(name)
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
    return f"{where}: {_scalar(item.get('msg', item.get('message')))}".strip(": ")


def _scalar(value: object) -> str:
    # Nothing nested: it may be nested more deeply than str() can follow.
    return str(value)[:MAX_MESSAGE_LENGTH] if isinstance(value, str | int | float) else ""


def _limits_in(envelopes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "plan": _first(envelopes, "plan", lambda value: isinstance(value, str)),
        "limit_hour": _first(envelopes, "limit_hour", json.is_count),
        "limit_day": _first(envelopes, "limit_day", json.is_count),
    }


def _retry_after(headers: Mapping[str, str], envelopes: Iterable[Mapping[str, Any]]) -> float | None:
    """
    Return the seconds that the server requests to wait: the header before the body's ``retry_after``.

    A date is relative to the response's own ``Date``, because the two clocks may differ.
    """
    sent_at = _http_date(headers.get("date", ""))
    from_header = parse_retry_after(headers.get("retry-after", ""), now=sent_at)
    if from_header is not None:
        return from_header
    value = _first(envelopes, "retry_after", lambda value: not isinstance(value, bool) and _scalar(value) != "")
    return None if value is None else parse_retry_after(_scalar(value), now=sent_at)


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
        date = _http_date(text)
        if date is None:
            return None
        seconds = max(0.0, date - (time.time() if now is None else now))
    return seconds if math.isfinite(seconds) and seconds <= _MAX_WAIT else None


def _http_date(value: str) -> float | None:
    """Return the Unix time of an HTTP date in any of the three formats, or None when it is malformed."""
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(value)
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
