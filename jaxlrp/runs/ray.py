"""Runs on a cluster of Ray: it deals out blocks, and starts again what died.

Ray Data hands blocks' numbers to workers; each worker explains its blocks and writes
them into the same store as `attribute`, with the same markers. So what Ray began
`attribute` can go on with, and the other way round. Needs `pip install jaxlrp[ray]`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from jaxlrp.runs._attribute import attribute as _attribute
from jaxlrp.runs._attributions import Attributions

__all__ = ["attribute"]


def attribute(
    make: Callable[[], tuple[Callable[[Any], Any], Any]],
    out: str | os.PathLike[str],
    *,
    workers: int,
    options: dict[str, Any] | None = None,
    resources: dict[str, Any] | None = None,
) -> Attributions:
    """Explains a dataset with workers of Ray Data.

    Args:
      make: returns `(explain, source)` as `jaxlrp.runs.attribute` takes them. It is
        called once by each worker: weights and data are loaded where they are used.
      out: the folder, on a file system that all workers see.
      workers: how many; each explains the blocks of one shard.
      options: other arguments of `jaxlrp.runs.attribute`.
      resources: of each worker, such as `{"num_gpus": 1}`, for Ray's `map_batches`.

    Returns:
      The folder's content, complete.

    Raises:
      ValueError: if `workers` is not positive.
      RunError: if blocks are missing at the end.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise ValueError(f"workers: got {workers!r}, expected a positive int")
    import numpy as np
    from ray import data  # pyright: ignore

    path = os.path.abspath(os.fspath(out))
    given = {"progress": False, **(options or {})}

    def explained(batch: dict[str, Any]) -> dict[str, Any]:
        explain, source = make()
        for shard in batch["id"]:
            _attribute(explain, source, path, shard=(int(shard), workers), **given)
        return {"id": np.asarray(batch["id"])}

    shards: Any = data.range(workers, override_num_blocks=workers)
    shards.map_batches(
        explained, batch_size=1, concurrency=workers, **(resources or {})
    ).materialize()
    found = Attributions(path)
    if not found.complete:
        from jaxlrp import errors

        raise errors.RunError(f"out: {found!r}, though all workers have ended")
    return found
