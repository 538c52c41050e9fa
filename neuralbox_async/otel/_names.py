"""
The names of attributes and metrics, each in one place.

Those that begin with ``gen_ai`` are of the semantic conventions for generative AI, v0.1.0 (status: development); those
that begin with ``error`` or ``server`` of the general ones. The package of the conventions is no dependency: its
releases fit one release of OpenTelemetry each.
"""

from __future__ import annotations

from typing import Final

PROVIDER: Final = "neuralbox"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_STATUS: Final = "gen_ai.response.status"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
USAGE_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
USAGE_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
DETAILS_EVENT: Final = "gen_ai.client.inference.operation.details"

ATTEMPTS: Final = "neuralbox.attempts"
BILLED: Final = "neuralbox.billed"
STATUS: Final = "neuralbox.status"
TOKENS_USED: Final = "neuralbox.tokens_used"
BATCH_BUDGET: Final = "neuralbox.batch.budget"
BATCH_COMPLETED: Final = "neuralbox.batch.completed"
BATCH_FAILED: Final = "neuralbox.batch.failed"
BATCH_UNRESOLVED: Final = "neuralbox.batch.unresolved"
BATCH_TOKENS_USED: Final = "neuralbox.batch.tokens_used"
ITEM_OUTCOME: Final = "neuralbox.batch.item.outcome"
RATE_LIMIT_WINDOW: Final = "neuralbox.rate_limit.window"

DURATION: Final = "gen_ai.client.inference.duration"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
TIME_PER_OUTPUT_CHUNK: Final = "gen_ai.client.inference.time_per_output_chunk"
INPUT_TOKENS: Final = "gen_ai.client.inference.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.client.inference.usage.output_tokens"
INPUT_TOKENS_PER_OPERATION: Final = "gen_ai.client.inference.operation.input_tokens"
OUTPUT_TOKENS_PER_OPERATION: Final = "gen_ai.client.inference.operation.output_tokens"
CLIENT_TOKENS_USED: Final = "neuralbox.client.tokens_used"
CLIENT_RETRIES: Final = "neuralbox.client.retries"
BATCH_ITEMS: Final = "neuralbox.batch.items"
BATCH_IN_FLIGHT: Final = "neuralbox.batch.in_flight"
RATE_LIMIT_REMAINING: Final = "neuralbox.rate_limit.remaining"
