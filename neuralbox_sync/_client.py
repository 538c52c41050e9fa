"""`NeuralBox`: the blocking client."""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from neuralbox_async import (
    NOT_GIVEN,
    ApiKey,
    AsyncNeuralBox,
    Generation,
    GenerationId,
    Messages,
    NotGiven,
    Observer,
    RetryPolicy,
    Transport,
    _options,
)
from neuralbox_sync._account_methods import AccountMethods
from neuralbox_sync._batch_methods import BatchMethods
from neuralbox_sync._blocking import documented_by, read_here
from neuralbox_sync._caller_key import called_in_caller
from neuralbox_sync._loop import EventLoop
from neuralbox_sync._parse_methods import ParseMethods
from neuralbox_sync._stream_methods import StreamMethods

if TYPE_CHECKING:
    import ssl


class NeuralBox(StreamMethods, BatchMethods, ParseMethods, AccountMethods):
    """
    A client of the NeuralBox API for blocking code.

        with NeuralBox() as client:
            reply = client.generate("gpt-5", "Write a haiku")

    It runs an `AsyncNeuralBox` on an event loop in a thread of its own. Parameters, methods and errors are the same;
    `AsyncNeuralBox` describes the parameters. One client serves any number of threads, and it works in forked processes
    as well. Ctrl-C cancels the call that it interrupts, on the server as well.
    """

    # Signatures are written out, because editors read them without running the code. A test compares them with those of
    # `AsyncNeuralBox`.

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
        try:
            api_key = called_in_caller(api_key)
            client = AsyncNeuralBox(
                api_key,
                base_url=base_url,
                timeout=timeout,
                connect_timeout=connect_timeout,
                first_event_timeout=first_event_timeout,
                stall_timeout=stall_timeout,
                max_retries=max_retries,
                retry_policy=retry_policy,
                max_connections=max_connections,
                reuse_connections=reuse_connections,
                proxy=proxy,
                trust_env=trust_env,
                ssl_context=ssl_context,
                default_headers=default_headers,
                max_response_bytes=max_response_bytes,
                max_event_bytes=max_event_bytes,
                allow_insecure=allow_insecure,
                transport=transport,
                observers=observers,
            )
        finally:
            del api_key, base_url, proxy, default_headers  # no frame of a traceback may hold a secret
        super().__init__(client, EventLoop(client.aclose))
        weakref.finalize(self, self._loop.finalize).atexit = False

    @documented_by(AsyncNeuralBox.with_options)
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
        """Return a client with some options changed, which shares this one's connections."""
        derived = object.__new__(type(self))
        vars(derived).update(vars(self))  # attributes of a subclass
        try:
            api_key = called_in_caller(api_key)
            client = self._subject.with_options(
                api_key=api_key,
                timeout=timeout,
                first_event_timeout=first_event_timeout,
                stall_timeout=stall_timeout,
                max_retries=max_retries,
                retry_policy=retry_policy,
                default_headers=default_headers,
            )
        finally:
            del api_key, default_headers  # as above
        super(NeuralBox, derived).__init__(client, self._loop, self)
        return derived

    @documented_by(AsyncNeuralBox.generate)
    def generate(
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
        """Generate text and return it whole."""
        call = functools.partial(
            self._subject.generate,
            model,
            read_here(messages),
            system=system,
            temperature=temperature,
            max_tokens=max_tokens,
            wait=wait,
            timeout=timeout,
            max_retries=max_retries,
            idempotency_key=idempotency_key,
            extra_headers=extra_headers,
            extra_body=extra_body,
        )
        return self._loop.call(call)

    @documented_by(AsyncNeuralBox.retrieve)
    def retrieve(
        self,
        generation: Generation | GenerationId,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        extra_headers: Mapping[str, str] | None = None,
    ) -> Generation:
        """Return the current state of *generation*, a generation or its id. Costs nothing."""
        call = functools.partial(
            self._subject.retrieve, generation, timeout=timeout, max_retries=max_retries, extra_headers=extra_headers
        )
        return self._loop.call(call)

    @documented_by(AsyncNeuralBox.wait)
    def wait(
        self,
        generation: Generation | GenerationId,
        *,
        timeout: float | None = _options.DEFAULT_WAIT_TIMEOUT,
        poll_interval: float | NotGiven = NOT_GIVEN,
    ) -> Generation:
        """Poll until *generation*, a generation or its id, is completed, and return it."""
        call = functools.partial(self._subject.wait, generation, timeout=timeout, poll_interval=poll_interval)
        return self._loop.call(call)

    @property
    def closed(self) -> bool:
        """Whether the client was closed; its methods then raise `ClientClosedError`."""
        return self._loop.closed or self._subject.closed

    def close(self) -> None:
        """Close all connections (a derived client: none) within 2 s. Calls raise `ClientClosedError`. Idempotent."""
        if self._owner is None:
            self._loop.close()
            return
        with contextlib.suppress(StopIteration):
            self._subject.aclose().send(None)  # it awaits nothing
