"""gevent: refused where it has patched threads, and two ways that work."""

import pytest

pytest.importorskip("gevent", reason="gevent is what is tested here")


def test_patched_threads(start):
    """In a process with patched threads a call is refused at once, with what to do instead, and nothing is started."""
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

        async def nothing():
            print("no other loop is held up")

        asyncio.run(nothing())
        for client in clients:
            client.close()
    """)
    ended = script.end()

    assert ["True", "True", "no other loop is held up"] == ended.lines
    assert (0, "") == (ended.status, ended.errors)


def test_patched_select(start):
    """The same where only `select` is patched: a loop would wait in a hub that does not run."""
    script = start("""
        from gevent import monkey; monkey.patch_all(thread=False, queue=False)
        from neuralbox_sync import NeuralBox

        try:
            NeuralBox().generate("gpt-5", "Hi", timeout=1)
        except RuntimeError as error:
            print("gevent" in str(error))
    """)
    ended = script.end()

    assert (0, ["True"], "") == (ended.status, ended.lines, ended.errors)


def test_threads_not_patched(start, neuralbox_server):
    """With threads, queues and select left alone, clients work in gevent's pool of threads, beside greenlets."""
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
    ended = script.end()

    assert ["{'You said: Hi'} True", "You said: one two", "0"] == ended.lines
    assert (0, "") == (ended.status, ended.errors)


def test_async_client_in_the_threadpool(start):
    """With everything patched, `AsyncNeuralBox` works in gevent's pool of threads, beside greenlets."""
    script = start("""
        from gevent import monkey; monkey.patch_all()
        import asyncio, gevent
        from neuralbox_async import AsyncNeuralBox

        async def ask(prompt):
            async with AsyncNeuralBox() as client:
                return (await client.generate("gpt-5", prompt)).content

        threads = gevent.get_hub().threadpool
        calls = [threads.spawn(asyncio.run, ask(str(number))) for number in range(8)]
        print([call.get() for call in calls] == [f"You said: {number}" for number in range(8)])
    """)
    ended = script.end()

    assert (0, ["True"], "") == (ended.status, ended.lines, ended.errors)
