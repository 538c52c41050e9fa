"""
What is known of the API and needs no socket: endpoint -> `Request`, status and body -> value or error.

Source: the vendor's pages "Text Generation", "Streaming Guide", "Generation status", "Rate limits" and "Error
handling".
"""

from __future__ import annotations

import math
import re
import time
from datetime import UTC
from typing import TYPE_CHECKING, Any, TypeGuard
from urllib.parse import quote

import attrs

from neuralbox_async import _codec
from neuralbox_async._errors import (
    NO_HEADERS,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ConflictError,
    GenerationFailedError,
    InsufficientTokensError,
    InternalServerError,
    ModelUnavailableError,
    NotFoundError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    RequestTooLargeError,
    ResponseError,
    UnprocessableRequestError,
    lower_case,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async._types import GenerateRequest, Generation, GenerationId, Messages

_SERVER_ERROR = 500
_REQUEST_TIMEOUT = 408
_SUCCESS = 200
_REDIRECTION = 300
_CLIENT_ERROR = 400
_LONGEST_MESSAGE = 500
_LONGEST_WAIT = 1e9

STATUS_PATHS = ("/generate/status/{id}", "/generate/{id}")
"""The two documented paths of one generation's state: "History" has the first, "Generation status" the second."""

_ERROR_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: InsufficientTokensError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: RequestTooLargeError,
    422: UnprocessableRequestError,
    429: RateLimitError,
}
_ERROR_BY_CODE: dict[tuple[int, str], type[APIStatusError]] = {
    (500, "provider_error"): ProviderError,
    (503, "model_unavailable"): ModelUnavailableError,
}
# The members of which an answer that tells of a generation has at least one.
_TELLING = ("id", "status", "content", "result_text", "url", "result_url", "output_url")


def is_success(status: int) -> bool:
    """Return whether an answer with *status* should tell of a generation (the vendor does not say: 200, 201 or 202)."""
    return _SUCCESS <= status < _REDIRECTION


@attrs.define(kw_only=True)
class Request:
    """
    One HTTP request, without the key and without the host; never changed.

    *headers* go out besides the client's own; *free* is a POST that only asks.
    """

    method: str
    path: str
    body: bytes | None = attrs.field(default=None, repr=False)
    headers: Mapping[str, str] = attrs.field(default=NO_HEADERS, repr=False)
    stream: bool = False
    free: bool = False

    @property
    def idempotent(self) -> bool:
        """Whether repeating it costs nothing."""
        return self.free or self.method == "GET"


def generate(request: GenerateRequest, headers: Mapping[str, str]) -> Request:
    """Return POST /generate for *request*. Raises `InvalidParameterError` when it is not JSON."""
    return Request(method="POST", path="/generate", body=_codec.dump_request(request, stream=False), headers=headers)


def generate_plain(
    model: str,
    messages: Messages,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    *,
    headers: Mapping[str, str],
) -> Request | None:
    """Return what `generate` does for a `GenerateRequest` of these, or None when it takes one to tell."""
    body = _codec.dump_plain(model, messages, system, temperature, max_tokens)
    return None if body is None else Request(method="POST", path="/generate", body=body, headers=headers)


def stream(request: GenerateRequest, headers: Mapping[str, str]) -> Request:
    """Return POST /generate with ``"stream": true``. Raises `InvalidParameterError` when *request* is not JSON."""
    body = _codec.dump_request(request, stream=True)
    return Request(method="POST", path="/generate", body=body, headers=headers, stream=True)


def stream_again(request: GenerateRequest, headers: Mapping[str, str]) -> Request | None:
    """Return POST /generate/stream, the other documented entry, or None when *request* has no form for it."""
    body = _codec.dump_prompt(request)
    if body is None:
        return None
    return Request(method="POST", path="/generate/stream", body=body, headers=headers, stream=True)


def retrieve(generation_id: GenerationId, path: str, headers: Mapping[str, str]) -> Request:
    """Return the GET of one generation's state, under one of `STATUS_PATHS`."""
    return Request(method="GET", path=path.format(id=quote(str(generation_id), safe="")), headers=headers)


def balance(headers: Mapping[str, str]) -> Request:
    """Return the GET of the account's token balance. Source: the vendor's page "Balance" (GET /balance)."""
    return Request(method="GET", path="/balance", headers=headers)


def load_balance(status: int, headers: Mapping[str, str], body: bytes) -> int:
    """Return the NeuralBox tokens that the answer to `balance` tells. Raises `ResponseError`."""
    return _load_count("token_balance", status, headers, body)


def price(model: str, headers: Mapping[str, str]) -> Request:
    """Return the question what a generation of *model* costs; asking is free."""
    path = f"/models/{quote(model, safe='')}/calculate-price"
    body = _codec.dumps({"params": {}, "count": 1})
    return Request(method="POST", path=path, body=body, headers=headers, free=True)


def load_price(status: int, headers: Mapping[str, str], body: bytes) -> int:
    """
    Return the most that one generation costs, in NeuralBox tokens, from the answer to `price`. Raises `ResponseError`.

    Source: the vendor's page "Calculate price" (POST /models/{slug}/calculate-price, ``max_token_cost``).
    """
    return _load_count("max_token_cost", status, headers, body)


def _load_count(name: str, status: int, headers: Mapping[str, str], body: bytes) -> int:
    count = _codec.load_object(body).get(name)
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        msg = f"expected a whole number @ $.{name}: {_codec.excerpt(body)}"
        raise ResponseError(msg, path=f"$.{name}", body=body, status=status, headers=headers, billed="no")
    return count


def load_generation(status: int, headers: Mapping[str, str], body: bytes) -> Generation:
    """
    Return the generation in the answer to a request, whatever its status of completion.

    Raises `ResponseError` when there is none, and `GenerationFailedError` when it failed.
    """
    try:
        generation = _load_answer(body)
    except ResponseError as error:
        error.status = status
        error.headers = lower_case(headers)
        error.request_id = error.headers.get("x-request-id")
        raise
    if generation.status == "failed":
        raise failed(generation)
    return generation


def _load_answer(body: bytes) -> Generation:
    plain = _codec.load_plain_generation(body)
    if plain is not None:
        return plain
    members = _codec.load_object(body)
    if members.get("id") is None and all(members.get(name) is None for name in _TELLING):
        if members.get("error") is not None:
            message = message_in(members)[:_LONGEST_MESSAGE] or _codec.excerpt(body)
            msg = f"the API answered with a status of success and an error: {message}"
            raise ResponseError(msg, body=body, path="$.error")
        msg = f"the JSON object tells of no generation: {_codec.excerpt(body)}"
        raise ResponseError(msg, body=body, path="$")
    return _codec.structure_generation(members, body)


def failed(generation: Generation) -> GenerationFailedError:
    """Return the error of a *generation* with status ``failed``."""
    reason = (generation.error or "no reason given")[:_LONGEST_MESSAGE]
    return GenerationFailedError(f"the generation failed: {reason}", reason=generation.error, generation=generation)


# ------------------------------------------------------------------------------------------------------------- errors


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> APIStatusError:
    """
    Return the error that an answer with an error *status* stands for; *headers* have lower-case names.

    Reads the documented envelope ``{"error", "message", "details"}``, the flat 429 body, and what frameworks and
    gateways send instead: ``{"error": {"code", "message"}}``, ``{"detail": ...}``, text, HTML, nothing.
    """
    members = _members_of(body)
    code = _code_in(members)
    kind = _ERROR_BY_CODE.get((status, code or "")) or _ERROR_BY_STATUS.get(status)
    if kind is None:
        kind = InternalServerError if status >= _SERVER_ERROR else APIStatusError
    message = message_in(members) or (_codec.excerpt(body) if not members else "") or _phrase(status, headers)
    error = kind(
        f"{status} {code or ''}: {message[:_LONGEST_MESSAGE]}".replace(" :", ":").rstrip(": "),
        status=status,
        code=code,
        headers=headers,
        body=body,
        details=members.get("details", members.get("detail")),
        retry_after=_retry_after(headers, members),
    )
    if isinstance(error, RateLimitError):
        _take_limits(error, members)
    if status == _REQUEST_TIMEOUT or status < _REDIRECTION:
        error.billed = "unknown"  # often a proxy's: it says nothing of what the API did
    return error


def _phrase(status: int, headers: Mapping[str, str]) -> str:
    """Return what there is to say of an answer without a body."""
    if _REDIRECTION <= status < _CLIENT_ERROR:
        return f"a redirect, not followed, to {headers.get('location', '')[:_LONGEST_MESSAGE]!r}"
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _members_of(body: bytes) -> dict[str, Any]:
    try:
        members = _codec.loads(body)
    except (ValueError, RecursionError):
        return {}
    return members if _codec.is_object(members) else {}


def _code_in(members: Mapping[str, Any]) -> str | None:
    error = members.get("error")
    found = error.get("code") or error.get("type") if _codec.is_object(error) else error
    # A code is one word; free text in "error" is a message.
    return found if isinstance(found, str) and re.fullmatch(r"[\w.\-]{1,64}", found) else None


def message_in(members: Mapping[str, Any]) -> str:
    """Return the words for people in a JSON error object of whatever shape, ``""`` when there are none."""
    error = members.get("error")
    inner = error.get("message") if _codec.is_object(error) else None
    for found in (members.get("message"), inner, members.get("detail"), error):
        if isinstance(found, str) and found:
            return found
        if _is_array(found) and found:
            return "; ".join(_detail_line(item) for item in found[:5])
    return ""


def _is_array(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


def _detail_line(item: object) -> str:
    if not _codec.is_object(item):
        return _scalar(item)
    place = item.get("loc")
    where = ".".join(_scalar(step) for step in place[:10]) if _is_array(place) else ""
    return f"{where}: {_scalar(item.get('msg'))}".strip(": ")


def _scalar(value: object) -> str:
    # Nothing nested: it may be nested more deeply than str() can follow.
    return str(value)[:_LONGEST_MESSAGE] if isinstance(value, str | int | float) else ""


def _take_limits(error: RateLimitError, members: Mapping[str, Any]) -> None:
    plan, hour, day = members.get("plan"), members.get("limit_hour"), members.get("limit_day")
    error.plan = plan if isinstance(plan, str) else None
    error.limit_hour = hour if isinstance(hour, int) else None
    error.limit_day = day if isinstance(day, int) else None


def _retry_after(headers: Mapping[str, str], members: Mapping[str, Any]) -> float | None:
    """Return the seconds that the server asks to wait: the header before the body's ``retry_after``."""
    from_header = parse_retry_after(headers.get("retry-after", ""))
    if from_header is not None:
        return from_header
    value = members.get("retry_after")
    return (
        parse_retry_after(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else None
    )


def parse_retry_after(value: str, *, now: float | None = None) -> float | None:
    """
    Return the seconds that a ``Retry-After`` of *value* means, or None when it means nothing.

    Seconds, whole or decimal, or an HTTP date (RFC 9110, section 10.2.3; a date in the past is 0). *now* is a Unix
    time.
    """
    text = value.strip()
    if re.fullmatch(
        r"[0-9]{1,12}(\.[0-9]{0,12})?", text
    ):  # float() alone takes "1_000", "nan" and other alphabets' digits
        seconds = float(text)
    else:
        from email.utils import parsedate_to_datetime

        try:
            moment = parsedate_to_datetime(text)
        except (ValueError, IndexError, TypeError, OverflowError):
            return None
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = max(0.0, aware.timestamp() - (time.time() if now is None else now))
    return seconds if math.isfinite(seconds) and seconds <= _LONGEST_WAIT else None
