"""Coordinators of a cluster in this process, and workers' sessions whose exchanges are pickled as an engine does."""

from __future__ import annotations

import itertools
import pickle

from neuralbox_async import Generation
from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.coordinator import ServerSignal
from neuralbox_async._cluster.messages import Exchange, Observed, Settled, Wanted

BODY = b'{"id":"gen_1","content":"Hi","tokens_used":3}'
GENERATION = Generation(id="gen_1", content="Hi", tokens_used=3)
LINE = {"attempts": 1, "elapsed": 0.1, "tokens_used": 3}


class Worker:
    """A worker's session, whose exchanges are pickled as an engine does."""

    def __init__(self, service, name="one"):
        self.service, self.name, self.numbers = service, name, itertools.count(1)

    def exchange(self, **parts):
        message = Exchange(session=self.name, number=next(self.numbers), **parts)
        return self.send(message)

    def send(self, message):
        return pickle.loads(pickle.dumps(self.service.exchange(pickle.loads(pickle.dumps(message)))))

    def claim(self, *keys, model="m", request_hash=None, kind="new", price=3):
        """Claim *keys*, each with an id of its own, and return the decisions that are there."""
        wanted = [
            Wanted(id=f"{self.name}-{key}", key=key, model=model, request_hash=request_hash, kind=kind) for key in keys
        ]
        reply = self.exchange(wanted=tuple(wanted), prices={} if price is None else {"m": price})
        return [grant.decision for grant in reply.grants]

    def settled(self, key, outcome="completed", *, tokens_used=3, line=True, idempotency_key=None, claim_id=None):
        """Return an outcome of *key*, of the claim *claim_id*; None: that which names the idempotency key."""
        if outcome in {"completed", "invalid"}:
            facts = {**LINE, "tokens_used": tokens_used}
            text = journal_lines.done(key, GENERATION, BODY, **facts, is_valid=outcome == "completed")
        elif outcome == "accepted":
            text = journal_lines.pending(key, "gen_1")
        else:
            text = b'{"event":"failed","key":"%s","billed":"no"}\n' % key.encode()
        idempotency_key = idempotency_key or f"{self.name}-{key}"
        return Settled(
            key=key,
            model="m",
            idempotency_key=idempotency_key,
            claim_id=claim_id or idempotency_key,
            outcome=outcome,
            line=text if line else None,
            tokens_used=tokens_used,
        )

    def settle(self, key, outcome="completed", *, holding=None, mark=None, **facts):
        """Report an outcome of *key*; *facts*: see `settled`."""
        one = self.settled(key, outcome, **facts)
        observed = (Observed(ServerSignal.ADMITTED, 0.1),)
        return self.exchange(settled=(one,), observed=observed, holding=holding, mark=mark)


def lose(service):
    """End *service* as a process that is killed ends: its journal is released, and nothing is written."""
    with service._lock:
        service._closed = True
        service._journal.close()


def forget(service, *names):
    """Have *service* take the sessions *names* for lost, as after their leases."""
    with service._lock:
        for name in names:
            service._forget(name)
