"""
A process that is stopped while it waits for a response: run with the arguments of one call as JSON.

It writes the text of the generation, or the type, phase and billing status of the error.
"""

import asyncio
import json
import ssl
import sys

from neuralbox_async import AsyncNeuralBox, NeuralBoxError, preload
from neuralbox_sync import NeuralBox


async def generate(client):
    return (await client.generate("gpt-5", "Hi")).content


async def stream(client):
    async with client.stream("gpt-5", "Hi", recover=False) as opened:
        return (await opened.get_final_generation()).content


async def wait(client):
    return (await client.wait("gen_1", poll_interval=0.1)).content


def call_blocking(options):
    with NeuralBox("nb_test_key", **options) as client:
        return client.generate("gpt-5", "Hi").content


async def call(name, options):
    async with AsyncNeuralBox("nb_test_key", **options) as client:
        return await globals()[name](client)


def main():
    arguments = json.loads(sys.argv[1])
    preload()
    options = {"base_url": arguments["url"], "timeout": 5, **arguments["options"]}
    if arguments["authority"]:
        options["ssl_context"] = ssl.create_default_context(cadata=arguments["authority"])
    try:
        if arguments["call"] == "blocking":
            text = call_blocking(options)
        elif arguments["loop"] == "uvloop":
            import uvloop

            text = uvloop.run(call(arguments["call"], options))
        else:
            text = asyncio.run(call(arguments["call"], options))
        sys.stdout.write(json.dumps({"text": text}))
    except NeuralBoxError as error:
        facts = {"error": type(error).__name__, "billed": error.billed, "message": str(error)}
        sys.stdout.write(json.dumps(facts))


if __name__ == "__main__":
    main()
