"""The account and the catalogue of a local server: balance, profile, statistics, history, models and prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import attrs

from neuralbox_async.testing._http_errors import HTTPError, validation_error
from neuralbox_async.testing._models import MODELS, Model
from neuralbox_async.testing._responses import history_item, model_body

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neuralbox_async.testing._request_parsing import Dialect
    from neuralbox_async.testing._settings import Settings
    from neuralbox_async.testing._store import AccountStore, Generation

_PLAN_END: Final = "2030-01-01T00:00:00Z"
_NEXT_REFILL: Final = "2029-12-01T00:00:00Z"
_DEFAULT_LIMIT, _MAX_LIMIT = 20, 100
# The statistics have fewer categories than the models.
_STATS_CATEGORIES: Final = ("text", "image", "video", "audio", "tools")
_STATS_CATEGORY: Final = {"tts": "audio", "stt": "audio", "tool": "tools"}


class AccountHandler:
    """Makes the bodies of the responses about one account. All agree with what the account was billed."""

    def __init__(self, settings: Settings, store: AccountStore) -> None:
        self._settings = settings
        self._store = store

    def balance_body(self) -> dict[str, object]:
        """Return the response to GET /balance."""
        plan = self._settings.plan
        expires = None if plan == "free" else _PLAN_END
        return {"token_balance": self._store.balance, "plan": plan, "plan_expires_at": expires}

    def user_balance_body(self) -> dict[str, object]:
        """Return the response to GET /user/balance. All tokens are the plan's: there are no packs."""
        parts = {"plan_tokens_remaining": self._store.balance, "bonus_tokens": 0, "next_refill_at": _NEXT_REFILL}
        return {**self.balance_body(), **parts}

    def profile_body(self) -> dict[str, object]:
        """Return the response to GET /user/me."""
        return {
            "id": 1,
            "name": "Local server",
            "email": None,
            "telegram_username": None,
            "avatar_url": None,
            **self.balance_body(),
            "token_limit": self._settings.balance,
            "tokens_used_this_period": sum(tokens for _, tokens in self._store.usage.values()),
            # 0 means unlimited.
            "rate_limit_hourly": self._settings.limit_hour or 0,
            "rate_limit_daily": self._settings.limit_day or 0,
            "auth_methods": {"telegram": False, "google": False, "email": True},
        }

    def stats_body(self) -> dict[str, object]:
        """Return the response to GET /user/stats: the completed generations and their bills."""
        breakdown = {category: {"count": 0, "tokens": 0} for category in _STATS_CATEGORIES}
        for slug, (count, tokens) in self._store.usage.items():
            category = self._category(slug)
            totals = breakdown[_STATS_CATEGORY.get(category, category)]
            totals["count"] += count
            totals["tokens"] += tokens
        count = sum(totals["count"] for totals in breakdown.values())
        tokens = sum(totals["tokens"] for totals in breakdown.values())
        return {
            "total_generations": count,
            "tokens_spent_total": tokens,
            "breakdown": breakdown,
            "recent_30d": {"generations": count, "tokens_spent": tokens},
        }

    def history_body(self, query: Mapping[str, str], dialect: Dialect) -> dict[str, object]:
        """
        Return the response to GET /user/history: a page of the generations, newest first.

        Each dialect has its own names of the filters, and ignores those of the other.

        Raises:
            HTTPError: 422 if the page or the limit is invalid.
        """
        page, limit = _parse_number(query, "page", 1), _parse_number(query, "limit", _DEFAULT_LIMIT, _MAX_LIMIT)
        names = ("type", "model") if dialect == "a" else ("category", "model_slug")
        category, model = (query.get(name) for name in names)
        only_favorites = dialect == "b" and query.get("favorites_only") == "true"
        found = [
            generation
            for generation in self._store.newest_first()
            if category in (None, self._category(generation.model))
            and model in (None, generation.model)
            and query.get("status") in (None, generation.status)
            and not only_favorites  # there are none
        ]
        shown = found[(page - 1) * limit : page * limit]
        body: dict[str, object] = {
            "items": [self._item(generation, dialect) for generation in shown],
            "total": len(found),
            "page": page,
            "limit": limit,
        }
        return {**body, "pages": -(-len(found) // limit)} if dialect == "a" else body

    def models_body(self) -> dict[str, object]:
        """Return the response to GET /models, in the form of the other lists: the vendor's page was never seen."""
        slugs = [*MODELS, *(slug for slug in self._settings.prices if slug not in MODELS)]
        models = [(slug, self.model(slug)) for slug in slugs]
        items = [model_body(slug, model) for slug, model in models if model is not None]
        return {"items": items, "total": len(items)}

    def model(self, slug: str) -> Model | None:
        """Return the model with the price that is billed here, which the settings may override."""
        model, price = MODELS.get(slug), self._settings.prices.get(slug)
        if price is None:
            return model
        return attrs.evolve(model or Model("text", price, price), price=price, max_price=price)

    def _category(self, slug: str) -> str:
        model = self.model(slug)
        return "text" if model is None else model.category

    def _item(self, generation: Generation, dialect: Dialect) -> dict[str, object]:
        return history_item(generation, self._category(generation.model), dialect)


def _parse_number(query: Mapping[str, str], name: str, default: int, maximum: int | None = None) -> int:
    text = query.get(name, str(default))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if number < 1 or (maximum is not None and number > maximum):
        raise _out_of_range(name, maximum)
    return number


def _out_of_range(name: str, maximum: int | None) -> HTTPError:
    rule = "must be an integer of at least 1" if maximum is None else f"must be an integer from 1 to {maximum}"
    return validation_error({name: rule})
