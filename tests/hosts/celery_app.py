"""A Celery application with one client for all its tasks, used before the pool's processes are forked."""

import os

from celery import Celery

from neuralbox_sync import NeuralBox

FOLDER = os.environ["CELERY_FOLDER"]

client = NeuralBox()
app = Celery("celery_app", broker="filesystem://", backend=f"file://{FOLDER}/results")
app.conf.update(
    accept_content=["json", "pickle"],
    result_serializer="pickle",
    broker_transport_options={
        "data_folder_in": f"{FOLDER}/queue",
        "data_folder_out": f"{FOLDER}/queue",
        "control_folder": f"{FOLDER}/control",
        "polling_interval": 0.02,
    },
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
before = client.generate("gpt-5", "before the fork").content


@app.task
def generate(prompt):
    """Return the answer and which process gave it."""
    return client.generate("gpt-5", prompt).content, os.getpid()


@app.task
def read(prompt):
    """Return the streamed answer."""
    with client.stream("gpt-5", prompt) as stream:
        return "".join(stream.text)


@app.task(serializer="json")
def generate_with_json(prompt):
    """Do the same as `generate`."""
    return client.generate("gpt-5", prompt).content


@app.task(soft_time_limit=0.5)
def generate_soon(prompt):
    """Do the same, if it does not take long."""
    return client.generate("gpt-5", prompt).content
