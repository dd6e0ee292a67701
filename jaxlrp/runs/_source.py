"""Datasets as the runner reads them: arrays, sequences of rows, streams, files."""

from __future__ import annotations

import collections.abc
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

EXPECTED = (
    "a pytree of arrays, something with __len__ and __getitem__, a function that "
    "returns an iterator, or a path"
)
IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LENGTH = "length"
"""What the rows' lengths are called in a batch and in the store."""


@dataclasses.dataclass(frozen=True)
class Arrays:
    """Rows along the first axis of arrays.

    Attributes:
      tree: of arrays; they are read by slices, so that a memmap stays on the disk.
      length: the number of rows.
    """

    tree: Any
    length: int

    def batch(self, indices: np.ndarray) -> Any:
        """Some rows, stacked."""
        return jax.tree.map(lambda a: _taken(a, indices), self.tree)

    def rows(self, indices: np.ndarray) -> list[Any]:
        """Some rows, one by one."""
        batch = self.batch(indices)
        return [jax.tree.map(lambda a, i=i: a[i], batch) for i in range(len(indices))]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows that are asked for by number: datasets of grain, torch, Hugging Face.

    Attributes:
      data: has `__getitem__`, or also `__getitems__` for several at once.
      length: the number of rows.
    """

    data: Any
    length: int

    def batch(self, indices: np.ndarray) -> Any:
        """Some rows, stacked."""
        return stacked(self.rows(indices))

    def rows(self, indices: np.ndarray) -> list[Any]:
        """Some rows, one by one; one that is wanted twice is read once."""
        unique, back = np.unique(indices, return_inverse=True)
        wanted = [int(i) for i in unique]
        if hasattr(self.data, "__getitems__"):
            found = self.data.__getitems__(wanted)
            sized = hasattr(found, "__len__")
            keyed = isinstance(found, collections.abc.Mapping)
            if not sized or keyed or len(found) != len(wanted):
                count = f" with {len(found)} elements" if sized else ""
                raise TypeError(
                    f"source: its __getitems__ of {len(wanted)} numbers returned "
                    f"{_kind(found)}{count}, expected a list of as many rows"
                )
        else:
            found = [self.data[i] for i in wanted]
        return [found[i] for i in back]


@dataclasses.dataclass(frozen=True)
class Stream:
    """Rows that come one after the other, nobody knows how many.

    Attributes:
      start: a function without arguments that returns an iterator of rows; the same
        ones each time.
    """

    start: Callable[[], Iterator[Any]]
    length: None = None


Source = Arrays | Rows | Stream


@dataclasses.dataclass(frozen=True)
class Buckets:
    """Rows of different lengths, such as tokens: each padded to one of a few lengths.

    All rows of a call have one length, so that a program is compiled for each of
    `lengths` and no more. A row is a dict of arrays, whose first axes are as long as
    the row; the batch that is explained has `"length"` beside them, int32 (rows,). In
    the store arrays are as long as the longest bucket, with NaN or zero at the end,
    and `"length"` is one of them.

    Attributes:
      source: as for `attribute`, of dicts.
      lengths: of the buckets, in ascending order.
      pad: what a row is filled up with.
      names: the arrays that are as long as the row; None: all that have an axis.

    Raises:
      ValueError: if the lengths are not positive and ascending.

    Examples:
      >>> from jaxlrp import runs
      >>> texts = [{"ids": [4, 8, 15]}, {"ids": [16]}]
      >>> runs.Buckets(texts, (2, 4)).lengths
      (2, 4)
    """

    source: Any
    lengths: tuple[int, ...]
    pad: int = 0
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        lengths = tuple(self.lengths)
        if not lengths or lengths[0] < 1 or list(lengths) != sorted(set(lengths)):
            raise ValueError(
                f"lengths: got {self.lengths!r}, expected positive ones, ascending"
            )
        object.__setattr__(self, "lengths", lengths)

    def is_ragged(self, name: str, value: np.ndarray) -> bool:
        """Is an array of a row as long as the row?"""
        return value.ndim > 0 and (self.names is None or name in self.names)

    def length_of(self, row: dict[str, np.ndarray]) -> int:
        """The length of a row.

        Raises:
          ValueError: if its arrays have several, or none has one.
        """
        found = {len(v) for n, v in row.items() if self.is_ragged(n, v)}
        if len(found) != 1:
            raise ValueError(
                f"source: got a row with arrays of lengths {sorted(found)}, expected "
                "one length; `names` of Buckets says which arrays have it"
            )
        return found.pop()

    def batch(self, rows: Sequence[dict[str, np.ndarray]], bucket: int) -> Any:
        """Rows as arrays of one length."""
        lengths = np.array([self.length_of(row) for row in rows], np.int32)

        def padded(name: str, value: np.ndarray) -> np.ndarray:
            if not self.is_ragged(name, value):
                return value
            widths = [(0, bucket - len(value))] + [(0, 0)] * (value.ndim - 1)
            return np.pad(value, widths, constant_values=self.pad)

        batch = stacked([{n: padded(n, v) for n, v in row.items()} for row in rows])
        return {**batch, LENGTH: lengths}


def as_dicts(rows: Sequence[Any]) -> list[dict[str, np.ndarray]]:
    """Rows for buckets: dicts of arrays.

    Raises:
      TypeError: for another row, or one that has a length of its own.
    """
    for row in rows:
        if not isinstance(row, collections.abc.Mapping) or LENGTH in row:
            raise TypeError(
                f"source: got a row {_kind(row)}, expected a dict of arrays for "
                f"Buckets, without {LENGTH!r}"
            )
    return [{str(n): np.asarray(v) for n, v in row.items()} for row in rows]


def open_source(source: Any) -> Source:
    """A dataset in one of the three forms that can be read.

    Args:
      source: as for `attribute`.

    Raises:
      TypeError: for something else.
      ValueError: for arrays that do not have one length.
      OSError: for a file that is not there.
    """
    if isinstance(source, Arrays | Rows | Stream):
        return source
    if isinstance(source, str | os.PathLike):
        return _of_path(pathlib.Path(source))
    if _is_array(source) or isinstance(source, dict | tuple):
        return _of_arrays(source)
    if isinstance(source, collections.abc.Mapping):  # an NpzFile reads when asked
        return _of_arrays({name: source[name] for name in source})
    if hasattr(source, "__getitem__") and hasattr(source, "__len__"):
        return Rows(source, len(source))
    if callable(source):
        start: Any = source
        return Stream(start)
    raise TypeError(f"source: got {_kind(source)}, expected {EXPECTED}")


def _of_arrays(tree: Any) -> Arrays:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for path, leaf in leaves:
        if not _is_array(leaf) or not leaf.shape:
            where = jax.tree_util.keystr(path)
            raise TypeError(f"source{where}: got {_kind(leaf)}, expected an array")
    lengths = {jax.tree_util.keystr(path): leaf.shape[0] for path, leaf in leaves}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"source: got arrays of {lengths} rows, expected one number")
    return Arrays(tree, leaves[0][1].shape[0])


def _of_path(path: pathlib.Path) -> Source:
    kind = path.suffix.lower()
    if not path.exists():
        raise FileNotFoundError(f"source: got {str(path)!r}, which is not there")
    if path.is_dir():
        return _of_images(path)
    if kind == ".npy":
        return _of_arrays(np.load(path, mmap_mode="r", allow_pickle=False))
    if kind == ".npz":
        with np.load(path, allow_pickle=False) as file:
            return _of_arrays(dict(file))
    if kind in (".array_record", ".arrayrecord"):
        return _of_records(path)
    if kind == ".parquet":
        return _of_parquet(path)
    raise ValueError(
        f"source: got {str(path)!r}, expected .npy, .npz, .array_record, .parquet or a "
        "folder of images"
    )


@dataclasses.dataclass(frozen=True)
class _Images:
    """Images in files, uint8 (height, width, channels)."""

    paths: tuple[pathlib.Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> np.ndarray:
        from PIL import Image

        with Image.open(self.paths[i]) as image:
            return np.asarray(image.convert("RGB"))


def _of_images(folder: pathlib.Path) -> Rows:
    paths = tuple(sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGES))
    if not paths:
        raise ValueError(f"source: got {str(folder)!r}, a folder without images")
    return Rows(_Images(paths), len(paths))


@dataclasses.dataclass(frozen=True)
class _Records:
    """Records that hold the bytes of .npy or .npz files each."""

    data: Any

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> Any:
        import io

        found = np.load(io.BytesIO(self.data[i]), allow_pickle=False)
        return found if isinstance(found, np.ndarray) else dict(found)


def _of_records(path: pathlib.Path) -> Rows:
    from grain import sources  # pyright: ignore[reportMissingImports]

    records = _Records(sources.ArrayRecordDataSource([str(path)]))
    return Rows(records, len(records))


def _of_parquet(path: pathlib.Path) -> Stream:
    from grain import experimental  # pyright: ignore[reportMissingImports]

    return Stream(lambda: iter(experimental.ParquetIterDataset(str(path))))


def stacked(rows: Sequence[Any]) -> Any:
    """Rows as one pytree of arrays.

    Raises:
      ValueError: for rows of different structures or shapes.
      TypeError: for a value that is no number.
    """
    trees = [jax.tree.map(np.asarray, row, is_leaf=_is_list) for row in rows]
    try:
        batch = jax.tree.map(lambda *values: np.stack(values), *trees)
    except ValueError as error:
        raise ValueError(
            f"source: got rows that do not have one structure and shape: {error}. "
            "`runs.Buckets` takes rows of different lengths"
        ) from error
    for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]:
        if leaf.dtype.kind not in "biufcV" or leaf.dtype.hasobject:
            where = jax.tree_util.keystr(path)
            raise TypeError(
                f"source: got rows with {leaf.dtype} at {where or 'the top'}, expected "
                "numbers; what is not explained has to be left out of the rows"
            )
    return batch


def _is_list(value: Any) -> bool:
    return isinstance(value, list)


def _taken(array: Any, indices: np.ndarray) -> np.ndarray:
    """Some rows of an array: what follows each other is read at once."""
    first, last = int(indices[0]), int(indices[-1])
    span = last - first + 1
    if 0 < span <= len(indices) and _follow(indices, first, span):
        found = np.array(array[first : last + 1])
        missing = len(indices) - span
        return np.concatenate([found, found[[-1] * missing]]) if missing else found
    return np.asarray(array[indices])


def _follow(indices: np.ndarray, first: int, span: int) -> bool:
    """Do rows follow each other, the last one perhaps again and again?"""
    expected = np.minimum(np.arange(len(indices)), span - 1) + first
    return bool((indices == expected).all())


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _kind(value: Any) -> str:
    return f"one of type {type(value).__name__}"
