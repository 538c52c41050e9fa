"""
Batches on a Ray cluster: one account limit, one budget and one journal for all workers (extra ``ray``).

`generate` adds the results to a dataset; `RayBatch` and `RowGenerator` do so in a ``map_batches`` of your own.
"""

from __future__ import annotations

from neuralbox_async._cluster.service import ClusterReport
from neuralbox_async.ray._batch import RayBatch, generate
from neuralbox_async.ray._worker import RowGenerator

__all__ = ["ClusterReport", "RayBatch", "RowGenerator", "generate"]
