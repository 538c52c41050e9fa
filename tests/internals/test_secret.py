"""Strings that hide themselves, and the masking of a key in values of any size and shape."""

from __future__ import annotations

import base64
import copy
import html
import json
import pickle
import re
import time
import tracemalloc
from types import MappingProxyType
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from neuralbox_async._secret import Mask, Secret, as_secret, as_secret_values

KEY = "nb_canary_key_7f3a"


def test_repr():
    """The `repr` of a secret, and of a value that holds it, does not show its text."""
    secret = as_secret(KEY)

    assert "{'key': '***'}" == repr({"key": secret})
    assert KEY == secret
    assert ("Bearer " + KEY).encode() == ("Bearer " + secret).encode()


def test_copies():
    """A copy of a secret, and of headers that hold one, is the secret itself."""
    secret = Secret(KEY)
    headers = CIMultiDict({"Authorization": secret})

    assert copy.copy(secret) is secret
    assert copy.deepcopy(secret) is secret
    for copied in (copy.deepcopy({"a": [secret]})["a"][0], copy.deepcopy(headers)["authorization"]):
        assert copied is secret


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_of_a_secret(protocol):
    """A pickle of a secret has no text of it."""
    pickled = pickle.dumps({"a": Secret(KEY)}, protocol)

    assert KEY.encode() not in pickled
    assert {"a": "***"} == pickle.loads(pickled)


@pytest.mark.parametrize("value", [None, 5, b"x"])
def test_other_values_are_not_secrets(value):
    """Only strings become secrets."""
    assert as_secret(value) is value
    assert as_secret_values(value) is value


def test_values_of_headers():
    """Each value of a mapping becomes a secret."""
    assert "{'a': '***'}" == repr(as_secret_values({"a": KEY}))


@pytest.mark.parametrize(
    "value, masked",
    [
        (KEY, "***"),
        (f"{KEY} and {KEY}.", "*** and ***."),
        (KEY.encode(), b"***"),
        (b"\xff" + KEY.encode() + b"\xff", b"\xff***\xff"),
        ({KEY: 1}, {"***": 1}),
        ({"a": KEY, "b": 2}, {"a": "***", "b": 2}),
        ({5: [KEY, None], "x": {"y": [{f"a{KEY}": KEY.encode()}]}}, {5: ["***", None], "x": {"y": [{"a***": b"***"}]}}),
        (MappingProxyType({"a": KEY}), {"a": "***"}),
        ([KEY, 5, [KEY]], ["***", 5, ["***"]]),
        ((KEY, "b"), ["***", "b"]),
        ([{"loc": ["body"], "msg": KEY}], [{"loc": ["body"], "msg": "***"}]),
    ],
)
def test_mask(value, masked):
    """The key is masked in text, bytes, names and values, at any depth."""
    assert masked == Mask(KEY).apply(value)
    assert type(masked) is type(Mask(KEY).apply(value))


SPECIAL = 'k/e"y\\+&<=%1'


@pytest.mark.parametrize(
    "write",
    [
        str,
        repr,
        ascii,
        json.dumps,
        lambda key: json.dumps(key).replace("/", "\\/"),
        html.escape,
        quote,
        lambda key: quote(key, safe=""),
        lambda key: re.sub("%..", lambda octet: octet[0].lower(), quote(key, safe="")),
        lambda key: repr(repr(key)),
        lambda key: repr(f"a {key}".encode()),
        str.lower,
        lambda key: base64.b64encode(key.encode()).decode(),
        lambda key: base64.b64encode(f"Bearer {key}\n".encode()).decode(),
        lambda key: base64.urlsafe_b64encode(f"ab{key}".encode()).decode(),
        lambda key: base64.b64encode(f"{{{key}}}}}".encode()).decode().rstrip("="),
    ],
)
@pytest.mark.parametrize("key", [KEY, KEY.upper(), SPECIAL, SPECIAL + "x", SPECIAL + "xy", "nb/\u00e9t\u00e9/secret"])
def test_forms(write, key):
    """A key is masked however it is written, in text and in bytes; at most its edges in base64 are left."""
    written = write(key)
    masked = Mask(key).apply([f"<{written}>", f"<{written}>".encode()])

    assert len(masked[0]) < 20
    assert masked[0] == masked[1].decode()
    assert written.strip("\"'") not in masked[0]


def test_several_secrets():
    """Each of several secrets is masked, the longer first."""
    mask = Mask("user:password", "password").including("nb_key_of_one").including("password")

    assert "*** *** ***" == mask.apply("user:password password nb_key_of_one")
    assert mask is mask.including("nb_key_of_one")
    assert "unchanged" == Mask().apply("unchanged")


@pytest.mark.parametrize(
    "text, masked",
    [("unknown", "unknown"), ("key", "key"), ("bad key: k.", "bad key: ***."), ("k", "***"), ("'k' k_k", "'***' k_k")],
)
def test_short_keys(text, masked):
    """A short key is masked as a whole word only."""
    assert masked == Mask("k").apply(text)
    assert masked.encode() == Mask("k").apply(text.encode())


@pytest.mark.parametrize("value", [None, 5, True, 1.5, "text", b"bytes", {"a": [1, "b"]}, (1, 2), MappingProxyType({})])
def test_values_without_the_key(value):
    """A value without the key is returned itself."""
    assert Mask(KEY).apply(value) is value


@given(
    st.recursive(
        st.none() | st.integers() | st.sampled_from([KEY, KEY + "x", KEY.encode()]) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just(KEY), inner),
    )
)
def test_any_value(value):
    """The `repr` of a masked value never has the key."""
    masked = Mask(KEY).apply(value)

    assert KEY not in repr(masked)
    assert (masked is value) == (KEY not in repr(value))


@pytest.mark.long
def test_deep_values():
    """A value that is nested too deeply is masked whole."""
    value = [KEY]
    for _ in range(100_000):
        value = [value]

    assert "***" == Mask(KEY).apply(value)


class Body(bytes):
    """Bytes without a text form."""

    __slots__ = ()

    def __str__(self):
        raise AssertionError("str() of a body")

    __repr__ = __format__ = __str__


@pytest.mark.timing
@pytest.mark.parametrize("end", [b"", KEY.encode()])
def test_large_bodies(end):
    """A body of 64 MiB is masked without a text form of it: in less than 5 s, with one copy of the body at most."""
    body = Body(b"\0" * (64 * 1024 * 1024) + end)
    tracemalloc.start()
    try:
        started = time.process_time()
        masked = Mask(KEY).apply({"body": body})
        duration = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(body) - len(end) + (3 if end else 0) == len(masked["body"])
    assert KEY.encode() not in bytes(masked["body"])
    assert peak < (1.5 if end else 0.1) * len(body)  # `repr` would be four times as large as the body
    assert duration < 5.0
