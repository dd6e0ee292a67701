"""Integrated and expected gradients: completeness, captum's numbers, quadratures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import attribution
from tests.models.networks import golden

RNG = np.random.default_rng(4)
W1 = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
W2 = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
KEY = jax.random.key(5)


def mlp(x):
    return jnp.tanh(x @ W1) @ W2


def highest(x):
    """The logits at the classes that are highest at `X`."""
    return jnp.take_along_axis(mlp(x), mlp(X).argmax(-1)[:, None], 1)[:, 0]


def assert_close(value, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol)


# ---- integrated gradients ----------------------------------------------------------


@pytest.mark.always
@pytest.mark.parametrize("baseline", [0.0, 0.5, np.float32(-1), X[::-1], X[0]])
def test_attributions_add_up_to_what_the_score_gains(baseline):
    explain = attribution.integrated_gradients(mlp, baseline=baseline)
    gain = highest(X) - highest(jnp.broadcast_to(jnp.asarray(baseline), X.shape))
    assert_close(explain(X).sum(-1), gain)


@pytest.mark.always
@pytest.mark.parametrize(
    ("quadrature", "steps", "wanted"),
    [
        # x1^3 x2 along the diagonal: 3 t^3 and t^3, integrated.
        ("gauss-legendre", 2, 1 / 4),
        ("midpoint", 4, sum(((k + 0.5) / 4) ** 3 for k in range(4)) / 4),
        ("trapezoid", 5, (sum((k / 4) ** 3 for k in range(1, 4)) + 0.5) / 4),
        ("left", 4, sum((k / 4) ** 3 for k in range(4)) / 4),
        ("right", 4, sum((k / 4) ** 3 for k in range(1, 5)) / 4),
    ],
)
def test_quadratures_by_hand(quadrature, steps, wanted):
    explain = attribution.integrated_gradients(
        lambda x: x[0] ** 3 * x[1], steps=steps, quadrature=quadrature
    )
    assert_close(explain(jnp.ones(2)), [3 * wanted, wanted])


# captum 0.9.0, IntegratedGradients(n_steps=5, baselines=0.25) on the first example of
# tests/golden/mlp.npz. Its trapezoidal weights add up to 1 - 1 / n_steps.
CAPTUM = {
    "gauss-legendre": (
        [-0.0237507659, -0.0089940981, 0.0024806884]
        + [0.2506514992, 0.0982278961, -0.0529511877]
    ),
    "midpoint": (
        [-0.0221315036, -0.0017238175, 0.0015870138]
        + [0.2028313406, 0.0827291982, -0.0666695342]
    ),
    "left": (
        [-0.0158263537, -0.0190150573, 0.0028887671]
        + [0.2051643948, 0.0743954875, -0.0126769662]
    ),
    "right": (
        [-0.0227091916, 0.0006977384, 0.0014190423]
        + [0.2068953508, 0.0789868269, -0.0608731203]
    ),
    "trapezoid": (
        np.divide(
            [-0.0186195708, -0.0072987253, 0.0019799724]
            + [0.2002083548, 0.0784584657, -0.0418408782],
            1 - 1 / 5,
        )
    ),
}


@pytest.mark.always
@pytest.mark.parametrize("quadrature", CAPTUM)
def test_integrated_gradients_are_those_of_captum(quadrature):
    with jax.enable_x64(True):
        f, params, x = golden.mlp()
        explain = attribution.integrated_gradients(
            f, baseline=0.25, steps=5, quadrature=quadrature
        )
        assert_close(explain(params, x)[0], CAPTUM[quadrature], 1e-7, 1e-10)


@pytest.mark.parametrize("chunk", [1, 4, 99])
def test_chunks_of_steps_do_not_matter(chunk):
    whole = attribution.integrated_gradients(mlp, steps=10, chunk=10)(X)
    assert_close(attribution.integrated_gradients(mlp, steps=10, chunk=chunk)(X), whole)


def test_baselines_may_be_pytrees_and_traced():
    def f(x):
        return mlp(x["a"]) + mlp(2 * x["b"])

    x = {"a": X, "b": X + 1}

    @jax.jit
    def total(x, start):
        explain = attribution.integrated_gradients(f, baseline=start, target=1)
        parts = explain(x)
        return parts["a"].sum(-1) + parts["b"].sum(-1)

    start = {"a": X[0], "b": jnp.float32(0.5)}
    gain = f(x)[:, 1] - f({"a": X[0] + 0 * X, "b": 0.5 + 0 * X})[:, 1]
    assert_close(total(x, start), gain)


def test_baselines_of_several_arguments_are_in_the_order_of_argnums():
    def f(x, y):
        return mlp(x) + mlp(2 * y)

    explain = attribution.integrated_gradients(
        f, baseline=(X[0], 0.5), argnums=(1, 0), target=1
    )
    in_y, in_x = explain(X, X)
    gain = f(X, X)[:, 1] - f(0.5 + 0 * X, X[0] + 0 * X)[:, 1]
    assert_close(in_x.sum(-1) + in_y.sum(-1), gain)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quadrature": "simpson"}, "quadrature: got 'simpson', expected one of gauss"),
        ({"steps": 0}, "steps: got 0, expected an int >= 1"),
        ({"steps": 1, "quadrature": "trapezoid"}, "steps: got 1, expected an int >= 2"),
        ({"baseline": jnp.zeros(3)}, r"baseline: got shape \(3,\) for argument 0"),
        ({"baseline": [0.0]}, "baseline: got the structure .*expected a number or"),
        ({"baseline": "black"}, "baseline: got 'black', expected numbers or arrays"),
        ({"baseline": None}, "baseline: got None, expected numbers or arrays"),
    ],
)
def test_bad_paths_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        attribution.integrated_gradients(mlp, **options)(X)


# ---- expected gradients ------------------------------------------------------------


def draws(samples, count):
    """The documented draws: an example and a place on the way for each input."""
    for key in jax.random.split(KEY, samples):
        which, where, noise = jax.random.split(key, 3)
        index = jax.random.randint(which, (5,), 0, count)
        yield index, jax.random.uniform(where, (5,)), jax.random.normal(noise, X.shape)


@pytest.mark.always
@pytest.mark.parametrize(("sigma", "chunk"), [(0.0, 1), (0.3, 4), (0.3, 6)])
def test_expected_gradients_are_the_mean_over_draws(sigma, chunk):
    background = X[:3] - 1

    wanted = []
    for index, t, noise in draws(6, 3):
        start, end = background[index], X + sigma * noise
        at = start + t[:, None] * (end - start)
        wanted.append((end - start) * jax.grad(lambda x: highest(x).sum())(at))
    explain = attribution.expected_gradients(
        mlp, KEY, background, samples=6, sigma=sigma, chunk=chunk
    )
    assert_close(explain(X), np.mean(wanted, 0))


def test_expected_gradients_of_a_linear_function_are_the_difference_to_the_mean():
    background = jnp.stack([X[0], X[0]])
    explain = attribution.expected_gradients(
        lambda x: x @ W1, KEY, background, samples=2, target=2
    )
    assert_close(explain(X), (X - X[0]) * W1[:, 2])
    assert_close(explain(X[3]), (X[3] - X[0]) * W1[:, 2])


def test_expected_gradients_converge_to_completeness():
    background = X[:2]
    explain = attribution.expected_gradients(mlp, KEY, background, samples=4000)
    means = jnp.stack([highest(jnp.broadcast_to(b, X.shape)) for b in background])
    assert_close(
        jax.jit(explain)(X).sum(-1), highest(X) - means.mean(0), rtol=0, atol=0.1
    )


def test_the_background_of_a_pytree_is_drawn_together():
    def f(x):
        return (x["a"] - x["b"]) @ W1

    # Equal differences everywhere: nothing is left if both come from one example.
    x, background = {"a": X, "b": X}, {"a": X[:3] - 1, "b": X[:3] - 1}
    explain = attribution.expected_gradients(f, KEY, background, samples=4, target=0)
    parts = explain(x)
    assert np.any(parts["a"] != 0)
    assert_close(parts["a"] + parts["b"], 0 * X)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("background", "message"),
    [
        (X[0], r"background: got shape \(4,\) for argument 0 of shape \(5, 4\)"),
        (X[:, :2], r"expected \(count, 4\), with count >= 1"),
        (X[:0], "with count >= 1"),
        ([X], "background: got the structure"),
    ],
)
def test_bad_backgrounds_are_refused(background, message):
    with pytest.raises(ValueError, match=message):
        attribution.expected_gradients(mlp, KEY, background)(X)
