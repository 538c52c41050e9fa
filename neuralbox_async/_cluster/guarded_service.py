"""`GuardedService`: a coordinator for actors of engines that cannot stand an error of an actor's constructor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from neuralbox_async._cluster.service import CoordinatorService
from neuralbox_async._errors import NeuralBoxError

if TYPE_CHECKING:
    from neuralbox_async._cluster.messages import Exchange, Reply
    from neuralbox_async._cluster.service import ClusterReport, ServiceOptions


class GuardedService:
    """
    A `CoordinatorService`, or the error that making it raised.

    Dask's scheduler drops a worker on which an actor's constructor raises, and with it all that the worker runs.
    """

    def __init__(self, options: ServiceOptions) -> None:
        self._service: CoordinatorService | NeuralBoxError
        try:
            self._service = CoordinatorService(options, self.on_detached)
        except NeuralBoxError as error:
            self._service = error

    def on_detached(self) -> None:
        """Do what the engine needs when it has ended after its driver; in a thread of its own."""

    def failure(self) -> NeuralBoxError | None:
        """Return the error that making the service raised; None if it is there."""
        return self._service if isinstance(self._service, NeuralBoxError) else None

    @property
    def _opened(self) -> CoordinatorService:
        if isinstance(self._service, NeuralBoxError):
            raise self._service
        return self._service

    def exchange(self, message: Exchange) -> Reply:
        """Do the same as `CoordinatorService.exchange`."""
        return self._opened.exchange(message)

    def report(self) -> ClusterReport:
        """Do the same as `CoordinatorService.report`."""
        return self._opened.report()

    def stop(self) -> None:
        """Do the same as `CoordinatorService.stop`."""
        self._opened.stop()

    def detach(self) -> None:
        """Do the same as `CoordinatorService.detach`."""
        self._opened.detach()

    def finish(self, *, early: bool = False) -> bool:
        """Do the same as `CoordinatorService.finish`."""
        return self._opened.finish(early=early)
