"""A Celery worker with a prefork pool runs tasks whose client was made and used before the fork."""

import json
import signal

import pytest

from neuralbox_async import APIConnectionError, InsufficientTokensError, RateLimitError
from neuralbox_async.testing import NeuralBoxServer

celery = pytest.importorskip("celery", reason="tests Celery")
exceptions = pytest.importorskip("celery.exceptions")

WORKER = ("worker", "--pool", "prefork", "--concurrency", "2", "--loglevel", "ERROR")
QUIETLY = ("--without-gossip", "--without-mingle", "--without-heartbeat")


class Worker:
    """A running Celery worker, an application that sends tasks to it, and the local server."""

    def __init__(self, launch, folder, server):
        self.server = server
        self._queue, self._outbox = _folder(folder / "queue"), _folder(folder / "written")
        self._app = celery.Celery("tests", set_as_current=False)
        self._app.conf.update(self._settings(folder, self._outbox))
        settings = json.dumps(self._settings(folder, self._queue))
        self.host = launch(
            server,
            # The tests may run as root.
            *("-W", "ignore:You're running the worker with superuser", "-m", "celery", "-A", "celery_app"),
            *WORKER,
            *QUIETLY,
            env={"CELERY_SETTINGS": settings},
        )

    def _settings(self, folder, out):
        return {
            "broker_url": "filesystem://",
            "result_backend": f"file://{_folder(folder / 'results')}",
            "broker_transport_options": {
                "data_folder_in": str(self._queue),
                "data_folder_out": str(out),
                "control_folder": str(_folder(folder / "control")),
                "polling_interval": 0.02,
            },
            "result_serializer": "pickle",
            "result_accept_content": ["pickle"],
        }

    def send(self, task, prompt):
        """Send a task to the worker; return a function that waits for its result."""
        sent = self._app.send_task(f"celery_app.{task}", [prompt])
        # The transport does not write atomically: a message that is read while it is written is lost.
        for message in self._outbox.iterdir():
            message.rename(self._queue / message.name)
        return lambda: sent.get(timeout=30, interval=0.02)


def _folder(path):
    path.mkdir(exist_ok=True)
    return path


@pytest.fixture(scope="module")
def shared_worker(launch, tmp_path_factory):
    """A worker for all tests."""
    with NeuralBoxServer(event_interval=0.002, stop_on_disconnect=True) as server:
        yield Worker(launch, tmp_path_factory.mktemp("celery"), server)


@pytest.fixture
def worker(shared_worker):
    """The same, with a reset server."""
    assert "You said: warm up" == shared_worker.send("generate", "warm up")()
    shared_worker.server.reset()
    return shared_worker


def test_results(worker):
    """Tasks in all processes of the pool call and stream, and each gets its own reply."""
    prompts = [f"prompt {number}" for number in range(16)]
    worker.server.delay(0.02, times=16)
    waits = [worker.send(("generate", "read")[number % 2], prompt) for number, prompt in enumerate(prompts)]

    assert [f"You said: {prompt}" for prompt in prompts] == [wait() for wait in waits]
    assert 16 == len(worker.server.billed)
    assert 2 == worker.server.peak_in_flight  # one of each process


def test_errors(worker):
    """An error of the SDK reaches the sender of the task with its facts."""
    worker.server.balance = 0
    with pytest.raises(InsufficientTokensError) as caught:
        worker.send("generate", "too expensive")()
    assert (402, "no") == (caught.value.status_code, caught.value.billed)

    worker.server.balance = 100
    worker.server.fail(429, retry_after=847)
    with pytest.raises(RateLimitError) as caught:
        worker.send("read", "too often")()
    assert 847 == caught.value.retry_after


def test_json_loses_facts():
    """Celery's default result serializer loses the facts of an error, or its type."""
    backend = celery.Celery("tests", set_as_current=False, backend="cache+memory://").backend
    unknown = APIConnectionError("lost", request_sent=True)
    assert "unknown" == unknown.billed

    lost = backend.exception_to_python(json.loads(json.dumps(backend.prepare_exception(unknown, "json"))))
    limited = RateLimitError("slow down", status_code=429, retry_after=847)
    other = backend.exception_to_python(json.loads(json.dumps(backend.prepare_exception(limited, "json"))))

    assert not isinstance(other, RateLimitError) or other.retry_after is None
    assert not isinstance(lost, APIConnectionError) or "unknown" != lost.billed


def test_soft_time_limit(worker):
    """A task that exceeds its time limit cancels its call, on the server as well; the next task runs."""
    worker.server.delay(30)

    with pytest.raises(exceptions.SoftTimeLimitExceeded):
        worker.send("generate_soon", "slow")()

    worker.server.wait_for_disconnect()
    waits = [worker.send("generate_soon", f"next {number}") for number in range(4)]
    assert [f"You said: next {number}" for number in range(4)] == [wait() for wait in waits]


def test_warm_shutdown(launch, tmp_path):
    """A worker that is stopped finishes its task and ends without a warning."""
    with NeuralBoxServer() as server:
        worker = Worker(launch, tmp_path, server)
        worker.send("generate", "warm up")()
        server.reset()
        server.delay(0.3)
        wait = worker.send("generate", "last")
        server.wait_until(lambda: len(server.requests) == 1)
        worker.host.send(signal.SIGTERM)

        assert "You said: last" == wait()
        result = worker.host.end()
        assert (0, "") == (result.status, result.errors)
        server.wait_until(lambda: server.connections == 0)
