"""What runs in the workers of a Dask cluster: tasks, and the plugin that knows where the coordinator is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import attrs
from distributed import WorkerPlugin

from neuralbox_async._cluster.process_worker import run_rows
from neuralbox_async._cluster.tables import frame_with_columns
from neuralbox_async._validation import is_mapping
from neuralbox_async.dask._library import distributed
from neuralbox_async.dask._service import DaskService

if TYPE_CHECKING:
    from collections.abc import Iterable

    from neuralbox_async._cluster.messages import Exchange, Reply
    from neuralbox_async._cluster.row_results import RowResult
    from neuralbox_async._cluster.settings import WorkerSettings

_POLL_INTERVAL = 0.25  # seconds after which a call that waits checks whether its coordinator was replaced
_CALL_TIMEOUT = 5.0  # seconds after which a call is repeated, which does no harm


@attrs.frozen
class _Place:
    """Where the coordinator of a batch is: the actor *key* on the worker at *address*; *worker*: of this process."""

    worker: Any
    address: str
    key: str


_places: dict[str, _Place] = {}  # by run


def plugin_name(run: str) -> str:
    """Return the name of the plugin of *run*."""
    return f"neuralbox-{run}"


class CoordinatorPlugin(WorkerPlugin):
    """Tells each worker, also those that join later, where the coordinator of *run* is."""

    def __init__(self, run: str, address: str, key: str) -> None:
        self.name = plugin_name(run)
        self._run, self._address, self._key = run, address, key

    def setup(self, worker: Any) -> None:
        """Record the place of the coordinator."""
        _places[self._run] = _Place(worker, self._address, self._key)

    def teardown(self, worker: Any) -> None:
        """Forget this place, unless there is another by now."""
        place = _places.get(self._run)
        if place is not None and place.key == self._key and place.worker is worker:
            del _places[self._run]


class ActorLink:
    """The link of a worker to the coordinator of *run*."""

    def __init__(self, run: str) -> None:
        self._run = run
        place = _places.get(run)
        if place is None:
            raise ConnectionError("this worker does not know the coordinator of the batch")
        self._place = place
        self._actor = distributed.actor.Actor(DaskService, place.address, place.key, place.worker)

    def exchange(self, message: Exchange) -> Reply:
        """Return the reply of the coordinator. Raises `OSError` when it is lost, was replaced, or has ended."""
        self._check_place()  # Dask logs each call of an actor that is gone, on both sides
        future = self._actor.exchange(message)
        deadline = time.monotonic() + _CALL_TIMEOUT
        while True:
            try:
                reply: Reply = future.result(timeout=_POLL_INTERVAL)
            except TimeoutError:
                self._check_place()  # connecting to a worker that is gone would take half a minute
                if time.monotonic() > deadline:
                    raise ConnectionError("the coordinator of the batch does not reply") from None
            else:
                return reply

    def _check_place(self) -> None:
        if _places.get(self._run) is not self._place:
            raise ConnectionError("the coordinator of the batch was lost")


class Connect:
    """Connects a worker to the coordinator of *run*."""

    def __init__(self, run: str) -> None:
        self._run = run

    def __call__(self) -> ActorLink:
        """Return the link to where the coordinator is now."""
        return ActorLink(self._run)


def run_partition(settings: WorkerSettings, rows: Iterable[object]) -> list[RowResult]:
    """Return the results of *rows*. Another task of this worker starts as soon as no row waits for a place."""
    return run_rows(settings, Connect(settings.run), list(rows), distributed.secede)


def run_frame(settings: WorkerSettings, frame: Any) -> tuple[Any, list[RowResult]]:
    """Return the pandas *frame* with the columns of the results, and the results."""
    results = run_partition(settings, frame.to_dict("records"))
    return frame_with_columns(frame, results, typed=settings.output_type is not None), results


def frame_of(part: tuple[Any, list[RowResult]]) -> Any:
    """Return the frame of what `run_frame` returned."""
    return part[0]


def results_of(part: tuple[Any, list[RowResult]]) -> list[RowResult]:
    """Return the results of what `run_frame` returned."""
    return part[1]


def dicts_of(results: list[RowResult], *, typed: bool) -> list[dict[str, Any]]:
    """Return *results* as dicts: the members of the row, and the columns of the results."""
    return [
        {
            **(result.row if is_mapping(result.row) else {"prompt": result.row}),
            **result.columns(typed=typed),
        }
        for result in results
    ]
