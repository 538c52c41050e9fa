"""
The values of the account and of the catalogue: balance, profile, statistics, history, models and prices.

All are frozen, and read tolerantly by `_wire`: absent members are None, and so are malformed ones, whose places are in
*problems*. *raw* is the JSON object as it arrived. Neither takes part in comparisons. Nothing here knows about JSON.

Source: the vendor's pages "Balance", "Profile", "Statistics", "History", "Get model" and "Calculate price".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from neuralbox_async._types import GenerationId


def _no_members() -> Mapping[str, Any]:
    return {}


@attrs.frozen(kw_only=True, slots=False)
class Balance:
    """
    The NeuralBox tokens that the account can spend.

    * *token_balance*: the tokens that are left, of the plan and of packs together.
    * *plan*: ``"free"``, ``"basic"``, ``"pro"``, ``"vip"``, ``"elite"``, or one that this version does not know.
    * *plan_expires_at*, *next_refill_at*: aware datetimes.
    * *plan_tokens_remaining*, *bonus_tokens*: the parts of the balance. Only one of the two documented endpoints sends
      them, and *next_refill_at*.
    * *problems*, *raw*: as in `Generation`.

    Source: the vendor's pages "Balance" and "Profile".
    """

    token_balance: int
    plan: str | None = None
    plan_expires_at: datetime | None = None
    plan_tokens_remaining: int | None = None
    bonus_tokens: int | None = None
    next_refill_at: datetime | None = None
    problems: tuple[str, ...] = attrs.field(default=(), eq=False)
    raw: Mapping[str, Any] = attrs.field(factory=_no_members, eq=False, repr=False)


@attrs.frozen(kw_only=True, slots=False)
class Account:
    """
    The account that the API key belongs to.

    * *id*; *name*; *email*, *telegram_username*, *avatar_url*: None if the account has none.
    * *plan*, *plan_expires_at*, *token_balance*: as in `Balance`.
    * *token_limit*: NeuralBox tokens of the plan; *tokens_used_this_period*: how many of them were spent.
    * *rate_limit_hourly*, *rate_limit_daily*: requests; 0 means unlimited.
    * *auth_methods*: whether the user can log in with ``telegram``, ``google`` or ``email``.
    * *problems*, *raw*: as in `Generation`.

    Source: the vendor's page "Profile".
    """

    id: GenerationId | None = None
    name: str | None = None
    email: str | None = None
    telegram_username: str | None = None
    avatar_url: str | None = None
    plan: str | None = None
    plan_expires_at: datetime | None = None
    token_balance: int | None = None
    token_limit: int | None = None
    tokens_used_this_period: int | None = None
    rate_limit_hourly: int | None = None
    rate_limit_daily: int | None = None
    auth_methods: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = attrs.field(default=(), eq=False)
    raw: Mapping[str, Any] = attrs.field(factory=_no_members, eq=False, repr=False)


@attrs.frozen(kw_only=True, slots=False)
class UsageTotals:
    """The number of *generations*, and *tokens_used*, the NeuralBox tokens that they cost together."""

    generations: int | None = None
    tokens_used: int | None = None


@attrs.frozen(kw_only=True, slots=False)
class AccountStats:
    """
    What the account has generated and spent.

    * *total_generations*, *tokens_used_total* (NeuralBox tokens): since the account exists.
    * *breakdown*: the same by category (``"text"``, ``"image"``, ``"video"``, ``"audio"``, ``"tools"``).
    * *recent_30d*: of the last 30 days.
    * *problems*, *raw*: as in `Generation`.

    Source: the vendor's page "Statistics".
    """

    total_generations: int | None = None
    tokens_used_total: int | None = None
    breakdown: Mapping[str, UsageTotals] | None = None
    recent_30d: UsageTotals | None = None
    problems: tuple[str, ...] = attrs.field(default=(), eq=False)
    raw: Mapping[str, Any] = attrs.field(factory=_no_members, eq=False, repr=False)


@attrs.frozen(kw_only=True, slots=False)
class HistoryEntry:
    """
    One generation in the history of the account, from either dialect of the API.

    * *id*: for `AsyncNeuralBox.retrieve`, which gets the text.
    * *status*: ``"completed"``, ``"pending"``, ``"failed"``, or one that this version does not know.
    * *model*, *model_name*: the slug, and the name to display.
    * *category*: ``"text"``, ``"image"``, ``"video"``, ``"audio"``, ``"tts"``, ``"stt"`` or ``"tool"``.
    * *prompt*; *content*: the text, None if the list leaves it out, as documented; *url*: of generations that make
      files.
    * *tokens_used*: NeuralBox tokens billed. *created_at*: an aware datetime.
    * *is_favorited*, *user_rating*: as set on the website.
    * *problems*, *raw*: as in `Generation`.

    Source: the vendor's two pages "History".
    """

    id: GenerationId | None = None
    status: str | None = None
    model: str | None = None
    model_name: str | None = None
    category: str | None = None
    prompt: str | None = None
    content: str | None = None
    url: str | None = None
    tokens_used: int | None = None
    created_at: datetime | None = None
    is_favorited: bool | None = None
    user_rating: int | None = None
    problems: tuple[str, ...] = attrs.field(default=(), eq=False)
    raw: Mapping[str, Any] = attrs.field(factory=_no_members, eq=False, repr=False)


@attrs.frozen(kw_only=True, slots=False)
class Model:
    """
    A model of the catalogue.

    * *slug*: what `AsyncNeuralBox.generate` takes as *model*; ``""`` if a list has an entry without one.
    * *name*, *provider*, *description*: to display. *category*: as in `HistoryEntry`.
    * *min_plan*: the smallest plan that may use it.
    * *token_cost*: the base price of one generation, in NeuralBox tokens; *min_token_cost*, *max_token_cost*: with the
      cheapest and with the most expensive options.
    * *supports_streaming*; *config*: the options that the model takes, such as sizes.
    * *problems*, *raw*: as in `Generation`.

    Source: the vendor's page "Get model". The list of models is not documented; its entries are assumed to have the
    same members.
    """

    slug: str = ""
    name: str | None = None
    category: str | None = None
    provider: str | None = None
    min_plan: str | None = None
    token_cost: int | None = None
    min_token_cost: int | None = None
    max_token_cost: int | None = None
    description: str | None = None
    supports_streaming: bool | None = None
    config: Mapping[str, Any] | None = None
    problems: tuple[str, ...] = attrs.field(default=(), eq=False)
    raw: Mapping[str, Any] = attrs.field(factory=_no_members, eq=False, repr=False)


@attrs.frozen(kw_only=True, slots=False)
class Price:
    """
    What the API calculates for generations with some options, in NeuralBox tokens.

    * *token_cost*: the price. The vendor does not document whether it is that of one generation or, with a *count*, of
      all of them; the local server multiplies.
    * *min_token_cost*, *max_token_cost*: of one generation, with any options.
    * *pricing_type*: ``"fixed"``, ``"matrix"`` (by size and quality), ``"per_second"`` or ``"per_point"``.
    * *problems*, *raw*: as in `Generation`.

    Source: the vendor's page "Calculate price".
    """

    token_cost: int
    min_token_cost: int | None = None
    max_token_cost: int | None = None
    pricing_type: str | None = None
    problems: tuple[str, ...] = attrs.field(default=(), eq=False)
    raw: Mapping[str, Any] = attrs.field(factory=_no_members, eq=False, repr=False)


@attrs.frozen(kw_only=True, slots=False)
class Estimate:
    """
    What a batch will cost by the API's prices, in NeuralBox tokens.

    * *requests*: how many there are.
    * *token_cost*: the price of all of them; *by_model*: its parts, by the model's slug.
    * *max_token_cost*: the most that they can cost, which the budget of a batch reserves.
    """

    requests: int
    token_cost: int
    max_token_cost: int
    by_model: Mapping[str, int]
