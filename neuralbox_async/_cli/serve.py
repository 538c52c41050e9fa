"""`neuralbox serve`: run the local server, for programs in any language."""

from __future__ import annotations

import inspect
import shlex
import sys
from typing import Any, Final

import click

from neuralbox_async.testing import NeuralBoxServer

_DEFAULTS: Final = {name: one.default for name, one in inspect.signature(NeuralBoxServer).parameters.items()}
_HISTORY: Final = 1000  # requests and generations to keep: the server may run for weeks
# A server that listens on all addresses is reached at a loopback address: plain http is for loopback only.
_LOOPBACK: Final = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}
_SECONDS: Final = click.FloatRange(min=0)
_COUNT: Final = click.IntRange(min=0)


def _check_key(_context: click.Context, parameter: click.Parameter, key: str) -> str:
    if not key or " " in key or not key.isascii() or not key.isprintable():
        raise click.BadParameter("it must be printable ASCII without spaces.", param=parameter)
    return key


@click.command(short_help="Run a local server that behaves like the API.")
@click.option("--host", default=_DEFAULTS["host"], show_default=True, metavar="HOST", help="The address to listen on.")
@click.option(
    "--port",
    default=_DEFAULTS["port"],
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="The port to listen on; 0 selects a free port.",
)
@click.option(
    "--api-key",
    default=_DEFAULTS["api_key"],
    show_default=True,
    metavar="KEY",
    callback=_check_key,
    help="The valid API key.",
)
@click.option(
    "--balance",
    default=_DEFAULTS["balance"],
    show_default=True,
    type=_COUNT,
    metavar="TOKENS",
    help="The initial token balance.",
)
@click.option("--limit-hour", type=_COUNT, metavar="N", help="Generation requests per hour. Default: no limit.")
@click.option("--limit-day", type=_COUNT, metavar="N", help="Generation requests per day. Default: no limit.")
@click.option(
    "--latency",
    default=_DEFAULTS["latency"],
    show_default=True,
    type=_SECONDS,
    metavar="SECONDS",
    help="Time before each response.",
)
@click.option(
    "--event-interval",
    default=_DEFAULTS["event_interval"],
    show_default=True,
    type=_SECONDS,
    metavar="SECONDS",
    help="Time between two events of a stream.",
)
def serve(**settings: Any) -> None:
    """
    Run a local server that behaves like the NeuralBox API, until Ctrl-C.

    It echoes each prompt, counts tokens and enforces limits. It never contacts the real API.

    \b
    Examples:
      neuralbox serve
      neuralbox serve --port 8080 --event-interval 0.05
      neuralbox serve --limit-hour 20 --balance 100
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    try:
        server = NeuralBoxServer(**settings, history=_HISTORY)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    server.run(ready=_announce)
    if sys.stdout.isatty():
        # The terminal has just shown ^C.
        click.echo()


def _announce(server: NeuralBoxServer) -> None:
    url = server.base_url
    for wildcard, loopback in _LOOPBACK.items():
        url = url.replace(wildcard, loopback)
    lines = (
        f"The local server listens at {url}",
        f"The API key is {server.api_key}",
        "",
        f"export NEURALBOX_BASE_URL={shlex.quote(url)}",
        f"export NEURALBOX_API_KEY={shlex.quote(server.api_key)}",
        "",
        "Press Ctrl-C to stop it.",
    )
    click.echo("\n".join(lines))
