"""A worker of a `simulated_cluster`: it claims, sends and reports as the workers of engines do."""

from __future__ import annotations

import attrs
from coordinators import LINE

from neuralbox_async import Generation
from neuralbox_async._batch import journal_lines
from neuralbox_async._batch.coordinator import ServerSignal
from neuralbox_async._cluster.messages import (
    Decision,
    Exchange,
    Grant,
    Held,
    Observed,
    Settled,
    Wanted,
    unsent_line,
)
from neuralbox_async._cluster.service import CoordinatorService

PRICE = 3  # the most that a request costs
_HOLDING = {Decision.SEND, Decision.ASK, Decision.INVALID}


@attrs.define(eq=False)
class Request:
    """
    A request that was sent for the claim *claim_id* of *key*.

    *generated*: ``"completed"``, ``"invalid"`` or ``"failed"``, once it ends. *bill*: what it costs, None if nobody
    learns that; *is_reported*: whether a coordinator has got the bill. *is_unresolved*: whether nobody may report it.
    """

    key: str
    claim_id: str
    generated: str
    tokens: int
    bill: int | None = None
    is_reported: bool = False
    is_unresolved: bool = False

    def line(self, outcome):
        text = f"text of {self.claim_id}."
        if outcome in {"completed", "invalid"}:
            facts = {**LINE, "tokens_used": self.tokens}
            generation = Generation(id=f"gen-{self.claim_id}", content=text, tokens_used=self.tokens)
            return journal_lines.done(self.key, generation, b"", **facts, is_valid=outcome == "completed")
        if outcome == "accepted":
            return journal_lines.pending(self.key, f"gen-{self.claim_id}")
        billed = "unknown" if outcome == "unknown" else "no"
        return b'{"event":"failed","key":"%s","at":1.0,"billed":"%s"}\n' % (self.key.encode(), billed.encode())


class Worker:
    """A worker, with up to four rows. What it does is what `WorkerSession`, `RowRunner` and `BatchRequest` do."""

    def __init__(self, cluster):
        self._cluster, self.random = cluster, cluster.random
        self.name = f"w{next(cluster.numbers)}"
        self._number = 0
        self._wanted: dict[str, Wanted] = {}
        self._grants: dict[str, Grant] = {}
        self._held: dict[str, Held] = {}
        self._revoked: set[str] = set()  # claims
        self._ended: list[Held] = []  # whose outcomes are in no message
        self._settled: list[Settled] = []
        self._observed: list[Observed] = []
        self._message: Exchange | None = None  # without a reply
        self._copies: list[tuple[CoordinatorService, Exchange]] = []
        self._rows: list[Row] = []
        self._rows_left = 4
        self._has_lease = False
        self._sent: list[Request] = []

    # --------------------------------------------------------------------------------------------- what happens to it

    def act(self):
        """Do something."""
        chance = self.random.random()
        if chance < 0.3:
            self._exchange()
        elif chance < 0.34:
            self._exchange(loses="message")
        elif chance < 0.39:
            self._exchange(loses="reply")
        elif chance < 0.41:
            self._repeat()
        elif chance < 0.55 and self._rows_left:
            self._rows_left -= 1
            self._rows.append(Row(self, self.random.choice(self._cluster.keys)))
        elif self._rows:
            self._step(self.random.choice(self._rows))

    def drain(self):
        """Have all rows go on, without new ones; return whether something is left."""
        for row in self._rows.copy():
            self._step(row)
        self._exchange()
        return bool(self._rows or self._unreported)

    def _step(self, row):
        if not row.step():
            self._rows.remove(row)

    def lose_lease(self):
        """Send nothing more until it has another lease; who else gets its claims may take them for unresolved."""
        self._has_lease = False
        for request in self._sent:
            request.is_unresolved = request.is_unresolved or not request.is_reported

    @property
    def possible_starts(self):
        """The number of requests of this worker that were not sent, and whose starts the journal may have."""
        withdrawn = sum(one.outcome == "withdrawn" for one in self._unreported)
        return len(self._wanted) + len(self._grants) + sum(row.has_start for row in self._rows) + withdrawn

    @property
    def _unreported(self):
        return [*self._settled, *(() if self._message is None else self._message.settled)]

    # ------------------------------------------------------------------------------------------------------- exchanges

    def _exchange(self, loses=None):
        message = self._message
        if message is None:
            self._number += 1
            message = Exchange(
                session=self.name,
                number=self._number,
                wanted=tuple(self._wanted.values()),
                settled=tuple(self._settled),
                observed=tuple(self._observed),
                prices={"m": PRICE},
            )
            self._settled, self._observed, self._ended, self._message = [], [], [], message
        if loses == "message":
            return
        reply = self._cluster.exchange(self, message)
        self._copies.append((self._cluster.service, message))
        if loses == "reply":
            self._cluster.events.append(f"{self.name} does not get the reply to message {message.number}")
            return
        if not reply.known:
            self._number += 1
            holding = {one.key: one for one in (*self._ended, *self._held.values())}
            self._message = attrs.evolve(message, number=self._number, holding=tuple(holding.values()))
            return
        self._message, self._has_lease = None, True
        self._revoked.update(self._held[key].claim_id for key in reply.revoked if key in self._held)
        revoked = {one.claim_id for one in message.holding or () if one.key in reply.revoked}
        for request in self._sent:
            request.is_unresolved = request.is_unresolved or request.claim_id in revoked
        for grant in reply.grants:
            self._take(self._wanted.pop(grant.id), grant)

    def _take(self, wanted, grant):
        self._cluster.events.append(f"{self.name} wants {wanted}: {grant}")
        if grant.decision in _HOLDING:
            self._revoked.discard(grant.claim_id)
            self._held[wanted.key] = Held(
                key=wanted.key,
                model="m",
                idempotency_key=grant.idempotency_key or grant.id,
                claim_id=grant.claim_id,
                reserved=grant.reserved,
                counted=grant.decision is Decision.SEND,
            )
        elif grant.decision is not Decision.STOPPED and self._holds(wanted.key, wanted.previous):
            del self._held[wanted.key]
        self._grants[grant.id] = grant

    def _repeat(self):
        """Have a copy of an earlier message arrive, whose reply nobody gets."""
        if self._copies:
            service, message = self.random.choice(self._copies)
            if service is self._cluster.service:
                self._cluster.events.append(f"a copy of message {message.number} of {self.name} arrives")
                service.exchange(message)

    # ----------------------------------------------------------------------------------------------------- for its rows

    def want(self, key, kind, idempotency_key, previous):
        """Claim *key*; return the id of the claim."""
        wanted = Wanted(
            id=f"{self.name}-{next(self._cluster.numbers)}",
            key=key,
            model="m",
            request_hash="a" * 32,
            kind=kind,
            idempotency_key=idempotency_key,
            previous=previous,
        )
        self._wanted[wanted.id] = wanted
        return wanted.id

    def grant_of(self, claim_id):
        """Return the answer to a claim, once."""
        return self._grants.pop(claim_id, None)

    def may_send(self, claim_id):
        """Return whether the claim is its own; None: that is not known without a lease."""
        return claim_id not in self._revoked if self._has_lease else None

    def send(self, key, claim_id):
        """Send the request, and return it."""
        self._cluster.events.append(f"{self.name} sends {claim_id}")
        self._sent.append(self._cluster.send(key, claim_id))
        return self._sent[-1]

    def request_of(self, claim_id):
        """Return the request that was sent for a claim."""
        return self._cluster.sent[claim_id]

    def ended(self, key, claim_id):
        """Report that the request got a response, or was not sent."""
        if self._holds(key, claim_id):
            self._held[key] = attrs.evolve(self._held[key], counted=False)
        self._observed.append(Observed(ServerSignal.ADMITTED, 0.0))

    def _holds(self, key, claim_id):
        return key in self._held and self._held[key].claim_id == claim_id

    def settle(self, row, outcome, line=None, tokens=None):
        """Report an outcome of *row*."""
        self._cluster.events.append(f"{self.name} reports that {row.claim_id} is {outcome}")
        if outcome not in {"accepted", "refused", "invalid"} and self._holds(row.key, row.claim_id):
            self._ended.append(self._held.pop(row.key))
        self._settled.append(
            Settled(
                key=row.key,
                model="m",
                idempotency_key=row.idempotency_key,
                claim_id=row.claim_id,
                outcome="failed" if outcome == "unknown" else outcome,
                line=line,
                tokens_used=tokens,
            )
        )

    def release(self, row):
        """Report the end of *row*."""
        if self._holds(row.key, row.claim_id):
            if row.has_start:
                self.ended(row.key, row.claim_id)
                self.settle(row, "withdrawn", unsent_line(row.key), 0)
            else:
                self.settle(row, "released")


class Row:
    """A row of *worker* with *key*. *has_start*: whether its request may be sent, and was not."""

    def __init__(self, worker, key):
        self._worker, self._random, self.key = worker, worker.random, key
        self.idempotency_key = self.claim_id = ""
        self.has_start = False
        self._steps = self._run()

    def step(self):
        """Go on, if it does not wait; return whether it has not ended."""
        return next(self._steps, self) is None

    def _run(self):
        grant, repairs = (yield from self._claim("new")), 1
        while grant.decision in _HOLDING:
            outcome = yield from self._outcome(grant)
            if outcome == "invalid" and repairs and self._random.random() < 0.7:
                repairs -= 1
                grant = yield from self._claim_further("repair", f"repair-{self.claim_id}")
            elif outcome == "refused":
                grant = yield from self._claim_further("again", self.idempotency_key)
                if grant.decision is Decision.STOPPED:
                    self._worker.settle(self, "withdrawn", None, 0)
            elif outcome == "lost":
                grant = yield from self._claim("new")
            else:
                break
        self._worker.release(self)

    def _claim_further(self, kind, idempotency_key):
        grant = yield from self._claim(kind, idempotency_key)
        if grant.decision in {Decision.SEND, Decision.STOPPED}:
            return grant
        if grant.decision is Decision.ASK:
            self._worker.settle(self, "unresolved")
        elif grant.decision is Decision.INVALID:
            self._worker.settle(self, "released")
        return (yield from self._claim("new"))

    def _outcome(self, grant):
        if grant.decision is Decision.INVALID:
            return "invalid"
        return (yield from self._send() if grant.decision is Decision.SEND else self._ask())

    def _claim(self, kind, idempotency_key=None):
        claim_id = self._worker.want(self.key, kind, idempotency_key, None if kind == "new" else self.claim_id)
        while (grant := self._worker.grant_of(claim_id)) is None:
            yield
        if grant.decision is not Decision.STOPPED:
            self.idempotency_key, self.claim_id = grant.idempotency_key or grant.id, grant.claim_id or grant.id
        self.has_start = grant.decision is Decision.SEND
        return grant

    def _send(self):
        yield
        while (may_send := self._worker.may_send(self.claim_id)) is None:
            yield
        if not may_send or self._random.random() < 0.08:  # otherwise it is cancelled
            self._worker.ended(self.key, self.claim_id)
            self._worker.settle(self, "withdrawn", unsent_line(self.key), 0)
            self.has_start = False
            return "cancelled" if may_send else "lost"
        self.has_start = False
        request = self._worker.send(self.key, self.claim_id)
        yield
        self._worker.ended(self.key, self.claim_id)
        match self._random.choices(["ended", "refused", "unresolved", "unknown", "accepted"], [9, 3, 2, 1, 3])[0]:
            case "ended":
                return self._end(request)
            case "refused":
                request.generated, request.bill = "failed", 0
                self._worker.settle(self, "refused", request.line("refused"), 0)
                return "refused"
            case "accepted":
                self._worker.settle(self, "accepted", request.line("accepted"))
                return (yield from self._ask())
            case outcome:
                request.is_unresolved = True
                self._worker.settle(self, outcome, request.line("unknown") if outcome == "unknown" else None)
                return outcome

    def _ask(self):
        request = self._worker.request_of(self.claim_id)
        yield
        if self._random.random() < 0.25:
            request.is_unresolved = True
            self._worker.settle(self, "unresolved")
            return "unresolved"
        return self._end(request)

    def _end(self, request):
        outcome = request.generated
        request.bill = 0 if outcome == "failed" else request.tokens
        self._worker.settle(self, outcome, request.line(outcome), request.bill)
        return outcome
