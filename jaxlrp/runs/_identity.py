"""What a run is: the program, its constants, the data, the versions and the options.

Two runs that differ in any of this do not write into one folder.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import Literal

from jaxlrp import _compat, errors

_ADDRESS = re.compile(r"0x[0-9a-f]+")

BARE = "relevance"
"""What an explanation that is one array is called."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


@dataclasses.dataclass(frozen=True)
class Program:
    """What an explanation computes, as far as it can be known without computing.

    Attributes:
      text: the jaxprs, one for each shape of a batch.
      constants: of each constant and inner constant its type and its content's hash.
      outputs: by name, `jax.ShapeDtypeStruct`s with a call's rows in front.
      ragged: by name, the axes that are as long as the rows of a bucket.
    """

    text: str
    constants: tuple[str, ...]
    outputs: dict[str, jax.ShapeDtypeStruct]
    ragged: dict[str, tuple[int, ...]]


def read(explain: Callable[[Any], Any], batches: Sequence[Any], rows: int) -> Program:
    """Traces an explanation for each shape that its batches have.

    Args:
      explain: from a batch to a pytree of arrays with the rows in front.
      batches: pytrees of arrays or `jax.ShapeDtypeStruct`s, the longest bucket last.
      rows: of each batch.

    Raises:
      TypeError: if results are no arrays with the rows in front.
      ValueError: if names cannot be those of folders.
    """
    texts, constants, outputs = [], [], []
    for batch in batches:
        shapes = jax.tree.map(_shape, batch)
        jaxpr, out = jax.make_jaxpr(explain, return_shape=True)(shapes)
        texts.append(_ADDRESS.sub("0x", str(jaxpr)))
        constants += [_described(c) for c in constants_of(jaxpr)]
        outputs.append(named(out))
    last = outputs[-1]
    for name, value in last.items():
        if not value.shape or value.shape[0] != rows:
            raise TypeError(
                f"explain: {name!r} has shape {value.shape}, expected the {rows} rows "
                "of the batch in front"
            )
    ragged = {
        name: tuple(
            axis
            for axis in range(1, len(value.shape))
            if any(o[name].shape[axis] != value.shape[axis] for o in outputs)
        )
        for name, value in last.items()
    }
    # Buckets share their weights.
    return Program("\n".join(texts), tuple(dict.fromkeys(constants)), last, ragged)


def named(tree: Any) -> dict[str, Any]:
    """The arrays of a pytree by name: `"a/b"` for `{"a": {"b": ...}}`.

    Raises:
      ValueError: for names that cannot be those of folders, and for two that are one.
    """
    found: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        parts = [jax.tree_util.keystr((key,), simple=True) for key in path]
        name = "/".join(parts) or BARE
        if not all(_NAME.fullmatch(p) for p in parts) or name in found:
            raise ValueError(
                f"explain: got a result called {name!r}, expected distinct names of "
                "letters, digits and ._-"
            )
        found[name] = leaf
    if not found:
        raise ValueError("explain: got no arrays, expected at least one")
    return found


def _shape(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))


def constants_of(jaxpr: Any) -> Iterator[Any]:
    """All arrays that a program holds, those of its bodies and parameters included.

    Numbers that stand in the program are among them: their text is rounded.
    """
    open_, consts = _compat.open_jaxpr(jaxpr)
    yield from consts
    for eqn in open_.eqns:
        yield from (v.val for v in eqn.invars if isinstance(v, Literal))
        for value in eqn.params.values():
            yield from _inside(value)


def _inside(value: Any) -> Iterator[Any]:
    if hasattr(_compat.open_jaxpr(value)[0], "eqns"):
        yield from constants_of(value)
    elif isinstance(value, np.ndarray | jax.Array):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _inside(item)


def _described(constant: Any) -> str:
    """The type of a constant, and what is in it."""
    array = _on_host(constant)
    digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:32]
    return f"{array.dtype}{list(array.shape)} {digest}"


def _on_host(x: Any) -> np.ndarray:
    """All of an array, also where this process has a part of it."""
    if isinstance(x, jax.Array):
        if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        if not x.is_fully_addressable and not x.is_fully_replicated:
            from jax.experimental import multihost_utils

            return np.asarray(multihost_utils.process_allgather(x, tiled=True))
    return np.asarray(x)


def digest(tree: Any) -> str:
    """A hash of a pytree of arrays."""
    hashed = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        array = np.ascontiguousarray(leaf)
        head = f"{jax.tree_util.keystr(path)}{array.dtype}{array.shape}"
        hashed.update(head.encode())
        hashed.update(array.tobytes())
    return hashed.hexdigest()


def identity(program: Program, device: Any, **options: Any) -> dict[str, Any]:
    """The fields by which runs are told apart, as JSON.

    What changes others with it comes first, so that it is what an error names.
    """
    found = {
        **_compat.versions(),
        "platform": f"{device.platform} {device.device_kind}",
        "machine": platform.machine(),
        "x64": bool(jax.config.read("jax_enable_x64")),
    }
    return {
        **found,
        **options,
        "program": hashlib.sha256(program.text.encode()).hexdigest(),
        "constants": list(program.constants),
    }


def check_same(
    known: Mapping[str, Any], asked: Mapping[str, Any], known_text: str, text: str
) -> None:
    """Refuses a run that is not the one in the folder.

    Args:
      known: the fields of the run that is there.
      asked: those of the one that wants to go on.
      known_text: the program of the run that is there.
      text: that of the other.

    Raises:
      OtherRunError: naming the first field that differs, and both values.
    """
    for field in asked:
        if known.get(field) != asked[field]:
            told = _difference(field, known.get(field), asked[field], known_text, text)
            raise errors.OtherRunError(
                f"out: holds another run, `{field}` differs: {told}. Go on with what "
                "it was begun with, or choose another folder"
            )


def _difference(field: str, known: Any, asked: Any, known_text: str, text: str) -> str:
    if field == "program":
        lines = difflib.unified_diff(
            known_text.splitlines(), text.splitlines(), n=0, lineterm=""
        )
        changed = [line for line in lines if line[:3] not in ("---", "+++")][1:]
        was = next((line[1:].strip() for line in changed if line[0] == "-"), "nothing")
        now = next((line[1:].strip() for line in changed if line[0] == "+"), "nothing")
        return f"there it has {was!r}, now {now!r}"
    if isinstance(known, list) and isinstance(asked, list):
        if len(known) != len(asked):
            return f"there are {len(known)}, now {len(asked)}"
        i = next(i for i, (a, b) in enumerate(zip(known, asked, strict=True)) if a != b)
        kind = str(asked[i]).rsplit(" ", 1)[0]
        return f"number {i} of {len(asked)}, {kind}, has other values"
    return f"there it is {known!r}, now {asked!r}"
