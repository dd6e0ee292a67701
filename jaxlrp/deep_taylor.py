"""Deep Taylor decomposition: the root points that its rules stand for, as data.

DTD expands the relevance of a neuron, `R_i = c max(z_i, 0)` with `z_i = w_i x + b_i`,
at a root `x~` of `z_i` that lies on the line `x - t v_i`:

    x~_i = x - t_i v_i,   t_i = z_i / (w_i v_i),   share_ij = (x - x~_i)_j w_ij / z_i

The search direction `v_i` is the rule: `w_i` for w-square, `x` where the contribution
is positive for z-plus, the way to the far corner of the box for z-box, `x` for LRP-0,
`x (1 + gamma [w_i >= 0])` for gamma. The shares equal the rule's own, without a bias in
its denominator.

Of a whole network `roots` has them by layer, and says whether they lie in the linear
region of the input, `same_region`; `decompose` is the decomposition with any roots.

Source: Montavon et al. 2017, "Explaining nonlinear classification decisions with deep
Taylor decomposition"; Sixt and Landgraf 2022 on what it does not justify.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _arguments, _names, _targets, rules
from jaxlrp._program.program import Value
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting.backward import Traced, seed
from jaxlrp._rewriting.onwards import onwards
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, checked, positive, trace, wraps
from jaxlrp.attribution._checks import check_key
from jaxlrp.composites import Composite, DeepTaylor, Uniform
from jaxlrp.rules import Rule

__all__ = [
    "LayerRoots",
    "Region",
    "RootFunction",
    "Roots",
    "Search",
    "decompose",
    "root_points",
    "root_search",
    "roots",
    "same_region",
    "shares",
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Roots:
    """A root for each neuron of a layer.

    Attributes:
      points: `x~_i`, Float[Array, "*batch out in"].
      steps: `t_i`, how far along the direction it lies, Float[Array, "*batch out"].
      inside: does it lie in the rule's domain (nonnegative for z-plus, in the box for
        z-box, anywhere for others)? Bool[Array, "*batch out"].

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import deep_taylor, rules
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> roots = deep_taylor.root_points(rules.ZPlus(), jnp.array([1.0, 2.0]), w)
      >>> roots.points.shape, roots.inside.tolist()
      ((2, 2), [True, True])
    """

    points: Array
    steps: Array
    inside: Array


def root_points(
    rule: Rule, x: Array, kernel: Array, bias: Array | float = 0.0
) -> Roots:
    """The root points of a dense layer `z = x @ kernel + bias` under a rule of DTD.

    Args:
      rule: `WSquare`, `ZPlus`, `ZBox`, `LRP0` or `Gamma`.
      x: the layer's input, Float[Array, "*batch in"].
      kernel: its weights, Float[Array, "in out"].
      bias: its bias, Float[Array, "out"].

    Returns:
      The roots. Where the direction does not meet the neuron's hyperplane
      (`w_i v_i = 0`) the step is infinite or NaN, and `inside` is False.

    Raises:
      TypeError: for a rule that has no root, and for what is no array of real numbers.
      ValueError: for shapes that are not those of a dense layer.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import deep_taylor, rules
      >>> w, x = jnp.array([[1.0], [2.0]]), jnp.array([3.0, 1.0])
      >>> roots = deep_taylor.root_points(rules.WSquare(), x, w)
      >>> roots.points.tolist(), (roots.points @ w).tolist()
      ([[2.0, -1.0]], [[0.0]])
    """
    _check_layer(x, kernel, bias)
    _check_rule(rule, jnp.shape(x))
    x, kernel, bias = jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(bias)
    x = x[..., None, :]  # a root for each neuron
    w = kernel.T
    v = _direction(rule, x, w)
    z = (x * w).sum(-1) + bias
    steps = z / (v * w).sum(-1)
    points = x - steps[..., None] * v
    return Roots(points, steps, _allowed(rule, points).all(-1) & jnp.isfinite(steps))


def shares(roots: Roots, x: Array, kernel: Array, bias: Array | float = 0.0) -> Array:
    """`(x - x~_i)_j w_ij / z_i`, what each input gets of each neuron's relevance.

    Args:
      roots: the root points of the layer.
      x: as for `root_points`.
      kernel: as for `root_points`.
      bias: as for `root_points`.

    Returns:
      Float[Array, "*batch out in"]; each neuron's shares add up to one.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import deep_taylor, rules
      >>> w, x = jnp.array([[1.0, 2.0], [2.0, 0.5]]), jnp.array([1.0, 2.0])
      >>> roots = deep_taylor.root_points(rules.ZPlus(), x, w)
      >>> print(deep_taylor.shares(roots, x, w).round(1))
      [[0.2 0.8]
       [0.7 0.3]]
    """
    if not isinstance(roots, Roots):
        raise TypeError(f"roots: got {roots!r}, expected what root_points returns")
    _check_layer(x, kernel, bias)
    x, kernel, bias = jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(bias)
    expected = (*x.shape[:-1], kernel.shape[1], kernel.shape[0])
    if roots.points.shape != expected:
        raise ValueError(
            f"roots: got points of shape {roots.points.shape}, expected {expected}, of "
            f"this layer and input"
        )
    z = x @ kernel + bias
    return (x[..., None, :] - roots.points) * kernel.T / z[..., None]


# ---- roots of a whole network ------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LayerRoots:
    """Roots of some neurons of a layer, and where they lie.

    Attributes:
      neurons: which, as places in the layer's flat output, Int[Array, "neurons"].
      points: a root for each, Float[Array, "neurons *input"].
      steps: how far along the rule's direction it lies, Float[Array, "neurons"].
      there: is there one? False where fewer neurons were active than asked for, or the
        direction does not meet the hyperplane. Bool[Array, "neurons"].
      inside: does it lie in the rule's domain? Bool[Array, "neurons"].
      same_gradient: is the gradient of the rest of the network the same there as at the
        layer's input? Bool[Array, "neurons"].
      same_pattern: is each unit behind the layer as active there?
        Bool[Array, "neurons"].

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import deep_taylor
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lambda w, x: jax.nn.relu(x @ w).sum(-1)
      >>> found = deep_taylor.roots(f, key=jax.random.key(0), target="all")
      >>> layer = found(w, jnp.array([1.0, 2.0]))["w"]
      >>> float(layer.share("inside")), layer.points.shape
      (1.0, (2, 2))
    """

    neurons: Array
    points: Array
    steps: Array
    there: Array
    inside: Array
    same_gradient: Array
    same_pattern: Array

    def share(self, what: str = "same_gradient") -> Array:
        """The share of the roots that are there of which something holds.

        Args:
          what: `"inside"`, `"same_gradient"`, `"same_pattern"`, or `"all"`: the first
            two together.

        Returns:
          Float[Array, ""]; NaN where no root is there.
        """
        holds = {
            "inside": self.inside,
            "same_gradient": self.same_gradient,
            "same_pattern": self.same_pattern,
            "all": self.inside & self.same_gradient,
        }
        if what not in holds:
            raise ValueError(f"what: got {what!r}, expected one of {', '.join(holds)}")
        return (holds[what] & self.there).sum() / self.there.sum()


def roots(
    f: Callable[..., Any],
    composite: Composite | Rule | None = None,
    *,
    key: Array,
    neurons: int = 32,
    layers: str | Sequence[str] = "*",
    argnums: ArgNums = -1,
    target: Target = "max",
    close: float = 1e-3,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    chunk: int = 16,
) -> Callable[..., dict[str, LayerRoots]]:
    """The root points that rules stand for, at every layer of a network.

    Of a layer with the input `a` and the neurons `z_i = w_i a + b_i`, the root of each
    of some neurons as `root_points` has it, `a - t_i v_i`. An expansion there is exact
    if the rest of the network, from `a` to the explained score, is one linear function
    on the way: its gradient is compared at `a` and at the root. A root lies on the edge
    of the neuron's own region, where that is not defined, so that the comparison is at
    `a - (1 - close) t_i v_i`, on the way to it.

    Args:
      f: a function of pytrees that JAX can trace; its dense layers and convolutions
        outside of loops and branches are examined, wherever they are.
      composite: which rule each layer has, or one rule for all; `composites.DeepTaylor`
        by default. Each must have a root: `WSquare`, `ZPlus`, `ZBox`, `LRP0`, `Gamma`.
      key: a key of `jax.random`, to draw neurons with.
      neurons: how many of each layer, drawn from those with `z_i > 0` on which the
        score depends; all that there are, if they are fewer.
      layers: which layers are examined: names, or patterns of names, as a layer's rule
        is found by (`"block_3*"`). A layer's neurons are the same whichever others are.
        What follows each layer is compiled for itself, so that of a deep network it is
        best to ask for a few at a time.
      argnums: as for `jaxlrp.lrp`.
      target: the score, as for `jaxlrp.lrp`; the sum over all examples.
      close: how far in front of the root, as a fraction of the way.
      rtol: gradients are equal where they differ by `atol + rtol |gradient|`.
      atol: see `rtol`.
      chunk: how many neurons are computed at a time.

    Returns:
      A function of `f`'s arguments that returns for each layer, by the path of its
      parameter, its scope, or its number, `LayerRoots`.

    Raises:
      TypeError: for a layer whose rule has no root, a target that is a function of
        relevances, and arguments of the wrong type.
      ValueError: where there is no layer, or none of a name.

    Source: Montavon et al. 2017; Sixt and Landgraf 2022, "A rigorous study of the deep
    Taylor decomposition" (the comparison of gradients, its tolerances).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import deep_taylor, rules
      >>> w = [jnp.array([[1.0, -1.0], [2.0, 0.5]]), jnp.ones((2, 2))]
      >>> f = lambda w, x: jax.nn.relu(x @ w[0]) @ w[1]
      >>> explore = deep_taylor.roots(f, rules.LRP0(), key=jax.random.key(0))
      >>> for name, layer in explore(w, jnp.array([1.0, 2.0])).items():
      ...     print(name, float(layer.share()))
      w[0] 1.0
      w[1] 1.0
    """
    given = DeepTaylor() if composite is None else composite
    lines = checked(f, Uniform(given) if isinstance(given, Rule) else given, argnums)
    _check_score(target)
    check_key(key)
    patterns = (layers,) if isinstance(layers, str) else layers
    if (
        not isinstance(patterns, list | tuple)
        or not patterns
        or not all(isinstance(p, str) for p in patterns)
    ):
        raise TypeError(f"layers: got {layers!r}, expected names or patterns of names")
    count, size = positive("neurons", neurons), positive("chunk", chunk)
    for name, value in (("close", close), ("rtol", rtol), ("atol", atol)):
        _arguments.number(name, value, "the comparison", least=0)

    @wraps(f, "deep_taylor.roots", "the roots of each layer, `LayerRoots` by name.")
    def explore(*args: Any, **kwargs: Any) -> dict[str, LayerRoots]:
        traced = _traced(f, args, kwargs, lines, argnums)
        every = _layers(traced)
        if not every:
            raise ValueError(
                "f: got a function without a layer outside of loops and branches, "
                "expected dense layers or convolutions"
            )
        for pattern in patterns:
            if not any(_names.fits(pattern, name) for name in every):
                raise ValueError(
                    f"layers: got {pattern!r}, which names no layer; there are "
                    f"{', '.join(_names.nearest(pattern, (), list(every)))}"
                )
        multipliers = _multipliers(traced, target)
        found: dict[str, LayerRoots] = {}
        for number, (name, step) in enumerate(every.items()):
            if not any(_names.fits(pattern, name) for pattern in patterns):
                continue
            rule = step.rule(lines)
            _check_rule(rule, step.signals[0].aval.shape, f" for the layer {name!r}")
            assert rule is not None
            found[name] = _roots_of(
                traced,
                step,
                rule,
                multipliers,
                jax.random.fold_in(key, number),
                count,
                close,
                (rtol, atol),
                size,
            )
        return found

    return explore


def _roots_of(
    traced: Traced,
    step: Step,
    rule: Rule,
    multipliers: list[Array],
    key: Array,
    count: int,
    close: float,
    tolerances: tuple[float, float],
    chunk: int,
) -> LayerRoots:
    """Of one layer."""
    start, (result,) = step.signals[0], step.outputs
    units = _units(traced, after=step)
    rest = onwards(traced, start, [result, *units])
    (a,) = onwards(traced, None, [start])(None)[1]

    def score(a: Array) -> tuple[Array, tuple[Array, list[Array]]]:
        outs, (z, *arguments) = rest(a)
        return _total(multipliers, outs), (z, [x > 0 for x in arguments])

    (slope, (z, pattern)) = jax.grad(score, has_aux=True)(a)
    _, (of_z,) = _sensitivity(traced, [result], multipliers)
    flat = z.reshape(-1)
    active = (flat > 0) & (of_z.reshape(-1) != 0)
    number = min(count, flat.size)
    order = jnp.where(active, jax.random.uniform(key, flat.shape), -1)
    _, chosen = jax.lax.top_k(order, number)
    _, pull = jax.vjp(lambda a: rest(a)[1][0].reshape(-1), a)

    def one(neuron: Array) -> Any:
        (w,) = pull(jnp.zeros_like(flat).at[neuron].set(1))
        v = _direction(rule, a, w)
        t = flat[neuron] / (v * w).sum()
        point = a - t * v
        there = active[neuron] & jnp.isfinite(t)
        near = jnp.where(there, a - (1 - close) * t * v, a)
        other, (_, units) = jax.grad(score, has_aux=True)(near)
        same = _equal_patterns(pattern, units)
        return (
            point,
            t,
            there,
            _allowed(rule, point).all(),
            _close(slope, other, *tolerances),
            same,
        )

    found = _over(one, chosen, chunk)
    return LayerRoots(chosen, *found)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Region:
    """Whether two points lie where a network is one linear function.

    Attributes:
      gradient: are the gradients of the score equal? Bool[Array, ""].
      pattern: are the same units active? Bool[Array, ""].
      flipped: how many are not, Int[Array, ""].
      units: how many there are.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import deep_taylor
      >>> f = lambda x: jax.nn.relu(x @ jnp.eye(2))
      >>> x = jnp.array([1.0, 2.0])
      >>> region = deep_taylor.same_region(f, x, -x, target="all")
      >>> bool(region.gradient), int(region.flipped), region.units
      (False, 2, 2)
    """

    gradient: Array
    pattern: Array
    flipped: Array
    units: int = dataclasses.field(metadata={"static": True})


def same_region(
    f: Callable[[Array], Any],
    x: Array,
    root: Array,
    *,
    target: Target = "max",
    rtol: float = 1e-3,
    atol: float = 1e-5,
) -> Region:
    """Do an input and a root lie in one linear region of a network?

    The gradients of the score at both are equal, which a network of ReLUs, maxima and
    layers has wherever it is one linear function; and, which is more, each unit (each
    element that an activation is given) is positive at both or at none.

    Args:
      f: a function of one array; `lambda x: network(params, x)`.
      x: the input.
      root: another point, of its shape. `jax.vmap` goes over many.
      target: the score, as for `jaxlrp.lrp`, that is chosen at `x`.
      rtol: gradients are equal where they differ by `atol + rtol |gradient|`.
      atol: see `rtol`.

    Returns:
      `Region`. Units inside of loops and branches are not looked at.

    Raises:
      ValueError: for a root of another shape.
      TypeError: for a target that is a function of relevances.

    Source: Sixt and Landgraf 2022, "A rigorous study of the deep Taylor decomposition";
    the tolerances are those of its code.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import deep_taylor
      >>> f = lambda x: jax.nn.relu(x @ jnp.array([[1.0, -1.0], [2.0, 0.5]]))
      >>> x = jnp.array([1.0, 2.0])
      >>> bool(deep_taylor.same_region(f, x, 0.1 * x).gradient)
      True
    """
    _check_score(target)
    _arguments.function("f", f)
    x = jnp.asarray(x)
    if jnp.shape(root) != x.shape:
        raise ValueError(
            f"root: got shape {jnp.shape(root)}, expected that of x, {x.shape}"
        )
    traced = _traced(f, (x,), {}, Composite("own"), -1)
    multipliers = _multipliers(traced, target)
    units = _units(traced)
    start = traced.reading.program.inputs[traced.attributed[0]]
    rest = onwards(traced, start, units)

    def score(x: Array) -> tuple[Array, list[Array]]:
        outs, arguments = rest(x)
        return _total(multipliers, outs), [v > 0 for v in arguments]

    here, pattern = jax.grad(score, has_aux=True)(x)
    there, other = jax.grad(score, has_aux=True)(jnp.asarray(root, x.dtype))
    flips = [(a != b).sum() for a, b in zip(pattern, other, strict=True)]
    flipped = sum(flips, jnp.zeros((), int))
    same = _close(here, there, rtol, atol)
    return Region(same, flipped == 0, flipped, sum(p.size for p in pattern))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Search:
    """What a search for a root has found.

    Attributes:
      point: where it ended, of the input's shape.
      value: of the function there, Float[Array, ""].
      found: is it zero, to the tolerance? Bool[Array, ""].

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import deep_taylor
      >>> found = deep_taylor.root_search(lambda x: x.sum() - 1, jnp.array([2.0, 3.0]))
      >>> bool(found.found), found.point.round(3).tolist()
      (True, [0.0, 1.0])
    """

    point: Array
    value: Array
    found: Array


def root_search(
    f: Callable[[Array], Array],
    x: Array,
    rule: Rule | None = None,
    *,
    steps: int = 64,
    tolerance: float = 1e-5,
) -> Search:
    """A root of a function near an input, along its gradient, in a rule's domain.

        x <- clip(x - f(x) g / |g|^2),    g the gradient, zero where the domain ends

    For a linear function it is the nearest root, that of w-square, in one step. For a
    network each step goes to the root of the linear function that it is there.

    Args:
      f: a function of one array that returns a number.
      x: where the search begins.
      rule: whose domain is not left: `ZPlus` the nonnegative, `ZBox` its box; others
        and None none.
      steps: how many are made at most.
      tolerance: a value is zero if it is at most that many times the one at `x`.

    Returns:
      `Search`. There need not be a root: `found` says so.

    Raises:
      TypeError: for a function that returns no number, and a rule without a root.

    Source: Montavon et al. 2017 (the nearest root, and the domains).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import deep_taylor, rules
      >>> f = lambda x: jax.nn.relu(x @ jnp.array([1.0, 2.0]) - 1).sum()
      >>> found = deep_taylor.root_search(f, jnp.array([0.1, 3.0]), rules.ZPlus())
      >>> bool(found.found), bool((found.point >= 0).all())
      (True, True)
    """
    _arguments.function("f", f)
    limit = positive("steps", steps)
    _arguments.number("tolerance", tolerance, "the search", least=0)
    x = jnp.asarray(x)
    if rule is not None:
        _check_rule(rule, x.shape)
    value = jax.eval_shape(f, x)
    if not hasattr(value, "shape") or value.shape:
        raise TypeError(f"f: it returned {value}, expected one number")
    low, high = _domain(rule, x)
    value_and_gradient = jax.value_and_grad(f)
    first = f(x)

    def is_left(state: tuple[Array, Array, Array]) -> Array:
        _, value, step = state
        return (jnp.abs(value) > tolerance * jnp.abs(first)) & (step < limit)

    def move(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, _, step = state
        value, slope = value_and_gradient(x)
        away = -value * slope
        free = ((x > low) | (away > 0)) & ((x < high) | (away < 0))
        slope = jnp.where(free, slope, 0)
        length = jnp.square(slope).sum()
        stuck = length == 0
        change = jnp.where(stuck, 0, value * slope / jnp.where(stuck, 1, length))
        new = jnp.clip(x - change, low, high)
        return new, jnp.where(stuck, value, f(new)), jnp.where(stuck, limit, step + 1)

    point, value, _ = jax.lax.while_loop(is_left, move, (x, first, jnp.array(0)))
    return Search(point, value, jnp.abs(value) <= tolerance * jnp.abs(first))


RootFunction = Callable[[int, Array], Array]


def decompose(
    layers: Sequence[Callable[[Array], Array]], roots: RootFunction
) -> Callable[[Array], Array]:
    """The full deep Taylor decomposition of a network, with any function for roots.

    Relevance is a function of each layer's input, and is expanded at roots, one for
    each element `j` of the relevance above, with all that depends on the input in it:

        R^l_k(a) = sum_j (a - a~_j(a))_k  d_k [R^(l+1)_j(f_l(.))](a~_j(a))

    from `R^L(a) = a`, the last layer's output, down to the network's input. Rules skip
    the derivative of `R^(l+1)` with respect to its own roots, which this has. So it can
    be seen what the theory alone says:

    - Where roots do not change with the input, and lie in its linear region, it is
      gradient times input, `(x - x~) df/dx`, whatever the layers are.
    - Where they may change with it, at the very same roots, it is whatever one likes:
      only their derivative has to be chosen.

    Args:
      layers: functions of one array, `f(x) = layers[-1](... layers[0](x))`; the last
        returns what is explained, all of it.
      roots: from the layer's number and its input to a root for each element of the
        layer's output, (*output's shape, *input's shape). JAX differentiates it:
        `jax.lax.stop_gradient` makes a root locally constant.

    Returns:
      A function of the input to its relevance. Its cost is the product of the widths of
      all layers: for small networks.

    Raises:
      ValueError: for roots of another shape.
      TypeError: for layers that are no functions.

    Source: Sixt and Landgraf 2022, "A rigorous study of the deep Taylor decomposition".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import deep_taylor
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> layers = [lambda x: jax.nn.relu(x @ w), lambda h: h @ jnp.array([1.0, 3.0])]
      >>> def constant(layer, a):  # near zero, in the region of a
      ...     shape = jax.eval_shape(layers[layer], a).shape
      ...     return jnp.broadcast_to(jax.lax.stop_gradient(1e-4 * a), shape + a.shape)
      >>> x = jnp.array([1.0, 2.0])
      >>> explained = deep_taylor.decompose(layers, constant)(x)
      >>> gradient = jax.grad(lambda x: layers[1](layers[0](x)))(x)
      >>> bool(jnp.allclose(explained, (x - 1e-4 * x) * gradient))
      True
    """
    if not isinstance(layers, Sequence) or not layers:
        raise TypeError(f"layers: got {layers!r}, expected functions")
    for number, layer in enumerate(layers):
        _arguments.function(f"layers[{number}]", layer)
    _arguments.function("roots", roots)

    def relevance(number: int, a: Array) -> Array:
        """Of the input of a layer, as a function of it."""
        if number == len(layers):
            return a

        def above(a: Array) -> Array:
            return relevance(number + 1, layers[number](a)).reshape(-1)

        shape = jax.eval_shape(layers[number], a).shape
        points = jnp.asarray(roots(number, a))
        if points.shape != (*shape, *a.shape):
            raise ValueError(
                f"roots: it returned shape {points.shape} for layer {number}, expected "
                f"{(*shape, *a.shape)}: a root for each element of its output"
            )
        points = points.reshape(-1, *a.shape)

        def part(j: Array, point: Array) -> Array:
            slope = jax.grad(lambda p: above(p)[j])(point)
            return (a - point) * slope

        return jax.vmap(part)(jnp.arange(len(points)), points).sum(0)

    def explained(x: Array) -> Array:
        return relevance(0, jnp.asarray(x))

    return explained


# ---- networks, read ----------------------------------------------------------------


def _traced(
    f: Callable[..., Any], args: tuple, kwargs: dict, lines: Composite, argnums: Any
) -> Traced:
    return trace(
        f, args, kwargs, lines, argnums, False, keep_calls=False, by_scope=True
    )


def _layers(traced: Traced) -> dict[str, Step]:
    """Dense layers and convolutions of one input, by name, in the program's order."""
    reading = traced.reading
    steps = [
        s
        for s in reading.steps
        if s.role in ("dense", "convolution") and len(s.signals) == 1
    ]
    named: dict[str, Step] = {}
    for number, step in enumerate(steps):
        paths = [name for each in step.names(reading.facts) for name in each]
        name = (paths or [step.main.scope])[0] or f"layer {number}"
        named[name if name not in named else f"{name}#{number}"] = step
    return named


def _units(traced: Traced, after: Step | None = None) -> list[Value]:
    """What activations are given, outside of loops; those behind a step alone."""
    steps = traced.reading.steps
    begin = 0 if after is None else steps.index(after)
    return list(
        dict.fromkeys(
            step.argument or step.signals[0]
            for step in steps[begin:]
            if step.role == "activation" and step.signals
        )
    )


def _check_score(target: Any) -> None:
    _targets.check(target)
    if _targets.is_plain(target):
        raise TypeError(
            f"target: got {target!r}, a function of relevances, expected a score: a "
            f"class, 'max', 'all' or one of jaxlrp.targets"
        )


def _multipliers(traced: Traced, target: Any) -> list[Array]:
    """The score is the sum of these times the output."""
    outs, _ = onwards(traced, None, [])(None)
    multipliers, _ = seed(target, traced.out_tree, outs)
    return [jax.lax.stop_gradient(m) for m in multipliers]


def _sensitivity(
    traced: Traced, values: Sequence[Value], multipliers: list[Array]
) -> tuple[list[Array], list[Array]]:
    """Values, and the gradients of the score with respect to them."""
    found = []
    (own,) = [onwards(traced, None, values)(None)[1]]
    for v, x in zip(values, own, strict=True):
        rest = onwards(traced, v, [])
        found.append(jax.grad(lambda x, r=rest: _total(multipliers, r(x)[0]))(x))
    return own, found


def _total(multipliers: Sequence[Array], outs: Sequence[Array]) -> Array:
    return sum((m * y).sum() for m, y in zip(multipliers, outs, strict=True))  # type: ignore[return-value]


def _close(a: Array, b: Array, rtol: float, atol: float) -> Array:
    return (jnp.abs(a - b) <= atol + rtol * jnp.abs(a)).all()


def _equal_patterns(a: Sequence[Array], b: Sequence[Array]) -> Array:
    equal = [(p == q).all() for p, q in zip(a, b, strict=True)]
    return jnp.stack(equal).all() if equal else jnp.array(True)


def _over(one: Callable[[Array], Any], inputs: Array, chunk: int) -> Any:
    return jax.lax.map(one, inputs, batch_size=min(chunk, len(inputs)))


def _domain(rule: Rule | None, x: Array) -> tuple[Array, Array]:
    """The bounds of a rule's domain."""
    low, high = -jnp.inf, jnp.inf
    if isinstance(rule, rules.ZPlus):
        low = 0
    if isinstance(rule, rules.ZBox):
        low, high = rule.low, rule.high
    return jnp.broadcast_to(low, x.shape), jnp.broadcast_to(high, x.shape)


# ---- one layer ----------------------------------------------------------------------


def _check_layer(x: Any, kernel: Any, bias: Any) -> None:
    """Raises for what is no dense layer with its input."""
    for name, given in (("x", x), ("kernel", kernel), ("bias", bias)):
        _arguments.number(name, given, "a layer", known=False)
    shape, weights = jnp.shape(x), jnp.shape(kernel)
    if len(weights) != 2:
        raise ValueError(f"kernel: got shape {weights}, expected (in, out)")
    if not shape or shape[-1] != weights[0]:
        raise ValueError(
            f"x: got shape {shape}, expected (*batch, {weights[0]}) for a kernel of "
            f"shape {weights}"
        )
    if jnp.shape(bias) not in ((), (1,), (weights[1],)):
        raise ValueError(
            f"bias: got shape {jnp.shape(bias)}, expected ({weights[1]},) for a kernel "
            f"of shape {weights}"
        )


def _check_rule(rule: Any, shape: tuple[int, ...], where: str = "") -> None:
    """Raises for a rule without a root, or a box of another shape than the input's."""
    known = (rules.WSquare, rules.ZPlus, rules.ZBox, rules.LRP0, rules.Gamma)
    if not isinstance(rule, known):
        raise TypeError(
            f"rule: got {rule!r}{where}, expected one with a root point: WSquare, "
            f"ZPlus, ZBox, LRP0 or Gamma"
        )
    if isinstance(rule, rules.ZBox):
        rule.check_shapes(shape)


def _direction(rule: Rule, x: Array, w: Array) -> Array:
    """`v_ij`, Float[Array, "*batch out in"]."""
    if isinstance(rule, rules.WSquare):
        return jnp.broadcast_to(w, jnp.broadcast_shapes(x.shape, w.shape))
    if isinstance(rule, rules.ZPlus):
        return jnp.where(x * w > 0, x, 0)
    if isinstance(rule, rules.ZBox):
        return jnp.where(w > 0, x - rule.low, x - rule.high)
    if isinstance(rule, rules.LRP0):
        return jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, w.shape))
    assert isinstance(rule, rules.Gamma)
    return x * (1 + rule.gamma * (w >= 0))


def _allowed(rule: Rule, points: Array) -> Array:
    """Which coordinates lie in the rule's domain."""
    if isinstance(rule, rules.ZPlus):
        return points >= 0
    if isinstance(rule, rules.ZBox):
        return (points >= rule.low) & (points <= rule.high)
    return jnp.ones(points.shape, bool)
