"""
The asynchronous SDK of NeuralBox, a text-generation API.

    from neuralbox_async import AsyncNeuralBox

    async with AsyncNeuralBox() as client:
        reply = await client.generate("gpt-5", "Write a haiku")
        print(reply.content)

Blocking code uses `neuralbox_sync`; tests use `neuralbox_async.testing`.

The command handles Ctrl-C before the modules are imported: there, the first use of a name imports them.
"""

from neuralbox_async import _start
from neuralbox_async._version import __version__

TYPE_CHECKING = False  # type checkers know it by its name; to import `typing` takes longer than the rest of this
if TYPE_CHECKING or not _start.is_command():
    from neuralbox_async._account_types import (
        Account,
        AccountStats,
        Balance,
        Estimate,
        HistoryEntry,
        Model,
        Price,
        UsageTotals,
    )
    from neuralbox_async._api_key import ApiKey
    from neuralbox_async._batch.batch import AsyncBatch
    from neuralbox_async._batch.errors import (
        BatchStateError,
        BudgetReachedError,
        JournalError,
        JournalLockedError,
        OutcomeUnknownError,
        RequestChangedError,
    )
    from neuralbox_async._batch.inputs import RequestLike, Requests
    from neuralbox_async._batch.journal_entries import JournalEntry, read_journal
    from neuralbox_async._batch.options import OnChanged, OnUnknown
    from neuralbox_async._batch.results import BatchProgress, BatchReport, BatchResult
    from neuralbox_async._call.pages import AsyncHistory
    from neuralbox_async._call.rate_limit_status import RateLimitStatus, RateLimitWindow
    from neuralbox_async._call.stream import AsyncStream
    from neuralbox_async._client import AsyncNeuralBox
    from neuralbox_async._errors import (
        APIConnectionError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        BadRequestError,
        BillingStatus,
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
        UnprocessableEntityError,
        UnsupportedEventLoopError,
        WaitTimeoutError,
    )
    from neuralbox_async._http.transport import HTTPRequest, Response, Transport
    from neuralbox_async._images import data_url
    from neuralbox_async._lazy_imports import preload
    from neuralbox_async._observers import (
        AttemptStarted,
        BatchEnded,
        BatchInfo,
        BatchItemEnded,
        BatchItemStarted,
        BatchStarted,
        CallEnded,
        CallInfo,
        CallStarted,
        ContentReceived,
        Event,
        ItemOutcome,
        Observer,
        Operation,
        Outcome,
        ResponseReceived,
        RetryScheduled,
    )
    from neuralbox_async._options import NOT_GIVEN, NotGiven
    from neuralbox_async._parsed import ParsedGeneration, ParsingError, Problem
    from neuralbox_async._response_info import ResponseInfo
    from neuralbox_async._retry import RetryPolicy
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
    )
    from neuralbox_async._usage import ClientUsage, ModelUsage
else:
    __getattr__ = _start.import_all

__all__ = [
    "NOT_GIVEN",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "Account",
    "AccountStats",
    "ApiKey",
    "AsyncBatch",
    "AsyncHistory",
    "AsyncNeuralBox",
    "AsyncStream",
    "AttemptStarted",
    "AuthenticationError",
    "BadRequestError",
    "Balance",
    "BatchEnded",
    "BatchInfo",
    "BatchItemEnded",
    "BatchItemStarted",
    "BatchProgress",
    "BatchReport",
    "BatchResult",
    "BatchStarted",
    "BatchStateError",
    "BillingStatus",
    "BudgetReachedError",
    "CallEnded",
    "CallInfo",
    "CallStarted",
    "ClientClosedError",
    "ClientUsage",
    "ConflictError",
    "ContentDelta",
    "ContentReceived",
    "Estimate",
    "Event",
    "GenerateRequest",
    "Generation",
    "GenerationEnd",
    "GenerationFailedError",
    "GenerationId",
    "GenerationStart",
    "HTTPRequest",
    "HistoryEntry",
    "ImagePart",
    "InsufficientTokensError",
    "InternalServerError",
    "InvalidParameterError",
    "ItemOutcome",
    "JournalEntry",
    "JournalError",
    "JournalLockedError",
    "Message",
    "MessageLike",
    "Messages",
    "Model",
    "ModelUnavailableError",
    "ModelUsage",
    "NeuralBoxError",
    "NotFoundError",
    "NotGiven",
    "Observer",
    "OnChanged",
    "OnUnknown",
    "Operation",
    "Outcome",
    "OutcomeUnknownError",
    "ParsedGeneration",
    "ParsingError",
    "Part",
    "PermissionDeniedError",
    "Price",
    "Problem",
    "ProviderError",
    "RateLimitError",
    "RateLimitStatus",
    "RateLimitWindow",
    "RequestChangedError",
    "RequestLike",
    "RequestTooLargeError",
    "Requests",
    "Response",
    "ResponseError",
    "ResponseInfo",
    "ResponseReceived",
    "RetryPolicy",
    "RetryScheduled",
    "Role",
    "StreamEvent",
    "StreamInterruptedError",
    "StreamStateError",
    "StreamTimeoutError",
    "TextPart",
    "Transport",
    "UnknownEvent",
    "UnprocessableEntityError",
    "UnsupportedEventLoopError",
    "Usage",
    "UsageTotals",
    "WaitTimeoutError",
    "__version__",
    "data_url",
    "preload",
    "read_journal",
]
