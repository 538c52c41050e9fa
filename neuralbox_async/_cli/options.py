"""The options that several commands have."""

from __future__ import annotations

from typing import Final

import click

DEFAULT_MODEL: Final = "gpt-5"

SECONDS: Final = click.FloatRange(min=0, min_open=True)

model = click.option("-m", "--model", default=DEFAULT_MODEL, show_default=True, metavar="MODEL", help="The model.")
system = click.option("-s", "--system", metavar="TEXT", help="System message, placed before the prompt.")
temperature = click.option(
    "-t",
    "--temperature",
    type=click.FloatRange(0, 2),
    metavar="T",
    help="Sampling temperature, from 0 to 2. Default: the API's, 0.7.",
)
max_tokens = click.option(
    "--max-tokens", type=click.IntRange(min=1), metavar="N", help="Maximum length of the text, in tokens."
)
category = click.option(
    "--category", metavar="CATEGORY", help="Only this category, such as text, image, video, audio, tts, stt or tool."
)
local = click.option(
    "--local", is_flag=True, help="Use a temporary local server that echoes the prompt: no API key, no cost."
)
