"""What the clients with one API key share: the rate limits of its account, and a retry budget."""

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
class AccountState:
    """The rate limits of the account of one API key, and the retry budget of the calls with that key."""

    rate_limits: RateLimits = attrs.field(factory=RateLimits)
    retry_budget: RetryBudget = attrs.field(factory=RetryBudget)


class AccountStates:
    """
    The `AccountState` of each API key that a client, or one derived from it, uses.

    It lives as long as a client that uses it. The 256 that were used last live on, for a server that derives a client
    for each request.
    """

    def __init__(self) -> None:
        self._states: weakref.WeakValueDictionary[Secret, AccountState] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[Secret, AccountState] = OrderedDict()

    def of(self, api_key: KeySource) -> AccountState:
        """Return the state for *api_key*. A function that returns keys has one of its own."""
        if not isinstance(api_key, Secret):
            return AccountState()
        state = self._states.get(api_key)
        if state is None:
            state = self._states.setdefault(api_key, AccountState())
        # No lock, which a fork could inherit locked: each step is atomic, and threads that meet lose nothing.
        self._recent.pop(api_key, None)
        self._recent[api_key] = state
        if len(self._recent) > _MAX_RECENT:
            self._recent.popitem(last=False)
        return state
