"""
The fast paths of the wire format: requests, responses and events in their most frequent form, without cattrs.

Each function returns the same as the general path, or reports that the general path must be taken. A property test
holds them equal. With NEURALBOX_FAST_PATHS=off the general path is always taken. Measured by the benchmark scenarios
`call-64-tls` (requests, responses) and `stream` (deltas).
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import attrs

from neuralbox_async import _fast_paths
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._types import ROLES, ContentDelta, GenerateRequest, Generation, Usage, check_settings
from neuralbox_async._validation import is_blank
from neuralbox_async._wire import json

# ----------------------------------------------------------------------------------------------------------- requests


def encode_plain(
    model: object, messages: object, system: object, temperature: object, max_tokens: object
) -> bytes | None:
    """
    Return the body of POST /generate for plain text, the same as `encode_request` does, or None for the general path.

    Plain is one text, or dicts with nothing but a role and a text: nearly every request. Raises
    `InvalidParameterError`.
    """
    if not _fast_paths.enabled():
        return None
    try:
        turns = _plain_turns(messages)
        if turns is None or type(model) is not str or (quoted_model := _quoted_model(model)) is None:
            return None
        required = b'{"model":%b,"messages":[%b]' % (quoted_model, turns)
    except (UnicodeEncodeError, TypeError):  # lone surrogates
        return None
    if system is None and temperature is None and max_tokens is None:
        return required + b"}"
    if max_tokens is not None or temperature is not None or type(system) is not str:
        check_settings(system, temperature, max_tokens)  # a string is checked by its encoding
    settings = _settings(system, temperature, max_tokens)
    return None if settings is None else b"%b%b}" % (required, settings)


def encode_plain_request(request: GenerateRequest) -> bytes | None:
    """
    Return the body of POST /generate for a *request* with nothing but texts, or None for the general path.

    For batches, whose requests are `GenerateRequest` already (benchmark scenario `batch`).
    """
    if request.extra_body or not _fast_paths.enabled():
        return None
    turns: list[bytes] = []
    model = request.model
    try:
        for message in request.messages:
            if not isinstance(message.content, str) or message.extra:
                return None
            turns.append(_turn(message.role, message.content))
        if (quoted_model := _quoted_model(model) if type(model) is str else json.quoted(model)) is None:
            return None
        required = b'{"model":%b,"messages":[%b]' % (quoted_model, b",".join(turns))
    except (UnicodeEncodeError, TypeError):  # lone surrogates
        return None
    settings = _settings(request.system, request.temperature, request.max_tokens)
    return None if settings is None else b"%b%b}" % (required, settings)


_class: Callable[[Any], Any] = type  # with `type` itself, type checkers go on to ask for the types of a dict's items


_MAX_CACHED = 16 * 1024  # characters
_quoted_system = functools.lru_cache(64)(json.quoted)


@functools.lru_cache(64)
def _quoted_model(model: str) -> bytes | None:
    return json.quoted(model) if model.split() == [model] else None


def _plain_turns(messages: Any) -> bytes | None:
    if _class(messages) is str:
        return None if is_blank(messages) else _turn("user", messages)
    if _class(messages) is not list:
        return None
    turns: list[bytes] = []
    for message in messages:
        if _class(message) is not dict or len(message) != 2:
            return None
        role, content = message.get("role"), message.get("content")
        if _class(role) is not str or role not in ROLES or _class(content) is not str:
            return None
        turns.append(_turn(role, content))
    return None if not turns or is_blank(messages[-1]["content"]) else b",".join(turns)


def _turn(role: str, text: str) -> bytes:
    return b'{"role":"%b","content":%b}' % (role.encode(), json.quoted(text))


def _settings(system: object, temperature: object, max_tokens: object) -> bytes | None:
    if system is None and temperature is None and max_tokens is None:
        return b""
    if type(system) is str and temperature is None and max_tokens is None:
        # A system message alone, such as the schema of a typed answer (benchmark scenario `parse`).
        try:
            return b',"system":%b' % (_quoted_system if len(system) <= _MAX_CACHED else json.quoted)(system)
        except (UnicodeEncodeError, TypeError):  # lone surrogates
            return None
    settings = {"system": system, "temperature": temperature, "max_tokens": max_tokens}
    try:
        return b"," + json.dumps({name: value for name, value in settings.items() if value is not None})[1:-1]
    except InvalidParameterError:  # lone surrogates
        return None


# ---------------------------------------------------------------------------------------------------------- responses

# The members of the vendor's own sample.
_plain_values: Callable[[Any], tuple[Any, ...]] = operator.itemgetter(
    "id", "status", "model", "content", "created_at", "tokens_used", "balance_remaining", "usage"
)
_plain_counts: Callable[[Any], tuple[Any, ...]] = operator.itemgetter(
    "prompt_tokens", "completion_tokens", "total_tokens"
)
_PLAIN_MEMBERS, _PLAIN_COUNTS = 8, 3
_DEFAULTS: dict[str, Any] = {field.name: field.default for field in attrs.fields(Generation)}


def plain_generation(members: Any) -> Generation | None:  # noqa: PLR0911 - each return is one condition
    """Return the generation in *members*, if they are those of the vendor's sample in their types; otherwise None."""
    if not _fast_paths.enabled():
        return None
    try:
        generation_id, status, model, content, created_at, used, balance, usage = _plain_values(members)
        prompt, completion, total = _plain_counts(usage)
    except (KeyError, TypeError, IndexError):
        return None
    if not type(generation_id) is type(status) is type(model) is type(content) is type(created_at) is str:
        return None
    if not type(used) is type(balance) is type(prompt) is type(completion) is type(total) is int:
        return None
    if len(members) != _PLAIN_MEMBERS or len(usage) != _PLAIN_COUNTS:
        return None
    if not 0 <= min(used, balance, prompt, completion, total) <= max(used, balance, prompt, completion, total) < 2**63:
        return None
    try:
        created = datetime.fromisoformat(created_at)
    except ValueError:
        return None
    # Not through the constructors of the frozen classes, which take as long as all the rest.
    generation, tokens = object.__new__(Generation), object.__new__(Usage)
    vars(tokens).update(usage)
    fields = {**_DEFAULTS, **members, "usage": tokens, "raw": members}
    fields["created_at"] = created if created.tzinfo else created.replace(tzinfo=UTC)
    object.__setattr__(generation, "__dict__", fields)
    return generation


# ------------------------------------------------------------------------------------------------------------- events


def take_deltas(events: Iterator[bytes | str], take: Callable[[dict[str, Any]], None]) -> bytes | str | None:
    """
    Pass the deltas at the beginning of *events*, the data of server-sent events, to *take*, each as its JSON object.

    Returns the first event that is not like the vendor's sample of a delta, for `decode_event`, or None when all were
    taken. Most deltas are read before anybody asks for them, and a `ContentDelta` for each would keep the garbage
    collector busy.
    """
    if not _fast_paths.enabled():
        return next(events, None)
    load = json.fastest_loads()
    for data in events:
        try:
            members = load(data)
            if len(members) != 2 or members["type"] != "content_delta" or type(members["delta"]) is not str:
                return data
        except (ValueError, RecursionError, TypeError, KeyError):
            return data
        take(members)
    return None


_set_delta: Callable[[ContentDelta, str], None] = cast("Any", ContentDelta).delta.__set__
_set_raw: Callable[[ContentDelta, dict[str, Any]], None] = cast("Any", ContentDelta).raw.__set__
_text_of = operator.itemgetter("delta")


def delta_event(members: dict[str, Any]) -> ContentDelta:
    """Return the event of *members*, which `take_deltas` took."""
    # Frozen like any other, in half the time: 12 % of an event (benchmark scenario `stream`).
    event: ContentDelta = object.__new__(ContentDelta)
    _set_delta(event, members["delta"])
    _set_raw(event, members)
    return event


def delta_events(taken: list[dict[str, Any]]) -> list[ContentDelta]:
    """Return the events of *taken*, which `take_deltas` took."""
    # Frozen like any other, made in bulk without a line of Python for each (benchmark scenario `sync-stream`).
    events = list(map(object.__new__, itertools.repeat(ContentDelta, len(taken))))
    deque(map(_set_delta, events, map(_text_of, taken)), maxlen=0)
    deque(map(_set_raw, events, taken), maxlen=0)
    return events
