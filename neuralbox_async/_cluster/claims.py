"""Who holds which key, and what the journal, the budget and the rate limits let be sent."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import attrs

from neuralbox_async._batch.coordinator import ServerSignal
from neuralbox_async._batch.errors import JournalError
from neuralbox_async._batch.key_status import KeyStatus, Unresolved
from neuralbox_async._cluster.messages import Decision, Grant, Settled, unsent_line

if TYPE_CHECKING:
    from neuralbox_async._batch.budget import Budget
    from neuralbox_async._batch.options import OnChanged
    from neuralbox_async._batch.pacer import Pacer
    from neuralbox_async._cluster.live_journal import JournaledKey, LiveJournal
    from neuralbox_async._cluster.messages import Held, Observed, Wanted
    from neuralbox_async._errors import NeuralBoxError


@attrs.define(eq=False)
class HeldClaim:
    """
    A claim that a session holds.

    *claim_id*: of the claim that its request was sent for. *reservation*: in the budget: ``"own"``, of a request that
    this coordinator let start; ``"earlier"``, of one that it found in the journal; None after its outcome, or after a
    429 of an earlier coordinator. *unresolved*: that request, while it has no outcome.
    """

    model: str
    idempotency_key: str
    claim_id: str
    reservation: Literal["own", "earlier"] | None = None
    reserved: int | None = None
    unresolved: Unresolved | None = None


@attrs.define(eq=False)
class Session:
    """A worker process in one batch: what it *held* by key, its *permits* (requests that the pacer counts)."""

    held: dict[str, HeldClaim] = attrs.field(factory=dict[str, HeldClaim])
    permits: int = 0


class Claims:
    """
    The claims of all sessions.

    *waits_for_absent*: whether requests without an outcome may belong to sessions that have not reported yet, because
    this coordinator replaces one that was lost.
    """

    def __init__(
        self,
        journal: LiveJournal,
        budget: Budget,
        pacer: Pacer,
        *,
        resends_unknown: bool,
        on_changed: OnChanged,
        waits_for_absent: bool,
    ) -> None:
        self._journal, self._budget, self._pacer = journal, budget, pacer
        self._resends_unknown, self._on_changed = resends_unknown, on_changed
        self.waits_for_absent = waits_for_absent
        self.stopped_by: NeuralBoxError | None = None
        self.opens_in = 0.0  # seconds until a request that had to wait may start; infinity: after a response
        self._holders: dict[str, Session] = {}

    # --------------------------------------------------------------------------------------------------------- granting

    def grant(self, session: Session, wanted: Wanted, now: float) -> Grant | None:
        """Return the answer to *wanted*; None if it has to wait: for a limit, or because `is_busy`."""
        if (held := self.previous(session, wanted)) is not None:
            if self._journal.status_of(wanted.key) is not KeyStatus.DONE:
                return self._start(session, wanted, held, now)
            self._lose_claim(session, wanted.key, held)  # of another request of the key, whose outcome came late
        if self.is_busy(wanted):
            return None
        state = self._journal.state_of(wanted.key, wanted.request_hash)
        if state.changed and self._on_changed == "raise":
            return Grant(id=wanted.id, decision=Decision.CHANGED)
        # Of a worker that had lost its lease: another one may have had the key meanwhile, and repaired it in vain.
        return self._grant_new(session, wanted, state, now)

    @staticmethod
    def previous(session: Session, wanted: Wanted) -> HeldClaim | None:
        """Return the claim of *session* that *wanted* follows; None if it is new, or another row's is there."""
        held = None if wanted.kind == "new" else session.held.get(wanted.key)
        return held if held is not None and wanted.previous in {None, held.claim_id} else None

    def is_busy(self, wanted: Wanted) -> bool:
        """Return whether another claim holds the key of *wanted*, or may hold it."""
        if wanted.key in self._holders:
            return True
        if not self.waits_for_absent:
            return False
        return self._journal.state_of(wanted.key, None).unresolved is not None

    def _grant_new(self, session: Session, wanted: Wanted, state: JournaledKey, now: float) -> Grant | None:
        unresolved = state.unresolved
        # Rows of one run that share a key share a generation: a repeated task must not pay for each of them again.
        starts_anew = state.changed and self._on_changed == "retry" and not state.is_own
        if starts_anew or state.status in {KeyStatus.NEW, KeyStatus.FAILED}:
            return self._start(session, wanted, None, now)
        if state.status is KeyStatus.DONE:
            line = self._journal.done_line(wanted.key)
            return Grant(id=wanted.id, decision=Decision.DONE, lines=(line,))
        if state.status is KeyStatus.INVALID:
            self._hold(session, wanted.key, HeldClaim(wanted.model, wanted.id, wanted.id))
            lines = self._journal.lines_at(state.invalid)
            return Grant(id=wanted.id, decision=Decision.INVALID, claim_id=wanted.id, lines=lines)
        if state.status is KeyStatus.PENDING and unresolved is not None:
            idempotency_key = unresolved.idempotency_key or wanted.id
            claim_id = unresolved.claim_id or idempotency_key
            held = HeldClaim(wanted.model, idempotency_key, claim_id, "earlier", None, unresolved)
            self._hold(session, wanted.key, held)
            self._budget.begin_retrieval()
            return Grant(
                id=wanted.id,
                decision=Decision.ASK,
                unresolved=attrs.evolve(unresolved, earlier=None),
                idempotency_key=idempotency_key,
                claim_id=claim_id,
                lines=self._journal.lines_at(state.invalid),
            )
        if self._resends_unknown and not state.changed:
            return self._start(session, wanted, None, now, again=unresolved)
        text, body = ("", b"") if unresolved is None else self._journal.response_of(unresolved)
        return Grant(id=wanted.id, decision=Decision.UNRESOLVED, text=text, body=body)

    def _start(
        self,
        session: Session,
        wanted: Wanted,
        held: HeldClaim | None,
        now: float,
        again: Unresolved | None = None,
    ) -> Grant | None:
        """
        Let the request of *wanted* start, and record that.

        *again*: a request without an outcome, which is sent once more.
        """
        if self.stopped_by is not None:
            return Grant(id=wanted.id, decision=Decision.STOPPED)
        if (delay := self._pacer.delay(now)) > 0:
            self.opens_in = delay
            return None
        has_reservation = held is not None and held.reservation == "own"
        if not has_reservation and (waits := self._reserve(wanted.model)) is not None:
            return None if waits else Grant(id=wanted.id, decision=Decision.STOPPED)
        # Should the API honour this header after all, it will not bill a second time.
        earlier = None if again is None else again.idempotency_key
        idempotency_key = earlier or wanted.idempotency_key or wanted.id
        reserved = self._budget.price(wanted.model) if self._budget.limited else None
        try:
            self._journal.append_start(
                wanted.key, idempotency_key, wanted.model, reserved, wanted.request_hash, claim_id=wanted.id
            )
        except JournalError as error:
            if not has_reservation:
                self._budget.settle(wanted.model, 0)
            self.stop(error)
            return Grant(id=wanted.id, decision=Decision.STOPPED)
        if held is not None and held.reservation == "earlier":
            self._settle_budget(held, None)  # its outcome is not waited for any more
        unresolved = self._journal.started_request(wanted.key, wanted.id)
        self._pacer.record_start(now)
        session.permits += 1
        claim = HeldClaim(wanted.model, idempotency_key, wanted.id, "own", reserved, unresolved)
        self._hold(session, wanted.key, claim)
        return Grant(
            id=wanted.id,
            decision=Decision.SEND,
            idempotency_key=idempotency_key,
            claim_id=wanted.id,
            reserved=reserved,
        )

    def _reserve(self, model: str) -> bool | None:
        """Reserve the price of *model*: None once it is reserved, otherwise whether waiting can help."""
        if self._budget.reserve(model):
            return None
        waits = self._budget.holding or self.waits_for_absent
        if waits:
            self.opens_in = math.inf
        else:
            self.stop(self._budget.reached_error(model))
        return waits

    def _hold(self, session: Session, key: str, claim: HeldClaim) -> None:
        session.held[key] = claim
        self._holders[key] = session

    def stop(self, error: NeuralBoxError) -> None:
        """Let nothing more start, because of *error*. Idempotent: the first reason stays."""
        self.stopped_by = self.stopped_by or error

    # --------------------------------------------------------------------------------------------------------- settling

    def settle(self, session: Session, settled: Settled) -> None:
        """Record an outcome, also of a session that had been taken for lost; a repeated one changes nothing."""
        held = session.held.get(settled.key)
        if held is None or held.claim_id != settled.claim_id:
            self._settle_late(settled)
            return
        if held.reservation is not None or held.unresolved is not None:
            self._write(settled)
        elif not self._is_recorded(settled):  # the journal lacks its start, so that nothing is reserved for it
            self._settle_late(settled)
        if settled.outcome == "released":
            self._lose_claim(session, settled.key, held)
            return
        if settled.outcome == "accepted":
            return
        if settled.outcome == "refused" and held.reservation == "own":  # which it needs when it is sent again
            held.unresolved = None
            return
        self._settle_budget(held, None if settled.outcome == "unresolved" else settled.tokens_used)
        if settled.outcome not in {"invalid", "refused"}:
            self._release(session, settled.key)

    def _settle_late(self, settled: Settled) -> None:
        unresolved = self._journal.settled_request(settled.key, settled.claim_id, settled.tokens_used)
        if unresolved is None and self._is_recorded(settled):
            return
        self._write(settled)
        if settled.outcome in {"accepted", "unresolved"} or settled.tokens_used is None:
            return  # whoever asks for it may learn more
        holder = self._holders.get(settled.key)
        asking = None if holder is None else holder.held[settled.key]
        if asking is not None and asking.reservation == "earlier" and unresolved is asking.unresolved:
            self._settle_budget(asking, settled.tokens_used)
        else:
            self._budget.begin_retrieval()
            model, reserved = (settled.model, 0) if unresolved is None else (unresolved.model, unresolved.reserved)
            self._budget.resolve(model, reserved, settled.tokens_used)

    def _is_recorded(self, settled: Settled) -> bool:
        """Return whether the journal needs nothing of *settled*, the outcome of a request that has one, or no start."""
        if self._journal.status_of(settled.key) is KeyStatus.DONE:
            return True
        if settled.outcome == "invalid" and settled.line is not None:
            return self._journal.has_invalid(settled.key, settled.line)
        return settled.outcome != "completed"

    def _settle_budget(self, held: HeldClaim, tokens_used: int | None) -> None:
        if held.reservation == "own":
            self._budget.settle(held.model, tokens_used)
        elif held.reservation == "earlier" and held.unresolved is not None:
            self._budget.resolve(held.unresolved.model, held.unresolved.reserved, tokens_used)
        held.reservation = held.unresolved = None

    def _write(self, settled: Settled) -> None:
        if settled.line is not None:
            try:
                self._journal.append_outcome(settled.line, settled.key, settled.claim_id)
            except JournalError as error:  # the outcome stands nevertheless: it is paid for
                self.stop(error)

    def _release(self, session: Session, key: str) -> None:
        del session.held[key]
        del self._holders[key]

    # --------------------------------------------------------------------------------------------- sessions come and go

    def adopt(
        self, session: Session, holding: tuple[Held, ...], wanted: tuple[Wanted, ...], now: float
    ) -> tuple[str, ...]:
        """
        Let *session*, which is not known any more, hold the claims that it has. Return the keys that are not its own.

        *wanted*: the claims that it has no answer to.
        """
        for claim in wanted:
            self._withdraw(claim)
        revoked: list[str] = []
        for one in holding:
            unresolved = self._journal.settled_request(one.key, one.claim_id, None)
            status = self._journal.status_of(one.key)
            # A request that was let start after it is in the place of this one.
            is_last = unresolved is not None and unresolved is self._journal.state_of(one.key, None).unresolved
            is_over = unresolved is None and status in {KeyStatus.FAILED, KeyStatus.INVALID}
            if one.key in self._holders or not (is_last or is_over):
                revoked.append(one.key)
                continue
            held = HeldClaim(one.model, one.idempotency_key, one.claim_id, None, one.reserved, unresolved)
            if unresolved is not None:
                held.reservation = "earlier"
                self._budget.begin_retrieval()
            self._hold(session, one.key, held)
        for _ in range(sum(one.counted for one in holding)):
            self._pacer.record_start(now)
            session.permits += 1
        return tuple(revoked)

    def _withdraw(self, wanted: Wanted) -> None:
        """Record that the request of *wanted* was not sent, if the journal has its start: the reply was lost."""
        if self._journal.started_request(wanted.key, wanted.id) is not None:
            self._settle_late(
                Settled(
                    key=wanted.key,
                    model=wanted.model,
                    idempotency_key=wanted.id,
                    outcome="withdrawn",
                    line=unsent_line(wanted.key),
                    tokens_used=0,
                )
            )

    def lose(self, session: Session) -> None:
        """Record that *session* is lost: what it held without an outcome may be billed, and is unresolved."""
        for key, held in list(session.held.items()):
            self._lose_claim(session, key, held)
        for _ in range(session.permits):
            self._pacer.record_ended()
        session.permits = 0

    def _lose_claim(self, session: Session, key: str, held: HeldClaim) -> None:
        """Release *key*, of whose request no more is known than the journal has."""
        if held.reservation == "own":
            self._budget.settle(held.model, 0)
            if held.unresolved is not None:
                add_unresolved(self._budget, held.unresolved, takes_rest=True)
        else:
            self._settle_budget(held, None)
        self._release(session, key)

    def observe(self, session: Session, observed: Observed, now: float) -> None:
        """Learn the pace from the end of a request of *session*."""
        if not session.permits:
            return
        session.permits -= 1
        match observed.signal:
            case ServerSignal.ADMITTED:
                self._pacer.record_admitted()
            case ServerSignal.PUSHED_BACK:
                self._pacer.record_pushed_back(now, now - observed.age)
            case ServerSignal.FAILED:
                self._pacer.record_failed(now, now - observed.age)
            case ServerSignal.NONE:
                self._pacer.record_ended()

    def is_held(self, key: str) -> bool:
        """Return whether a session holds *key*."""
        return key in self._holders

    @property
    def count(self) -> int:
        """The number of claims that sessions hold."""
        return len(self._holders)


def add_unresolved(budget: Budget, unresolved: Unresolved, *, takes_rest: bool) -> None:
    """
    Record in *budget* that *unresolved* may be billed.

    *takes_rest*: if its price is unknown, it may cost all that is left, until its outcome is known.
    """
    if takes_rest and budget.limited and unresolved.reserved is None and budget.price(unresolved.model) is None:
        unresolved.reserved = max(0, budget.left)
    budget.add_unresolved(unresolved.model, unresolved.reserved)
