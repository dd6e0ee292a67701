"""Rules of layers: how `R_i` is shared among the contributions `x_j w_ij`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._arguments import known_numbers
from jaxlrp._operations import denominator, held_constant
from jaxlrp.rules._base import (
    STABILISERS,
    Exactness,
    Layer,
    LayerRule,
    Operation,
    Rule,
    Share,
    Total,
    check_number,
    check_option,
    negative,
    option,
    positive,
    quotient,
    rule,
    static,
    unbroadcast,
)

BIASES = ("absorb", "whole", "ignore", "share", "absolute")
"""What becomes of the bias's part of the relevance.

`absorb`: the bias is in the denominator as the rule changes it, and keeps its part;
`whole`: the same, unchanged; `ignore`: the rule of the layer without its bias; `share`:
what the bias and the stabiliser would keep is returned to the connected inputs in equal
parts, so that the rule conserves exactly; `absolute`: the bias keeps
`|b| / (|W x| + |b|)`, the rest is shared as if there were none.
"""


def _parts(layer: Layer) -> tuple[Array, Array]:
    """The sums of the positive and of the negative contributions, `p` and `n`.

    What differences leave of a sum without contributions is rounding; it counts as
    zero.
    """
    if not _cancels_well(layer):
        return _positive_part(layer), _negative_part(layer)
    p, n, size = _differences(layer)
    return _beyond(p, size), _beyond(n, size)


def _differences(layer: Layer) -> tuple[Array, Array, Array]:
    """`p` and `n` from one more product, and the size of what they are differences of.

    `p = W+ x` where `x >= 0`, else `u = |W| |x|`: `p + n = z`, `p - n = u`.
    """
    z = layer.contributions
    if layer.nonnegative:
        p = layer.weighted(layer.x, positive)
        return p, z - p, p
    u = layer.weighted(jnp.abs(layer.x), jnp.abs)
    return (z + u) / 2, (z - u) / 2, u


NOISE = 64
"""What a difference leaves of sums is rounding below so many of their ulps."""

_MANY = 64
"""Of so many contributions hardly ever nearly all have one sign."""


def _cancels_well(layer: Layer) -> bool:
    """Are differences of sums exact enough? Not of a few, nor in low precision."""
    return layer.fan_in >= _MANY and jnp.finfo(layer.x.dtype).bits >= 32


def _beyond(part: Array, size: Array) -> Array:
    """The part, where it is more than the rounding of sums of this size."""
    return jnp.where(_is_beyond(part, size), part, jnp.zeros_like(part))


def _is_beyond(part: Array, size: Array) -> Array:
    return jnp.abs(part) > NOISE * float(jnp.finfo(part.dtype).eps) * size


def _positive_part(layer: Layer) -> Array:
    """`W+ x+ + W- x-`, the sum of the positive contributions."""
    if layer.nonnegative:
        return layer.weighted(layer.x, positive)
    if _cancels_well(layer):
        return _parts(layer)[0]
    return layer.weighted(positive(layer.x), positive) + layer.weighted(
        negative(layer.x), negative
    )


def _negative_part(layer: Layer) -> Array:
    """`W- x+ + W+ x-`, the sum of the negative contributions."""
    if layer.nonnegative:
        return layer.weighted(layer.x, negative)
    return layer.weighted(positive(layer.x), negative) + layer.weighted(
        negative(layer.x), positive
    )


def _unchanged(b: Array) -> Array:
    return b


@rule
class LRP0(LayerRule):
    """LRP-0: `R_j = sum_i x_j w_ij R_i / z_i`.

    As a multiplier this is JAX's transpose, without a division. On a network of such
    layers and ReLUs it equals gradient x input. Biases absorb; else it conserves.
    Source: Bach et al. 2015, equation 56; Montavon et al. 2019.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.LRP0())
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [0.  4.5]
    """

    exactness: ClassVar[Exactness] = "exact"


@rule
class Stabilised(LayerRule):
    """What the rules with a denominator have in common: its conventions.

    Attributes:
      epsilon: the stabiliser's size.
      stabiliser: its form, see `STABILISERS`.
      relative: epsilon is in units of the root mean square of `z` over the layer's
        features, so that it means the same whatever the scale of the network.
    """

    epsilon: Any = option(default=1e-6)
    stabiliser: str = static(default="sign")
    relative: bool = static(default=False)

    def __post_init__(self) -> None:
        check_option(self, "stabiliser", STABILISERS)
        check_option(self, "relative", (True, False))
        check_number(self, "epsilon", least=0)

    def _share(
        self, layer: Layer, surrogate: Array, z: Array, part: Any = 1.0
    ) -> Share:
        per = layer.features if self.relative else ()
        return Share(surrogate, z, self.epsilon, part, per, self.stabiliser)


@rule
class Biased(Stabilised):
    """What the rules whose denominator contains the bias have in common.

    Attributes:
      bias: what becomes of its part, see `BIASES`.
    """

    bias: str = static(default="absorb")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self, "bias", BIASES)

    @property
    def needs_shadow(self) -> bool:
        """What is returned goes to zero inputs, too."""
        return self.bias == "share"

    def _cut(
        self,
        layer: Layer,
        total: Array,
        change: Callable[[Array], Array],
        part: Any = 1.0,
        carried: Array | None = None,
    ) -> tuple[Share, ...]:
        """One part of the relevance, shared among contributions of the sum `total`.

        `change` is what the rule makes of the bias. `carried` is the surrogate, where
        that is not `total` itself.
        """
        surrogate = total if carried is None else carried
        if layer.bias is None or self.bias == "ignore":
            z = total
        elif self.bias == "absolute":
            z, own = total, jnp.abs(layer.contributions)
            part = part * own / denominator(own + jnp.abs(layer.bias), self.epsilon)
        else:
            z = total + (change(layer.bias) if self.bias != "whole" else layer.bias)
            surrogate = z if carried is None else surrogate
        shares = [self._share(layer, surrogate, z, part)]
        if self.bias == "share":
            per = layer.features if self.relative else ()
            full = denominator(z, self.epsilon, per, self.stabiliser)
            rest = (1 - total / full).astype(total.dtype)
            back = layer.spread(_shadow(layer))
            shares.append(Share(back, jnp.ones_like(total), 0.0, part * rest))
        return tuple(shares)


def _shadow(layer: Layer) -> Array:
    assert layer.shadow is not None, "the reader provides a shadow where a rule asks"
    return layer.shadow


@rule
class Epsilon(Biased):
    """Epsilon: `R_j = sum_i x_j w_ij R_i / s(z_i)`.

    The bias and the stabiliser absorb. `relative=True` measures epsilon in units of
    the root mean square of `z` over the layer's features, so that it means the same
    whatever the scale of the network.
    Source: Bach et al. 2015, equation 58; `bias="share"`: Arras et al. 2017.

    Attributes:
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      bias: what becomes of the bias's part, one of `BIASES`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.Epsilon(0.5))
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [-0.8  4.6]
    """

    epsilon: Any = 1e-6

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        if self.bias in ("absorb", "whole") or layer.bias is None:
            if self.bias != "share":
                return (self._share(layer, layer.y, layer.y),)
            return self._cut(layer, layer.y, _unchanged)
        return self._cut(layer, layer.contributions, _unchanged)


@rule
class Norm(Stabilised):
    """Proportional: `R_j = x_j R / s(sum_k x_k)`, for sums and averages.

    The epsilon rule of a layer whose weights are all equal. Conserves but for epsilon.
    On a selection, such as max pooling, the sum is over the values it chooses between.
    With `unscaled=True` epsilon is added to the sum itself, without the constant factor
    that makes it an average.
    Source: zennit's `Norm`; `unscaled`: the LRP toolbox's sum pooling.

    Attributes:
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      unscaled: whether epsilon is added to the sum itself, not to the average.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("average", rules.Norm(0.1))
      >>> f = lambda x: x.mean()
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [0.5        0.90000004]
    """

    epsilon: Any = 1e-6
    unscaled: bool = static(default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self, "unscaled", (True, False))

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        alone = layer.without_scales if layer.kernel is None else None
        z = alone() if self.unscaled and alone is not None else layer.y
        return (self._share(layer, z, z),)

    def relevances(self, operation: Operation, R: Array) -> tuple[Array, ...]:  # noqa: N803
        """Of a selection, among the candidates; an infinite one is a mask's."""
        (x,) = operation.xs
        x = jnp.where(jnp.isfinite(x), x, jnp.zeros_like(x))
        z, transpose = jax.vjp(lambda x: operation.stack(x, 0).sum(0), x)
        share = R / denominator(z, self.epsilon, (), self.stabiliser)
        return (x * transpose(share.astype(z.dtype))[0],)


@rule
class Absolute(Stabilised):
    """Absolute: `R_j = |x_j| R / s(sum_k |x_k|)`, by the size of the contributions.

    For sums, averages and products, and for what a constant is added to or multiplied
    by: the constant keeps its part. On layers it is `|x_j w_ij| / sum_k |x_k w_ik|`.
    Bounded, but the contributions' signs are lost. Conserves but for constants and
    epsilon.

    `joint=True`, for sums: `a + b + c` is one sum of three, however it is bracketed,
    and relevance is a multiple of each part, with none where a part is zero.
    Source: dynamicLRP.

    Attributes:
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      joint: whether a sum of several is one sum, however it is bracketed.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("sum", rules.Absolute())
      >>> f = lambda x: x[0] + x[1]
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, -3.0])).round(1))
      [-0.5 -1.5]
    """

    epsilon: Any = 1e-6
    joint: bool = static(default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self, "joint", (True, False))

    @property
    def compares_parts(self) -> bool:
        return self.joint

    def to_parts(self, total: Total, R: Array) -> list[Array]:  # noqa: N803
        """Of a sum, by the parts' sizes."""
        passed = quotient(R, total.add(lambda x, _: jnp.abs(x)))
        return [jnp.sign(x) * passed for x in total.parts]

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        kernel = None if layer.kernel is None else _size(layer.kernel)
        h = layer.linear(_size(layer.x), kernel)
        return (self._share(layer, h, h),)

    def relevances(self, operation: Operation, R: Array) -> tuple[Array, ...]:  # noqa: N803
        """The operands' sizes are compared elementwise."""
        sizes = [jnp.abs(x) for x in (*operation.xs, *operation.constants)]
        total = functools.reduce(jnp.add, sizes)
        share = R / denominator(total, self.epsilon, (), self.stabiliser)
        return tuple(unbroadcast(jnp.abs(x) * share, x.shape) for x in operation.xs)


def _size(x: Array) -> Array:
    """`|x|`, in the dtype of `x` even where that is complex."""
    return jnp.abs(x).astype(x.dtype)


@rule
class Gamma(Biased):
    """Gamma (plain): `R_j = sum_i x_j (w + gamma w+)_ij R_i / s(z'_i)`.

    `z' = (w + gamma w+) x + b + gamma b+`. Positive weights count more; meant for
    nonnegative inputs: where `x < 0` it strengthens negative contributions instead
    (`GeneralizedGamma` does not). Conserves but for bias and epsilon.
    Source: Montavon et al. 2019; RelevancePropagation.jl; captum with `bias="whole"`.

    Attributes:
      gamma: how much more positive weights count, not negative.
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      bias: what becomes of the bias's part, one of `BIASES`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.Gamma(0.5))
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [-0.1  4.6]
    """

    gamma: Any = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "gamma", least=0)

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        gamma = jnp.asarray(self.gamma, layer.y.dtype)
        h = layer.weighted(layer.x, lambda w: w + gamma * positive(w))
        return self._cut(layer, h, lambda b: b + gamma * positive(b))

    @property
    def compares_parts(self) -> bool:
        return True

    def to_parts(self, total: Total, R: Array) -> list[Array]:  # noqa: N803
        """Of a sum, what is added counts more than what is subtracted."""
        by = [1 + self.gamma * max(weight, 0) for weight in total.weights]
        weighted = (g * x for g, x in zip(by, total.parts, strict=True))
        z = functools.reduce(jnp.add, weighted)
        passed = R / denominator(z, self.epsilon, (), self.stabiliser)
        return [g * passed for g in by]


@rule
class GeneralizedGamma(Biased):
    """Generalised gamma: positive *contributions* count more where `z > 0`.

    With `p = W+ x+ + W- x-` and `n = W- x+ + W+ x-`:

        R_j = sum_i over z_i > 0:  (contribution to z + gamma p) R_i / s(z + gamma p)
            + sum_i over z_i < 0:  (contribution to z + gamma n) R_i / s(z + gamma n)

    where the denominators carry `b + gamma b+` and `b + gamma b-`. Relevance of an
    output that is exactly zero is dropped. Conserves but for bias and epsilon. Complex
    contributions have no signs: of complex layers it is epsilon.
    Source: Andeol et al. 2021; zennit's `Gamma`.

    Attributes:
      gamma: how much more contributions of the output's sign count, not negative.
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      bias: what becomes of the bias's part, one of `BIASES`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.GeneralizedGamma(0.5))
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [-0.1  4.6]
    """

    gamma: Any = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "gamma", least=0)

    @property
    def compares_parts(self) -> bool:
        return True

    def to_parts(self, total: Total, R: Array) -> list[Array]:  # noqa: N803
        """Of a sum, what has its sign counts more; `|z| >= |y|` needs no stabiliser."""
        gamma = jnp.asarray(self.gamma, total.y.dtype)
        up, down = total.y > 0, total.y < 0

        def weight(x: Array, _: int = 1) -> Array:
            return 1 + gamma * jnp.where(((x > 0) & up) | ((x < 0) & down), 1, 0)

        passed = quotient(R, total.add(lambda x, _: weight(x) * x))
        return [weight(x) * passed for x in total.parts]

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        x, y = layer.x, layer.y
        if jnp.iscomplexobj(y):
            return self._cut(layer, layer.contributions, lambda b: b)
        gamma = jnp.asarray(self.gamma, y.dtype)
        if layer.nonnegative and layer.rectified and self.bias != "absolute":
            # Relevance comes where z > 0 only: one product, there and back.
            h = layer.weighted(x, lambda w: w + gamma * positive(w))
            return self._cut(layer, h, lambda b: b + gamma * positive(b))
        # p = (z + |W||x|) / 2 and n = (z - |W||x|) / 2: one more contraction, not four.
        size = layer.weighted(x if layer.nonnegative else jnp.abs(x), jnp.abs)
        z = layer.contributions
        p, n = (z + size) / 2, (z - size) / 2
        # Below zero only the signs change; the denominator is of either side.
        above = self._cut(layer, z + gamma * p, lambda b: b + gamma * positive(b))
        below = self._cut(layer, z + gamma * n, lambda b: b + gamma * negative(b))
        if self.bias == "absolute":
            up, down = (z > 0).astype(y.dtype), (z < 0).astype(y.dtype)
            return (*_times(above, up), *_times(below, down))
        either = jnp.where(y > 0, above[0].z, below[0].z)
        if self.bias == "ignore":  # it may differ in sign from `y`
            sides = *_times(above, y > 0), *_times(below, y < 0)
            return tuple(dataclasses.replace(s, z=either) for s in sides)
        return (*_on_side(above, 1, either), *_on_side(below, -1, either))


def _times(shares: Sequence[Share], part: Array) -> list[Share]:
    return [dataclasses.replace(s, part=s.part * part) for s in shares]


def _on_side(shares: Sequence[Share], side: int, z: Array) -> list[Share]:
    """Of positive or of negative outputs alone, the first with that denominator."""
    first, *others = (dataclasses.replace(s, side=side) for s in shares)
    return [dataclasses.replace(first, z=z), *others]


@rule
class AlphaBeta(Biased):
    """Alpha-beta: `alpha` times the positive share minus `beta` times the negative.

        R_j = sum_i alpha (x+ w+ + x- w-)_ij R_i / s(p_i)
                   - beta (x+ w- + x- w+)_ij R_i / s(n_i)

    `p = W+ x+ + W- x- + b+`, `n = W- x+ + W+ x- + b-`, `alpha - beta = 1`. Conserves
    but for bias and epsilon, where an output has contributions of both signs.
    Source: Bach et al. 2015, equation 60; `bias="whole"` is iNNvestigate's.

    Attributes:
      alpha: the factor of the positive part, `1 + beta`.
      beta: the factor of the negative part.
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      bias: what becomes of the bias's part, one of `BIASES`.

    Raises:
      ValueError: if `alpha - beta` is known and not 1.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.AlphaBeta(2.0, 1.0))
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [-3.   7.5]
    """

    alpha: Any = 2.0
    beta: Any = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "alpha")
        check_number(self, "beta")
        alpha, beta = map(known_numbers, (self.alpha, self.beta))
        if alpha is None or beta is None:
            return
        if (abs(alpha - beta - 1) > 1e-6).any():
            raise ValueError(
                f"alpha, beta: got {self.alpha!r} and {self.beta!r}, expected "
                f"alpha - beta = 1, or relevance would not be conserved"
            )

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        apart = self.relative or layer.of_parameters or not _cancels_well(layer)
        if self.bias == "absorb" and not apart:
            return self._halves(layer)
        p, n = _parts(layer)
        return (
            *self._cut(layer, p, positive, self.alpha),
            *self._cut(layer, n, negative, -self.beta),
        )

    @property
    def compares_parts(self) -> bool:
        return True

    def to_parts(self, total: Total, R: Array) -> list[Array]:  # noqa: N803
        """Of a sum, its positive and its negative parts."""
        own = dict(epsilon=self.epsilon, form=self.stabiliser)
        above = self.alpha * R / denominator(total.add(lambda x, _: positive(x)), **own)
        below = self.beta * R / denominator(total.add(lambda x, _: negative(x)), **own)
        return [
            jnp.where(x > 0, above, jnp.where(x < 0, -below, 0)) for x in total.parts
        ]

    def _halves(self, layer: Layer) -> tuple[Share, ...]:
        """Both denominators are `y` together; surrogates have what rounding leaves."""
        p, n, size = _differences(layer)
        made = []
        for total, change, part in (
            (p, positive, self.alpha),
            (n, negative, -self.beta),
        ):
            z = layer.plus_bias(total, change)
            share = self._share(layer, z, z, part)
            none = ~_is_beyond(total, size)
            made.append(dataclasses.replace(share, rounding=none))
        return tuple(made)


@rule
class ZPlus(Biased):
    """z-plus: `R_j = sum_i (x+ w+ + x- w-)_ij R_i / s(p_i)`, `AlphaBeta(1, 0)`.

    `p = W+ x+ + W- x- + b+`. Conserves but for bias and epsilon. `split=False` takes
    `x w+` whatever the sign of `x`: one contraction less, the same for nonnegative
    inputs, and unbounded shares for others.
    Source: Montavon et al. 2017 (deep Taylor, z-plus).

    Attributes:
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      bias: what becomes of the bias's part, one of `BIASES`.
      split: whether the sign of `x` counts, not only that of the weight.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.ZPlus())
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [0.5 4. ]
    """

    epsilon: Any = 1e-6
    split: bool = static(default=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self, "split", (True, False))

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        if self.split:
            return self._cut(layer, _positive_part(layer), positive)
        h = layer.weighted(layer.x, positive)
        return self._cut(layer, h, positive)

    @property
    def compares_parts(self) -> bool:
        return True

    def to_parts(self, total: Total, R: Array) -> list[Array]:  # noqa: N803
        """Of a sum, its positive parts; unsplit, what is added."""
        chosen = [
            x > 0 if self.split else jnp.full_like(x, weight > 0, bool)
            for x, weight in zip(total.parts, total.weights, strict=True)
        ]
        pairs = zip(chosen, total.parts, strict=True)
        z = functools.reduce(jnp.add, (jnp.where(some, x, 0) for some, x in pairs))
        passed = R / denominator(z, self.epsilon, (), self.stabiliser)
        return [jnp.where(some, passed, 0) for some in chosen]


@rule
class WSquare(Biased):
    """w-square: `R_j = sum_i w_ij^2 R_i / s(sum_k w_ik^2 + b_i^2)`.

    The input's value plays no part. The bias absorbs (`bias="ignore"`: it does not, and
    the rule conserves but for epsilon).
    Source: Montavon et al. 2017, without a bias; with it as in zennit.

    Attributes:
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      bias: what becomes of the bias's part, one of `BIASES`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.WSquare())
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [1.2 3.3]
    """

    epsilon: Any = 1e-6

    @property
    def needs_shadow(self) -> bool:
        """A zero input has its share."""
        return True

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        total = layer.sums(layer.weights() ** 2)
        carried = layer.weighted(_shadow(layer), jnp.square)
        return self._cut(layer, total, jnp.square, carried=carried)


@rule
class Flat(Stabilised):
    """Flat: relevance is shared evenly among the connected inputs.

    `R_j = sum_i R_i / s(number of inputs of i)`; padding is not an input, the bias
    plays no part. Conserves. On an average, and on a selection, it is the uniform one.

    An input that more windows of a convolution meet gets more: after a 3 x 3 kernel
    with a stride of 2 the map is a checkerboard of period 2. `balanced=True` divides
    that out. With `m_j` outputs that input `j` is connected to,

        R_j = sum_i (1 / m_j) R_i / s(sum_k in i of 1 / m_k)

    which conserves, and gives all inputs the same of a constant `R`, except at borders.
    It is the flat rule where all `m_j` are equal, as in a dense layer.
    Source: Lapuschkin et al. 2019.

    Attributes:
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.
      balanced: whether an input that more outputs meet gets no more than others.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.Flat())
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [2.2 2.2]
    """

    epsilon: Any = 1e-6
    balanced: bool = static(default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option(self, "balanced", (True, False))

    @property
    def needs_shadow(self) -> bool:
        """A zero input has its share."""
        return True

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        carrier = _shadow(layer)
        if not self.balanced:
            return (self._share(layer, layer.even(carrier), layer.count()),)
        per = layer.per_input()
        z = held_constant(layer.even(per))
        return (self._share(layer, layer.even(carrier * per), z),)

    def relevances(self, operation: Operation, R: Array) -> tuple[Array, ...]:  # noqa: N803
        """Of a selection, among the candidates; an infinite one is a mask's."""
        (x,) = operation.xs
        own = jnp.isfinite(x).astype(x.dtype)
        count, transpose = jax.vjp(lambda own: operation.stack(own, 0).sum(0), own)
        share = R / denominator(count, self.epsilon, (), self.stabiliser)
        return (own * transpose(share.astype(x.dtype))[0],)


@rule
class ZBox(Stabilised):
    """z-box, for inputs in a box: `low <= x <= high`, as pixels are.

        R_j = sum_i (x_j w_ij - l_j w+_ij - h_j w-_ij) R_i / s(sum_k of the same)

    `low` and `high` are scalars or arrays that broadcast to the input. The bias plays
    no part. Conserves but for epsilon. Where inputs lie outside the box, shares can be
    negative or large: a call with concrete arrays warns of that. Under `jit` values
    are not known, and nothing is said: call once without.
    Source: Montavon et al. 2017 (deep Taylor, z-B).

    Attributes:
      low: the lower bound of the input, a number or an array that broadcasts to it.
      high: the upper bound.
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      relative: whether epsilon is in units of the root mean square of `z` over the
        layer's features.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.ZBox(0.0, 3.0))
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [1.1 3.4]
    """

    low: Any = 0.0
    high: Any = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "low")
        check_number(self, "high")
        low, high = map(known_numbers, (self.low, self.high))
        if low is None or high is None:
            return
        if _broadcast(low.shape, high.shape) is None:
            raise ValueError(
                f"low, high: got shapes {low.shape} and {high.shape} for ZBox, "
                f"expected two that broadcast"
            )
        if (low > high).any():
            raise ValueError(
                f"low, high: got {self.low!r} and {self.high!r} for ZBox, expected "
                f"low <= high"
            )

    @property
    def needs_shadow(self) -> bool:
        """A zero input has its share."""
        return True

    def check_shapes(self, shape: tuple[int, ...]) -> None:
        """Raises where a bound does not broadcast to the layer's input."""
        for name in ("low", "high"):
            own = jnp.shape(getattr(self, name))
            if own and _broadcast(own, shape) != shape:
                raise ValueError(
                    f"{name}: got shape {own} for ZBox, expected one that broadcasts "
                    f"to that of the layer's input, {shape}"
                )

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        self.check_shapes(layer.x.shape)
        x, shadow = layer.x, _shadow(layer)
        low, high = (self._inside(layer, bound) for bound in (self.low, self.high))
        if low is not None and high is not None:

            def box(w: Array) -> Array:
                return low * positive(w) + high * negative(w)

            own = layer.contributions
            total = own - layer.sums(box(layer.weights()))
            return (self._share(layer, own - layer.weighted(shadow, box), total),)

        def bounds(carrier: Array) -> Array:
            low = jnp.asarray(self.low, x.dtype) * carrier
            high = jnp.asarray(self.high, x.dtype) * carrier
            return layer.weighted(low, positive) + layer.weighted(high, negative)

        own = layer.contributions
        total = own - bounds(jnp.ones_like(x))
        return (self._share(layer, own - bounds(shadow), total),)

    def _inside(self, layer: Layer, bound: Any) -> Array | None:
        """A bound along the kernel's axes, where that says all of it."""
        bound = jnp.asarray(bound, layer.x.dtype)
        if bound.size == 1:
            return bound.reshape(())
        return None if layer.in_kernel is None else layer.in_kernel(bound)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape that two broadcast to, or None."""
    try:
        return jnp.broadcast_shapes(a, b)
    except ValueError:
        return None


@rule
class TopK(Rule):
    """A filter before a layer's rule: only the largest relevances are propagated.

    Of the relevances `R_i` at the layer's output those with the largest `|R_i|` stay, a
    fraction `keep` of them over its features (at least one); the rest is dropped.
    Does not conserve.
    Source: dynamicLRP's relevance filter.

    Attributes:
      rule: the layer's rule.
      keep: the fraction of its relevances that passes, in (0, 1].

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> w, x = jnp.array([[1.0, -1.0], [-0.5, 2.0]]), jnp.array([2.0, 3.0])
      >>> composite = composites.Uniform(rules.TopK(rules.LRP0(), keep=0.5))
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target="all")(x).round(1))
      [-2.  6.]
    """

    rule: Any = Epsilon()
    keep: Any = 0.5

    def __post_init__(self) -> None:
        if isinstance(self.rule, TopK) or not isinstance(self.rule, Rule):
            raise TypeError(f"rule: got {self.rule!r}, expected a layer's rule")
        check_number(self, "keep")
        keep = known_numbers(self.keep)
        if keep is not None and not ((keep > 0) & (keep <= 1)).all():
            raise ValueError(
                f"keep: got {self.keep!r} for TopK, expected a fraction in (0, 1]"
            )

    @property
    def needs_shadow(self) -> bool:
        """As the rule that it filters for."""
        return self.rule.needs_shadow
