"""Validators: each returns the value that it accepts, or raises `InvalidParameterError`."""

from __future__ import annotations

import functools
import numbers
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeGuard

import attrs

from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._secret import as_secret

_MAX_INTEGER = 2**63 - 1  # of 64 bits, which any language and any file of numbers can hold
_MAX_SECONDS = 1e12
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a token of RFC 9110, section 5.6.2
_HEADER_VALUE_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OWN_HEADERS = frozenset(
    {"authorization", "idempotency-key", "content-length", "content-type", "host", "transfer-encoding", "connection"}
)


def field_validator(check: Callable[..., object], **rules: Any) -> Callable[[Any, attrs.Attribute[Any], Any], None]:
    """Return an attrs validator that calls ``check(field name, value, **rules)``."""

    def validate(_instance: Any, field: attrs.Attribute[Any], value: Any) -> None:
        check(field.name, value, **rules)

    return validate


def is_list(value: object) -> TypeGuard[Iterable[Any]]:
    """Return whether *value* may be a list of values: an iterable that is neither bytes nor a mapping."""
    return isinstance(value, Iterable) and not isinstance(value, bytes | Mapping)


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Return whether *value* is a mapping; of strings, as far as the type checker is concerned."""
    return isinstance(value, Mapping)


class SupportsModelDump(Protocol):
    """An object such as a pydantic model, which is taken for the dict that its ``model_dump`` returns."""

    def model_dump(self, *, mode: str, exclude_none: bool) -> dict[str, Any]:
        """Return the members: JSON values for the *mode* ``"json"``, and none that are None if *exclude_none*."""
        ...


def members_of(value: object) -> dict[str, Any] | None:
    """Return the members of *value*, a mapping or an object with a method ``model_dump``; otherwise None."""
    if is_mapping(value):
        return dict(value)
    model_dump: Any = None if isinstance(value, type) else getattr(value, "model_dump", None)
    if callable(model_dump):
        members = model_dump(mode="json", exclude_none=True)
        return dict(members) if is_mapping(members) else None
    return None


def is_number(value: object) -> TypeGuard[int | float]:
    """Return whether *value* is a number, and not True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_integer(value: object) -> TypeGuard[int]:
    """Return whether *value* is an integer, and not True or False."""
    return isinstance(value, int) and not isinstance(value, bool)


def plain_number(value: Any) -> Any:
    """Return *value*; if it is a number of another library's type, such as numpy's, as an int or a float."""
    if value is None or type(value) is int or type(value) is float or isinstance(value, int):
        return value
    if isinstance(value, numbers.Integral):
        return operator.index(value)
    if isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def check_seconds(parameter: str, value: object) -> float | None:
    """Return *value* as a time in seconds, above 0, or None for no limit."""
    if value is None:
        return None
    if not is_number(value) or not 0 < value < _MAX_SECONDS:
        raise InvalidParameterError(parameter, value, "a positive number of seconds, or None")
    return float(value)


def check_backoff(parameter: str, value: object) -> float:
    """Return *value* as a time in seconds, 0 included and infinity allowed."""
    if not is_number(value) or not value >= 0 or (isinstance(value, int) and value > _MAX_INTEGER):
        raise InvalidParameterError(parameter, value, "a number of seconds of at least 0")
    return float(value)


def check_interval(parameter: str, value: object) -> float:
    """Return *value* as a time in seconds, above 0."""
    seconds = check_seconds(parameter, value)
    if seconds is None:
        raise InvalidParameterError(parameter, value, "a number of seconds above 0")
    return seconds


def check_rate(parameter: str, value: object) -> float | None:
    """Return *value* as a number of requests per second, above 0, or None."""
    if value is None:
        return None
    if not is_number(value) or not 0 < value <= _MAX_INTEGER:
        raise InvalidParameterError(parameter, value, "a number of requests per second above 0, or None")
    return float(value)


def check_flag(parameter: str, value: object) -> bool:
    """Return *value*, True or False."""
    if not isinstance(value, bool):
        raise InvalidParameterError(parameter, value, "True or False")
    return value


def check_count(parameter: str, value: object, *, minimum: int) -> int:
    """Return *value*, an integer of at least *minimum*."""
    if not is_integer(value) or value < minimum:
        raise InvalidParameterError(parameter, value, f"an integer of at least {minimum}")
    if value > _MAX_INTEGER:
        raise InvalidParameterError(parameter, value, "an integer that fits in 64 bits")
    return value


def check_optional_count(parameter: str, value: object, *, minimum: int) -> int | None:
    """Return *value*, an integer of at least *minimum*, or None."""
    if value is None:
        return None
    if not is_integer(value) or value < minimum:
        raise InvalidParameterError(parameter, value, f"an integer of at least {minimum}, or None")
    return check_count(parameter, value, minimum=minimum)


def check_text(parameter: str, value: object, rule: str = "a string") -> str:
    """Return *value*, a string that UTF-8 can carry."""
    if not isinstance(value, str):
        raise InvalidParameterError(parameter, value, rule)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            excerpt = value[max(0, error.start - 10) : error.end + 10]
            raise InvalidParameterError(parameter, excerpt, "text without lone surrogates") from None
    return value


def check_nonempty_text(parameter: str, value: object, rule: str) -> str:
    """Return *value*, a string of at least one character that UTF-8 can carry."""
    if not (text := check_text(parameter, value, rule)):
        raise InvalidParameterError(parameter, value, rule)
    return text


def check_model(model: object) -> None:
    """Raise `InvalidParameterError` unless *model* may be a slug."""
    # The requests of a batch have the same one again and again (benchmark scenario `batch`). Only valid ones are kept.
    check = _check_slug if type(model) is str else _check_slug.__wrapped__
    check(model)


@functools.lru_cache(64)
def _check_slug(model: object) -> None:
    slug = check_nonempty_text("model", model, "a model slug, such as 'gpt-5'")
    if slug.split() != [slug]:
        raise InvalidParameterError("model", slug, "a model slug, without spaces (it comes before the messages)")


def is_blank(text: str) -> bool:
    """Return whether *text* is empty, or nothing but white space: the API would bill an answer to nothing."""
    return not text or text.isspace()


def check_key(key: object) -> None:
    """Accept the key of a request: a string of at least one character, or an integer, also numpy's."""
    rule = "a non-empty string, an integer, or None"
    if isinstance(key, str):
        check_nonempty_text("key", key, rule)
    elif not is_integer(plain_number(key)):
        raise InvalidParameterError("key", key, rule)
    if type(key) is not str:
        try:
            hash(key)
            key_text(key)
        except Exception:  # noqa: BLE001 - of the user's own class, or of a number with too many digits
            raise InvalidParameterError("key", key, rule) from None


def key_text(key: object) -> str:
    """Return the text that stands for *key*, which is a string or an integer, in a journal."""
    if isinstance(key, str):
        # A class derived from `str` may have other methods, which do not work.
        return key if type(key) is str else str.__str__(key)
    return int.__repr__(plain_number(key))


def check_callable(parameter: str, value: object) -> None:
    """Accept a callable, or None."""
    if value is not None and not callable(value):
        raise InvalidParameterError(parameter, value, "a function, or None")


def check_headers(parameter: str, headers: Mapping[str, str] | None) -> dict[str, str]:
    """Return *headers*, which can be sent as they are. Values never appear in the error."""
    if headers is None:
        return {}
    if not is_mapping(headers):
        raise InvalidParameterError(parameter, None, "a mapping of header names to values", show=False)
    secrets: dict[Any, Any] = {name: as_secret(value) for name, value in headers.items()}
    del headers  # users put secrets there as well
    for name, value in secrets.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise InvalidParameterError(parameter, name, "header names other than those that the client sets itself")
        if not _is_header_value(value):
            raise InvalidParameterError(f"{parameter}[{name!r}]", None, "ASCII text without line breaks", show=False)
    return secrets


def check_idempotency_key(key: object) -> str:
    """Return *key*, which can be sent as a header."""
    if not key or not _is_header_value(key):
        raise InvalidParameterError("idempotency_key", key, "a non-empty string of ASCII without line breaks")
    return key


def _is_header_value(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and value.isascii() and not _HEADER_VALUE_FORBIDDEN.search(value)
