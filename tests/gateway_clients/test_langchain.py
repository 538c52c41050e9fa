"""LangChain's chat model for OpenAI's interface."""

from __future__ import annotations

import pytest

langchain = pytest.importorskip("langchain_openai")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")


class Person(pydantic.BaseModel):
    """A person."""

    name: str
    age: int


ADA = '{"name": "Ada", "age": 36}'


@pytest.fixture
def chat(site):
    """A chat model."""
    return langchain.ChatOpenAI(model="gpt-5-nano", base_url=site.url, api_key="none", timeout=60, stream_usage=True)


def test_langchain(chat):
    """LangChain's chat model gets texts, with the usage."""
    message = chat.invoke([("system", "Be brief"), ("human", "Hi")])

    assert "You said: Hi" == message.content
    assert message.usage_metadata["total_tokens"] > 0
    assert "stop" == message.response_metadata["finish_reason"]


def test_langchain_stream(chat):
    """LangChain's chat model streams, with the usage."""
    whole = None
    for chunk in chat.stream("Hi"):
        whole = chunk if whole is None else whole + chunk

    assert "You said: Hi" == whole.content
    assert whole.usage_metadata["total_tokens"] > 0


async def test_langchain_async(site):
    """LangChain's chat model is used from async code, in batches too."""
    async with httpx.AsyncClient() as client:
        chat = langchain.ChatOpenAI(model="gpt-5-nano", base_url=site.url, api_key="none", http_async_client=client)
        messages = await chat.abatch(["Hi", "Hello"])

    assert ["You said: Hi", "You said: Hello"] == [message.content for message in messages]


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_langchain_structured_output(chat, site, method):
    """LangChain's structured output is a value of a pydantic model."""
    site.server.reply_with(f"Here you are: {ADA}")

    assert Person(name="Ada", age=36) == chat.with_structured_output(Person, method=method).invoke("Who, in JSON?")


def test_langchain_tools(chat):
    """LangChain's tools are refused with the reason."""
    with pytest.raises(openai.BadRequestError, match="no tools"):
        chat.bind_tools([Person]).invoke("Hi")
