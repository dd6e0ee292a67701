"""Arrays from a file of PyTorch, read as data: nothing is unpickled.

`torch.save` wrote such a file before PyTorch 1.6: four pickles, of which the fourth is
the dictionary of tensors, a fifth with the keys of the storages, and their bytes. A
pickle is a program that may call any function. Here only the operations that make
dictionaries, tuples and numbers are followed; functions are names that are compared and
never looked up. Anything else is an error.
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
TYPES = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch DoubleStorage": np.dtype("<f8"),
    "torch LongStorage": np.dtype("<i8"),
}
DICTIONARY = "collections OrderedDict"
TENSOR = "torch._utils _rebuild_tensor_v2"


class Name(str):
    """The name of a function or type: text, and nothing that could be called."""


class Storage(NamedTuple):
    """The bytes that tensors share."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """Where a tensor lies in its storage, counted in numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, by name.

    Raises:
      ValueError: if the file has another format, or anything but tensors in it.
    """
    with path.open("rb") as file:
        if read(file) != MAGIC:
            raise ValueError(f"{path}: got no file of torch.save before PyTorch 1.6")
        read(file)  # the version of the protocol
        if not read(file).get("little_endian"):
            raise ValueError(f"{path}: expected numbers with the lowest byte first")
        tensors, keys = read(file), read(file)
        storages = {t.storage.key: t.storage for t in tensors.values()}
        if sorted(keys) != sorted(storages):
            raise ValueError(f"{path}: the storages are not those of its tensors")
        memory = {key: numbers(file, storages[key]) for key in keys}
    return {name: view(memory[t.storage.key], t) for name, t in tensors.items()}


def numbers(file: BinaryIO, storage: Storage) -> np.ndarray:
    """The next storage: how many numbers, then the numbers."""
    if int.from_bytes(file.read(8), "little") != storage.size:
        raise ValueError(f"storage {storage.key}: expected {storage.size} numbers")
    data = file.read(storage.size * storage.dtype.itemsize)
    return np.frombuffer(data, storage.dtype, storage.size)


def view(memory: np.ndarray, tensor: Tensor) -> np.ndarray:
    """A tensor as its own array."""
    places = np.full(tensor.shape, tensor.offset)
    for axis, stride in enumerate(tensor.strides):
        along = np.arange(tensor.shape[axis]) * stride
        places += along.reshape([-1 if a == axis else 1 for a in range(places.ndim)])
    return np.asarray(memory[places])


def read(file: BinaryIO) -> Any:
    """The value of the next pickle, if it is data.

    Raises:
      ValueError: for an operation that is not followed here.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def marked() -> list[Any]:
        at = marks.pop()
        found = stack[at:]
        del stack[at:]
        return found

    for operation, argument, _ in pickletools.genops(file):
        match operation.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINUNICODE":
                stack.append(argument)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                constants = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
                stack.append(constants[operation.name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(marked()))
            case "TUPLE1":
                stack.append((stack.pop(),))
            case "TUPLE2":
                last = stack.pop()
                stack.append((stack.pop(), last))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "APPENDS":
                values = marked()
                stack[-1].extend(values)
            case "SETITEM":
                value = stack.pop()
                key = stack.pop()
                stack[-1][key] = value
            case "SETITEMS":
                values = marked()
                stack[-1].update(zip(values[::2], values[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(Name(argument))
            case "BINPERSID":
                _, kind, key, _, size, _ = stack.pop()
                stack.append(Storage(key, dtype(kind), size))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(made(stack.pop(), arguments))
            case "BUILD":
                stack.pop()  # attributes of the dictionary: versions of the modules
            case other:
                raise ValueError(f"a pickle: got the operation {other}, expected data")
    raise ValueError("a pickle: it does not end")


def dtype(kind: Any) -> np.dtype:
    """The type of a storage's numbers."""
    if not isinstance(kind, Name) or kind not in TYPES:
        raise ValueError(f"a storage: got {kind!r}, expected one of {list(TYPES)}")
    return TYPES[kind]


def made(name: Any, arguments: tuple[Any, ...]) -> Any:
    """What two functions would have made; no other is known."""
    if isinstance(name, Name) and name == DICTIONARY and not arguments:
        return {}
    if isinstance(name, Name) and name == TENSOR:
        return Tensor(*arguments[:4])
    raise ValueError(f"a pickle: got a call of {name!r}, expected tensors only")
