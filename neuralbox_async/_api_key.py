"""API keys: where they come from, validated, and never shown."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, TypeVar, cast

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._lazy_imports import asyncio
from neuralbox_async._options import NotGiven
from neuralbox_async._secret import Secret, as_secret

K = TypeVar("K")

ApiKey: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A key, or a function (plain or async) that returns the current one; it is called once for each attempt."""

KeySource: TypeAlias = Secret | Callable[[], str] | Callable[[], Awaitable[str]]
"""A validated key, or a function that returns one."""

_VARIABLE = "NEURALBOX_API_KEY"
_MISSING = f"passed, or set in the environment as {_VARIABLE}"
_STRING = "a string, or a function that returns one"


@attrs.frozen
class _WrongType:
    """Stands for a value that is no key: *rule* names its type, and how to get a key of it."""

    rule: str

    @classmethod
    def of(cls, value: object) -> _WrongType:
        """Return it for *value*, which is neither kept nor converted to text."""
        name = type(value).__name__
        if isinstance(value, bytes | bytearray | memoryview):
            return cls(f"a string, not {name}: decode it, as in key.decode()")
        if hasattr(type(value), "get_secret_value"):
            return cls(f"a string, not {name}: pass key.get_secret_value()")
        if isinstance(value, os.PathLike):
            return cls(f"a string, not {name}: read the file, as in path.read_text().strip()")
        if isinstance(value, Awaitable):
            return cls(f"{_STRING}, not {name}: pass the function itself, without calling it")
        return cls(f"{_STRING}, not {'None' if value is None else name}")


def as_secret_key(api_key: K) -> K:
    """Return *api_key* as a `Secret`: a function unchanged, and a value of a wrong type as a description of it."""
    if api_key is None or callable(api_key) or isinstance(api_key, NotGiven | _WrongType):
        return api_key
    return cast("K", Secret(api_key) if isinstance(api_key, str) else _WrongType.of(api_key))


def resolve_key(api_key: ApiKey | None) -> KeySource:
    """Return *api_key*, or the environment's NEURALBOX_API_KEY. Raises `InvalidParameterError` if there is neither."""
    key = as_secret_key(api_key)
    del api_key
    if key is not None:
        return check_key_source(key)
    of_environment = as_secret(os.environ.get(_VARIABLE))
    if not of_environment:
        raise _invalid(_MISSING if of_environment is None else f"{_MISSING}, where it is empty")
    return check_key(of_environment, f" (it is from {_VARIABLE})")


def check_key_source(api_key: ApiKey) -> KeySource:
    """Return *api_key*, a key or a function. Raises `InvalidParameterError`; None is no key."""
    key = as_secret_key(api_key)
    del api_key
    return check_key(key) if isinstance(key, str) or not callable(key) else key


def check_key(key: object, origin: str = "") -> Secret:
    """Return *key* as a `Secret`. Raises `InvalidParameterError`, which never shows the key; *origin*: for its text."""
    secret: Any = Secret(key) if isinstance(key, str) else _WrongType.of(key) if key is None else as_secret_key(key)
    del key  # no frame of a traceback may hold it
    if not isinstance(secret, Secret):
        wrong_type = secret if isinstance(secret, _WrongType) else _WrongType.of(secret)
        raise _invalid(wrong_type.rule + origin)
    rule = _broken_rule(secret)
    if rule is not None:
        raise _invalid(rule + origin)
    return secret


def _broken_rule(key: Secret) -> str | None:
    if not key:
        return "a non-empty string"
    if key != key.strip():
        return "without white space or line breaks at its ends: pass key.strip()"
    if key.lower().startswith("bearer "):
        return "the key alone, without 'Bearer'"
    if key[0] == key[-1] and key[0] in "\"'`":
        return "without quotation marks around it"
    if not key.isascii() or not key.isprintable() or " " in key:
        return "a string of printable ASCII without spaces or line breaks"
    return None


def _invalid(rule: str) -> InvalidParameterError:
    return InvalidParameterError("api_key", None, rule, show=False)


async def call_key_function(key_function: Callable[[], str] | Callable[[], Awaitable[str]]) -> Secret:
    """Return the key that a plain or async *key_function* returns. Raises `InvalidParameterError`, and its errors."""
    result = as_secret_result(key_function())
    if isinstance(result, Awaitable):
        result = as_secret_result(await cast("Awaitable[object]", result))
    await asyncio.sleep(0)  # it may have held up the loop; a call that was cancelled meanwhile is not sent
    return check_key(result, " (the api_key function returned it)")


def as_secret_result(result: object) -> object:
    """Return the *result* of a key function as a `Secret`, an awaitable unchanged, a wrong type as a description."""
    if isinstance(result, Awaitable):
        return cast("Awaitable[object]", result)
    return Secret(result) if isinstance(result, str) else _WrongType.of(result)
