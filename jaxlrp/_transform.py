"""The transformation: `lrp`, `value_and_lrp` and `relprop`.

`f` is traced to a jaxpr, the jaxpr is read, and its reading is evaluated under
`jax.vjp`: what comes back is the relevance's multiplier, and relevance is input times
multiplier, plus what arrived at the input's shadow.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _facts, _targets
from jaxlrp._evaluate import Run, evaluate
from jaxlrp._read import read
from jaxlrp._steps import Reading
from jaxlrp.composites import Composite, Default
from jaxlrp.errors import IndependentArgumentWarning
from jaxlrp.rules import Rule

ArgNums = int | Sequence[int]


@dataclasses.dataclass(frozen=True)
class Traced:
    """A function, traced and read.

    Attributes:
      reading: its program, read.
      inputs: the arrays that were traced, for every argument.
      attributed: the positions of the attributed leaves among them.
      out_tree: the structure of the output.
      restore_aux: puts the auxiliary arrays back among what is no array.
      n_out: how many leaves are output; the rest is auxiliary.
      restore: puts the relevances of the attributed leaves into their arguments' form.
    """

    reading: Reading
    inputs: tuple[Any, ...]
    attributed: tuple[int, ...]
    out_tree: Any
    restore_aux: Callable[[list[Any]], Any]
    n_out: int
    restore: Callable[[list[Array]], Any]


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
    stacklevel: int = 4,
) -> Traced:
    """Traces and reads `f` at `args`, which are arrays or `jax.ShapeDtypeStruct`s.

    All array leaves of all arguments are traced; `argnums` only selects what is
    attributed. Other leaves (numbers, strings, functions) stay as they are.
    """
    if not callable(f):
        raise TypeError(f"f: got {f!r}, expected a function")
    positions = _positions(argnums, len(args))
    leaves, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
    traced: list[int] = []
    attributed: list[int] = []
    for i, (path, leaf) in enumerate(leaves):
        if path[0].idx == 0 and path[1].idx in positions:
            _check_attributed(path, leaf)
            attributed.append(len(traced))
            traced.append(i)
        elif _is_array(leaf):
            traced.append(i)
    inputs = tuple(_as_array(leaves[i][1]) for i in traced)
    out_trees: list[Any] = []

    def flat(*arrays: Any) -> list[Any]:
        full = [leaf for _, leaf in leaves]
        for i, array in zip(traced, arrays, strict=True):
            full[i] = array
        call_args, call_kwargs = jax.tree.unflatten(tree, full)
        result = f(*call_args, **call_kwargs)
        out, aux = _split_aux(result, has_aux)
        out_leaves, out_tree = jax.tree.flatten(out)
        aux_arrays, restore_aux = _arrays_of(aux)
        out_trees[:] = [out_tree, restore_aux, len(out_leaves)]
        return [jnp.asarray(v) for v in (*out_leaves, *aux_arrays)]

    jaxpr = jax.make_jaxpr(flat)(*inputs)
    out_tree, restore_aux, n_out = out_trees
    wanted = set(attributed)
    active = [i in wanted for i in range(len(inputs))]
    n_all = len(jaxpr.out_avals)
    reading = read(
        jaxpr,
        active,
        composite,
        relevant=[i < n_out for i in range(n_all)],
        shadow_outputs=shadow_outputs,
        strict=strict,
        by_scope=by_scope,
    )
    if not any(_facts.is_real(a) for a in jaxpr.out_avals[:n_out]):
        kinds = ", ".join(str(a) for a in jaxpr.out_avals[:n_out]) or "nothing"
        raise TypeError(
            f"f: its output has no floating-point leaf ({kinds}), so there is no "
            f"relevance to start with"
        )
    _warn_independent(reading, n_out, positions, attributed, traced, leaves, stacklevel)
    restore = _restorer(args, positions, not isinstance(argnums, tuple | list))
    return Traced(
        reading, inputs, tuple(attributed), out_tree, restore_aux, n_out, restore
    )


def _arrays_of(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The arrays and numbers of a pytree, and how to put them back; others stay."""
    leaves, structure = jax.tree.flatten(tree)
    numbers = bool | int | float | complex | np.generic
    is_array = [_is_array(v) or isinstance(v, numbers) for v in leaves]
    others = [None if a else v for v, a in zip(leaves, is_array, strict=True)]

    def restore(arrays: list[Any]) -> Any:
        queue = iter(arrays)
        full = [next(queue) if a else v for v, a in zip(others, is_array, strict=True)]
        return jax.tree.unflatten(structure, full)

    return [v for v, a in zip(leaves, is_array, strict=True) if a], restore


def _positions(argnums: ArgNums, count: int) -> tuple[int, ...]:
    """`argnums` as nonnegative positions."""
    positions = []
    for number in _numbers(argnums):
        if not -count <= number < count:
            raise ValueError(
                f"argnums: got {argnums!r}, but f was called with {count} positional "
                f"arguments: expected numbers in [{-count}, {count})"
            )
        positions.append(number % count)
    if len(set(positions)) != len(positions):
        raise ValueError(f"argnums: got {argnums!r}, which names an argument twice")
    return tuple(positions)


def _numbers(argnums: ArgNums) -> tuple[int, ...]:
    """`argnums` as a tuple of ints, NumPy's included."""
    numbers = argnums if isinstance(argnums, tuple | list) else (argnums,)
    try:
        if any(isinstance(n, bool) for n in numbers):
            raise TypeError
        return tuple(operator.index(n) for n in numbers)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(
            f"argnums: got {argnums!r}, expected an int or a sequence of ints"
        ) from None


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, Array | np.ndarray | jax.ShapeDtypeStruct)


def _as_array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.ShapeDtypeStruct) else jnp.asarray(leaf)


def _check_attributed(path: Any, leaf: Any) -> None:
    """An attributed leaf must be a floating-point array."""
    name = f"argument {path[1].idx}{jax.tree_util.keystr(path[2:])}"
    if not _is_array(leaf) and not isinstance(leaf, float | np.generic):
        raise TypeError(
            f"{name} is attributed: got {leaf!r} of type {type(leaf).__name__}, "
            f"expected a floating-point array"
        )
    dtype = jnp.float32 if isinstance(leaf, float) else leaf.dtype
    if not jnp.issubdtype(dtype, jnp.floating):
        hint = "; to explain integers, attribute what they look up (embeddings)"
        raise TypeError(
            f"{name} is attributed: got dtype {dtype}, expected a floating-point one"
            f"{hint if jnp.issubdtype(dtype, jnp.integer) else ''}"
        )


def _split_aux(result: Any, has_aux: bool) -> tuple[Any, Any]:
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
    stacklevel: int,
) -> None:
    """Warns of each attributed argument that no relevance can reach."""
    reached = _reached(reading, n_out)
    for position in positions:
        own = [i for i in attributed if leaves[traced[i]][0][1].idx == position]
        if own and not any(reading.program.inputs[i] in reached for i in own):
            warnings.warn(
                f"argument {position}: the output does not depend on it by a path that "
                f"carries relevance; its relevance is zero",
                IndependentArgumentWarning,
                stacklevel=stacklevel,
            )


def _reached(reading: Reading, n_out: int) -> set[Any]:
    """The values that relevance of the outputs reaches."""
    reached = {v for v in reading.program.outputs[:n_out] if reading.is_active(v)}
    for step in reversed(reading.steps):
        if not reached.isdisjoint(step.outputs):
            reached.update(step.signals)
    return reached


def _restorer(
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


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A function evaluated once, ready to send relevance back.

    Attributes:
      outs: the leaves of the output.
      aux: the leaves of the auxiliary output.
      relevance: from multipliers of `outs`, and relevances beside them or None, to the
        relevances of the attributed leaves and the cotangents of the taps.
    """

    outs: list[Array]
    aux: list[Array]
    relevance: Callable[[list[Array], list[Array] | None], tuple[list[Array], Any]]


def backward(
    traced: Traced, run: Run | Callable[[Any], Run], taps: Any = None
) -> Evaluated:
    """Evaluates a traced function and prepares its reverse pass.

    Args:
      traced: the function.
      run: rules and observers, or a function from `taps` to them.
      taps: zeros that observers pass to `tap`; their cotangents come back.

    Returns:
      The outputs and the reverse pass.
    """
    reading, n_out = traced.reading, traced.n_out
    xs = [traced.inputs[i] for i in traced.attributed]
    wanted = reading.shadowed_inputs
    outputs = reading.program.outputs
    floats = [i for i, v in enumerate(outputs[:n_out]) if _facts.is_real(v.aval)]

    def forward(xs: list[Array], zeros: list[Array], taps: Any) -> Any:
        inputs = list(traced.inputs)
        shadows: list[Any] = [None] * len(inputs)
        for i, x, zero in zip(traced.attributed, xs, zeros, strict=True):
            inputs[i] = x
            shadows[i] = zero if wanted[i] else None
        this = run if isinstance(run, Run) else run(taps)
        outs, out_shadows = evaluate(reading, this, inputs, shadows)
        return [(outs[i], out_shadows[i]) for i in floats], outs

    zeros = [jnp.zeros_like(x) for x in xs]
    given, pull, outs = jax.vjp(forward, xs, zeros, taps, has_aux=True)

    def relevance(multipliers: list[Array], plain: list[Array] | None) -> Any:
        seeds = []
        for i, (_, shadow) in zip(floats, given, strict=True):
            r = None
            if shadow is not None:
                r = jnp.zeros_like(shadow) if plain is None else plain[i]
            seeds.append((multipliers[i], r))
        cs, rs, collected = pull(seeds)
        return [
            (x * c + r if wanted[i] else x * c).astype(x.dtype)
            for i, x, c, r in zip(traced.attributed, xs, cs, rs, strict=True)
        ], collected

    return Evaluated(outs[:n_out], outs[n_out:], relevance)


def seed(target: Any, out_tree: Any, outs: list[Array]) -> tuple[list, list | None]:
    """The target as (multipliers of the outputs, relevances beside them or None)."""
    out = jax.tree.unflatten(out_tree, outs)
    if callable(target):
        plain = jax.tree.leaves(_targets.relevance(target, out))
        return [jnp.zeros_like(y) for y in outs], plain
    return jax.tree.leaves(_targets.multiplier(target, out)), None


def value_and_lrp(
    f: Callable[..., Any],
    composite: Composite | None = None,
    *,
    argnums: ArgNums = -1,
    target: Any = "max",
    has_aux: bool = False,
) -> Callable[..., Any]:
    """Like `lrp`, and the value of `f` beside it, from the same evaluation.

    The arguments and errors are those of `lrp`.

    Returns:
      A function of `f`'s arguments that returns `(value, relevance)`, or with
      `has_aux` `((value, aux), relevance)`. `value` is the whole output of `f`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lambda w, x: jax.nn.relu(x @ w)
      >>> value, relevance = jaxlrp.value_and_lrp(f)(w, jnp.array([1.0, 2.0]))
      >>> [round(float(r), 3) for r in relevance]
      [1.0, 4.0]
      >>> bool(jnp.isclose(relevance.sum(), value.max()))
      True
    """
    explain = _explainer(f, composite, argnums, target, has_aux)

    @_wraps(f)
    def explained(*args: Any, **kwargs: Any) -> Any:
        return explain(args, kwargs)

    return explained


def _explainer(
    f: Callable[..., Any],
    composite: Composite | None,
    argnums: ArgNums,
    target: Any,
    has_aux: bool,
) -> Callable[[tuple, dict], Any]:
    """`value_and_lrp` on packed arguments; what can be checked at once is."""
    rules = as_composite(composite)
    _targets.check(target)
    _numbers(argnums)
    if not callable(f):
        raise TypeError(f"f: got {f!r}, expected a function")

    def explain(args: tuple, kwargs: dict) -> Any:
        plain = callable(target)
        traced = trace(f, args, kwargs, rules, argnums, has_aux, plain, stacklevel=5)
        once = backward(traced, Run(rules))
        leaves, _ = once.relevance(*seed(target, traced.out_tree, once.outs))
        out = jax.tree.unflatten(traced.out_tree, once.outs)
        value = (out, traced.restore_aux(once.aux)) if has_aux else out
        return value, traced.restore(leaves)

    return explain


def lrp(
    f: Callable[..., Any],
    composite: Composite | None = None,
    *,
    argnums: ArgNums = -1,
    target: Any = "max",
    has_aux: bool = False,
) -> Callable[..., Any]:
    """The relevance of `f`'s inputs for its output: Layer-wise Relevance Propagation.

    `R_x` with `sum(R_x) = f(x)[target]`, up to what biases, stabilisers and constants
    absorb (`jaxlrp.audit` tells how much). Like `jax.grad` it does not compile by
    itself: write `jax.jit(jaxlrp.lrp(f))`.

    Args:
      f: a function of pytrees that JAX can trace. Keyword arguments are passed on and
        not attributed.
      composite: which rule each role gets, see `jaxlrp.composites`; None is a good
        default for any model.
      argnums: the positional argument to attribute, or several; the last by default.
      target: the output that is explained. `"max"`: the highest along the last axis,
        for each example; `"all"`: the whole output; an int, or an integer array with
        one class for each example; or a callable `out -> R_out`. The seed is the
        output's own value at the target.
      has_aux: `f` returns `(output, auxiliary data)`.

    Returns:
      A function of `f`'s arguments that returns the relevance of the chosen argument,
      with its pytree structure, shapes and dtypes (a tuple for several `argnums`); with
      `has_aux`, `(relevance, aux)`.

    Raises:
      TypeError: for a composite, target or attributed argument of the wrong type.
      ValueError: for `argnums` or a class out of range.
      UnexplainedPrimitiveError: where relevance meets a primitive without a rule.

    Source: Bach et al. 2015, "On pixel-wise explanations for non-linear classifier
    decisions by layer-wise relevance propagation".

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> params = {"w": jnp.array([[1.0, -1.0], [2.0, 0.5]]), "b": jnp.zeros(2)}
      >>> f = lambda params, x: jnp.tanh(x @ params["w"] + params["b"])
      >>> relevance = jax.jit(jaxlrp.lrp(f))(params, jnp.array([[1.0, 2.0]]))
      >>> relevance.shape
      (1, 2)
    """
    explain = _explainer(f, composite, argnums, target, has_aux)

    @_wraps(f)
    def relevance(*args: Any, **kwargs: Any) -> Any:
        value, explanation = explain(args, kwargs)
        return (explanation, value[1]) if has_aux else explanation

    return relevance


def relprop(
    f: Callable[..., Any],
    *primals: Any,
    composite: Composite | None = None,
    argnums: ArgNums = -1,
) -> tuple[Any, Callable[[Any], Any]]:
    """The output of `f`, and a function from the output's relevance to the inputs'.

    In the shape of `jax.vjp`; the relevance function is linear, can be called many
    times, and can be vmapped over output relevances.

    Args:
      f: as for `lrp`.
      *primals: its positional arguments.
      composite: as for `lrp`.
      argnums: as for `lrp`.

    Returns:
      `(out, relprop_fn)`. `relprop_fn(R_out)` takes a pytree like `out`, of relevances,
      and returns the relevance of the chosen argument or arguments.

    Raises:
      ValueError: if `R_out` has another structure or shape than the output.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> out, pull = jaxlrp.relprop(lambda x: x @ w, jnp.array([1.0, 2.0]))
      >>> jax.vmap(pull)(jnp.diag(out)).shape
      (2, 2)
    """
    rules = as_composite(composite)
    traced = trace(f, primals, {}, rules, argnums, False, shadow_outputs=True)
    once = backward(traced, Run(rules))
    out = jax.tree.unflatten(traced.out_tree, once.outs)

    def pull(relevance_out: Any) -> Any:
        plain = jax.tree.leaves(_targets.check_like(relevance_out, out, "R_out"))
        nothing = [jnp.zeros_like(y) for y in once.outs]
        return traced.restore(once.relevance(nothing, plain)[0])

    return out, pull


def _wraps(f: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`functools.wraps` for what may have no name: partials, bound applies."""
    try:
        inspect.signature(f)
        return functools.wraps(f, updated=())
    except (TypeError, ValueError):
        return lambda wrapped: wrapped
