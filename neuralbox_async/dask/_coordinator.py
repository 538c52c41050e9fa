"""The coordinator's actor as the driver sees it: started, watched, and replaced when its worker is lost."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async._batch.errors import BatchStateError, JournalLockedError
from neuralbox_async._cluster.settings import LOCK_TIMEOUT
from neuralbox_async._errors import NeuralBoxError
from neuralbox_async._logging import logger
from neuralbox_async.dask._library import distributed
from neuralbox_async.dask._service import DaskService, withdraw
from neuralbox_async.dask._tasks import CoordinatorPlugin, plugin_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from neuralbox_async._cluster.messages import JournalMark
    from neuralbox_async._cluster.plan import Plan
    from neuralbox_async._cluster.service import ClusterReport

_REPORT_INTERVAL = 0.5  # seconds
_POLL_INTERVAL = 0.05
_CALL_TIMEOUT = 20.0
_DRAIN_TIMEOUT = 30.0


class CoordinatorActor:
    """
    The coordinator of *plan* on the cluster of *client*, on *worker* (None: any).

    *on_report* is called with each report, in a thread of its own; *on_lost* with the error when there is no
    coordinator any more.
    """

    def __init__(
        self,
        client: Any,
        plan: Plan,
        worker: str | None,
        on_report: Callable[[ClusterReport], object],
        on_lost: Callable[[BaseException], object],
    ) -> None:
        self._client, self._plan, self._worker = client, plan, worker
        self._on_report, self._on_lost = on_report, on_lost
        self.address = ""  # of its worker
        self._future: Any = None
        self._actor: Any = None
        self._count = 0
        self._journal_mark: JournalMark | None = None
        self._is_stopped = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="neuralbox-dask", daemon=True)

    def start(self) -> None:
        """Start it. Raises the errors of `CoordinatorService`."""
        self._start(restarted=False)
        try:
            self._on_report(self._report())
            self._thread.start()
        except BaseException:
            self.stop(early=True)
            raise

    def _start(self, *, restarted: bool) -> None:
        self._count += 1
        options = attrs.evolve(self._plan.service, restarted=restarted, journal_mark=self._journal_mark)
        future = self._client.submit(
            DaskService,
            options,
            self._dataset,
            self._plugin,
            actor=True,
            key=f"neuralbox-coordinator-{self._plan.run}-{self._count}",
            workers=None if self._worker is None else [self._worker],
        )
        while not future.done():  # it reads the journal, or waits for a thread of a worker
            if self._ended.wait(_POLL_INTERVAL):
                future.cancel()
                raise BatchStateError("the batch was closed")
        future.result()  # raises errors of the cluster
        address = next(iter(self._client.who_has([future])[future.key]))
        with self._client.as_current():  # the actor in the result would use the latest client of this process, or none
            actor = distributed.actor.Actor(DaskService, address, future.key)
        if (failure := actor.failure().result(timeout=_CALL_TIMEOUT)) is not None:
            raise failure
        self._future, self._actor, self.address = future, actor, address
        # So that the actor outlives this program, until the workers have reported what is in flight.
        self._client.publish_dataset(future, name=self._dataset, override=True)
        self._client.register_plugin(CoordinatorPlugin(self._plan.run, address, future.key))

    @property
    def _dataset(self) -> str:
        return f"neuralbox-coordinator-{self._plan.run}"

    @property
    def _plugin(self) -> str:
        return plugin_name(self._plan.run)

    def cancel_start(self) -> None:
        """Have `start` raise `BatchStateError` if it still waits for a worker."""
        self._ended.set()

    def stop_sending(self) -> None:
        """Let nothing more be sent, without waiting for the coordinator; nor by one that replaces it."""
        self._is_stopped = True
        self._actor.stop()

    def stop(self, *, early: bool) -> None:
        """Let nothing more be sent. If *early*, wait a while for the outcomes of what is in flight."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._actor is None:  # it was not started
            return
        deadline = time.monotonic() + _DRAIN_TIMEOUT
        try:
            if not early:
                self._on_report(self._report())
            while not self._actor.finish(early=early).result(timeout=_CALL_TIMEOUT):
                if time.monotonic() > deadline:
                    logger.warning(
                        "requests are still in flight on the cluster; its workers will record their outcomes"
                    )
                    self._actor.detach()
                    return
                time.sleep(_REPORT_INTERVAL / 5)
            if early:
                self._on_report(self._report())
        except Exception as error:  # noqa: BLE001 - of the actor's worker, which may be gone
            logger.info("the coordinator was lost at the end: %s", type(error).__name__)
        finally:
            self._future = self._actor = None
        withdraw(self._client, self._dataset, self._plugin)

    # --------------------------------------------------------------------------------------------------- in its thread

    def _watch(self) -> None:
        while not self._ended.wait(_REPORT_INTERVAL):
            try:
                report = self._report()
            except Exception as error:  # noqa: BLE001 - of the actor's worker
                if self._ended.is_set():
                    return
                logger.warning("the coordinator of the batch was lost (%s); it is started again", type(error).__name__)
                if not self._restart():
                    return
            else:
                self._on_report(report)

    def _report(self) -> ClusterReport:
        report: ClusterReport = self._actor.report().result(timeout=_CALL_TIMEOUT)
        self._journal_mark = report.journal_mark
        return report

    def _has_come_back(self) -> bool:
        try:
            self._on_report(self._report())
        except Exception:  # noqa: BLE001 - of the actor's worker
            return False
        return True

    def _restart(self) -> bool:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not self._ended.is_set():
            try:
                self._start(restarted=True)
            except JournalLockedError as error:  # the other one still lives
                if self._has_come_back():
                    return True
                if time.monotonic() > deadline:
                    self._on_lost(error)
                    return False
            except NeuralBoxError as error:
                self._on_lost(error)
                return False
            except Exception as error:  # noqa: BLE001 - of the cluster
                if time.monotonic() > deadline:
                    self._on_lost(error)
                    return False
            else:
                if self._is_stopped:
                    self._actor.stop()
                return True
            self._ended.wait(_REPORT_INTERVAL)
        return False
