"""
Name resolution in daemon threads.

A look-up that is stuck cannot be cancelled. In asyncio's default executor, and in anyio's worker threads, it would
delay the exit of the program until it ends.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp.abc
import anyio

from neuralbox_async._options import is_loopback_address

if TYPE_CHECKING:
    from collections.abc import Callable


class NotLoopbackError(OSError):
    """A name that must be this machine's resolves to another."""


class DaemonThreadResolver(aiohttp.abc.AbstractResolver):
    """
    Resolves each name in a daemon thread of its own, within *timeout* seconds (None: no limit).

    *loopback_only*: the reason why names resolve to addresses of this machine only. Others raise `NotLoopbackError`.
    """

    def __init__(self, timeout: float | None, *, loopback_only: str | None = None) -> None:
        self._timeout = timeout
        self._loopback_only = loopback_only

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[aiohttp.abc.ResolveResult]:
        with anyio.fail_after(self._timeout):
            addresses = await _run_in_daemon_thread(partial(_getaddrinfo, host, port, family))
        if self._loopback_only:
            # Only the system knows what a name means: not every resolver keeps names in .localhost on this machine.
            addresses = [address for address in addresses if is_loopback_address(address[4][0])]
            if not addresses:
                raise NotLoopbackError(f"{host} is not this machine, and {self._loopback_only}")
        return [
            aiohttp.abc.ResolveResult(
                hostname=host,
                host=address[0],
                port=address[1],
                family=address_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST,
            )
            for address_family, _, protocol, _, address in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""


async def _run_in_daemon_thread(function: Callable[[], list[Any]]) -> list[Any]:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[Any]] = loop.create_future()

    def resolve_future(result: list[Any], error: Exception | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def run() -> None:
        result: list[Any] = []
        failure: Exception | None = None
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - it is raised where the future is awaited
            failure = error
        with suppress(RuntimeError):  # the loop has been closed in the meantime
            loop.call_soon_threadsafe(resolve_future, result, failure)

    threading.Thread(target=run, name="neuralbox-resolver", daemon=True).start()
    return await future


def _getaddrinfo(host: str, port: int, family: int) -> list[Any]:
    return socket.getaddrinfo(
        host, port, family=socket.AddressFamily(family), type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
