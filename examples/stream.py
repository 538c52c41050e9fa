"""Print a text while it is generated, then every event of another stream."""

import asyncio

from neuralbox_async import AsyncNeuralBox, ContentDelta, GenerationEnd, GenerationStart, StreamInterruptedError


async def main() -> None:
    """Read one stream as text and one as events."""
    async with AsyncNeuralBox() as client:
        async with client.stream("gpt-5", "Tell a story about a lighthouse") as stream:
            try:
                async for text in stream.text_stream:
                    print(text, end="", flush=True)
            except StreamInterruptedError as error:
                # All text that arrived has been printed; `error.text` has it, too.
                print(f"... ({error}; billed: {error.billed})", end="")
        print(f"\n{stream.generation.status}: {stream.generation.tokens_used} tokens used")

        async with client.stream("gpt-5", "Count to three") as stream:
            async for event in stream:
                match event:
                    case GenerationStart(id=generation_id):
                        print(f"generation {generation_id} started")
                    case ContentDelta(delta=text):
                        print(f"text {text!r}")
                    case GenerationEnd(balance_remaining=balance):
                        print(f"complete, {balance} tokens left")
                    case _:
                        print(f"an event of the unknown type {event.type!r}")


if __name__ == "__main__":
    asyncio.run(main())
