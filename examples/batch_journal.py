"""
Generate a text for each line of a file, in any number of runs: ``python batch_journal.py PROMPTS JOURNAL > RESULTS``.

The journal records what is done. After a stop or a crash, run the same command again: it continues.
"""

import asyncio
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from neuralbox_async import AsyncNeuralBox, BatchProgress, BatchReport, read_journal


def show(progress: BatchProgress) -> None:
    """Print the progress."""
    waiting = f", waiting until {progress.waiting_until:%X}" if progress.waiting_until else ""
    print(f"{progress.completed + progress.skipped} done, {progress.failed} failed{waiting}", end="\r", file=sys.stderr)


async def main(prompts: Iterable[str], journal: str) -> BatchReport:
    """Generate a text for each of *prompts* that *journal* does not have as done."""
    requests = ({"key": f"line {number}", "prompt": prompt.strip()} for number, prompt in enumerate(prompts, 1))
    async with AsyncNeuralBox() as client:
        batch = client.generate_many(
            requests,
            model="gpt-5-nano",
            journal=journal,
            budget=10_000,
            on_progress=show if sys.stderr.isatty() else None,
        )
        async with batch as results:
            async for result in results:
                if result.error is not None:
                    print(f"{result.key}: {result.error} (billed: {result.error.billed})", file=sys.stderr)
    return batch.report


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as lines:
        report = asyncio.run(main(lines, sys.argv[2]))
    # The results of this run and of all earlier runs.
    for entry in read_journal(sys.argv[2]):
        if entry.event == "done" and entry.generation is not None:
            print(json.dumps({"key": entry.key, "content": entry.generation.content, "tokens_used": entry.tokens_used}))
    if report.stopped_by is not None:
        sys.exit(f"stopped: {report.stopped_by}")
    sys.exit(3 if report.failed else 0)
