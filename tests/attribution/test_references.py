"""DeepLIFT: completeness step by step, captum's numbers, control flow, decisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxlrp import attribution
from jaxlrp.errors import UnexplainedPrimitiveError
from tests.models.networks import golden
from tests.test_programs import PROGRAMS

RNG = np.random.default_rng(3)
W = RNG.normal(size=(6, 6))
X, X0 = RNG.normal(size=(2, 4, 6))


def explained(f, baseline=X0, **options):
    return jax.jit(attribution.deep_lift(f, baseline=baseline, target="all", **options))


def assert_complete(f, x=X, baseline=X0):
    """The attributions add up to what the score gains on the way from the baseline."""
    with jax.enable_x64(True):
        x, baseline = jnp.asarray(x, jnp.float64), jnp.asarray(baseline, jnp.float64)
        found = explained(f, baseline)(x)
        gain = jnp.sum(f(x)) - jnp.sum(f(baseline))
        assert np.abs(gain) > 1e-3
        np.testing.assert_allclose(found.sum(), gain, rtol=1e-9, atol=1e-10)
        return found


def attention(x):
    scores = jnp.where(jnp.tril(jnp.ones((4, 4), bool)), x @ W @ x.T, -jnp.inf)
    h = x + jax.nn.softmax(scores) @ x
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-6)
    return jax.nn.gelu(h @ W) * jax.nn.sigmoid(h) / (1 + (h**2).sum())


def block(x):
    return jnp.tanh(x @ W) * jax.nn.silu(x)


def three_blocks(x):
    return block(block(block(x)))


CHOICES = {
    "maximum of an axis": lambda x: x.max(-1),
    "minimum of an axis": lambda x: x.min(0),
    "larger of two": lambda x: jnp.maximum(x, 2 * x[::-1]),
    "max pooling": lambda x: lax.reduce_window(
        x, -jnp.inf, lax.max, (2, 2), (2, 1), "VALID"
    ),
    "highest of all": lambda x: lax.top_k(x, 3)[0][:, 0],
    "clipped by another": lambda x: jnp.clip(x, x[::-1] - 0.5, 0.4),
}
LOOPS = {
    "scan": lambda x: lax.scan(lambda c, _: (block(c), None), x, length=3)[0],
    "while": lambda x: lax.while_loop(
        lambda s: s[0] < 3, lambda s: (s[0] + 1, block(s[1])), (0, x)
    )[1],
    "remat": jax.checkpoint(three_blocks),
    "branch": lambda x: lax.cond(x[0, 0] > 9, jnp.sin, three_blocks, x),
    "jit": jax.jit(three_blocks),
}
SMOOTH = (
    ["norm", "linear solve", "associative scan", "Fourier layer", "spectrum"]
    + ["complex rotation", "product over an axis", "running product", "Hessian"]
    + ["switch", "largest of segments", "convolution with itself", "resized"]
)


@pytest.mark.always
@pytest.mark.parametrize(
    "f", [attention, *CHOICES.values()], ids=["attention", *CHOICES]
)
def test_attributions_add_up_to_what_the_score_gains(f):
    assert_complete(f)


@pytest.mark.parametrize("name", SMOOTH)
def test_programs_of_all_kinds_are_complete(name):
    assert_complete(PROGRAMS[name])


def test_a_baseline_of_zeros_has_no_variance_and_does_not_hurt():
    assert_complete(attention, baseline=np.zeros_like(X))


@pytest.mark.parametrize("name", LOOPS)
def test_loops_calls_and_branches_are_as_if_written_out(name):
    found = assert_complete(LOOPS[name])
    with jax.enable_x64(True):
        np.testing.assert_allclose(found, explained(three_blocks)(X), rtol=1e-7)


def test_a_quadratic_form_has_the_integrated_gradients():
    f = lambda x: (x @ W * x).sum(-1)  # noqa: E731
    with jax.enable_x64(True):
        path = attribution.integrated_gradients(f, baseline=X0, steps=2, target="all")
        np.testing.assert_allclose(explained(f)(X), path(X), rtol=1e-10)


def test_rectified_layers_have_captums_numbers():
    """captum 0.9.0, DeepLift(baselines=0.25), first example of golden/mlp.npz."""
    theirs = [-0.01587753, -0.02539589, 0.00269868, 0.21445601, 0.1044981, -0.05070891]
    with jax.enable_x64(True):
        f, params, x = golden.mlp()
        found = attribution.deep_lift(f, baseline=0.25)(params, x)[0]
        np.testing.assert_allclose(found, theirs, atol=1e-8)


def test_the_winner_of_now_gets_what_a_maximum_gains_and_the_one_before_what_it_loses():
    f = lambda x: x.max()  # noqa: E731
    gains = attribution.deep_lift(f, baseline=jnp.array([2.0, 0.0]))(
        jnp.array([1.0, 3.0])
    )
    loses = attribution.deep_lift(f, baseline=jnp.array([1.0, 3.0]))(
        jnp.array([2.0, 0.0])
    )
    np.testing.assert_allclose(gains, [0.0, 1.0])
    np.testing.assert_allclose(loses, [0.0, -1.0])


def test_where_the_input_is_the_baseline_the_multiplier_is_the_derivative():
    with jax.enable_x64(True):
        x = jnp.asarray(X)
        near = x.at[0].add(1e-7)
        found = explained(attention, near)(x)
        slope = jax.grad(lambda x: attention(x).sum())(x)
        np.testing.assert_allclose(found, slope * (x - near), rtol=1e-4, atol=1e-14)
        assert (np.asarray(found)[1:] == 0).all()


def test_what_decides_is_that_of_the_input():
    def f(x):
        return x[jnp.argmax(x)] ** 2 + lax.stop_gradient(x[0]) * x[1]

    x, x0 = jnp.array([1.0, 3.0]), jnp.array([2.0, 0.0])
    np.testing.assert_allclose(
        attribution.deep_lift(f, baseline=x0)(x), [0.0, 9.0 + 1.0 * 3.0]
    )


def test_deep_shap_is_the_mean_over_baselines_by_vmap():
    with jax.enable_x64(True):
        baselines = jnp.asarray(RNG.normal(size=(3, 4, 6)))

        @jax.jit
        def one(b):
            return attribution.deep_lift(attention, baseline=b, target="all")(X)

        mean = jax.jit(lambda bs: jax.vmap(one)(bs).mean(0))(baselines)
        np.testing.assert_allclose(mean, np.mean([one(b) for b in baselines], 0))


def test_a_while_loop_with_effects_is_refused():
    def f(x):
        def body(s):
            jax.debug.print("{}", s[0])
            return s[0] + 1, jnp.sin(s[1])

        return lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1]

    with pytest.raises(UnexplainedPrimitiveError, match=r"while loop at .*effects"):
        attribution.deep_lift(f, target="all")(jnp.ones(2))
