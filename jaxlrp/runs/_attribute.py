"""`attribute`: a dataset's relevances, written so that nothing that is done is lost."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxlrp import errors
from jaxlrp._arguments import flag, function
from jaxlrp.runs import (
    _identity,
    _lock,
    _manifest,
    _markers,
    _place,
    _progress,
    _reductions,
    _schedule,
    _source,
    _store,
    _threads,
    _tiles,
)
from jaxlrp.runs._attributions import Attributions


def attribute(
    explain: Callable[[Any], Any],
    source: Any,
    out: str | os.PathLike[str],
    *,
    batch_size: int = 128,
    block: int | None = None,
    mesh: Any = None,
    shard: tuple[int, int] | None = None,
    write: Sequence[str] | None = None,
    reduce: Mapping[str, _reductions.Reduction] | None = None,
    dtype: Any = None,
    progress: Any = None,
    resume: bool = True,
    verify: bool = False,
    ahead: int = 2,
    sync: bool = False,
) -> Attributions:
    """Explains a whole dataset and writes what comes out of it into a folder.

    Rows go through `explain` in batches of one size, on all local devices in turn.
    Results are written in blocks of rows, each whole or not at all. The same command
    again goes on where it was interrupted, whatever interrupted it, and ends with the
    same bits. It is also the command of each of several processes, which do not talk to
    each other. `docs/datasets.md` says what is guaranteed, and what is in the folder.

    Args:
      explain: from a batch to a pytree of arrays with the rows in front, under
        `jax.jit`. The results' names are the keys: `{"relevance": ...}`; a single array
        is called `"relevance"`.
      source: the dataset: a pytree of arrays or memmaps (a tuple, a dict, an
        `NpzFile`), with the rows in front; something with `__len__` and `__getitem__`
        that returns a row, such as a dataset of grain, torch or Hugging Face; a
        function that returns an iterator of rows, always the same ones; `Buckets` of
        one of these; or a path, of a .npy or .npz file, a folder of images,
        ArrayRecord or Parquet.
      out: the folder, which is made. Another run that is in it is an error.
      batch_size: rows for each device and call. Results depend on it in the last bits.
      block: rows that are written at once, a multiple of `batch_size`. A process that
        is killed loses the blocks that it has in hand: three, and those on their way
        through the devices.
      mesh: None for all local devices in turn, a sequence of devices for those, or a
        mesh, over whose first axis the rows of each call are spread: for models that
        need more than one device.
      shard: `(i, n)` for the blocks whose number leaves i when divided by n. None for
        this process's part of JAX's processes.
      write: the results that are kept row by row; None for all. Others may still be
        reduced.
      reduce: by name, what the whole dataset's results come to: `ClassMeans`,
        `Moments`, `Histogram`, `Top` or another `Reduction`.
      dtype: floating results are written in this one.
      progress: None for a bar where standard error is a terminal, True or False, or a
        function of a `Progress` that is called after each block.
      resume: whether to go on with a run that is in the folder; else it is an error.
      verify: whether blocks that are done are read and compared with their checksums
        first, and those that are broken done again.
      ahead: batches that are read in advance, and calls on their way for each device.
      sync: whether a block is on the disk before it counts as done. Without it, what
        was done is safe from the process's end, but not from a loss of power.

    Returns:
      The folder's content, complete or, with several shards, as far as it is there.

    Raises:
      OtherRunError: if the folder holds a run of another program, other weights, data,
        versions or options. The message names what differs.
      BusyError: if another process works on the shard.
      StoreError: if something cannot be written.
      ValueError: if an argument does not fit.
      TypeError: if an argument is of another kind.

    Examples:
      >>> import tempfile, jax, jax.numpy as jnp, numpy as np, jaxlrp
      >>> w = np.ones((3, 2), np.float32)
      >>> explain = jax.jit(lambda x: jaxlrp.lrp(lambda w, x: x @ w)(w, x))
      >>> data = np.ones((10, 3), np.float32)
      >>> with tempfile.TemporaryDirectory() as out:
      ...     run = jaxlrp.runs.attribute(explain, data, out, batch_size=4)
      ...     run.complete, run["relevance"][8:].round(3).tolist()
      (True, [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    """
    run = _prepared(
        explain, source, out, batch_size, block, mesh, shard, write, reduce, dtype
    )
    _natural("ahead", ahead)
    flags = {"resume": resume, "verify": verify, "sync": sync}
    flags = {name: flag(name, value) for name, value in flags.items()}
    root, known = run.root, (run.root / _manifest.NAME).exists()
    if known and not flags["resume"]:
        raise FileExistsError(f"out: {root} holds a run; resume=True goes on with it")
    manifest = _manifest.settle(root, run.manifest, run.program.text)
    before = "" if not known else _manifest.program_text(root, manifest)
    _identity.check_same(
        manifest["identity"], run.manifest["identity"], before, run.program.text
    )
    with _lock.held(root, run.shard):
        _work(run, progress, flags["verify"], ahead, flags["sync"])
    return Attributions(root)


@dataclasses.dataclass(frozen=True)
class _Run:
    """A run that can begin.

    Attributes:
      explain: the function.
      program: what it computes.
      data: the dataset, cut.
      root: the folder.
      place: the devices.
      shard: whose blocks are this process's to write.
      specs: the arrays that are written.
      reduce: by name, what the results are reduced to.
      manifest: what the folder's manifest has to say.
    """

    explain: Callable[[Any], Any]
    program: _identity.Program
    data: _tiles.Data
    root: pathlib.Path
    place: _place.Place
    shard: tuple[int, int]
    specs: tuple[_store.Spec, ...]
    reduce: dict[str, _reductions.Reduction]
    manifest: dict[str, Any]


def _prepared(
    explain: Any,
    source: Any,
    out: Any,
    batch_size: Any,
    block: Any,
    mesh: Any,
    shard: Any,
    write: Any,
    reduce: Any,
    dtype: Any,
) -> _Run:
    """All arguments checked, and the program traced."""
    function("explain", explain)
    _natural("batch_size", batch_size)
    place = _place.place(mesh, batch_size)
    buckets = source if isinstance(source, _source.Buckets) else None
    opened = _source.open_source(source.source if buckets else source)
    traced = _tiles.Data(opened, buckets, batch_size, batch_size)
    program = _identity.read(explain, _tiles.samples(traced), batch_size)
    outputs = dict(program.outputs)
    if buckets is not None:
        if _source.LENGTH in outputs:
            raise ValueError(
                f"explain: got a result called {_source.LENGTH!r}, which the lengths "
                "of the rows are called"
            )
        row = jax.ShapeDtypeStruct((batch_size,), np.int32)
        outputs[_source.LENGTH] = row
    row_bytes = max(o.size // batch_size * o.dtype.itemsize for o in outputs.values())
    rows = opened.length
    if block is None:
        block = _schedule.block_size(rows, batch_size, row_bytes)
    _natural("block", block)
    if block % batch_size:
        raise ValueError(
            f"block: got {block}, expected a multiple of batch_size, {batch_size}"
        )
    specs = _specs(outputs, _written(outputs, write), dtype, block)
    reduce = dict(reduce or {})
    described = {name: _reductions.described(r) for name, r in reduce.items()}
    identity = _identity.identity(
        program,
        place.device,
        batch_size=batch_size,
        block=block,
        rows=rows,
        data=_tiles.probe(traced),
        buckets=None if buckets is None else [*buckets.lengths, f"pad {buckets.pad}"],
        arrays=[f"{s.name}: {s.dtype} {list(s.shape)}" for s in specs],
        reduce=[f"{name}: {r}" for name, r in described.items()],
    )
    manifest = {
        "rows": rows,
        "block": block,
        "arrays": [dataclasses.asdict(spec) for spec in specs],
        "reduce": described,
        "identity": identity,
    }
    return _Run(
        explain,
        program,
        _tiles.Data(opened, buckets, block, place.rows),
        pathlib.Path(os.fspath(out)),
        place,
        _shard(shard, place, rows),
        specs,
        reduce,
        manifest,
    )


def _natural(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: got {value!r}, expected a positive int")


def _shard(shard: Any, place: _place.Place, rows: int | None) -> tuple[int, int]:
    own = (jax.process_index(), jax.process_count())
    if place.shared and (shard is not None or rows is None):
        raise ValueError(
            "mesh: got one over several processes, which is for a source of known "
            "length and for all shards"
        )
    if shard is None:
        return own
    ok = isinstance(shard, tuple | list) and len(shard) == 2
    if not ok or not all(type(i) is int for i in shard) or not 0 <= shard[0] < shard[1]:
        raise ValueError(f"shard: got {shard!r}, expected (i, n) with 0 <= i < n")
    return shard[0], shard[1]


def _written(outputs: Mapping[str, Any], write: Any) -> list[str]:
    if write is None:
        return list(outputs)
    names = [write] if isinstance(write, str) else list(write)
    if unknown := [name for name in names if name not in outputs]:
        raise ValueError(f"write: got {unknown}, expected some of {list(outputs)}")
    return [n for n in outputs if n in names or n == _source.LENGTH]


def _specs(
    outputs: Mapping[str, Any], names: Sequence[str], dtype: Any, block: int
) -> tuple[_store.Spec, ...]:
    wanted = None if dtype is None else np.dtype(dtype)
    if wanted is not None and not jax.numpy.issubdtype(wanted, np.floating):
        raise ValueError(f"dtype: got {dtype!r}, expected a floating one")

    def kept(of: Any) -> str:
        floating = jax.numpy.issubdtype(of, np.floating)
        return (wanted if floating and wanted is not None else np.dtype(of)).name

    return tuple(
        _store.Spec(n, tuple(outputs[n].shape[1:]), kept(outputs[n].dtype), block)
        for n in names
    )


def _work(run: _Run, progress: Any, verify: bool, ahead: int, sync: bool) -> None:
    """Does all blocks of the shard that are not done."""
    rows = run.data.source.length
    length = rows if rows is not None else _manifest.read_end(run.root)
    arrays = {
        spec.name: _store.open_array(
            run.root, spec, length or _store.ENDLESS, create=True, sync=sync
        )
        for spec in run.specs
    }

    def is_own(number: int) -> bool:
        return _schedule.is_own(number, run.shard)

    done = set(_markers.whole(run.root, arrays, is_own, verify=verify))
    todo: Callable[[int], bool] = lambda b: is_own(b) and b not in done  # noqa: E731
    if run.place.shared:
        todo = _agreed(run, done)
    ready, total = _amount(run, done, length)
    with (
        _progress.reporting(progress, ready, total) as report,
        _threads.ahead(_tiles.tiles(run.data, todo), ahead) as tiles,
        _threads.behind(lambda b: _commit(run, arrays, b, sync, report)) as put,
    ):
        for whole in _blocks(run, tiles, ahead, put):
            if is_own(whole.number):
                put(whole)
    for spec in run.specs if rows is None else ():
        end = _manifest.read_end(run.root)
        assert end is not None
        arrays[spec.name].end(end)


def _agreed(run: _Run, done: set[int]) -> Callable[[int], bool]:
    """The blocks that all processes do together: those that are done nowhere."""
    from jax.experimental import multihost_utils

    assert run.data.source.length is not None
    blocks = _schedule.blocks(run.data.source.length, run.data.block)
    mine = np.zeros(blocks, np.int32)
    mine[sorted(done)] = 1
    found = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, blocks)
    return lambda number: not found[:, number].any()


def _amount(run: _Run, done: set[int], rows: int | None) -> tuple[int, int | None]:
    """The rows of the shard that are done, and all rows of the shard."""
    block = run.data.block
    if rows is None:
        return len(done) * block, None
    spans = [
        (number in done, *_schedule.span(number, block, rows))
        for number in range(_schedule.blocks(rows, block))
        if _schedule.is_own(number, run.shard)
    ]
    ready = sum(stop - start for is_done, start, stop in spans if is_done)
    return ready, sum(stop - start for _, start, stop in spans)


@dataclasses.dataclass(frozen=True)
class _Block:
    """The results of a block's rows, by name."""

    number: int
    start: int
    size: int
    arrays: dict[str, np.ndarray]


def _blocks(
    run: _Run, tiles: Iterator[Any], ahead: int, check: Callable[[], None]
) -> Iterator[_Block]:
    """Blocks, as soon as their last call has come back; calls overlap."""
    flying: collections.deque[tuple[_tiles.Tile, Any]] = collections.deque()
    block: _Block | None = None

    def land() -> _Block | None:
        """Takes what the oldest call returned."""
        nonlocal block
        tile, results = flying.popleft()
        block = block or _empty(run, tile)
        with _while_explaining(tile):
            _fill(run, block, tile, results)
        found, block = (block, None) if tile.last else (None, block)
        return found

    for number, tile in enumerate(tiles):
        check()
        if isinstance(tile, _tiles.End):
            _ended(run, tile.rows)
            continue
        with _while_explaining(tile):
            results = _identity.named(run.explain(run.place.put(tile.batch, number)))
            for value in results.values():
                if isinstance(value, jax.Array):
                    value.copy_to_host_async()
        # A batch on the host is not kept while its results are on their way.
        flying.append((dataclasses.replace(tile, batch=None), results))
        while len(flying) > ahead * run.place.width:
            if (found := land()) is not None:
                yield found
    while flying:
        if (found := land()) is not None:
            yield found


def _ended(run: _Run, rows: int) -> None:
    """Keeps the length of a stream.

    Raises:
      OtherRunError: if it is not the one that was explained before.
    """
    known = _markers.numbers(run.root)
    marker = _markers.read(run.root, known[-1]) if known else None
    unknown = _manifest.read_end(run.root) is None
    if unknown and marker is not None and marker.stop > rows:
        raise errors.OtherRunError(
            f"source: ended after {rows} rows, but row {marker.stop - 1} of it was "
            "explained before. A stream has to give the same rows each time"
        )
    _manifest.write_end(run.root, rows)


@contextlib.contextmanager
def _while_explaining(tile: _tiles.Tile) -> Iterator[None]:
    """Says of an error which rows were explained."""
    try:
        yield
    except Exception as error:
        first, last = tile.start + tile.places.min(), tile.start + tile.places.max()
        error.add_note(f"while explaining rows {first} to {last} of the source")
        raise


def _empty(run: _Run, tile: _tiles.Tile) -> _Block:
    """Room for the results of a block: NaN, or zero, where nothing will be."""

    def room(name: str, like: Any) -> np.ndarray:
        shape = (tile.size, *like.shape[1:])
        if not run.program.ragged[name]:
            return np.empty(shape, like.dtype)
        inexact = jax.numpy.issubdtype(like.dtype, np.inexact)
        return np.full(shape, np.nan if inexact else 0, like.dtype)

    arrays = {n: room(n, like) for n, like in run.program.outputs.items()}
    if tile.lengths is not None:
        arrays[_source.LENGTH] = np.empty(tile.size, np.int32)
    return _Block(tile.number, tile.start, tile.size, arrays)


def _fill(run: _Run, block: _Block, tile: _tiles.Tile, results: Any) -> None:
    """Puts the results of a call where its rows are."""
    count, places = len(tile.places), tile.places
    first = int(places[0])
    follow = tile.lengths is None  # without buckets rows follow each other
    rows: Any = slice(first, first + count) if follow else places
    for name, value in results.items():
        host = run.place.get(value)[:count]
        block.arrays[name][(rows, *(slice(0, n) for n in host.shape[1:]))] = host
    if tile.lengths is not None:
        block.arrays[_source.LENGTH][rows] = tile.lengths


def _commit(
    run: _Run,
    arrays: Mapping[str, _store.Array],
    block: _Block,
    sync: bool,
    report: _progress.Report,
) -> None:
    """Writes a block, its marker last."""
    rows = np.arange(block.start, block.start + block.size)
    states = {n: r.of(block.arrays, rows) for n, r in run.reduce.items()}
    sizes, checksums = {}, {}
    for name, array in arrays.items():
        values = _cast(name, block.arrays[name], array.handle.dtype.numpy_dtype)
        array.write(block.number, values)
        sizes[name] = array.size(block.number)
        checksums[name] = _store.checksum(values)
    marker = _markers.Marker(
        block.number,
        block.start,
        block.start + block.size,
        sizes,
        checksums,
        states,
    )
    _markers.write(run.root, marker, sync=sync)
    report(block.size, sum(sizes.values()))


def _cast(name: str, values: np.ndarray, dtype: Any) -> np.ndarray:
    """Values in the dtype of the store.

    Raises:
      StoreError: if one is too large for it.
    """
    if values.dtype == dtype:
        return values
    try:
        with np.errstate(over="raise"):
            found = values.astype(dtype)
        # NumPy itself raises; dtypes that are not its own, such as bfloat16, do not.
        own = np.dtype(dtype).kind != "V"
        if own or (np.isfinite(found) == np.isfinite(values)).all():
            return found
    except FloatingPointError:
        pass
    largest = np.abs(values).max(where=np.isfinite(values), initial=0)
    raise errors.StoreError(
        f"dtype: got {np.dtype(dtype).name}, which cannot hold {largest:g} of "
        f"{name!r}; `runs.scaled_half` has a scale for each row"
    )
