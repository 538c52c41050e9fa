"""
The proxy of the environment: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.

The rules are those of `urllib.request.getproxies_environment` and `proxy_bypass_environment`, except that a CGI program
ignores `http_proxy` too, and those that requests and httpx add: ALL_PROXY, a proxy without a scheme, and networks in
NO_PROXY. `urllib.request` itself is not imported, because it loads sockets and TLS, which only calls need.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from neuralbox_async._secret import Secret

_DEFAULT_PORTS = {"http": 80, "https": 443}


def environment_proxy(url: str) -> tuple[Secret, str] | None:
    """Return the proxy for *url* with the name of its variable, or None: no variable is set, or NO_PROXY has *url*."""
    parts = urlsplit(url)
    for name in (f"{parts.scheme}_proxy", "all_proxy"):
        variable, proxy = _read(name)
        if proxy:
            host, port = parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
            excluded = is_excluded(host.removesuffix("."), port, _read("no_proxy")[1])
            return None if excluded else (proxy if "://" in proxy else Secret("http://" + proxy), variable)
    return None


def _read(name: str) -> tuple[str, Secret]:
    """Return the variable *name*, in lower case if that is set, with its value; ``""`` if it is not set."""
    if name == "http_proxy" and "REQUEST_METHOD" in os.environ:
        # A CGI program: the header "Proxy" of the request that it handles is in HTTP_PROXY.
        return name, Secret()
    variable = name if name in os.environ else name.upper()
    return variable, Secret(Secret(os.environ.get(variable, "")).strip())


def is_excluded(host: str, port: int, no_proxy: str) -> bool:
    """
    Return whether *no_proxy* excludes *host*, in lower case and without brackets, at *port*.

    It has entries with commas or spaces between them: ``*`` for all; a name, which includes the names below it, with or
    without ``.`` or ``*.`` before it; an address; a network such as ``10.0.0.0/8``. A port after an entry limits it.
    """
    return any(_matches(entry.lower(), host, port) for entry in re.split(r"[,\s]+", no_proxy) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _is_in_network(host, entry)
    with_port = re.fullmatch(r"(\[.*\]|[^:]*):([0-9]{1,5})", entry)
    if with_port:
        entry = with_port[1]
        if int(with_port[2]) != port:
            return False
    name = entry.strip("[]").lstrip("*.").removesuffix(".")
    return name != "" and (host == name or host.endswith(f".{name}"))


def _is_in_network(host: str, network: str) -> bool:
    import ipaddress  # few environments name a network

    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:  # the host is a name, or the entry is malformed
        return False
