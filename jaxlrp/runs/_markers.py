"""`done/00000017.npz`: written last, so that a block with a marker is whole."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from jaxlrp import _files, errors
from jaxlrp.runs import _store

FOLDER = "done"
_NUMBER = re.compile(r"(\d{8,})\.npz")
State = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Marker:
    """What is known of a block that is done.

    Attributes:
      number: the block's.
      start: its first row.
      stop: the first row that is not in it.
      sizes: by array, bytes of the block's file.
      checksums: by array, of the block's values.
      states: by reduction, what it made of the block.
    """

    number: int
    start: int
    stop: int
    sizes: dict[str, int]
    checksums: dict[str, int]
    states: dict[str, State]


def path_of(root: pathlib.Path, number: int) -> pathlib.Path:
    """Where a block's marker is."""
    return root / FOLDER / f"{number:08d}.npz"


def write(root: pathlib.Path, marker: Marker, *, sync: bool) -> None:
    """Says that a block is done.

    Raises:
      StoreError: if that cannot be written.
    """
    content = {
        "rows": np.array([marker.start, marker.stop]),
        **{f"size:{n}": np.array(v) for n, v in marker.sizes.items()},
        **{f"checksum:{n}": np.array(v) for n, v in marker.checksums.items()},
        **{
            f"state:{name}:{key}": value
            for name, state in marker.states.items()
            for key, value in state.items()
        },
    }
    buffer = io.BytesIO()
    np.savez(buffer, **content)  # pyright: ignore[reportArgumentType]
    try:
        _files.write(
            path_of(root, marker.number), buffer.getvalue(), folders=True, sync=sync
        )
    except OSError as error:
        raise errors.StoreError(
            f"out: the marker of block {marker.number} cannot be written: {error}"
        ) from error


def read(root: pathlib.Path, number: int) -> Marker | None:
    """The marker of a block; None where there is none, or half of one."""
    try:
        # As bytes: `np.load` leaves a file open that it cannot read.
        content = io.BytesIO(path_of(root, number).read_bytes())
        with np.load(content, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
        start, stop = found.pop("rows").tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    sizes: dict[str, int] = {}
    checksums: dict[str, int] = {}
    states: dict[str, State] = {}
    for name, value in found.items():
        kind, _, rest = name.partition(":")
        if kind == "size":
            sizes[rest] = int(value)
        elif kind == "checksum":
            checksums[rest] = int(value)
        else:
            reduction, _, key = rest.rpartition(":")
            states.setdefault(reduction, {})[key] = value
    return Marker(number, start, stop, sizes, checksums, states)


def numbers(root: pathlib.Path) -> list[int]:
    """The blocks that have a marker, in order."""
    try:
        names = [path.name for path in (root / FOLDER).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(m[1]) for name in names if (m := _NUMBER.fullmatch(name)))


def is_whole(
    marker: Marker | None, arrays: Mapping[str, _store.Array], *, verify: bool
) -> bool:
    """Is a block there, as far as sizes tell, or with `verify` its values?"""
    if marker is None:
        return False
    if any(
        array.size(marker.number) != marker.sizes.get(name, -2)
        for name, array in arrays.items()
    ):
        return False
    if not verify:
        return True
    try:
        return all(
            _store.checksum(array.read(marker.start, marker.stop))
            == marker.checksums[name]
            for name, array in arrays.items()
        )
    except errors.StoreError:
        return False


def whole(
    root: pathlib.Path,
    arrays: Mapping[str, _store.Array],
    wanted: Callable[[int], bool] = lambda number: True,
    *,
    verify: bool = False,
) -> Sequence[int]:
    """The blocks that are done, in order, of those that are wanted."""
    return [
        number
        for number in numbers(root)
        if wanted(number) and is_whole(read(root, number), arrays, verify=verify)
    ]
