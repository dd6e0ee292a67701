"""Taylor decomposition: a score as terms of first and higher order around a root.

With the score `S` of an input `x`, a root `r` and the way `d = x - r`,

    S(x) = S(r) + sum_i d_i S_i(r) + 1/2 sum_ij d_i d_j S_ij(r) + ... + residual,

where `S_i` and `S_ij` are derivatives. Terms of first order say what a feature adds on
its own, terms of second order what two add together. What is left is returned, order by
order: how good the decomposition is, is no matter of belief.

Source: Montavon et al. 2017, "Explaining nonlinear classification decisions with deep
Taylor decomposition" (first order); Montavon et al. 2018, "Methods for interpreting and
understanding deep neural networks".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _arguments, _curvature, _series, _units
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution import _call, _checks
from jaxlrp.attribution._call import Call
from jaxlrp.attribution._chunks import accumulator

P = ParamSpec("P")

__all__ = ["Decomposition", "Search", "series", "taylor"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Decomposition:
    """A score, decomposed around a root.

    `value - at_root = sum_k sum(terms[k]) + residual[-1]`, to rounding.

    Attributes:
      value: the score of the explained input, `S(x)`, Float[Array, ""].
      at_root: that of the root, `S(r)`, Float[Array, ""].
      root: the root, like the attributed argument.
      terms: what each element adds, by order: `terms[0]` is of first order,
        `d_i S_i(r)`, `terms[1]` of second, `1/2 d_i sum_j S_ij(r) d_j`, and so on; each
        like the attributed argument.
      series: the sum of the terms of each order, Float[Array, "order"]: the
        coefficients of `t -> S(r + t d)` from the first on.
      residual: what is left after each order, Float[Array, "order"]:
        `residual[k] = S(x) - S(r) - sum(series[: k + 1])`.
      interactions: the rows, pairs or matrix of second order that were asked for,
        `1/2 sum_{i in a, j in b} d_i d_j S_ij(r)` for units `a` and `b`; None if none.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.taylor import taylor
      >>> f = lambda x: x[0] * x[1] + x[1]
      >>> found = taylor(f, root=1.0)(jnp.array([3.0, 2.0]))
      >>> float(found.value), float(found.at_root), found.series.tolist()
      (8.0, 2.0, [4.0, 2.0])
    """

    value: Array
    at_root: Array
    root: Any
    terms: tuple[Any, ...]
    series: Array
    residual: Array
    interactions: Array | None = None


@dataclasses.dataclass(frozen=True)
class Search:
    """A root that is searched for: where the score is `level`, near the input.

    From the input on along the gradient, to where the tangent plane has the level, and
    into the domain:

        r <- clip(r - (S(r) - level) g / |g|^2, low, high),    g = dS/dr.

    It need not succeed: `Decomposition.at_root` is the score that was reached.

    Attributes:
      level: the score of the root, a number; it may be traced.
      low: the least value that an element of the root may have, as for
        `taylor`'s `root`.
      high: the largest.
      steps: how many steps are taken.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp.taylor import Search, taylor
      >>> f = lambda x: x.sum() - 2.0
      >>> found = taylor(f, order=1, root=Search())(jnp.array([3.0, 5.0]))
      >>> found.root.tolist(), found.terms[0].tolist()
      ([0.0, 2.0], [3.0, 3.0])
    """

    level: Any = 0.0
    low: Any = None
    high: Any = None
    steps: int = 16

    def __post_init__(self) -> None:
        _arguments.number("level", self.level, "the score of a root")
        _checks.natural("steps", self.steps)


def taylor(
    f: Callable[P, Any],
    order: int = 2,
    *,
    root: Any = 0.0,
    rows: Any = None,
    pairs: Any = None,
    units: Any = None,
    beta: Any = None,
    chunk: int = 8,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The terms of a Taylor expansion around a root, and what is left.

    With `d = x - r` and the score `S` as in `jaxlrp.attribution.gradient`, the term of
    order `k` of element `i` is

        R_i^(k) = d_i / k! * d/dr_i D^(k-1) S(r)[d, ..., d],

    so that `sum_i R_i^(k)` is the coefficient of order `k` of `t -> S(r + t d)`, which
    are exact: those of Taylor arithmetic (`jax.experimental.jet`), not of differences.
    All orders take one forward and `order` reverse passes. Interactions of second order
    are Hessian-vector products, one for each row.

    Args:
      f: a function of one example; examples are mapped over with `jax.vmap`.
      order: of the last terms, 1, 2, ...
      root: the root `r`: a number, an array that broadcasts to the attributed one, or
        for a pytree argument a pytree of such with its structure; or a `Search`. It may
        be traced.
      rows: units whose interactions with all units are returned: a number, numbers, or
        places on the grid of units, Int[Array, "rows axes"]; `"all"` for the whole
        matrix.
      pairs: pairs of units, Int[Array, "pairs 2"] or Int[Array, "pairs 2 axes"],
        instead of rows.
      units: between what interactions are: None for the elements of the attributed
        array; a tuple for a grid, with as many sizes as the array has axes, each of
        which divides the array's: `(32, 32, 1)` for the pixels of an image,
        `(4, 4, 1)` for patches, `(tokens, 1)`; or labels, integer arrays in the
        structure of the attributed argument, the number of each element's unit from 0
        on, and -1 for what is in none.
      beta: what becomes of piecewise linear activations and of maxima over places, as
        in max pooling, from the second order on, since they have no curvature: a number
        puts softplus in their place, `log(1 + exp(beta x)) / beta`, and for a maximum
        `log(sum exp(beta x)) / beta`; infinity leaves them; None refuses them.
      chunk: how many rows are computed at once. It bounds the memory; the result does
        not depend on it.
      argnums: as for `jaxlrp.attribution.gradient`.
      target: as for `jaxlrp.attribution.gradient`; it is that of `x` throughout.
      has_aux: as for `jaxlrp.attribution.gradient`; the auxiliary data is that at `x`.

    Returns:
      A function of `f`'s arguments that returns a `Decomposition`, or with `has_aux`
      `(decomposition, aux)`. `interactions` has the shape (rows, *grid), (pairs,) or
      (*grid, *grid), where the grid is the attributed array's shape without `units` and
      (count,) with labels.

    Raises:
      TypeError: for a primitive without a derivative, and arguments of another kind.
      ValueError: for a root of the wrong structure or shape, units that do not fit,
        numbers out of range, a matrix that is larger than the memory; and from the
        second order on for a function that is not twice differentiable.

    Warns:
      CurvatureWarning: from the second order on, where the input makes choices that
        derivatives do not see.

    Source: Montavon et al. 2018, section 4.1.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp.taylor import taylor
      >>> f = lambda x: x[0] ** 2 * x[1]
      >>> found = jax.jit(taylor(f, order=2, rows="all"))(jnp.array([1.0, 2.0]))
      >>> found.series.tolist(), found.residual.tolist()  # of third order at zero
      ([0.0, 0.0], [2.0, 2.0])
      >>> at_one = taylor(f, order=3, root=1.0, rows=[0])(jnp.array([2.0, 3.0]))
      >>> at_one.series.tolist(), at_one.residual[-1].tolist()
      ([4.0, 5.0, 2.0], 0.0)
      >>> at_one.interactions.tolist()
      [[1.0, 2.0]]
    """
    highest = _checks.natural("order", order)
    _checks.natural("chunk", chunk)
    _curvature.check_beta(beta)
    wanted = rows is not None or pairs is not None
    if wanted and highest < 2:
        name = "rows" if rows is not None else "pairs"
        raise ValueError(
            f"order: got {order} with {name}, expected at least 2: interactions are of "
            f"second order"
        )

    def explain(call: Call) -> tuple[Decomposition, Any]:
        out, aux = call.output(call.xs)
        score = _call.score(call, _call.seed(target, out))
        if highest > 1:
            score = _curvature.curved(score, call.xs, beta)
        start = _root(root, score, call)
        ways = [x - r for x, r in zip(call.xs, start, strict=True)]

        def lower(xs: list[Array]) -> Array:
            return jnp.stack(_series.coefficients(score, xs, ways, highest - 1))

        below, pull = jax.vjp(lower, start)
        (slopes,) = jax.vmap(pull)(jnp.eye(highest, dtype=below.dtype))
        terms, last = [], jnp.zeros_like(below[0])
        for k in range(highest):
            each = [d * s[k] / (k + 1) for d, s in zip(ways, slopes, strict=True)]
            terms.append(call.restore(_call.as_inputs(each, call.xs)))
            last = _total(each, below.dtype)
        sums = jnp.append(below[1:], last)  # those below are known more exactly
        value = score(call.xs)
        residual = value - below[0] - jnp.cumsum(sums)
        found = None
        if wanted:
            grouped = _units.units_of(units, call.xs, call.restore)
            asked = _units.asked(rows, pairs, grouped, accumulator(below))
            found = asked.finish(
                _second(score, start, ways, grouped, asked.rows, chunk) / 2
            )
        where = call.restore(start)
        return Decomposition(
            value, below[0], where, tuple(terms), sums, residual, found
        ), aux

    return _call.wrapped(
        "taylor", f, argnums, target, has_aux, explain, "a `Decomposition`"
    )


def series(
    f: Callable[P, Any],
    order: int,
    *,
    root: Any = 0.0,
    beta: Any = None,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The series of the score on the way from a root to the input: `c_0, ..., c_order`.

    `S(r + t (x - r)) = sum_k c_k t^k + ...`, so that `c_0 = S(r)`, and at `t = 1` the
    partial sums tend to `S(x)` where the series converges. It costs a forward pass in
    Taylor arithmetic, and says before any matrix is computed which orders matter.

    Args:
      f: as for `taylor`.
      order: of the last coefficient, 1, 2, ...
      root: as for `taylor`.
      beta: as for `taylor`.
      argnums: as for `taylor`.
      target: as for `taylor`.
      has_aux: as for `taylor`.

    Returns:
      A function of `f`'s arguments that returns Float[Array, "order+1"].

    Raises:
      TypeError: as for `taylor`.
      ValueError: as for `taylor`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import taylor
      >>> explain = taylor.series(lambda x: x**3, 3, root=1.0)
      >>> explain(jnp.float32(2.0)).tolist()
      [1.0, 3.0, 3.0, 1.0]
    """
    highest = _checks.natural("order", order)
    _curvature.check_beta(beta)

    def explain(call: Call) -> tuple[Array, Any]:
        out, aux = call.output(call.xs)
        score = _call.score(call, _call.seed(target, out))
        if highest > 1:
            score = _curvature.curved(score, call.xs, beta)
        start = _root(root, score, call)
        ways = [x - r for x, r in zip(call.xs, start, strict=True)]
        return jnp.stack(_series.coefficients(score, start, ways, highest)), aux

    return _call.wrapped(
        "taylor.series", f, argnums, target, has_aux, explain, "the coefficients"
    )


def _total(leaves: Sequence[Array], dtype: Any) -> Array:
    """The sum of all elements."""
    return sum((v.astype(dtype).sum() for v in leaves), start=jnp.zeros((), dtype))


def _second(
    score: Callable[[list[Array]], Array],
    point: Sequence[Array],
    ways: Sequence[Array],
    units: _units.Units,
    rows: Any,
    chunk: int,
) -> Array:
    """`sum_{i in a, j in b} d_i d_j S_ij`, for units `a` of `rows` and all `b`."""
    _, product = jax.linearize(jax.grad(score), list(point))

    def row(number: Array) -> Array:
        curvature = product(units.of(number, ways))
        return units.pooled(
            [
                (h * d).astype(accumulator(d))
                for h, d in zip(curvature, ways, strict=True)
            ]
        )

    return _units.mapped(row, rows, chunk)


def _root(given: Any, score: Callable[[list[Array]], Array], call: Call) -> list[Array]:
    """The root's leaves."""
    if not isinstance(given, Search):
        return _checks.baselines("root", given, call)
    low, high = (
        None if bound is None else _checks.baselines(name, bound, call)
        for name, bound in (("low", given.low), ("high", given.high))
    )

    def step(xs: list[Array], _: None) -> tuple[list[Array], None]:
        value, slopes = jax.value_and_grad(score)(xs)
        size = _total([g * g for g in slopes], value.dtype)
        length = jnp.where(size == 0, 0, (value - given.level) / size)
        moved = [
            (x - length * g).astype(x.dtype) for x, g in zip(xs, slopes, strict=True)
        ]
        if low is not None:
            moved = [jnp.maximum(x, b) for x, b in zip(moved, low, strict=True)]
        if high is not None:
            moved = [jnp.minimum(x, b) for x, b in zip(moved, high, strict=True)]
        return moved, None

    found, _ = lax.scan(step, list(call.xs), None, length=given.steps)
    return [lax.stop_gradient(r) for r in found]
