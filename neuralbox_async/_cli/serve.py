"""`neuralbox serve`: run the local server, for programs in any language."""

from __future__ import annotations

import inspect
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

import click

from neuralbox_async._cli.request_log import request_log
from neuralbox_async._cli.shells import set_commands

if TYPE_CHECKING:
    from neuralbox_async.testing import NeuralBoxServer

_HISTORY: Final = 1000  # requests and generations to keep: the server may run for weeks
# A server that listens on all addresses is reached at a loopback address: plain http is for loopback only.
_LOOPBACK: Final = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}
_SECONDS: Final = click.FloatRange(min=0)
_COUNT: Final = click.IntRange(min=0)


class _ServerOption(click.Option):
    """An option of `NeuralBoxServer`, with the default that is there; the class is imported only when it is needed."""

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:  # noqa: ARG002, FBT001, FBT002 - as in click
        from neuralbox_async.testing import NeuralBoxServer

        return inspect.signature(NeuralBoxServer).parameters[self.name or ""].default


def _check_key(_context: click.Context, parameter: click.Parameter, key: str) -> str:
    if not key or " " in key or not key.isascii() or not key.isprintable():
        raise click.BadParameter("it must be printable ASCII without spaces.", param=parameter)
    return key


@click.command(short_help="Run a local server that behaves like the API.")
@click.option("--host", cls=_ServerOption, show_default=True, metavar="HOST", help="The address to listen on.")
@click.option(
    "--port",
    cls=_ServerOption,
    show_default=True,
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="The port to listen on; 0 selects a free port.",
)
@click.option(
    "--api-key",
    cls=_ServerOption,
    show_default=True,
    metavar="KEY",
    callback=_check_key,
    help="The valid API key.",
)
@click.option(
    "--balance",
    cls=_ServerOption,
    show_default=True,
    type=_COUNT,
    metavar="TOKENS",
    help="The initial token balance.",
)
@click.option("--limit-hour", type=_COUNT, metavar="N", help="Generation requests per hour. Default: no limit.")
@click.option("--limit-day", type=_COUNT, metavar="N", help="Generation requests per day. Default: no limit.")
@click.option(
    "--latency",
    cls=_ServerOption,
    show_default=True,
    type=_SECONDS,
    metavar="SECONDS",
    help="Time before each response.",
)
@click.option(
    "--event-interval",
    cls=_ServerOption,
    show_default=True,
    type=_SECONDS,
    metavar="SECONDS",
    help="Time between two events of a stream.",
)
@click.option(
    "--refuse-unknown-models",
    is_flag=True,
    help="Respond with 404 to models that are not in the price list. Default: they cost 1 token.",
)
@click.option("--quiet", is_flag=True, help="Do not log the requests.")
def serve(*, quiet: bool, **settings: Any) -> None:
    """
    Run a local server that behaves like the NeuralBox API, until Ctrl-C.

    It echoes each prompt, counts tokens and enforces limits. It never contacts the real API. The commands that set the
    environment for it go to stdout, and a line for each request to stderr: time, method, path, status, model, duration.

    \b
    Examples:
      neuralbox serve
      neuralbox serve --port 8080 --event-interval 0.05
      neuralbox serve --limit-hour 20 --balance 100
      neuralbox serve --refuse-unknown-models --quiet
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    from neuralbox_async.testing import NeuralBoxServer  # not above: it imports aiohttp

    try:
        server = NeuralBoxServer(**settings, history=_HISTORY)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    with nullcontext() if quiet else request_log("neuralbox.testing"):
        server.run(ready=_announce)
    if sys.stdout.isatty():
        # The terminal has just shown ^C.
        click.echo()


def _announce(server: NeuralBoxServer) -> None:
    url = server.base_url
    for wildcard, loopback in _LOOPBACK.items():
        url = url.replace(wildcard, loopback)
    lines = [f"The local server listens at {url}", f"The API key is {server.api_key}"]
    for shell, commands in set_commands({"NEURALBOX_BASE_URL": url, "NEURALBOX_API_KEY": server.api_key}).items():
        lines += ["", f"{shell}:", *(f"  {command}" for command in commands)]
    click.echo("\n".join([*lines, "", "Press Ctrl-C to stop it."]))
