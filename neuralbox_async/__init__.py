"""
The asynchronous SDK of NeuralBox, a text-generation API.

    from neuralbox_async import AsyncNeuralBox

    async with AsyncNeuralBox() as client:
        reply = await client.generate("gpt-5", "Write a haiku")
        print(reply.content)

Blocking code uses `neuralbox_sync`; tests use `neuralbox_async.testing`.
"""

from neuralbox_async._client import AsyncNeuralBox
from neuralbox_async._errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    Billed,
    ClientClosedError,
    ConflictError,
    GenerationFailedError,
    InsufficientTokensError,
    InternalServerError,
    InvalidParameterError,
    ModelUnavailableError,
    NeuralBoxError,
    NotFoundError,
    PermissionDeniedError,
    ProviderError,
    RateLimitError,
    RequestTooLargeError,
    ResponseError,
    StreamInterruptedError,
    StreamStateError,
    StreamTimeoutError,
    UnprocessableRequestError,
    UnsupportedEventLoopError,
    WaitTimeoutError,
)
from neuralbox_async._options import UNSET, ApiKey
from neuralbox_async._retry import RetryPolicy
from neuralbox_async._seam import Delivery, Response, Transport
from neuralbox_async._stream import AsyncStream
from neuralbox_async._types import (
    ContentDelta,
    GenerateRequest,
    Generation,
    GenerationEnd,
    GenerationId,
    GenerationStart,
    ImagePart,
    Message,
    MessageLike,
    Messages,
    Part,
    Role,
    StreamEvent,
    TextPart,
    UnknownEvent,
    Usage,
    data_url,
)
from neuralbox_async._version import __version__

__all__ = [
    "UNSET",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "ApiKey",
    "AsyncNeuralBox",
    "AsyncStream",
    "AuthenticationError",
    "BadRequestError",
    "Billed",
    "ClientClosedError",
    "ConflictError",
    "ContentDelta",
    "Delivery",
    "GenerateRequest",
    "Generation",
    "GenerationEnd",
    "GenerationFailedError",
    "GenerationId",
    "GenerationStart",
    "ImagePart",
    "InsufficientTokensError",
    "InternalServerError",
    "InvalidParameterError",
    "Message",
    "MessageLike",
    "Messages",
    "ModelUnavailableError",
    "NeuralBoxError",
    "NotFoundError",
    "Part",
    "PermissionDeniedError",
    "ProviderError",
    "RateLimitError",
    "RequestTooLargeError",
    "Response",
    "ResponseError",
    "RetryPolicy",
    "Role",
    "StreamEvent",
    "StreamInterruptedError",
    "StreamStateError",
    "StreamTimeoutError",
    "TextPart",
    "Transport",
    "UnknownEvent",
    "UnprocessableRequestError",
    "UnsupportedEventLoopError",
    "Usage",
    "WaitTimeoutError",
    "__version__",
    "data_url",
]
