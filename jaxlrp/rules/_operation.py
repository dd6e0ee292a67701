"""Rules of everything that is not a layer: activations, sums, products, selections."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp._operations import denominator
from jaxlrp.rules._base import (
    STABILISERS,
    Exactness,
    Operation,
    RelevanceRule,
    Rule,
    check_number,
    check_option,
    option,
    rule,
    static,
    unbroadcast,
)

Relevances = tuple[jax.Array, ...]


@rule
class Pass(Rule):
    """Identity: `R_x = R_y`.

    On an activation, a batch norm, or a scale or shift by constants, where relevance
    passes as a multiple of `x`: of an element that is exactly zero it is lost unless
    the result is zero too. On a normaliser (a whole layer norm) and a softmax it goes
    from the result to the input, elementwise, whatever their values. On a sum each
    operand gets all of `R`, which does not conserve. Else it conserves. With an
    `epsilon` it is `R_x = x R_y / (x + epsilon)`, without a sign, as in LXT.
    Source: Bach et al. 2015 (activations).

    Attributes:
      epsilon: the stabiliser of LXT's form, or None for the identity.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("activation", rules.Pass())
      >>> f = jax.nn.gelu
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [0.8 2. ]
    """

    epsilon: Any = None
    exactness: ClassVar[Exactness] = "exact"

    def __post_init__(self) -> None:
        check_number(self, "epsilon", least=0, optional=True)

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        return tuple(unbroadcast(R, x.shape) for x in operation.xs)


@rule
class Taylor(Rule):
    """First-order expansion: `R_x = (x - r) (dy/dx at r)^T (R_y / s(y))`.

    Without a `root` it is gradient x input, `R_x = x (dy/dx at x)^T (R_y / y)`, JAX's
    own derivative; on softmax that is AttnLRP's rule. With a root `r`, an array that
    broadcasts to the input, what the expansion's constant `y(r)` holds is absorbed.
    Need not conserve.
    Source: Achtibat et al. 2024, proposition 3.1; Montavon et al. 2017, equation 3.

    Attributes:
      root: the root `r`, an array that broadcasts to the input, or None for zero.
      epsilon: the stabiliser, a number that is not negative. Without a root there is
        none.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.
      temperature: of a softmax, in the reverse pass alone: the derivative is that of
        `softmax(x / temperature)`, as if its argument had not been divided,
        `s (c - sum(s c))`. A positive number, or None for the softmax's own.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("activation", rules.Taylor())
      >>> f = jnp.tanh
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [0.4 0.1]
    """

    root: Any = None
    epsilon: Any = option(default=1e-6)
    stabiliser: str = static(default="sign")
    temperature: Any = option(default=None)
    exactness: ClassVar[Exactness] = "Taylor"

    def __post_init__(self) -> None:
        check_option(self, "stabiliser", STABILISERS)
        check_number(self, "epsilon", least=0)
        check_number(self, "root", optional=True)
        check_number(self, "temperature", least=0, optional=True)
        if isinstance(self.temperature, int | float) and self.temperature == 0:
            raise ValueError(
                "temperature: got 0 for Taylor, expected a positive number"
            )
        if self.temperature is not None and self.root is not None:
            raise ValueError(
                f"temperature: got {self.temperature!r} and a root, expected one of "
                f"them"
            )

    @property
    def needs_shadow(self) -> bool:
        """From a root other than zero, zero inputs have their share."""
        return self.root is not None

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        (x,) = operation.xs
        root = jnp.broadcast_to(jnp.asarray(self.root, x.dtype), x.shape)
        _, pull = jax.vjp(operation.function, root)
        share = R / denominator(operation.y, self.epsilon, (), self.stabiliser)
        return ((x - root) * pull(share.astype(operation.y.dtype))[0],)


@rule
class Gradient(RelevanceRule):
    """Relevance treated as if it were a gradient: `R_x = (dy/dx)^T R_y`.

    What libraries of hooks do wherever they have no rule: a sum copies its relevance to
    each operand, an average divides it evenly, a scale multiplies it. Exact for copies
    and permutations; does not conserve elsewhere.
    Source: zennit and captum, of layers that they do not know.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("sum", rules.Gradient())
      >>> f = lambda x: x[0] + x[1]
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [3. 3.]
    """

    exactness: ClassVar[Exactness] = "Taylor"

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        return operation.pull(R)


@rule
class Guided(RelevanceRule):
    """Guided backpropagation: `R_x = (dy/dx)^T max(R_y, 0)`, on activations.

    Not an LRP rule: it does not conserve.
    Source: Springenberg et al. 2015; zennit's `GuidedBackprop`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("activation", rules.Guided())
      >>> f = lambda x: jax.nn.relu(x) * jnp.array([1.0, -1.0])
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [1. 0.]
    """

    exactness: ClassVar[Exactness] = "Taylor"

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        return operation.pull(jnp.maximum(R, 0))


@rule
class Deconv(RelevanceRule):
    """The deconvnet's rectifier: `R_x = max(R_y, 0)`, on activations.

    Not an LRP rule: it does not conserve.
    Source: Zeiler and Fergus 2014; zennit's `DeconvNet`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("activation", rules.Deconv())
      >>> f = jax.nn.relu
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([-1.0, 2.0])).round(1))
      [0. 2.]
    """

    exactness: ClassVar[Exactness] = "Taylor"

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        return tuple(jnp.maximum(R, 0) for _ in operation.xs)


@rule
class BetaSmooth(RelevanceRule):
    """The gradient of a softplus: `R_x = sigmoid(beta x) R_y`, on activations.

    A smooth stand-in for the rectifier's. Not an LRP rule: it does not conserve.
    Source: Dombrowski et al. 2019; zennit's `BetaSmooth`.

    Attributes:
      beta: the softplus's steepness, not negative.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("activation", rules.BetaSmooth(1.0))
      >>> f = jax.nn.relu
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [0.7       1.8000001]
    """

    beta: Any = 10.0
    exactness: ClassVar[Exactness] = "Taylor"

    def __post_init__(self) -> None:
        check_number(self, "beta", least=0)

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        return tuple(jax.nn.sigmoid(self.beta * x) * R for x in operation.xs)


@rule
class Rescaled(RelevanceRule):
    """A sum, in proportion, then rescaled by what each operand got in total.

    With `r_k = x_k R / s(sum_k x_k)` and their totals `t_k = sum(r_k)` over the whole
    array, `R_k = r_k / t_k * |t_k| / sum_l |t_l| * sum(R)`. Conserves; under `vmap`
    each example on its own, otherwise all examples of the array together.
    Source: Chefer et al. 2021, equation 8.

    Attributes:
      epsilon: the stabiliser, a number that is not negative.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("sum", rules.Rescaled())
      >>> f = lambda x: x[0] + x[1]
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 3.0])).round(1))
      [1. 3.]
    """

    epsilon: Any = 1e-9
    stabiliser: str = static(default="sign")

    def __post_init__(self) -> None:
        check_option(self, "stabiliser", STABILISERS)
        check_number(self, "epsilon", least=0)

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        z = denominator(operation.y, self.epsilon, (), self.stabiliser)
        shares = [
            x * c for x, c in zip(operation.xs, operation.pull(R / z), strict=True)
        ]
        totals = [share.sum() for share in shares]
        size = sum(jnp.abs(t) for t in totals)
        return tuple(
            share * _quotient(jnp.abs(t), size) * _quotient(R.sum(), t)
            for share, t in zip(shares, totals, strict=True)
        )


def _quotient(a: Array, b: Any) -> Array:
    """`a / b`, zero where `b = 0`."""
    return jnp.where(b == 0, 0, a / jnp.where(b == 0, 1, b))


@rule
class Detach(Rule):
    """No relevance passes: the value counts as a constant.

    On softmax this is CP-LRP. On a normaliser or a quotient, the divisor counts as a
    constant and the signal takes all; with `mean=True` the mean that a layer norm
    subtracts is a constant, too.
    Source: Ali et al. 2022.

    Attributes:
      mean: whether the mean that a layer norm subtracts is a constant, too.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("softmax", rules.Detach())
      >>> f = lambda x: jax.nn.softmax(x) * x
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [0.1 0.7]
    """

    mean: bool = static(default=False)
    exactness: ClassVar[Exactness] = "none"

    def __post_init__(self) -> None:
        check_option(self, "mean", (True, False))


@rule
class Merge(Rule):
    """A batch norm is folded into the layer before it, and shares its rule.

    Exact as a function; its shift becomes the layer's bias. Without a layer before it,
    it is `LRP0`.
    Source: zennit's and RelevancePropagation.jl's canonization.

    Examples:
      >>> import jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("batch_norm", rules.Merge())
      >>> composite.rule(composites.Place("batch_norm"))
      Merge()
    """

    exactness: ClassVar[Exactness] = "exact"


@rule
class UniformSplit(Rule):
    """An equal part of the relevance to each factor, or operand of a sum.

    For a bilinear product as a layer of either factor, `R_a = R_b = R / 2`. Conserves.
    `x1 x2 x3` is one product of three factors, however it is bracketed, and each gets
    `R / 3`; with `pairwise=True`, or an epsilon, each multiplication halves what it is
    given. With an `epsilon` the factor is `y R / s(2 y)`.
    Source: Achtibat et al. 2024, proposition 3.3, which is pairwise; You et al. 2025,
    whose criticism of that is the dependence on brackets.

    Attributes:
      epsilon: a stabiliser of each factor's part, or None.
      pairwise: whether each multiplication halves what it is given.
      stabiliser: its form, one of `STABILISERS`: `s(z)`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("product", rules.UniformSplit())
      >>> f = lambda x: x[0] * x[1]
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [1. 1.]
    """

    epsilon: Any = None
    pairwise: bool = static(default=False)
    stabiliser: str = static(default="sign")

    def __post_init__(self) -> None:
        check_option(self, "stabiliser", STABILISERS)
        check_option(self, "pairwise", (True, False))
        check_number(self, "epsilon", least=0, optional=True)

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        n = len(operation.xs) + len(operation.constants)
        return tuple(unbroadcast(R / n, x.shape) for x in operation.xs)


@rule
class SignalTakesAll(Rule):
    """Of a product with a gate, the signal takes all: `R_x = R`, the gate is constant.

    A gate is a factor known to be nonnegative (a sigmoid's or softmax's output) where
    the other is not; with `activations=True` also the result of any activation where
    the other is not one, as in `silu(gate) * up`; with `coefficients=True` also what a
    selective state space computes from the input in addition to its signal, the
    matrices `B` and `C` of `h' = A h + x B`, `y = C h`, known by their axes. A
    contraction that sums has no other gates. Other products are split evenly, as by
    `UniformSplit`.
    Conserves.
    Source: Arras et al. 2017; Rezaei Jafari et al. 2024 (coefficients).

    Attributes:
      activations: whether the result of an activation is a gate beside what is none.
      coefficients: whether a state space's `B` and `C` are gates.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> composite = composites.AttnLRP().on("product", rules.SignalTakesAll())
      >>> f = lambda x: jax.nn.sigmoid(x[0]) * x[1]
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0])).round(1))
      [0.  1.5]
    """

    activations: bool = static(default=False)
    coefficients: bool = static(default=False)

    def __post_init__(self) -> None:
        check_option(self, "activations", (True, False))
        check_option(self, "coefficients", (True, False))


@rule
class WinnerTakesAll(Rule):
    """A selection by value gives its relevance to the element that was chosen.

    Exact. `reduce_max` shares ties evenly and max pooling takes the first of a window;
    with `ties="share"` both share them.
    Source: Bach et al. 2015; ties as in the LRP toolbox.

    Attributes:
      ties: what becomes of equal elements: `first`, or `share`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> rule = rules.WinnerTakesAll(ties="share")
      >>> composite = composites.AttnLRP().on("selection", rule)
      >>> f = jnp.max
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> print(explain(jnp.array([1.0, 2.0, 2.0])).round(1))
      [0. 1. 1.]
    """

    ties: str = static(default="first")
    exactness: ClassVar[Exactness] = "exact"

    def __post_init__(self) -> None:
        check_option(self, "ties", ("first", "share"))

    @property
    def needs_shadow(self) -> bool:
        """A share of a tie at zero is relevance at a zero input."""
        return self.ties == "share"

    def relevances(self, operation: Operation, R: Array) -> Relevances:  # noqa: N803
        (x,) = operation.xs
        # Only existing finite values are chosen: padding is NaN, equal to nothing.
        chosen = operation.stack(x, jnp.nan) == operation.y
        share = jnp.where(chosen, R / chosen.sum(0), 0)
        _, transpose = jax.vjp(lambda x: operation.stack(x, 0), x)
        return transpose(share.astype(x.dtype))
