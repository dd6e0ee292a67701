"""What `runs.attribute` writes: the same bits, however the work was shared out."""

import os
import pathlib
import threading
import time

import jax
import numpy as np
import pytest

from jaxlrp import errors, runs
from tests.runs import small

BATCH, BLOCK, ROWS = small.BATCH, small.BLOCK, small.ROWS


def run(out, explain=None, source=None, **options):
    usual = {"batch_size": BATCH, "block": BLOCK, "progress": False}
    options = usual | {"mesh": jax.devices()[:1]} | options
    explain = small.explainer() if explain is None else explain
    source = small.images() if source is None else source
    return runs.attribute(explain, source, out, **options)


def by_hand(explain, x):
    """What a loop over batches finds."""
    full = np.concatenate([x, np.repeat(x[-1:], -len(x) % BATCH, 0)])
    batches = [full[i : i + BATCH] for i in range(0, len(full), BATCH)]
    return np.concatenate([explain(b) for b in batches])[: len(x)]


@pytest.mark.always
@pytest.mark.parametrize("name", small.NETWORKS)
def test_results_are_those_of_a_loop_over_batches(name, tmp_path):
    explain = small.explainer(name)
    found = run(tmp_path / "run", explain)
    assert found.complete and found.names == ("relevance",)
    assert (np.asarray(found["relevance"]) == by_hand(explain, small.images())).all()


@pytest.mark.always
@pytest.mark.parametrize("name", small.NETWORKS)
@pytest.mark.parametrize(("devices", "shards"), [(1, 2), (3, 3), (8, 1), (8, 2)])
def test_devices_and_shards_change_no_bit(name, devices, shards, tmp_path):
    explain, mesh = small.explainer(name), jax.devices()[:devices]
    for i in range(shards):
        found = run(tmp_path / "run", explain, shard=(i, shards), mesh=mesh)
        assert found.complete == (i == shards - 1)
    assert (np.asarray(found["relevance"]) == by_hand(explain, small.images())).all()


@pytest.mark.parametrize("batch", [3, 8])
def test_another_batch_size_changes_the_last_bits_alone(batch, tmp_path):
    explain = small.explainer("cnn")
    found = run(tmp_path / "run", explain, batch_size=batch, block=24)
    expected = by_hand(explain, small.images())
    np.testing.assert_allclose(
        found["relevance"][:], expected, atol=5e-4 * abs(expected).max()
    )


def test_a_mesh_shares_out_each_call(tmp_path):
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    found = run(tmp_path / "run", mesh=mesh, batch_size=1, block=16)
    expected = by_hand(small.explainer(), small.images())
    np.testing.assert_allclose(
        found["relevance"][:], expected, atol=5e-4 * abs(expected).max()
    )
    # And devices in turn may go on with it.
    found.path.joinpath("done", "00000001.npz").unlink()
    assert run(found.path, batch_size=1, block=16, mesh=None).complete


def test_a_start_while_another_runs_leaves_no_gap_and_does_nothing_twice(tmp_path):
    read = []

    class Slow:
        def __len__(self):
            return ROWS

        def __getitem__(self, i):
            read.append(i)
            time.sleep(0.002)
            return small.images()[i]

    def start(i):
        run(tmp_path / "run", source=Slow(), shard=(i, 2))

    threads = [threading.Thread(target=start, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    found = runs.Attributions(tmp_path / "run")
    expected = by_hand(small.explainer(), small.images())
    assert (found["relevance"][:] == expected).all()
    # Beside the rows that tell the dataset from others.
    assert len(read) - ROWS == 2 * (1 + 16)


def test_what_is_done_is_not_done_again(tmp_path):
    found = run(tmp_path / "run", shard=(0, 2))
    before = {p: p.stat().st_mtime_ns for p in found.path.rglob("c/*/*/*/*")}
    found = run(tmp_path / "run")
    assert found.complete
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_a_shard_is_worked_on_by_one_process(tmp_path):
    def again(progress):
        with pytest.raises(errors.BusyError, match=rf"process {os.getpid()} on"):
            run(tmp_path / "run")

    run(tmp_path / "run", progress=again)
    assert run(tmp_path / "run").complete


def test_a_folder_that_holds_a_run_is_refused_without_resume(tmp_path):
    assert run(tmp_path / "run", resume=False).complete
    with pytest.raises(FileExistsError, match="resume=True"):
        run(tmp_path / "run", resume=False)


# ---- sources -----------------------------------------------------------------------


class Sequence:
    """A dataset as torch and grain have them."""

    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        return small.images()[i]


class Several(Sequence):
    def __getitems__(self, indices):
        return [small.images()[i] for i in indices]

    __getitem__ = None


def stream():
    yield from small.images()


@pytest.mark.parametrize(
    "source", [Sequence(), Several(), list(small.images()), stream]
)
def test_every_kind_of_source_gives_the_same(source, tmp_path):
    expected = by_hand(small.explainer(), small.images())
    found = run(tmp_path / "run", source=source)
    assert found.rows == ROWS and found["relevance"].shape == expected.shape
    assert (found["relevance"][:] == expected).all()


def test_a_stream_goes_on_where_it_was(tmp_path):
    seen = []

    def rows():
        for i, row in enumerate(small.images()):
            seen.append(i)
            yield row

    class Enough(Exception):
        pass

    def stop(progress):
        if progress.rows == 3 * BLOCK:
            raise Enough

    with pytest.raises(Enough):
        run(tmp_path / "run", source=rows, progress=stop)
    found = runs.Attributions(tmp_path / "run")
    assert found.rows is None and not found.complete
    assert len(found["relevance"]) == BLOCK * (1 + max(found.done()))
    found = run(tmp_path / "run", source=rows)
    expected = by_hand(small.explainer(), small.images())
    assert found.complete and (found["relevance"][:] == expected).all()


def test_a_stream_of_another_length_is_refused(tmp_path):
    run(tmp_path / "run", source=stream)
    with pytest.raises(errors.OtherRunError, match="has 60 rows, but had 61"):
        run(tmp_path / "run", source=lambda: iter(small.images()[:60]))


@pytest.mark.whole
@pytest.mark.parametrize("rows", [BLOCK, 2 * BLOCK + 3])
def test_a_stream_that_got_shorter_than_what_is_done_is_refused(rows, tmp_path):
    class Enough(Exception):
        pass

    def stop(progress):
        if progress.rows == 3 * BLOCK:
            raise Enough

    with pytest.raises(Enough):
        run(tmp_path / "run", source=stream, progress=stop)
    done = runs.Attributions(tmp_path / "run").done()
    with pytest.raises(errors.OtherRunError, match=f"ended after {rows} rows, but row"):
        run(tmp_path / "run", source=lambda: iter(small.images()[:rows]))
    found = runs.Attributions(tmp_path / "run")
    assert found.rows is None and found.done() == done


@pytest.mark.whole
@pytest.mark.parametrize("source", [small.images()[:0], [], lambda: iter(())])
def test_a_dataset_without_rows_is_named_and_nothing_is_written(source, tmp_path):
    with pytest.raises(ValueError, match="source: got one without rows"):
        run(tmp_path / "run", source=source)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["with spaces", "50% #1?", "größe"])
def test_folders_of_any_name_hold_a_run(name, tmp_path):
    found = run(tmp_path / name / "run")
    assert found.path == tmp_path / name / "run" and found.done(verify=True)
    again = run(str(tmp_path / name / "run"))
    assert (again["relevance"][:] == by_hand(small.explainer(), small.images())).all()


def test_results_in_bfloat16_are_kept_bit_by_bit_and_reduced(tmp_path):
    explain = jax.jit(lambda x: x.astype("bfloat16"))
    found = run(tmp_path / "run", explain, reduce={"all": runs.Moments("relevance")})
    expected = np.asarray(explain(small.images()))
    assert found["relevance"][:].tobytes() == expected.tobytes()
    mean = expected.astype(np.float64).mean(0)
    np.testing.assert_allclose(found.reduced("all")["mean"], mean, atol=1e-15)
    assert len(found.done(verify=True)) == 8


@pytest.mark.always
@pytest.mark.parametrize("devices", [1, 3])
def test_rows_of_different_lengths_go_into_buckets(devices, tmp_path):
    source = runs.Buckets(small.TEXTS, (4, 8))
    mesh = jax.devices()[:devices]
    found = run(
        tmp_path / "run", small.reader(), source, batch_size=2, block=4, mesh=mesh
    )
    assert found.names == ("relevance", "length")
    relevance, length = found["relevance"][:], found["length"][:]
    assert length.tolist() == [len(row["ids"]) for row in small.TEXTS]
    assert relevance.shape == (len(small.TEXTS), 8)
    for row, n, text in zip(relevance, length, small.TEXTS, strict=True):
        bucket = 4 if n <= 4 else 8
        assert not row[n:bucket].any() and np.isnan(row[bucket:]).all()
        padded = np.pad(text["ids"], (0, bucket - n))
        expected = small.reader()({"ids": np.stack([padded] * 2)})[0]
        np.testing.assert_array_equal(row[:bucket], expected)


def test_a_row_that_is_longer_than_all_buckets_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one of at least 8"):
        run(tmp_path / "run", small.reader(), runs.Buckets(small.TEXTS, (4, 7)))


# ---- what is written ---------------------------------------------------------------


def test_results_may_be_reduced_and_not_written(tmp_path):
    source = (small.images(), small.labels())
    means = runs.ClassMeans("relevance", by="label", classes=3)
    options = {"reduce": {"heat": means}, "write": ["scores"]}
    for i in range(2):
        found = run(tmp_path / "a", small.labelled(), source, shard=(i, 2), **options)
    again = run(tmp_path / "b", small.labelled(), source, **options)
    assert found.names == ("scores",) and found.reductions == ("heat",)
    heat = found.reduced("heat")
    assert (heat["mean"] == again.reduced("heat")["mean"]).all()
    relevance = by_hand(small.explainer(), small.images())[..., 0]
    for c in range(3):
        expected = relevance[small.labels() == c].mean(0)
        np.testing.assert_allclose(heat["mean"][c], expected, rtol=1e-4, atol=1e-6)


def test_floating_results_are_written_in_the_dtype_asked_for(tmp_path):
    source = (small.images(), small.labels())
    found = run(tmp_path / "run", small.labelled(), source, dtype="float16")
    expected = run(tmp_path / "whole", small.labelled(), source)
    assert found["relevance"].dtype == np.float16 and found["label"].dtype == np.int32
    half = expected["relevance"][:].astype(np.float16)
    assert (found["relevance"][:] == half).all()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("dtype", "factor"), [("float16", 1e6), (jax.numpy.bfloat16, 3.3975e38)]
)
def test_a_number_that_the_dtype_cannot_hold_is_an_error(dtype, factor, tmp_path):
    name = np.dtype(dtype).name
    explain = jax.jit(lambda x: x / abs(x).max() * factor)
    with pytest.raises(errors.StoreError, match=f"{name}, which cannot hold .*scaled"):
        run(tmp_path / "run", explain, dtype=dtype)


def test_what_is_not_finite_is_written_in_any_dtype(tmp_path):
    source = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    for dtype in ("float16", jax.numpy.bfloat16):
        out = tmp_path / np.dtype(dtype).name
        found = run(out, jax.jit(lambda x: x), source, dtype=dtype)
        np.testing.assert_array_equal(found["relevance"][:].astype(np.float32), source)


def test_progress_tells_of_every_block(tmp_path):
    told = []
    run(tmp_path / "run", progress=told.append)
    assert [p.rows for p in told] == [*range(BLOCK, ROWS, BLOCK), ROWS]
    assert {p.total for p in told} == {ROWS}
    assert told[-1].bytes > 0 and told[-1].rate > 0 and told[-1].left == 0


def test_a_bar_is_drawn_where_it_is_asked_for(tmp_path, capfd):
    run(tmp_path / "run", progress=True)
    assert f"{ROWS}/{ROWS}" in capfd.readouterr().err


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"batch_size": 0}, ValueError, "batch_size: got 0"),
        ({"block": 6}, ValueError, "block: got 6, expected a multiple of batch_size"),
        ({"shard": (2, 2)}, ValueError, r"shard: got \(2, 2\)"),
        ({"write": ["heat"]}, ValueError, "write: got .'heat'."),
        ({"dtype": "int8"}, ValueError, "dtype: got 'int8'"),
        ({"mesh": 3}, TypeError, "mesh: got 3"),
        ({"ahead": -1}, ValueError, "ahead: got -1"),
        ({"progress": 3}, TypeError, "progress: got 3"),
        ({"verify": 1}, TypeError, "verify: got 1"),
        ({"reduce": {"a": 3}}, TypeError, "reduce: got 3"),
        ({"explain": 3}, TypeError, "explain: got 3"),
        ({"explain": lambda x: x.sum()}, TypeError, "expected the 4 rows"),
        ({"explain": lambda x: {"../a": x}}, ValueError, "called '../a'"),
        ({"source": 3}, TypeError, "source: got one of type int"),
        ({"source": np.ones((0, 3))}, ValueError, "without rows"),
        ({"source": (np.ones(3), np.ones(4))}, ValueError, "expected one number"),
        ({"source": ["a", "b"]}, TypeError, "expected numbers"),
        ({"source": "nowhere.npy"}, FileNotFoundError, "nowhere.npy"),
    ],
)
def test_arguments_that_do_not_fit_are_named(options, error, match, tmp_path):
    with pytest.raises(error, match=match):
        run(tmp_path / "run", **options)
    assert not pathlib.Path(tmp_path / "run" / "done").exists()
