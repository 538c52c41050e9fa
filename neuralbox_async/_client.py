"""`AsyncNeuralBox`: it validates parameters and forms requests, which `Executor` and other classes send."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self

from neuralbox_async import _options
from neuralbox_async._account_methods import AccountMethods
from neuralbox_async._api_key import ApiKey, as_secret_key, check_key_source, resolve_key
from neuralbox_async._async_only import AsyncOnly
from neuralbox_async._batch_methods import BatchMethods
from neuralbox_async._call.executor import Call, Executor
from neuralbox_async._call.monitor import Monitor
from neuralbox_async._call.shared_state import SharedState
from neuralbox_async._clock import time_after
from neuralbox_async._http.transport import Transport
from neuralbox_async._lazy_imports import lazy_module
from neuralbox_async._logging import configure_from_env
from neuralbox_async._observers import Observer, check_observers
from neuralbox_async._options import NOT_GIVEN, CallOptions, NotGiven
from neuralbox_async._parse_methods import ParseMethods
from neuralbox_async._retry import RetryPolicy
from neuralbox_async._secret import as_secret, as_secret_values
from neuralbox_async._stream_methods import StreamMethods
from neuralbox_async._types import Generation, GenerationId, Messages
from neuralbox_async._validation import check_count, check_flag, check_headers, check_interval, check_seconds

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from neuralbox_async._call import generating, polling
    from neuralbox_async._wire import endpoints
else:  # with the first call, like all that only calls need
    generating = lazy_module("neuralbox_async._call.generating")
    polling = lazy_module("neuralbox_async._call.polling")
    endpoints = lazy_module("neuralbox_async._wire.endpoints")


class AsyncNeuralBox(StreamMethods, BatchMethods, ParseMethods, AccountMethods, AsyncOnly):
    """
    A client of the NeuralBox API.

    Create one and share it: it is safe for any number of tasks, for consecutive event loops, and for threads with loops
    of their own. It opens connections at the first call; close it with ``async with`` or `aclose`.

    * *api_key*: the key, or a function, plain or async, that returns it (called before each attempt, so that keys can
      rotate). Default: NEURALBOX_API_KEY.
    * *base_url*: default NEURALBOX_BASE_URL, then ``https://neuralbox.top/api/v2``. Plain http only to loopback, unless
      *allow_insecure*.
    * *timeout*: seconds for a whole call, retries and waits included; None for no limit. Default: 600 s for a call, no
      limit for a stream; a value that you set holds for both. Streams have two more: *first_event_timeout* from the
      request to the first event, *stall_timeout* of waiting without content.
    * *connect_timeout*: seconds for a new connection: name resolution, TCP and TLS.
    * *max_retries*: how often a call that was certainly not billed is retried; *retry_policy* has the details.
    * *max_connections*: connections at the same time, at least 1; further calls wait. *reuse_connections*: False opens
      one for each call, for a gateway that sends surplus responses.
    * *proxy*: ``http://[user:password@]host:port``. Default: that of HTTPS_PROXY, HTTP_PROXY or ALL_PROXY, read now,
      unless NO_PROXY excludes the host, or *trust_env* is False. *ssl_context*: for certificates of your own.
    * *default_headers*: sent with every request.
    * *max_response_bytes*, *max_event_bytes*: the largest body, and the largest event of a stream, after decompression.
    * *transport*: carries the requests instead of aiohttp; for tests. *observers*: get the events of calls.

    Times are in seconds, above 0; None means no limit. Raises `InvalidParameterError`.
    """

    def __init__(
        self,
        api_key: ApiKey | None = None,
        *,
        base_url: str | None = None,
        timeout: float | NotGiven | None = NOT_GIVEN,
        connect_timeout: float | None = _options.DEFAULT_CONNECT_TIMEOUT,
        first_event_timeout: float | None = _options.DEFAULT_FIRST_EVENT_TIMEOUT,
        stall_timeout: float | None = _options.DEFAULT_STALL_TIMEOUT,
        max_retries: int | NotGiven = NOT_GIVEN,
        retry_policy: RetryPolicy | NotGiven = NOT_GIVEN,
        max_connections: int = _options.DEFAULT_MAX_CONNECTIONS,
        reuse_connections: bool = True,
        proxy: str | None = None,
        trust_env: bool = True,
        ssl_context: ssl.SSLContext | None = None,
        default_headers: Mapping[str, str] | None = None,
        max_response_bytes: int = _options.DEFAULT_MAX_RESPONSE_BYTES,
        max_event_bytes: int = _options.DEFAULT_MAX_EVENT_BYTES,
        allow_insecure: bool = False,
        transport: Transport | None = None,
        observers: Iterable[Observer] | None = None,
    ) -> None:
        # Before anything can raise with them in a frame.
        api_key, default_headers = as_secret_key(api_key), as_secret_values(default_headers)
        base_url, proxy = as_secret(base_url), as_secret(proxy)
        configure_from_env()
        self._options = CallOptions().replace(
            timeout=timeout,
            first_event_timeout=first_event_timeout,
            stall_timeout=stall_timeout,
            max_retries=max_retries,
            retry_policy=retry_policy,
            headers=check_headers("default_headers", default_headers),
        )
        self._max_event_bytes = check_count("max_event_bytes", max_event_bytes, minimum=1)
        base_url = _options.check_base_url(base_url, allow_insecure=check_flag("allow_insecure", allow_insecure))
        self._executor = Executor(
            base_url=base_url,
            api_key=resolve_key(api_key),
            max_response_bytes=check_count("max_response_bytes", max_response_bytes, minimum=1),
            monitor=Monitor(own_observers=check_observers(observers)),
            shared=SharedState(
                _options.ConnectionOptions.checked(
                    connect_timeout=connect_timeout,
                    max_connections=max_connections,
                    reuse_connections=reuse_connections,
                    proxy=proxy,
                    trust_env=check_flag("trust_env", trust_env) and transport is None,
                    ssl_context=ssl_context,
                    base_url=base_url,
                    allow_insecure=allow_insecure,
                ),
                transport,
            ),
        )

    def __repr__(self) -> str:
        executor: Executor | None = getattr(self, "_executor", None)  # None in the traceback of a failed constructor
        return f"{type(self).__name__}({'' if executor is None else f'base_url={executor.base_url!r}'})"

    def __reduce__(self) -> NoReturn:
        msg = f"{type(self).__name__} cannot be pickled: it holds a key and connections; make one in each process"
        raise TypeError(msg)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """
        Close it and the clients that `with_options` derived; running calls raise `ClientClosedError`. Idempotent.

        A derived client closes no connections: its requests in flight finish, and only further ones raise the error.
        """
        await self._executor.aclose()

    @property
    def closed(self) -> bool:
        """Whether the client was closed; its methods then raise `ClientClosedError`."""
        return self._executor.lifetime.closed

    def with_options(
        self,
        *,
        api_key: ApiKey | NotGiven = NOT_GIVEN,
        timeout: float | NotGiven | None = NOT_GIVEN,
        first_event_timeout: float | NotGiven | None = NOT_GIVEN,
        stall_timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        retry_policy: RetryPolicy | NotGiven = NOT_GIVEN,
        default_headers: Mapping[str, str] | None = None,
    ) -> Self:
        """
        Return a client with some options changed, which shares this one's connections.

        Cheap: create one for each tenant or request. Another *api_key* has rate limits and a retry budget of its own;
        *default_headers* are added. Closing it leaves this client open. Raises `InvalidParameterError`.
        """
        api_key, default_headers = as_secret_key(api_key), as_secret_values(default_headers)
        derived = object.__new__(type(self))
        vars(derived).update(vars(self))
        derived._options = self._options.replace(
            timeout=timeout,
            first_event_timeout=first_event_timeout,
            stall_timeout=stall_timeout,
            max_retries=max_retries,
            retry_policy=retry_policy,
            headers=check_headers("default_headers", default_headers),
        )
        key = None if isinstance(api_key, NotGiven) else check_key_source(api_key)
        derived._executor = self._executor.derive(key)
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
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        idempotency_key: str | None = None,
        extra_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
    ) -> Generation:
        """
        Generate text and return it whole.

        * *model*: a slug, such as ``"gpt-5"`` or ``"claude-sonnet-4.5"``.
        * *messages*: a string (one user message), or messages in order: `Message` values or dicts with ``role``
          (``system``, ``user``, ``assistant``) and ``content`` (a string, or text and image parts). The API keeps no
          history: send all of it.
        * *system*: shorthand for a system message placed first.
        * *temperature*: 0.0 to 2.0; None leaves the API's default, 0.7. *max_tokens*: at least 1; None leaves the
          model's default.
        * *wait*: when the API responds with ``pending``, poll until the generation is finished. Otherwise the pending
          generation is returned.
        * *timeout* (seconds in total, None for no limit) and *max_retries*: instead of the client's.
        * *idempotency_key*: sent with each attempt; generated if omitted. The API documents no use of it.
        * *extra_headers*, *extra_body*: further headers, further top-level members of the body.

        Raises `InvalidParameterError` before anything is sent; `APIStatusError` and its subclasses (`RateLimitError`,
        `InsufficientTokensError`, ...); `APIConnectionError`, `APITimeoutError`; `ResponseError`;
        `GenerationFailedError`. Each has the billing status in *billed*. A request that may have been billed is never
        sent again automatically.

        Source: the vendor's page "Text Generation" (POST /generate).
        """
        options = self._options
        if timeout is not NOT_GIVEN or max_retries is not NOT_GIVEN:
            options = options.replace(timeout=timeout, max_retries=max_retries)
        headers = options.post_headers(extra_headers, idempotency_key)
        request = endpoints.generate_from(
            model, messages, system, temperature, max_tokens, extra_body=extra_body, headers=headers
        )
        return await generating.generate(self._executor, Call(request, options), wait=wait)

    async def retrieve(
        self,
        generation: Generation | GenerationId,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Generation:
        """
        Return the current state of *generation*, a generation or its id. Costs nothing.

        Tries one of the two documented paths, after a 404 the other, and remembers the one that worked. *timeout*,
        *max_retries*, *extra_headers*: as for `generate`. Raises the errors of `generate`: `GenerationFailedError` when
        it failed, `NotFoundError` when there is no such generation.

        Source: the vendor's pages "Generation status" and "History" (GET /generate/{id}, GET /generate/status/{id}).
        """
        generation_id = polling.id_of(generation)
        options = self._options.replace(timeout=timeout, max_retries=max_retries)
        headers = options.get_headers(extra_headers)
        return await polling.retrieve(self._executor, generation_id, options, time_after(options.timeout), headers)

    async def wait(
        self,
        generation: Generation | GenerationId,
        *,
        timeout: float | None = _options.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float | NotGiven = NOT_GIVEN,
    ) -> Generation:
        """
        Poll until *generation*, a generation or its id, is completed, and return it.

        *timeout*: seconds in all, None for no limit. *poll_interval*: seconds between two status requests, above 0; by
        default 5, or the ``eta_seconds`` of the API, up to 30. It varies by 10 %, and grows after failures and near the
        rate limit. Transient failures are retried. Raises `GenerationFailedError` when it failed, and
        `WaitTimeoutError`, which has the last state, when *timeout* expires.

        Source: the vendor's page "Generation status" (poll every 5 s).
        """
        interval = None if poll_interval is NOT_GIVEN else check_interval("poll_interval", poll_interval)
        deadline = time_after(check_seconds("timeout", timeout))
        if isinstance(generation, Generation):
            return await polling.wait(self._executor, generation, self._options, deadline, interval=interval)
        state = Generation(id=polling.id_of(generation), status="pending")
        return await polling.wait(self._executor, state, self._options, deadline, interval=interval, immediately=True)
