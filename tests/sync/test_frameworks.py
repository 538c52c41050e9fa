"""Clients under trio and under uvloop's event loop policy."""

import pytest


def run(start, code):
    """Run *code* in a script, which must succeed without a warning; return the lines that it prints."""
    result = start(code, "-W", "ignore::DeprecationWarning").end()
    assert (0, "") == (result.status, result.errors)
    return result.lines


@pytest.mark.neuralbox_server(latency=0.1)
@pytest.mark.parametrize("run_main", ["trio.run(main)", "anyio.run(main, backend='trio')"])
def test_trio(start, run_main):
    """A call works under trio, and one in a worker thread is cancelled by the scope around it."""
    pytest.importorskip("trio")
    lines = run(
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

        {run_main}
        """,
    )

    assert ["You said: Hi", "True"] == lines


def test_uvloop(start):
    """A client works under a policy that makes uvloop's event loops."""
    pytest.importorskip("uvloop")
    lines = run(
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
