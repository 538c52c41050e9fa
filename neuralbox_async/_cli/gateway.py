"""`neuralbox gateway`: a server with OpenAI's interface, for tools that know no other."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import anyio
import click

from neuralbox_async import NOT_GIVEN, AsyncNeuralBox, InvalidParameterError
from neuralbox_async._cli.options import SECONDS, local
from neuralbox_async._cli.request_log import request_log
from neuralbox_async._cli.shells import set_commands

if TYPE_CHECKING:
    from neuralbox_async.gateway import Gateway

_HISTORY: Final = 1000  # requests and generations that a local server keeps
_WAIT: Final = click.FloatRange(min=0)
# The parameters of the settings whose options have other names.
_OPTIONS: Final = {"allowed_hosts": "--allow-host", "cors_origins": "--cors-origin", "token": "the token"}


@click.command(short_help="Serve OpenAI's interface, for tools that support no other.")
@click.option(
    "--host",
    envvar="NEURALBOX_GATEWAY_HOST",
    default="127.0.0.1",
    show_default=True,
    metavar="HOST",
    help="The address to listen on. An address other than loopback requires a token.",
)
@click.option(
    "--port",
    envvar="NEURALBOX_GATEWAY_PORT",
    default=8090,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="The port to listen on; 0 selects a free port.",
)
@click.option(
    "--token-file",
    envvar="NEURALBOX_GATEWAY_TOKEN_FILE",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="A file with the token that clients send as their API key. Default: the token in NEURALBOX_GATEWAY_TOKEN.",
)
@click.option(
    "--allow-host",
    "allowed_hosts",
    envvar="NEURALBOX_GATEWAY_ALLOW_HOST",
    multiple=True,
    metavar="NAME",
    help="A name under which clients reach the gateway, besides localhost and IP addresses. Repeatable.",
)
@click.option(
    "--cors-origin",
    "cors_origins",
    envvar="NEURALBOX_GATEWAY_CORS_ORIGIN",
    multiple=True,
    metavar="ORIGIN",
    help="An origin, such as https://app.example, whose pages may use the gateway. Repeatable.",
)
@click.option(
    "--budget",
    envvar="NEURALBOX_GATEWAY_BUDGET",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="NeuralBox tokens that may be spent until the gateway stops. Default: no limit.",
)
@click.option(
    "-c",
    "--max-concurrency",
    envvar="NEURALBOX_GATEWAY_MAX_CONCURRENCY",
    default=64,
    show_default=True,
    type=click.IntRange(min=1),
    metavar="N",
    help="Maximum number of concurrent generations; further calls wait.",
)
@click.option(
    "--max-waiting",
    envvar="NEURALBOX_GATEWAY_MAX_WAITING",
    default=256,
    show_default=True,
    type=click.IntRange(min=0),
    metavar="N",
    help="Calls that may wait for their turn; more are refused at once.",
)
@click.option(
    "--max-wait",
    envvar="NEURALBOX_GATEWAY_MAX_WAIT",
    default=60.0,
    show_default=True,
    type=_WAIT,
    metavar="SECONDS",
    help="How long a call may wait for its turn or for a rate limit of the account.",
)
@click.option(
    "--timeout",
    envvar="NEURALBOX_GATEWAY_TIMEOUT",
    type=SECONDS,
    metavar="SECONDS",
    help="Time limit of a call, including retries. Default: 600 for a whole one, none for a stream.",
)
@click.option(
    "--write-timeout",
    envvar="NEURALBOX_GATEWAY_WRITE_TIMEOUT",
    default=60.0,
    show_default=True,
    type=SECONDS,
    metavar="SECONDS",
    help="A client that reads nothing of its response for this long is disconnected.",
)
@click.option(
    "--shutdown-timeout",
    envvar="NEURALBOX_GATEWAY_SHUTDOWN_TIMEOUT",
    default=30.0,
    show_default=True,
    type=_WAIT,
    metavar="SECONDS",
    help="Grace period for running calls after Ctrl-C or SIGTERM; a second signal ends them.",
)
@local
@click.option("--quiet", is_flag=True, help="Do not log the requests.")
@click.pass_context
def gateway(
    context: click.Context,
    /,
    *,
    token_file: str | None,
    timeout: float | None,
    local: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """
    Serve OpenAI's chat completions and models until Ctrl-C, for tools that support no other interface.

    Clients never see your API key. On this machine they need none; elsewhere they send the gateway's own token, from
    --token-file or NEURALBOX_GATEWAY_TOKEN. Each option can be set by a variable, such as NEURALBOX_GATEWAY_PORT. A
    line for each request goes to stderr: time, method, path, status, model, duration, cost, id.

    \b
    Examples:
      neuralbox gateway
      neuralbox gateway --local
      neuralbox gateway --port 8000 --budget 500 --max-concurrency 4
      neuralbox gateway --host 0.0.0.0 --token-file token.txt --allow-host ai.example
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    from neuralbox_async.gateway import Gateway, GatewaySettings  # not above: it imports aiohttp

    try:
        checked = GatewaySettings(token=_token(token_file), **settings)
    except InvalidParameterError as error:
        name = _OPTIONS.get(error.parameter, f"--{error.parameter.replace('_', '-')}")
        raise click.UsageError(f"{name} must be {error.rule}", context) from None

    def make_gateway(client: AsyncNeuralBox) -> Gateway:
        return Gateway(client, checked)

    open_client = _local_client(timeout) if local else _client(timeout)
    with nullcontext() if quiet else request_log("neuralbox.gateway"):
        # The extra `speed` installs it. It changes no behaviour.
        anyio.run(_serve, make_gateway, open_client, backend_options={"use_uvloop": find_spec("uvloop") is not None})
    if sys.stdout.isatty():
        # The terminal has just shown ^C.
        click.echo()


def _token(path: str | None) -> str | None:
    if path is None:
        return os.environ.get("NEURALBOX_GATEWAY_TOKEN") or None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not text in UTF-8") from None


@asynccontextmanager
async def _client(timeout: float | None) -> AsyncGenerator[AsyncNeuralBox]:
    async with AsyncNeuralBox(timeout=NOT_GIVEN if timeout is None else timeout) as client:
        yield client


@asynccontextmanager
async def _local_client(timeout: float | None) -> AsyncGenerator[AsyncNeuralBox]:
    """Yield a client of a temporary local server."""
    from neuralbox_async.testing import NeuralBoxServer

    async with NeuralBoxServer(history=_HISTORY) as server:
        limit = NOT_GIVEN if timeout is None else timeout
        async with AsyncNeuralBox(server.api_key, base_url=server.base_url, timeout=limit) as client:
            yield client


async def _serve(
    make_gateway: Callable[[AsyncNeuralBox], Gateway], open_client: AbstractAsyncContextManager[AsyncNeuralBox]
) -> None:
    failure: OSError | None = None  # a task group would wrap it
    async with open_client as client:
        server = make_gateway(client)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_stop_on_signals, server, tasks.cancel_scope)
            try:
                await server.serve(ready=_announce)
            except OSError as error:
                failure = error
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _stop_on_signals(server: Gateway, scope: anyio.CancelScope) -> None:
    """Stop *server* at the first signal, and at once, by *scope*, at the second."""
    try:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                if server.is_stopping:
                    scope.cancel()
                    return
                server.stop()
    except NotImplementedError:  # on Windows Ctrl-C raises KeyboardInterrupt
        return


def _announce(server: Gateway) -> None:
    key = "the-token-of-the-gateway" if server.needs_token else "none"
    lines = [f"The gateway listens at {server.base_url}"]
    for shell, commands in set_commands({"OPENAI_BASE_URL": server.base_url, "OPENAI_API_KEY": key}).items():
        lines += ["", f"{shell}:", *(f"  {command}" for command in commands)]
    click.echo("\n".join([*lines, "", "Press Ctrl-C to stop it."]))
