"""Strings that hide themselves, and the masking of a key in values of any size and shape."""

from __future__ import annotations

import pickle
import time
import tracemalloc
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralbox_async._secret import Secret, as_secret, as_secret_values, mask

KEY = "nb_canary_key_7f3a"


def test_repr():
    """The `repr` of a secret, and of a value that holds it, does not show its text."""
    secret = as_secret(KEY)

    assert "{'key': '***'}" == repr({"key": secret})
    assert KEY == secret
    assert ("Bearer " + KEY).encode() == ("Bearer " + secret).encode()


def test_a_secret_cannot_be_pickled():
    """Pickling a secret raises a `TypeError`."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret(KEY))


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
    assert masked == mask(value, KEY)
    assert type(masked) is type(mask(value, KEY))


@pytest.mark.parametrize("value", [None, 5, True, 1.5, "text", b"bytes", {"a": [1, "b"]}, (1, 2), MappingProxyType({})])
def test_values_without_the_key(value):
    """A value without the key is returned itself."""
    assert mask(value, KEY) is value


@given(
    st.recursive(
        st.none() | st.integers() | st.sampled_from([KEY, KEY + "x", KEY.encode()]) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just(KEY), inner),
    )
)
def test_any_value(value):
    """The `repr` of a masked value never has the key."""
    masked = mask(value, KEY)

    assert KEY not in repr(masked)
    assert (masked is value) == (KEY not in repr(value))


def test_deep_values():
    """A value that is nested too deeply is masked whole."""
    value = [KEY]
    for _ in range(100_000):
        value = [value]

    assert "***" == mask(value, KEY)


class Body(bytes):
    """Bytes without a text form."""

    __slots__ = ()

    def __str__(self):
        raise AssertionError("str() of a body")

    __repr__ = __format__ = __str__


@pytest.mark.parametrize("end", [b"", KEY.encode()])
def test_large_bodies(end):
    """A body of 64 MiB is masked without a text form of it: in less than 5 s, with one copy of the body at most."""
    body = Body(b"\0" * (64 * 1024 * 1024) + end)
    tracemalloc.start()
    try:
        started = time.process_time()
        masked = mask({"body": body}, KEY)
        duration = time.process_time() - started
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(body) - len(end) + (3 if end else 0) == len(masked["body"])
    assert KEY.encode() not in bytes(masked["body"])
    assert peak < (1.5 if end else 0.1) * len(body)  # `repr` would be four times as large as the body
    assert duration < 5.0
