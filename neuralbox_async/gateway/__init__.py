"""
A server with the interface of OpenAI's chat completions, for tools that know no other; it calls NeuralBox.

    async with AsyncNeuralBox() as client:
        await Gateway(client).serve()

The command `neuralbox gateway` runs it. Its key stays in this process: clients have a token of their own, or none on
this machine.
"""

from __future__ import annotations

from neuralbox_async.gateway._gateway import Gateway
from neuralbox_async.gateway._settings import GatewaySettings

__all__ = ["Gateway", "GatewaySettings"]
