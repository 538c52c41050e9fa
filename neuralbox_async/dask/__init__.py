"""
Batches on a Dask cluster: one account limit, one budget and one journal for all workers (extra ``dask``).

`generate` starts the coordinator as an actor of the cluster and has the rows run by its workers.
"""

from __future__ import annotations

from neuralbox_async._cluster.row_results import RowResult
from neuralbox_async._cluster.service import ClusterReport
from neuralbox_async.dask._batch import DaskBatch
from neuralbox_async.dask._generate import generate

__all__ = ["ClusterReport", "DaskBatch", "RowResult", "generate"]
