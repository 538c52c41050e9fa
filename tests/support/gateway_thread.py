"""A gateway in a thread of its own, for blocking clients as well."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import attrs

from neuralbox_async import AsyncNeuralBox
from neuralbox_async.gateway import Gateway, GatewaySettings
from neuralbox_async.testing import NeuralBoxServer


@attrs.frozen
class Site:
    """A gateway that runs in a thread, for blocking clients as well, and the local server behind it."""

    url: str
    server: NeuralBoxServer


@contextlib.contextmanager
def in_thread(server, **settings):
    """Run a gateway in a thread until the end of the block."""
    started, running = threading.Event(), []

    async def serve():
        async with AsyncNeuralBox(**server.client_options) as client:
            gateway = Gateway(client, GatewaySettings(port=0, **settings))

            def ready(_):
                running.append((gateway, asyncio.get_running_loop()))
                started.set()

            await gateway.serve(ready=ready)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(60)
        gateway, loop = running[0]
        yield Site(gateway.base_url, server)
    finally:
        for gateway, loop in running:
            loop.call_soon_threadsafe(gateway.stop)
        thread.join(60)
    assert not thread.is_alive()
