"""A batch needs no more memory for many requests than for few."""

from __future__ import annotations

import pytest

PROGRAM = """
    import asyncio, gc, json, os, sys
    import psutil
    from neuralbox_async import AsyncNeuralBox
    from neuralbox_async.testing import FakeResponse

    BODY = json.dumps({"id": "gen_1", "content": "word " * 100, "tokens_used": 1}).encode()

    class Transport:
        async def send(self, *request):
            await asyncio.sleep(0)
            return FakeResponse(BODY)

        async def aclose(self):
            pass

    def memory():
        gc.collect()
        return psutil.Process().memory_info().rss

    async def main(count, journal):
        async with AsyncNeuralBox("key", transport=Transport()) as client:
            await asyncio.gather(*(client.generate("m", "warm up") for _ in range(300)))
            before = memory()
            prompts = (f"{number} " + "x" * 500 for number in range(count))
            seen = most = 0
            batch = client.generate_many(prompts, model="m", max_concurrency=256, journal=journal or None)
            async with batch as results:
                async for result in results:
                    seen += 1
                    if seen % (count // 10) == 0:
                        most = max(most, memory() - before)
        print(seen, most)

    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("journal, bound", [("", 8), ("run.jsonl", 14)])
def test_memory_is_flat(start, tmp_path, journal, bound):
    """After 50,000 requests no memory is in use for them, but some 20 bytes for each key of a journal."""
    process = start(PROGRAM, 50_000 if not journal else 20_000, journal and tmp_path / journal)
    seen, most = map(int, process.communicate()[0].split())

    assert seen >= 20_000
    assert most < bound * 2**20
