"""The rules of LRP, each a frozen dataclass with its formula and its source.

Notation: a layer computes `z = W x + b`; `+` and `-` mark the elementwise maximum and
minimum with zero; `R` is relevance; `s(z) = z + epsilon sign(z)` with `sign(0) = +1`.
A rule conserves if `sum_j R_j = sum_i R_i`; what a bias or a stabiliser takes is
absorbed, and `jaxlrp.audit` says how much that is.

Rules are pytrees: their hyper-parameters can be traced, differentiated and vmapped.

    >>> import jax, jax.numpy as jnp, jaxlrp
    >>> w = jnp.array([[0.5, -1.5], [-1.0, 0.25], [2.0, 1.0]])
    >>> x, b = jnp.array([1.0, -2.0, 0.5]), jnp.array([0.3, -0.4])
    >>> def share(gamma):
    ...     rule = jaxlrp.rules.GeneralizedGamma(gamma)
    ...     layer = jaxlrp.lrp(lambda x: x @ w + b, jaxlrp.composites.Uniform(rule))
    ...     return layer(x)
    >>> jax.vmap(share)(jnp.array([0.0, 0.25])).shape
    (2, 3)
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jax import Array

Exactness = Literal["exact", "proportional", "Taylor", "none"]


@dataclasses.dataclass(frozen=True)
class Share:
    """A part of the output's relevance, and the surrogate that distributes it.

    `c_h = part * R / s(z)`: the surrogate `h` is linear in the layer's input (or in its
    shadow), and JAX's transpose of `h` takes the part to the input.

    Attributes:
      surrogate: `h`.
      z: the denominator before it is stabilised.
      epsilon: the stabiliser.
      part: a factor; a scalar or of `h`'s shape.
      per: axes; epsilon is in units of the root mean square of `z` over them.
    """

    surrogate: Array
    z: Array
    epsilon: Any
    part: Any = 1.0
    per: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layer:
    """What a rule sees of a layer `y = W x + b`.

    Attributes:
      x: the layer's input.
      y: its output, the bias included.
      shadow: zeros of `x`'s shape, for rules that are no multiple of `x`, else None.
      linear: `linear(x, kernel)` is `W x` for any input and kernel of these shapes.
      fold: works out (kernel, bias), which not every rule asks for.
      nonnegative: is `x >= 0` known from the structure of the program?
      features: the axes of `y` that belong to the kernel.
    """

    x: Array
    y: Array
    shadow: Array | None
    linear: Callable[[Array, Any], Array]
    fold: Callable[[], tuple[Array | None, Array | None]]
    nonnegative: bool
    features: tuple[int, ...]

    @functools.cached_property
    def _folded(self) -> tuple[Array | None, Array | None]:
        return self.fold()

    @property
    def kernel(self) -> Array | None:
        """The weights, constant scales behind the layer folded in; None for sums."""
        return self._folded[0]

    @property
    def bias(self) -> Array | None:
        """The bias, of a shape that broadcasts to `y`'s, or None."""
        return self._folded[1]

    def weights(self) -> Array:
        """The kernel; an error where the rule needs one and there is none."""
        if self.kernel is None:
            raise TypeError("this rule needs weights, and a sum or average has none")
        return self.kernel

    def plus_bias(self, z: Array, change: Callable[[Array], Array]) -> Array:
        """`z + change(b)`, or `z` for a layer without a bias."""
        return z if self.bias is None else z + change(self.bias)


def positive(x: Array) -> Array:
    """`x+`, the elementwise maximum with zero; its derivative at zero is zero."""
    return jnp.where(x > 0, x, jnp.zeros_like(x))


def negative(x: Array) -> Array:
    """`x-`, the elementwise minimum with zero; its derivative at zero is zero."""
    return jnp.where(x < 0, x, jnp.zeros_like(x))


def _positive_part(layer: Layer) -> Array:
    """`W+ x+ + W- x-`, the sum of the positive contributions."""
    w = layer.weights()
    if layer.nonnegative:
        return layer.linear(layer.x, positive(w))
    return layer.linear(positive(layer.x), positive(w)) + layer.linear(
        negative(layer.x), negative(w)
    )


def _negative_part(layer: Layer) -> Array:
    """`W- x+ + W+ x-`, the sum of the negative contributions."""
    w = layer.weights()
    if layer.nonnegative:
        return layer.linear(layer.x, negative(w))
    return layer.linear(positive(layer.x), negative(w)) + layer.linear(
        negative(layer.x), positive(w)
    )


class Rule:
    """The base of all rules; see the module's docstring for the notation.

    Attributes:
      exactness: `exact` (LRP's own answer, no choice), `proportional` (a stated share
        rule), `Taylor` (a local expansion; need not conserve) or `none` (no relevance).
      needs_shadow: relevance can appear where `x = 0`.
    """

    exactness: ClassVar[Exactness] = "proportional"
    needs_shadow: ClassVar[bool] = False


class LayerRule(Rule):
    """A rule of a linear layer: how it shares its relevance."""

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        """The shares that the output's relevance is cut into."""
        raise NotImplementedError


def _rule(cls: type) -> type:
    """A frozen dataclass that is a pytree of its fields; static ones are marked."""
    frozen = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(frozen)
    static = [f.name for f in fields if f.metadata.get("static")]
    data = [f.name for f in fields if f.name not in static]
    return jax.tree_util.register_dataclass(frozen, data, static)


def _static(default: Any) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


@_rule
class LRP0(LayerRule):
    """LRP-0: `R_j = sum_i x_j w_ij R_i / z_i`.

    As a multiplier this is JAX's transpose, without a division. On a network of such
    layers and ReLUs it equals gradient x input. Biases absorb; else it conserves.
    Source: Bach et al. 2015, equation 56; Montavon et al. 2019.
    """

    exactness: ClassVar[Exactness] = "exact"


@_rule
class Epsilon(LayerRule):
    """Epsilon: `R_j = sum_i x_j w_ij R_i / s(z_i)`.

    The bias and the stabiliser absorb. `relative=True` measures epsilon in units of
    the root mean square of `z` over the layer's features, so that it means the same
    whatever the scale of the network.
    Source: Bach et al. 2015, equation 58.
    """

    epsilon: Any = 1e-6
    relative: bool = _static(False)

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        per = layer.features if self.relative else ()
        return (Share(layer.y, layer.y, self.epsilon, per=per),)


@_rule
class Norm(LayerRule):
    """Proportional: `R_j = x_j R / s(sum_k x_k)`, for sums and averages.

    The epsilon rule of a layer whose weights are all equal. Conserves but for epsilon.
    Source: zennit's `Norm`.
    """

    epsilon: Any = 1e-6

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        return (Share(layer.y, layer.y, self.epsilon),)


@_rule
class Gamma(LayerRule):
    """Gamma (plain): `R_j = sum_i x_j (w + gamma w+)_ij R_i / s(z'_i)`.

    `z' = (w + gamma w+) x + b + gamma b+`. Positive weights count more; meant for
    nonnegative inputs: where `x < 0` it strengthens negative contributions instead
    (`GeneralizedGamma` does not).
    Source: Montavon et al. 2019; RelevancePropagation.jl.
    """

    gamma: Any = 0.25
    epsilon: Any = 1e-6

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        w, gamma = layer.weights(), jnp.asarray(self.gamma, layer.y.dtype)
        h = layer.linear(layer.x, w + gamma * positive(w))
        h = layer.plus_bias(h, lambda b: b + gamma * positive(b))
        return (Share(h, h, self.epsilon),)


@_rule
class GeneralizedGamma(LayerRule):
    """Generalised gamma: positive *contributions* count more where `z > 0`.

    With `p = W+ x+ + W- x-` and `n = W- x+ + W+ x-`:

        R_j = sum_i over z_i > 0:  (contribution to z + gamma p) R_i / s(z + gamma p)
            + sum_i over z_i < 0:  (contribution to z + gamma n) R_i / s(z + gamma n)

    where the denominators carry `b + gamma b+` and `b + gamma b-`. Relevance of an
    output that is exactly zero is dropped. Conserves but for bias and epsilon.
    Source: Andeol et al. 2021; zennit's `Gamma`.
    """

    gamma: Any = 0.25
    epsilon: Any = 1e-6

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        w, x = layer.weights(), layer.x
        gamma = jnp.asarray(self.gamma, layer.y.dtype)
        # p = (z + |W||x|) / 2 and n = (z - |W||x|) / 2: one more contraction, not four.
        size = layer.linear(x if layer.nonnegative else jnp.abs(x), jnp.abs(w))
        z = layer.linear(x, w)
        p, n = (z + size) / 2, (z - size) / 2
        above = layer.plus_bias(z + gamma * p, lambda b: b + gamma * positive(b))
        below = layer.plus_bias(z + gamma * n, lambda b: b + gamma * negative(b))
        y = layer.y
        return (
            Share(above, above, self.epsilon, (y > 0).astype(y.dtype)),
            Share(below, below, self.epsilon, (y < 0).astype(y.dtype)),
        )


@_rule
class AlphaBeta(LayerRule):
    """Alpha-beta: `alpha` times the positive share minus `beta` times the negative.

        R_j = sum_i alpha (x+ w+ + x- w-)_ij R_i / s(p_i)
                   - beta (x+ w- + x- w+)_ij R_i / s(n_i)

    `p = W+ x+ + W- x- + b+`, `n = W- x+ + W+ x- + b-`, `alpha - beta = 1`. Conserves
    but for bias and epsilon, where an output has contributions of both signs.
    Source: Bach et al. 2015, equation 60.
    """

    alpha: Any = 2.0
    beta: Any = 1.0
    epsilon: Any = 1e-6

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        p = layer.plus_bias(_positive_part(layer), positive)
        n = layer.plus_bias(_negative_part(layer), negative)
        return (
            Share(p, p, self.epsilon, self.alpha),
            Share(n, n, self.epsilon, -self.beta),
        )


@_rule
class ZPlus(LayerRule):
    """z-plus: `R_j = sum_i (x+ w+ + x- w-)_ij R_i / s(p_i)`, `AlphaBeta(1, 0)`.

    `p = W+ x+ + W- x- + b+`. Conserves but for bias and epsilon.
    Source: Montavon et al. 2017 (deep Taylor, z-plus).
    """

    epsilon: Any = 1e-6

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        p = layer.plus_bias(_positive_part(layer), positive)
        return (Share(p, p, self.epsilon),)


def _shadow(layer: Layer) -> Array:
    assert layer.shadow is not None, "the reader provides a shadow where a rule asks"
    return layer.shadow


@_rule
class WSquare(LayerRule):
    """w-square: `R_j = sum_i w_ij^2 R_i / s(sum_k w_ik^2 + b_i^2)`.

    The input's value plays no part. The bias absorbs.
    Source: Montavon et al. 2017; with the bias in the denominator as in zennit.
    """

    epsilon: Any = 1e-6
    needs_shadow: ClassVar[bool] = True

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        square = layer.weights() ** 2
        total = layer.linear(jnp.ones_like(layer.x), square)
        total = layer.plus_bias(total, lambda b: b**2)
        h = layer.linear(_shadow(layer), square)
        return (Share(h, total, self.epsilon),)


@_rule
class Flat(LayerRule):
    """Flat: relevance is shared evenly among the connected inputs.

    `R_j = sum_i R_i / s(number of inputs of i)`; padding is no input, the bias plays
    no part. Conserves.
    Source: Lapuschkin et al. 2019.
    """

    epsilon: Any = 1e-6
    needs_shadow: ClassVar[bool] = True

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        ones = jnp.ones_like(layer.weights())
        count = layer.linear(jnp.ones_like(layer.x), ones)
        h = layer.linear(_shadow(layer), ones)
        return (Share(h, count, self.epsilon),)


@_rule
class ZBox(LayerRule):
    """z-box, for inputs in a box: `low <= x <= high`, as pixels are.

        R_j = sum_i (x_j w_ij - l_j w+_ij - h_j w-_ij) R_i / s(sum_k of the same)

    `low` and `high` are scalars or arrays that broadcast to the input. The bias plays
    no part. Conserves but for epsilon.
    Source: Montavon et al. 2017 (deep Taylor, z-B).
    """

    low: Any = 0.0
    high: Any = 1.0
    epsilon: Any = 1e-6
    needs_shadow: ClassVar[bool] = True

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        w, x, shadow = layer.weights(), layer.x, _shadow(layer)
        plus, minus = positive(w), negative(w)

        def box(x: Array, carrier: Array) -> Array:
            low = jnp.asarray(self.low, x.dtype) * carrier
            high = jnp.asarray(self.high, x.dtype) * carrier
            return (
                layer.linear(x, w) - layer.linear(low, plus) - layer.linear(high, minus)
            )

        total = box(x, jnp.ones_like(x))
        return (Share(box(x, shadow), total, self.epsilon),)


@_rule
class Pass(Rule):
    """Identity: `R_x = R_y`, for elementwise maps of one variable.

    Conserves. Where `x = 0` but `y` is not, the relevance of that element is lost.
    With an `epsilon` it is `R_x = x R_y / (x + epsilon)`, without a sign, as in LXT.
    Source: Bach et al. 2015 (activations).
    """

    epsilon: Any = None
    exactness: ClassVar[Exactness] = "exact"


@_rule
class Taylor(Rule):
    """Gradient x input: `R_x = x (dy/dx)^T (R_y / y)`, JAX's own derivative.

    On softmax it is AttnLRP's rule. Need not conserve.
    Source: Achtibat et al. 2024, proposition 3.1.
    """

    exactness: ClassVar[Exactness] = "Taylor"


@_rule
class Detach(Rule):
    """No relevance passes: the value counts as a constant.

    On softmax this is CP-LRP. On a normaliser or a quotient, the divisor counts as a
    constant and the signal takes all.
    Source: Ali et al. 2022.
    """

    exactness: ClassVar[Exactness] = "none"


@_rule
class UniformSplit(Rule):
    """Half of the relevance to each of two factors.

    For a bilinear product as a layer of either factor: `R_a = R_b = R / 2`. Conserves.
    Source: Achtibat et al. 2024, proposition 3.3.
    """


@_rule
class SignalTakesAll(Rule):
    """Of a product with a gate (a sigmoid or softmax output), the signal takes all.

    A product without a recognisable gate is split evenly. Conserves.
    Source: Arras et al. 2017.
    """


@_rule
class WinnerTakesAll(Rule):
    """A selection by value hands its relevance to the element that was chosen.

    Exact. `reduce_max` shares ties evenly, max pooling takes the first of a window.
    Source: Bach et al. 2015.
    """

    exactness: ClassVar[Exactness] = "exact"
