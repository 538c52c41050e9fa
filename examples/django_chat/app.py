"""
A Django project in one file whose async view streams a reply to the ``EventSource`` of a browser.

``DJANGO_SECRET_KEY=... uvicorn --app-dir examples/django_chat app:application``, then
``curl --no-buffer 'http://127.0.0.1:8000/chat?prompt=Hi'``.
"""

# Django has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false

import os
from typing import Any

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from django.views.decorators.http import require_GET

from neuralbox_async import AsyncNeuralBox
from neuralbox_async.web import django_response

settings.configure(
    SECRET_KEY=os.environ["DJANGO_SECRET_KEY"],
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    # All of these are async: a middleware that is not would hide from the view that the browser has left.
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"],
)

# It opens its connections with the first call, in the event loop of the server.
client = AsyncNeuralBox(first_event_timeout=60)


@require_GET  # type: ignore[untyped-decorator]
async def chat(request: Any) -> Any:
    """Stream the reply to a prompt. An error before the first text is a status."""
    prompt = request.GET.get("prompt", "").strip()
    if not prompt:
        return HttpResponse(b"A prompt is missing.", status=400, content_type="text/plain")
    return await django_response(request, client.stream("gpt-5", prompt))


urlpatterns = [path("chat", chat)]
django_application = get_asgi_application()


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Serve requests, and close the client when the server stops: Django has no hook for that, ASGI has."""
    if scope["type"] != "lifespan":
        await django_application(scope, receive, send)
        return
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await client.aclose()
    await send({"type": "lifespan.shutdown.complete"})
