"""What clients of any account share: the connections, and what was learned of the server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from neuralbox_async._call.account_state import AccountStates

if TYPE_CHECKING:
    from neuralbox_async._http.transport import Transport
    from neuralbox_async._options import ConnectionOptions


@attrs.define(eq=False)
class SharedState:
    """The state that a client shares with the clients derived from it, of any account."""

    connections: ConnectionOptions
    custom_transport: Transport | None = None
    account_states: AccountStates = attrs.field(factory=AccountStates)
    status_paths: tuple[str, ...] = ()  # in the order in which to try them; none: in the documented order
    balance_paths: tuple[str, ...] = ()  # likewise
    prefers_stream_fallback: bool = False  # of the two documented endpoints of streams
    _transports: list[Transport] = attrs.field(factory=list["Transport"], init=False)  # empty until the first request

    @property
    def transport(self) -> Transport:
        """The transport. It is made, and aiohttp loaded, when the first request is sent."""
        return self._transports[0] if self._transports else self._first_transport()

    def _first_transport(self) -> Transport:
        # No lock, which a fork could inherit locked: of two threads that make one at once, both use the first.
        self._transports.append(self.custom_transport or _aiohttp_transport(self.connections))
        return self._transports[0]

    async def aclose(self) -> None:
        """Close the connections, permanently."""
        if self._transports or self.custom_transport is not None:
            await self.transport.aclose()


def _aiohttp_transport(connections: ConnectionOptions) -> Transport:
    # Imported here: aiohttp takes longer to load than everything else together.
    from neuralbox_async._http.aiohttp_transport import AiohttpTransport

    return AiohttpTransport(connections)
