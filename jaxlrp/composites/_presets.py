"""Composites of the literature for networks of convolutions and dense layers."""

from __future__ import annotations

from typing import Any

from jaxlrp import rules
from jaxlrp._arguments import flag
from jaxlrp.composites._base import Composite
from jaxlrp.rules import Rule


def Default() -> Composite:  # noqa: N802
    """What `composite=None` means: a good start for any model, by structure.

    - Convolutions: generalised gamma 0.25, where contributions of the result's sign
      count a quarter more. Layers whose weights a path meets again, in recurrences, and
      layers that are added to those: 0.05.
    - Other dense layers: `R_j = sum_i x_j w_ij R_i / s(z_i)`, epsilon `1e-6` of the
      layer's root mean square.
    - Sums `c = a + b`: generalised gamma 1,
      `R_a = g_a a R / (g_a a + g_b b)` with `g = 2` for what has the sign of `c` and 1
      for the rest: at most three times the size of what arrives leaves again. So are
      shifts by the first state of a recurrence, which are sums later on. Residual sums
      `x + f(x)`, and other shifts: in proportion, `R_a = a R / (a + b)`.
    - Gates, factors that cannot be negative, are held constant (Arras et al. 2017);
      other products are shared evenly.
    - Identity on activations; normalisers held constant; AttnLRP for softmax and
      bilinear products; averages in proportion.

    What was tried on which network, and lost, is in `docs/rules.md`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> f, x = lambda x: x @ jnp.eye(2), jnp.array([1.0, 2.0])
      >>> default = jaxlrp.lrp(f, jaxlrp.composites.Default())(x)
      >>> bool((default == jaxlrp.lrp(f)(x)).all())
      True
    """
    bounded = rules.GeneralizedGamma(1.0)
    return (
        Proportional()
        .named("Default")
        .on("convolution", rules.GeneralizedGamma(0.25))
        .on("layer", rules.GeneralizedGamma(0.05), recurrent=True)
        .on("sum", bounded)
        .on("sum", rules.LRP0(), residual=True)
        .on("shift", bounded, recurrent=True)
    )


def Proportional() -> Composite:  # noqa: N802
    """Everything in proportion to its contribution: LRP-0 and epsilon.

    Layers: `R_j = sum_i x_j w_ij R_i / s(z_i)`, epsilon `1e-6` of the layer's root mean
    square; sums and averages in proportion, without a stabiliser; gates held constant,
    other products shared evenly. On networks of layers and ReLUs it equals gradient
    times input, and nothing bounds it where contributions cancel.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> f, x = lambda x: jax.nn.relu(x) @ jnp.ones((2, 1)), jnp.array([1.0, 2.0])
      >>> jaxlrp.lrp(f, jaxlrp.composites.Proportional())(x).round(3).tolist()
      [1.0, 2.0]
    """
    return (
        Composite("Proportional")
        .on("layer", rules.Epsilon(1e-6, relative=True))
        .on("product", rules.SignalTakesAll())
    )


def Uniform(rule: Rule) -> Composite:  # noqa: N802
    """One rule on every layer; the defaults elsewhere.

    Args:
      rule: the rule of dense layers and convolutions.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> flat = jaxlrp.composites.Uniform(jaxlrp.rules.Flat())
      >>> f = lambda x: x @ jnp.array([3.0, 1.0])
      >>> jaxlrp.lrp(f, flat)(jnp.array([1.0, 1.0])).round(3).tolist()
      [2.0, 2.0]
    """
    return Composite(f"Uniform({type(rule).__name__})").on("layer", rule)


def Epsilon(epsilon: Any = 1e-6) -> Composite:  # noqa: N802
    """Epsilon on every layer, proportional on averages and residual sums.

    Layers: `R_j = sum_i x_j w_ij R_i / s(z_i)`; sums: `R_k = x_k R / s(sum_l x_l)`.

    Args:
      epsilon: of the layers; sums and averages have 1e-6.

    Source: Bach et al. 2015; zennit's layer map.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> f = lambda x: x @ jnp.array([2.0, -1.0])
      >>> explain = jaxlrp.lrp(f, jaxlrp.composites.Epsilon(0.5))
      >>> relevance = explain(jnp.array([1.0, 1.0]))
      >>> bool(jnp.isclose(relevance.sum(), 2 / 3))  # of 1, a third is absorbed
      True
    """
    return _proportional(Composite("Epsilon").on("layer", rules.Epsilon(epsilon)))


def _proportional(composite: Composite) -> Composite:
    """Averages and residual sums in proportion."""
    return composite.on("average", rules.Norm(1e-6)).on("sum", rules.Norm(1e-6))


def _epsilon_with(name: str, convolution: Rule, epsilon: Any) -> Composite:
    return _proportional(
        Composite(name)
        .on("layer", rules.Epsilon(epsilon))
        .on("convolution", convolution)
    )


def _shift_passes(composite: Composite) -> Composite:
    """For rules that ignore the input's value: so does its normalisation."""
    return composite.on("shift", rules.Pass(), first=True)


def _flat_first(composite: Composite) -> Composite:
    return _shift_passes(composite).on("layer", rules.Flat(), first=True)


def EpsilonPlus(epsilon: Any = 1e-6) -> Composite:  # noqa: N802
    """z-plus on convolutions, epsilon on dense layers.

    Convolutions: `R_j = sum_i (x+ w+ + x- w-)_ij R_i / s(p_i)`; dense layers:
    `R_j = sum_i x_j w_ij R_i / s(z_i)`; sums and averages in proportion.

    Args:
      epsilon: of the dense layers.

    Source: zennit; Kohlbrenner et al. 2020, "Towards best practice in explaining neural
    network decisions with LRP".

    Examples:
      >>> from jaxlrp import composites, rules
      >>> place = composites.Place("convolution")
      >>> composites.EpsilonPlus().rule(place) == rules.ZPlus()
      True
    """
    return _epsilon_with("EpsilonPlus", rules.ZPlus(), epsilon)


def EpsilonPlusFlat(epsilon: Any = 1e-6) -> Composite:  # noqa: N802
    """`EpsilonPlus` with the flat rule on the first layers.

    First layers: `R_j = sum_i R_i / s(number of inputs of i)`. After a strided
    convolution that draws a checkerboard, which
    `.on("layer", rules.Flat(balanced=True), first=True)` does not.

    Args:
      epsilon: of the dense layers.

    Source: zennit; Lapuschkin et al. 2019, for the flat rule.

    Examples:
      >>> from jaxlrp import composites, rules
      >>> place = composites.Place("dense", first=True)
      >>> composites.EpsilonPlusFlat().rule(place) == rules.Flat()
      True
    """
    return _flat_first(EpsilonPlus(epsilon).named("EpsilonPlusFlat"))


def EpsilonAlpha2Beta1(epsilon: Any = 1e-6) -> Composite:  # noqa: N802
    """alpha 2, beta 1 on convolutions, epsilon on dense layers.

    Convolutions: twice the share of positive contributions minus the share of negative
    ones, `rules.AlphaBeta`; the rest as in `EpsilonPlus`.

    Args:
      epsilon: of the dense layers.

    Source: zennit; Bach et al. 2015, equation 60.

    Examples:
      >>> from jaxlrp import composites, rules
      >>> place = composites.Place("convolution")
      >>> composites.EpsilonAlpha2Beta1().rule(place) == rules.AlphaBeta(2.0, 1.0)
      True
    """
    return _epsilon_with("EpsilonAlpha2Beta1", rules.AlphaBeta(2.0, 1.0), epsilon)


def EpsilonAlpha2Beta1Flat(epsilon: Any = 1e-6) -> Composite:  # noqa: N802
    """`EpsilonAlpha2Beta1` with the flat rule on the first layers.

    Args:
      epsilon: of the dense layers.

    Source: zennit.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.EpsilonAlpha2Beta1Flat()
      >>> composite.rule(composites.Place("convolution", first=True))
      Flat(epsilon=1e-06)
    """
    return _flat_first(EpsilonAlpha2Beta1(epsilon).named("EpsilonAlpha2Beta1Flat"))


def EpsilonGammaBox(  # noqa: N802
    low: Any,
    high: Any,
    epsilon: Any = 1e-6,
    gamma: Any = 0.25,
    *,
    generalized: bool = True,
) -> Composite:
    """Gamma on convolutions, epsilon on dense layers, z-box first.

    A first layer that is a convolution:
    `R_j = sum_i (x_j w_ij - l_j w+_ij - h_j w-_ij) R_i / s(sum_k of the same)`.

    Args:
      low: the smallest value of the input, a scalar or an array that broadcasts to it.
      high: the largest.
      epsilon: of the dense layers.
      gamma: of the convolutions except the first.
      generalized: `GeneralizedGamma`, as in zennit, or the plain `Gamma`, as in
        RelevancePropagation.jl. On nonnegative inputs and positive outputs both agree.

    Source: zennit; Montavon et al. 2019, "Layer-wise Relevance Propagation: an
    overview".

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import composites, rules
      >>> mean, std = jnp.array([0.5, 0.4, 0.4]), jnp.array([0.25, 0.25, 0.25])
      >>> composite = composites.EpsilonGammaBox((0 - mean) / std, (1 - mean) / std)
      >>> place = composites.Place("convolution")
      >>> composite.rule(place) == rules.GeneralizedGamma(0.25)
      True
    """
    flag("generalized", generalized)
    chosen = rules.GeneralizedGamma if generalized else rules.Gamma
    composite = _epsilon_with("EpsilonGammaBox", chosen(gamma), epsilon)
    box = rules.ZBox(low, high)
    return _shift_passes(composite).on("convolution", box, first=True)


def SequentialPresetA(epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """alpha 1, beta 0 on convolutions, epsilon 0.1 on dense layers.

    The conventions are iNNvestigate's: the whole bias in the denominator, exact zeros
    alone are stabilised, sums and averages in proportion.

    Args:
      epsilon: the stabiliser of dense layers, not negative.

    Source: iNNvestigate's `lrp.sequential_preset_a`; Lapuschkin et al. 2017,
    "Understanding and comparing deep neural networks for age and gender
    classification".

    Examples:
      >>> from jaxlrp import composites, rules
      >>> dense = composites.SequentialPresetA().rule(composites.Place("dense"))
      >>> dense == rules.Epsilon(0.1)
      True
    """
    return _sequential("SequentialPresetA", 1.0, epsilon)


def SequentialPresetAFlat(epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """`SequentialPresetA` with the flat rule on the first layers.

    Args:
      epsilon: the stabiliser of dense layers, not negative.

    Source: iNNvestigate's `lrp.sequential_preset_a_flat`.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.SequentialPresetAFlat()
      >>> composite.rule(composites.Place("convolution", first=True))
      Flat(epsilon=1e-07, stabiliser='zeros')
    """
    return _sequential("SequentialPresetAFlat", 1.0, epsilon, flat=1)


def SequentialPresetB(epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """alpha 2, beta 1 on convolutions, epsilon 0.1 on dense layers.

    Args:
      epsilon: the stabiliser of dense layers, not negative.

    Source: iNNvestigate's `lrp.sequential_preset_b`; see `SequentialPresetA`.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.SequentialPresetB()
      >>> composite.rule(composites.Place("convolution"))
      AlphaBeta(alpha=2.0, beta=1.0, epsilon=1e-07, stabiliser='zeros', bias='whole')
    """
    return _sequential("SequentialPresetB", 2.0, epsilon)


def SequentialPresetBFlat(epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """`SequentialPresetB` with the flat rule on the first layers.

    Args:
      epsilon: the stabiliser of dense layers, not negative.

    Source: iNNvestigate's `lrp.sequential_preset_b_flat`.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.SequentialPresetBFlat()
      >>> composite.rule(composites.Place("convolution", first=True))
      Flat(epsilon=1e-07, stabiliser='zeros')
    """
    return _sequential("SequentialPresetBFlat", 2.0, epsilon, flat=1)


def SequentialPresetBFlatUntil(depth: int, epsilon: Any = 0.1) -> Composite:  # noqa: N802
    """`SequentialPresetB` with the flat rule on the layers below a depth.

    Args:
      depth: layers with fewer than `depth` layers before them get the flat rule.
      epsilon: of the dense layers.

    Source: iNNvestigate's `lrp.sequential_preset_b_flat_until_idx`, whose index is that
    of the last of these layers.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.SequentialPresetBFlatUntil(3)
      >>> composite.rule(composites.Place("convolution", depth=2))
      Flat(epsilon=1e-07, stabiliser='zeros')
    """
    return _sequential("SequentialPresetBFlatUntil", 2.0, epsilon, flat=depth)


def _sequential(name: str, alpha: float, epsilon: Any, flat: int = 0) -> Composite:
    zeros: dict[str, Any] = {"epsilon": 1e-7, "stabiliser": "zeros"}
    norm = rules.Norm(**zeros)
    composite = (
        Composite(name)
        .on("layer", rules.Epsilon(epsilon))
        .on("convolution", rules.AlphaBeta(alpha, alpha - 1, bias="whole", **zeros))
        .on("average", norm)
        .on("sum", norm)
    )
    if not flat:
        return composite
    composite = _shift_passes(composite)
    return composite.on("layer", rules.Flat(**zeros), depth=(0, flat))


def DeepTaylor() -> Composite:  # noqa: N802
    """Deep Taylor decomposition of a network of ReLUs.

    All layers, the last one included: z-plus without the bias,
    `R_j = sum_i (x+ w+ + x- w-)_ij R_i / sum_k (x+ w+ + x- w-)_ik`. Sums and averages:
    the gradient, as in iNNvestigate.

    The theory asks for a positive output, and biases that are not positive. For inputs
    without bounds it has w-square in the first layer:
    `.on("layer", rules.WSquare(bias="ignore"), first=True)`.

    Source: Montavon et al. 2017, "Explaining nonlinear classification decisions with
    deep Taylor decomposition"; iNNvestigate's `deep_taylor`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lambda x: jax.nn.relu(x @ w) @ jnp.ones(2)
      >>> explain = jaxlrp.lrp(f, jaxlrp.composites.DeepTaylor(), target="all")
      >>> x = jnp.array([1.0, 2.0])
      >>> bool(jnp.isclose(explain(x).sum(), f(x)))
      True
    """
    return (
        Composite("DeepTaylor")
        .on("layer", rules.ZPlus(bias="ignore"))
        .on("average", rules.Gradient())
        .on("sum", rules.Gradient())
    )


def DeepTaylorBounded(low: Any = -1.0, high: Any = 1.0) -> Composite:  # noqa: N802
    """`DeepTaylor` with the z-box rule on the first layers.

    Args:
      low: the smallest value of the input, a scalar or an array that broadcasts to it.
      high: the largest.

    Source: Montavon et al. 2017; iNNvestigate's `deep_taylor.bounded`.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.DeepTaylorBounded()
      >>> composite.rule(composites.Place("dense", first=True))
      ZBox(low=-1.0, high=1.0)
    """
    composite = _shift_passes(DeepTaylor().named("DeepTaylorBounded"))
    return composite.on("layer", rules.ZBox(low, high), first=True)


def BiLRP(low: Any, high: Any) -> Composite:  # noqa: N802
    """Gamma that falls with depth, for the embeddings of VGG-16 whose product is taken.

    Layers with fewer than 5 layers before them: gamma 0.5; fewer than 8: 0.25; fewer
    than 11: 0.1; LRP-0 above. z-box on a first convolution.

    Args:
      low: the smallest value of the input, a scalar or an array that broadcasts to it.
      high: the largest.

    Source: Eberle et al. 2020, "Building and interpreting deep similarity models", and
    the schedule of its demonstration.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.BiLRP(-1.0, 1.0)
      >>> composite.rule(composites.Place("convolution", depth=6))
      Gamma(gamma=0.25)
    """
    composite = Composite("BiLRP").on("layer", rules.LRP0())
    for gamma, depth in ((0.5, (0, 5)), (0.25, (5, 8)), (0.1, (8, 11))):
        composite = composite.on("layer", rules.Gamma(gamma), depth=depth)
    box = rules.ZBox(low, high)
    return _shift_passes(composite).on("convolution", box, first=True)


def ExcitationBackprop(epsilon: Any = 1e-6) -> Composite:  # noqa: N802
    """z-plus on every layer, the gradient elsewhere.

    `R_j = sum_i x_j w+_ij R_i / s(sum_k x_k w+_ik + b+)`; sums and averages in
    proportion. The gradient of an activation, where LRP passes relevance unchanged,
    stops what lies at units that are off.

    Args:
      epsilon: the stabiliser, not negative.

    Source: Zhang et al. 2016, "Top-down neural attention by excitation backprop", which
    has no biases; with them as in zennit.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.ExcitationBackprop()
      >>> composite.rule(composites.Place("dense"))
      ZPlus(epsilon=1e-06)
    """
    return _proportional(
        _gradients("ExcitationBackprop")
        .on("batch_norm", rules.Merge())
        .on("layer", rules.ZPlus(epsilon))
    )


def _gradients(name: str) -> Composite:
    """Gradients of relevance everywhere."""
    return Composite(name).on("any", rules.Gradient())


def GuidedBackprop() -> Composite:  # noqa: N802
    """Guided backpropagation, not LRP: the gradient, where it and the unit are > 0.

    `R_x = f'(x) max(R_y, 0)` on activations, `R_x = (dy/dx)^T R_y` elsewhere. What is
    propagated is a gradient whose seed is the output's value at the target. It is not
    multiplied by the input and adds up to nothing.

    Source: Springenberg et al. 2015, "Striving for simplicity"; zennit.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lambda x: jax.nn.relu(x @ w).sum()
      >>> explain = jaxlrp.lrp(f, jaxlrp.composites.GuidedBackprop())
      >>> x = jnp.array([1.0, 2.0])
      >>> bool(jnp.allclose(explain(x), f(x) * w[:, 0]))  # the second unit is off
      True
    """
    return _gradients("GuidedBackprop").on("activation", rules.Guided())


def DeconvNet() -> Composite:  # noqa: N802
    """The deconvnet, not LRP: `R_x = max(R_y, 0)` on activations, gradients elsewhere.

    As for `GuidedBackprop`, the seed is the output's value, and the result is not
    multiplied by the input.

    Source: Zeiler and Fergus 2014, "Visualizing and understanding convolutional
    networks"; zennit.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.DeconvNet()
      >>> composite.rule(composites.Place("activation"))
      Deconv()
    """
    return _gradients("DeconvNet").on("activation", rules.Deconv())


def BetaSmooth(beta: Any = 10.0) -> Composite:  # noqa: N802
    """Gradients through softplus for ReLU: `R_x = sigmoid(beta x) R_y`; not LRP.

    As for `GuidedBackprop`, the seed is the output's value, and the result is not
    multiplied by the input.

    Args:
      beta: the softplus's steepness, not negative.

    Source: Dombrowski et al. 2019, "Explanations can be manipulated and geometry is to
    blame"; zennit.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.BetaSmooth()
      >>> composite.rule(composites.Place("activation"))
      BetaSmooth(beta=10.0)
    """
    return _gradients("BetaSmooth").on("activation", rules.BetaSmooth(beta))
