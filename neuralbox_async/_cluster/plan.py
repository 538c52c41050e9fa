"""The settings of a batch on a cluster, checked: what its coordinator and what its workers get."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, cast

import attrs

from neuralbox_async._batch.inputs import RequestDefaults
from neuralbox_async._batch.options import BatchOptions, OnChanged, OnUnknown
from neuralbox_async._batch.typed_items import TypedOutput
from neuralbox_async._cluster.service import ServiceOptions
from neuralbox_async._cluster.settings import RowFormat, WorkerSettings
from neuralbox_async._errors import InvalidParameterError
from neuralbox_async._options import NOT_GIVEN, CallOptions, NotGiven
from neuralbox_async._validation import check_count

if TYPE_CHECKING:
    from neuralbox_async._types import Messages

DEFAULT_LEASE = 30.0
_MIN_LEASE = 1.0


@attrs.frozen(kw_only=True)
class Plan:
    """The *service* options and *worker* settings of one batch; *run* identifies it."""

    run: str
    service: ServiceOptions
    worker: WorkerSettings


class PlanOptions(TypedDict, total=False):
    """The options of a batch on a cluster; see `make_plan`."""

    journal: Required[str | os.PathLike[str]]
    model: str | None
    prompt: str | Callable[[Any], Messages] | None
    system: str | None
    temperature: float | None
    max_tokens: int | None
    key: str | Callable[[Any], Any] | None
    on_unknown: Literal["skip", "retry", "raise"]
    on_changed: OnChanged
    budget: int | None
    max_rate: float | None
    max_concurrency_per_worker: int
    output_type: Any
    max_repairs: int
    api_key: Callable[[], Any] | None
    base_url: str | None
    timeout: float | NotGiven | None
    max_retries: int | NotGiven
    lease: float


def make_plan(
    *,
    journal: str | os.PathLike[str],
    model: str | None = None,
    prompt: str | Callable[[Any], Messages] | None = None,
    system: str | None = None,
    temperature: float | None = None,
    max_tokens: int | None = None,
    key: str | Callable[[Any], Any] | None = None,
    on_unknown: object = "skip",
    on_changed: OnChanged = "raise",
    budget: int | None = None,
    max_rate: float | None = None,
    max_concurrency_per_worker: int = 16,
    output_type: Any = None,
    max_repairs: int = 1,
    api_key: Callable[[], Any] | None = None,
    base_url: str | None = None,
    timeout: float | NotGiven | None = NOT_GIVEN,
    max_retries: int | NotGiven = NOT_GIVEN,
    lease: float = DEFAULT_LEASE,
) -> Plan:
    """Return the plan of a batch with these parameters. Raises `InvalidParameterError`."""
    _check_key_function(api_key)
    _check_string_or_function("prompt", prompt)
    _check_string_or_function("key", key)
    if not isinstance(on_unknown, str):
        raise InvalidParameterError("on_unknown", on_unknown, "'retry', 'skip' or 'raise'")
    if not lease >= _MIN_LEASE:
        raise InvalidParameterError("lease", lease, f"at least {_MIN_LEASE} s")
    options = BatchOptions(
        max_concurrency=max_concurrency_per_worker,
        journal=journal,
        on_unknown=cast("OnUnknown", on_unknown),
        on_changed=on_changed,
        budget=budget,
        max_rate=max_rate,
        output=None if output_type is None else TypedOutput.of(output_type, max_repairs),
    )
    CallOptions().replace(timeout=timeout, max_retries=max_retries)
    run = os.urandom(8).hex()
    return Plan(
        run=run,
        service=ServiceOptions(
            journal=os.path.abspath(journal),  # noqa: PTH100 - of this program: workers have other working directories
            budget=budget,
            max_rate=max_rate,
            on_unknown=on_unknown,
            on_changed=options.on_changed,
            lease=lease,
            run=run,
        ),
        worker=WorkerSettings(
            run=run,
            defaults=RequestDefaults(model=model, system=system, temperature=temperature, max_tokens=max_tokens),
            row_format=RowFormat(prompt=prompt, key=key),
            width=check_count("max_concurrency_per_worker", max_concurrency_per_worker, minimum=1),
            needs_prices=budget is not None,
            timeout=timeout,
            max_retries=max_retries,
            output_type=output_type,
            max_repairs=max_repairs,
            api_key=api_key,
            base_url=base_url,
        ),
    )


def _check_string_or_function(parameter: str, value: object) -> None:
    if not (value is None or isinstance(value, str) or callable(value)):
        raise InvalidParameterError(parameter, value, "a string, a function of the row, or None")


def _check_key_function(value: object) -> None:
    if value is not None and not callable(value):
        rule = "a function that returns the key and runs in the workers, or None: a key would travel with the tasks"
        raise InvalidParameterError("api_key", None, rule, show=False)
