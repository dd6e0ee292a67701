"""The reader of PyTorch's files: arrays as they were written, and nothing is called."""

import io
import pickle
import struct
from collections import OrderedDict

import numpy as np
import pytest

from examples import torch_file

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}


class Storage:
    def __init__(self, key, kind, size):
        self.id = ("storage", kind, key, "cpu", size, None)


class Global:
    """Pickled as the name of a function, which need not exist."""

    def __init__(self, module, name):
        self.text = f"c{module}\n{name}\n".encode()


class Call:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Pickler(pickle._Pickler):  # pyright: ignore[reportAttributeAccessIssue]
    """Python's own pickler, taught names of functions that are not here."""

    def persistent_id(self, obj):
        return obj.id if isinstance(obj, Storage) else None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Global):
            self.write(obj.text)
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


FLOATS = Global("torch", "FloatStorage")
TENSOR = Global("torch._utils", "_rebuild_tensor_v2")


def tensor(key, size, offset, shape, strides, kind=FLOATS, function=TENSOR):
    storage = Storage(key, kind, size)
    return Call(function, storage, offset, shape, strides, False, OrderedDict())


def write(path, tensors, storages, magic=MAGIC, system=SYSTEM, keys=None):
    with path.open("wb") as file:
        for value in (magic, 1001, system, tensors, keys or list(storages)):
            Pickler(file, 2).dump(value)
        for values in storages.values():
            file.write(struct.pack("<q", values.size) + values.tobytes())
    return path


MEMORY = np.arange(12, dtype=np.float32)


def test_tensors_have_their_shapes_strides_and_offsets(tmp_path):
    longs = Global("torch", "LongStorage")
    tensors = {
        "whole": tensor("a", 12, 0, (3, 4), (4, 1)),
        "transposed": tensor("a", 12, 0, (4, 3), (1, 4)),
        "part": tensor("a", 12, 5, (2,), (3,)),
        "count": tensor("b", 1, 0, (), (), longs),
    }
    count = np.array([7], np.int64)
    found = torch_file.load(
        write(tmp_path / "x.pth", tensors, {"a": MEMORY, "b": count})
    )
    assert list(found) == list(tensors)
    np.testing.assert_array_equal(found["whole"], MEMORY.reshape(3, 4))
    np.testing.assert_array_equal(found["transposed"], MEMORY.reshape(3, 4).T)
    np.testing.assert_array_equal(found["part"], [5, 8])
    assert found["count"] == 7 and found["count"].shape == ()
    assert found["count"].dtype == np.int64 and found["whole"].dtype == np.float32


def test_nothing_is_called(tmp_path):
    """A pickle that makes a folder when it is unpickled."""
    made = tmp_path / "made"
    call = Call(Global("os", "mkdir"), str(made))
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump(call)
    pickle.loads(buffer.getvalue())
    assert made.exists()
    made.rmdir()
    for value in ({"x": call}, call):
        path = write(tmp_path / "x.pth", value, {"a": MEMORY})
        with pytest.raises(ValueError, match="got a call of 'os mkdir'"):
            torch_file.load(path)
    assert not made.exists()


@pytest.mark.parametrize(
    "data",
    [
        # A function as the call of a state, of an object's class, of an extension.
        b"\x80\x02cos\nsystem\nU\x04true\x85R.",
        b"\x80\x02(U\x04trueios\nsystem\n.",
        b"\x80\x02cos\nsystem\n)\x81.",
        b"\x80\x02\x82\x01.",
    ],
)
def test_no_operation_but_those_of_data(data, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(ValueError, match="a pickle"):
        torch_file.read(file)


def test_text_is_no_name(tmp_path):
    """A text that is called as if it was one of the two functions."""
    call = Call("collections OrderedDict")
    with pytest.raises(ValueError, match="expected tensors only"):
        torch_file.load(write(tmp_path / "x.pth", {"x": call}, {"a": MEMORY}))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"magic": 5}, "torch.save before PyTorch 1.6"),
        ({"system": {**SYSTEM, "little_endian": False}}, "lowest byte first"),
        ({"keys": ["b"]}, "storages"),
        ({"storages": {"a": MEMORY[:11]}}, "expected 12 numbers"),
        (
            {"tensors": {"x": tensor("a", 12, 0, (3,), (1,), Global("os", "system"))}},
            "a storage: got 'os system'",
        ),
    ],
)
def test_another_file_is_refused(changed, message, tmp_path):
    given = {
        "tensors": {"x": tensor("a", 12, 0, (3,), (1,))},
        "storages": {"a": MEMORY},
    }
    with pytest.raises(ValueError, match=message):
        torch_file.load(write(tmp_path / "x.pth", **given | changed))


def test_a_file_that_ends_early_is_refused(tmp_path):
    whole = write(
        tmp_path / "x.pth", {"x": tensor("a", 12, 0, (3,), (1,))}, {"a": MEMORY}
    )
    data = whole.read_bytes()
    for size in (0, 10, 60, len(data) - 1):
        whole.write_bytes(data[:size])
        with pytest.raises(ValueError):
            torch_file.load(whole)
