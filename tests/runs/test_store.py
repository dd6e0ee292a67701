"""The store is Zarr version 3, and others read it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import errors
from jaxlrp.runs import _store
from tests.runs import small

VALUES = {
    "float32": np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4),
    "float16": np.linspace(-1, 1, 10).astype(np.float16),
    "int32": np.zeros((10, 2, 3), np.int32),
    "bool": np.zeros(10, bool),
    "uint8": np.arange(20, dtype=np.uint8).reshape(10, 2),
    "complex64": (np.arange(10) * 1j).astype(np.complex64),
    "bfloat16": np.asarray(jnp.arange(10, dtype=jnp.bfloat16)),
}


def stored(folder, values, rows=10, block=4):
    name = np.dtype(values.dtype).name
    spec = _store.Spec("a/b", values.shape[1:], name, block)
    array = _store.open_array(folder, spec, rows, create=True)
    for number in range(-(-len(values) // block)):
        array.write(number, values[number * block : (number + 1) * block])
    return array


@pytest.mark.parametrize("dtype", VALUES)
def test_what_is_written_is_read(dtype, tmp_path):
    values = VALUES[dtype]
    stored(tmp_path, values)
    array = _store.open_array(tmp_path, stored(tmp_path, values).spec, 10, create=False)
    assert array.read(3, 9).tobytes() == values[3:9].tobytes()
    # Zeros are written, too: a file that is missing is a block that is lost.
    assert [array.size(n) > 0 for n in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("dtype", [d for d in VALUES if d != "bfloat16"])
def test_zarr_python_reads_it(dtype, tmp_path):
    zarr = pytest.importorskip("zarr")
    stored(tmp_path, VALUES[dtype])
    group = zarr.open_group(tmp_path / "arrays", mode="r")
    found = group["a/b"]
    assert found.shape == VALUES[dtype].shape and found.chunks == (4, *found.shape[1:])
    assert (found[:] == VALUES[dtype]).all()


def test_what_is_missing_is_nan_where_numbers_can_be(tmp_path):
    array = stored(tmp_path, VALUES["float32"][:4])
    assert np.isnan(array.read(4, 10)).all()


def test_a_row_is_read_without_its_block(tmp_path):
    values = np.random.default_rng(0).normal(size=(256, 8192)).astype(np.float32)
    array = stored(tmp_path, values, 256, 256)
    assert array.spec.inner == 4
    path = array.folder / array.spec.file(0)
    content = bytearray(path.read_bytes())
    content[1000:-200_000] = bytes(len(content) - 201_000)  # the ends are kept
    path.write_bytes(content)
    assert (array.read(255, 256) == values[255:]).all()
    with pytest.raises(errors.StoreError):
        array.read(100, 101)


def test_inner_chunks_fill_a_block():
    for block in (1, 8, 12, 100, 97):
        for row in (1, 100, 10**6):
            spec = _store.Spec("a", (row,), "float32", block)
            assert block % spec.inner == 0
            assert spec.inner == 1 or spec.inner * row * 4 <= _store.INNER


def test_an_endless_array_gets_its_length_at_the_end(tmp_path):
    array = stored(tmp_path, VALUES["float32"], _store.ENDLESS)
    array.end(10)
    assert json.loads((array.folder / "zarr.json").read_text())["shape"] == [10, 4]
    again = _store.open_array(tmp_path, array.spec, 10, create=False)
    assert (again.read(0, 10) == VALUES["float32"]).all()


def test_a_checksum_tells_contents_apart():
    x = small.weights(3, 4)
    y = x.copy()
    y[1, 2] = np.nextafter(y[1, 2], np.float32(9))
    assert _store.checksum(x) == _store.checksum(x.copy()) != _store.checksum(y)
    assert _store.checksum(x.T) == _store.checksum(x.T.copy())
