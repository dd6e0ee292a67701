"""`prepare`: what does not depend on the example is computed once for a dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._program.partial import (
    ONCE,
    OPEN,
    Sheet,
    cut,
    evaluate,
    needed,
    opened,
    write,
)
from jaxlrp._program.program import Value
from jaxlrp._trace import ArgNums, arrays_of, as_positions, is_array, refilled


def prepare(
    f: Callable[..., Any], *args: Any, varying: ArgNums = -1, **kwargs: Any
) -> tuple[tuple[Array, ...], Callable[..., Any]]:
    """Computes, once for a dataset, what in `f` is the same every time.

    `f` is an explanation, or any function that JAX can trace. Rules that change weights
    (z-plus, gamma, alpha-beta, w-square, z-box, also with a batch norm folded in)
    change all of them in every call. With

        buffers, rest = jaxlrp.prepare(f, params, x)

    they are changed here, and `rest(buffers, x)` equals `f(params, x)`.

    Everything in `f` that depends on no varying argument is evaluated, also in the body
    of a `scan` or a `jax.checkpoint`. The bodies of `cond`, of `while` loops and of
    `shard_map`, functions with a derivative of their own and what has effects are left
    as they are where they depend on one. What is a broadcast, a transposition or
    another move of something smaller, or of an argument, is not stored. Random numbers
    whose key does not vary are drawn once: let the key vary.

    Args:
      f: a function of pytrees. Arrays that it closes over are prepared as arguments
        are.
      *args: its arguments. Of those that vary only the shapes matter, and
        `jax.ShapeDtypeStruct`s will do. Leaves of the others that are not arrays stay
        as they are.
      varying: the position of the argument that changes between calls, or several; the
        last by default.
      **kwargs: passed on; they do not vary.

    Returns:
      `(buffers, rest)`. `buffers` is a tuple of arrays, among them those of the
      arguments that are still needed, not copied. `rest(buffers, *varying)` takes the
      varying arguments in the order of `varying`, of the shapes and dtypes that they
      had, and returns what `f` would. It is a pure function, for `jax.jit`, `jax.vmap`
      and `jax.grad`; give it the buffers as an argument. For other weights of the same
      shapes the buffers are those of `jax.jit(lambda p: prepare(f, p, x)[0])(p)`.

    Raises:
      TypeError: for a varying leaf that is not an array, when it is prepared or called.
      ValueError: for `varying` out of range; by `rest`, for arguments or buffers of
        another structure, shape or dtype.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lambda w, x: jax.nn.relu(x @ w)
      >>> explain = jaxlrp.lrp(f, composites.EpsilonPlus(), target="all")
      >>> dataset = jnp.array([[[1.0, 2.0]], [[3.0, 4.0]]])
      >>> buffers, rest = jaxlrp.prepare(explain, w, dataset[0])
      >>> rest = jax.jit(rest)
      >>> all(jnp.allclose(rest(buffers, x), explain(w, x)) for x in dataset)
      True
    """
    if not callable(f):
        raise TypeError(f"f: got {f!r}, expected a function")
    positions = as_positions(varying, len(args), "varying")
    leaves, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
    varies = [path[0].idx == 0 and path[1].idx in positions for path, _ in leaves]
    traced = [i for i, (_, v) in enumerate(leaves) if varies[i] or is_array(v)]
    inputs = [_array(*leaves[i], known=not varies[i]) for i in traced]
    restored: list[Callable[[list[Any]], Any]] = []

    refill = refilled([leaf for _, leaf in leaves], tree, traced)

    def flat(*arrays: Any) -> list[Any]:
        full_args, full_kwargs = refill(arrays)
        results, restore = arrays_of(f(*full_args, **full_kwargs))
        restored[:] = [restore]
        return [jnp.asarray(v) for v in results]

    program = opened(jax.make_jaxpr(flat)(*inputs))
    (restore,) = restored
    sheet = Sheet()
    free = [
        v
        for p in positions
        for i, v in zip(traced, program.inputs, strict=True)
        if varies[i] and leaves[i][0][1].idx == p
    ]
    for value in program.inputs:
        sheet.levels[value] = OPEN if value in free else ONCE
    outs = write(program, program.inputs, sheet)
    kept, operations = cut(sheet, outs)
    buffers = _worked_out(sheet, kept, dict(zip(program.inputs, inputs, strict=True)))
    expected = [(v.aval.shape, v.aval.dtype) for v in kept]
    leaves_of = _reader([args[p] for p in positions], positions)

    def rest(buffers: Any, *varying: Any) -> Any:
        values = dict(zip(kept, _as_prepared(buffers, expected), strict=True))
        values.update(zip(free, leaves_of(varying), strict=True))
        return restore(evaluate(operations, values, outs))

    return buffers, rest


def _array(path: Any, leaf: Any, known: bool) -> Any:
    """A leaf of an argument, as what it is traced as."""
    name = f"argument {path[1].idx}" if path[0].idx == 0 else "keyword argument "
    name += jax.tree_util.keystr(path[2:] if path[0].idx == 0 else path[1:])
    if not known:
        return _varying(name, leaf)
    if isinstance(leaf, jax.ShapeDtypeStruct):
        raise TypeError(
            f"{name} does not vary: got {leaf!r}, expected an array, whose value is "
            f"needed"
        )
    return jnp.asarray(leaf)


def _varying(name: str, leaf: Any) -> Any:
    numbers = bool | int | float | complex | np.generic
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if not is_array(leaf) and not isinstance(leaf, numbers):
        raise TypeError(
            f"{name} varies: got {leaf!r} of type {type(leaf).__name__}, expected an "
            f"array"
        )
    return jnp.asarray(leaf)


def _worked_out(
    sheet: Sheet, kept: Sequence[Value], given: dict[Value, Any]
) -> tuple[Array, ...]:
    """The values that the rest reads; of what is already given, itself."""
    given = {**given, **{v: jnp.asarray(array) for v, array in sheet.constants}}
    made = [v for v in kept if v not in given]
    operations, read = needed(sheet.operations, made)

    @jax.jit
    def work_out(arrays: list[Array]) -> list[Array]:
        values = dict(zip(read, arrays, strict=True))
        return evaluate(operations, values, made)

    found = work_out([given[v] for v in read]) if made else []
    return tuple({**given, **dict(zip(made, found, strict=True))}[v] for v in kept)


def _as_prepared(buffers: Any, expected: Sequence[tuple[Any, Any]]) -> Sequence[Any]:
    """The buffers, if they are those of such a function."""
    if not isinstance(buffers, tuple | list) or len(buffers) != len(expected):
        got = (
            f"{len(buffers)} of them"
            if isinstance(buffers, tuple | list)
            else (f"a {type(buffers).__name__}")
        )
        raise ValueError(
            f"buffers: got {got}, expected the {len(expected)} arrays that prepare "
            f"returned with this function"
        )
    for i, (buffer, (shape, dtype)) in enumerate(zip(buffers, expected, strict=True)):
        _check(f"buffers[{i}]", buffer, shape, dtype)
    return buffers


def _reader(
    examples: Sequence[Any], positions: Sequence[int]
) -> Callable[[Sequence[Any]], list[Any]]:
    """The leaves of varying arguments, if these are like the ones prepared for."""
    trees = [jax.tree.structure(example) for example in examples]
    shapes = [
        [(jnp.shape(v), jnp.result_type(v)) for v in jax.tree.leaves(example)]
        for example in examples
    ]

    def read(varying: Sequence[Any]) -> list[Any]:
        if len(varying) != len(positions):
            raise ValueError(
                f"varying: got {len(varying)} arguments besides the buffers, expected "
                f"{len(positions)}, those at {list(positions)}"
            )
        found: list[Any] = []
        for position, x, tree, known in zip(
            positions, varying, trees, shapes, strict=True
        ):
            leaves, own = jax.tree_util.tree_flatten_with_path(x)
            if own != tree:
                raise ValueError(
                    f"argument {position}: got a pytree {own}, expected {tree}, as "
                    f"when it was prepared"
                )
            for (path, leaf), (shape, dtype) in zip(leaves, known, strict=True):
                name = f"argument {position}{jax.tree_util.keystr(path)}"
                leaf = _varying(name, leaf)
                _check(name, leaf, shape, dtype)
                found.append(leaf)
        return found

    return read


def _check(name: str, x: Any, shape: tuple[int, ...], dtype: Any) -> None:
    if jnp.shape(x) != shape or jnp.result_type(x) != dtype:
        raise ValueError(
            f"{name}: got {jnp.result_type(x)} of shape {jnp.shape(x)}, expected "
            f"{dtype} of shape {shape}, as when it was prepared"
        )
