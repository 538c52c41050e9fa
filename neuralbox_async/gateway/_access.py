"""
Who may use a gateway: the host that a request names, the page that it comes from, and the token.

A browser on this machine can reach loopback too. So a request under a foreign name (DNS rebinding) and a request of a
page whose origin was not named (which could spend money without reading the response) are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from aiohttp.http import HttpVersion11

from neuralbox_async.gateway._errors import ErrorBody, Refusal
from neuralbox_async.gateway._settings import GatewaySettings

_HOST: Final = re.compile(r"(\[[0-9a-f:.%]+\]|[^\[\]:/@\s]+)(?::[0-9]{1,5})?", re.IGNORECASE)
_SAFE_NAMES: Final = re.compile(r"[a-z0-9_-]+(?:, ?[a-z0-9_-]+)*", re.IGNORECASE)
_MAX_PREFLIGHT: Final = 2000  # characters
_EXPOSED: Final = (
    "Retry-After, x-request-id, x-should-retry, x-neuralbox-balance-remaining, x-neuralbox-generation-id, "
    "x-neuralbox-ignored, x-neuralbox-tokens-used"
)


class AccessRules:
    """The rules of *settings*."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._names = {"localhost", settings.host.lower(), *settings.allowed_hosts}
        self._origins = frozenset(settings.cors_origins)
        self._token = None if settings.token is None else settings.token.encode()

    def check_host(self, request: web.BaseRequest) -> None:
        """Raise `Refusal` unless *request* names a host that this gateway has."""
        hosts = request.headers.getall("Host", [])
        if not hosts and request.version < HttpVersion11:
            return  # a health check, say: browsers always send one
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if match is None or not self._is_known(match[1].lower()):
            message = "the Host header is not a host of this gateway (see its option --allow-host)"
            raise Refusal(ErrorBody(status=421, message=message, code="unknown_host"))

    def _is_known(self, host: str) -> bool:
        if host.removesuffix(".") in self._names:
            return True
        try:
            ipaddress.ip_address(host.strip("[]"))  # an address cannot be bound to another one, as a name can
        except ValueError:
            return False
        return True

    def cors_headers(self, request: web.BaseRequest) -> dict[str, str]:
        """
        Return the headers with which the page that *request* comes from may read the response.

        Raises `Refusal` if the page's origin was not named. Only browsers send an origin.
        """
        origin = request.headers.get("Origin")
        if origin is None:
            return {}
        if origin.lower() not in self._origins:
            message = "pages of this origin may not use the gateway (see its option --cors-origin)"
            raise Refusal(ErrorBody(status=403, message=message, code="unknown_origin"))
        return {"Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Expose-Headers": _EXPOSED}

    def preflight_headers(self, request: web.BaseRequest) -> dict[str, str]:
        """Return the headers of the response to a preflight *request* of a page that may use the gateway."""
        names = request.headers.get("Access-Control-Request-Headers", "")
        headers = {"Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": "600"}
        if len(names) <= _MAX_PREFLIGHT and _SAFE_NAMES.fullmatch(names):
            headers["Access-Control-Allow-Headers"] = names
        if request.headers.get("Access-Control-Request-Private-Network") == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"
        return headers

    def check_token(self, request: web.BaseRequest) -> None:
        """Raise `Refusal` unless *request* has the token, or none is needed."""
        if self._token is None:
            return
        sent: Sequence[str] = request.headers.getall("Authorization", [])
        scheme, _, token = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
        # In constant time: an early end would reveal how many characters are right.
        is_right = hmac.compare_digest(token.strip().encode(errors="surrogateescape"), self._token)
        if scheme.lower() != "bearer" or not is_right:
            message = "the token is missing or wrong: send that of the gateway as the API key"
            raise Refusal(ErrorBody(status=401, message=message, type="authentication_error", code="invalid_api_key"))
