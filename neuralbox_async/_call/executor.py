"""One logical call: the loop over its attempts, the sleep between them, and the deadline around both."""

from __future__ import annotations

import logging
import math
import sys
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

import attrs

from neuralbox_async._api_key import KeySource, call_key_function
from neuralbox_async._call.account_state import AccountState
from neuralbox_async._call.call_log import log
from neuralbox_async._call.lifetime import Lifetime
from neuralbox_async._call.monitor import Monitor
from neuralbox_async._call.shared_state import SharedState
from neuralbox_async._clock import DeadlineScope, now, time_after
from neuralbox_async._errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ClientClosedError,
    ConflictError,
    GenerationFailedError,
    NeuralBoxError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    UnprocessableEntityError,
)
from neuralbox_async._http.transport import CLIENT_CLOSED, HTTPRequest
from neuralbox_async._lazy_imports import anyio, lazy_module
from neuralbox_async._logging import logger
from neuralbox_async._secret import Mask, Secret, without_frames
from neuralbox_async._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neuralbox_async._call import masking
    from neuralbox_async._call.record import CallRecord
    from neuralbox_async._http.transport import Response
    from neuralbox_async._options import CallOptions, ConnectionOptions
    from neuralbox_async._types import GenerationId
    from neuralbox_async._wire import responses, status_errors
    from neuralbox_async._wire.requests import Request
else:
    masking = lazy_module("neuralbox_async._call.masking")
    responses = lazy_module("neuralbox_async._wire.responses")
    status_errors = lazy_module("neuralbox_async._wire.status_errors")

T = TypeVar("T")

_MAX_ERROR_BYTES = 1024 * 1024
_ERROR_BODY_TIMEOUT = 5.0
_CLOSED_CHECK_INTERVAL = 0.5
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_NO_SECRETS = Mask()
_USER_AGENT = f"neuralbox-python/{__version__} {sys.implementation.name}/{'.'.join(map(str, sys.version_info[:3]))}"


def _deadline_of(call: Call) -> float:
    seconds = call.options.timeout
    return math.inf if seconds is None else call.started + seconds


@attrs.define(eq=False)
class Call:
    """A request with the facts of its attempts. *deadline*: a time of `now`, by default that of *options*."""

    request: Request
    options: CallOptions
    started: float = attrs.field(factory=now, init=False)
    deadline: float = attrs.field(default=attrs.Factory(_deadline_of, takes_self=True))
    attempts: int = 0
    attempt: HTTPRequest | None = None  # the attempt that runs or ran last
    response: Response | None = None
    previous_error: NeuralBoxError | None = None  # of the attempt before this one
    accepted: bool = False  # the API accepted it, and the generation is pending
    generation_id: GenerationId | None = None  # of the accepted generation, or of the one that a status request is for
    mask: Mask = attrs.field(default=_NO_SECRETS, repr=False)  # of the key of each attempt, and of the proxy's password
    clean_body: bytes | None = attrs.field(default=None, repr=False)  # of an error; the mask has found no secret in it
    record: CallRecord | None = attrs.field(default=None, repr=False)  # of a generation or its status

    @property
    def request_sent(self) -> bool:
        """Whether the current attempt may have left this machine."""
        return self.attempt is not None and self.attempt.sent

    @property
    def possibly_billed(self) -> bool:
        """Whether the call may be billed if it ends now."""
        if self.request.costs_nothing:
            return False
        previous = self.previous_error
        return self.accepted or self.request_sent or (previous is not None and previous.billed == "unknown")

    def begin_attempt(self) -> None:
        """Count one more attempt, of which nothing has been sent yet."""
        self.attempts += 1
        self.attempt = self.response = None
        if self.record is not None:
            self.record.begin_attempt(self)

    def accept(self, generation_id: GenerationId | None) -> None:
        """Record that the API accepted the request as a pending generation; None: its id cannot be found."""
        self.accepted, self.generation_id = True, generation_id

    def annotate(self, error: NeuralBoxError) -> NeuralBoxError:
        """
        Set the facts of this call on *error*, and return it.

        Apart from the constructors of errors, nothing else sets them.
        """
        received = self._received_with(error)
        if received and not error.text:
            generation_id, error.text = responses.beginning_of(received)
            error.generation_id = error.generation_id or generation_id
        masking.mask_error(error, self.mask, self.clean_body)
        error.attempts = self.attempts
        error.elapsed = now() - self.started
        error.idempotency_key = self.request.headers.get("Idempotency-Key")
        if self.accepted and not isinstance(error, GenerationFailedError):
            error.billed, error.request_sent, error.generation_id = "unknown", True, self.generation_id
        elif self.request.costs_nothing:
            if self.generation_id is None:
                error.billed = "no"
            elif not isinstance(error, GenerationFailedError):
                # An error of a status request does not show what the generation costs.
                error.billed, error.generation_id = "unknown", self.generation_id
        elif self.previous_error is not None:
            error.request_sent = error.request_sent or self.previous_error.request_sent
            if self.previous_error.billed == "unknown" and error.billed == "no":
                error.billed = "unknown"
        return error

    def _received_with(self, error: NeuralBoxError) -> bytes:
        if isinstance(error, APIConnectionError | ResponseError):
            return error.body
        if isinstance(error, ClientClosedError) and self.response is not None and not self.request.costs_nothing:
            return self.response.received
        return b""

    def decode(self, decode: Callable[..., T], *received: object) -> T:
        """Return ``decode(*received)``. Raises its errors, without the secrets that *received* echoes."""
        try:
            return decode(*received)
        except NeuralBoxError as error:
            failure = error
        if not masking.decode_failure(failure, decode, received, self.mask):
            self.clean_body = getattr(failure, "body", None)
        raise failure

    def timeout_error(self, phase: str) -> NeuralBoxError:
        """Return the error of this call when its deadline has expired."""
        seconds = self.deadline - self.started
        received = b"" if self.response is None else self.response.received
        msg = f"no complete response within {round(seconds, 2):g} s"
        return self.annotate(APITimeoutError(msg, phase=phase, request_sent=self.request_sent, body=received))


@attrs.frozen(kw_only=True, eq=False)
class Executor:
    """Executes the calls of a client, with its key, account and base URL, over the shared connections."""

    shared: SharedState
    api_key: KeySource = attrs.field(repr=False)
    base_url: str
    max_response_bytes: int
    account_state: AccountState = attrs.field(
        default=attrs.Factory(lambda self: self.shared.account_states.of(self.api_key), takes_self=True)
    )
    lifetime: Lifetime = attrs.field(factory=Lifetime)
    monitor: Monitor = attrs.field(factory=Monitor)
    mask: Mask = attrs.field(
        default=attrs.Factory(lambda self: _mask_of(self.api_key, self.shared.connections), takes_self=True),
        init=False,
        repr=False,
    )
    _key_headers: Mapping[str, str] = attrs.field(
        default=attrs.Factory(lambda self: _key_headers(self.api_key), takes_self=True), init=False, repr=False
    )

    def derive(self, api_key: KeySource | None = None) -> Executor:
        """
        Return an executor over the same connections, which is closed on its own, or together with this one.

        Another *api_key* has another account.
        """
        derived = attrs.evolve(self, lifetime=self.lifetime.derive(), monitor=self.monitor.derive())
        if api_key is None or api_key == self.api_key:
            return derived
        return attrs.evolve(derived, api_key=api_key, account_state=self.shared.account_states.of(api_key))

    async def aclose(self) -> None:
        """Close it and those derived from it. The connections are closed with the one that is not derived."""
        self.lifetime.close()
        if self.lifetime.parent is None:
            await self.shared.aclose()

    async def execute(self, call: Call, decode: Callable[[int, Mapping[str, str], bytes], T]) -> T:
        """Execute *call*, read its response to the last byte, and return the result of *decode*."""
        with DeadlineScope(call.deadline):
            response = await self._send(call)
            try:
                value = call.decode(
                    decode, response.status_code, response.headers, await response.read(self.max_response_bytes)
                )
                return value if call.record is None else call.record.with_response(value, response)
            except NeuralBoxError as error:
                if isinstance(error, APIConnectionError):
                    error.body = response.received
                raise without_frames(call.annotate(error))  # noqa: B904 - it is the same error
            finally:
                response.close()  # no effect unless the body was left unread
        raise call.timeout_error("total")

    async def open_stream(
        self, request: Request, fallback: Callable[[], Request | None], options: CallOptions, record: CallRecord | None
    ) -> tuple[Response, Call]:
        """
        Send *request* for a stream; after a 404, which costs nothing, the *fallback* if there is one.

        The endpoint that worked is tried first the next time. Returns the response, whose body is unread, and its call.
        """
        choices: list[Callable[[], Request | None]] = [lambda: request, fallback]
        if self.shared.prefers_stream_fallback:
            choices.reverse()
        not_found: NotFoundError | None = None
        for choice in choices:
            if (chosen := choice()) is None:
                continue
            try:
                opened = await self._open(chosen, options, record)
            except NotFoundError as error:
                not_found = not_found or error
                continue
            self.shared.prefers_stream_fallback = chosen is not request
            return opened
        raise not_found or AssertionError  # there is always the first

    async def _open(self, request: Request, options: CallOptions, record: CallRecord | None) -> tuple[Response, Call]:
        total, first = time_after(options.stream_timeout), time_after(options.first_event_timeout)
        call = Call(request, options, min(total, first), record=record)
        with DeadlineScope(call.deadline):
            return await self._send(call), call
        raise call.timeout_error("total" if total <= first else "first_event")

    async def sleep(self, seconds: float) -> None:
        """Sleep, and wake up soon after the client is closed, by any loop or thread."""
        end = now() + seconds
        # No event: that would belong to one loop, and a client to many.
        while (left := end - now()) > 0 and not self.lifetime.closed:
            await anyio.sleep(min(left, _CLOSED_CHECK_INTERVAL))

    def check_open(self) -> None:
        """Raise `ClientClosedError` if the client is closed."""
        if self.lifetime.closed:
            raise ClientClosedError(CLIENT_CLOSED)

    # ------------------------------------------------------------------------------------------------------- attempts

    async def _send(self, call: Call) -> Response:
        """Make attempts until a response with a status of success arrives, or a failure that is not retried."""
        retry_budget, request, refund = self.account_state.retry_budget, call.request, 1
        while True:
            call.begin_attempt()
            try:
                # A successful attempt is inlined here: a coroutine of its own would cost 3 % of a call.
                self.check_open()
                if isinstance(self.api_key, Secret):
                    call.mask, key_headers = self.mask, self._key_headers
                else:
                    key = await call_key_function(self.api_key)
                    call.mask, key_headers = _mask_of(key, self.shared.connections, call.mask), _key_headers(key)
                headers = _headers(key_headers, request)
                url, deadline = self.base_url + request.path, call.deadline
                call.attempt = HTTPRequest(request.method, url, headers, request.body, deadline=deadline)
                response = await self.shared.transport.send(call.attempt)
                self._observe(call, response)
                if not status_errors.is_success(response.status_code):
                    response = await self._follow_redirects(call, response)
            except NeuralBoxError as error:
                call.annotate(error)
                if call.previous_error is not None and _rejects_reused_key(error, call.previous_error):
                    raise call.annotate(call.previous_error) from error
                delay = self._retry_delay(call, error)
                if delay is None or (cost := retry_budget.take(error)) is None:
                    raise
                refund, call.previous_error, call.attempt = cost, error, None
            else:
                retry_budget.give_back(refund)
                self.account_state.rate_limits.record_admitted()
                return response
            log(logging.INFO, call, "retry in %.2f s", delay, delay=delay)
            if call.record is not None:
                call.record.schedule_retry(call.previous_error, delay)
            await self.sleep(delay)

    def _observe(self, call: Call, response: Response) -> None:
        call.response = response
        self.account_state.rate_limits.observe(response.headers, counted=not call.request.costs_nothing)
        record = call.record
        if record is None or record.is_logged:
            log(logging.DEBUG, call, "%d", response.status_code, status_code=response.status_code)
        if record is not None and record.observers:
            record.receive(response)

    async def _follow_redirects(self, call: Call, response: Response) -> Response:
        """Return the response of success that *response* redirects to. Raises the error of an error status."""
        redirects = 0
        while not status_errors.is_success(response.status_code):
            attempt = call.attempt
            target = None if attempt is None else _redirect_target(attempt, response)
            if attempt is None or target is None:
                error = await _read_error(response, call)
                if isinstance(error, RateLimitError):
                    self.account_state.rate_limits.record_refused(error)
                raise error
            response.close()
            redirects += 1
            if redirects > _MAX_REDIRECTS:
                msg = f"more than {_MAX_REDIRECTS} redirects"
                raise APIConnectionError(msg, request_sent=True, retryable=False)
            call.attempt = HTTPRequest(attempt.method, target, attempt.headers, attempt.body, deadline=attempt.deadline)
            response = await self.shared.transport.send(call.attempt)
            self._observe(call, response)
        return response

    def _retry_delay(self, call: Call, error: NeuralBoxError) -> float | None:
        log(logging.DEBUG, call, "attempt %d: %s", call.attempts, type(error).__name__)
        costs_nothing, remaining = call.request.costs_nothing, call.deadline - now()
        return call.options.retry.delay(call.attempts, error, costs_nothing=costs_nothing, remaining=remaining)


def _mask_of(key: object, connections: ConnectionOptions, mask: Mask | None = None) -> Mask:
    """Return *mask* for *key* as well, unless a function returns it, and for the password of the proxy."""
    mask = Mask(*connections.proxy_secrets) if mask is None else mask
    return mask.including(key) if isinstance(key, Secret) else mask


def _key_headers(key: object) -> dict[str, str]:
    """Return the headers that each request with *key* has; empty if a function returns the key."""
    if not isinstance(key, Secret):
        return {}
    # Not compressed: of a compressed body that is damaged no text can be read, one that is cut can look complete, and
    # compression delays events.
    return {"Authorization": Secret("Bearer " + key), "User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}


def _headers(key_headers: Mapping[str, str], request: Request) -> dict[str, str]:
    headers = {**key_headers, **request.headers}  # as few as possible: aiohttp takes 1 us for each
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    if request.stream:
        headers["Accept"] = "text/event-stream"
    return headers


def _redirect_target(attempt: HTTPRequest, response: Response) -> str | None:
    """
    Return the URL to follow when *response* redirects a GET to the same origin, otherwise None.

    Another origin would get the key, and a POST could be billed again.
    """
    location = response.headers.get("location")
    if attempt.method != "GET" or response.status_code not in _REDIRECTS or not location:
        return None
    try:
        target = urljoin(attempt.url, location)
        here, there = urlsplit(attempt.url), urlsplit(target)
    except ValueError:
        return None
    # A secret: it may echo the key into a traceback.
    return Secret(target) if (here.scheme, here.netloc) == (there.scheme, there.netloc) else None


def _rejects_reused_key(error: NeuralBoxError, previous: NeuralBoxError) -> bool:
    """Return whether *error* only reports that the idempotency key of an attempt with unknown outcome was reused."""
    return previous.billed == "unknown" and isinstance(error, ConflictError | UnprocessableEntityError)


async def _read_error(response: Response, call: Call) -> APIStatusError:
    # The status has arrived and decides: a body that is late or broken must not hide it.
    started = now()
    try:
        with DeadlineScope(started + min(_ERROR_BODY_TIMEOUT, 0.9 * (call.deadline - started))):
            await response.read(_MAX_ERROR_BYTES, truncate=True)
    except NeuralBoxError as error:
        logger.debug("the body of a response with status %d broke: %s", response.status_code, type(error).__name__)
    finally:
        response.close()
    request = "" if call.attempt is None else f"{call.attempt.method} {call.attempt.url}"
    received = response.status_code, response.headers, response.received[:_MAX_ERROR_BYTES], request
    failure = status_errors.error_from(*received)
    masking.decode_failure(failure, status_errors.error_from, received, call.mask)
    return failure
