"""
Helpers for web servers: a stream as server-sent events, and errors as HTTP responses.

`server_sent_events` yields the bytes of a response for the ``EventSource`` of a browser, and `problem` makes the
response for an error; both know no framework. `starlette_response`, `aiohttp_response` and `django_response` are the
whole response for one: they open the stream, choose the status, and close the stream when the browser leaves, also
before the first text. Each imports its framework when it is called. For blocking code: `neuralbox_sync.web`.
"""

from neuralbox_async.web._aiohttp import aiohttp_response
from neuralbox_async.web._django import django_response
from neuralbox_async.web._events import HEADERS, ServerSentEvents, server_sent_events
from neuralbox_async.web._problems import ProblemDetails, problem
from neuralbox_async.web._starlette import starlette_response

__all__ = [
    "HEADERS",
    "ProblemDetails",
    "ServerSentEvents",
    "aiohttp_response",
    "django_response",
    "problem",
    "server_sent_events",
    "starlette_response",
]
