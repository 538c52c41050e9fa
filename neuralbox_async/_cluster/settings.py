"""What the workers of a batch need to know: values that can be pickled. The API key is not among them."""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs

from neuralbox_async._batch.inputs import RequestDefaults, as_mapping, key_of
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._validation import is_mapping

if TYPE_CHECKING:
    from neuralbox_async._options import NotGiven
    from neuralbox_async._types import Messages

# A file server keeps the lock of a node that is lost for as long as its lease: 90 s, unless its NFS is configured
# otherwise. A replacement of the coordinator waits for that, and workers for the replacement.
LOCK_TIMEOUT: Final = 120.0
RECONNECT_TIMEOUT: Final = LOCK_TIMEOUT + 30.0
_PARTS: Final = re.compile(r"\[[^\]]*\]|\.?[^.\[]*")  # of the name of a field: "a", "[b.c]" and ".d" of "a[b.c].d"


@attrs.frozen(kw_only=True, eq=False)
class RowFormat:
    """
    How a row becomes a request.

    * *prompt*: a template (``"Summarise: {text}"``) for members of the row, of which none may be missing (None, NaN,
      NaT and NA of pandas, a masked value of numpy), or a function of the row that returns a prompt or messages. None:
      the row itself is a prompt, or has ``prompt`` or ``messages``.
    * *key*: the name of the member with the key of the row, or a function of the row; it may not be missing either.
      None: its member ``key`` if it has one that is not None, otherwise the hash of the request.
    """

    prompt: str | Callable[[Any], Messages] | None = None
    key: str | Callable[[Any], Any] | None = None

    def item(self, row: object) -> object:
        """Return the request of *row*, as `RequestDefaults.request` takes it. Raises errors of the row."""
        if self.prompt is None and self.key is None:
            return row
        members = as_mapping(row)
        item: dict[str, Any] = dict(members) if is_mapping(members) else {"prompt": row}
        if self.prompt is not None:
            # Other members of the row, such as one that is called `system`, are its data.
            item = {"key": item["key"]} if "key" in item else {}
            prompt = self._prompt(row, members)
            item["prompt" if isinstance(prompt, str) else "messages"] = prompt
        if self.key is not None:
            item["key"] = self._key(row, self.key)
        return item

    def key_of(self, row: object) -> Any:
        """Return the key that *row*, which has no valid request, was given; None without a valid one."""
        try:
            return key_of(row if self.key is None else {"key": self._key(row, self.key)})
        except BaseException:  # noqa: BLE001 - of the user's function, in a thread, where it ends nothing
            return None

    @staticmethod
    def _key(row: object, source: str | Callable[[Any], Any]) -> Any:
        key = source(row) if callable(source) else _member(as_mapping(row), source)
        if _is_missing(key):
            raise InvalidParameterError("rows[]", None, f"with a key: it is {key}", show=False)
        return key

    def _prompt(self, row: object, members: object) -> Messages:
        template = self.prompt or ""
        if not isinstance(template, str):
            return template(row)
        if not is_mapping(members):
            raise InvalidParameterError("rows[]", row, "a mapping: the prompt is a template")
        try:
            return _TEMPLATES.vformat(template, (), members)
        except (LookupError, ValueError, AttributeError, TypeError) as error:
            rule = f"with all members that the prompt names ({error})"
            raise InvalidParameterError("rows[]", None, rule, show=False) from None


class _Templates(string.Formatter):
    """Does the same as `str.format_map`, but a missing value is an error: a prompt with ``nan`` would be paid for."""

    def get_value(self, key: int | str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        if isinstance(key, int) or not key:
            raise ValueError("it names a position")
        return super().get_value(key, args, kwargs)

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, int | str]:
        field: tuple[Any, int | str] = (None, "")
        for part in _PARTS.finditer(field_name):
            name = field_name[: part.end()]
            field = super().get_field(name, args, kwargs)
            if _is_missing(field[0]):
                raise ValueError(f"{name!r} is {field[0]}")
        return field


_TEMPLATES: Final = _Templates()


def _is_missing(value: Any) -> bool:
    """Return whether *value* is None, NaN of any type, ``NaT`` or ``NA`` of pandas, or a masked value of numpy."""
    if value is None or type(value).__name__ in {"NAType", "MaskedConstant"}:  # comparisons are neither true nor false
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT are not equal to themselves
    except Exception:  # noqa: BLE001 - of the user's own values, and of arrays, whose comparison is one as well
        return type(value).__name__ == "Decimal"  # a signaling NaN, the only one that cannot be compared


def _member(members: object, name: str) -> Any:
    if not is_mapping(members) or name not in members:
        raise InvalidParameterError("rows[]", None, f"with a member {name!r}, the key", show=False)
    return members[name]


@attrs.frozen(kw_only=True, eq=False)
class WorkerSettings:
    """
    The settings of one batch for its workers; *run* identifies it.

    * *width*: requests in flight of one process. *needs_prices*: whether there is a budget.
    * *api_key*: a function that returns the key and is called in the worker; None: NEURALBOX_API_KEY there.
    * *timeout*, *max_retries*: of each request. *reconnect_timeout*: see `WorkerSession`. *idle_timeout*: seconds
      without a partition after which a worker ends; None: some seconds.
    * *keeps_outcomes*: whether results have all that `generate_many` reports: `RowResult.outcome`.
    """

    run: str
    defaults: RequestDefaults
    row_format: RowFormat
    width: int
    needs_prices: bool
    timeout: float | NotGiven | None
    max_retries: int | NotGiven
    output_type: Any = None
    max_repairs: int = 1
    api_key: Callable[[], Any] | None = None
    base_url: str | None = None
    reconnect_timeout: float = RECONNECT_TIMEOUT
    idle_timeout: float | None = None
    keeps_outcomes: bool = False
