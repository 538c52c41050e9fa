"""The blocking SDK of NeuralBox: `NeuralBox`, what its methods return, and all that is public in `neuralbox_async`."""

import neuralbox_async
from neuralbox_async import *  # noqa: F403 - a user who blocks should not need two packages
from neuralbox_sync._client import NeuralBox
from neuralbox_sync._stream import Batch, Stream

__all__ = ["Batch", "NeuralBox", "Stream"]
__all__ += neuralbox_async.__all__
