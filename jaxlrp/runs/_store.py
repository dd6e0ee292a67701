"""The arrays of a run: Zarr version 3, written and read by TensorStore.

A block is a file of its own, which TensorStore puts in its place whole. Inside of it
rows are in inner chunks, each with its checksum, so that few rows are read quickly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import pathlib
import zlib
from typing import Any

import numpy as np

from jaxlrp import _files, errors

FOLDER = "arrays"
INNER = 2**17
"""Bytes of an inner chunk at most, if a row is not larger."""
ENDLESS = 2**40
"""The length of an array of a stream that has not ended."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """An array of the store.

    Attributes:
      name: its path below `arrays/`.
      shape: of one row.
      dtype: by NumPy's name, or `"bfloat16"`.
      block: rows in a file.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    block: int

    @property
    def row_bytes(self) -> int:
        """Of one row."""
        return math.prod(self.shape) * itemsize(self.dtype)

    @property
    def inner(self) -> int:
        """Rows of an inner chunk: a divisor of the block's."""
        wanted = max(1, INNER // max(1, self.row_bytes))
        return max(
            d for d in range(1, min(wanted, self.block) + 1) if not self.block % d
        )

    def file(self, number: int) -> str:
        """The file of a block, below the array's folder."""
        return "/".join(["c", str(number), *("0" for _ in self.shape)])


def itemsize(dtype: str) -> int:
    """Bytes of a number."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def metadata(spec: Spec, rows: int) -> dict[str, Any]:
    """What Zarr says of an array."""
    floating = "float" in spec.dtype or "complex" in spec.dtype
    fill: Any = "NaN" if "float" in spec.dtype else ["NaN", "NaN"] if floating else 0
    if spec.dtype == "bool":
        fill = False
    raw = {"name": "bytes", "configuration": {"endian": "little"}}
    if itemsize(spec.dtype) == 1:
        raw = {"name": "bytes"}
    packed = [raw, {"name": "zstd", "configuration": {"level": 1}}, {"name": "crc32c"}]
    index = {"name": "bytes", "configuration": {"endian": "little"}}
    return {
        "shape": [rows, *spec.shape],
        "data_type": spec.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [spec.block, *spec.shape]},
        },
        "codecs": [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [spec.inner, *spec.shape],
                    "codecs": packed,
                    "index_codecs": [index, {"name": "crc32c"}],
                },
            }
        ],
        "fill_value": fill,
    }


@dataclasses.dataclass(frozen=True)
class Array:
    """An open array of the store.

    Attributes:
      spec: what is in it.
      folder: where.
      handle: TensorStore's.
    """

    spec: Spec
    folder: pathlib.Path
    handle: Any

    def write(self, number: int, values: np.ndarray) -> None:
        """Writes a block.

        Raises:
          StoreError: if it cannot be written.
        """
        path = self.folder / self.spec.file(number)
        start = number * self.spec.block
        try:
            # What is there is broken or of the same rows: a part of it is not merged.
            path.unlink(missing_ok=True)
            self.handle[start : start + len(values)].write(values).result()
        except (ValueError, OSError) as error:
            raise _failed(f"block {number}", self, "written", error) from error

    def read(self, start: int, stop: int) -> np.ndarray:
        """Some rows.

        Raises:
          StoreError: if they cannot be read, or what is read is not what was written.
        """
        try:
            return self.handle[start:stop].read().result()
        except (ValueError, OSError) as error:
            rows = f"rows {start} to {stop - 1}"
            raise _failed(rows, self, "read", error) from error

    def size(self, number: int) -> int:
        """Bytes of a block's file, -1 where there is none."""
        try:
            return (self.folder / self.spec.file(number)).stat().st_size
        except OSError:
            return -1

    def end(self, rows: int) -> None:
        """Sets the length, where a stream has come to its end."""
        path = self.folder / "zarr.json"
        content = json.loads(path.read_bytes())
        content["shape"][0] = rows
        _files.write(path, json.dumps(content).encode())


def open_array(
    root: pathlib.Path, spec: Spec, rows: int, *, create: bool, sync: bool = False
) -> Array:
    """Opens an array of a run.

    Args:
      root: the run's folder.
      spec: the array.
      rows: its length.
      create: whether one that is not there is made, and may be written.
      sync: whether a block that was written is on the disk.

    Raises:
      StoreError: if it cannot be opened.
    """
    import tensorstore as ts

    folder = root / FOLDER / spec.name
    context = {
        "cache_pool": {"total_bytes_limit": 0},
        "data_copy_concurrency": {"limit": 1},
        "file_io_sync": sync,
    }
    options: dict[str, Any] = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder}/"},
    }
    if create:
        _make_groups(root / FOLDER, spec.name)
        # A block of nothing but the fill value is a file, too: what is missing is lost.
        options |= {"store_data_equal_to_fill_value": True}
        if not (folder / "zarr.json").exists():
            options |= {"metadata": metadata(spec, rows)}
    try:
        handle = ts.open(
            options,
            context=ts.Context(context),
            open=True,
            create=create,
            read=None if create else True,
        ).result()
    except (ValueError, OSError) as error:
        raise errors.StoreError(f"out: {folder} cannot be opened: {error}") from error
    return Array(spec, folder, handle)


def _make_groups(folder: pathlib.Path, name: str) -> None:
    """Zarr's groups that an array is in."""
    content = json.dumps({"zarr_format": 3, "node_type": "group"}).encode()
    for part in (*reversed(pathlib.PurePath(name).parents),):
        with contextlib.suppress(FileExistsError):
            _files.write(folder / part / "zarr.json", content, folders=True, new=True)


def checksum(values: np.ndarray) -> int:
    """Of an array's content."""
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8))


def _failed(part: str, array: Array, what: str, error: Exception) -> errors.StoreError:
    told = str(error).split(" [source locations")[0]
    name = array.spec.name
    return errors.StoreError(f"out: {part} of {name!r} cannot be {what}: {told}")
