"""The options of clients and calls: validated when they are set, merged from defaults, client and call."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import attrs

from neuralbox_async._environment_proxy import environment_proxy
from neuralbox_async._errors import NO_HEADERS, InvalidParameterError
from neuralbox_async._retry import RetryPolicy
from neuralbox_async._secret import Secret, as_secret
from neuralbox_async._validation import (
    check_count,
    check_flag,
    check_headers,
    check_idempotency_key,
    check_seconds,
    field_validator,
)

if TYPE_CHECKING:
    import ssl

K = TypeVar("K")

DEFAULT_BASE_URL: Final = "https://neuralbox.top/api/v2"
DEFAULT_TIMEOUT: Final = 600.0
"""Seconds of a call. A stream has no limit in all unless the user sets one."""
DEFAULT_CONNECT_TIMEOUT: Final = 10.0
DEFAULT_FIRST_EVENT_TIMEOUT: Final = 120.0
DEFAULT_STALL_TIMEOUT: Final = 120.0
DEFAULT_WAIT_TIMEOUT: Final = 300.0
DEFAULT_POLL_INTERVAL: Final = 5.0
DEFAULT_MAX_CONNECTIONS: Final = 1000
DEFAULT_MAX_CONCURRENCY: Final = 64
DEFAULT_MAX_RESPONSE_BYTES: Final = 64 * 1024 * 1024
DEFAULT_MAX_EVENT_BYTES: Final = 16 * 1024 * 1024


class NotGiven(enum.Enum):
    """The type of `NOT_GIVEN`."""

    NOT_GIVEN = "NOT_GIVEN"

    def __repr__(self) -> str:
        return self.value


NOT_GIVEN: Final = NotGiven.NOT_GIVEN
"""The default of options where None has a meaning of its own: the client's value applies."""


def check_ssl_context(context: Any) -> ssl.SSLContext | None:
    """Return *context*. Raises `InvalidParameterError`."""
    if context is None:
        return None
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise InvalidParameterError("ssl_context", context, "an ssl.SSLContext, or None")
    return context


def check_base_url(base_url: str | None, *, allow_insecure: bool) -> str:
    """
    Return *base_url*, or NEURALBOX_BASE_URL, or the API's own, without a trailing slash.

    Plain http is only for loopback, unless *allow_insecure*: the key would be readable on the way. A name is checked
    again when it is resolved. The scheme is returned in lower case. Raises `InvalidParameterError`.
    """
    url = as_secret(os.environ.get("NEURALBOX_BASE_URL") or DEFAULT_BASE_URL if base_url is None else base_url)
    del base_url
    rule = _broken_rule(url, allow_insecure=allow_insecure)
    if rule is not None:
        show = not any(mark in str(url) for mark in "@?#")  # it may hold credentials
        raise InvalidParameterError("base_url", str(url) if show else None, rule, show=show)
    scheme, colon, rest = str(url).rstrip("/").partition(":")
    return scheme.lower() + colon + rest


def _broken_rule(url: str, *, allow_insecure: bool) -> str | None:
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in {"http", "https"} and _is_host(parts.hostname) and (parts.port is None or parts.port > 0)
        )
    except (ValueError, AttributeError, TypeError):
        return "a valid URL"
    if not usable or parts.query or parts.fragment or "@" in parts.netloc or re.search(r"[\s\x00-\x1f]", url):
        return "an http(s) URL with a host, without credentials, query or fragment"
    if parts.scheme == "http" and not allow_insecure and not _may_be_loopback(parts.hostname or ""):
        return "https (plain http would expose the key; allow_insecure=True permits it)"
    return None


def _is_host(host: str | None) -> bool:
    """Return whether *host* can be an address or a name: of labels of 1 to 63 characters, without white space."""
    if not host or re.search(r"[\s\x00-\x1f]", host):
        return False
    return ":" in host or all(0 < len(label) < 64 for label in host.removesuffix(".").split("."))


def is_loopback_address(host: str) -> bool:
    """Return whether *host* is an IP address, in the usual notation, of this machine's loopback interface."""
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _may_be_loopback(host: str) -> bool:
    """Return whether *host* is a loopback address, or a name that should resolve to one."""
    return is_loopback_address(host) or f".{host.removesuffix('.')}".endswith(".localhost")


def find_proxy(proxy: str | None, base_url: str, *, trust_env: bool) -> tuple[str | None, str]:
    """
    Return *proxy*, or that of the environment if *trust_env*, and where it is from, for the text of an error.

    A connection to this machine never takes the proxy of the environment.
    """
    if proxy is None and trust_env and not _may_be_loopback(urlsplit(base_url).hostname or ""):
        of_environment = environment_proxy(base_url)
        if of_environment is not None:
            return of_environment[0], f" (it is from {of_environment[1]}; trust_env=False ignores it)"
    return proxy, ""


def split_proxy(proxy: str | None, origin: str = "") -> tuple[str | None, dict[str, str] | None, tuple[Secret, ...]]:
    """
    Return *proxy* without its credentials, the header that carries them, and what of them is secret.

    Raises `InvalidParameterError`; *origin*: for its text.
    """
    if proxy is None:
        return None, None, ()
    url, user, password = _split(proxy)
    if url is None:
        raise InvalidParameterError("proxy", None, f"an http(s) URL with a host{origin}", show=False)
    if user is None:
        return url, None, ()
    credentials = Secret(f"{user}:{password}")
    # Without a password, the user is a token.
    return url, {"Proxy-Authorization": _basic(credentials)}, (credentials, password or user)


def check_proxy_is_safe(proxy: str, base_url: str) -> None:
    """Raise `InvalidParameterError` when the key would leave this machine over plain http, to *proxy* or through it."""
    if not _may_be_loopback(urlsplit(proxy).hostname or ""):
        rule = "on this machine while base_url is plain http (it would read the key; allow_insecure=True lifts this)"
        raise InvalidParameterError("proxy", None, rule, show=False)
    host = urlsplit(base_url).hostname or ""
    if not is_loopback_address(host) and host.removesuffix(".") != "localhost":
        rule = "localhost or a loopback address, if it is plain http and the proxy resolves its name"
        raise InvalidParameterError("base_url", base_url, f"{rule} (allow_insecure=True lifts this)")


def refuses_other_machines() -> bool:
    """Return whether NEURALBOX_LOOPBACK_ONLY is set: then no connection leaves this machine, so that tests are free."""
    return bool(os.environ.get("NEURALBOX_LOOPBACK_ONLY"))


def check_stays_on_this_machine(base_url: str, proxy: str | None) -> None:
    """Raise `InvalidParameterError` when a connection for *base_url*, through *proxy* or not, leaves this machine."""
    rule = "on this machine while NEURALBOX_LOOPBACK_ONLY is set (by the pytest plugin, so that tests cost nothing)"
    if not _may_be_loopback(urlsplit(base_url).hostname or ""):
        raise InvalidParameterError("base_url", base_url, rule)
    if proxy is not None and not _may_be_loopback(urlsplit(proxy).hostname or ""):
        raise InvalidParameterError("proxy", None, rule, show=False)


def _split(proxy: str) -> tuple[str | None, Secret | None, Secret]:
    from urllib.parse import unquote

    nothing = None, None, Secret()
    try:
        parts = urlsplit(proxy)
        host, port = parts.hostname, parts.port
        unquote(parts.netloc).encode()  # a variable may have bytes that are no text
    except (ValueError, AttributeError, TypeError):
        return nothing
    if parts.scheme not in {"http", "https"} or host is None or not _is_host(host):
        return nothing
    host = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{host}" if port is None else f"{parts.scheme}://{host}:{port}"
    user = None if parts.username is None else Secret(unquote(parts.username))
    return url, user, Secret(unquote(parts.password or ""))


def _basic(credentials: str) -> Secret:
    from base64 import b64encode

    return Secret("Basic " + b64encode(credentials.encode()).decode())


_seconds = field_validator(check_seconds)


@attrs.frozen(kw_only=True, eq=False)
class CallOptions:
    """The options of one call; see `AsyncNeuralBox` for each. Validated when they are made."""

    timeout: float | None = attrs.field(default=DEFAULT_TIMEOUT, validator=_seconds)
    stream_timeout: float | None = attrs.field(default=None, validator=_seconds)
    first_event_timeout: float | None = attrs.field(default=DEFAULT_FIRST_EVENT_TIMEOUT, validator=_seconds)
    stall_timeout: float | None = attrs.field(default=DEFAULT_STALL_TIMEOUT, validator=_seconds)
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    headers: Mapping[str, str] = attrs.field(default=NO_HEADERS, repr=False)

    def replace(
        self,
        *,
        timeout: float | NotGiven | None = NOT_GIVEN,
        max_retries: int | NotGiven = NOT_GIVEN,
        retry_policy: RetryPolicy | NotGiven = NOT_GIVEN,
        headers: Mapping[str, str] | None = None,
        **others: object,
    ) -> CallOptions:
        """
        Return a copy in which each option that is not `NOT_GIVEN` is replaced, and *headers* are added.

        *timeout* holds for streams, too. Raises `InvalidParameterError`.
        """
        changes: dict[str, Any] = {name: value for name, value in others.items() if value is not NOT_GIVEN}
        if not isinstance(timeout, NotGiven):
            changes["timeout"] = changes["stream_timeout"] = check_seconds("timeout", timeout)
        if not isinstance(retry_policy, NotGiven):
            changes["retry"] = check_policy(retry_policy)
        if not isinstance(max_retries, NotGiven):
            retry = changes.get("retry", self.retry)
            changes["retry"] = attrs.evolve(retry, max_retries=check_count("max_retries", max_retries, minimum=0))
        if headers:
            changes["headers"] = {**self.headers, **headers}
        return attrs.evolve(self, **changes) if changes else self

    def get_headers(self, extra_headers: Mapping[str, str] | None) -> dict[str, str]:
        """Return the headers of a GET. Raises `InvalidParameterError`."""
        return {**self.headers, **check_headers("extra_headers", extra_headers)}

    def post_headers(self, extra_headers: Mapping[str, str] | None, idempotency_key: str | None) -> dict[str, str]:
        """Return the headers of a POST, with one idempotency key for all attempts. Raises `InvalidParameterError`."""
        if idempotency_key is None:
            idempotency_key = os.urandom(16).hex()
        else:
            check_idempotency_key(idempotency_key)
        headers = {**self.headers, "Idempotency-Key": idempotency_key}
        if extra_headers is not None:
            headers.update(check_headers("extra_headers", extra_headers))
        return headers


def check_policy(policy: object) -> RetryPolicy:
    """Return *policy*. Raises `InvalidParameterError`."""
    if not isinstance(policy, RetryPolicy):
        raise InvalidParameterError("retry_policy", policy, "a RetryPolicy")
    return policy


@attrs.frozen(kw_only=True, eq=False)
class ConnectionOptions:
    """The options of connections; see `AsyncNeuralBox` for each."""

    connect_timeout: float | None = DEFAULT_CONNECT_TIMEOUT
    max_connections: int = DEFAULT_MAX_CONNECTIONS
    reuse_connections: bool = True
    proxy: str | None = attrs.field(default=None, repr=False)
    proxy_headers: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    proxy_secrets: tuple[Secret, ...] = attrs.field(default=(), repr=False)
    ssl_context: ssl.SSLContext | None = None
    loopback_only: bool = False

    @classmethod
    def checked(
        cls,
        *,
        connect_timeout: object,
        max_connections: object,
        reuse_connections: object,
        proxy: str | None,
        trust_env: bool,
        ssl_context: object,
        base_url: str,
        allow_insecure: bool,
    ) -> ConnectionOptions:
        """Return the options for these values, to connect to a valid *base_url*. Raises `InvalidParameterError`."""
        proxy_url, proxy_headers, proxy_secrets = split_proxy(*find_proxy(proxy, base_url, trust_env=trust_env))
        loopback_only = base_url.startswith("http:") and not allow_insecure
        if proxy_url is not None and loopback_only:
            check_proxy_is_safe(proxy_url, base_url)
        return cls(
            connect_timeout=check_seconds("connect_timeout", connect_timeout),
            max_connections=check_count("max_connections", max_connections, minimum=1),
            reuse_connections=check_flag("reuse_connections", reuse_connections),
            proxy=proxy_url,
            proxy_headers=proxy_headers,
            proxy_secrets=proxy_secrets,
            ssl_context=check_ssl_context(ssl_context),
            loopback_only=loopback_only,
        )
