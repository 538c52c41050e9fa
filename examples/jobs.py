"""Start a generation that takes its time, and collect it later: by its id, also from another process."""

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
        # What has to survive this process is the id: keep it, and give it to wait() or retrieve() then.
        try:
            done = await client.wait(job.id, timeout=300, poll_interval=5)
        except GenerationFailedError as error:
            print(f"failed, and not billed: {error.reason}")
            return 1
        except WaitTimeoutError as error:
            print(f"still {error.generation.status}; ask again for {error.generation_id}")
            return 1
    print(f"generation {done.id} is {done.status}: {done.content}")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "gpt-5")))
