"""Interactions: what two features of an input do together.

Three ways to ask, none of which makes a model's whole matrix unless that is asked for:

- second derivatives, averaged on the way from a baseline (`integrated_hessians`) or
  from many (`expected_hessians`): rows by Hessian-vector products;
- second order with LRP's rules: how a relevance depends on a feature (`lrp_hessian`),
  and pairs of relevances where what reads the features is a quadratic form (`bilrp`);
- differences over sets of a few units, taken away by masks: `harsanyi`,
  `shapley_taylor`.

All take a function of one example; examples are mapped over with `jax.vmap`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp import _arguments, _compat, _curvature, _trace, _units
from jaxlrp._lrp import lrp
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp._warn import warn
from jaxlrp.attribution import _call, _checks
from jaxlrp.attribution._call import Call
from jaxlrp.attribution._chunks import accumulator, sum_over
from jaxlrp.attribution.paths import _background
from jaxlrp.composites import Composite
from jaxlrp.errors import RelevanceWarning
from jaxlrp.similarity import branch

P = ParamSpec("P")

__all__ = [
    "Pairs",
    "Subsets",
    "bilrp",
    "expected_hessians",
    "harsanyi",
    "integrated_hessians",
    "lrp_hessian",
    "shapley_taylor",
]

_QUADRATURES = ("gauss", "gauss-legendre")
GAP = 0.1
"""Interactions that miss the score's gain by more than this part of it are told of."""


# ---- second derivatives on a way ---------------------------------------------------


def integrated_hessians(
    f: Callable[P, Any],
    baseline: Any = 0.0,
    *,
    rows: Any = None,
    pairs: Any = None,
    units: Any = None,
    nodes: int = 16,
    quadrature: str = "gauss",
    beta: Any = None,
    chunk: int = 8,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Integrated gradients of integrated gradients: an interaction for each pair.

    With the baseline `b`, `d = x - b` and the score `S` as in
    `jaxlrp.attribution.gradient`, on the way `b + a c d` for `a` and `c` in (0, 1),

        G_ij = d_i d_j mean_ac a c S_ij(b + a c d),                       i != j
        G_ii = d_i d_i mean_ac a c S_ii(b + a c d) + d_i mean_ac S_i(b + a c d)

    and `sum_j G_ij` is the integrated gradient of `i`, `sum_ij G_ij = S(x) - S(b)`.
    The integrand depends on `s = a c` alone, whose density is `-log(s)`: so the mean is
    an integral over one variable,

        mean_ac g(a c) = integral_0^1 -log(s) g(s) ds = sum_k w_k g(s_k),

    for which `nodes` Gauss nodes are exact to the degree to which `nodes * nodes` nodes
    of Gauss-Legendre in both variables are. A row takes a Hessian-vector product at
    each node.

    Args:
      f: a function of one example, twice differentiable.
      baseline: a number, an array that broadcasts to the attributed one, or for a
        pytree argument a pytree of such with its structure. It may be traced.
      rows: as for `jaxlrp.taylor.taylor`; None, without pairs, for the whole matrix.
      pairs: as for `jaxlrp.taylor.taylor`.
      units: as for `jaxlrp.taylor.taylor`.
      nodes: how many nodes there are.
      quadrature: `"gauss"` for the nodes of the weight `-log(s)`, or
        `"gauss-legendre"` for `nodes * nodes` of them in `a` and `c`.
      beta: as for `jaxlrp.taylor.taylor`. With a softplus for each ReLU the scores that
        the interactions add up to are those of that network.
      chunk: how many Hessian-vector products are computed at once. It bounds the
        memory; the result does not depend on it.
      argnums: as for `jaxlrp.attribution.gradient`.
      target: as for `jaxlrp.attribution.gradient`; it is that of `x` throughout.
      has_aux: as for `jaxlrp.attribution.gradient`; the auxiliary data is that at `x`.

    Returns:
      A function of `f`'s arguments that returns an array, at least float32: (rows,
      *grid), (pairs,) or (*grid, *grid), as `interactions` of
      `jaxlrp.taylor.Decomposition`.

    Raises:
      ValueError: for an unknown quadrature, a baseline of the wrong structure or shape,
        units that do not fit, numbers out of range, a matrix that is larger than the
        memory, and a function that is not twice differentiable.

    Warns:
      CurvatureWarning: where the input makes choices that derivatives do not see.
      RelevanceWarning: if the whole matrix adds up to something else than the score
        gains, by more than a tenth of it: `nodes` are too few. Not under `jit` and
        `vmap`, where nothing is known; compare `G.sum()` with `S(x) - S(b)` there.

    Source: Janizek, Sturmfels, Lee 2021, "Explaining explanations: axiomatic feature
    interactions for deep networks".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> f = lambda x: x.sum() + 2 * x[0] * x[1]
      >>> g = interactions.integrated_hessians(f)(jnp.array([1.0, 2.0, -1.0]))
      >>> (g.round(5) + 0.0).tolist()
      [[2.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, -1.0]]
    """
    _checks.natural("chunk", chunk)
    _curvature.check_beta(beta)
    points, weights = _nodes(quadrature, _checks.natural("nodes", nodes))

    def explain(call: Call) -> tuple[Array, Any]:
        out, aux = call.output(call.xs)
        score = _call.score(call, _call.seed(target, out))
        score = _curvature.curved(score, call.xs, beta)
        start = _checks.baselines("baseline", baseline, call)
        ways = [x - b for x, b in zip(call.xs, start, strict=True)]
        grouped = _units.units_of(units, call.xs, call.restore)
        wide = accumulator(call.xs[0])
        asked = _units.asked(rows, pairs, grouped, wide)

        def at(node: tuple[Array, Array]) -> list[Array]:
            s, w = node
            return [w * _integrand(score, start, ways, s, grouped, asked.rows, chunk)]

        places = jnp.asarray(points, wide), jnp.asarray(weights, wide)
        at_once = max(1, chunk // max(1, len(asked.rows)))
        (total,) = sum_over(at, places, at_once)
        found = asked.finish(total)
        if rows is None and pairs is None and _compat.is_known(found):
            _warn_of_gap(found, score(call.xs) - score(start), nodes)
        return found, aux

    returns = "the interactions that were asked for, an array"
    return _call.wrapped(
        "integrated_hessians", f, argnums, target, has_aux, explain, returns
    )


def _warn_of_gap(found: Array, gained: Array, nodes: int) -> None:
    """Warns of a matrix that does not add up to what the score gains."""
    total, gain = float(found.sum()), float(gained)
    size = max(abs(gain), GAP * float(abs(found).sum()))
    if not abs(total - gain) <= GAP * size:
        warn(
            f"the interactions add up to {total:.3g}, the score gains {gain:.3g} from "
            f"the baseline on: {nodes} nodes are too few for so curved a function; "
            f"take more, or a baseline at which it is smoother",
            RelevanceWarning,
        )


def expected_hessians(
    f: Callable[P, Any],
    key: Array,
    references: Any,
    *,
    rows: Any = None,
    pairs: Any = None,
    units: Any = None,
    samples: int = 64,
    beta: Any = None,
    chunk: int = 8,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Integrated Hessians, averaged over baselines from a dataset.

    With `b_k` drawn from the references, and `a_k` and `c_k` uniformly from (0, 1), the
    mean over `k` of the terms of `integrated_hessians`. In expectation `sum_j G_ij` is
    the expected gradient of `i`, and `sum_ij G_ij = S(x) - mean_b S(b)`.

    Args:
      f: as for `integrated_hessians`.
      key: a key of `jax.random`; it may be traced. Under `jax.vmap` over examples give
        each its own key, or all get the same draws.
      references: examples, along the leading axis: an array of shape
        `(count, *shape of the attributed one)`, or a pytree of such with the structure
        of the attributed argument.
      rows: as for `integrated_hessians`.
      pairs: as for `integrated_hessians`.
      units: as for `integrated_hessians`.
      samples: the number of draws.
      beta: as for `integrated_hessians`.
      chunk: as for `integrated_hessians`.
      argnums: as for `integrated_hessians`.
      target: as for `integrated_hessians`.
      has_aux: as for `integrated_hessians`.

    Returns:
      A function of `f`'s arguments, as for `integrated_hessians`.

    Raises:
      TypeError: if `key` is not a key.
      ValueError: for references of the wrong structure or shape, and as for
        `integrated_hessians`.

    Source: Janizek, Sturmfels, Lee 2021, section 3.3.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> f = lambda x: 3.0 * x[0] - x[1]
      >>> key, ones = jax.random.key(0), jnp.ones((1, 2))
      >>> explain = interactions.expected_hessians(f, key, ones)
      >>> explain(jnp.array([2.0, 2.0])).round(5).tolist()
      [[3.0, 0.0], [0.0, -1.0]]
    """
    _checks.check_key(key)
    _checks.natural("samples", samples)
    _checks.natural("chunk", chunk)
    _curvature.check_beta(beta)

    def explain(call: Call) -> tuple[Array, Any]:
        out, aux = call.output(call.xs)
        score = _call.score(call, _call.seed(target, out))
        score = _curvature.curved(score, call.xs, beta)
        data = _background(references, call, 0, "references")
        grouped = _units.units_of(units, call.xs, call.restore)
        wide = accumulator(call.xs[0])
        asked = _units.asked(rows, pairs, grouped, wide)

        def draw(key: Array) -> list[Array]:
            which, *where = jax.random.split(key, 3)
            index = jax.random.randint(which, (), 0, data[0].shape[0])
            s = jax.random.uniform(where[0], (), wide)
            s = s * jax.random.uniform(where[1], (), wide)
            start = [examples[index] for examples in data]
            ways = [x - b for x, b in zip(call.xs, start, strict=True)]
            return [_integrand(score, start, ways, s, grouped, asked.rows, chunk)]

        at_once = max(1, chunk // max(1, len(asked.rows)))
        (total,) = sum_over(draw, jax.random.split(key, samples), at_once)
        return asked.finish(total / samples), aux

    returns = "the interactions that were asked for, an array"
    return _call.wrapped(
        "expected_hessians", f, argnums, target, has_aux, explain, returns
    )


def _integrand(
    score: Callable[[list[Array]], Array],
    start: Sequence[Array],
    ways: Sequence[Array],
    s: Array,
    units: _units.Units,
    rows: Any,
    chunk: int,
) -> Array:
    """`s d_i d_j S_ij + [i = j] d_i S_i` at `b + s d`, summed over units.

    Float[Array, "rows *grid"]. Rows of one point share what is linearised there.
    """
    point = [b + s.astype(d.dtype) * d for b, d in zip(start, ways, strict=True)]
    slopes, product = jax.linearize(jax.grad(score), point)

    def row(number: Array) -> Array:
        own = units.of(number, ways)
        curvature = product(own)
        return units.pooled(
            [
                (s * d * h + u * g).astype(accumulator(d))
                for d, h, u, g in zip(ways, curvature, own, slopes, strict=True)
            ]
        )

    return _units.mapped(row, rows, chunk)


@functools.cache
def _nodes(quadrature: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in (0, 1) and weights of `mean_ac g(a c)`; the weights add up to one."""
    if quadrature not in _QUADRATURES:
        raise ValueError(
            f"quadrature: got {quadrature!r}, expected one of {', '.join(_QUADRATURES)}"
        )
    nodes, weights = np.polynomial.legendre.leggauss(count)
    nodes, weights = (nodes + 1) / 2, weights / 2
    products = np.multiply.outer(nodes, nodes).reshape(-1)
    masses = np.multiply.outer(weights, weights).reshape(-1)
    if quadrature == "gauss-legendre":
        return products, masses
    # The Gauss nodes of a measure are the eigenvalues of its Jacobi matrix, which the
    # Stieltjes procedure finds. The products have the right moments up to the degree
    # 2 count - 1, all that it needs.
    diagonal, beside = np.zeros(count), np.zeros(count)
    before, own = np.zeros_like(products), np.ones_like(products)
    norm = masses.sum()
    for k in range(count):
        diagonal[k] = (masses * products * own**2).sum() / norm
        after = (products - diagonal[k]) * own - beside[k] * before
        before, own = own, after
        last, norm = norm, (masses * own**2).sum()
        if k + 1 < count:
            beside[k + 1] = norm / last
    jacobi = np.diag(diagonal) + np.diag(np.sqrt(beside[1:]), 1)
    found, vectors = np.linalg.eigh(jacobi + np.diag(np.sqrt(beside[1:]), -1))
    return found, vectors[0] ** 2 / (vectors[0] ** 2).sum()


# ---- second order with rules -------------------------------------------------------


def lrp_hessian(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    columns: Any = None,
    units: Any = None,
    baseline: Any = 0.0,
    chunk: int = 8,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """How the relevance of one feature depends on another: LRP's second order.

    With the relevance `R(x)` under a composite, and a baseline `b`,

        H_ij = (x_j - b_j) dR_i / dx_j,

    which is the part of the difference `R_i(x) - R_i(b)` that is due to `j`, to first
    order. A column, what depends on `j`, is a forward derivative (`jax.jvp`) of the
    relevance. With the gradient times the input for `R` it is
    `x_i x_j S_ij + [i = j] x_i S_i`, the term of `integrated_hessians` at `x`. Where
    `R` is homogeneous of degree one in `x`, as in a ReLU network without biases under
    any rule that is, and `b = 0`, `sum_j H_ij = R_i`. It is not symmetric in general.

    Args:
      f: a function of one example. It may have ReLUs: rules such as gamma and z-plus
        have curvature where the network has none. It may have no `while` loops.
      composite: as for `jaxlrp.lrp`.
      columns: the units `j`, as `rows` of `jaxlrp.taylor.taylor`; None for all.
      units: as for `jaxlrp.taylor.taylor`.
      baseline: as for `integrated_hessians`.
      chunk: how many columns are computed at once. It bounds the memory; the result
        does not depend on it.
      argnums: as for `jaxlrp.attribution.gradient`.
      target: as for `jaxlrp.attribution.gradient`; it is that of `x`, and held.
      has_aux: as for `jaxlrp.attribution.gradient`.

    Returns:
      A function of `f`'s arguments that returns an array, at least float32, whose first
      axes are those of `i`, (*grid,), and whose last are those of the columns:
      (*grid, columns), or (*grid, *grid).

    Raises:
      ValueError: for units that do not fit, numbers out of range, or a matrix that is
        larger than the memory.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> f = lambda x: x[0] * x[1] + x[2]
      >>> h = interactions.lrp_hessian(f)(jnp.array([2.0, 3.0, 1.0]))
      >>> h.round(5).tolist()
      [[3.0, 3.0, 0.0], [3.0, 3.0, 0.0], [0.0, 0.0, 1.0]]
    """
    rules = _trace.as_composite(composite)
    _checks.natural("chunk", chunk)

    def explain(call: Call) -> tuple[Array, Any]:
        out, aux = call.output(call.xs)
        held = _call.fixed(target, out)
        args, _ = call.arguments(call.xs)
        places = _trace.from_front(argnums, len(args))
        method = functools.partial(_explained, composite=rules)
        relevance = _call.explainer(call, method, held, places)
        score = _call.score(call, _call.seed(target, out))
        _curvature.curved(score, call.xs, np.inf)  # no while loops
        start = _checks.baselines("baseline", baseline, call)
        ways = [x - b for x, b in zip(call.xs, start, strict=True)]
        grouped = _units.units_of(units, call.xs, call.restore)
        wide = accumulator(call.xs[0])
        asked = _units.asked(columns, None, grouped, wide, "columns")
        _, derivative = jax.linearize(relevance, list(call.xs))

        def column(number: Array) -> Array:
            changes = derivative(grouped.of(number, ways))
            return grouped.pooled([c.astype(accumulator(c)) for c in changes])

        found = asked.finish(_units.mapped(column, asked.rows, chunk))
        lead = found.ndim - len(grouped.grid)
        return jnp.moveaxis(found, range(lead), range(-lead, 0)), aux

    returns = "how relevances depend on units, an array"
    return _call.wrapped("lrp_hessian", f, argnums, target, has_aux, explain, returns)


def _explained(
    f: Callable[..., Any], *, argnums: ArgNums, target: Any, composite: Composite
) -> Callable[..., Any]:
    return lrp(f, composite, argnums=argnums, target=target)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """Relevances of pairs of one input's features, and what is no pair's.

    Attributes:
      relevance: `R_ij`, symmetric; its axes are those of the input, twice.
      residual: the score less the sum of the relevances, Float[Array, ""].

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> norm = interactions.bilrp(lambda x: x, lambda h: h @ h)
      >>> float(norm(jnp.array([1.0, 2.0])).residual.round(5))
      0.0
    """

    relevance: Array
    residual: Array


def bilrp(
    features: Callable[..., Any],
    head: Callable[[Array], Array],
    composite: Composite | None = None,
    *,
    argnums: int = -1,
    reduce: Callable[[Any], Array] | None = None,
    chunk: int = 64,
) -> Callable[..., Pairs]:
    """BiLRP for one score: pairs of features, where a quadratic form reads them.

    For a score `head(phi(x))`, with the relevances `R_i(phi_k)` of the features and the
    second derivatives `H_kl` of the head,

        R_ij = 1/2 sum_kl R_i(phi_k) H_kl R_j(phi_l).

    This is the second-order Taylor term of the head at the root `phi = 0`, each of
    whose factors `phi_k` is redistributed by LRP. If the head is a quadratic form
    (`<phi, phi>`, `phi' M phi`, a product of queries and keys, a factorisation machine)
    and LRP conserves, it is all of the score, `sum_ij R_ij = head(phi(x))`. If not,
    what is left is returned: a linear part of the head has no pairs. With LRP-0 and
    features without biases it is the Hessian times the inputs,
    `1/2 x_i x_j d2S / dx_i dx_j` in all networks of ReLUs. `jaxlrp.similarity.bilrp` is
    the case `head = <phi(x), phi(y)>`, of which it is the block of `x` and `y`, twice.

    Args:
      features: `phi`, with one axis of features as output; a function of one example.
      head: the score of the features, twice differentiable; one number.
      composite: as for `jaxlrp.lrp`, for `features`.
      argnums: the positional argument of `features` that is attributed, one int.
      reduce: a linear function of the relevance of one feature, which makes it smaller,
        as for `jaxlrp.similarity.branch`: `lambda r: r.sum(-1)` gives those of tokens.
      chunk: how many features are explained at once.

    Returns:
      A function of the arguments of `features` that returns `Pairs`.

    Raises:
      TypeError: if `head` is not a function or `argnums` not an int.
      ValueError: if `features` returns anything other than one axis of floats, or
        `head` anything other than one number.

    Source: Eberle et al. 2020, "Building and interpreting deep similarity models",
    section 3; the second-order Taylor term is its equation 4.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> w = jnp.array([[1.0, 2.0], [3.0, 0.0]])
      >>> explain = interactions.bilrp(lambda x: x @ w, lambda h: h[0] * h[1])
      >>> found = explain(jnp.array([1.0, 1.0]))
      >>> found.relevance.round(4).tolist(), float(found.residual.round(4))
      ([[2.0, 3.0], [3.0, 0.0]], 0.0)
    """
    _arguments.function("head", head)
    explained = branch(features, composite, argnums=argnums, reduce=reduce, chunk=chunk)

    @_trace.wraps(features, "interactions.bilrp", "`Pairs` of the input's features.")
    def pairs(*args: Any, **kwargs: Any) -> Pairs:
        embedding, relevances = explained(*args, **kwargs)
        score = jax.eval_shape(head, embedding)
        if getattr(score, "shape", None) != ():
            raise ValueError(
                f"head: it returned {score}, expected one number for the features of "
                f"shape {embedding.shape}"
            )
        flat = relevances.reshape(len(relevances), -1).astype(accumulator(embedding))
        value, _ = jax.value_and_grad(head)(embedding)
        _, product = jax.linearize(jax.grad(head), embedding)
        curved = jax.vmap(product, 1, 1)(flat.astype(embedding.dtype))
        exact = lax.Precision.HIGHEST
        found = jnp.matmul(flat.T, curved.astype(flat.dtype), precision=exact) / 2
        shape = relevances.shape[1:]
        return Pairs(found.reshape(*shape, *shape), value - found.sum())

    return pairs


# ---- sets of units -----------------------------------------------------------------

MOST = 20
"""So many units have a million sets."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Subsets:
    """A number for each set of a few units.

    Attributes:
      values: Float[Array, "2**units"], by the number of the set, in which bit `i` is
        one if unit `i` is in it: `values[0]` is that of the empty set.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> f = lambda x: x[0] * x[1] + x[2]
      >>> found = interactions.harsanyi(f)(jnp.array([2.0, 3.0, 4.0]))
      >>> found.of(0, 1), found.of(2), found.of(0)
      (Array(6., dtype=float32), Array(4., dtype=float32), Array(0., dtype=float32))
    """

    values: Array

    @property
    def units(self) -> int:
        """How many units there are."""
        return self.values.shape[-1].bit_length() - 1

    def of(self, *units: int) -> Array:
        """The number of a set, which is given by its units.

        Args:
          *units: the numbers of its units; none for the empty set.
        """
        numbers = {_arguments.axis("units", unit) for unit in units}
        if not numbers <= set(range(self.units)):
            raise ValueError(
                f"units: got {units}, expected numbers in [0, {self.units})"
            )
        return self.values[..., sum(1 << n for n in numbers)]

    def matrix(self) -> Array:
        """Singles on the diagonal, and pairs, half on either side of it.

        Float[Array, "units units"]; its sum is that of all sets of one or two units.
        """
        n = self.units
        places = np.array([[(1 << i) | (1 << j) for j in range(n)] for i in range(n)])
        halves = np.where(np.eye(n, dtype=bool), 1.0, 0.5)
        return self.values[..., places] * jnp.asarray(halves, self.values.dtype)


def harsanyi(
    f: Callable[P, Any],
    baseline: Any = 0.0,
    *,
    units: Any = None,
    chunk: int = 64,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The Harsanyi dividends of a few units: what each set adds to all its subsets.

    With the score `v(T) = S(x_T)`, where the units in `T` are those of `x` and the
    others those of the baseline,

        a(T) = sum_{U in T} (-1)^(|T| - |U|) v(U),      v(T) = sum_{U in T} a(U).

    All `2**units` scores are those of one mapped call.

    Args:
      f: a function of one example; it need not be differentiable.
      baseline: as for `integrated_hessians`; what is in no unit is never replaced.
      units: as for `jaxlrp.taylor.taylor`, at most 20 of them.
      chunk: how many sets are evaluated at once. It bounds the memory; the result does
        not depend on it.
      argnums: as for `jaxlrp.attribution.gradient`.
      target: as for `jaxlrp.attribution.gradient`; it is that of `x` throughout.
      has_aux: as for `jaxlrp.attribution.gradient`; the auxiliary data is that at `x`.

    Returns:
      A function of `f`'s arguments that returns `Subsets`; the dividend of the empty
      set is the score of the baseline.

    Raises:
      ValueError: for a baseline of the wrong structure or shape, units that do not fit,
        or more than 20 of them.

    Source: Harsanyi 1963, "A simplified bargaining model for the n-person cooperative
    game".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> f = lambda x: 1.0 + x[0] * x[1] + x[1]
      >>> interactions.harsanyi(f)(jnp.array([2.0, 3.0])).values.tolist()
      [1.0, 0.0, 3.0, 6.0]
    """
    _checks.natural("chunk", chunk)

    def explain(call: Call) -> tuple[Subsets, Any]:
        dividends, aux = _dividends(call, baseline, units, chunk, target)
        return Subsets(dividends), aux

    returns = "`Subsets`, the dividend of each set of units"
    return _call.wrapped("harsanyi", f, argnums, target, has_aux, explain, returns)


def shapley_taylor(
    f: Callable[P, Any],
    baseline: Any = 0.0,
    *,
    order: int = 2,
    units: Any = None,
    chunk: int = 64,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The Shapley-Taylor indices of a few units: all that is gained, up to an order.

    With `v` and the dividends `a` of `harsanyi`, and the order `k`,

        I(T) = a(T),                                                  |T| < k
        I(T) = k / n sum_{U in N \\ T} D_T v(U) / binom(n - 1, |U|)
             = sum_{U contains T} a(U) / binom(|U|, k),               |T| = k

    with the discrete derivative `D_T v(U)`. They add up: `sum_T I(T) = v(N)`. Order one
    is the Shapley value.

    Args:
      f: as for `harsanyi`.
      baseline: as for `harsanyi`.
      order: the largest sets, 1 for Shapley values, 2 for pairs, ...
      units: as for `harsanyi`.
      chunk: as for `harsanyi`.
      argnums: as for `harsanyi`.
      target: as for `harsanyi`.
      has_aux: as for `harsanyi`.

    Returns:
      A function of `f`'s arguments that returns `Subsets`, zero for sets larger than
      the order; the index of the empty set is the score of the baseline.

    Raises:
      ValueError: for an order above the number of units, and as for `harsanyi`.

    Source: Sundararajan, Dhamdhere, Agarwal 2020, "The Shapley Taylor interaction
    index".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import interactions
      >>> f = lambda x: x[0] * x[1] * x[2]
      >>> x = jnp.array([1.0, 2.0, 3.0])
      >>> interactions.shapley_taylor(f)(x).matrix().tolist()
      [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]
      >>> interactions.shapley_taylor(f, order=1)(x).of(0).tolist()
      2.0
    """
    highest = _checks.natural("order", order)
    _checks.natural("chunk", chunk)

    def explain(call: Call) -> tuple[Subsets, Any]:
        dividends, aux = _dividends(call, baseline, units, chunk, target)
        count = dividends.shape[0].bit_length() - 1
        if highest > count:
            raise ValueError(
                f"order: got {order}, expected at most the number of units, {count}"
            )
        sizes = _sizes(count)
        ways = np.array([max(1, math.comb(int(s), highest)) for s in sizes])
        large = sizes >= highest
        # The sum over all sets that contain one is a transform, as the dividends are.
        shared = jnp.where(large, dividends / jnp.asarray(ways, dividends.dtype), 0)
        above = _transformed(shared, count, lambda low, high: (low + high, high))
        found = jnp.where(sizes < highest, dividends, above)
        return Subsets(jnp.where(sizes <= highest, found, 0)), aux

    returns = "`Subsets`, the index of each set of at most so many units"
    return _call.wrapped(
        "shapley_taylor", f, argnums, target, has_aux, explain, returns
    )


def _dividends(
    call: Call, baseline: Any, units: Any, chunk: int, target: Any
) -> tuple[Array, Any]:
    """The Harsanyi dividends by the number of the set, and the auxiliary output."""
    out, aux = call.output(call.xs)
    score = _call.score(call, _call.seed(target, out))
    covers = _checks.baselines("baseline", baseline, call)
    grouped = _units.units_of(units, call.xs, call.restore)
    count = grouped.count
    if count > MOST:
        raise ValueError(
            f"units: got {count} units, whose {2.0**count:.3g} sets would take "
            f"{2.0**count * 4:.3g} bytes and as many calls of f, expected at most "
            f"{MOST}: choose larger units, or labels with -1 for what stays"
        )

    def value(number: Array) -> Array:
        present = (number >> jnp.arange(count)) & 1 == 1
        return score(grouped.kept(present, call.xs, covers))

    values = _units.mapped(value, np.arange(2**count, dtype=np.int32), chunk)
    return _transformed(values, count, lambda low, high: (low, high - low)), aux


def _transformed(
    values: Array, count: int, step: Callable[[Array, Array], tuple[Array, Array]]
) -> Array:
    """One step for each unit, on sets without it and with it."""
    cube = values.reshape((2,) * count)
    for axis in range(count):
        low, high = step(*jnp.split(cube, 2, axis))
        cube = jnp.concatenate([low, high], axis)
    return cube.reshape(-1)


def _sizes(count: int) -> np.ndarray:
    """How many units each set has."""
    numbers = np.arange(2**count)
    bits = [(numbers >> i) & 1 for i in range(count)]
    return np.sum(bits, 0, dtype=int)
