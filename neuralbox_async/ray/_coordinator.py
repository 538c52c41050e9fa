"""What runs in the coordinator's actor: a service that is opened when workers need it, and closed when none does."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import attrs

from neuralbox_async._batch.errors import BatchStateError, JournalLockedError
from neuralbox_async._cluster.messages import Reply
from neuralbox_async._cluster.service import CoordinatorService
from neuralbox_async._errors import NeuralBoxError

if TYPE_CHECKING:
    from neuralbox_async._cluster.messages import Exchange, JournalMark
    from neuralbox_async._cluster.service import ClusterReport, ServiceOptions

_IDLE_TIMEOUT = 2.0  # seconds without a worker after which the journal is free for others


class CoordinatorActor:
    """
    The coordinator of one batch, whose dataset may be executed any number of times.

    NEW -> OPEN, as long as workers use it -> IDLE, with the journal closed -> OPEN, with the next execution -> ENDED.
    Ray makes it again, elsewhere, when its node is lost. The driver calls `open` once: an actor that is used without it
    replaces another one, whose workers may live. It opens the journal when the driver has reported what that had.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self._options = options
        self._replaces = True  # another actor, until `open` says that there was none
        self._lock = threading.Lock()
        self._service: CoordinatorService | None = None
        self._report: ClusterReport | None = None
        self._refusal: NeuralBoxError | None = None  # why a replacement cannot use the journal
        self._idle_since: float | None = None
        self._last_numbers: dict[str, int] = {}  # of the exchanges of all executions: copies may arrive late
        self._has_ended = False

    def open(self) -> NeuralBoxError | None:
        """Open the journal; return the error that `CoordinatorService` raised, as a value that keeps its class."""
        with self._lock:
            self._replaces = False
            try:
                self._opened()
            except NeuralBoxError as error:
                return error
            return None

    def _opened(self, mark: JournalMark | None = None) -> CoordinatorService:
        """Return the service, whose journal begins with *mark*; None: with what this actor has written."""
        if self._service is None:
            if self._has_ended:
                raise BatchStateError("the batch has ended")
            if self._report is not None:
                mark = self._report.journal_mark
            options = attrs.evolve(self._options, restarted=self._replaces, journal_mark=mark)
            self._service = CoordinatorService(options, last_numbers=self._last_numbers)
            self._replaces, self._idle_since = False, None
        return self._service

    def _reopen(self, mark: JournalMark | None) -> None:
        """Open the journal as a replacement. Raises `NeuralBoxError`."""
        try:
            self._opened(mark)
        except JournalLockedError:  # the actor that this one replaces, which Ray takes for dead, still lives
            raise
        except NeuralBoxError as error:
            self._refusal = error
            raise

    def exchange(self, message: Exchange) -> Reply:
        """Return the reply of the service. Raises `ConnectionError` while a replacement has no journal."""
        with self._lock:
            if self._refusal is not None:
                return Reply(known=False, stopped_by=self._refusal)
            if self._replaces and not self._has_ended:
                raise ConnectionError("the coordinator does not know yet what its journal had")
            try:
                service = self._opened()
            except NeuralBoxError as error:
                return Reply(known=False, stopped_by=error)
            return service.exchange(message)

    def report(self, mark: JournalMark | None = None) -> ClusterReport:
        """
        Return the report so far, of the last execution. Raises the errors of `CoordinatorService`.

        *mark*: of the journal, in the last report that the driver has got, also from an actor before this one.
        """
        with self._lock:
            if self._replaces:
                self._reopen(mark)
            if self._service is not None or self._report is None:
                service = self._opened()
                self._report = service.report()
                self._close_if_idle(service, self._report)
            return self._report

    def _close_if_idle(self, service: CoordinatorService, report: ClusterReport) -> None:
        now = time.monotonic()
        if not (report.calls and service.is_idle):
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= _IDLE_TIMEOUT and service.finish():
            self._service = None

    def finish(self, mark: JournalMark | None = None) -> bool:
        """
        End: nothing more is sent. Idempotent. Returns whether the journal is closed.

        A replacement first opens it, with *mark* as `report`, and waits for what workers hold of the actor before.
        Raises `JournalLockedError` while it cannot.
        """
        with self._lock:
            if self._replaces and self._refusal is None and not self._has_ended:
                try:
                    self._reopen(mark)
                except JournalLockedError:
                    raise
                except NeuralBoxError:
                    pass  # there is nothing that could record what workers hold
            self._has_ended = True
            if self._service is not None and self._service.finish(early=True):
                self._service = None
            return self._service is None
