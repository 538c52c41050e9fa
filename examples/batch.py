"""Generate for each line of a file, many at a time, and print one line of JSON for each: ``python batch.py FILE``."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import anyio

from neuralbox_async import AsyncNeuralBox, AuthenticationError, InsufficientTokensError, NeuralBoxError

CONCURRENCY = 50


async def main(prompts: Iterable[str]) -> None:
    """Generate a text for each of *prompts*."""
    slots = anyio.Semaphore(CONCURRENCY)
    hopeless = anyio.Event()  # the next prompt would fail as this one did

    async def work(number: int, prompt: str) -> None:
        try:
            reply = await client.generate("gpt-5-nano", prompt)
            result = {"number": number, "content": reply.content, "tokens_used": reply.tokens_used}
        except NeuralBoxError as error:
            if isinstance(error, AuthenticationError | InsufficientTokensError):
                hopeless.set()
            result = {"number": number, "error": str(error), "billed": error.billed}
        finally:
            slots.release()
        print(json.dumps(result), flush=True)

    async with AsyncNeuralBox() as client, anyio.create_task_group() as tasks:
        for number, prompt in enumerate(prompts):
            # Taken before the task is made: a million prompts are never a million tasks.
            await slots.acquire()
            if hopeless.is_set():
                break
            tasks.start_soon(work, number, prompt.strip())


if __name__ == "__main__":
    with Path(sys.argv[1]).open(encoding="utf-8") as lines:
        anyio.run(main, lines)
