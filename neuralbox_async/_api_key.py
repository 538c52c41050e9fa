"""API keys: where they come from, validated, and never shown."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TypeAlias, TypeVar, cast

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._lazy_imports import asyncio
from neuralbox_async._options import NotGiven
from neuralbox_async._secret import Secret, as_secret

K = TypeVar("K")

ApiKey: TypeAlias = str | Callable[[], str] | Callable[[], Awaitable[str]]
"""A key, or a function (plain or async) that returns the current one; it is called once for each attempt."""

KeySource: TypeAlias = Secret | Callable[[], str] | Callable[[], Awaitable[str]]
"""A validated key, or a function that returns one."""


def as_secret_key(api_key: K) -> K:
    """Return *api_key* as a `Secret`: a function unchanged, and a value of a wrong type as an empty secret."""
    if api_key is None or callable(api_key) or isinstance(api_key, NotGiven):
        return api_key
    return cast("K", Secret(api_key) if isinstance(api_key, str) else Secret())


def as_secret_result(result: object) -> Secret | Awaitable[str]:
    """Return the *result* of a key function as a `Secret`: an awaitable unchanged, a wrong type as an empty secret."""
    if isinstance(result, Awaitable):
        return cast("Awaitable[str]", result)
    return Secret(result) if isinstance(result, str) else Secret()


def resolve_key(api_key: ApiKey | None) -> KeySource:
    """Return *api_key*, or the environment's NEURALBOX_API_KEY. Raises `InvalidParameterError` if there is neither."""
    key = as_secret_key(api_key)
    del api_key
    if key is None:
        key = as_secret(os.environ.get("NEURALBOX_API_KEY"))
    if not key:
        rule = "passed, or set in the environment as NEURALBOX_API_KEY"
        raise InvalidParameterError("api_key", None, rule, show=False)
    return key if callable(key) else check_key(key)


def check_key(key: object) -> Secret:
    """Return *key* as a `Secret`. Raises `InvalidParameterError`, which never shows the key."""
    secret = Secret(key) if isinstance(key, str) else Secret()
    del key  # no frame of a traceback may hold it
    if not secret or not secret.isascii() or not secret.isprintable() or " " in secret:
        rule = "a non-empty string of printable ASCII without spaces or line breaks"
        raise InvalidParameterError("api_key", None, rule, show=False)
    return secret


async def call_key_function(key_function: Callable[[], str] | Callable[[], Awaitable[str]]) -> Secret:
    """Return the key that a plain or async *key_function* returns. Raises `InvalidParameterError`, and its errors."""
    result = as_secret_result(key_function())
    if isinstance(result, Awaitable):
        result = as_secret_result(await result)
    await asyncio.sleep(0)  # it may have held up the loop; a call that was cancelled meanwhile is not sent
    return check_key(result)
