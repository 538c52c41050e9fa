"""`RayBatch`: the driver's side of a batch on a Ray cluster; `generate`: a dataset with the columns of its results."""

from __future__ import annotations

import atexit
import contextlib
import math
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Self, Unpack

import attrs

from neuralbox_async._batch.errors import BatchStateError, JournalLockedError
from neuralbox_async._cluster.plan import PlanOptions, make_plan
from neuralbox_async._cluster.settings import RECONNECT_TIMEOUT
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._logging import logger
from neuralbox_async._validation import check_callable, check_count
from neuralbox_async.ray._coordinator import CoordinatorActor
from neuralbox_async.ray._library import ray, ray_data
from neuralbox_async.ray._worker import Connect, RowGenerator, WorkerSetup

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from neuralbox_async._cluster.messages import JournalMark
    from neuralbox_async._cluster.service import ClusterReport

_REPORT_INTERVAL = 0.5  # seconds
_CALL_TIMEOUT = 20.0
_DRAIN_TIMEOUT = 60.0  # longer than a lease, for the workers of an actor that was replaced
_LOCK_TIMEOUT = 10.0  # for the batch before, whose coordinator closes its journal some seconds after its workers
_RECONNECT_TIMEOUT = RECONNECT_TIMEOUT + 60.0  # Ray may take a minute to find out that a node is lost
_ACTOR_THREADS = 64
_CONCURRENT_CALLS = 2  # so that the last requests of a batch of rows do not leave the places of others empty


class _DisconnectedError(ConnectionError):
    """The program has no connection to the cluster of the batch any more."""


class RayBatch:
    """
    A batch on a Ray cluster: the coordinator for the datasets that are mapped with `RowGenerator`. A context manager.

    ``with RayBatch(journal=..., ...) as batch:``, then ``dataset.map_batches(RowGenerator,
    fn_constructor_args=(batch.setup,), batch_format="pyarrow", compute=ActorPoolStrategy(size=4), num_cpus=0.25)``, and
    its execution, all within the block: leaving it lets nothing more be sent. The options are those of `generate`.

    Entering raises `JournalLockedError`, `JournalError` and `OutcomeUnknownError`.
    """

    def __init__(
        self,
        *,
        journal_node: str | None = None,
        on_progress: Callable[[ClusterReport], object] | None = None,
        **options: Unpack[PlanOptions],
    ) -> None:
        check_callable("on_progress", on_progress)
        plan = make_plan(**options)
        self._service = plan.service
        # A worker ends with its `RowGenerator`, not while it waits for rows: the journal would be free for others.
        self._worker = attrs.evolve(plan.worker, reconnect_timeout=_RECONNECT_TIMEOUT, idle_timeout=math.inf)
        self._name = f"neuralbox-coordinator-{plan.run}"
        self._journal_node, self._on_progress = journal_node, on_progress
        self._actor: Any = None
        self._own_node = ""  # of this program: unique to the cluster
        self._report: ClusterReport | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="neuralbox-ray", daemon=True)

    def __enter__(self) -> Self:
        if self._actor is not None:
            raise BatchStateError("a batch can be entered only once; make another")
        context = ray().get_runtime_context()
        self._own_node = context.get_node_id()
        node, soft = (self._own_node, True) if self._journal_node is None else (self._journal_node, False)
        strategies = ray().util.scheduling_strategies
        # This program owns the actor, which ends with it, as the workers of Ray Data do.
        self._actor = (
            ray()
            .remote(CoordinatorActor)
            .options(
                name=self._name,
                namespace=context.namespace,
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=_ACTOR_THREADS,
                scheduling_strategy=strategies.NodeAffinitySchedulingStrategy(node_id=node, soft=soft),
            )
            .remote(self._service)
        )
        try:
            self._open()
            self._take_report()
        except BaseException:
            ray().kill(self._actor)
            raise
        self._thread.start()
        atexit.register(self.__exit__, None, None, None)  # before Ray's own, which was registered earlier
        return self

    def _open(self) -> None:
        deadline = time.monotonic() + _LOCK_TIMEOUT
        while (error := ray().get(self._actor.open.remote())) is not None:
            if not isinstance(error, JournalLockedError) or time.monotonic() > deadline:
                raise error
            time.sleep(_REPORT_INTERVAL)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._ended.set()
            self._thread.join()  # it frees the journal, and ends the actor
        finally:
            atexit.unregister(self.__exit__)

    @property
    def report(self) -> ClusterReport:
        """The report so far, at most some seconds old; after the block, the final one."""
        if self._report is None:
            raise BatchStateError("the batch is not entered: use `with RayBatch(...) as batch`")
        return self._report

    @property
    def setup(self) -> WorkerSetup:
        """What `RowGenerator` needs."""
        return WorkerSetup(self._worker, Connect(self._name, ray().get_runtime_context().namespace))

    def end_with(self, setup: WorkerSetup) -> None:
        """End when no dataset needs *setup* any more, without waiting for that."""
        weakref.finalize(setup, self._ended.set).atexit = False

    # --------------------------------------------------------------------------------------------------- in its thread

    def _watch(self) -> None:
        try:
            while not self._ended.wait(_REPORT_INTERVAL):
                try:
                    self._take_report()
                except _DisconnectedError:
                    return
                except Exception as error:  # noqa: BLE001 - of Ray, or of the actor, which Ray makes again
                    logger.warning("the coordinator of the batch cannot be reached (%s)", type(error).__name__)
            self._finish()
        finally:
            atexit.unregister(self.__exit__)

    def _finish(self) -> None:
        deadline = time.monotonic() + _DRAIN_TIMEOUT
        try:
            while not self._has_finished():
                if time.monotonic() > deadline:
                    logger.warning("requests are still in flight on the cluster; they are unresolved in the journal")
                    return
                time.sleep(_REPORT_INTERVAL / 5)
        finally:
            with contextlib.suppress(Exception):  # the connection may end at any time
                if self._is_connected():
                    ray().kill(self._actor)  # and with it the lock of the journal

    def _is_connected(self) -> bool:
        """
        Return whether the program is connected to the cluster of this batch. If not, a call may start another.

        Raises an error of Ray when that cannot be found out: with a ``ray://`` address it has to ask the server.
        """
        try:
            return bool(ray().is_initialized() and ray().get_runtime_context().get_node_id() == self._own_node)
        except Exception:
            if ray().is_initialized():
                raise
            return False  # since the first question

    def _result_of(self, method: Any) -> Any:
        """Return the result of *method* of the actor. Raises `_DisconnectedError` if its cluster is not connected."""
        if not self._is_connected():
            raise _DisconnectedError("the program has ended its connection to the cluster")
        return ray().get(method.remote(self._mark), timeout=_CALL_TIMEOUT)

    def _has_finished(self) -> bool:
        """Have the actor end, and return whether it has, or is lost for good or with the connection."""
        try:
            self._take_report()
            has_finished: bool = self._result_of(self._actor.finish)
        except Exception as error:  # noqa: BLE001 - of Ray, or of the actor, which Ray may be making again
            logger.info("the coordinator cannot be reached at the end: %s", type(error).__name__)
            return isinstance(error, (_DisconnectedError, ray().exceptions.ActorDiedError))
        return has_finished

    @property
    def _mark(self) -> JournalMark | None:
        return None if self._report is None else self._report.journal_mark

    def _take_report(self) -> None:
        report: ClusterReport = self._result_of(self._actor.report)
        self._report = report
        if self._on_progress is not None:
            try:
                self._on_progress(report)
            except Exception:  # noqa: BLE001 - of the user, whose rows go on
                self._on_progress = None
                logger.exception("on_progress failed, and is not called any more")


def generate(
    dataset: Any,
    *,
    workers: int | None = None,
    num_cpus: float = 0.25,
    batch_size: int = 100,
    journal_node: str | None = None,
    on_progress: Callable[[ClusterReport], object] | None = None,
    **options: Unpack[PlanOptions],
) -> Any:
    """
    Return *dataset* (a Ray Dataset) with a generation for each row, in further columns.

    They are ``key``, ``content``, ``value`` (with an output type), ``tokens_used``, ``error_type``, ``message`` and
    ``billed``; see `neuralbox_async.dask.RowResult`. A row that fails is a row with an error. The dataset is lazy, as
    all are: what is executed again gets its results from the journal.

    * *workers*: actors that send requests; None: one for each node of the cluster. *num_cpus*: of each, as Ray counts
      them: they wait for most of the time. *batch_size*: the number of rows that a worker is given at a time.
    * *journal_node*: the id of the node whose file system has the *journal*, which alone then has the coordinator.
      None: the node of this program (of the server, with a ``ray://`` address), or another one if that is lost; so a
      file system that they share.
    * *on_progress*: called about twice a second with a `ClusterReport`, in another thread.
    * *options*: as for `neuralbox_async.dask.generate`: *journal*, and *model*, *prompt*, *system*, *temperature*,
      *max_tokens*, *key*, *on_unknown*, *on_changed*, *budget*, *max_rate*, *max_concurrency_per_worker*,
      *output_type*, *max_repairs*, *api_key*, *base_url*, *timeout*, *max_retries*, *lease*.

    The coordinator starts at once, and ends with the last dataset that needs it. The journal is free for others some
    seconds after each execution, not while a worker waits for rows. Raises `InvalidParameterError`,
    `JournalLockedError`, `JournalError`, and `OutcomeUnknownError` with ``on_unknown="raise"``.
    """
    if not hasattr(dataset, "map_batches"):
        raise InvalidParameterError("dataset", None, "a Ray Dataset", show=False)
    batch_size = check_count("batch_size", batch_size, minimum=1)
    size = None if workers is None else check_count("workers", workers, minimum=1)
    batch = RayBatch(journal_node=journal_node, on_progress=on_progress, **options).__enter__()
    setup = batch.setup
    batch.end_with(setup)
    return dataset.map_batches(
        RowGenerator,
        fn_constructor_args=(setup,),
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray_data().ActorPoolStrategy(
            size=size or sum(node["Alive"] for node in ray().nodes()),
            max_concurrent_calls_per_actor=_CONCURRENT_CALLS,
            enable_true_multi_threading=True,
        ),
        num_cpus=num_cpus,  # Ray Data spreads actors over the nodes, so that the loss of one is that of few workers
    )
