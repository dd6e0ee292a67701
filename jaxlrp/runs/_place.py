"""Where calls are computed: on the local devices in turn, or each over a mesh."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


@dataclasses.dataclass(frozen=True)
class Place:
    """How batches get to devices, and results from them.

    Attributes:
      rows: of a call.
      width: calls that are computed at the same time.
      put: from a batch and the number of its call to arrays on devices.
      get: from an array on devices to one of NumPy, with all rows.
      shared: whether all processes take part in each call.
      device: one of the devices.
    """

    rows: int
    width: int
    put: Callable[[Any, int], Any]
    get: Callable[[Any], np.ndarray]
    shared: bool
    device: Any


def place(mesh: Any, batch_size: int) -> Place:
    """Where the calls of a run are computed.

    Args:
      mesh: None for all local devices in turn, a sequence of devices for those, or a
        mesh, over whose first axis the rows of each call are spread.
      batch_size: rows for each device and call.

    Raises:
      TypeError: for anything else.
    """
    if isinstance(mesh, Mesh):
        return _spread(mesh, batch_size)
    devices = jax.local_devices() if mesh is None else mesh
    ok = isinstance(devices, Sequence) and len(devices)
    if not ok or not all(isinstance(d, jax.Device) for d in devices):
        raise TypeError(
            f"mesh: got {mesh!r}, expected None, a mesh or a sequence of devices"
        )

    # What `jit` is given on the host it puts there itself, in less time.
    usual = jax.config.jax_default_device or jax.local_devices()[0]
    alone = len(devices) == 1 and devices[0] == usual

    def put(batch: Any, number: int) -> Any:
        if alone:
            return batch
        return jax.device_put(batch, devices[number % len(devices)])

    return Place(batch_size, len(devices), put, np.asarray, False, devices[0])


def _spread(mesh: Mesh, batch_size: int) -> Place:
    axis = mesh.axis_names[0]
    sharding = NamedSharding(mesh, PartitionSpec(axis))

    def put(batch: Any, number: int) -> Any:
        return jax.tree.map(
            lambda x: jax.make_array_from_callback(
                x.shape, sharding, lambda index: x[index]
            ),
            batch,
        )

    def get(x: Any) -> np.ndarray:
        if x.is_fully_addressable or x.is_fully_replicated:
            return np.asarray(x)
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(x, tiled=True))

    rows = batch_size * mesh.shape[axis]
    device = mesh.devices.flat[0]
    return Place(rows, 1, put, get, jax.process_count() > 1, device)
