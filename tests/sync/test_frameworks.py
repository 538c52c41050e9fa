"""Clients under what changes how threads and event loops work: gevent, trio, uvloop's policy."""

import pytest


def outcome(start, code):
    """Run *code* in a script, which must end well and say nothing; return the lines that it prints."""
    ended = start(code, "-W", "ignore::DeprecationWarning").end()
    assert (0, "") == (ended.status, ended.errors)
    return ended.lines


@pytest.mark.neuralbox_server(latency=0.1)
def test_gevent(start, neuralbox_server):
    """Under gevent one client serves any number of greenlets at a time; a second one is refused."""
    pytest.importorskip("gevent")
    lines = outcome(
        start,
        """
        from gevent import monkey; monkey.patch_all()
        import gevent
        from neuralbox_sync import NeuralBox

        with NeuralBox() as client:
            greenlets = [gevent.spawn(client.generate, "gpt-5", "Hi") for _ in range(20)]
            gevent.joinall(greenlets)
            print({greenlet.value.content for greenlet in greenlets})
            with client.with_options(timeout=5).stream("gpt-5", "one two") as stream:
                print(stream.until_done().content)
            try:
                NeuralBox().generate("gpt-5", "Hi")
            except RuntimeError as error:
                print("gevent" in str(error))
        """,
    )

    assert ["{'You said: Hi'}", "You said: one two", "True"] == lines
    assert neuralbox_server.peak_in_flight > 10


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
