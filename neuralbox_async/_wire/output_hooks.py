"""The functions that structure JSON values as types."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from neuralbox_async._wire.output_kinds import ByType, unsupported
from neuralbox_async._wire.output_scalars import SCALAR_HOOKS, Hook

if TYPE_CHECKING:
    from cattrs import Converter

Factories = Iterable[tuple[Callable[[Any], bool], Callable[[Any, "Hooks"], Hook]]]
"""The functions that make the hooks of types, each after the predicate of its types."""


class Hooks:
    """
    The hooks of types by the *factories*, made once for each type as it is written.

    Not by cattrs: it has the same hook for types that are equal, as are unions of the same members in another order,
    of which the first member that fits counts.

    *converter*: of cattrs, for classes. *fast*: the hooks that stop at the first problem, None if these do.
    *changes_arguments*: whether the constructor of a class may, which then fails as an alternative of a union.
    """

    def __init__(self, converter: Converter, factories: Factories, fast: Hooks | None) -> None:
        self.converter = converter
        self.is_detailed = fast is not None
        self.fast = fast
        self.changes_arguments = False
        self._factories = factories
        self._hooks = ByType[Hook]()

    def of(self, tp: Any) -> Hook:
        """Return the hook of *tp*, which is made when it is called: a class may have a member of its own type."""
        if is_scalar(tp):
            return SCALAR_HOOKS[tp]
        hook: Hook | None = None

        def structure(value: Any, _tp: Any) -> Any:
            nonlocal hook
            if hook is None:
                hook = self.made(tp)
            return hook(value, tp)

        return structure

    def made(self, tp: Any) -> Hook:
        """Return the hook of *tp*."""
        return self._hooks.get(tp) or self._hooks.set(tp, self._make(tp))

    def _make(self, tp: Any) -> Hook:
        for accepts, make in self._factories:
            if accepts(tp):
                return make(tp, self)
        raise unsupported(tp)


def is_scalar(tp: Any) -> bool:
    """Return whether *tp* is one of `SCALAR_HOOKS`."""
    return tp is None or (isinstance(tp, type) and tp in SCALAR_HOOKS)
