"""The conventions on which libraries differ: stabilisers, and what biases do."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from tests.rules.test_layer import conv, draw

X = np.array([1.0, -2.0, 0.5, 0.0])
W = np.array([[0.5, -1.0, 2.0, 0.3], [-1.5, 0.25, 1.0, -0.2]])
B = np.array([0.3, -0.4])
R = np.array([2.0, 1.0])


def explain(rule, x=X, w=W, b=B, r=R):
    """The relevance of a dense layer, in float64."""
    with jax.enable_x64(True):
        x, w, b = jnp.asarray(x), jnp.asarray(w), jnp.asarray(b)
        _, pull = jaxlrp.relprop(
            lambda x: w @ x + b, x, composite=composites.Uniform(rule)
        )
        return np.asarray(pull(jnp.asarray(r)))


def plus(v):
    return np.maximum(v, 0)


def minus(v):
    return np.minimum(v, 0)


# ---- stabilisers ---------------------------------------------------------------------

FORMS = {
    "sign": lambda z, e: z + e * np.where(z >= 0, 1, -1),
    "plain": lambda z, e: z + e,
    "clip": lambda z, e: np.where(z >= 0, 1, -1) * np.maximum(np.abs(z), e),
    "zeros": lambda z, e: np.where(z == 0, e, z),
}


@pytest.mark.whole
@pytest.mark.parametrize("form", FORMS)
def test_forms_of_the_stabiliser(form):
    stabilised = FORMS[form]
    found = explain(rules.Epsilon(2.5, stabiliser=form))
    expected = X * (W.T @ (R / stabilised(W @ X + B, 2.5)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.whole
@pytest.mark.parametrize("form", FORMS)
def test_an_output_of_zero_hands_on_what_the_stabiliser_says(form):
    """`z = 0` of contributions 1 and -1: `R / s(0)` times each."""
    rule = rules.Epsilon(0.5, stabiliser=form)
    found = explain(rule, np.array([1.0, -1.0]), np.ones((1, 2)), np.zeros(1), [3.0])
    expected = np.array([1.0, -1.0]) * 3.0 / FORMS[form](np.zeros(1), 0.5)
    np.testing.assert_allclose(found, expected)


def test_relative_epsilon_is_an_option_of_every_rule():
    p = plus(W) @ plus(X) + minus(W) @ minus(X) + plus(B)
    scale = 0.1 * np.sqrt((p**2).mean())
    found = explain(rules.ZPlus(0.1, relative=True))
    u = R / (p + scale)
    expected = plus(X) * (plus(W).T @ u) + minus(X) * (minus(W).T @ u)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_relative_epsilon_is_that_of_each_example():
    """One whose numbers are large does not stabilise another one's."""
    x, r = np.stack([X, 1000.0 * X]), np.stack([R, R])
    rule = rules.Epsilon(0.5, relative=True)
    with jax.enable_x64(True):
        _, pull = jaxlrp.relprop(
            lambda x: x @ W.T + B, jnp.asarray(x), composite=composites.Uniform(rule)
        )
        found = pull(jnp.asarray(r))
        f = lambda x: x @ W.T + B  # noqa: E731
        whole = jaxlrp.lrp(f, composites.Uniform(rule), target="all")(jnp.asarray(x))
    for one, part, with_value in zip(x, found, whole, strict=True):
        np.testing.assert_allclose(part, explain(rule, one), rtol=1e-12)
        value = explain(rule, one, r=W @ one + B)
        np.testing.assert_allclose(with_value, value, rtol=1e-12)


def test_unknown_conventions_are_named():
    with pytest.raises(ValueError, match="stabiliser: got 'soft'.*'sign'"):
        rules.Epsilon(stabiliser="soft")
    with pytest.raises(ValueError, match="bias: got 'keep' for Gamma.*'absorb'"):
        rules.Gamma(bias="keep")
    with pytest.raises(ValueError, match="ties"):
        rules.WinnerTakesAll(ties="last")


# ---- biases --------------------------------------------------------------------------


def parts(rule, x=X, w=W, b=B):
    """(positive matrix, its carrier, bias part, factor) of the rule's parts, in NumPy.

    A part's contributions are `C_ij = sum over pairs (matrix, carrier)`.
    """
    outer = w * x
    if isinstance(rule, rules.Epsilon):
        return [(outer, b, np.ones(len(b)))]
    if isinstance(rule, rules.Gamma):
        g = rule.gamma
        return [((w + g * plus(w)) * x, b + g * plus(b), np.ones(len(b)))]
    if isinstance(rule, rules.GeneralizedGamma):
        g, z = rule.gamma, w @ x + b * (rule.bias != "absolute")
        return [
            (outer + g * plus(outer), b + g * plus(b), (z > 0) * 1.0),
            (outer + g * minus(outer), b + g * minus(b), (z < 0) * 1.0),
        ]
    if isinstance(rule, rules.AlphaBeta):
        alpha, beta = np.full(len(b), rule.alpha), np.full(len(b), rule.beta)
        return [(plus(outer), plus(b), alpha), (minus(outer), minus(b), -beta)]
    if isinstance(rule, rules.ZPlus):
        one = np.ones(len(b))
        return [(plus(outer) if rule.split else plus(w) * x, plus(b), one)]
    return [(w**2, b**2, np.ones(len(b)))]


def expected(rule, x=X, w=W, b=B, r=R):
    total = np.zeros(len(x))
    for contributions, changed, factor in parts(rule, x, w, b):
        z = contributions.sum(1)
        part = factor * r
        if rule.bias == "absolute":
            own = np.abs(w @ x)
            part = part * own / (own + np.abs(b))
        else:
            other = {"absorb": changed, "share": changed, "whole": b}
            z = z + other.get(rule.bias, 0.0)
        s = z + 1e-6 * np.where(z >= 0, 1, -1)
        total = total + contributions.T @ (part / s)
        if rule.bias == "share":
            rest = part * (1 - contributions.sum(1) / s)
            total = total + rest.sum() / len(x)
    return total


KINDS = {
    "epsilon": rules.Epsilon,
    "gamma": rules.Gamma,
    "generalised gamma": rules.GeneralizedGamma,
    "alpha-beta": rules.AlphaBeta,
    "z-plus": rules.ZPlus,
    "w-square": rules.WSquare,
}


@pytest.mark.whole
@pytest.mark.parametrize("bias", rules.BIASES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_a_bias_does(kind, bias):
    rule = KINDS[kind](bias=bias)
    np.testing.assert_allclose(explain(rule), expected(rule), rtol=1e-5, atol=1e-9)


@pytest.mark.whole
@pytest.mark.parametrize("bias", ["absorb", "whole", "ignore"])
def test_unsplit_z_plus(bias):
    rule = rules.ZPlus(split=False, bias=bias)
    np.testing.assert_allclose(explain(rule), expected(rule), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_handed_back_makes_the_rule_conserve(kind):
    """Exactly, whatever the stabiliser, on a dense layer and a padded convolution."""
    rule = KINDS[kind](bias="share", epsilon=0.3)
    np.testing.assert_allclose(explain(rule).sum(), R.sum(), rtol=1e-12)
    with jax.enable_x64(True):
        x, w, b = draw(1, 2, 5, 5), draw(3, 2, 3, 3), draw(3)[:, None, None]
        composite = composites.Uniform(rule)
        y, pull = jaxlrp.relprop(lambda x: conv(x, w) + b, x, composite=composite)
        r = draw(*y.shape, seed=3)
        np.testing.assert_allclose(pull(r).sum(), r.sum(), rtol=1e-10)


@pytest.mark.always
def test_what_a_stabiliser_keeps_is_handed_back_whatever_its_form():
    """Large epsilons, on outputs of both signs."""
    b = np.array([0.3, 0.9])
    sizes = itertools.product(("epsilon", "alpha-beta", "w-square"), FORMS, (0.5, 4.0))
    for kind, form, size in sizes:
        rule = KINDS[kind](bias="share", epsilon=size, stabiliser=form)
        wanted = np.zeros(len(X))
        for contributions, changed, factor in parts(rule, b=b):
            total, part = contributions.sum(1), factor * R
            s = FORMS[form](total + changed, size)
            wanted += contributions.T @ (part / s)
            wanted += (part * (1 - total / s)).sum() / len(X)
        found = explain(rule, b=b)
        np.testing.assert_allclose(found, wanted, rtol=1e-9)
        np.testing.assert_allclose(found.sum(), R.sum(), rtol=1e-9)


def test_alpha_beta_conserves_where_one_sign_is_missing_if_it_hands_back():
    """`alpha - beta = 1`, though nothing is negative here."""
    x, w = np.array([1.0, 2.0]), np.array([[1.0, 0.5]])
    lost = explain(rules.AlphaBeta(), x, w, np.zeros(1), np.ones(1))
    kept = explain(rules.AlphaBeta(bias="share"), x, w, np.zeros(1), np.ones(1))
    np.testing.assert_allclose(lost.sum(), 2.0, rtol=1e-5)
    np.testing.assert_allclose(kept.sum(), 1.0, rtol=1e-12)


def test_a_mean_without_bias_takes_the_options():
    x = jnp.array([1.0, 2.0, -1.0])
    for bias in rules.BIASES:
        composite = composites.AttnLRP().on("average", rules.Epsilon(0.0, bias=bias))
        found = jaxlrp.lrp(jnp.mean, composite, target="all")(x)
        np.testing.assert_allclose(found, x / 3, rtol=1e-6)


def test_alpha_and_beta_must_differ_by_one():
    for alpha, beta in ((2.0, 0.5), (1.0, 0.5)):
        message = rf"alpha, beta: got {alpha} and {beta}, expected"
        with pytest.raises(ValueError, match=message):
            rules.AlphaBeta(alpha, beta)
    jax.vmap(lambda a: explain_traced(rules.AlphaBeta(a, a - 1)))(jnp.array([1.0, 2.0]))


def explain_traced(rule):
    return jaxlrp.lrp(lambda x: jnp.asarray(W) @ x, composites.Uniform(rule))(
        jnp.asarray(X)
    )


def test_options_are_shown_where_they_are_no_defaults():
    assert repr(rules.Epsilon()) == "Epsilon(epsilon=1e-06)"
    assert repr(rules.Gamma(0.1, bias="ignore")) == "Gamma(gamma=0.1, bias='ignore')"


def test_numbers_and_flags_are_checked_where_they_are_given():
    with pytest.raises(ValueError, match="epsilon: got -1.0 .*for Flat"):
        rules.Flat(-1.0)
    for kind, name in (
        (rules.Gamma, "gamma"),
        (rules.GeneralizedGamma, "gamma"),
        (rules.ZPlus, "epsilon"),
        (rules.BetaSmooth, "beta"),
        (rules.Taylor, "epsilon"),
        (rules.Taylor, "temperature"),
    ):
        with pytest.raises(ValueError, match=f"{name}: got -1.0 .*for {kind.__name__}"):
            kind(**{name: -1.0})
    with pytest.raises(ValueError, match="relative: got 'yes'"):
        rules.Epsilon(relative="yes")
    # Trees of anything may be made of a rule, as vmap's in_axes.
    axes = jax.tree.map(lambda _: 0, rules.AlphaBeta())
    assert (axes.alpha, axes.beta, axes.epsilon) == (0, 0, 0)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree.leaves_with_path(axes)]
    assert paths == [".epsilon", ".alpha", ".beta"]


@pytest.mark.always
def test_biases_of_wide_layers():
    """Parts of the sum are differences there: the formulas are the same."""
    rng = np.random.default_rng(0)
    x, w, r = rng.normal(size=70), rng.normal(size=(3, 70)), rng.normal(size=3)
    b = np.array([0.5, -0.4, 40.0])
    for kind, bias in itertools.product(("alpha-beta", "z-plus"), rules.BIASES):
        for x_ in (x, np.abs(x)):
            rule = KINDS[kind](bias=bias)
            found = explain(rule, x_, w, b, r)
            wanted = expected(rule, x_, w, b, r)
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.always
def test_an_average_with_a_negative_factor_is_a_layer_of_such_weights():
    x = jnp.asarray(X)
    for kind in ("gamma", "generalised gamma", "z-plus", "alpha-beta"):
        rule = KINDS[kind]()
        with jax.enable_x64(True):
            average = composites.AttnLRP().on("average", rule)
            found = jaxlrp.lrp(lambda x: -x.mean(), average, target="all")(x)
            w, r = np.full((1, 4), -0.25), np.array([-X.mean()])
            layer = explain(rule, w=w, b=np.zeros(1), r=r)
        np.testing.assert_allclose(found, layer, rtol=1e-6)


def test_a_bias_that_turns_the_sign_of_an_output():
    b = np.array([-9.0, 9.0])
    assert (np.sign(W @ X + b) == -np.sign(W @ X)).all()
    for kind, bias in itertools.product(KINDS, ("absorb", "whole", "absolute")):
        rule = KINDS[kind](bias=bias)
        found, wanted = explain(rule, b=b), expected(rule, b=b)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-9)


@pytest.mark.always
def test_what_a_layer_is_subtracted_from_is_its_bias():
    x, b = jnp.asarray(X), jnp.asarray(B)
    for kind, bias in itertools.product(KINDS, ("absorb", "ignore", "absolute")):
        rule = KINDS[kind](bias=bias)
        with jax.enable_x64(True):
            w = jnp.asarray(W, jnp.float64)
            f = lambda x, w=w: b.astype(x.dtype) - w @ x  # noqa: E731
            _, pull = jaxlrp.relprop(
                f, x.astype(float), composite=composites.Uniform(rule)
            )
            found = pull(jnp.asarray(R))
        np.testing.assert_allclose(found, expected(rule, w=-W), rtol=1e-5, atol=1e-9)
