"""`Attributions`: what is in a run's folder."""

from __future__ import annotations

import dataclasses
import html
import os
import pathlib
from typing import Any

import numpy as np

from jaxlrp import errors
from jaxlrp.runs import (
    _manifest,
    _markers,
    _pictures,
    _reductions,
    _schedule,
    _source,
    _store,
)


@dataclasses.dataclass(frozen=True)
class Lazy:
    """An array of a run, read where it is indexed.

    Attributes:
      run: the run.
      name: the array's.
      shape: rows in front. Of a stream that has not ended, as many as are done.
      dtype: of its numbers.
    """

    run: Attributions
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if rows is Ellipsis or rows is None:
            raise IndexError(f"got {key!r}, expected rows first")
        values = self.run.read(self.name, rows)
        lead = () if isinstance(rows, int | np.integer) else (slice(None),)
        return values[(*lead, *rest)] if rest else values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)


class Attributions:
    """A run's folder, read while it is written or when it is complete.

    What is not done is never returned: a row that is asked for too early is an error.

    Args:
      path: the folder.

    Raises:
      FileNotFoundError: if there is no run in it.
      StoreError: if it cannot be read.

    Examples:
      >>> import tempfile, numpy as np, jax, jaxlrp
      >>> with tempfile.TemporaryDirectory() as out:
      ...     data = np.ones((6, 3), np.float32)
      ...     _ = jaxlrp.runs.attribute(jax.jit(lambda x: 2 * x), data, out)
      ...     run = jaxlrp.runs.Attributions(out)
      ...     run.names, run["relevance"].shape, run.complete
      (('relevance',), (6, 3), True)
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path: pathlib.Path = pathlib.Path(os.fspath(path))
        self._manifest = _manifest.read(self.path)
        specs = [
            _store.Spec(**{**spec, "shape": tuple(spec["shape"])})
            for spec in self._manifest["arrays"]
        ]
        self._specs = {spec.name: spec for spec in specs}
        self._opened: dict[str, _store.Array] = {}
        self._whole: set[tuple[str, int]] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays."""
        return tuple(self._specs)

    @property
    def reductions(self) -> tuple[str, ...]:
        """The reductions."""
        return tuple(self._manifest["reduce"])

    @property
    def identity(self) -> dict[str, Any]:
        """What the run was made with: hashes, versions, options."""
        return dict(self._manifest["identity"])

    @property
    def rows(self) -> int | None:
        """The dataset's; None for a stream that has not come to its end."""
        known = self._manifest["rows"]
        return _manifest.read_end(self.path) if known is None else known

    @property
    def block(self) -> int:
        """Rows of a block."""
        return self._manifest["block"]

    def __repr__(self) -> str:
        done, rows = len(self.done()), self.rows
        of = "an unknown number" if rows is None else _schedule.blocks(rows, self.block)
        return f"Attributions({str(self.path)!r}): {done} of {of} blocks done"

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def __getitem__(self, name: str) -> Lazy:
        spec = self._spec(name)
        rows = self.rows
        if rows is None:
            rows = max((b + 1 for b in self.done()), default=0) * self.block
        dtype = np.dtype(spec.dtype) if spec.dtype != "bfloat16" else _bfloat16()
        return Lazy(self, name, (rows, *spec.shape), dtype)

    def done(self, *, verify: bool = False) -> tuple[int, ...]:
        """The numbers of the blocks that are done.

        Args:
          verify: whether the blocks are read and compared with their checksums, not
            only their sizes.
        """
        arrays = {name: self._array(name) for name in self.names}
        return tuple(_markers.whole(self.path, arrays, verify=verify))

    @property
    def complete(self) -> bool:
        """Are all blocks done?"""
        rows = self.rows
        return rows is not None and len(self.done()) == _schedule.blocks(
            rows, self.block
        )

    def read(self, name: str, rows: Any = slice(None)) -> np.ndarray:
        """Some rows of an array.

        Args:
          name: the array's.
          rows: a number, a slice, or an array of numbers or of booleans.

        Returns:
          The rows, (rows, ...), or the row of a number.

        Raises:
          IndexError: for rows that there are not, or that are not done.
          StoreError: for a block that is broken.
        """
        array, length = self._array(name), len(self[name])
        wanted = np.arange(length)[rows]
        flat = wanted.reshape(-1)
        numbers = np.unique(flat // self.block).tolist()
        missing = [b for b in numbers if not self._is_done(name, b)]
        if missing:
            raise IndexError(
                f"rows: got some of block {missing[0]}, rows {missing[0] * self.block} "
                f"to {(missing[0] + 1) * self.block - 1}, which is not done; "
                f"`done()` has those that are"
            )
        found = np.empty((len(flat), *array.spec.shape), self[name].dtype)
        for start, stop in _spans(flat):
            found[start:stop] = array.read(flat[start], flat[stop - 1] + 1)
        return found.reshape((*np.shape(wanted), *array.spec.shape))

    def join(self, source: Any, rows: Any = slice(None)) -> tuple[Any, dict[str, Any]]:
        """Rows of the dataset, and what the run has of them.

        Args:
          source: the dataset, of known length.
          rows: as for `read`.

        Returns:
          `(batch, {name: array})`, both with the rows in front.

        Raises:
          ValueError: if the dataset has another length.
        """
        opened = _source.open_source(source)
        if opened.length is None or opened.length != self.rows:
            raise ValueError(f"source: got {opened.length} rows, expected {self.rows}")
        wanted = np.arange(opened.length)[rows].reshape(-1)
        batch = opened.batch(wanted) if len(wanted) else []
        return batch, {name: self.read(name, wanted) for name in self.names}

    def reduced(
        self,
        name: str,
        *,
        by: _reductions.Reduction | None = None,
        partial: bool = False,
    ) -> dict[str, np.ndarray]:
        """What the dataset's results come to.

        Args:
          name: the reduction's.
          by: the reduction, where it is none of jaxlrp's.
          partial: whether the blocks that are done will do.

        Raises:
          KeyError: if there is no such reduction.
          RunError: if blocks are missing.
        """
        known = self._manifest["reduce"]
        if name not in known:
            raise KeyError(f"name: got {name!r}, expected one of {tuple(known)}")
        if not partial and not self.complete:
            raise errors.RunError(
                f"reduced: {self!r}; partial=True is content with these"
            )
        reduction = by or _reductions.known(name, known[name])
        markers = (_markers.read(self.path, number) for number in self.done())
        states = (marker.states[name] for marker in markers if marker is not None)
        return _reductions.merged(reduction, states)

    def _spec(self, name: str) -> _store.Spec:
        if name not in self._specs:
            raise KeyError(f"name: got {name!r}, expected one of {self.names}")
        return self._specs[name]

    def _array(self, name: str) -> _store.Array:
        spec = self._spec(name)
        if name not in self._opened:
            self._opened[name] = _store.open_array(
                self.path, spec, self.rows or _store.ENDLESS, create=False
            )
        return self._opened[name]

    def _is_done(self, name: str, number: int) -> bool:
        """Is a block there? What was once stays so."""
        if (name, number) not in self._whole:
            marker = _markers.read(self.path, number)
            arrays = {name: self._array(name)}
            if not _markers.is_whole(marker, arrays, verify=False):
                return False
            self._whole.add((name, number))
        return True

    def _repr_html_(self) -> str:
        lines = [html.escape(repr(self))]
        for name in self.names:
            array = self[name]
            lines.append(html.escape(f"{name}: {array.dtype.name} {array.shape}"))
            if (picture := self._picture(name)) is not None:
                lines.append(picture)
        return "<div>" + "<br>".join(lines) + "</div>"

    def _picture(self, name: str, count: int = 8) -> str | None:
        """The first rows of an array that looks like images; None of any other."""
        shape = self._spec(name).shape
        channels = len(shape) == 3 and shape[-1] <= 4
        if not self._is_done(name, 0) or not (len(shape) == 2 or channels):
            return None
        rows = self.read(name, slice(0, min(count, self.block, len(self[name]))))
        maps = rows.astype(np.float32).sum(-1) if channels else rows
        return _pictures.maps(maps.astype(np.float32), name)


def _spans(rows: np.ndarray) -> list[tuple[int, int]]:
    """The places where rows follow each other, so that they are read at once."""
    if not len(rows):
        return []
    cuts = np.nonzero(np.diff(rows) != 1)[0] + 1
    edges = [0, *cuts.tolist(), len(rows)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _bfloat16() -> np.dtype:
    import jax.numpy as jnp

    return np.dtype(jnp.bfloat16)
