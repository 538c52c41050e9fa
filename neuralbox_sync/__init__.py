"""
The blocking SDK of NeuralBox, a text-generation API.

    from neuralbox_sync import NeuralBox

    with NeuralBox() as client:
        print(client.generate("gpt-5", "Write a haiku").content)

Errors, types and options are those of `neuralbox_async`; its public names are public here as well.
"""

import neuralbox_async
from neuralbox_async import *  # noqa: F403 - a user who blocks should not need two packages
from neuralbox_sync._client import NeuralBox
from neuralbox_sync._stream import Stream

__all__ = ["NeuralBox", "Stream"]
__all__ += neuralbox_async.__all__
