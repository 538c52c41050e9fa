"""What runs in the workers of Ray Data: the callable class for `map_batches`, and its link to the coordinator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from neuralbox_async._cluster.process_worker import end_worker, run_rows
from neuralbox_async._cluster.tables import arrow_with_columns, frame_with_columns
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async.ray._library import ray

if TYPE_CHECKING:
    from neuralbox_async._cluster.messages import Exchange, Reply
    from neuralbox_async._cluster.settings import WorkerSettings

_CALL_TIMEOUT = 5.0  # seconds after which a call is repeated, which does no harm
_LEAVE_TIMEOUT = 10.0


class ActorLink:
    """The link of a worker to the coordinator's actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def exchange(self, message: Exchange) -> Reply:
        """Return the reply of the coordinator. Raises errors of Ray when it is lost, or is being replaced."""
        reply: Reply = ray().get(self._actor.exchange.remote(message), timeout=_CALL_TIMEOUT)
        return reply


@attrs.frozen
class Connect:
    """Connects a worker to the actor *name* in *namespace*, wherever it is now."""

    name: str
    namespace: str

    def __call__(self) -> ActorLink:
        """Return a link. Raises `ValueError` when there is no such actor any more."""
        return ActorLink(ray().get_actor(self.name, namespace=self.namespace))


@attrs.frozen(eq=False)
class WorkerSetup:
    """What a `RowGenerator` needs; see `RayBatch.setup`. It has no API key, and can be pickled."""

    settings: WorkerSettings
    connect: Connect


class RowGenerator:
    """
    A callable class for ``Dataset.map_batches``: it generates for each row of a batch of rows.

    *setup*: of the batch: `RayBatch.setup`. The batches of rows are tables of Arrow or pandas DataFrames
    (``batch_format="pyarrow"`` or ``"pandas"``); others raise `InvalidParameterError`. They come back with the columns
    ``key``, ``content``, ``value`` (with an output type: then as a DataFrame), ``tokens_used``, ``error_type``,
    ``message`` and ``billed``; see `neuralbox_async.dask.RowResult`. It may be called by several threads.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup

    def __call__(self, batch: Any) -> Any:
        """Return the table *batch* with the columns of the results."""
        is_arrow = hasattr(batch, "to_pylist")
        if not is_arrow and not hasattr(batch, "to_dict"):
            raise InvalidParameterError("batch_format", type(batch).__name__, "'pyarrow' or 'pandas'")
        rows = batch.to_pylist() if is_arrow else batch.to_dict("records")
        settings = self._setup.settings
        results = run_rows(settings, self._setup.connect, rows)
        with_columns = arrow_with_columns if is_arrow else frame_with_columns
        return with_columns(batch, results, typed=settings.output_type is not None)

    def __del__(self) -> None:
        # Ray Data deletes it at the end of an execution, just before the process ends.
        end_worker(self._setup.settings.run, _LEAVE_TIMEOUT)
