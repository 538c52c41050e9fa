"""
`AsyncNeuralBox`: what a user calls.

Each method checks, forms a request and hands it on; the work is done by `Caller` and `AsyncStream`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import attrs

from neuralbox_async import _options, _protocol, _sse
from neuralbox_async._batch import AsyncBatch, BatchOptions, OnUnknown
from neuralbox_async._calls import POLL_INTERVAL, Call, Caller, Shared, deadline_after, id_of
from neuralbox_async._errors import GenerationFailedError, InvalidParameterError, NeuralBoxError, ResponseError
from neuralbox_async._items import Defaults, Requests, check_requests
from neuralbox_async._logging import listen_as_told
from neuralbox_async._options import UNSET, ApiKey, CallOptions, Unset
from neuralbox_async._results import BatchProgress
from neuralbox_async._source import StreamLimits
from neuralbox_async._stream import AsyncStream
from neuralbox_async._types import GenerateRequest, Generation, GenerationId, Messages

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from neuralbox_async._retry import RetryPolicy
    from neuralbox_async._seam import Transport

_MAX_RESPONSE_BYTES = 64 * 1024 * 1024


class AsyncNeuralBox:
    """
    A client of the NeuralBox API.

    Make one and share it: it is safe for any number of tasks, event loops in turn, and threads with loops of their own.
    It opens connections at the first call; close it with ``async with`` or `aclose`.

    * *api_key*: the key, or a function, plain or async, that returns it (asked before each attempt, so that keys can
      rotate). Default: NEURALBOX_API_KEY.
    * *base_url*: default NEURALBOX_BASE_URL, then ``https://neuralbox.top/api/v2``. Plain http only to loopback, unless
      *allow_insecure*.
    * *timeout*: seconds that a call may take in all, retries and waits included; None for no limit. Streams have clocks
      of their own: *first_event_timeout* from the request to the first event, *stall_timeout* without content while
      waiting for it.
    * *connect_timeout*: seconds for a new connection: name look-up, TCP and TLS.
    * *max_retries*: how often a call that surely was not billed is tried again; *retry_policy* has the details.
    * *max_connections*: at the same time, at least 1; further calls wait. *reuse_connections*: False opens one for each
      call.
    * *proxy*: ``http://[user:password@]host:port``; the environment's proxies are not used by themselves.
      *ssl_context*: for certificates of your own.
    * *default_headers*: sent with every request.
    * *max_response_bytes*, *max_event_bytes*: the largest body, and the largest event of a stream, after decompression.
    * *transport*: carries the requests instead of aiohttp; for tests.

    Times are in seconds, above 0; None means no limit. Raises `InvalidParameterError`, which names parameter, value and
    rule.
    """

    def __init__(
        self,
        api_key: ApiKey | None = None,
        *,
        base_url: str | None = None,
        timeout: float | None = 600.0,
        connect_timeout: float | None = 10.0,
        first_event_timeout: float | None = 120.0,
        stall_timeout: float | None = 120.0,
        max_retries: int | Unset = UNSET,
        retry_policy: RetryPolicy | Unset = UNSET,
        max_connections: int = 1000,
        reuse_connections: bool = True,
        proxy: str | None = None,
        ssl_context: ssl.SSLContext | None = None,
        default_headers: Mapping[str, str] | None = None,
        max_response_bytes: int = _MAX_RESPONSE_BYTES,
        max_event_bytes: int = _sse.DEFAULT_MAX_EVENT_BYTES,
        allow_insecure: bool = False,
        transport: Transport | None = None,
    ) -> None:
        # Before anything can raise with them in a frame.
        api_key, default_headers = _options.conceal_key(api_key), _options.conceal_values(default_headers)
        base_url, proxy = _options.conceal(base_url), _options.conceal(proxy)
        listen_as_told()
        self._options = CallOptions().changed(
            timeout=timeout,
            first_event_timeout=first_event_timeout,
            stall_timeout=stall_timeout,
            max_retries=max_retries,
            retry_policy=retry_policy,
            headers=_options.check_headers("default_headers", default_headers),
        )
        self._max_event_bytes = _options.check_count("max_event_bytes", max_event_bytes, least=1)
        allow_insecure = _options.check_flag("allow_insecure", allow_insecure)
        checked_url = _options.check_base_url(base_url, allow_insecure=allow_insecure)
        proxy_url, proxy_headers = _options.split_proxy(proxy)
        _options.check_proxy_is_safe(proxy_url, checked_url, allow_insecure=allow_insecure)
        connections = _options.ConnectionOptions(
            connect_timeout=_options.check_seconds("connect_timeout", connect_timeout),
            max_connections=_options.check_count("max_connections", max_connections, least=1),
            reuse_connections=_options.check_flag("reuse_connections", reuse_connections),
            proxy=proxy_url,
            proxy_headers=proxy_headers,
            ssl_context=_options.check_ssl_context(ssl_context),
        )
        self._caller = Caller(
            shared=Shared(connections, transport),
            api_key=_options.resolve_key(api_key),
            base_url=checked_url,
            max_response_bytes=_options.check_count("max_response_bytes", max_response_bytes, least=1),
        )

    def __repr__(self) -> str:
        caller: Caller | None = getattr(self, "_caller", None)  # none yet, when a traceback shows a client half made
        return f"{type(self).__name__}({'' if caller is None else f'base_url={caller.base_url!r}'})"

    def __reduce__(self) -> NoReturn:
        msg = f"{type(self).__name__} is not pickled: it holds a key and connections; make one in each process"
        raise TypeError(msg)

    # -------------------------------------------------------------------------------------------------------- closing

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """
        Close all connections; calls and streams under way end with `ClientClosedError`. Idempotent.

        Clients that `with_options` derived from this one, or this one from them, are closed with it.
        """
        await self._caller.shared.aclose()

    def forget_inherited(self) -> None:
        """
        In a forked child: give up the parent's connections, without a word to the servers; new ones are made.

        For a client that the parent used before the fork; `neuralbox_sync.NeuralBox` does it by itself. Synchronous.
        """
        self._caller.shared.forget_inherited()

    @property
    def closed(self) -> bool:
        """Whether the client was closed; its methods then raise `ClientClosedError`."""
        return self._caller.shared.closed

    # -------------------------------------------------------------------------------------------------------- methods

    def with_options(
        self,
        *,
        api_key: ApiKey | Unset = UNSET,
        timeout: float | Unset | None = UNSET,
        first_event_timeout: float | Unset | None = UNSET,
        stall_timeout: float | Unset | None = UNSET,
        max_retries: int | Unset = UNSET,
        retry_policy: RetryPolicy | Unset = UNSET,
        default_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """
        Return a client with some options changed, which shares this one's connections.

        Cheap: make one per tenant or per request. *default_headers* are added to this client's. Raises
        `InvalidParameterError`.
        """
        api_key, default_headers = _options.conceal_key(api_key), _options.conceal_values(default_headers)
        derived = object.__new__(type(self))
        vars(derived).update(vars(self))
        derived._options = self._options.changed(
            timeout=timeout,
            first_event_timeout=first_event_timeout,
            stall_timeout=stall_timeout,
            max_retries=max_retries,
            retry_policy=retry_policy,
            headers=_options.check_headers("default_headers", default_headers),
        )
        if not isinstance(api_key, Unset):
            derived._caller = attrs.evolve(self._caller, api_key=_options.resolve_key(api_key))
        return derived

    async def generate(
        self,
        model: str,
        messages: Messages,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        wait: bool = False,
        timeout: float | Unset | None = UNSET,
        max_retries: int | Unset = UNSET,
        idempotency_key: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> Generation:
        """
        Generate text and return it whole.

        * *model*: a slug, such as ``"gpt-5"`` or ``"claude-sonnet-4.5"``.
        * *messages*: a string (one user message), or messages in order: `Message` values or dicts with ``role``
          (``system``, ``user``, ``assistant``) and ``content`` (a string, or text and image parts). The API keeps no
          history: send it all.
        * *system*: shorthand for a system message placed first.
        * *temperature*: 0.0 to 2.0; None leaves the API's default, 0.7. *max_tokens*: at least 1; None leaves the
          model's default.
        * *wait*: when the API answers ``pending``, poll until the generation is finished. Otherwise it is returned as
          it is.
        * *timeout* (seconds for everything, None for no limit) and *max_retries*: instead of the client's.
        * *idempotency_key*: sent with each attempt; made up when not given. The API documents no use of it.
        * *extra_headers*, *extra_body*: further headers, further top-level members of the body.

        Raises `InvalidParameterError` before anything is sent; `APIStatusError` and its kinds (`RateLimitError`,
        `InsufficientTokensError`, ...); `APIConnectionError`, `APITimeoutError`; `ResponseError`;
        `GenerationFailedError`. Each tells in *billed* whether it cost anything. What may have been billed is never
        sent again by itself.

        Source: the vendor's page "Text Generation" (POST /generate).
        """
        options = self._options
        if timeout is not UNSET or max_retries is not UNSET:
            options = options.changed(timeout=timeout, max_retries=max_retries)
        headers = self._headers(options, extra_headers, idempotency_key)
        request = None
        if not extra_body:
            request = _protocol.generate_plain(model, messages, system, temperature, max_tokens, headers=headers)
        if request is None:
            asked = GenerateRequest(
                model,
                messages,
                system=system,
                temperature=temperature,
                max_tokens=max_tokens,
                extra_body=extra_body or {},
            )
            request = _protocol.generate(asked, headers)
        call = Call(request, options)
        generation = await self._caller.answer(call, _protocol.load_generation)
        if not wait or generation.finished:
            return generation
        if generation.id is None:
            msg = "a pending generation without an id cannot be waited for"
            raise ResponseError(msg, path="$.id", body=repr(generation.raw).encode(errors="replace"))
        try:
            return await self._caller.wait(generation, options, call.deadline)
        except GenerationFailedError:
            raise
        except NeuralBoxError as error:
            # Of the questions, which cost nothing; but what they ask for may be billed when it is completed.
            error.billed, error.generation_id = "unknown", generation.id
            raise

    def stream(
        self,
        model: str,
        messages: Messages,
        *,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        recover: bool = True,
        timeout: float | None = None,
        first_event_timeout: float | Unset | None = UNSET,
        stall_timeout: float | Unset | None = UNSET,
        max_retries: int | Unset = UNSET,
        idempotency_key: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> AsyncStream:
        """
        Return a stream of the text as it is generated.

        ``async with client.stream(...) as stream:``, then ``async for text in stream.text:``.

        *model*, *messages*, *system*, *temperature*, *max_tokens*, *idempotency_key*, *extra_headers*, *extra_body*: as
        for `generate`. The request is sent when the stream is entered, which raises what `generate` raises; a wrong
        parameter raises here.

        * *timeout*: seconds for the whole stream; no limit by default. *first_event_timeout*: seconds from the request
          to the first event. *stall_timeout*: seconds of waiting without content (heartbeats do not count as content).
          None for no limit.
        * *recover*: when the stream breaks, ask the API for the finished generation and go on with the rest of its
          text, if it begins with what was delivered. Nothing is generated again.
        * *max_retries*: for the request; a stream that has begun is never requested again.

        Source: the vendor's "Streaming Guide" (POST /generate with ``"stream": true``); where that is not found, POST
        /generate/stream, which takes no pictures.
        """
        asked = GenerateRequest(
            model, messages, system=system, temperature=temperature, max_tokens=max_tokens, extra_body=extra_body or {}
        )
        options = self._options.changed(
            timeout=timeout,
            first_event_timeout=first_event_timeout,
            stall_timeout=stall_timeout,
            max_retries=max_retries,
        )
        limits = StreamLimits(
            timeout=options.timeout,
            first_event_timeout=options.first_event_timeout,
            stall_timeout=options.stall_timeout,
            max_event_bytes=self._max_event_bytes,
            max_response_bytes=self._caller.max_response_bytes,
        )
        caller = self._caller  # the stream needs no more of the client
        request = _protocol.stream(asked, self._headers(options, extra_headers, idempotency_key))
        mending = options.changed(timeout=self._options.timeout, headers=extra_headers)
        return AsyncStream(
            lambda: caller.stream(request, lambda: _protocol.stream_again(asked, request.headers), options),
            limits,
            (lambda generation_id, deadline: caller.recover(generation_id, mending, deadline)) if recover else None,
        )

    def generate_many(
        self,
        requests: Requests,
        *,
        model: str | None = None,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        max_concurrency: int = 64,
        ordered: bool = False,
        journal: str | os.PathLike[str] | None = None,
        on_unknown: OnUnknown = "skip",
        budget: int | None = None,
        check_balance: bool = False,
        pace: float | Literal["auto"] = "auto",
        on_progress: Callable[[BatchProgress], object] | None = None,
        timeout: float | Unset | None = UNSET,
        max_retries: int | Unset = UNSET,
    ) -> AsyncBatch:
        """
        Return a batch that generates for each of *requests*, many at a time, and gives each result when it is there.

        ``async with client.generate_many(...) as results:``, then ``async for result in results:``. One failure never
        stops the rest; it is a result as well.

        * *requests*: an iterable or async iterable, read as far as needed, of `GenerateRequest` values, strings, or
          dicts with ``messages`` or ``prompt``, perhaps ``key`` and other fields; further members go into the body.
        * *model*, *system*, *temperature*, *max_tokens*: for strings, and for dicts that do not have them.
        * *max_concurrency*: how many are in flight at most; a batch leaves 2 % of the client's *max_connections*, 10 at
          most, to other calls.
        * *ordered*: give the results in the order of the requests.
        * *journal*: a file that remembers what was sent and what came of it. With the same file again, what is done is
          skipped, what is pending is waited for, and what may have been billed without an answer is treated by
          *on_unknown*: ``"skip"`` (its result is an `OutcomeUnknownError`), ``"retry"``, ``"ask"`` (entering raises
          that error, with all keys, before anything is sent), or a function that returns for a key whether to retry.
        * *budget*: NeuralBox tokens that are spent at most, with a journal by all its runs together; *check_balance*:
          ask for the balance first, and spend no more than that in this run.
        * *pace*: ``"auto"`` finds out how many at a time the server takes, or the number of requests per second. Either
          way limits of the plan are kept, and waited for when they are reached.
        * *on_progress*: called with a `BatchProgress`, at most some 10 times a second.
        * *timeout*, *max_retries*: of each request; waits for limits do not count.

        After 401, 402, 403 ``insufficient_plan``, at the end of the budget, or when the journal cannot be written, no
        more is sent: `AsyncBatch.report` has the error in *stopped_by*. Raises `InvalidParameterError` at once.
        """
        check_requests(requests)
        defaults = Defaults(model=model, system=system, temperature=temperature, max_tokens=max_tokens)
        plan = BatchOptions(
            max_concurrency=max_concurrency,
            ordered=ordered,
            journal=journal,
            on_unknown=on_unknown,
            budget=budget,
            check_balance=check_balance,
            pace=pace,
            on_progress=on_progress,
        )
        options = self._options.changed(timeout=timeout, max_retries=max_retries)
        return AsyncBatch(self._caller, options, requests, defaults, plan)

    async def retrieve(
        self,
        generation: Generation | GenerationId,
        *,
        timeout: float | Unset | None = UNSET,
        max_retries: int | Unset = UNSET,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Generation:
        """
        Return the present state of *generation*, given as such or by its id. Costs nothing.

        Of the two documented paths one is tried, on 404 the other; what worked is remembered. *timeout*, *max_retries*,
        *extra_headers*: as for `generate`. Raises what `generate` raises: `GenerationFailedError` when it failed,
        `NotFoundError` when there is none.

        Source: the vendor's pages "Generation status" and "History" (GET /generate/{id}, GET /generate/status/{id}).
        """
        generation_id = id_of(generation)
        options = self._options.changed(timeout=timeout, max_retries=max_retries)
        headers = {**options.headers, **_options.check_headers("extra_headers", extra_headers)}
        return await self._caller.retrieve(generation_id, options, deadline_after(options.timeout), headers)

    async def wait(
        self,
        generation: Generation | GenerationId,
        *,
        timeout: float | None = 300.0,
        poll_interval: float = POLL_INTERVAL,
    ) -> Generation:
        """
        Poll until *generation*, given as such or by its id, is completed, and return it.

        *timeout*: seconds in all, None for no limit; *poll_interval*: seconds between two questions, above 0. Transient
        failures are lived through. Raises `GenerationFailedError` when it failed, and `WaitTimeoutError`, which has the
        last state, when time is over.

        Source: the vendor's page "Generation status" (poll every 5 s).
        """
        interval = _options.check_seconds("poll_interval", poll_interval)
        if interval is None:
            raise InvalidParameterError("poll_interval", poll_interval, "a number of seconds above 0")
        deadline = deadline_after(_options.check_seconds("timeout", timeout))
        if isinstance(generation, Generation):
            return await self._caller.wait(generation, self._options, deadline, interval=interval)
        state = Generation(id=id_of(generation), status="pending")
        return await self._caller.wait(state, self._options, deadline, interval=interval, at_once=True)

    def _headers(
        self, options: CallOptions, extra_headers: Mapping[str, str] | None, idempotency_key: str | None
    ) -> dict[str, str]:
        """Return the headers of a POST: one key for all attempts of one call."""
        if idempotency_key is None:
            idempotency_key = os.urandom(16).hex()
        else:
            _options.check_idempotency_key(idempotency_key)
        headers = {**options.headers, "Idempotency-Key": idempotency_key}
        if extra_headers is not None:
            headers.update(_options.check_headers("extra_headers", extra_headers))
        return headers
