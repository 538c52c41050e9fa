"""
One logical call: the only loop that attempts, the only sleep between attempts, the deadline around both.

Polling stands on top of it: each question is a call of its own.
"""

from __future__ import annotations

import math
import random
import sys
import threading
from collections.abc import Awaitable
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urljoin, urlsplit

import attrs

from neuralbox_async import _options, _protocol
from neuralbox_async._errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    ClientClosedError,
    ConflictError,
    GenerationFailedError,
    InvalidParameterError,
    NeuralBoxError,
    NotFoundError,
    RateLimitError,
    UnprocessableRequestError,
    WaitTimeoutError,
)
from neuralbox_async._loading import anyio
from neuralbox_async._logging import logger
from neuralbox_async._pacing import RateLimits
from neuralbox_async._retry import RetryBudget
from neuralbox_async._seam import Deadline, Delivery, now
from neuralbox_async._secret import Secret
from neuralbox_async._types import Generation, checked_text
from neuralbox_async._version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from neuralbox_async._options import CallOptions, ConnectionOptions
    from neuralbox_async._seam import Response, Transport
    from neuralbox_async._types import GenerationId

T = TypeVar("T")

POLL_INTERVAL = 5.0
_RECOVERY_INTERVAL = 0.5
_LONGEST_ETA = 30.0
_MAX_ERROR_BYTES = 1024 * 1024
_ERROR_BODY_TIME = 5.0
_QUESTION_TIME = 30.0
_NAP = 0.5
_AMPLE, _SLOWEST = 0.25, 0.25  # of the hour's requests: polling slows down below; of its pace: the least
_LAST_QUESTION = 0.9  # of the time that is left: the last one needs time for its answer
_MAX_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
_NOTHING_SENT = Delivery()
_USER_AGENT = f"neuralbox-python/{__version__} {sys.implementation.name}/{'.'.join(map(str, sys.version_info[:3]))}"


@attrs.define(eq=False)
class Shared:
    """What a client and those derived from it have in common."""

    connections: ConnectionOptions
    given_transport: Transport | None = None
    budget: RetryBudget = attrs.field(factory=RetryBudget)
    limits: RateLimits = attrs.field(factory=RateLimits)  # what the answers told of them
    status_paths: tuple[str, ...] = _protocol.STATUS_PATHS  # the one that worked last comes first
    streams_at_second: bool = False  # of the two documented entries
    closed: bool = False
    _transport: Transport | None = attrs.field(default=None, init=False)
    _lock: threading.Lock = attrs.field(factory=threading.Lock, init=False)

    @property
    def transport(self) -> Transport:
        """What carries the requests: made, and aiohttp loaded, when the first one is sent."""
        return self._transport or self._new_transport()

    def _new_transport(self) -> Transport:
        with self._lock:
            if self._transport is None:
                self._transport = self.given_transport or _aiohttp_transport(self.connections)
            return self._transport

    async def aclose(self) -> None:
        """Close everything, for good."""
        self.closed = True
        if self._transport is not None or self.given_transport is not None:
            await self.transport.aclose()

    def forget_inherited(self) -> None:
        """In a forked child: give up the parent's connections."""
        self._lock = threading.Lock()
        forget = getattr(self._transport, "forget_inherited", None)
        if forget is not None:
            forget()


def _aiohttp_transport(connections: ConnectionOptions) -> Transport:
    from neuralbox_async._transport import AiohttpTransport  # aiohttp takes longer to load than all else together

    return AiohttpTransport(connections)


def _deadline_of(call: Call) -> float:
    seconds = call.options.timeout
    return math.inf if seconds is None else call.started + seconds


@attrs.define(eq=False)
class Call:
    """The same request on each attempt, and what is known of the attempts. *deadline*: by default that of *options*."""

    request: _protocol.Request
    options: CallOptions
    started: float = attrs.field(factory=now, init=False)
    deadline: float = attrs.field(default=attrs.Factory(_deadline_of, takes_self=True))
    attempts: int = 0
    delivery: Delivery = _NOTHING_SENT
    response: Response | None = None
    earlier: NeuralBoxError | None = None  # the failure of the attempt before this one
    key: Secret = attrs.field(default=Secret(), repr=False)  # what the attempt was authorised with

    @property
    def maybe_billed(self) -> bool:
        """Whether what has been done so far may have been billed, if it goes no further."""
        if self.request.idempotent:
            return False
        return self.delivery.sent or (self.earlier is not None and self.earlier.billed == "unknown")

    def describe(self, error: NeuralBoxError) -> NeuralBoxError:
        """Put on *error* what is known of the call, and return it."""
        error.attempts = self.attempts
        error.elapsed = now() - self.started
        if self.key:
            error.redact(self.key)
        error.idempotency_key = self.request.headers.get("Idempotency-Key")
        if self.request.idempotent:
            error.billed = "no"
        elif self.earlier is not None:
            error.request_sent = error.request_sent or self.earlier.request_sent
            if self.earlier.billed == "unknown" and error.billed == "no":
                error.billed = "unknown"
        return error

    def timed_out(self, phase: str) -> NeuralBoxError:
        """Return the error of a call that its deadline ended."""
        seconds = self.deadline - self.started
        msg = f"no complete answer within {round(seconds, 2):g} s"
        error = APITimeoutError(msg, phase=phase, request_sent=self.delivery.sent)
        if self.response is not None:
            error.body = self.response.received
        return self.describe(error)


@attrs.frozen(kw_only=True)
class Caller:
    """Carries out requests for a client: with its key, to its base URL, over the connections it shares."""

    shared: Shared
    api_key: Secret | Callable[[], str] | Callable[[], Awaitable[str]] = attrs.field(repr=False)
    base_url: str
    max_response_bytes: int
    _known_headers: Mapping[str, str] = attrs.field(
        default=attrs.Factory(lambda self: _known_headers(self.api_key), takes_self=True), init=False, repr=False
    )

    async def answer(self, call: Call, load: Callable[[int, Mapping[str, str], bytes], T]) -> T:
        """Carry out *call* to the last byte of its answer and return what *load* finds in it."""
        with Deadline(call.deadline):
            response = await self._send(call)
            try:
                return load(response.status, response.headers, await response.read(self.max_response_bytes))
            except NeuralBoxError as error:
                if isinstance(error, APIConnectionError):
                    error.body = response.received
                # Without the frames below: they hold the body, which may echo the key.
                raise call.describe(error).with_traceback(None)  # noqa: B904 - it is the same error
            finally:
                response.close()  # of no effect unless the body was left unread
        raise call.timed_out("total")

    async def stream(
        self, first: _protocol.Request, second: Callable[[], _protocol.Request | None], options: CallOptions
    ) -> tuple[Response, Callable[[NeuralBoxError], NeuralBoxError]]:
        """
        Request a stream at the first documented entry, on 404 at the second, where it has a form for it.

        A 404 costs nothing. What worked is tried first the next time. Returns the open answer, and what describes its
        failures.
        """
        entries: list[Callable[[], _protocol.Request | None]] = [lambda: first, second]
        if self.shared.streams_at_second:
            entries.reverse()
        not_found: NotFoundError | None = None
        for entry in entries:
            request = entry()
            if request is None:
                continue
            try:
                opened = await self.response(request, options)
            except NotFoundError as error:
                not_found = not_found or error
                continue
            self.shared.streams_at_second = request is not first
            return opened
        raise not_found or AssertionError  # there always is the first

    async def response(
        self, request: _protocol.Request, options: CallOptions
    ) -> tuple[Response, Callable[[NeuralBoxError], NeuralBoxError]]:
        """Carry out *request* to the head of its answer, for a stream; return also what describes its failures."""
        total, first = (deadline_after(seconds) for seconds in (options.timeout, options.first_event_timeout))
        call = Call(request, options, min(total, first))
        with Deadline(call.deadline):
            return await self._send(call), call.describe
        raise call.timed_out("total" if total <= first else "first_event")

    async def _send(self, call: Call) -> Response:
        """Attempt *call* until an answer with status 200 comes, or a failure that is not repeated."""
        shared, request, refund = self.shared, call.request, 1
        while True:
            call.attempts += 1
            try:
                # All of an attempt that succeeds stands here, without a coroutine of its own.
                self._check_open()
                call.delivery, call.response = Delivery(), None
                if isinstance(self.api_key, Secret):
                    call.key, known = self.api_key, self._known_headers
                else:
                    call.key = await self._ask_for_key(self.api_key)
                    known = _known_headers(call.key)
                headers, url = _headers(known, request), self.base_url + request.path
                response = await shared.transport.send(request.method, url, headers, request.body, call.delivery)
                self._note(call, response)
                if not _protocol.is_success(response.status):
                    response = await self._redirected(call, response, headers, url)
            except NeuralBoxError as error:
                call.describe(error)
                if call.earlier is not None and _is_refused_as_repeated(error, call.earlier):
                    raise call.describe(call.earlier) from error
                delay = self._delay(call, error)
                if delay is None or (cost := shared.budget.take(error)) is None:
                    raise
                refund, call.earlier, call.delivery = cost, error, _NOTHING_SENT
            else:
                shared.budget.give_back(refund)
                return response
            logger.info("%s %s: again in %.2f s", request.method, request.path, delay)
            await self._sleep(delay)

    def _note(self, call: Call, response: Response) -> None:
        call.response = response
        self.shared.limits.observe(response.headers, counted=not call.request.idempotent)
        logger.debug("%s %s: %d", call.request.method, call.request.path, response.status)

    async def _redirected(self, call: Call, response: Response, headers: Mapping[str, str], url: str) -> Response:
        """Return the answer with status 200 to which *response* leads. Raises the error that an answer means."""
        request = call.request
        redirects = 0
        while not _protocol.is_success(response.status):
            target = _redirect(request, url, response)
            if target is None:
                error = await _error_of(response, call.deadline)
                if isinstance(error, RateLimitError):
                    self.shared.limits.refused(error)
                raise error
            response.close()
            redirects, url = redirects + 1, target
            if redirects > _MAX_REDIRECTS:
                msg = f"more than {_MAX_REDIRECTS} redirects"
                raise APIConnectionError(msg, request_sent=True, retryable=False)
            response = await self.shared.transport.send(request.method, url, headers, request.body, call.delivery)
            self._note(call, response)
        return response

    async def _sleep(self, seconds: float) -> None:
        """Sleep, and wake up soon when the client is closed, by whichever loop or thread."""
        end = now() + seconds
        # No event: that would belong to one loop, and a client to many.
        while (left := end - now()) > 0 and not self.shared.closed:
            await anyio.sleep(min(left, _NAP))

    def _delay(self, call: Call, error: NeuralBoxError) -> float | None:
        logger.debug(
            "%s %s: attempt %d: %s", call.request.method, call.request.path, call.attempts, type(error).__name__
        )
        remaining = call.deadline - now()
        return call.options.retry.delay(call.attempts, error, idempotent=call.request.idempotent, remaining=remaining)

    def _check_open(self) -> None:
        if self.shared.closed:
            msg = "the client is closed"
            raise ClientClosedError(msg)

    @staticmethod
    async def _ask_for_key(source: Callable[[], str] | Callable[[], Awaitable[str]]) -> Secret:
        found = _options.conceal_found_key(source())
        if isinstance(found, Awaitable):
            found = _options.conceal_found_key(await found)
        return _options.check_key(found)

    # -------------------------------------------------------------------------------------------------------- polling

    async def retrieve(
        self, generation_id: GenerationId, options: CallOptions, deadline: float, headers: Mapping[str, str]
    ) -> Generation:
        """
        Return the state of a generation: from one documented path, on 404 from the other.

        What worked is tried first the next time.
        """
        paths = self.shared.status_paths
        not_found: NotFoundError | None = None
        for path in paths:
            try:
                call = Call(_protocol.retrieve(generation_id, path, headers), options, deadline)
                generation = await self.answer(call, _protocol.load_generation)
            except NotFoundError as error:
                not_found = not_found or error
                continue
            except GenerationFailedError:
                self._remember(path)
                raise
            self._remember(path)
            return generation
        raise not_found or AssertionError  # there always is a path

    def _remember(self, path: str) -> None:
        if self.shared.status_paths[0] != path:
            self.shared.status_paths = (path, *(other for other in self.shared.status_paths if other != path))

    async def wait(
        self,
        state: Generation,
        options: CallOptions,
        deadline: float,
        *,
        interval: float = POLL_INTERVAL,
        at_once: bool = False,
    ) -> Generation:
        """Poll until the generation is finished, or *deadline*; *at_once*: ask first, then wait."""
        started = now()
        failures, asked = 0, 0.0
        while not state.finished:
            if not at_once:
                pause = max(asked, interval * 2**failures / self._headroom())
                await self._sleep(_pause(state, pause, deadline))
                self._check_open()
            at_once = False
            try:
                # A clock for each question: one that is never answered must not use up all the time.
                soon = min(deadline, now() + _QUESTION_TIME)
                state = await self.retrieve(id_of(state), options, soon, options.headers)
            except (APIConnectionError, APIStatusError) as error:
                if not is_transient(error):
                    raise
                failures, asked = min(failures + 1, 3), getattr(error, "retry_after", None) or 0.0
            else:
                failures, asked = 0, 0.0
            if not state.finished and now() >= deadline:
                raise _waited_out(state, now() - started)
        if state.status == "failed":
            raise _protocol.failed(state)
        return state

    def _headroom(self) -> float:
        """Return how much of the pace of polling the rate limits leave: 1, or less when little of the hour is left."""
        hour = self.shared.limits.hour
        if not hour.limit or hour.remaining is None:
            return 1.0
        return min(1.0, max(_SLOWEST, hour.remaining / hour.limit / _AMPLE))

    async def recover(self, generation_id: GenerationId, options: CallOptions, deadline: float) -> Generation:
        """Return the finished generation whose stream broke. Raises what `wait` raises."""
        state = Generation(id=generation_id, status="pending")
        bound = min(deadline, deadline_after(options.stall_timeout), deadline_after(options.timeout))
        return await self.wait(state, options, bound, interval=_RECOVERY_INTERVAL, at_once=True)


def deadline_after(seconds: float | None) -> float:
    """Return the moment (of `now`) that is *seconds* away, or infinity for None."""
    return math.inf if seconds is None else now() + seconds


def id_of(generation: Generation | GenerationId) -> GenerationId:
    """Return the id that *generation* has or is. Raises `InvalidParameterError`."""
    found = generation.id if isinstance(generation, Generation) else generation
    if not isinstance(found, str | int) or isinstance(found, bool) or found in {"", ".", ".."}:
        raise InvalidParameterError("generation", found, "a generation with an id, or an id")
    return checked_text("generation", found) if isinstance(found, str) else found


def is_transient(error: NeuralBoxError) -> bool:
    """Return whether asking again, which costs nothing, may help."""
    if isinstance(error, APIStatusError):
        return error.status in _TRANSIENT
    return isinstance(error, APIConnectionError) and error.retryable


def _pause(state: Generation, interval: float, deadline: float) -> float:
    """Return the seconds until the next question."""
    # Jitter: a thousand generations started together are not asked for together.
    eta = min(_LONGEST_ETA, state.eta_seconds or 0.0)
    pause = max(interval, eta) * random.uniform(0.9, 1.1)  # noqa: S311 - no secret
    left = deadline - now()
    return max(0.0, min(pause, left if left < _NAP / 10 else left * _LAST_QUESTION))


def _waited_out(state: Generation, elapsed: float) -> WaitTimeoutError:
    error = WaitTimeoutError(
        f"generation {state.id} was still {state.status} after {round(elapsed, 2):g} s", generation=state
    )
    error.generation_id, error.elapsed = state.id, elapsed
    return error


def _known_headers(key: object) -> dict[str, str]:
    """Return the headers of every request with *key*; none while only a function knows it."""
    return {"Authorization": Secret("Bearer " + key), "User-Agent": _USER_AGENT} if isinstance(key, Secret) else {}


def _headers(known: Mapping[str, str], request: _protocol.Request) -> dict[str, str]:
    # Few: aiohttp takes 1 us for each.
    headers = {**known, **request.headers}
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    if request.stream:
        headers["Accept"] = "text/event-stream"
        # A stream that was compressed and cut can look complete, and compression delays its events.
        headers["Accept-Encoding"] = "identity"
    return headers


def _redirect(request: _protocol.Request, url: str, response: Response) -> str | None:
    """Return where to go on: for a GET, to the same origin. Anywhere else would be told the key, or bill again."""
    location = response.headers.get("location")
    if request.method != "GET" or response.status not in _REDIRECTS or not location:
        return None
    try:
        target = urljoin(url, location)
        here, there = urlsplit(url), urlsplit(target)
    except ValueError:
        return None
    return target if (here.scheme, here.netloc) == (there.scheme, there.netloc) else None


def _is_refused_as_repeated(error: NeuralBoxError, earlier: NeuralBoxError) -> bool:
    """Return whether *error* only says that the key of an earlier attempt, whose outcome is unknown, was used again."""
    return earlier.billed == "unknown" and isinstance(error, ConflictError | UnprocessableRequestError)


async def _error_of(response: Response, deadline: float) -> APIStatusError:
    # The status has come and says what matters: a body that does not come, or not in time, must not hide it.
    started = now()
    try:
        with Deadline(started + min(_ERROR_BODY_TIME, 0.9 * (deadline - started))):
            await response.read(_MAX_ERROR_BYTES, truncate=True)
    except NeuralBoxError as error:
        logger.debug("the body of an answer with status %d broke off: %s", response.status, type(error).__name__)
    finally:
        response.close()
    return _protocol.error_from(response.status, response.headers, response.received[:_MAX_ERROR_BYTES])
