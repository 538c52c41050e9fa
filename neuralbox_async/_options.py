"""What a client and a call can be told: checked when it is said, and merged from defaults, client and call."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast
from urllib.parse import urlsplit

import attrs

from neuralbox_async._errors import NO_HEADERS, InvalidParameterError
from neuralbox_async._retry import RetryPolicy
from neuralbox_async._secret import Secret
from neuralbox_async._types import is_mapping

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")
K = TypeVar("K")

DEFAULT_BASE_URL = "https://neuralbox.top/api/v2"

ApiKey: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A key, or a function (plain or async) that returns the one to use now; it is asked once for each attempt."""


class Unset(enum.Enum):
    """The type of `UNSET`."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return self.value


UNSET: Final = Unset.UNSET
"""Stands for "as the client was told", where None has a meaning of its own."""

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a token of RFC 9110, section 5.6.2
_HEADER_VALUE_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LONGEST_TIME = 1e12  # seconds
_OWN_HEADERS = frozenset(
    {"authorization", "idempotency-key", "content-length", "content-type", "host", "transfer-encoding", "connection"}
)


def check_seconds(parameter: str, value: object) -> float | None:
    """Return *value* as a time in seconds, above 0, or None for none. Raises `InvalidParameterError`."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < _LONGEST_TIME:
        raise InvalidParameterError(parameter, value, "a number of seconds above 0, or None")
    return float(value)


def check_flag(parameter: str, value: object) -> bool:
    """Return *value*, True or False. Raises `InvalidParameterError`."""
    if not isinstance(value, bool):
        raise InvalidParameterError(parameter, value, "True or False")
    return value


def check_count(parameter: str, value: object, *, least: int) -> int:
    """Return *value*, an integer of at least *least*. Raises `InvalidParameterError`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidParameterError(parameter, value, f"an integer of at least {least}")
    return value


def check_headers(parameter: str, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return *headers*, which can go out as they are. Raises `InvalidParameterError`; values are never shown in it."""
    if headers is None:
        return {}
    if not is_mapping(headers):
        raise InvalidParameterError(parameter, None, "a mapping of header names to values", show=False)
    concealed: dict[Any, Any] = {name: conceal(value) for name, value in headers.items()}
    del headers  # what users put there may be secret too
    for name, value in concealed.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise InvalidParameterError(parameter, name, "header names, without those that the client sets itself")
        if not isinstance(value, str) or _HEADER_VALUE_FORBIDDEN.search(value) or not value.isascii():
            raise InvalidParameterError(f"{parameter}[{name!r}]", None, "ASCII text without line breaks", show=False)
    return concealed


def check_key(key: object) -> Secret:
    """Return *key* as a `Secret`. Raises `InvalidParameterError`; the key is never shown in it."""
    secret = Secret(key) if isinstance(key, str) else Secret()
    del key  # no frame of a traceback shall hold it
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        rule = "a non-empty string of printable ASCII without spaces or line breaks"
        raise InvalidParameterError("api_key", None, rule, show=False)
    return secret


def check_idempotency_key(key: object) -> None:
    """Raise `InvalidParameterError` unless *key* can go out as a header."""
    if not isinstance(key, str) or not key or not key.isascii() or _HEADER_VALUE_FORBIDDEN.search(key):
        raise InvalidParameterError("idempotency_key", key, "a non-empty string of ASCII without line breaks")


def check_ssl_context(context: Any) -> ssl.SSLContext | None:
    """Return *context*. Raises `InvalidParameterError`."""
    if context is None:
        return None
    import ssl

    if not isinstance(context, ssl.SSLContext):
        raise InvalidParameterError("ssl_context", context, "an ssl.SSLContext, or None")
    return context


def conceal(value: T) -> T:
    """Return *value*, when it is a string as a `Secret`, so that no frame of a traceback shows it."""
    return cast("T", Secret(value)) if isinstance(value, str) else value


def conceal_values(headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return *headers* with their values concealed."""
    return {name: conceal(value) for name, value in headers.items()} if is_mapping(headers) else headers


def conceal_key(api_key: K) -> K:
    """Return *api_key* concealed: a function as it is, and what cannot be a key at all as an empty one."""
    if api_key is None or callable(api_key) or isinstance(api_key, Unset):
        return api_key
    return cast("K", Secret(api_key) if isinstance(api_key, str) else Secret())


def conceal_found_key(found: object) -> Secret | Awaitable[str]:
    """Return what a key function gave concealed: an awaitable as it is, and what cannot be a key as an empty one."""
    if isinstance(found, Awaitable):
        return cast("Awaitable[str]", found)
    return Secret(found) if isinstance(found, str) else Secret()


def resolve_key(api_key: ApiKey | None) -> Secret | Callable[[], str] | Callable[[], Awaitable[str]]:
    """Return *api_key*, or the environment's NEURALBOX_API_KEY. Raises `InvalidParameterError` if there is neither."""
    found = conceal_key(api_key)
    del api_key
    if found is None:
        found = conceal(os.environ.get("NEURALBOX_API_KEY"))
    if not found:
        rule = "given, or set in the environment as NEURALBOX_API_KEY"
        raise InvalidParameterError("api_key", None, rule, show=False)
    return found if callable(found) else check_key(found)


def check_base_url(base_url: str | None, *, allow_insecure: bool) -> str:
    """
    Return *base_url*, or NEURALBOX_BASE_URL, or the API's own, without a slash at its end.

    Plain http is only for loopback, unless *allow_insecure*: the key would be readable on the way. Raises
    `InvalidParameterError`.
    """
    url = conceal(os.environ.get("NEURALBOX_BASE_URL") or DEFAULT_BASE_URL if base_url is None else base_url)
    del base_url
    rule = _broken_rule(url, allow_insecure=allow_insecure)
    if rule is not None:
        show = not any(mark in str(url) for mark in "@?#")  # there may be credentials
        raise InvalidParameterError("base_url", str(url) if show else None, rule, show=show)
    return str(url).rstrip("/")


def _broken_rule(url: str, *, allow_insecure: bool) -> str | None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
    except (ValueError, AttributeError, TypeError):
        return "a valid URL"
    if not usable or parts.query or parts.fragment or "@" in parts.netloc or re.search(r"[\s\x00-\x1f]", url):
        return "an http(s) URL with a host, without credentials, query or fragment"
    if parts.scheme == "http" and not allow_insecure and not _is_loopback(parts.hostname or ""):
        return "https (the key would be readable on the way; allow_insecure=True lifts this)"
    return None


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def split_proxy(proxy: str | None) -> tuple[str | None, dict[str, str] | None]:
    """Return *proxy* without its credentials, and the header that carries them. Raises `InvalidParameterError`."""
    if proxy is None:
        return None, None
    url, headers = _split(proxy)
    if url is None:
        raise InvalidParameterError("proxy", None, "an http(s) URL with a host", show=False)
    return url, headers


def check_proxy_is_safe(proxy: str | None, base_url: str, *, allow_insecure: bool) -> None:
    """Raise `InvalidParameterError` when the key would go over plain http to a proxy that is not on this machine."""
    if proxy is None or allow_insecure or not base_url.startswith("http:"):
        return
    if not _is_loopback(urlsplit(proxy).hostname or ""):
        rule = "on this machine while base_url is plain http (it would read the key; allow_insecure=True lifts this)"
        raise InvalidParameterError("proxy", None, rule, show=False)


def _split(proxy: str) -> tuple[str | None, dict[str, str] | None]:
    try:
        parts = urlsplit(proxy)
        host, port = parts.hostname, parts.port
    except (ValueError, AttributeError, TypeError):
        return None, None
    if parts.scheme not in {"http", "https"} or not host:
        return None, None
    host = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{host}" if port is None else f"{parts.scheme}://{host}:{port}"
    if parts.username is None:
        return url, None
    return url, {"Proxy-Authorization": _basic(parts.username, parts.password or "")}


def _basic(user: str, password: str) -> Secret:
    from base64 import b64encode
    from urllib.parse import unquote

    return Secret("Basic " + b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode())


def _check_time(_self: Any, field: attrs.Attribute[Any], value: Any) -> None:
    check_seconds(field.name, value)


@attrs.frozen(kw_only=True)
class CallOptions:
    """What holds for one call; see `AsyncNeuralBox` for the meaning of each. Checked when it is made."""

    timeout: float | None = attrs.field(default=600.0, validator=_check_time)
    first_event_timeout: float | None = attrs.field(default=120.0, validator=_check_time)
    stall_timeout: float | None = attrs.field(default=120.0, validator=_check_time)
    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    headers: Mapping[str, str] = attrs.field(default=NO_HEADERS, repr=False)

    def changed(
        self,
        *,
        max_retries: int | Unset = UNSET,
        retry_policy: RetryPolicy | Unset = UNSET,
        headers: Mapping[str, str] | None = None,
        **changes: object,
    ) -> CallOptions:
        """Return the same with what is not `UNSET` changed, and *headers* added. Raises `InvalidParameterError`."""
        said: dict[str, Any] = {name: value for name, value in changes.items() if value is not UNSET}
        if not isinstance(retry_policy, Unset):
            said["retry"] = check_policy(retry_policy)
        if not isinstance(max_retries, Unset):
            retry = said.get("retry", self.retry)
            said["retry"] = attrs.evolve(retry, max_retries=check_count("max_retries", max_retries, least=0))
        if headers:
            said["headers"] = {**self.headers, **headers}
        return attrs.evolve(self, **said) if said else self


def check_policy(policy: object) -> RetryPolicy:
    """Return *policy*. Raises `InvalidParameterError`."""
    if not isinstance(policy, RetryPolicy):
        raise InvalidParameterError("retry_policy", policy, "a RetryPolicy")
    return policy


@attrs.frozen(kw_only=True)
class ConnectionOptions:
    """How connections are made; see `AsyncNeuralBox` for each."""

    connect_timeout: float | None = 10.0
    max_connections: int = 1000
    reuse_connections: bool = True
    proxy: str | None = attrs.field(default=None, repr=False)
    proxy_headers: Mapping[str, str] | None = attrs.field(default=None, repr=False)
    ssl_context: ssl.SSLContext | None = None
