"""The members of a dict that describes a request: which are its fields, and which are nearly the name of one."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, Final

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._validation import is_mapping

CONTENT_FIELDS: Final = ("prompt", "messages")
"""The fields of which a request has one."""
FIELDS: Final = frozenset({*CONTENT_FIELDS, "key", "model", "system", "temperature", "max_tokens", "extra_body"})
"""The members of a dict that are fields of its request."""

# The same things in other APIs, and in the vendor's second form, without the underscores.
_OTHER_NAMES: Final = {
    "maxcompletiontokens": "max_tokens",
    "maxnewtokens": "max_tokens",
    "maxoutputtokens": "max_tokens",
    "systemmessage": "system",
    "systemprompt": "system",
}
# Of two names, by difflib, without the underscores: "temprature" and "temperature" have 0.95, "promt" and "prompt"
# 0.91, "temperate" and "temperature" 0.90, "mode" and "model" 0.89.
_SIMILAR: Final = 0.9
_MAX_NAME_LENGTH: Final = 40
_MAX_NAMES_SHOWN: Final = 5


def request_fields(members: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the arguments of the `GenerateRequest` that *members* describe, with *defaults* for those that are absent.

    Other members are left out. Raises `InvalidParameterError`, also for a member that is nearly an absent field.
    """
    _check_names(members)
    prompt, messages = members.get("prompt"), members.get("messages")
    if prompt is not None:
        if messages is not None:
            raise InvalidParameterError("prompt", None, "absent if there are 'messages': pass one of them", show=False)
        if not isinstance(prompt, str):
            raise InvalidParameterError("prompt", prompt, "a string")
        messages = prompt
    elif messages is None:
        rule = f"a member of each dict, unless it has 'messages'; this one has {_names_in(members)}"
        raise InvalidParameterError("prompt", None, rule, show=False)
    fields = {name: default if members.get(name) is None else members[name] for name, default in defaults.items()}
    extra_body = members.get("extra_body")
    return {"messages": messages, "extra_body": {} if extra_body is None else extra_body, **fields}


def has_model(item: object) -> bool:
    """Return whether *item* of a batch has a model, or is of a kind that has none: neither a string nor a dict."""
    return not isinstance(item, str) and not (is_mapping(item) and item.get("model") is None)


def _check_names(members: Mapping[str, Any]) -> None:
    for name in members:
        if name not in FIELDS and isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            field = intended_field(name)
            if field is not None and _is_absent(field, members):
                raise InvalidParameterError(
                    name, None, f"spelled {field!r}, or renamed if it is something else", show=False
                )


def _is_absent(field: str, members: Mapping[str, Any]) -> bool:
    return all(members.get(name) is None for name in (CONTENT_FIELDS if field in CONTENT_FIELDS else (field,)))


@functools.lru_cache(maxsize=1024)  # the rows of a table have the same names
def intended_field(name: str) -> str | None:
    """Return the field that the unknown *name* probably means, such as "max_tokens" for "Max tokens"."""
    import difflib  # not above: most programs do not need it

    words = re.sub(r"[\W_]+", "_", name[:_MAX_NAME_LENGTH].lower()).strip("_")
    letters = words.replace("_", "")
    if letters in _OTHER_NAMES:
        return _OTHER_NAMES[letters]
    for field in sorted(FIELDS):
        if sorted(letters) == sorted(field.replace("_", "")):
            return field
        # A longer name or another number is a name of its own: "temperature_c", "models", "prompt2".
        is_own = f"_{field}_" in f"_{words}_" or any(letter.isdigit() for letter in letters)
        is_plural = letters == f"{field}s" and field not in CONTENT_FIELDS
        ratio = difflib.SequenceMatcher(None, letters, field.replace("_", "")).ratio()
        if ratio > _SIMILAR and not is_own and not is_plural:
            return field
    return None


def _names_in(members: Mapping[Any, Any]) -> str:
    names = [ascii(name)[:_MAX_NAME_LENGTH] for name in members if isinstance(name, str)]
    shown = ", ".join(names[:_MAX_NAMES_SHOWN]) or "no members"
    return shown if len(names) <= _MAX_NAMES_SHOWN else f"{shown}, ..."
