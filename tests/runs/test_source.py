"""Datasets of all kinds are read alike."""

import jax
import numpy as np
import pytest

from jaxlrp import runs
from jaxlrp.runs import _source

X = np.arange(24).reshape(12, 2)


class Rows:
    read: list

    def __init__(self):
        self.read = []

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        self.read.append(i)
        return {"x": X[i], "tag": int(i)}


@pytest.mark.parametrize(
    "indices", [[3, 4, 5], [10, 11, 11, 11], [5, 2, 2], [0], [4, 4, 5, 7]]
)
def test_arrays_and_rows_are_read_alike(indices):
    indices = np.array(indices)
    arrays = _source.open_source({"x": X, "tag": np.arange(12)}).batch(indices)
    rows = _source.open_source(Rows()).batch(indices)
    for found in (arrays, rows):
        assert (found["x"] == X[indices]).all()
        assert (found["tag"] == indices).all()


def test_a_row_that_fills_up_is_read_once():
    source = Rows()
    _source.open_source(source).batch(np.array([10, 11, 11, 11]))
    assert source.read == [10, 11]


def test_files_of_arrays_are_sources(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", x=X, y=X[:, 0])
    memmap = _source.open_source(tmp_path / "x.npy")
    assert isinstance(memmap.tree, np.memmap)
    assert (memmap.batch(np.array([1, 2])) == X[1:3]).all()
    with np.load(tmp_path / "x.npz") as file:
        for source in (tmp_path / "x.npz", str(tmp_path / "x.npz"), file):
            batch = _source.open_source(source).batch(np.array([1, 2]))
            assert (batch["x"] == X[1:3]).all() and batch.keys() == {"x", "y"}


def test_images_in_a_folder_come_in_the_order_of_their_names(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for i in (2, 0, 1):
        pixels = np.full((4, 5, 3), i, np.uint8)
        image.fromarray(pixels).save(tmp_path / f"{i}.png")
    source = _source.open_source(tmp_path)
    batch = source.batch(np.arange(3))
    assert batch.shape == (3, 4, 5, 3) and batch[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_a_folder_without_images_and_an_unknown_file_are_named(tmp_path):
    with pytest.raises(ValueError, match="without images"):
        _source.open_source(tmp_path)
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(ValueError, match="x.txt.*expected .npy"):
        _source.open_source(tmp_path / "x.txt")


def test_rows_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="Buckets"):
        _source.stacked([np.ones(2), np.ones(3)])


@pytest.mark.whole
@pytest.mark.parametrize("lengths", [(), (0, 3), (4, 2), (3, 3)])
def test_buckets_ascend(lengths):
    with pytest.raises(ValueError, match="lengths: got"):
        runs.Buckets([], lengths)


def test_buckets_pad_what_is_as_long_as_the_row():
    buckets = runs.Buckets([], (4,), pad=9, names=("ids",))
    rows = _source.as_dicts([{"ids": [1, 2], "label": np.zeros(3)}])
    batch = buckets.batch(rows, 4)
    assert batch["ids"].tolist() == [[1, 2, 9, 9]] and batch["label"].shape == (1, 3)
    assert batch["length"].tolist() == [2]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("row", "match"),
    [
        ([1, 2], "expected a dict"),
        ({"length": [1]}, "without 'length'"),
        ({"a": [1], "b": [1, 2]}, "expected one length"),
    ],
)
def test_rows_that_do_not_fit_buckets_are_refused(row, match):
    buckets = runs.Buckets([], (4,))
    with pytest.raises((TypeError, ValueError), match=match):
        buckets.batch(_source.as_dicts([row]), 4)


def test_records_of_arrays_are_a_source(tmp_path):
    record = pytest.importorskip("array_record.python.array_record_module")
    pytest.importorskip("grain")
    import io

    path = tmp_path / "x.array_record"
    writer = record.ArrayRecordWriter(str(path), "group_size:1")
    for row in X:
        buffer = io.BytesIO()
        np.save(buffer, row)
        writer.write(buffer.getvalue())
    writer.close()
    source = _source.open_source(path)
    assert source.length == len(X)
    assert (source.batch(np.array([3, 5])) == X[[3, 5]]).all()


@pytest.mark.parametrize(("group", "column"), [(5, "x"), (100, "x")])
def test_a_table_of_columns_is_a_stream_of_dicts(group, column, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    pytest.importorskip("grain")
    from pyarrow import parquet

    table = arrow.table({"x": X.tolist(), "tag": list(range(12))})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=group)
    source = _source.open_source(tmp_path / "x.parquet")
    batch = _source.stacked(list(source.start()))
    assert (batch[column] == X).all() and batch["tag"].tolist() == list(range(12))
    explain = jax.jit(lambda batch: 2.0 * batch["x"])
    options = {"batch_size": 2, "block": 4, "progress": False}
    found = runs.attribute(explain, tmp_path / "x.parquet", tmp_path / "run", **options)
    assert found.complete and (found["relevance"][:] == 2 * X).all()


class Together(Rows):
    """Gives several rows at once, as a function says."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def __getitems__(self, indices):
        return self.give([{"x": X[i].tolist(), "tag": i} for i in indices])


def test_rows_that_come_together_are_asked_for_at_once():
    source = Together(list)
    batch = _source.open_source(source).batch(np.array([10, 11, 11]))
    assert (batch["x"] == X[[10, 11, 11]]).all() and not source.read
    assert batch["tag"].tolist() == [10, 11, 11]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("give", "match"),
    [
        (lambda rows: {"x": [row["x"] for row in rows]}, "type dict with 1 elements"),
        (lambda rows: rows[:1], "of 2 numbers returned one of type list with 1"),
        (lambda rows: rows * 2, "with 4 elements, expected a list of as many rows"),
        (lambda rows: iter(rows), "returned one of type list_iterator, expected"),
    ],
)
def test_rows_that_come_together_are_as_many_as_were_asked_for(give, match):
    source = _source.open_source(Together(give))
    with pytest.raises(TypeError, match=match):
        source.batch(np.array([0, 1]))


def test_rows_of_texts_are_refused_with_their_place():
    with pytest.raises(TypeError, match=r"<U3 at \['name'\].*left out of the rows"):
        _source.stacked([{"x": X[0], "name": "one"}, {"x": X[1], "name": "two"}])
