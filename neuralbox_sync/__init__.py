"""
The blocking SDK of NeuralBox: `NeuralBox`, what it returns, and all that is public in `neuralbox_async`.

    with neuralbox_sync.NeuralBox() as client:
        print(client.generate("gpt-5", "Write a haiku").content)
"""

import neuralbox_async
from neuralbox_async import *  # noqa: F403 - a user who blocks should not need two packages
from neuralbox_sync._client import NeuralBox
from neuralbox_sync._stream import Batch, Stream

__all__ = ["Batch", "NeuralBox", "Stream"]
__all__ += neuralbox_async.__all__
