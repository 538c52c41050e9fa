"""Requests that differ from those that earlier runs sent with the same keys."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from neuralbox_async._batch.errors import RequestChangedError
from neuralbox_async._batch.inputs import content_key
from neuralbox_async._batch.key_index import KeyIndex, digest_of
from neuralbox_async._errors import NO_HEADERS
from neuralbox_async._lazy_imports import anyio
from neuralbox_async._validation import key_text
from neuralbox_async._wire import endpoints

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from neuralbox_async._batch.inputs import RequestDefaults
    from neuralbox_async._batch.journal import Journal
    from neuralbox_async._batch.typed_items import TypedOutput
    from neuralbox_async._types import GenerateRequest

_ITEMS_PER_CHECKPOINT = 256
_MAX_KEYS_IN_MESSAGE = 5
_SEEN = 1


async def check_unchanged(
    journal: Journal, items: Iterable[object], defaults: RequestDefaults, output: TypedOutput | None = None
) -> None:
    """
    Raise `RequestChangedError` if any of *items* has a key with which *journal* has another request.

    *output*: the type of the batch.

    Invalid items are passed over, and so are all items after an exception of their iterator: the batch reports both
    when it reads them. So are further items with the same key, which are not sent.
    """
    keys: list[Any] = []
    seen = KeyIndex()
    for number, item in enumerate(_items(items), 1):
        if number % _ITEMS_PER_CHECKPOINT == 0:
            await anyio.sleep(0)
        key, request_hash = _key_and_hash(item, defaults, output)
        if key is None or seen.mark(digest_of(key_text(key).encode()), _SEEN):
            continue
        if journal.has_changed(key_text(key), request_hash):
            keys.append(key)
    if keys:
        raise changed_error(tuple(keys))


def _items(items: Iterable[object]) -> Iterator[object]:
    with suppress(Exception):  # of the user's iterator
        yield from items


def _key_and_hash(item: object, defaults: RequestDefaults, output: TypedOutput | None) -> tuple[Any, str]:
    """Return the key of *item*, None if it has no key of its own or is invalid, and the hash of its request."""
    try:
        request = defaults.request(item)
        return request.key, hash_of(request, output)
    except Exception:  # noqa: BLE001 - of methods of the user's own values
        return None, ""


def hash_of(request: GenerateRequest, output: TypedOutput | None) -> str:
    """Return the hash by which a journal identifies *request*, of a batch with the type *output*."""
    return content_key(
        endpoints.generate(request, NO_HEADERS).body or b"" if output is None else output.identity(request)
    )


def changed_error(keys: tuple[Any, ...]) -> RequestChangedError:
    """Return the error of requests with *keys* that have changed."""
    return RequestChangedError(
        f"the requests with {names_of(keys)} differ from those that earlier runs sent with the same keys; "
        'choose on_changed="skip" to keep the earlier results, on_changed="retry" to pay for new ones, or other keys',
        keys=keys,
    )


def names_of(keys: tuple[Any, ...]) -> str:
    """Return the number of *keys* and the first of them, for a message."""
    names = ", ".join(key_text(key) for key in keys[:_MAX_KEYS_IN_MESSAGE])
    more = ", ..." if len(keys) > _MAX_KEYS_IN_MESSAGE else ""
    return f"the key {names}" if len(keys) == 1 else f"{len(keys):,} keys ({names}{more})"
