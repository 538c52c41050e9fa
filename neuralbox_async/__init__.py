"""
The asynchronous SDK of NeuralBox, a text-generation API.

    from neuralbox_async import AsyncNeuralBox

    async with AsyncNeuralBox() as client:
        reply = await client.generate("gpt-5", "Write a haiku")
        print(reply.content)

Blocking code uses `neuralbox_sync`; tests use `neuralbox_async.testing`.
"""

from neuralbox_async._batch import AsyncBatch, OnUnknown
from neuralbox_async._client import AsyncNeuralBox
from neuralbox_async._errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BatchStateError,
    Billed,
    BudgetReachedError,
    ClientClosedError,
    ConflictError,
    GenerationFailedError,
    InsufficientTokensError,
    InternalServerError,
    InvalidParameterError,
    JournalError,
    JournalLockedError,
    ModelUnavailableError,
    NeuralBoxError,
    NotFoundError,
    OutcomeUnknownError,
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
from neuralbox_async._items import RequestLike
from neuralbox_async._journal import JournalEntry, read_journal
from neuralbox_async._loading import preload
from neuralbox_async._options import UNSET, ApiKey, Unset
from neuralbox_async._results import BatchProgress, BatchReport, BatchResult
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
    "AsyncBatch",
    "AsyncNeuralBox",
    "AsyncStream",
    "AuthenticationError",
    "BadRequestError",
    "BatchProgress",
    "BatchReport",
    "BatchResult",
    "BatchStateError",
    "Billed",
    "BudgetReachedError",
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
    "JournalEntry",
    "JournalError",
    "JournalLockedError",
    "Message",
    "MessageLike",
    "Messages",
    "ModelUnavailableError",
    "NeuralBoxError",
    "NotFoundError",
    "OnUnknown",
    "OutcomeUnknownError",
    "Part",
    "PermissionDeniedError",
    "ProviderError",
    "RateLimitError",
    "RequestLike",
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
    "Unset",
    "UnsupportedEventLoopError",
    "Usage",
    "WaitTimeoutError",
    "__version__",
    "data_url",
    "preload",
    "read_journal",
]
