"""Start a generation that the API completes later, and get it by its id, which works from another process as well."""

import asyncio
import sys

from neuralbox_async import AsyncNeuralBox, GenerationFailedError, WaitTimeoutError


async def main(model: str) -> int:
    """Start one generation with *model*, wait for it, and return an exit status."""
    async with AsyncNeuralBox() as client:
        job = await client.generate(model, "Write a long report")
        print(f"generation {job.id} is {job.status}")
        if job.id is None or job.finished:
            print(job.content)
            return 0
        # Store the id if another process is to get the generation: pass it to wait() or retrieve() there.
        try:
            done = await client.wait(job.id, timeout=300, poll_interval=5)
        except GenerationFailedError as error:
            print(f"failed, not billed: {error.reason}")
            return 1
        except WaitTimeoutError as error:
            status = error.generation.status if error.generation else "unfinished"
            print(f"still {status}; try again later with {error.generation_id}")
            return 1
    print(f"generation {done.id} is {done.status}: {done.content}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "gpt-5")))
