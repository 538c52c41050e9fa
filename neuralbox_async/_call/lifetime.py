"""Whether a client is closed: a client that is derived from another is closed together with that one."""

from __future__ import annotations

import weakref

import attrs


@attrs.define(eq=False)
class Lifetime:
    """The lifetime of a client, within that of the *parent* it is derived from, or None."""

    parent: Lifetime | None = None
    closed: bool = False
    # Weak: a server may derive a client for each request. No WeakSet: that cannot be read while a thread changes it.
    _derived: set[weakref.ref[Lifetime]] = attrs.field(factory=set[weakref.ref["Lifetime"]], init=False)

    def derive(self) -> Lifetime:
        """Return a lifetime that ends when it is closed, or when this one is."""
        derived = Lifetime(self)
        self._derived.add(weakref.ref(derived, self._derived.discard))
        derived.closed = self.closed  # after `add`: another thread may be closing this one
        return derived

    def close(self) -> None:
        """End it, and the lifetimes derived from it. Idempotent, from any thread."""
        todo: list[Lifetime] = [self]
        while todo:
            lifetime = todo.pop()
            lifetime.closed = True
            references = lifetime._derived.copy()  # copying a set is atomic  # noqa: SLF001 - of the same class
            todo += [derived for reference in references if (derived := reference()) is not None]
