"""The proxy of the environment: which variable names it, and which hosts NO_PROXY excludes."""

from __future__ import annotations

import os
import urllib.request

import pytest

from neuralbox_async import AsyncNeuralBox, InvalidParameterError
from neuralbox_async._environment_proxy import environment_proxy, is_excluded
from neuralbox_async.testing import FakeTransport
from neuralbox_sync import NeuralBox

VARIABLES = [f"{name}_proxy" for name in ("http", "https", "all", "no")]
API = "https://api.example/v2"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The environment, without a proxy."""
    for name in [*VARIABLES, *map(str.upper, VARIABLES), "REQUEST_METHOD"]:
        monkeypatch.delenv(name, raising=False)

    def set_variables(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_variables


SELECTED = [
    ({}, API, None),
    ({"HTTPS_PROXY": "http://a:1"}, API, "http://a:1"),
    ({"https_proxy": "http://a:1"}, API, "http://a:1"),
    ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:1"}, API, "http://b:1"),
    ({"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, API, None),
    ({"HTTP_PROXY": "http://a:1"}, API, None),
    ({"HTTP_PROXY": "http://a:1"}, "http://api.example", "http://a:1"),
    ({"HTTPS_PROXY": "http://a:1"}, "http://api.example", None),
    ({"HTTP_PROXY": "http://a:1", "REQUEST_METHOD": "GET"}, "http://api.example", None),
    ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.example"}, API, None),
    ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "b.example", "no_proxy": "api.example"}, API, None),
    ({"HTTPS_PROXY": "http://a:1", "NO_PROXY": "api.example", "no_proxy": ""}, API, "http://a:1"),
]


@pytest.mark.parametrize("variables, url, expected", SELECTED)
def test_as_the_standard_library(environment, variables, url, expected):
    """The proxy of a URL is the one that the standard library takes from the same environment."""
    if os.name == "nt" and len({name.upper() for name in variables}) < len(variables):
        pytest.skip("names of variables have no case here")
    environment(variables)
    found = environment_proxy(url)
    scheme, _, rest = url.partition("://")
    theirs = urllib.request.getproxies_environment()
    excluded = urllib.request.proxy_bypass_environment(rest.partition("/")[0], theirs)

    assert expected == (found and str(found[0]))
    assert expected == (None if excluded else theirs.get(scheme))


@pytest.mark.parametrize(
    "variables, url, expected",
    [
        ({"ALL_PROXY": "http://a:1"}, API, ("http://a:1", "ALL_PROXY")),
        ({"all_proxy": "http://a:1"}, "http://api.example", ("http://a:1", "all_proxy")),
        ({"ALL_PROXY": "http://a:1", "HTTPS_PROXY": "http://b:1"}, API, ("http://b:1", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "a:1"}, API, ("http://a:1", "HTTPS_PROXY")),
        ({"HTTPS_PROXY": " http://a:1 "}, API, ("http://a:1", "HTTPS_PROXY")),
    ],
)
def test_as_requests_and_httpx(environment, variables, url, expected):
    """ALL_PROXY is for all schemes that have no variable of their own, and a proxy without a scheme is http."""
    environment(variables)

    assert expected == environment_proxy(url)


EXCLUDED = [
    ("*", "api.example", 443, True),
    ("api.example", "api.example", 443, True),
    ("API.Example", "api.example", 443, True),
    ("example", "api.example", 443, True),
    (".example", "api.example", 443, True),
    ("other.example, api.example", "api.example", 443, True),
    ("api.example:443", "api.example", 443, True),
    ("api.example:8443", "api.example", 443, False),
    (".example:443", "api.example", 443, True),
    ("pi.example", "api.example", 443, False),
    ("api.example.com", "api.example", 443, False),
    ("10.1.2.3", "10.1.2.3", 443, True),
    ("", "api.example", 443, False),
    (",", "api.example", 443, False),
]


@pytest.mark.parametrize("no_proxy, host, port, expected", EXCLUDED)
def test_no_proxy_as_the_standard_library(no_proxy, host, port, expected):
    """An entry of NO_PROXY is a name with those below it, an address or ``*``, with or without a port."""
    assert expected is is_excluded(host, port, no_proxy)
    assert expected is bool(urllib.request.proxy_bypass_environment(f"{host}:{port}", {"no": no_proxy}))


@pytest.mark.parametrize(
    "no_proxy, host, expected",
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/8", "api.example", False),
        ("10.1.2.3/8", "10.9.9.9", True),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("fd00::/8", "fd00::1", True),
        ("fd00::/8", "10.1.2.3", False),
        ("fd00::1", "fd00::1", True),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("[fd00::1]:444", "fd00::1", False),
        ("*.example", "api.example", True),
        ("other.example api.example", "api.example", True),
        ("*, 10.0.0.0/8", "api.example", True),
        ("api.example:" + "9" * 5000, "api.example", False),
    ],
)
def test_no_proxy_beyond_the_standard_library(no_proxy, host, expected):
    """An entry may also be a network, an address of IPv6 or begin with ``*.``; spaces separate as commas do."""
    assert expected is is_excluded(host, 443, no_proxy)


@pytest.mark.parametrize("make", [AsyncNeuralBox, NeuralBox])
def test_the_parameter_takes_precedence(environment, make):
    """*proxy* takes precedence over the environment, which *trust_env* switches off."""
    environment({"HTTPS_PROXY": "http://of-the-environment:1"})

    def proxy_of(**options):
        client = make("key", base_url=API, **options)
        return getattr(client, "_subject", client)._executor.shared.connections.proxy

    assert "http://of-the-environment:1" == proxy_of()
    assert "http://parameter:1" == proxy_of(proxy="http://parameter:1")
    assert proxy_of(trust_env=False) is None
    assert "http://parameter:1" == proxy_of(proxy="http://parameter:1", trust_env=False)
    with pytest.raises(InvalidParameterError, match="trust_env"):
        proxy_of(trust_env="no")


def test_it_is_read_once(environment):
    """The environment is read when a client is created; a client that is derived from it has the same proxy."""
    environment({"HTTPS_PROXY": "http://first:1"})
    client = AsyncNeuralBox("key", base_url=API)
    environment({"HTTPS_PROXY": "http://second:1"})

    assert "http://first:1" == client.with_options(timeout=1)._executor.shared.connections.proxy


@pytest.mark.parametrize(
    "url", ["http://localhost:8080", "http://127.0.0.1:1", "https://[::1]:1", "https://a.localhost"]
)
def test_this_machine(environment, url):
    """A connection to this machine takes no proxy of the environment, whose password would be of no use there."""
    environment({"HTTPS_PROXY": "http://a:1", "HTTP_PROXY": "http://a:1", "ALL_PROXY": "http://a:1"})

    assert AsyncNeuralBox("key", base_url=url)._executor.shared.connections.proxy is None


@pytest.mark.parametrize(
    "proxy",
    [
        "socks5://user:canary@a:1",
        "http://user:canary@",
        "http://user:canary@a:port",
        pytest.param("http://user:canary\udcff@a:1", marks=pytest.mark.skipif(os.name == "nt", reason="has no bytes")),
    ],
)
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY"])
def test_a_proxy_that_cannot_be_used(environment, variable, proxy):
    """It is an error that names the variable and the way out, and has no password; `trust_env` is that way."""
    environment({variable: proxy})
    with pytest.raises(InvalidParameterError) as caught:
        AsyncNeuralBox("key", base_url=API)

    rule = f"an http(s) URL with a host (it is from {variable}; trust_env=False ignores it)"
    assert f"proxy must be {rule}" == caught.value.message
    AsyncNeuralBox("key", base_url=API, trust_env=False)
    AsyncNeuralBox("key", base_url=API, transport=FakeTransport({}))


def test_no_repr_has_the_password(environment):
    """Neither the client nor its options show the password."""
    environment({"HTTPS_PROXY": "http://user:canary@a:1"})
    client = AsyncNeuralBox("key", base_url=API)

    assert "canary" not in f"{client!r} {vars(client)!r} {client._executor.shared!r} {environment_proxy(API)!r}"
