"""Describe an image: ``python vision.py photo.jpg``, or an image on the web if there is no argument."""

import asyncio
import sys

from neuralbox_async import AsyncNeuralBox, ImagePart, Message, TextPart


async def main(path: str | None) -> None:
    """Print a description of the image in the file *path*."""
    # A file is sent inside the request, as a data: URL. For an image on the web, only the URL is sent.
    image = ImagePart.from_file(path) if path else ImagePart("https://example.com/image.jpg")
    question = Message("user", [image, TextPart("What is in this image?")])
    async with AsyncNeuralBox() as client:
        reply = await client.generate("gpt-5", [question])
    print(reply.content)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None))
