"""`GatewaySettings`: who may use a gateway, and how much."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Final

import attrs

from neuralbox_async import InvalidParameterError

_MIN_TOKEN: Final = 16  # characters
_HOST: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+")


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(str(text).lower() for text in ([value] if isinstance(value, str) else value))


def _at_least(minimum: int) -> Any:
    def check(_settings: Any, field: attrs.Attribute[Any], value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise InvalidParameterError(field.name, value, f"an integer of at least {minimum}")

    return check


def _seconds(_settings: Any, field: attrs.Attribute[Any], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise InvalidParameterError(field.name, value, "a number of seconds of at least 0")


def _positive_seconds(_settings: Any, field: attrs.Attribute[Any], value: object) -> None:
    _seconds(_settings, field, value)
    if value == 0:
        raise InvalidParameterError(field.name, value, "a number of seconds greater than 0")


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """
    The settings of a `Gateway`.

    * *host*, *port*: the address to listen on; port 0 selects a free one.
    * *token*: what clients send as their API key: at least 16 printable ASCII characters without spaces. None: no
      token is needed, which is allowed on loopback only.
    * *allowed_hosts*: names in the ``Host`` header that are accepted besides ``localhost``, *host* and IP addresses:
      those of a reverse proxy or a container. Others are refused, so that no website can reach the gateway under a name
      of its own (DNS rebinding).
    * *cors_origins*: origins, such as ``https://app.example``, whose pages may use the gateway. Requests of all other
      pages are refused.
    * *budget*: NeuralBox tokens that this gateway may spend while it runs; None for no limit.
    * *max_concurrency*: generations at the same time, at least 1; further calls wait.
    * *max_waiting*: how many calls may wait for their turn; more are refused at once, with a 429.
    * *max_wait*: seconds that a call may wait for its turn, for a rate limit of the account, or for the budget.
    * *write_timeout*: seconds, greater than 0, for which a client may read nothing while its response waits to be sent;
      then it is disconnected, which closes the stream of the API.
    * *shutdown_timeout*: seconds that running calls have to finish when the gateway stops.
    * *max_body_bytes*: the largest body of a request, after decompression.

    Raises `InvalidParameterError`.
    """

    host: str = "127.0.0.1"
    port: int = attrs.field(default=8090, validator=_at_least(0))
    token: str | None = attrs.field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    cors_origins: tuple[str, ...] = attrs.field(default=(), converter=_texts)
    budget: int | None = attrs.field(default=None, validator=attrs.validators.optional(_at_least(1)))
    max_concurrency: int = attrs.field(default=64, validator=_at_least(1))
    max_waiting: int = attrs.field(default=256, validator=_at_least(0))
    max_wait: float = attrs.field(default=60.0, validator=_seconds)
    write_timeout: float = attrs.field(default=60.0, validator=_positive_seconds)
    shutdown_timeout: float = attrs.field(default=30.0, validator=_seconds)
    max_body_bytes: int = attrs.field(default=32 * 1024 * 1024, validator=_at_least(1))

    def __attrs_post_init__(self) -> None:
        if not self.host or self.host != self.host.strip():
            raise InvalidParameterError("host", self.host, "a name or address of this machine")
        if self.port > 65535:
            raise InvalidParameterError("port", self.port, "at most 65535")
        for name in self.allowed_hosts:
            if not _HOST.fullmatch(name):
                raise InvalidParameterError("allowed_hosts", name, "names of hosts, without scheme and port")
        for origin in self.cors_origins:
            if not _ORIGIN.fullmatch(origin):
                raise InvalidParameterError("cors_origins", origin, "origins such as 'https://app.example'")
        self._check_token()

    def _check_token(self) -> None:
        token = self.token
        if token is None:
            if not is_loopback(self.host):
                rule = f"set, because {self.host} is not on loopback: others could spend your NeuralBox tokens"
                raise InvalidParameterError("token", None, rule, show=False)
        elif len(token) < _MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
            rule = f"at least {_MIN_TOKEN} characters of printable ASCII without spaces"
            raise InvalidParameterError("token", None, rule, show=False)


def is_loopback(host: str) -> bool:
    """Return whether *host*, an address to listen on, can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
