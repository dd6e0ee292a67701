"""Composites of the literature for transformers and other sequence models."""

from __future__ import annotations

from typing import Any

from jaxlrp import rules
from jaxlrp._arguments import flag
from jaxlrp.composites._base import Composite


def AttnLRP() -> Composite:  # noqa: N802
    """LRP-0 on layers, softmax by its Taylor expansion, products split evenly.

    Layers: `R_j = sum_i x_j w_ij R_i / z_i`; softmax `y`: `R_x = x (R_y - y sum(R_y))`;
    each factor of a product gets `R / 2`; normalisers are constants.

    Source: Achtibat et al. 2024, "AttnLRP: attention-aware layer-wise relevance
    propagation for transformers"; equal to LXT's efficient implementation.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> x = jnp.array([[1.0, 0.0], [0.5, 2.0]])
      >>> f = lambda x: jax.nn.softmax(x @ x.T) @ x
      >>> jaxlrp.lrp(f, jaxlrp.composites.AttnLRP(), target="all")(x).shape
      (2, 2)
    """
    return Composite("AttnLRP").on("layer", rules.LRP0())


def RelP() -> Composite:  # noqa: N802
    """`AttnLRP` whose attention has JAX's derivative, for patching.

    Normalisers are constants, activations pass relevance unchanged, the factors of an
    elementwise product get half each; softmax and the products of attention keep their
    derivative, `R_v = v (dy/dv)^T (R / y)` for each factor. It does not conserve at
    these. `jaxlrp.patching` multiplies its multipliers with differences of values.

    Source: Rezaei Jafari et al. 2025, "RelP: faithful and efficient circuit discovery
    via relevance patching".

    Examples:
      >>> from jaxlrp import composites
      >>> composites.RelP().rule(composites.Place("bilinear"))
      Taylor()
    """
    return AttnLRP().named("RelP").on("bilinear", rules.Taylor())


def GIM(temperature: Any = 2.0) -> Composite:  # noqa: N802
    """`AttnLRP` with the derivative of a softer softmax, and that of activations.

    Attention weights that are nearly zero or one have next to no derivative, since each
    score is changed alone. That of the softmax at a higher temperature takes its place:
    `c_x = s (c_y - sum(s c_y))` with `s = softmax(x / temperature)`. Products share
    evenly, normalisers are constants, activations have their own derivative.

    Args:
      temperature: of the softmax in the reverse pass alone, a positive number.

    Source: Edin et al. 2025, "GIM: improved interpretability for large language
    models" (gradient interaction modifications).

    Examples:
      >>> from jaxlrp import composites
      >>> composites.GIM(3.0).rule(composites.Place("softmax")).temperature
      3.0
    """
    return (
        AttnLRP()
        .named("GIM")
        .on("softmax", rules.Taylor(temperature=temperature))
        .on("activation", rules.Taylor())
    )


def ResLRP(gamma: Any = 1.0) -> Composite:  # noqa: N802
    """`AttnLRP` with residual sums that do not amplify.

    Sums `c = a + b`: `R_a = g_a a R / (g_a a + g_b b)` with `g_x = 1 + gamma` where `x`
    has the sign of `c`, and 1 elsewhere. A merge passes on at most `1 + 2 / gamma`
    times the relevance's size, however much `a` and `b` cancel.

    Args:
      gamma: of the sums; 0 is `AttnLRP`.

    Source: Berend et al. 2026, "ResLRP".

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> f = lambda x: x["skip"] + x["branch"]
      >>> x = {"skip": jnp.array(3.0), "branch": jnp.array(-2.9)}
      >>> relevance = jaxlrp.lrp(f, jaxlrp.composites.ResLRP(), target="all")(x)
      >>> [round(float(relevance[k]) * 10, 3) for k in ("skip", "branch")]  # of R = 1
      [1.935, -0.935]
    """
    return AttnLRP().named("ResLRP").on("sum", rules.GeneralizedGamma(gamma))


def CPLRP(*, hold_gates: bool = False) -> Composite:  # noqa: N802
    """Conservative propagation: attention weights and normalisers are constants.

    Softmax passes no relevance (`Detach`), and what it weights takes all (`Taylor` on
    bilinear products: `R_v = v (dy/dv)^T (R / y)`). LRP-0 on layers; in elementwise
    products a nonnegative factor is a gate and held, others are split evenly.

    Args:
      hold_gates: a factor that an activation made is a gate, too, as in LLaMA's
        `silu(gate) * up`: `up` takes all.

    Source: Ali et al. 2022, "XAI for transformers: better explanations through
    conservative propagation"; the gates as in LXT.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> def attend(x):  # one query, constant keys
      ...     weights = jax.nn.softmax(x @ jnp.eye(2))
      ...     return weights @ x
      >>> x = jnp.array([1.0, 2.0])
      >>> explain = jaxlrp.lrp(attend, jaxlrp.composites.CPLRP())
      >>> bool(jnp.allclose(explain(x), jax.nn.softmax(x) * x))
      True
    """
    flag("hold_gates", hold_gates)
    return (
        Composite("CPLRP")
        .on("layer", rules.LRP0())
        .on("softmax", rules.Detach())
        .on("bilinear", rules.Taylor())
        .on("product", rules.SignalTakesAll(activations=hold_gates))
    )


def AttnLRPGamma(convolution: Any = 0.25, dense: Any = 0.05) -> Composite:  # noqa: N802
    """`AttnLRP` with generalised gamma on layers, for vision transformers.

    Args:
      convolution: gamma of convolutions, the patch embedding.
      dense: gamma of dense layers.

    Source: Achtibat et al. 2024, appendix on vision transformers, where both are found
    by a grid search: `convolution` in {0.1, 0.25, 100}, `dense` in {0, 0.01, 0.05, 0.1,
    1}.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.AttnLRPGamma()
      >>> composite.rule(composites.Place("convolution"))
      GeneralizedGamma(gamma=0.25)
    """
    return _with_gamma(AttnLRP().named("AttnLRPGamma"), convolution, dense)


def CPLRPGamma(convolution: Any = 0.25, dense: Any = 0.05) -> Composite:  # noqa: N802
    """`CPLRP` with generalised gamma on layers, for vision transformers.

    Args:
      convolution: gamma of convolutions, the patch embedding.
      dense: gamma of dense layers.

    Source: LXT's example for torchvision's ViT; see `AttnLRPGamma`.

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.CPLRPGamma()
      >>> composite.rule(composites.Place("convolution"))
      GeneralizedGamma(gamma=0.25)
    """
    return _with_gamma(CPLRP().named("CPLRPGamma"), convolution, dense)


def _with_gamma(composite: Composite, convolution: Any, dense: Any) -> Composite:
    return composite.on("dense", rules.GeneralizedGamma(dense)).on(
        "convolution", rules.GeneralizedGamma(convolution)
    )


def MambaLRP(coefficients: str | None = None) -> Composite:  # noqa: N802
    """For selective state-space models: what steers the state is constant.

    LRP-0 on layers; activations, SiLU among them, pass relevance unchanged; normalisers
    are constants. Of `h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t`, `y_t = C_t h_t` the
    state `h` and the signal `x` take all (`SignalTakesAll`): step and decay are known
    to be nonnegative, and `B` and `C` are known by their axes, in loops, parallel scans
    and convolutions alike. Products of two signals, such as `y * silu(z)`, are split
    evenly.

    Args:
      coefficients: a glob for the named scopes in which `B`, `C` and the step are
        computed from the input, the model's `x_proj`, where no structure distinguishes
        them from signals: the matrix products of Mamba-2 over chunks, a signal that
        cannot be negative.

    Source: Rezaei Jafari et al. 2024, "MambaLRP: explaining selective state space
    sequence models".

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> def f(u):
      ...     def step(h, u):
      ...         b, c = jnp.array([u.sum(), 1.0]), jnp.array([1.0, u[0]])
      ...         h = 0.5 * h + jnp.outer(u, b)
      ...         return h, h @ c
      ...     return jax.lax.scan(step, jnp.zeros((2, 2)), u)[1][-1]
      >>> u = jnp.array([[1.0, 2.0], [2.0, 1.0]])
      >>> mamba = jaxlrp.composites.MambaLRP()
      >>> jaxlrp.lrp(f, mamba, target="all")(u).round(2).tolist()
      [[2.5, 5.0], [10.0, 5.0]]
    """
    held = rules.SignalTakesAll(coefficients=True)
    composite = (
        Composite("MambaLRP")
        .on("layer", rules.LRP0())
        .on("product", held)
        .on("bilinear", held)
    )
    return composite if coefficients is None else composite.hold(coefficients)


def DynamicLRP(  # noqa: N802
    *, gamma: Any = None, keep: Any = None, softmax: bool = False, epsilon: Any = 1e-11
) -> Composite:
    """Everything is shared by absolute size, biases and constants included.

    Sums and means: `R_k = |x_k| R / (sum_l |x_l| + epsilon)`. On layers the bias keeps
    `|b| / (|W x| + |b|)`, and the rest is shared by the epsilon rule as if there were
    none. Normalisations, batch norms and activations pass relevance unchanged; pooled
    averages share evenly.

    Args:
      gamma: generalised gamma on layers instead of epsilon, or None.
      keep: only this fraction of each layer's relevances is propagated, or None.
      softmax: relevance goes through softmax, by its Taylor expansion; else the
        attention weights are constants.
      epsilon: the stabiliser.

    Source: dynamicLRP (arXiv:2512.07010).

    Examples:
      >>> from jaxlrp import composites
      >>> composite = composites.DynamicLRP()
      >>> composite.rule(composites.Place("sum"))
      Absolute(epsilon=1e-11)
    """
    flag("softmax", softmax)
    layer: Any = rules.Epsilon(epsilon, bias="absolute")
    if gamma is not None:
        layer = rules.GeneralizedGamma(gamma, epsilon=epsilon, bias="absolute")
    if keep is not None:
        layer = rules.TopK(layer, keep)
    absolute = rules.Absolute(epsilon)
    return (
        Composite("DynamicLRP")
        .on("layer", layer)
        .on("batch_norm", rules.Pass())
        .on("average", absolute)
        .on("average", rules.Flat(epsilon), primitive="reduce_window_sum")
        .on("sum", absolute)
        .on("shift", absolute)
        .on("normaliser", rules.Pass())
        .on("softmax", rules.Taylor() if softmax else rules.Detach())
    )
