"""
A Flask application that streams a reply to the ``EventSource`` of a browser, and returns whole texts.

``gunicorn --chdir examples/flask_chat --worker-class gthread --threads 32 app:app``, then
``curl --no-buffer 'http://127.0.0.1:8000/chat?prompt=Hi'``. Each stream occupies a thread.
"""

from flask import Flask, Response, request

from neuralbox_sync import NeuralBox, NeuralBoxError
from neuralbox_sync.web import flask_response, problem

# One for the process, also if gunicorn loads the application before it forks (--preload).
client = NeuralBox(first_event_timeout=60)
app = Flask(__name__)


@app.get("/chat")
def chat() -> Response:
    """Stream the reply to a prompt. An error before the first text is a status."""
    return flask_response(client.stream("gpt-5", request.args["prompt"]))


@app.post("/summaries")
def summarise() -> dict[str, object]:
    """Return a summary of the text in the body, and its cost."""
    reply = client.generate("claude-haiku-4.5", f"Summarise: {request.get_data(as_text=True)}", max_tokens=200)
    return {"summary": reply.content, "tokens_used": reply.tokens_used}


@app.errorhandler(NeuralBoxError)
def failed(error: NeuralBoxError) -> Response:
    """Log what happened, and return what strangers may know of it."""
    app.logger.warning("%s (billed: %s)", error, error.billed)
    answer = problem(error)
    return Response(answer.body, answer.status, answer.headers)
