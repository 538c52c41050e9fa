"""The blocking SDK of NeuralBox: `NeuralBox`, its streams and batches, and the public names of `neuralbox_async`."""

import neuralbox_async
from neuralbox_async import *  # noqa: F403 - blocking code should not need two packages
from neuralbox_sync._client import NeuralBox
from neuralbox_sync._history import History
from neuralbox_sync._stream import Batch, Stream

__all__ = ["Batch", "History", "NeuralBox", "Stream"]
__all__ += neuralbox_async.__all__
