"""
A chat in the browser, with FastAPI: streaming, Stop, history, errors and cost.

``uvicorn --app-dir examples/fastapi_chat app:app``, then open http://127.0.0.1:8000.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Literal

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from neuralbox_async import AsyncNeuralBox, Message, NeuralBoxError
from neuralbox_async.web import problem, starlette_response

STATIC = Path(__file__).parent / "static"
# The page needs nothing from elsewhere, so a text of the model can load nothing either.
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff"}


class Turn(BaseModel):
    """A message of the conversation."""

    role: Literal["user", "assistant"]
    content: str = Field(pattern=r"\S", max_length=200_000)  # replies come back, and may be long


class Conversation(BaseModel):
    """All messages so far: the API keeps no history, and neither does this server."""

    messages: list[Turn] = Field(min_length=1, max_length=100)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    """Open one client when the application starts, and close it at the end. All requests share its connections."""
    # Only until the first text: whoever asks is waiting. A reply as a whole may take longer.
    async with AsyncNeuralBox(first_event_timeout=60) as client:
        app.state.client = client
        yield


def client_of(request: Request) -> AsyncNeuralBox:
    """Return the client of the application; tests replace it."""
    client: AsyncNeuralBox = request.app.state.client
    return client


app = FastAPI(lifespan=lifespan)
app.mount("/static", StaticFiles(directory=STATIC), name="static")


@app.get("/")
async def page() -> FileResponse:
    """Return the page."""
    return FileResponse(STATIC / "index.html", headers=PAGE_HEADERS)


@app.post("/chat")
async def chat(conversation: Conversation, client: Annotated[AsyncNeuralBox, Depends(client_of)]) -> Response:
    """Stream the next reply as server-sent events. Closing the connection ends the generation."""
    messages = [Message(turn.role, turn.content) for turn in conversation.messages]
    return starlette_response(client.stream("gpt-5", messages, system="You are a helpful assistant."))


@app.exception_handler(NeuralBoxError)
async def failed(_request: Request, error: NeuralBoxError) -> Response:
    """Return what strangers may know of an error before there is a stream, such as an invalid parameter."""
    answer = problem(error)
    return Response(answer.body, answer.status, answer.headers)
