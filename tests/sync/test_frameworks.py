"""Clients under what changes how threads and event loops work: trio, uvloop's policy."""

import pytest


def outcome(start, code):
    """Run *code* in a script, which must end well and say nothing; return the lines that it prints."""
    ended = start(code, "-W", "ignore::DeprecationWarning").end()
    assert (0, "") == (ended.status, ended.errors)
    return ended.lines


@pytest.mark.neuralbox_server(latency=0.1)
@pytest.mark.parametrize("run", ["trio.run(main)", "anyio.run(main, backend='trio')"])
def test_trio(start, run):
    """Under trio a call works, and one in a worker thread obeys the scope around it."""
    pytest.importorskip("trio")
    lines = outcome(
        start,
        f"""
        import anyio, trio
        from neuralbox_sync import NeuralBox

        async def main():
            with NeuralBox() as client:
                print(client.generate("gpt-5", "Hi").content)
                with anyio.move_on_after(0.1) as scope:
                    await anyio.to_thread.run_sync(client._loop.call, lambda: anyio.sleep(30))
                print(scope.cancelled_caught)

        {run}
        """,
    )

    assert ["You said: Hi", "True"] == lines


def test_uvloop(start):
    """A policy that makes other event loops changes nothing."""
    pytest.importorskip("uvloop")
    lines = outcome(
        start,
        """
        import asyncio, uvloop
        from neuralbox_sync import NeuralBox

        async def main():
            with NeuralBox() as client:
                print(client.generate("gpt-5", "Hi").content)

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
        asyncio.run(main())
        """,
    )

    assert ["You said: Hi"] == lines
