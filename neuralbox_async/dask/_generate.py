"""`generate`: the function that starts a batch on a Dask cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from neuralbox_async._batch.inputs import check_iterable
from neuralbox_async._cluster.plan import DEFAULT_LEASE, make_plan
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._options import NOT_GIVEN, NotGiven
from neuralbox_async._validation import check_callable, check_count
from neuralbox_async.dask._batch import DaskBatch, is_collection

if TYPE_CHECKING:
    import distributed

    from neuralbox_async._batch.options import OnChanged
    from neuralbox_async._cluster.service import ClusterReport
    from neuralbox_async._types import Messages


def generate(
    client: distributed.Client,
    rows: Iterable[Any],
    *,
    journal: str | os.PathLike[str],
    model: str | None = None,
    prompt: str | Callable[[Any], Messages] | None = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    key: str | Callable[[Any], Any] | None = None,
    on_unknown: Literal["skip", "retry", "raise"] = "skip",
    on_changed: OnChanged = "raise",
    budget: int | None = None,
    max_rate: float | None = None,
    max_concurrency_per_worker: int = 16,
    partition_size: int = 100,
    output_type: Any = None,
    max_repairs: int = 1,
    api_key: Callable[[], Any] | None = None,
    base_url: str | None = None,
    timeout: float | NotGiven | None = NOT_GIVEN,
    max_retries: int | NotGiven = NOT_GIVEN,
    lease: float = DEFAULT_LEASE,
    journal_worker: str | None = None,
    on_progress: Callable[[ClusterReport], object] | None = None,
) -> DaskBatch:
    """
    Return a batch that generates for each of *rows* on the cluster of *client*.

    ``with generate(client, rows, ...) as batch:``, then ``for result in batch:``, `DaskBatch.to_bag` or
    `DaskBatch.to_dataframe`. A row that fails is a row with an error.

    * *rows*: an iterable of requests, dicts or prompts, read as far as needed; a Dask bag of them; or a Dask DataFrame.
      A row is as in `generate_many`, unless there is a *prompt*.
    * *journal*: the path of a file that the worker with the coordinator can write, on a file system that it shares with
      those that may replace it. *journal_worker*: the address or name of that worker; None: any.
    * *prompt*: a template for the members of a row (``"Summarise: {text}"``), or a function of the row that returns a
      prompt or messages. A row in which a member that the template names is missing (None, NaN, and NaT and NA of
      pandas) has an `InvalidParameterError`, and is not sent.
    * *model*, *system*, *temperature*, *max_tokens*: of rows that do not have them.
    * *key*: the name of the member with the row's key, or a function of the row; None: the member ``key``, or else the
      hash of the request. Rows with the same key share one generation.
    * *on_unknown*: for requests that may have been billed without a response: ``"skip"`` (their rows have an
      `OutcomeUnknownError`), ``"retry"``, or ``"raise"`` (when entering, for those of earlier runs).
    * *on_changed*: for keys with which earlier runs sent other requests: ``"raise"`` (their rows have a
      `RequestChangedError`), ``"skip"`` or ``"retry"``.
    * *budget*: the maximum of NeuralBox tokens to spend by all runs of the journal. *max_rate*: requests per second of
      all workers; None adapts to what the server accepts.
    * *max_concurrency_per_worker*: requests in flight of one worker process. *partition_size*: rows of one task, of an
      iterable, at most.
    * *output_type*, *max_repairs*: as for `generate_many`.
    * *api_key*: a function that returns the key and runs in the workers; None: NEURALBOX_API_KEY of the workers. The
      key itself is refused: it would travel with the tasks. *base_url*: None: NEURALBOX_BASE_URL of the workers.
    * *timeout*, *max_retries*: of each request, as for `generate_many`.
    * *lease*: seconds without a report after which a worker is taken for lost, and what it had claimed for unresolved.
    * *on_progress*: called about twice a second with a `ClusterReport`, in another thread.

    Raises `InvalidParameterError`.
    """
    if client.asynchronous:
        raise InvalidParameterError("client", None, "a client that blocks, not an asynchronous one", show=False)
    if not is_collection(rows):
        check_iterable(rows)
    check_callable("on_progress", on_progress)
    plan = make_plan(
        model=model,
        prompt=prompt,
        system=system,
        temperature=temperature,
        max_tokens=max_tokens,
        key=key,
        journal=journal,
        on_unknown=on_unknown,
        on_changed=on_changed,
        budget=budget,
        max_rate=max_rate,
        max_concurrency_per_worker=max_concurrency_per_worker,
        output_type=output_type,
        max_repairs=max_repairs,
        api_key=api_key,
        base_url=base_url,
        timeout=timeout,
        max_retries=max_retries,
        lease=lease,
    )
    return DaskBatch(
        client,
        rows,
        plan,
        partition_size=check_count("partition_size", partition_size, minimum=1),
        journal_worker=journal_worker,
        on_progress=on_progress,
    )
