"""Generate a text for each line of a file, many at a time, and print each result as JSON: ``python batch.py FILE``."""

import asyncio
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from neuralbox_async import AsyncNeuralBox, BatchResult


def line_of(result: BatchResult) -> str:
    """Return *result* as JSON: its text or its error, and the tokens billed (null if that is unknown)."""
    if result.generation is None:
        return json.dumps({"number": result.index, "error": str(result.error), "tokens_used": result.tokens_used})
    return json.dumps({"number": result.index, "content": result.generation.content, "tokens_used": result.tokens_used})


async def main(prompts: Iterable[str]) -> None:
    """Generate a text for each of *prompts*, which are read only as far as needed."""
    async with AsyncNeuralBox() as client:
        batch = client.generate_many((prompt.strip() for prompt in prompts), model="gpt-5-nano", max_concurrency=50)
        async with batch as results:
            async for result in results:
                print(line_of(result), flush=True)
    if batch.report.stopped_by is not None:
        sys.exit(f"stopped: {batch.report.stopped_by}")


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as lines:
        asyncio.run(main(lines))
