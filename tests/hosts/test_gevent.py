"""gevent: an error where it has patched threads, and two ways that work."""

import pytest

pytest.importorskip("gevent", reason="tests gevent")


def test_patched_threads(start):
    """A call in a process with patched threads raises at once, with advice, and starts nothing."""
    script = start("""
        from gevent import monkey; monkey.patch_all()
        import asyncio, gevent
        from neuralbox_sync import NeuralBox

        clients = [NeuralBox(), NeuralBox()]
        for client in clients:
            try:
                client.generate("gpt-5", "Hi")
            except RuntimeError as error:
                print(all(word in str(error) for word in ("gevent", "select=False", "threadpool")))

        async def main():
            print("other loops run")

        asyncio.run(main())
        for client in clients:
            client.close()
    """)
    result = script.end()

    assert ["True", "True", "other loops run"] == result.lines
    assert (0, "") == (result.status, result.errors)


def test_patched_select(start):
    """A call raises if only `select` is patched: a loop would wait in a hub that does not run."""
    script = start("""
        from gevent import monkey; monkey.patch_all(thread=False, queue=False)
        from neuralbox_sync import NeuralBox

        try:
            NeuralBox().generate("gpt-5", "Hi", timeout=1)
        except RuntimeError as error:
            print("gevent" in str(error))
    """)
    result = script.end()

    assert (0, ["True"], "") == (result.status, result.lines, result.errors)


def test_threads_not_patched(start, neuralbox_server):
    """Clients work in gevent's thread pool, beside greenlets, if threads, queues and select are not patched."""
    script = start(
        """
        from gevent import monkey; monkey.patch_all(thread=False, queue=False, select=False)
        import os, signal
        import gevent
        from neuralbox_sync import NeuralBox

        first, second = NeuralBox(), NeuralBox()
        threads = gevent.get_hub().threadpool
        ticks = []

        def tick():
            while True:
                ticks.append(1)
                gevent.sleep(0.01)

        ticking = gevent.spawn(tick)
        calls = [threads.spawn(client.generate, "gpt-5", "Hi") for client in (first, second) * 4]
        print({call.get().content for call in calls}, len(ticks) > 3)
        ticking.kill()
        with first.stream("gpt-5", "one two") as stream:
            print("".join(stream.text_stream))
        pid = os.fork()
        if not pid:
            assert first.generate("gpt-5", "child").content == "You said: child"
            os._exit(0)
        print(os.waitpid(pid, 0)[1])
        first.close()
        second.close()
        """,
        *("-W", "ignore::DeprecationWarning"),
    )
    neuralbox_server.delay(0.1, times=8)
    result = script.end()

    assert ["{'You said: Hi'} True", "You said: one two", "0"] == result.lines
    assert (0, "") == (result.status, result.errors)


def test_async_client_in_the_threadpool(start):
    """`AsyncNeuralBox` works in gevent's thread pool, beside greenlets, if everything is patched."""
    script = start("""
        from gevent import monkey; monkey.patch_all()
        import asyncio, gevent
        from neuralbox_async import AsyncNeuralBox

        async def generate(prompt):
            async with AsyncNeuralBox() as client:
                return (await client.generate("gpt-5", prompt)).content

        threads = gevent.get_hub().threadpool
        calls = [threads.spawn(asyncio.run, generate(str(number))) for number in range(8)]
        print([call.get() for call in calls] == [f"You said: {number}" for number in range(8)])
    """)
    result = script.end()

    assert (0, ["True"], "") == (result.status, result.lines, result.errors)
