"""The coordinator in an actor of Dask, which leaves the cluster when its driver has died."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neuralbox_async._cluster.guarded_service import GuardedService
from neuralbox_async._logging import logger
from neuralbox_async.dask._library import distributed

if TYPE_CHECKING:
    from neuralbox_async._cluster.service import ServiceOptions


class DaskService(GuardedService):
    """
    The coordinator of one batch.

    The cluster keeps it for the driver, published as *dataset* and with the plugin *plugin* of its workers: it outlives
    a driver that has died until it has recorded what was in flight.
    """

    def __init__(self, options: ServiceOptions, dataset: str, plugin: str) -> None:
        self._worker = distributed.get_worker()
        self._dataset, self._plugin = dataset, plugin
        super().__init__(options)

    def on_detached(self) -> None:
        """Have the cluster release this actor."""
        try:
            # Not the client of the worker, which tasks of the user may use.
            with distributed.Client(
                self._worker.scheduler.address, security=self._worker.security, set_as_default=False
            ) as client:
                withdraw(client, self._dataset, self._plugin)
        except Exception as error:  # noqa: BLE001 - of the cluster, which may be ending
            logger.info("the coordinator stays on the cluster: %s", type(error).__name__)


def withdraw(client: Any, dataset: str, plugin: str) -> None:
    """Have the cluster release the actor that is published as *dataset*, and forget *plugin*."""
    try:
        client.unpublish_dataset(dataset)
    finally:
        client.unregister_worker_plugin(plugin)
