"""How every transformation begins: arguments checked, a function traced and read."""

from __future__ import annotations

import contextlib
import inspect
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _arguments, _targets
from jaxlrp._bounds import warn_outside
from jaxlrp._names import of_leaves
from jaxlrp._program.quantised import in_floats
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.read import asks_for_names, read
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._replay import Memories
from jaxlrp._rewriting.backward import Traced
from jaxlrp._rewriting.difference import leaf_name
from jaxlrp._warn import warn
from jaxlrp.composites import Composite, Default
from jaxlrp.errors import (
    ArgumentWarning,
    IndependentArgumentWarning,
    UnreadSoftmaxWarning,
)
from jaxlrp.rules import Rule

ArgNums = int | Sequence[int]

Wrapped = TypeVar("Wrapped", bound=Callable[..., Any])


def as_composite(composite: Any) -> Composite:
    """The default for None; checks the type."""
    if composite is None:
        return Default()
    if isinstance(composite, Composite):
        return composite
    hint = ""
    if isinstance(composite, Rule):
        hint = f"; for one rule on every layer, composites.Uniform({composite!r})"
    elif callable(composite):
        hint = "; was it meant to be called?"
    raise TypeError(f"composite: got {composite!r}, expected a Composite or None{hint}")


def checked(
    f: Any,
    composite: Any,
    argnums: Any,
    target: Any = "all",
    has_aux: Any = False,
) -> Composite:
    """What transformations have in common, checked before `f` is called."""
    _arguments.function("f", f)
    _arguments.flag("has_aux", has_aux)
    _targets.check(target)
    numbers(argnums)
    return as_composite(composite)


def trace(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    composite: Composite,
    argnums: ArgNums,
    has_aux: bool,
    shadow_outputs: bool = False,
    strict: bool = True,
    by_scope: bool = False,
    keep_calls: bool = True,
    floating: bool = False,
    memories: Memories | None = None,
) -> Traced:
    """Traces and reads `f` at `args`, which are arrays or `jax.ShapeDtypeStruct`s.

    All array leaves of all arguments are traced; `argnums` only selects what is
    attributed. Other leaves (numbers, strings, functions) stay as they are. Without
    `keep_calls` all of them are inlined, so that their bodies can be seen. With
    `floating` what is attributed must be floating-point. With `by_scope` layers have
    names, by scope and by parameter, as where the composite asks for them. With
    `memories` a program that was read before is not read again; they are of calls with
    the same function and options.
    """
    if not callable(f):
        raise TypeError(f"f: got {f!r}, expected a function")
    positions = as_positions(argnums, len(args))
    warn_of_keywords(f, args, kwargs, argnums)
    leaves, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
    traced: list[int] = []
    attributed: list[int] = []
    for i, (path, leaf) in enumerate(leaves):
        if path[0].idx == 0 and path[1].idx in positions:
            check_floating(path, leaf) if floating else _check_attributed(path, leaf)
            attributed.append(len(traced))
            traced.append(i)
        elif is_array(leaf):
            traced.append(i)
    inputs = tuple(as_array(leaves[i][1]) for i in traced)
    out_trees: list[Any] = []

    # All arrays are traced, whatever is attributed: weights that were closed over as
    # constants would be compiled into the program, and could not be mapped over.
    refill = refilled([leaf for _, leaf in leaves], tree, traced)

    def flat(*arrays: Any) -> list[Any]:
        call_args, call_kwargs = refill(arrays)
        result = f(*call_args, **call_kwargs)
        out, aux = split_aux(result, has_aux)
        out_leaves, out_tree = jax.tree.flatten(as_output(out))
        aux_arrays, restore_aux = arrays_of(aux)
        out_trees[:] = [out_tree, restore_aux, len(out_leaves)]
        return [*out_leaves, *map(jnp.asarray, aux_arrays)]

    jaxpr = jax.make_jaxpr(flat)(*inputs)
    out_tree, restore_aux, n_out = out_trees
    wanted = set(attributed)
    active = [i in wanted for i in range(len(inputs))]
    plain, jaxpr = jaxpr, in_floats(jaxpr, active, inputs)
    n_all = len(jaxpr.out_avals)
    named = by_scope or asks_for_names(composite)
    paths = tuple(leaves[i][0] for i in traced)

    def read_now() -> Reading:
        return read(
            jaxpr,
            active,
            composite,
            relevant=[i < n_out for i in range(n_all)],
            shadow_outputs=shadow_outputs,
            strict=strict,
            by_scope=by_scope,
            keep_calls=keep_calls,
            origins=of_leaves(f, paths) if named else None,
        )

    memory = None
    # What is written in floats is written by the values of constants.
    if memories is not None and jaxpr is plain:
        memory = memories.of(jaxpr, inputs, (paths, tuple(active), n_out, out_tree))
    reading = read_now() if memory is None else memory.read(jaxpr, read_now)
    if not any(is_real(a) for a in jaxpr.out_avals[:n_out]):
        kinds = ", ".join(str(a) for a in jaxpr.out_avals[:n_out]) or "nothing"
        raise TypeError(
            f"f: its output has no floating-point leaf ({kinds}), so there is no "
            f"relevance to start with"
        )
    _warn_independent(reading, n_out, positions, attributed, traced, leaves)
    if strict:
        _warn_unread(reading)
        warn_outside(reading, inputs, composite)
    restore = restorer(args, positions, not isinstance(argnums, tuple | list))
    return Traced(
        reading,
        inputs,
        paths,
        tuple(attributed),
        out_tree,
        restore_aux,
        n_out,
        restore,
        jaxpr,
        memory,
    )


def refilled(
    leaves: Sequence[Any], tree: Any, places: Sequence[int]
) -> Callable[[Sequence[Any]], Any]:
    """From new leaves at `places` to the pytree; the others stay as they are."""

    def refill(new: Sequence[Any]) -> Any:
        full = list(leaves)
        for i, leaf in zip(places, new, strict=True):
            full[i] = leaf
        return jax.tree.unflatten(tree, full)

    return refill


def arrays_of(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays and numbers of a pytree, and how to put them back; others stay."""
    leaves, structure = jax.tree.flatten(tree)
    numbers = bool | int | float | complex | np.generic
    known = [is_array(v) or isinstance(v, numbers) for v in leaves]
    others = [None if a else v for v, a in zip(leaves, known, strict=True)]

    def restore(arrays: list[Any]) -> Any:
        queue = iter(arrays)
        full = [next(queue) if a else v for v, a in zip(others, known, strict=True)]
        return jax.tree.unflatten(structure, full)

    return [v for v, a in zip(leaves, known, strict=True) if a], restore


def as_positions(
    argnums: ArgNums, count: int, name: str = "argnums"
) -> tuple[int, ...]:
    """`argnums` as nonnegative positions."""
    positions = []
    if not count and name == "argnums":
        raise ValueError(
            f"{name}: got {argnums!r}, but f was called with 0 positional arguments: "
            f"pass the attributed argument by position"
        )
    for number in numbers(argnums, name):
        if not -count <= number < count:
            raise ValueError(
                f"{name}: got {argnums!r}, but f was called with {count} positional "
                f"arguments: expected numbers in [{-count}, {count})"
            )
        positions.append(number % count)
    if len(set(positions)) != len(positions):
        raise ValueError(f"{name}: got {argnums!r}, which names an argument twice")
    return tuple(positions)


def from_front(argnums: ArgNums, count: int) -> ArgNums:
    """The same arguments by their numbers from the front."""
    positions = as_positions(argnums, count)
    return positions if isinstance(argnums, tuple | list) else positions[0]


def warn_of_keywords(
    f: Callable[..., Any], args: tuple, kwargs: dict, argnums: ArgNums
) -> None:
    """Warns where the last argument is attributed and a later one is a keyword.

    What may only be a keyword is none of these, nor is what holds no array of numbers,
    as a flag or a mask of booleans.
    """
    if not kwargs or -1 not in numbers(argnums):
        return
    try:
        given = inspect.signature(f).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return
    kinds = {n: p.kind for n, p in given.signature.parameters.items()}
    later = [
        name
        for name, value in given.arguments.items()
        if name in kwargs
        and kinds[name] is inspect.Parameter.POSITIONAL_OR_KEYWORD
        and any(map(_has_numbers, jax.tree.leaves(value)))
    ]
    if later:
        warn(
            f"argument {len(args) - 1} is attributed, the last by position, and "
            f"{', '.join(map(repr, later))}, which comes later, is given by keyword: "
            f"keywords are not attributed. Give by position what is explained, or "
            f"say argnums={len(args) - 1}",
            ArgumentWarning,
        )


def _has_numbers(leaf: Any) -> bool:
    return is_array(leaf) and not jnp.issubdtype(leaf.dtype, np.bool_)


def numbers(argnums: ArgNums, name: str = "argnums") -> tuple[int, ...]:
    """`argnums` as a tuple of ints, NumPy's included."""
    numbers = argnums if isinstance(argnums, tuple | list) else (argnums,)
    try:
        if any(isinstance(n, bool) for n in numbers):
            raise TypeError
        return tuple(operator.index(n) for n in numbers)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"{name}: got {argnums!r}, expected an int or a sequence of ints"
        ) from None


def is_array(leaf: Any) -> bool:
    """Is it an array that JAX knows? NumPy's of objects and of text are none."""
    if isinstance(leaf, np.ndarray):
        return _is_known(leaf.dtype)
    return isinstance(leaf, Array | jax.ShapeDtypeStruct)


def _is_known(dtype: Any) -> bool:
    """Does JAX have numbers of this dtype?"""
    return jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)


def as_output(out: Any) -> Any:
    """What a function returned, as arrays."""

    def leaf(path: Any, value: Any) -> Array:
        try:
            return jnp.asarray(value)
        except (TypeError, ValueError):
            where = jax.tree_util.keystr(path)
            raise TypeError(
                f"f: its output{where} is {value!r} of type {type(value).__name__}, "
                f"expected an array; with has_aux=True what else f returns may be "
                f"anything"
            ) from None

    return jax.tree_util.tree_map_with_path(leaf, out)


def as_array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)


def _check_attributed(path: Any, leaf: Any) -> None:
    """An attributed leaf must be an array, of any dtype."""
    name = leaf_name(path)
    is_number = isinstance(leaf, np.generic) and _is_known(leaf.dtype)
    if not is_array(leaf) and not is_number and not isinstance(leaf, float):
        dtype = f" and dtype {leaf.dtype}" if isinstance(leaf, np.ndarray) else ""
        raise TypeError(
            f"{name} is attributed: got {leaf!r} of type {type(leaf).__name__}{dtype}, "
            f"expected an array of numbers"
        )


def check_floating(path: Any, leaf: Any) -> None:
    """An attributed leaf whose values are changed, or whose gradient is followed."""
    _check_attributed(path, leaf)
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(
            f"{leaf_name(path)} is attributed: got dtype {dtype}, expected "
            f"a floating-point one; jaxlrp.lrp without a baseline explains integers, "
            f"and complex numbers, too"
        )


def split_aux(result: Any, has_aux: bool) -> tuple[Any, Any]:
    if not has_aux:
        return result, ()
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            f"has_aux=True: f returned {type(result).__name__}, expected a pair "
            f"(output, auxiliary data)"
        )
    return result


def _warn_independent(
    reading: Reading,
    n_out: int,
    positions: tuple[int, ...],
    attributed: Sequence[int],
    traced: Sequence[int],
    leaves: Sequence[Any],
) -> None:
    """Warns of each attributed argument that no relevance can reach."""
    reached = _reached(reading, n_out)
    for position in positions:
        own = [i for i in attributed if leaves[traced[i]][0][1].idx == position]
        if own and not any(reading.program.inputs[i] in reached for i in own):
            warn(
                f"argument {position}: the output does not depend on it by a path that "
                f"carries relevance; its relevance is zero",
                IndependentArgumentWarning,
            )


def _warn_unread(reading: Reading) -> None:
    """Warns of lines that divide exponentials by something unknown made of them."""
    for line in dict.fromkeys(step.main.line for step in unread_steps(reading)):
        warn(
            f"at {line} an exponential is divided by something made of it that is not "
            f"read as a softmax; the divisor is held constant. {UNREAD}",
            UnreadSoftmaxWarning,
        )


UNREAD = (
    "If it is a softmax, jax.nn.softmax says so; if the divisor is meant to be a "
    "constant, jax.lax.stop_gradient does"
)


def unread_steps(reading: Reading) -> Iterator[Step]:
    """Quotients of exponentials that are no softmax and that relevance passes."""
    for step in reading.steps:
        if step.unread and step.signals:
            yield step
        for body in step.bodies:
            yield from unread_steps(body)


def _reached(reading: Reading, n_out: int) -> set[Any]:
    """The values that relevance of the outputs reaches."""
    reached = {v for v in reading.program.outputs[:n_out] if reading.is_active(v)}
    for step in reversed(reading.steps):
        if not reached.isdisjoint(step.outputs):
            reached.update(step.signals)
    return reached


def restorer(
    args: tuple[Any, ...], positions: tuple[int, ...], single: bool
) -> Callable[[list[Array]], Any]:
    """Leaves, in the order of the arguments, to the form that `argnums` asks for."""
    ordered = sorted(positions)
    trees = {p: jax.tree.structure(args[p]) for p in ordered}

    def restore(leaves: list[Array]) -> Any:
        queue = list(leaves)
        by_position = {}
        for p in ordered:
            n = trees[p].num_leaves
            by_position[p] = jax.tree.unflatten(trees[p], queue[:n])
            del queue[:n]
        result = tuple(by_position[p] for p in positions)
        return result[0] if single else result

    return restore


def positive(name: str, value: Any) -> int:
    """`value` as an int of at least one."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: got {value!r}, expected an int")
    if value < 1:
        raise ValueError(f"{name}: got {value}, expected at least 1")
    return value


def policy(remat: Any) -> Any:
    """`remat`, if it is a bool or a policy of `jax.checkpoint`."""
    if isinstance(remat, bool) or callable(remat):
        return remat
    raise TypeError(
        f"remat: got {remat!r}, expected a bool or one of jax.checkpoint_policies"
    )


def wraps(
    f: Callable[..., Any], method: str, returns: str, more: str = ""
) -> Callable[[Wrapped], Wrapped]:
    """Names a function of `f`'s arguments after `f`, and says what it returns.

    It has `f`'s signature, but for what `f` returns: that is something else. `f` may
    have neither name nor signature, as a partial or a bound apply.

    Args:
      f: the function that it is made of.
      method: what makes it, below `jaxlrp`.
      returns: what it returns, in words.
      more: arguments that it takes besides those of `f`, in words: then its signature
        is another.
    """
    name = getattr(f, "__name__", type(f).__name__)
    own = inspect.getdoc(f) if hasattr(f, "__name__") else None
    taken = f"of its arguments and {more}" if more else "of the same arguments"
    text = f"`jaxlrp.{method}` of `{name}`, a function {taken}.\n\n"
    text += f"Returns:\n  {returns}\n"
    text += f"\nThe documentation of `{name}`:\n\n{own}\n" if own else ""

    def named(wrapped: Any) -> Any:
        wrapped.__name__ = f"{method.rpartition('.')[2]}_{name}"
        wrapped.__qualname__ = wrapped.__name__
        wrapped.__module__ = getattr(f, "__module__", __name__)
        wrapped.__doc__ = text
        if more:
            return wrapped
        with contextlib.suppress(TypeError, ValueError):
            signature = inspect.signature(f)
            nothing = inspect.Signature.empty
            wrapped.__signature__ = signature.replace(return_annotation=nothing)
            wrapped.__wrapped__ = f
        return wrapped

    return named
