"""The clients that are measured, by name: what makes each, and in which environment."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# No attrs: environments of peers have none.
_OURS = ("neuralbox", "aiohttp", "anyio", "attrs", "cattrs")


@dataclass(frozen=True, kw_only=True)
class Client:
    """
    One client, in one way of using it.

    * *made_by*: module and class of its adapter; *blocking*: it needs no event loop.
    * *module*: what a user imports; *construct*: what makes a client, after that import.
    * *packages*: whose versions matter. *without*: packages to hide. *uvloop*: runs on it.
    * *peer*: the name of its environment, when it is not installed together with neuralbox.
    """

    name: str
    made_by: str = ""
    module: str = ""
    construct: str = "None"
    packages: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    blocking: bool = False
    uvloop: bool = False
    peer: str | None = None

    def factory(self) -> Callable[[int, int], Any]:
        """Return what makes the adapter from the server's port and the number of connections."""
        module, _, name = self.made_by.partition(":")
        found: Callable[[int, int], Any] = getattr(importlib.import_module(f"benchmarks.clients.{module}"), name)
        return found


def _async_client(name: str, made_by: str = "ours:Async", **options: Any) -> Client:
    packages = (*_OURS, "orjson", "uvloop")
    construct = "neuralbox_async.AsyncNeuralBox('nb_key')"
    return Client(
        name=name, made_by=made_by, module="neuralbox_async", construct=construct, packages=packages, **options
    )


def _blocking_client(name: str, made_by: str = "ours:Blocking", **options: Any) -> Client:
    packages = (*_OURS, "orjson")
    construct = "neuralbox_sync.NeuralBox('nb_key')"
    return Client(
        name=name,
        made_by=made_by,
        module="neuralbox_sync",
        construct=construct,
        packages=packages,
        blocking=True,
        **options,
    )


_OPENAI = "openai.{}(api_key='key')"
_ANTHROPIC = "anthropic.{}(api_key='key')"
_ALL = (
    Client(name="python"),  # the bare interpreter
    Client(
        name="aiohttp",
        made_by="bare_aiohttp:BareAiohttp",
        module="aiohttp",
        construct="aiohttp.ClientSession()",
        packages=("aiohttp",),
    ),
    Client(name="aiohttp-uvloop", made_by="bare_aiohttp:BareAiohttp", packages=("aiohttp", "uvloop"), uvloop=True),
    # With the extra `speed`, that is with orjson; without it; with it and on its event loop.
    _async_client("neuralbox"),
    _async_client("neuralbox-plain", without=("orjson",)),
    _async_client("neuralbox-uvloop", uvloop=True),
    _async_client("neuralbox-events", "ours:AsyncEvents"),
    _async_client("neuralbox-events-plain", "ours:AsyncEvents", without=("orjson",)),
    _async_client("neuralbox-batch", "ours:Batch"),
    _async_client("neuralbox-batch-journal", "ours:JournaledBatch"),
    _async_client("neuralbox-semaphore", "ours:Semaphore"),
    _blocking_client("neuralbox-sync"),
    _blocking_client("neuralbox-sync-plain", without=("orjson",)),
    _blocking_client("neuralbox-sync-events", "ours:BlockingEvents"),
    Client(name="socket", made_by="raw_socket:RawSocket", blocking=True),
    Client(name="protocol", made_by="raw_protocol:RawProtocol"),
    Client(name="http.client", made_by="standard_library:HttpClient", module="http.client", blocking=True),
    Client(
        name="urllib3",
        made_by="blocking_peers:Urllib3",
        module="urllib3",
        construct="urllib3.PoolManager()",
        packages=("urllib3",),
        blocking=True,
    ),
    Client(
        name="requests",
        made_by="blocking_peers:Requests",
        module="requests",
        construct="requests.Session()",
        packages=("requests", "urllib3"),
        blocking=True,
        peer="requests",
    ),
    Client(
        name="httpx",
        made_by="httpx_peer:Async",
        module="httpx",
        construct="httpx.AsyncClient()",
        packages=("httpx",),
        peer="httpx",
    ),
    Client(
        name="httpx-sync",
        made_by="httpx_peer:Blocking",
        module="httpx",
        packages=("httpx",),
        blocking=True,
        peer="httpx",
    ),
    Client(
        name="openai",
        made_by="openai_sdk:Async",
        module="openai",
        construct=_OPENAI.format("AsyncOpenAI"),
        packages=("openai",),
        peer="openai",
    ),
    Client(
        name="openai-sync",
        made_by="openai_sdk:Blocking",
        module="openai",
        packages=("openai",),
        blocking=True,
        peer="openai",
    ),
    Client(
        name="anthropic",
        made_by="anthropic_sdk:Async",
        module="anthropic",
        construct=_ANTHROPIC.format("AsyncAnthropic"),
        packages=("anthropic",),
        peer="anthropic",
    ),
    Client(
        name="anthropic-sync",
        made_by="anthropic_sdk:Blocking",
        module="anthropic",
        packages=("anthropic",),
        blocking=True,
        peer="anthropic",
    ),
)
CLIENTS = {client.name: client for client in _ALL}


def python_of(client: Client, root: Path) -> Path | None:
    """Return the interpreter of the environment that *client* needs below *root*; None for this one."""
    return None if client.peer is None else root / f".venv-peer-{client.peer}" / "bin" / "python"
