"""A Flask application with one client, as a user would write it."""

import os

from flask import Flask, Response, request

from neuralbox_sync import NeuralBox

client = NeuralBox()
app = Flask(__name__)

if "USED_BEFORE" in os.environ:
    client.generate("gpt-5", "before the fork")


@app.post("/generate")
def generate():
    reply = client.generate("gpt-5", request.get_data(as_text=True))
    return {"content": reply.content, "worker": os.getpid()}


@app.post("/stream")
def stream():
    prompt = request.get_data(as_text=True)

    def pieces():
        with client.stream("gpt-5", prompt) as stream:
            yield from stream.text_stream

    return Response(pieces(), mimetype="text/plain")
