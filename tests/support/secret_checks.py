"""Checks that an error contains no secret."""

import pickle
import traceback

from fault_server import generation, response

from neuralbox_async import AsyncNeuralBox, NeuralBoxError, RetryPolicy

NO_BACKOFF = RetryPolicy(jitter=lambda _low, _high: 0.0)
CANARY = "nb_canary_7f3a9c"
PROMPT = "prompt_canary_51d2"
COMPLETE = response(generation())


def chain(error):
    """Return *error*, its causes and its contexts."""
    errors, todo = [], [error]
    while todo:
        each = todo.pop()
        if each is not None and not any(each is other for other in errors):
            errors.append(each)
            todo += [each.__cause__, each.__context__]
    return errors


def texts_of(error):
    """Return all texts that loggers and error trackers make of *error*."""
    texts = []
    for each in chain(error):
        texts.append("".join(traceback.TracebackException.from_exception(each, capture_locals=True).format()))
        texts += [str(each), repr(each), repr(each.args), repr(vars(each)), *getattr(each, "__notes__", [])]
        texts += [repr(value) for value in vars(each).values()]
    return texts


def assert_no_secret(error, *, secret=CANARY):
    """Check that no text of *error*, and no pickle of it, has the secret."""
    leaks = [text for text in texts_of(error) if secret in text]
    assert not leaks, leaks[0]
    if isinstance(error, NeuralBoxError):
        pickled = pickle.dumps(error)
        assert secret.encode() not in pickled
        assert str(error) == str(pickle.loads(pickled))


def new_client(url, **options):
    """Return a client whose key is the canary."""
    options = {"base_url": url, "retry_policy": NO_BACKOFF, "timeout": 5, **options}
    return AsyncNeuralBox(CANARY, **options)


async def failure_of(client, *, streamed=False, recover=False, text=PROMPT):
    """Return the error of a call that fails."""
    async with client:
        try:
            if streamed:
                async with client.stream("gpt-5", text, recover=recover) as stream:
                    await stream.get_final_generation()
            else:
                await client.generate("gpt-5", text)
        except NeuralBoxError as error:
            return error
    raise AssertionError
