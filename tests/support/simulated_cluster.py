"""
A cluster in this process, to which random things happen.

Messages of workers are lost, late or repeated, leases expire, workers are killed, coordinators are replaced. The
cluster knows what was sent and billed, and what its coordinator may know of that.
"""

from __future__ import annotations

import itertools
import pickle
from collections import Counter

from coordinators import lose
from simulated_worker import PRICE, Request, Worker

from neuralbox_async._cluster.service import CoordinatorService, ServiceOptions

_TURNS = 120
_WORKERS = 3


class Cluster:
    """A coordinator of the journal at *path*, and up to three workers, with events that *random* chooses."""

    def __init__(self, random, path):
        self.random, self._path = random, path
        self.keys = "abc"[: random.randint(1, 3)]
        self._budget = random.choice([None, 1000, 24, 12])
        self._resends = random.random() < 0.5
        self.numbers = itertools.count()
        self.sent: dict[str, Request] = {}
        self.unsent = 0  # starts that a killed worker may have left
        self.events: list[str] = []
        self.service = self._make(restarted=False)
        self.workers = [Worker(self) for _ in range(random.randint(1, _WORKERS))]
        self._absent: set[Worker] = set()

    def _make(self, *, restarted):
        options = ServiceOptions(
            journal=str(self._path),
            budget=self._budget,
            on_unknown="retry" if self._resends else "skip",
            restarted=restarted,
            lease=1e9,  # expires when this says so
            driver_lease=1e9,
        )
        service = CoordinatorService(options)
        service._budget.quote("m", PRICE)
        return service

    def run(self):
        """Let things happen, then have all rows end. Raises `AssertionError` if something is not true any more."""
        events = [self._replace, self._expire, self._expire, self._kill, self._join, self._end_absence, self._new_run]
        weights = [4, 2, 2, 2, 2, 2, 0.5]
        for _ in range(_TURNS):
            if self.random.random() < 0.14 or not self.workers:
                self.random.choices(events, weights)[0]()
            else:
                self.random.choice(self.workers).act()
            self._check_budget()
        for _ in range(300):
            self._end_absence()
            busy = [worker.drain() for worker in self.workers]
            self._check_budget()
            if not any(busy):
                break
        else:
            raise AssertionError("a row waits, and nothing that it waits for happens")
        self._check_end()

    # ---------------------------------------------------------------------------------------------------------- events

    def _replace(self):
        self.events.append("the coordinator is replaced")
        lose(self.service)
        self.service = self._make(restarted=True)
        self._absent = set(self.workers)

    def _new_run(self):
        while self.workers:
            self._kill()
        self.events.append("a new run")
        lose(self.service)
        self.service = self._make(restarted=False)

    def _end_absence(self):
        if self.service._claims.waits_for_absent:
            self.events.append("nobody is waited for")
            for worker in self._absent:
                worker.lose_lease()
            self._absent.clear()
            self.service._claims.waits_for_absent = False

    def _expire(self):
        if self.workers:
            self.forget(self.random.choice(self.workers))

    def forget(self, worker):
        if worker.name in self.service._peers:
            self.events.append(f"the lease of {worker.name} expires")
            self.service._forget(worker.name)
            worker.lose_lease()

    def _kill(self):
        if self.workers:
            worker = self.workers.pop(self.random.randrange(len(self.workers)))
            self.events.append(f"{worker.name} is killed")
            self._absent.discard(worker)
            self.forget(worker)
            self.unsent += worker.possible_starts
            worker.lose_lease()

    def _join(self):
        if len(self.workers) < _WORKERS:
            self.workers.append(Worker(self))

    def exchange(self, worker, message):
        """Return the reply to *message* of *worker*."""
        reply = pickle.loads(pickle.dumps(self.service.exchange(pickle.loads(pickle.dumps(message)))))
        if reply.known:
            self._absent.discard(worker)
            for one in message.settled:
                if one.claim_id in self.sent and one.tokens_used is not None:
                    self.sent[one.claim_id].is_reported = True
        return reply

    def send(self, key, claim_id):
        """Send a request, and return it. Raises `AssertionError` if its key may not be sent."""
        for one in self.sent.values():
            is_over = one.generated == "failed" and one.bill == 0
            is_invalid = one.generated == "invalid" and one.bill is not None
            may_follow = is_over or is_invalid or (self._resends and one.is_unresolved)
            assert one.key != key or may_follow, f"{key} is sent for {claim_id} although {one} may be billed"
        assert claim_id not in self.sent
        generated = self.random.choices(["completed", "invalid", "failed"], [5, 3, 3])[0]
        tokens = self.random.randint(1, PRICE)
        self.sent[claim_id] = request = Request(key, claim_id, generated, tokens)
        return request

    # ------------------------------------------------------------------------------------------------------------ truth

    def _check_budget(self):
        worst = sum(PRICE if one.bill is None else one.bill for one in self.sent.values())
        assert self._budget is None or worst <= self._budget, f"{worst} tokens may be billed of {self._budget}"

    def _check_end(self):
        for worker in self.workers:
            self.forget(worker)
        service = self.service
        assert 0 == service._budget._reserved.total()
        assert not service._budget.holding
        assert 0 == service._pacer.in_flight
        spent = sum(one.bill for one in self.sent.values() if one.is_reported)
        possibly = PRICE * sum(not one.is_reported for one in self.sent.values())
        live = service.report().tokens_used, service.report().tokens_possibly_billed
        assert spent == live[0]
        assert possibly <= live[1] <= possibly + PRICE * self.unsent
        lose(service)
        self.service = service = self._make(restarted=False)
        assert live == (service.report().tokens_used, service.report().tokens_possibly_billed)
        lose(service)
        texts = Counter(line.count(b"text of ") for line in self._path.read_bytes().splitlines())
        paid = [one for one in self.sent.values() if one.is_reported and one.generated in {"completed", "invalid"}]
        assert len(paid) == texts[1]
        for one in paid:
            assert f'"text of {one.claim_id}."'.encode() in self._path.read_bytes()
