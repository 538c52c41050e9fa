"""
Secret headers are on the wire only: what records, traces or mocks the sessions of aiohttp sees ``***`` instead.

A session gets the hidden headers, and its requests put the secret ones in their place when they are made.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from neuralbox_async._secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

_MASK = "***"
_NOTHING: Mapping[str, str] = {}
_secrets: ContextVar[Mapping[str, str]] = ContextVar("neuralbox_secret_headers", default=_NOTHING)


def hide(headers: Mapping[str, str]) -> dict[str, str]:
    """Return *headers* without their secrets, which the next request of this task gets."""
    secrets = {name: value for name, value in headers.items() if type(value) is Secret}
    _secrets.set(secrets)
    return {**headers, **dict.fromkeys(secrets, _MASK)}


_classes: dict[type[aiohttp.ClientRequest], type[aiohttp.ClientRequest]] = {}


def revealing(request_class: type[aiohttp.ClientRequest]) -> type[aiohttp.ClientRequest]:
    """Return a *request_class* whose requests have the secrets that `hide` has hidden."""
    if request_class not in _classes:  # a class for each session would take longer than a call
        _classes[request_class] = _new_class(request_class)
    return _classes[request_class]


def _new_class(request_class: Any) -> type[aiohttp.ClientRequest]:
    class RevealingRequest(request_class):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)  # pyright: ignore[reportUnknownMemberType]
            self.headers.update(_secrets.get())

    return RevealingRequest
