"""Generate a text, and print it with its cost."""

import asyncio

from neuralbox_async import AsyncNeuralBox


async def main() -> None:
    """Make one call."""
    async with AsyncNeuralBox() as client:
        reply = await client.generate(
            "claude-sonnet-4.5", "Write a haiku about rivers", system="Be brief.", temperature=0.5, max_tokens=100
        )
    print(reply.content)
    print(f"{reply.tokens_used} tokens used, {reply.balance_remaining} left, generation {reply.id}")


if __name__ == "__main__":
    asyncio.run(main())
