"""What a client learns of an account, and which clients share it: those with the same key."""

from __future__ import annotations

import weakref
from collections import OrderedDict

import attrs

from neuralbox_async._api_key import KeySource
from neuralbox_async._call.rate_limits import RateLimits
from neuralbox_async._call.retry_budget import RetryBudget
from neuralbox_async._secret import Secret

_MAX_RECENT = 256


@attrs.define(eq=False)
class Account:
    """The rate limits of one account, and the retry budget of its calls."""

    rate_limits: RateLimits = attrs.field(factory=RateLimits)
    retry_budget: RetryBudget = attrs.field(factory=RetryBudget)


class Accounts:
    """
    The accounts of a client and of the clients that are derived from it, one for each key.

    An account lives as long as a client that uses it. The 256 that were used last live on, for a server that derives a
    client for each request.
    """

    def __init__(self) -> None:
        self._accounts: weakref.WeakValueDictionary[Secret, Account] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[Secret, Account] = OrderedDict()

    def of(self, api_key: KeySource) -> Account:
        """Return the account of *api_key*. A function that returns keys has an account of its own."""
        if not isinstance(api_key, Secret):
            return Account()
        account = self._accounts.get(api_key)
        if account is None:
            account = self._accounts.setdefault(api_key, Account())
        # No lock, which a fork could inherit locked: each step is atomic, and threads that meet lose nothing.
        self._recent.pop(api_key, None)
        self._recent[api_key] = account
        if len(self._recent) > _MAX_RECENT:
            self._recent.popitem(last=False)
        return account
