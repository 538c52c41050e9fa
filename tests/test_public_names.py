"""
The public names: those of openai, anthropic and httpx for the same thing, or a difference with a reason.

The names of the other libraries are written here, because none of them is a dependency.
"""

from __future__ import annotations

import re
import types

import attrs
import pytest
from public_names import resolve

import neuralbox_async
import neuralbox_sync


@attrs.frozen
class Row:
    """
    One thing with *ours*, the name that we have for it, and the names that other libraries have.

    A name is that of a class or function (``NOT_GIVEN``), of a method or attribute (``AsyncStream.aclose``), or of a
    parameter (``AsyncNeuralBox(timeout)``). *reason*: why ours is another name than any of theirs.
    """

    ours: str
    openai: str | None = None
    anthropic: str | None = None
    httpx: str | None = None
    reason: str | None = None

    @property
    def theirs(self):
        return [name for name in (self.openai, self.anthropic, self.httpx) if name is not None]


SAME = [
    # Clients.
    Row("AsyncNeuralBox", "AsyncOpenAI", "AsyncAnthropic"),
    Row("neuralbox_sync.NeuralBox", "OpenAI", "Anthropic"),
    Row("AsyncNeuralBox.with_options", "AsyncOpenAI.with_options", "AsyncAnthropic.with_options"),
    Row("AsyncNeuralBox.stream", None, "AsyncMessages.stream", "AsyncClient.stream"),
    Row("AsyncNeuralBox.list_generations(limit)", "AsyncCompletions.list(limit)", "AsyncBatches.list(limit)"),
    Row("AsyncNeuralBox.parse", "AsyncCompletions.parse", "AsyncMessages.parse"),
    Row("AsyncNeuralBox.retrieve", "AsyncResponses.retrieve", "AsyncBatches.retrieve"),
    Row("neuralbox_sync.NeuralBox.close", "OpenAI.close", "Anthropic.close", "Client.close"),
    Row("neuralbox_sync.Stream.close", "Stream.close", "Stream.close", "Response.close"),
    # Options of clients and calls.
    Row("AsyncNeuralBox(api_key)", "AsyncOpenAI(api_key)", "AsyncAnthropic(api_key)"),
    Row("AsyncNeuralBox(base_url)", "AsyncOpenAI(base_url)", "AsyncAnthropic(base_url)", "AsyncClient(base_url)"),
    Row("AsyncNeuralBox(timeout)", "AsyncOpenAI(timeout)", "AsyncAnthropic(timeout)", "AsyncClient(timeout)"),
    Row("AsyncNeuralBox(max_retries)", "AsyncOpenAI(max_retries)", "AsyncAnthropic(max_retries)"),
    Row("AsyncNeuralBox(default_headers)", "AsyncOpenAI(default_headers)", "AsyncAnthropic(default_headers)"),
    Row("AsyncNeuralBox(transport)", None, None, "AsyncClient(transport)"),
    Row("AsyncNeuralBox(proxy)", None, None, "AsyncClient(proxy)"),
    Row("AsyncNeuralBox(trust_env)", None, None, "AsyncClient(trust_env)"),
    Row("AsyncNeuralBox(max_connections)", None, None, "Limits(max_connections)"),
    Row("AsyncNeuralBox.with_options(timeout)", "AsyncOpenAI.with_options(timeout)"),
    Row("AsyncNeuralBox.with_options(max_retries)", "AsyncOpenAI.with_options(max_retries)"),
    Row("AsyncNeuralBox.generate(model)", "AsyncCompletions.create(model)", "AsyncMessages.create(model)"),
    Row("AsyncNeuralBox.generate(messages)", "AsyncCompletions.create(messages)", "AsyncMessages.create(messages)"),
    Row("AsyncNeuralBox.generate(system)", None, "AsyncMessages.create(system)"),
    Row(
        "AsyncNeuralBox.generate(temperature)",
        "AsyncCompletions.create(temperature)",
        "AsyncMessages.create(temperature)",
    ),
    Row(
        "AsyncNeuralBox.generate(max_tokens)", "AsyncCompletions.create(max_tokens)", "AsyncMessages.create(max_tokens)"
    ),
    Row("AsyncNeuralBox.generate(timeout)", "AsyncCompletions.create(timeout)", "AsyncMessages.create(timeout)"),
    Row(
        "AsyncNeuralBox.generate(extra_headers)",
        "AsyncCompletions.create(extra_headers)",
        "AsyncMessages.create(extra_headers)",
    ),
    Row(
        "AsyncNeuralBox.generate(extra_body)", "AsyncCompletions.create(extra_body)", "AsyncMessages.create(extra_body)"
    ),
    Row(
        "AsyncNeuralBox.generate(idempotency_key)",
        "FinalRequestOptions(idempotency_key)",
        "FinalRequestOptions(idempotency_key)",
    ),
    Row("NOT_GIVEN", "NOT_GIVEN", "NOT_GIVEN"),
    Row("NotGiven", "NotGiven", "NotGiven"),
    # Streams.
    Row("AsyncStream", "AsyncStream", "AsyncStream"),
    Row("neuralbox_sync.Stream", "Stream", "Stream"),
    Row("AsyncStream.aclose", None, None, "Response.aclose"),
    Row("AsyncStream.text_stream", None, "AsyncMessageStream.text_stream"),
    Row(
        "AsyncStream.get_final_generation",
        "AsyncChatCompletionStream.get_final_completion",
        "AsyncMessageStream.get_final_message",
    ),
    # Errors.
    Row("NeuralBoxError", "OpenAIError", "AnthropicError"),
    *(
        Row(name, name, name)
        for name in (
            "APIConnectionError",
            "APITimeoutError",
            "APIStatusError",
            "BadRequestError",
            "AuthenticationError",
            "PermissionDeniedError",
            "NotFoundError",
            "ConflictError",
            "UnprocessableEntityError",
            "RateLimitError",
            "InternalServerError",
        )
    ),
    Row("RequestTooLargeError", None, "RequestTooLargeError"),
    Row(
        "APIStatusError.status_code", "APIStatusError.status_code", "APIStatusError.status_code", "Response.status_code"
    ),
    Row("APIStatusError.request_id", "APIStatusError.request_id", "APIStatusError.request_id"),
    Row("APIStatusError.body", "APIError.body", "APIError.body"),
    Row("APIStatusError.code", "APIError.code"),
    Row("APIStatusError.message", "APIError.message", "APIError.message"),
    Row("APIStatusError.headers", None, None, "Response.headers"),
    # Values.
    Row("Generation.usage", "ChatCompletion.usage", "Message.usage"),
    Row("ResponseInfo.status_code", None, None, "Response.status_code"),
    Row("ResponseInfo.headers", None, None, "Response.headers"),
    Row("Usage.prompt_tokens", "CompletionUsage.prompt_tokens"),
    Row("Usage.completion_tokens", "CompletionUsage.completion_tokens"),
    Row("Usage.total_tokens", "CompletionUsage.total_tokens"),
    Row("Response.status_code", None, None, "Response.status_code"),
]
"""The things for which we have the names of others."""

DIFFERENT = [
    Row(
        "AsyncNeuralBox.aclose",
        "AsyncOpenAI.close",
        "AsyncAnthropic.close",
        reason="aclose is httpx's and anyio's name for an async close",
    ),
    Row(
        "AsyncNeuralBox.closed",
        "AsyncOpenAI.is_closed",
        "AsyncAnthropic.is_closed",
        "AsyncClient.is_closed",
        reason="a property, as of Python's files",
    ),
    Row(
        "AsyncNeuralBox.generate",
        "AsyncCompletions.create",
        "AsyncMessages.create",
        reason="the endpoint is POST /generate, and has no resources above it",
    ),
    Row(
        "AsyncNeuralBox.generate_many",
        "AsyncBatches.create",
        "AsyncBatches.create",
        reason="the client runs the batch; the API has no batches",
    ),
    Row(
        "AsyncNeuralBox.list_models",
        "AsyncModels.list",
        "AsyncModels.list",
        reason="the client has no resources: the noun is in the name of the method",
    ),
    Row(
        "AsyncNeuralBox.get_model",
        "AsyncModels.retrieve",
        "AsyncModels.retrieve",
        reason="retrieve alone is for generations, as of an id",
    ),
    Row(
        "AsyncNeuralBox.list_generations",
        "AsyncCompletions.list",
        "AsyncBatches.list",
        reason="the client has no resources: the noun is in the name of the method",
    ),
    Row(
        "AsyncHistory",
        "AsyncPaginator",
        "AsyncPaginator",
        reason="it iterates over entries, not pages; the vendor calls the list history",
    ),
    Row("Model.slug", "Model.id", "ModelInfo.id", reason="the name of the member on the wire"),
    Row(
        "AsyncNeuralBox.parse(output_type)",
        "AsyncCompletions.parse(response_format)",
        "AsyncMessages.parse(output_format)",
        reason="the API has no format of responses: it is the type of the value that is returned",
    ),
    Row(
        "ParsedGeneration",
        "ParsedChatCompletion",
        "ParsedMessage",
        reason="what is parsed is a generation, the word of the API",
    ),
    Row(
        "ParsedGeneration.value",
        "ParsedChatCompletionMessage.parsed",
        "ParsedMessage.parsed_output",
        reason="there is always one: an invalid text is a ParsingError",
    ),
    Row(
        "ParsingError",
        "LengthFinishReasonError",
        None,
        "DecodingError",
        reason="it has the problems of the text, and all generations that were billed",
    ),
    Row("AsyncNeuralBox.wait", "AsyncRuns.poll", reason="generate has a parameter of the same name and meaning"),
    Row(
        "AsyncNeuralBox(ssl_context)",
        None,
        None,
        "AsyncClient(verify)",
        reason="TLS is always verified; only its context can be replaced",
    ),
    Row(
        "AsyncNeuralBox(connect_timeout)",
        None,
        None,
        "Timeout(connect)",
        reason="timeouts are numbers of seconds, not an object",
    ),
    Row(
        "AsyncNeuralBox(stall_timeout)",
        None,
        None,
        "Timeout(read)",
        reason="heartbeats do not count: it is the time without content",
    ),
    Row(
        "AsyncStream.read_batch",
        None,
        None,
        "Response.iter_raw",
        reason="it returns decoded events, those that arrived together",
    ),
    Row(
        "AsyncStream.generation",
        "AsyncChatCompletionStream.current_completion_snapshot",
        "AsyncMessageStream.current_message_snapshot",
        reason="it is complete after the end of the stream, so it is more than a snapshot",
    ),
    Row("ContentDelta.delta", "ChoiceDelta.content", "TextDelta.text", reason="the name of the member on the wire"),
    Row(
        "Generation.tokens_used",
        "CompletionUsage.total_tokens",
        reason="it counts NeuralBox tokens, which are the price; usage has the provider's tokens",
    ),
    Row(
        "InsufficientTokensError",
        "APIStatusError",
        "APIStatusError",
        reason="402 is common here, and the caller tops up the balance",
    ),
    Row(
        "ProviderError",
        "InternalServerError",
        "InternalServerError",
        reason="documented as never charged, so it is retried",
    ),
    Row(
        "ModelUnavailableError",
        "InternalServerError",
        "ServiceUnavailableError",
        reason="documented as never charged, so it is retried; the caller may choose another model",
    ),
    Row(
        "ResponseError",
        "APIResponseValidationError",
        "APIResponseValidationError",
        "DecodingError",
        reason="the body may be too large or not JSON at all, not only invalid",
    ),
    Row(
        "InvalidParameterError",
        None,
        None,
        "InvalidURL",
        reason="one class for all parameters; it is also a ValueError",
    ),
    Row(
        "ClientClosedError", None, None, "RuntimeError", reason="a call may have been sent, so it has a billing status"
    ),
    Row(
        "StreamInterruptedError",
        None,
        None,
        "RemoteProtocolError",
        reason="it has the text so far, the id and the billing status",
    ),
    Row(
        "StreamStateError",
        None,
        None,
        "StreamClosed",
        reason="a stream may also be not open yet, or read by another task",
    ),
    Row("Transport", None, None, "AsyncBaseTransport", reason="a protocol, not a base class"),
    Row("HTTPRequest", None, None, "Request", reason="Request alone would be a request for a generation"),
]
"""The things for which our name is deliberately another one."""


def last_part(name):
    """Return the last part of *name*, with the product and its unit named as ours."""
    part = re.split(r"[.(]", name.rstrip(")"))[-1]
    return re.sub(
        "OpenAI|Anthropic", "NeuralBox", re.sub("get_final_(completion|message)", "get_final_generation", part)
    )


@pytest.mark.parametrize("row", [*SAME, *DIFFERENT], ids=lambda row: row.ours)
def test_our_names_exist(row):
    """Each name of the tables exists, and its class is public."""
    resolve(row.ours)
    path = row.ours.removeprefix("neuralbox_sync.")
    assert re.split(r"[.(]", path)[0] in neuralbox_sync.__all__


@pytest.mark.parametrize("row", SAME, ids=lambda row: row.ours)
def test_the_same_names(row):
    """Our name is that of every other library that has the thing."""
    assert row.theirs
    assert {last_part(row.ours)} == {last_part(name) for name in row.theirs}


@pytest.mark.parametrize("row", DIFFERENT, ids=lambda row: row.ours)
def test_differences_have_a_reason(row):
    """A name that differs from every other library's has a reason."""
    assert row.theirs
    assert last_part(row.ours) not in {last_part(name) for name in row.theirs}
    assert row.reason


def test_the_same_defaults():
    """A call has the default timeout (600 s) and number of retries (2) of openai and anthropic."""
    options = neuralbox_async.AsyncNeuralBox("key")._options

    assert (600.0, 2) == (options.timeout, options.retry.max_retries)


@pytest.mark.parametrize("package", [neuralbox_async, neuralbox_sync], ids=lambda package: package.__name__)
def test_all_names_are_listed(package):
    """`__all__` has each public name of the package once, and nothing else."""
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and name != "TYPE_CHECKING" and not isinstance(value, types.ModuleType)
    }

    assert sorted(public | {"__version__"}) == sorted(package.__all__)


def test_all_is_sorted():
    """`__all__` has constants, then classes, then functions, each in the order of the alphabet."""

    def order(name):
        return 0 if name.isupper() else 1 if name[0].isupper() else 2, name

    assert sorted(neuralbox_async.__all__, key=order) == neuralbox_async.__all__
