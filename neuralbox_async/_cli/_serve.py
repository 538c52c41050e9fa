"""`neuralbox serve`: the local server, for programs in any language."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from neuralbox_async.testing import NeuralBoxServer

_REMEMBERED: Final = 1000  # requests and generations; the server may run for weeks
# Where all addresses are listened on, this is the one to call: plain http is for loopback only.
_LOOPBACK: Final = {"//0.0.0.0:": "//127.0.0.1:", "//[::]:": "//[::1]:"}
_SECONDS: Final = click.FloatRange(min=0)
_LIMIT: Final = click.IntRange(min=0)


def _key(_context: click.Context, parameter: click.Parameter, key: str | None) -> str | None:
    if key is not None and (not key or " " in key or not key.isascii() or not key.isprintable()):
        raise click.BadParameter("it must be printable ASCII without spaces.", param=parameter)
    return key


@click.command(short_help="Run a local server that behaves as the API does.")
@click.option("--host", default="127.0.0.1", show_default=True, metavar="HOST", help="The address to listen on.")
@click.option(
    "--port", default=0, type=click.IntRange(0, 65535), metavar="PORT", help="The port; a free one by default."
)
@click.option("--api-key", metavar="KEY", callback=_key, help="The key to accept; there is one by default.")
@click.option("--balance", type=_LIMIT, metavar="TOKENS", help="Tokens at the start; 1,000,000 by default.")
@click.option("--limit-hour", type=_LIMIT, metavar="N", help="Generations per hour, above which 429 is answered.")
@click.option("--limit-day", type=_LIMIT, metavar="N", help="The same per day.")
@click.option("--latency", type=_SECONDS, metavar="SECONDS", help="How long a model thinks before it answers.")
@click.option("--event-interval", type=_SECONDS, metavar="SECONDS", help="The time between two events of a stream.")
def serve(**options: Any) -> None:
    """
    Run a local server that behaves as the NeuralBox API does, until Ctrl-C.

    It answers with an echo of the prompt, keeps accounts of tokens and limits, and contacts nobody.

    \b
    Examples:
      neuralbox serve
      neuralbox serve --port 8080 --event-interval 0.05
      neuralbox serve --limit-hour 20 --balance 100
    """  # noqa: D301 - click's mark for lines to be left alone
    from neuralbox_async.testing import NeuralBoxServer

    given = {name: value for name, value in options.items() if value is not None}
    try:
        server = NeuralBoxServer(**given, history=_REMEMBERED)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    server.run(ready=_announce)
    if sys.stdout.isatty():
        # The terminal has just shown ^C there.
        click.echo()


def _announce(server: NeuralBoxServer) -> None:
    url = server.base_url
    for everywhere, loopback in _LOOPBACK.items():
        url = url.replace(everywhere, loopback)
    lines = (
        f"A local server answers at {url}",
        f"with the key {server.api_key}",
        "",
        f"export NEURALBOX_BASE_URL={shlex.quote(url)}",
        f"export NEURALBOX_API_KEY={shlex.quote(server.api_key)}",
        "",
        "Ctrl-C stops it.",
    )
    click.echo("\n".join(lines))
