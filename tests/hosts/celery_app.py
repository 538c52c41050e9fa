"""A Celery application with one client for all tasks, used before the processes of the pool are forked."""

import json
import os

from celery import Celery

from neuralbox_sync import NeuralBox

client = NeuralBox()
app = Celery("celery_app")
app.conf.update(json.loads(os.environ["CELERY_SETTINGS"]))
client.generate("gpt-5", "before the fork")


@app.task
def generate(prompt):
    return client.generate("gpt-5", prompt).content


@app.task
def read(prompt):
    with client.stream("gpt-5", prompt) as stream:
        return "".join(stream.text_stream)


@app.task(soft_time_limit=0.3)
def generate_soon(prompt):
    return client.generate("gpt-5", prompt).content
