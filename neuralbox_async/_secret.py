"""Keep secrets out of reprs, logs and tracebacks: strings whose `repr` hides them, and masks for what servers sent."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeGuard, TypeVar, cast

import attrs

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

_MASK = "***"
_SHORT = 8  # characters; a shorter secret may be part of an ordinary word
_START = 8  # characters of a form that are searched for first


class Secret(str):
    """
    A string whose `repr` is ``'***'``, and whose pickle is that of ``"***"``. A copy of it is the secret itself.

    It is an ordinary `str` for the code that sends it. Code that prints or stores values (debuggers, tracebacks with
    locals, the reprs of dicts and headers) does not see the text.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{_MASK}'"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (_MASK,)


def as_secret(value: T) -> T:
    """Return *value* as a `Secret` when it is a string, so that no frame of a traceback shows it."""
    return cast("T", Secret(value)) if isinstance(value, str) else value


def as_secret_values(headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Return *headers* with each value as a `Secret`."""
    return {name: as_secret(value) for name, value in headers.items()} if isinstance(headers, Mapping) else headers


def without_frames(error: E) -> E:
    """Return *error* without traceback and context: their frames hold received bytes, which may echo the key."""
    error.__context__ = None
    return error.with_traceback(None)


class Mask:
    """
    Replaces each occurrence of *secrets* in values by ``***``.

    Finds a secret as it is, escaped as in JSON, HTML, a URL or a `repr`, in lower case (as in the name of a header),
    and in base64. A secret of less than 8 characters is replaced where it is a whole word.
    """

    def __init__(self, *secrets: str) -> None:
        self._secrets = tuple(map(Secret, secrets))
        self._forms: _Forms | None = None  # until the first value: most calls need no mask

    def including(self, secret: str) -> Mask:
        """Return a mask for *secret* as well."""
        return self if secret in self._secrets else Mask(*self._secrets, secret)

    def apply(self, value: object) -> object:
        """
        Return *value* with each occurrence replaced; *value* itself without an occurrence.

        Looks into strings and bytes, and into mappings, lists and tuples of them. Returns mappings as dicts and tuples
        as lists when they change. Other values are returned unchanged; one that is nested too deeply is replaced whole.
        """
        if self._forms is None:
            self._forms = _forms_of(self._secrets)
        try:
            return _masked(value, self._forms)
        except RecursionError:
            return _MASK

    def apply_to_text(self, text: str) -> str:
        """Return *text* with each occurrence replaced."""
        return cast("str", self.apply(text))

    def at_least(self, length: int) -> Mask:
        """Return a mask for the secrets of at least *length* characters."""
        return Mask(*(secret for secret in self._secrets if len(secret) >= length))


def _forms_of(secrets: Iterable[str]) -> _Forms:
    forms = [_Form(text, text.encode(), is_word=len(secret) < _SHORT) for secret in secrets for text in _forms(secret)]
    forms.sort(key=lambda form: len(form.text), reverse=True)  # a short form may be part of a long one
    starts = {form.encoded[:_START] for form in forms}
    return _Forms(forms, tuple(starts), min((len(form.text) for form in forms), default=0))


@attrs.frozen(repr=False)
class _Forms:
    """All ways to write the secrets, the longest first; *starts*: how they begin; *shortest*: the least length."""

    all: list[_Form]
    starts: tuple[bytes, ...]
    shortest: int

    def may_be_in(self, value: bytes) -> bool:
        """Return whether a form begins in *value*: of most values, these searches are all."""
        for start in self.starts:  # noqa: SIM110 - `any` with a generator takes twice the time
            if value.find(start) >= 0:  # `in` takes 100 ns more
                return True
        return False


@attrs.frozen(repr=False)
class _Form:
    """One way to write a secret."""

    text: str
    encoded: bytes
    is_word: bool

    def mask_text(self, value: str) -> str:
        if self.is_word:
            return re.sub(rf"(?<!\w){re.escape(self.text)}(?!\w)", _MASK, value)
        return value.replace(self.text, _MASK)

    def mask_bytes(self, value: bytes) -> bytes:
        if self.is_word:
            return re.sub(rb"(?<!\w)%b(?!\w)" % re.escape(self.encoded), _MASK.encode(), value)
        return value.replace(self.encoded, _MASK.encode())


def _forms(secret: str) -> set[str]:
    """Return the ways to write *secret*; none is empty."""
    from html import escape
    from json import dumps
    from urllib.parse import quote

    text, octets = str(secret), secret.encode()
    in_json = {dumps(text, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    in_urls = {quote(text), quote(text, safe="")}
    forms = {text, text.lower(), octets.decode("latin-1"), escape(text)}
    forms |= {repr(text)[1:-1], ascii(text)[1:-1], repr(octets)[2:-1]}
    forms |= in_json | {form.replace("/", "\\/") for form in in_json}
    forms |= in_urls | {re.sub("%..", lambda octet: octet[0].lower(), url) for url in in_urls}
    forms |= {form.replace("\\", "\\\\") for form in forms}  # the `repr` of a `repr`
    return (forms | _base64_forms(octets)) - {""}


def _base64_forms(secret: bytes) -> set[str]:
    """Return *secret* in base64: alone, and as it appears inside of a longer text, in each of three alignments."""
    from base64 import b64encode

    alone = b64encode(secret).decode()
    forms = {alone, alone.rstrip("=")}
    for before in range(3):
        encoded = b64encode(b"\0" * before + secret).decode().rstrip("=")
        # The first characters depend on the bytes before it as well, the last one perhaps on the byte after it.
        inner = encoded[(0, 2, 3)[before] : len(encoded) - ((before + len(secret)) % 3 > 0)]
        forms |= {inner} if len(inner) >= _SHORT else set()
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}


def _masked(value: object, forms: _Forms) -> object:
    # By type: `str(value)` of a large body takes seconds.
    if isinstance(value, str):
        if len(value) < forms.shortest:  # most values are shorter
            return value
        for form in forms.all:
            if form.text in value:  # here, because most values have none: a call of each form would take longer
                value = form.mask_text(value)
        return value
    if isinstance(value, bytes):
        for form in forms.all if forms.may_be_in(value) else ():
            if form.encoded in value:
                value = form.mask_bytes(value)
        return value
    if _is_mapping(value):
        members = {_masked(name, forms): _masked(item, forms) for name, item in value.items()}
        is_same = all(map(operator.is_, members, value)) and all(map(operator.is_, members.values(), value.values()))
        return value if is_same else members
    if _is_array(value):
        items = [_masked(item, forms) for item in value]
        return value if all(map(operator.is_, items, value)) else items
    return value


def _is_mapping(value: object) -> TypeGuard[Mapping[object, object]]:
    return isinstance(value, Mapping)


def _is_array(value: object) -> TypeGuard[Iterable[object]]:
    return isinstance(value, list | tuple)
