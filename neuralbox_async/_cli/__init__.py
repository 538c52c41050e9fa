"""The `neuralbox` command: what it is told, and with which status it exits. Each subcommand has a room of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from neuralbox_async import NeuralBoxError, __version__
from neuralbox_async._cli import _failures, _terminal
from neuralbox_async._cli._batch import batch
from neuralbox_async._cli._demo import demo
from neuralbox_async._cli._generate import generate
from neuralbox_async._cli._retrieve import retrieve
from neuralbox_async._cli._serve import serve

_NAME: Final = "neuralbox"
_FAILURE, _INTERRUPTED, _NO_READER = 1, 130, 141  # the last two are 128 + the signal's number, as in shells


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The key is read from NEURALBOX_API_KEY, another address than the API's own from NEURALBOX_BASE_URL. "
    "Exit status: 0 done, 1 failed, 2 wrongly called, 130 interrupted.",
)
@click.version_option(__version__, prog_name=_NAME)
@click.pass_context
def cli(context: click.Context) -> None:
    """
    Generate text with NeuralBox, or try it out on a local server that costs nothing.

    \b
    Examples:
      neuralbox demo
      neuralbox generate "Write a haiku" --local
      neuralbox generate "Write a haiku" --model claude-sonnet-4.5 --temperature 1
      neuralbox generate --system "Translate into French." < letter.txt > lettre.txt
      neuralbox generate "What is in this picture?" --image photo.jpg --json | jq -r .content
      neuralbox batch prompts.jsonl -o answers.jsonl --budget 50000
      neuralbox serve --limit-hour 20
    """  # noqa: D301 - click's mark for lines to be left alone
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (generate, batch, retrieve, serve, demo):
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command with *arguments*, by default those of the process, and return its exit status.

    0: done; 1: failed; 2: called wrongly; 130: interrupted by Ctrl-C; 141: nobody reads the output any more.
    1, 2 and 130 come with one line on stderr.
    """
    _terminal.prepare()
    try:
        status = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # As with `| head`: the reader has what it wanted.
        _terminal.forget_output()
        return _NO_READER
    return status


def _run(arguments: Sequence[str]) -> int:
    # Not `cli.main`: it has its own way with Ctrl-C, with broken pipes, and with more than one line for an error.
    try:
        with cli.make_context(_NAME, list(arguments)) as context:
            cli.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        _terminal.complain(_failures.described(error))
        return error.exit_code
    except NeuralBoxError as error:
        _terminal.complain(_failures.described(error))
        return _failures.status_of(error)
    except KeyboardInterrupt:
        _terminal.complain(f"{_NAME}: interrupted", after_echo=True)
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        _terminal.complain(_failures.described(error))
        return _FAILURE
    return 0
