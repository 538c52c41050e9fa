"""What a batch would send: the number of rows and the first requests, without sending anything."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, Final, cast

import anyio

from neuralbox_async import AsyncNeuralBox, GenerateRequest, read_journal
from neuralbox_async._batch.key_index import KeyIndex, digest_of
from neuralbox_async._cli.batch_rows import name_of
from neuralbox_async._cli.batch_run import RunOptions
from neuralbox_async._cli.error_messages import printable_line
from neuralbox_async._cli.input_rows import InputRows
from neuralbox_async._cli.terminal import TextWriter, counted

_REQUESTS_SHOWN: Final = 3
_MAX_TEXT: Final = 2000  # characters; images may have millions
_KEY: Final = "nb_dry_run"  # a client needs one, and this one sends nothing


def print_dry_run(run: RunOptions, rows: InputRows) -> None:
    """Print to stdout the number of *rows*, and the first requests that are left, as they would be sent."""
    completed = _completed_keys(run.journal)
    left = sum(1 for _ in _left(rows, completed))
    facts = [counted(len(rows), "row")]
    if rows.invalid:
        facts.append(f"{counted(rows.invalid, 'invalid row')} skipped")
    if left < len(rows):
        facts += [f"{len(rows) - left:,} completed by earlier runs", f"{left:,} left"]
    writer = TextWriter()
    writer.write(printable_line(f"{name_of(run.source)}: {', '.join(facts)}") + "\n")
    first = list(islice(_left(rows, completed), _REQUESTS_SHOWN))
    for request, body in zip(first, anyio.run(_bodies, first), strict=True):
        place = rows.place_of(request.key or "") or {}
        key = json.dumps(request.key, ensure_ascii=False)
        writer.write(f"\nThe request of {rows.unit} {place.get('line')}, with the key {key}:\n")
        writer.write(json.dumps(_shortened(body), ensure_ascii=False, indent=2) + "\n")
    writer.write("\nThis was a dry run: nothing was sent.\n")


def _completed_keys(journal: str | None) -> KeyIndex:
    keys = KeyIndex()
    if journal is not None and os.path.exists(journal):  # noqa: PTH110 - one path, one style
        for entry in read_journal(journal):
            if entry.event == "done":
                keys[_digest(entry.key)] = 1
    return keys


def _left(rows: InputRows, completed: KeyIndex) -> Iterator[GenerateRequest]:
    return (request for request in rows if not completed[_digest(request.key or "")])


def _digest(key: str) -> int:
    return digest_of(key.encode(errors="replace"))


async def _bodies(requests: list[GenerateRequest]) -> list[Any]:
    """Return the bodies that a client sends for *requests*."""
    from neuralbox_async.testing import FakeTransport  # not above: most runs do not need it

    transport = FakeTransport({"id": 1, "status": "completed", "content": "-"})
    async with AsyncNeuralBox(_KEY, transport=transport) as client:
        for request in requests:
            async with client.generate_many([request]) as batch:
                await batch.read_batch()
    return [request.json for request in transport.requests]


def _shortened(value: Any) -> Any:
    """Return the JSON *value* with long texts cut off."""
    if isinstance(value, dict):
        return {name: _shortened(member) for name, member in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return list(map(_shortened, cast("Iterable[Any]", value)))
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return f"{value[:_MAX_TEXT]}... ({len(value):,} characters)"
    return value
