"""Checks that an error contains no secret."""

import pickle
import traceback

from fault_server import answer, generation

from neuralbox_async import AsyncNeuralBox, NeuralBoxError, RetryPolicy

AT_ONCE = RetryPolicy(jitter=lambda _low, _high: 0.0)
CANARY = "nb_canary_7f3a9c"
PROMPT = "prompt_canary_51d2"
WHOLE = answer(generation())


def chain(error):
    """Return *error*, its causes and its contexts."""
    found, todo = [], [error]
    while todo:
        each = todo.pop()
        if each is not None and not any(each is other for other in found):
            found.append(each)
            todo += [each.__cause__, each.__context__]
    return found


def everything_of(error):
    """Return all texts that loggers, error trackers and queues make of *error*."""
    texts = []
    for each in chain(error):
        texts.append("".join(traceback.TracebackException.from_exception(each, capture_locals=True).format()))
        texts += [str(each), repr(each), repr(each.args), repr(vars(each)), *getattr(each, "__notes__", [])]
        texts += [repr(value) for value in vars(each).values()]
    return texts


def assert_discreet(error, *, secret=CANARY):
    """Nothing of *error* tells the secret."""
    telling = [text for text in everything_of(error) if secret in text]
    assert not telling, telling[0]
    if isinstance(error, NeuralBoxError):
        pickled = pickle.dumps(error)
        assert secret.encode() not in pickled
        assert str(error) == str(pickle.loads(pickled))


def new_client(url, **options):
    """Return a client with the canary for a key."""
    told = {"base_url": url, "retry_policy": AT_ONCE, "timeout": 5, **options}
    return AsyncNeuralBox(CANARY, **told)


async def failure_of(client, *, streamed=False, text=PROMPT):
    """Return the error of a call that fails."""
    async with client:
        try:
            if streamed:
                async with client.stream("gpt-5", text, recover=False) as stream:
                    await stream.get_final_generation()
            else:
                await client.generate("gpt-5", text)
        except NeuralBoxError as error:
            return error
    raise AssertionError
