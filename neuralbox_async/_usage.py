"""The usage of a client: how many generations it requested, and what they cost, by model."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping

import attrs

# One for all counters, and reentrant: a fork waits for it, so no child inherits it locked, and a signal handler or a
# finalizer may count while its own thread does.
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


@attrs.frozen(kw_only=True)
class ModelUsage:
    """
    The usage of one model, or of all.

    * *calls*: generations that were requested, whole, as streams and in batches; retries do not count. A request of a
      batch that a rate limit refused is another call when the batch sends it again.
    * *tokens_used*: NeuralBox tokens of their bills, as far as responses report them.
    * *unknown*: calls that may have been billed without a response that shows it.
    * *pending*: calls that returned a pending generation, whose bill is not known yet and is not in *tokens_used*.
    """

    calls: int = 0
    tokens_used: int = 0
    unknown: int = 0
    pending: int = 0


@attrs.frozen(kw_only=True)
class ClientUsage(ModelUsage):
    """
    The usage of a client and of the clients that are derived from it, in all, and *by_model*: by slug, as requested.

    Source: counted by the client itself, since it was made or its usage was reset.
    """

    by_model: Mapping[str, ModelUsage] = attrs.field(factory=dict[str, ModelUsage])


class UsageCounter:
    """Counts the usage of a client, also for the *parent*: the counter of the client that it is derived from."""

    def __init__(self, parent: UsageCounter | None = None) -> None:
        self._parent = parent
        self._by_model: dict[str, list[int]] = {}

    def add(self, model: str, tokens_used: int, *, unknown: bool = False, pending: bool = False) -> None:
        """Count the end of a call of *model*. From any thread."""
        counter: UsageCounter | None = self
        with _lock:
            while counter is not None:
                counts = counter._by_model.get(model)  # noqa: SLF001 - of the same class
                if counts is None:
                    counts = counter._by_model[model] = [0, 0, 0, 0]  # noqa: SLF001 - the same
                counts[0] += 1
                counts[1] += tokens_used
                counts[2] += unknown
                counts[3] += pending
                counter = counter._parent  # noqa: SLF001 - the same

    def snapshot(self, *, reset: bool = False) -> ClientUsage:
        """Return the usage so far, and with *reset* begin again at 0, without losing a call. From any thread."""
        with _lock:
            rows = {model: tuple(counts) for model, counts in self._by_model.items()}
            if reset:
                self._by_model = {}
        by_model = {model: ModelUsage(**_named(row)) for model, row in rows.items()}
        return ClientUsage(**_named(tuple(map(sum, zip(*rows.values(), strict=True)))), by_model=by_model)


def _named(counts: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(("calls", "tokens_used", "unknown", "pending"), counts, strict=False))
