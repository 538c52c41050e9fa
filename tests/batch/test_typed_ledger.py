"""The ledger of a typed batch whose process is killed: each try of each row is billed once."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from journals import entries, opened_and_closed
from typed_answers import prompt_in, text_for, tries_in

from neuralbox_async.testing import NeuralBoxServer

pytestmark = pytest.mark.usefixtures("no_task_left")

ROWS = 1000
WORKER = """
    import asyncio, sys
    import attrs
    from neuralbox_async import AsyncNeuralBox

    @attrs.frozen
    class Word:
        text: str
        length: int

    async def main(base_url, key, journal, count):
        # Each third row needs a repair, and each fifth one two, which is one too many.
        rows = ({"key": f"row {n}", "prompt": f"{n}-{(n % 3 == 0) + (n % 5 == 0)}"} for n in range(int(count)))
        async with AsyncNeuralBox(key, base_url=base_url) as client:
            async with client.generate_many(
                rows, model="gpt-5-nano", journal=journal, output_type=Word, include_done=True, budget=1_000_000
            ) as results:
                async for result in results:
                    kind = "value" if result.error is None else type(result.error).__name__
                    print(result.key, kind, result.value and result.value.text, sep=":")

    asyncio.run(main(*sys.argv[1:]))
"""


def reply(request):
    """Return the text for *request*, whose conversation has an invalid one for each try before."""
    return text_for(request)


@pytest.mark.slow
@pytest.mark.process
def test_killed_and_resumed(journal, start):
    """Killed at any moment and run again, 1,000 typed rows have their values, and no try of any row is billed twice."""
    rng = random.Random()
    with NeuralBoxServer(latency=0.002, reply=reply) as server:
        size = 0
        for _ in range(2):
            worker = start(WORKER, server.base_url, server.api_key, journal, ROWS)
            target = size + rng.randrange(50_000, 150_000)
            server.wait_until(
                lambda t=target, w=worker: w.poll() is not None or (journal.exists() and journal.stat().st_size >= t),
                timeout=60,
            )
            worker.kill()
            worker.wait()
            size = journal.stat().st_size
        worker = start(WORKER, server.base_url, server.api_key, journal, ROWS)
        output, _ = worker.communicate(timeout=60)
        assert 0 == worker.returncode
        requests = (server.requests[bill.request_index].json for bill in server.billed)
        billed = Counter((prompt_in(request), tries_in(request)) for request in requests)

    assert {1} == set(billed.values())
    outcomes = dict(line.split(":", 1) for line in output.splitlines())
    assert {f"row {number}" for number in range(ROWS)} == set(outcomes)
    unknown = 0
    for number in range(ROWS):
        needed = (number % 3 == 0) + (number % 5 == 0)
        tries = sum(billed[f"{number}-{needed}", tried] for tried in range(3))
        if outcomes[f"row {number}"].startswith("OutcomeUnknownError"):
            unknown += 1  # its last try was in flight: billed or not, it was not sent again
            continue
        expected = f"value:{number}" if needed < 2 else "ParsingError:None"
        assert (expected, min(needed + 1, 2)) == (outcomes[f"row {number}"], tries)
    assert unknown <= 2 * 64
    recorded = len(entries(journal, "done")) + len(entries(journal, "invalid"))
    assert recorded == opened_and_closed(journal).spent
    assert recorded <= len(billed) <= recorded + unknown
