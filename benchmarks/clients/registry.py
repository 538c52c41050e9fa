"""The measured clients by name: the adapter of each, and the environment that it runs in."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.clients.adapter import Address

# dataclasses instead of attrs: the environments of other SDKs have no attrs.
_REQUIRED_PACKAGES = ("neuralbox", "aiohttp", "anyio", "attrs", "cattrs")


@dataclass(frozen=True, kw_only=True)
class Client:
    """
    One client, used in one way.

    * *adapter*: module and class of the adapter below `benchmarks.clients`; *blocking*: it needs no event loop.
    * *module*: the module that a user imports; *constructor*: the expression that makes a client after that import.
    * *packages*: the report lists their versions. *hidden*: packages that the client cannot import.
    * *uvloop*: the client runs on uvloop. *environment*: environment variables of its worker.
    * *venv*: the name of its virtual environment, if the client is not installed together with neuralbox.
    """

    name: str
    adapter: str = ""
    module: str = ""
    constructor: str = "None"
    packages: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    blocking: bool = False
    uvloop: bool = False
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    venv: str | None = None

    def adapter_class(self) -> Callable[[Address, int], Any]:
        """Return the adapter's class; its parameters are the server's address and a limit of connections."""
        module, _, name = self.adapter.partition(":")
        adapter: Callable[[Address, int], Any] = getattr(importlib.import_module(f"benchmarks.clients.{module}"), name)
        return adapter


def _async_client(name: str, adapter: str = "neuralbox_sdk:Async", **options: Any) -> Client:
    return Client(
        name=name,
        adapter=adapter,
        module="neuralbox_async",
        constructor="neuralbox_async.AsyncNeuralBox('nb_key')",
        packages=(*_REQUIRED_PACKAGES, "orjson", "uvloop"),
        **options,
    )


def _blocking_client(name: str, adapter: str = "neuralbox_sdk:Blocking", **options: Any) -> Client:
    return Client(
        name=name,
        adapter=adapter,
        module="neuralbox_sync",
        constructor="neuralbox_sync.NeuralBox('nb_key')",
        packages=(*_REQUIRED_PACKAGES, "orjson"),
        blocking=True,
        **options,
    )


# "neuralbox" has everything on, that is also orjson of the extra `speed`; "-plain" has the required packages only;
# "-general" has everything on but the SDK's own fast paths.
_NEURALBOX = (
    _async_client("neuralbox"),
    _async_client("neuralbox-plain", hidden=("orjson",)),
    _async_client("neuralbox-general", environment={"NEURALBOX_FAST_PATHS": "off"}),
    _async_client("neuralbox-uvloop", uvloop=True),
    _async_client("neuralbox-events", "neuralbox_sdk:AsyncEvents"),
    _async_client("neuralbox-events-plain", "neuralbox_sdk:AsyncEvents", hidden=("orjson",)),
    _async_client("neuralbox-observed", "neuralbox_observed:Observed"),
    _async_client("neuralbox-otel", "neuralbox_observed:OpenTelemetry"),
    _async_client("neuralbox-parse", "neuralbox_sdk:Parse"),
    _async_client("neuralbox-batch", "neuralbox_sdk:Batch"),
    _async_client("neuralbox-batch-journal", "neuralbox_sdk:JournaledBatch"),
    _async_client("neuralbox-semaphore", "neuralbox_sdk:Semaphore"),
    _async_client("neuralbox-sync-batch", "neuralbox_sdk:BlockingBatch"),
    _blocking_client("neuralbox-sync"),
    _blocking_client("neuralbox-sync-plain", hidden=("orjson",)),
    _blocking_client("neuralbox-sync-events", "neuralbox_sdk:BlockingEvents"),
)
_BASELINES = (
    Client(name="python"),  # the bare interpreter
    Client(
        name="aiohttp",
        adapter="bare_aiohttp:BareAiohttp",
        module="aiohttp",
        constructor="aiohttp.ClientSession()",
        packages=("aiohttp",),
    ),
    Client(name="aiohttp-uvloop", adapter="bare_aiohttp:BareAiohttp", packages=("aiohttp", "uvloop"), uvloop=True),
    Client(name="socket", adapter="raw_socket:RawSocket", blocking=True),
    Client(name="protocol", adapter="raw_protocol:RawProtocol"),
    Client(name="http.client", adapter="standard_library:HttpClient", module="http.client", blocking=True),
    Client(
        name="urllib3",
        adapter="blocking_http:Urllib3",
        module="urllib3",
        constructor="urllib3.PoolManager()",
        packages=("urllib3",),
        blocking=True,
    ),
)
_OTHER_SDKS = (
    Client(
        name="requests",
        adapter="blocking_http:Requests",
        module="requests",
        constructor="requests.Session()",
        packages=("requests", "urllib3"),
        blocking=True,
        venv="requests",
    ),
    Client(
        name="httpx",
        adapter="httpx_client:Async",
        module="httpx",
        constructor="httpx.AsyncClient()",
        packages=("httpx",),
        venv="httpx",
    ),
    Client(
        name="httpx-sync",
        adapter="httpx_client:Blocking",
        module="httpx",
        packages=("httpx",),
        blocking=True,
        venv="httpx",
    ),
    Client(
        name="openai",
        adapter="openai_sdk:Async",
        module="openai",
        constructor="openai.AsyncOpenAI(api_key='key')",
        packages=("openai",),
        venv="openai",
    ),
    Client(
        name="openai-sync",
        adapter="openai_sdk:Blocking",
        module="openai",
        packages=("openai",),
        blocking=True,
        venv="openai",
    ),
    Client(
        name="anthropic",
        adapter="anthropic_sdk:Async",
        module="anthropic",
        constructor="anthropic.AsyncAnthropic(api_key='key')",
        packages=("anthropic",),
        venv="anthropic",
    ),
    Client(
        name="anthropic-sync",
        adapter="anthropic_sdk:Blocking",
        module="anthropic",
        packages=("anthropic",),
        blocking=True,
        venv="anthropic",
    ),
)
CLIENTS = {client.name: client for client in (*_BASELINES, *_NEURALBOX, *_OTHER_SDKS)}


def interpreter_of(client: Client, root: Path) -> Path | None:
    """Return the interpreter of the virtual environment that *client* needs below *root*; None for the current one."""
    return None if client.venv is None else root / f".venv-sdk-{client.venv}" / "bin" / "python"
