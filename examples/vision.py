"""Ask about a picture: ``python vision.py photo.jpg``, or without a file about a picture on the web."""

import asyncio
import sys

from neuralbox_async import AsyncNeuralBox, ImagePart, Message, TextPart


async def main(path: str | None) -> None:
    """Describe the picture in the file *path*."""
    # A file goes into the request, as a data: URL; of a picture on the web only its URL is sent.
    picture = ImagePart.from_file(path) if path else ImagePart("https://example.com/image.jpg")
    question = Message("user", [picture, TextPart("What is in this picture?")])
    async with AsyncNeuralBox() as client:
        reply = await client.generate("gpt-5", [question])
    print(reply.content)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
