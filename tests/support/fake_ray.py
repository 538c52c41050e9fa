"""A stand-in for Ray in one process: actors are objects, calls run at once, and their errors are raised by `get`."""

from __future__ import annotations

import types
from concurrent.futures import Future


class ActorDiedError(Exception):
    """The actor was lost."""


class ActorUnavailableError(Exception):
    """The actor is being made again."""


class FakeRay(types.ModuleType):
    """The parts of the module ``ray`` that are used, with the *actors* by name and the *options* of the last one."""

    def __init__(self):
        super().__init__("ray")
        self.actors, self.options, self.is_running = {}, {}, True
        self.starts, self.node = 0, "node"

    @property
    def exceptions(self):
        return types.SimpleNamespace(ActorDiedError=ActorDiedError)

    @property
    def util(self):
        strategy = types.SimpleNamespace(NodeAffinitySchedulingStrategy=lambda **options: options)
        return types.SimpleNamespace(scheduling_strategies=strategy)

    def is_initialized(self):
        return self.is_running

    def get_runtime_context(self):
        return types.SimpleNamespace(namespace="space", get_node_id=lambda: self.node)

    def _start(self):
        """Count the clusters that a call starts, as one does on a program's own machine after its `ray.shutdown()`."""
        self.starts += not self.is_running
        self.is_running = True

    def nodes(self):
        return [{"Alive": True}, {"Alive": True}, {"Alive": False}]

    def remote(self, cls):
        return types.SimpleNamespace(options=lambda **options: self._maker(cls, options))

    def _maker(self, cls, options):
        def remote(*arguments):
            self.options = options
            self.actors[options["name"]] = handle = Handle(lambda: cls(*arguments))
            return handle

        return types.SimpleNamespace(remote=remote)

    def get(self, future, timeout=None):
        self._start()
        return future.result(timeout)

    def get_actor(self, name, namespace):
        assert "space" == namespace
        if name not in self.actors:
            raise ValueError(name)
        return self.actors[name]

    def kill(self, handle):
        self._start()
        handle.actor = None
        self.actors = {name: one for name, one in self.actors.items() if one is not handle}


class Handle:
    """The handle of an actor, which *make* makes, again when it is lost."""

    def __init__(self, make):
        self._make = make
        self.lost_calls = 0
        self.actor = make()

    def restart(self):
        """Make the actor again, as Ray does."""
        self.actor = self._make()

    def __getattr__(self, name):
        return types.SimpleNamespace(remote=lambda *arguments: self._call(name, arguments))

    def _call(self, name, arguments):
        future = Future()
        try:
            future.set_result(self._result_of(name, arguments))
        except Exception as error:  # noqa: BLE001 - as Ray does
            future.set_exception(error)
        return future

    def _result_of(self, name, arguments):
        if self.lost_calls:
            self.lost_calls -= 1
            raise ActorUnavailableError
        if self.actor is None:
            raise ActorDiedError
        return getattr(self.actor, name)(*arguments)


class FakeDataset:
    """A dataset of one *table*, to which `execute` applies what `map_batches` was given."""

    def __init__(self, table):
        self._table = table

    def map_batches(self, cls, *, fn_constructor_args, **options):
        self.options = options
        self._cls, self._arguments = cls, fn_constructor_args
        return self

    def execute(self):
        return self._cls(*self._arguments)(self._table)
