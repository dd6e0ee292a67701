"""Deep Taylor decomposition: the root points that its rules stand for, as data.

DTD expands the relevance of a neuron, `R_i = c max(z_i, 0)` with `z_i = w_i x + b_i`,
at a root `x~` of `z_i` that lies on the line `x - t v_i`:

    x~_i = x - t_i v_i,   t_i = z_i / (w_i v_i),   share_ij = (x - x~_i)_j w_ij / z_i

The search direction `v_i` is the rule: `w_i` for w-square, `x` where the contribution
is positive for z-plus, the way to the far corner of the box for z-box, `x` for LRP-0,
`x (1 + gamma [w_i >= 0])` for gamma. The shares equal the rule's own, without a bias in
its denominator.

Source: Montavon et al. 2017, "Explaining nonlinear classification decisions with deep
Taylor decomposition"; Sixt and Landgraf 2022 on what it does not justify.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _arguments, rules
from jaxlrp.rules import Rule

__all__ = ["Roots", "root_points", "shares"]


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
    _check_rule(rule, x)
    x, kernel, bias = jnp.asarray(x), jnp.asarray(kernel), jnp.asarray(bias)
    x = x[..., None, :]  # a root for each neuron
    w = kernel.T
    v = _direction(rule, x, w)
    z = (x * w).sum(-1) + bias
    steps = z / (v * w).sum(-1)
    points = x - steps[..., None] * v
    return Roots(points, steps, _inside(rule, points) & jnp.isfinite(steps))


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


def _check_rule(rule: Any, x: Any) -> None:
    """Raises for a rule without a root, or a box of another shape than the input's."""
    known = (rules.WSquare, rules.ZPlus, rules.ZBox, rules.LRP0, rules.Gamma)
    if not isinstance(rule, known):
        raise TypeError(
            f"rule: got {rule!r}, expected one with a root point: WSquare, ZPlus, "
            f"ZBox, LRP0 or Gamma"
        )
    if isinstance(rule, rules.ZBox):
        rule.check_shapes(jnp.shape(x))


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


def _inside(rule: Rule, points: Array) -> Array:
    if isinstance(rule, rules.ZPlus):
        return (points >= 0).all(-1)
    if isinstance(rule, rules.ZBox):
        return ((points >= rule.low) & (points <= rule.high)).all(-1)
    return jnp.ones(points.shape[:-1], bool)
