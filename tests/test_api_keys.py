"""Values that are no API keys: the error names their type and the way out, and never shows them."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from neuralbox_async import AsyncNeuralBox, InvalidParameterError
from neuralbox_async.testing import FakeTransport
from neuralbox_sync import NeuralBox

CANARY = "nb_canary_7f3a9c"


class SecretStr:
    """As pydantic's: its text is not that of the key."""

    def __init__(self, value):
        self._value = value

    def get_secret_value(self):
        return self._value

    def __repr__(self):
        return "SecretStr('**********')"

    def __bool__(self):
        raise AssertionError("a secret was tested for truth")


async def coroutine():
    """Return a key, if it is awaited."""
    return CANARY


VALUES = {
    "bytes": (CANARY.encode, "a string, not bytes: decode it, as in key.decode()"),
    "bytearray": (lambda: bytearray(CANARY.encode()), "a string, not bytearray: decode it, as in key.decode()"),
    "SecretStr": (lambda: SecretStr(CANARY), "a string, not SecretStr: pass key.get_secret_value()"),
    "path": (
        lambda: Path(CANARY),
        f"a string, not {type(Path()).__name__}: read the file, as in path.read_text().strip()",
    ),
    "int": (lambda: 5, "a string, or a function that returns one, not int"),
    "bool": (lambda: False, "a string, or a function that returns one, not bool"),
    "list": (lambda: [CANARY], "a string, or a function that returns one, not list"),
    "dict": (lambda: {"key": CANARY}, "a string, or a function that returns one, not dict"),
    "empty": (lambda: "", "a non-empty string"),
    "line break": (
        lambda: f"{CANARY}\n",
        "without white space or line breaks at its ends: pass key.strip()",
    ),
    "blank": (lambda: f" {CANARY}", "without white space or line breaks at its ends: pass key.strip()"),
    "blanks": (lambda: "  ", "without white space or line breaks at its ends: pass key.strip()"),
    "no-break space": (
        lambda: f"{CANARY}\u00a0",
        "without white space or line breaks at its ends: pass key.strip()",
    ),
    "bearer": (lambda: f"Bearer {CANARY}", "the key alone, without 'Bearer'"),
    "quoted": (lambda: f'"{CANARY}"', "without quotation marks around it"),
    "inner blank": (lambda: f"{CANARY} x", "a string of printable ASCII without spaces or line breaks"),
    "not ASCII": (lambda: f"{CANARY}\u20ac", "a string of printable ASCII without spaces or line breaks"),
    "control": (lambda: f"{CANARY}\0x", "a string of printable ASCII without spaces or line breaks"),
}


def assert_describes(error, rule):
    """Check that *error* has the *rule*, and shows no value anywhere."""
    assert f"api_key must be {rule}" == error.message
    text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert CANARY not in f"{text} {error!r} {vars(error)}"
    assert ("api_key", "") == (error.parameter, error.value)


def failure_of(make, get):
    """Return the error of ``make(get)``, which makes a client with the key ``get()``."""
    try:
        make(get)
    except InvalidParameterError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    "make",
    [
        lambda get: AsyncNeuralBox(get()),
        lambda get: NeuralBox(api_key=get()),
        lambda get: AsyncNeuralBox("k").with_options(api_key=get()),
        lambda get: NeuralBox("k").with_options(api_key=get()),
    ],
    ids=["async", "blocking", "async, derived", "blocking, derived"],
)
@pytest.mark.parametrize("get, rule", VALUES.values(), ids=VALUES)
def test_values(make, get, rule):
    """A value of another type is named, with the way to a key; so is a malformed key."""
    assert_describes(failure_of(make, get), rule)


def test_coroutine():
    """For a coroutine, the error requests the function."""
    value = coroutine()
    rule = "a string, or a function that returns one, not coroutine: pass the function itself, without calling it"
    assert_describes(failure_of(lambda get: AsyncNeuralBox(get()), lambda: value), rule)
    value.close()


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("get, rule", VALUES.values(), ids=VALUES)
async def test_results_of_a_function(get, rule, is_async):
    """What a key function returns is described as well, and nothing is sent."""

    async def function():
        return get()

    transport = FakeTransport({})
    client = AsyncNeuralBox(function if is_async else get, transport=transport)
    with pytest.raises(InvalidParameterError) as caught:
        await client.generate("gpt-5", "Hi")
    assert_describes(caught.value, f"{rule} (the api_key function returned it)")
    assert [] == transport.requests


async def test_a_function_that_returns_nothing():
    """A function that forgets to return the key is named as such."""
    client = AsyncNeuralBox(lambda: None, transport=FakeTransport({}))
    with pytest.raises(InvalidParameterError, match=r"not None \(the api_key function returned it\)"):
        await client.generate("gpt-5", "Hi")


def test_none(monkeypatch):
    """None is the key of the environment for a new client; a derived one refuses it: it would bill another owner."""
    monkeypatch.setenv("NEURALBOX_API_KEY", CANARY)
    client = AsyncNeuralBox(None)
    with pytest.raises(InvalidParameterError, match="not None"):
        client.with_options(api_key=None)


@pytest.mark.parametrize(
    "value, rule",
    [
        (None, "passed, or set in the environment as NEURALBOX_API_KEY"),
        ("", "passed, or set in the environment as NEURALBOX_API_KEY, where it is empty"),
        (
            f"{CANARY}\n",
            "without white space or line breaks at its ends: pass key.strip() (it is from NEURALBOX_API_KEY)",
        ),
        (f"'{CANARY}'", "without quotation marks around it (it is from NEURALBOX_API_KEY)"),
    ],
)
def test_environment(monkeypatch, value, rule):
    """A key of the environment that is missing or malformed is described with the name of its variable."""
    monkeypatch.delenv("NEURALBOX_API_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("NEURALBOX_API_KEY", value)
    assert_describes(failure_of(lambda _: AsyncNeuralBox(), lambda: None), rule)
