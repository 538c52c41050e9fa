"""The `neuralbox` command: its subcommands, its exit statuses, and its error messages."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from neuralbox_async import NeuralBoxError, __version__

# The modules, not the commands in them: a command would hide the module of the same name.
from neuralbox_async._cli import (
    account,
    batch,
    chat,
    demo,
    error_messages,
    gateway,
    generate,
    models,
    retrieve,
    serve,
    terminal,
)

_NAME: Final = "neuralbox"
_COMPLETION: Final = "_NEURALBOX_COMPLETE"  # the variable by which a shell asks for completions, as in click
_ERROR, _INTERRUPTED, _BROKEN_PIPE = 1, 130, 141  # the last two are 128 + the number of the signal, as in shells


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Environment: NEURALBOX_API_KEY is the API key; NEURALBOX_BASE_URL replaces the URL of the API. "
    "Exit status: 0 success, 1 error, 2 usage error, 130 interrupted by Ctrl-C.",
)
@click.version_option(__version__, prog_name=_NAME)
@click.pass_context
def cli(context: click.Context) -> None:
    """
    Generate text with NeuralBox, or try it on a local server at no cost.

    \b
    Examples:
      neuralbox demo
      neuralbox generate "Write a haiku" --local
      neuralbox generate "Write a haiku" --model claude-sonnet-4.5 --temperature 1
      neuralbox generate --system "Translate into French." < letter.txt > lettre.txt
      neuralbox chat --model claude-sonnet-4.5
      neuralbox generate "What is in this image?" --image photo.jpg --json | jq -r .content
      neuralbox batch prompts.jsonl -o results.jsonl --budget 50000
      neuralbox gateway --budget 500
      neuralbox serve --limit-hour 20
    """  # noqa: D301 - click keeps the line breaks of a paragraph after \b
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (generate.generate, chat.chat, batch.batch, retrieve.retrieve):
    cli.add_command(_command)
for _command in (gateway.gateway, serve.serve, demo.demo):
    cli.add_command(_command)
for _command in (models.models, models.price, account.balance, account.history):
    cli.add_command(_command)


def run(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command with *arguments*, by default those of the process, and return its exit status.

    0: success; 1: error; 2: usage error; 130: interrupted by Ctrl-C; 141: the reader of stdout closed the pipe.
    `neuralbox batch` has more. 1, 2 and 130 come with one line on stderr.
    """
    terminal.configure_streams()
    try:
        if instruction := os.environ.get(_COMPLETION):
            return terminal.finish_output(_complete(instruction))
        return terminal.finish_output(_run(sys.argv[1:] if arguments is None else arguments))
    except BrokenPipeError:
        # Such as `| head`: the reader needs no more.
        terminal.discard_output()
        return _BROKEN_PIPE


def _complete(instruction: str) -> int:
    """Print what a shell asks for with *instruction*: its completion script, or the completions of a line."""
    from click.shell_completion import shell_complete  # not above: few runs need it

    return shell_complete(cli, {}, _NAME, _COMPLETION, instruction)


def _run(arguments: Sequence[str]) -> int:
    # Not `cli.main`: it handles Ctrl-C and broken pipes in its own way, and prints several lines for an error.
    try:
        with cli.make_context(_NAME, list(arguments)) as context:
            try:
                cli.invoke(context)
            except NeuralBoxError as error:  # here, because the message depends on the command
                terminal.print_error(error_messages.error_line(error))
                return error_messages.exit_status(error)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        terminal.print_error(error_messages.error_line(error))
        return error.exit_code
    except KeyboardInterrupt:
        terminal.print_error(f"{_NAME}: interrupted", after_echo=True)
        return _INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:
        terminal.print_error(error_messages.error_line(error))
        return _ERROR
    return 0
