"""
A Celery task that generates a text, waits for rate limits, and never pays twice because it ran again.

``celery --workdir examples/celery_texts --app tasks worker --concurrency 4``, then, in the same folder,
``python -c "from tasks import describe; print(describe.delay('a chair').get())"``.
"""

# Celery has no types.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUntypedFunctionDecorator=false, reportUnknownArgumentType=false

import os
from typing import Any

from celery import Celery

from neuralbox_sync import NeuralBox, NeuralBoxError, RateLimitError

# One for every process of the pool: each opens connections of its own.
client = NeuralBox(timeout=120)
app = Celery("tasks")
app.config_from_object(os.environ.get("CELERY_CONFIG_MODULE", "celeryconfig"))


@app.task(bind=True, max_retries=5)  # type: ignore[untyped-decorator]
def describe(self: Any, product: str) -> dict[str, object]:
    """Return the description of *product* and its cost, or the failure and what is known of its bill."""
    try:
        reply = client.generate("gpt-5-nano", f"Describe: {product}", max_retries=0)
    except RateLimitError as error:  # not billed: the task may run again
        raise self.retry(exc=error, countdown=min(error.retry_after or 60, 1800)) from error
    except NeuralBoxError as error:
        return {"failed": type(error).__name__, "billed": error.billed, "generation_id": error.generation_id}
    return {"text": reply.content, "tokens_used": reply.tokens_used}
