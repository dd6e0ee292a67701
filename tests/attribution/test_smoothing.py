"""SmoothGrad and its relatives, against sums over the same noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import attribution, composites

RNG = np.random.default_rng(2)
W1 = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
W2 = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(5, 4)) * [1, 2, 3, 4], jnp.float32)
KEY = jax.random.key(3)


def mlp(x):
    return jnp.tanh(x @ W1) @ W2


def assert_close(value, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol)


def noise(key, samples, shape):
    """The noise of each sample: the key's documented derivation."""
    for k in jax.random.split(key, samples):
        (leaf,) = jax.random.split(k, 1)
        yield np.asarray(jax.random.normal(leaf, shape))


def gradients(sigma, samples=6):
    classes = mlp(X).argmax(-1)

    def score(x):
        return jnp.take_along_axis(mlp(x), classes[:, None], 1).sum()

    return np.stack(
        [jax.grad(score)(X + sigma * n) for n in noise(KEY, samples, X.shape)]
    )


def test_without_noise_it_is_the_gradient():
    smooth = attribution.smoothgrad(mlp, KEY, sigma=0.0, samples=4)(X)
    assert_close(smooth, attribution.gradient(mlp)(X))


@pytest.mark.always
@pytest.mark.parametrize(
    ("statistic", "wanted"),
    [
        ("mean", lambda g: g.mean(0)),
        ("square", lambda g: (g**2).mean(0)),
        ("variance", lambda g: g.var(0)),
    ],
)
def test_statistics_of_noisy_gradients(statistic, wanted):
    options = {"samples": 6, "sigma": 0.7, "relative": False, "statistic": statistic}
    smooth = attribution.smoothgrad(mlp, KEY, **options)(X)
    assert_close(smooth, wanted(gradients(0.7)))


def test_relative_noise_is_in_units_of_each_examples_range():
    x = np.asarray(X)
    ranges = x.max(1, keepdims=True) - x.min(1, keepdims=True)
    smooth = attribution.smoothgrad(mlp, KEY, samples=6, sigma=0.2)
    assert_close(smooth(X), gradients(0.2 * ranges).mean(0))
    whole = attribution.smoothgrad(mlp, KEY, samples=6, sigma=0.2, batch_ndim=0)
    assert_close(whole(X), gradients(0.2 * (x.max() - x.min())).mean(0))


def test_the_target_is_that_of_the_input_whatever_the_noise():
    smooth = attribution.smoothgrad(mlp, KEY, samples=6, sigma=5.0, relative=False)
    highest = [(mlp(X + 5 * n)).argmax(-1) for n in noise(KEY, 6, X.shape)]
    assert np.any(np.stack(highest) != mlp(X).argmax(-1))  # the noise changes it
    assert_close(smooth(X), gradients(5.0).mean(0))


@pytest.mark.parametrize(
    ("chunk", "statistic"), [(1, "mean"), (5, "mean"), (100, "mean"), (3, "variance")]
)
def test_chunks_do_not_matter(chunk, statistic):
    options = {"samples": 7, "statistic": statistic}
    whole = attribution.smoothgrad(mlp, KEY, chunk=7, **options)(X)
    parts = attribution.smoothgrad(mlp, KEY, chunk=chunk, **options)(X)
    assert_close(parts, whole)


def test_chunks_bound_the_memory():
    x = jnp.zeros((1000, 4))

    def memory(samples):
        smooth = attribution.smoothgrad(mlp, KEY, samples=samples, chunk=2)
        analysis = jax.jit(smooth).lower(x).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert memory(64) < 1.5 * memory(4)


def test_any_method_can_be_smoothed():
    lrp = functools.partial(jaxlrp.lrp, composite=composites.AttnLRP())
    smooth = attribution.smoothgrad(
        mlp, KEY, samples=6, sigma=0.7, relative=False, method=lrp
    )(X)
    classes = mlp(X).argmax(-1)
    each = [lrp(mlp, target=classes)(X + 0.7 * n) for n in noise(KEY, 6, X.shape)]
    assert_close(smooth, np.mean(each, 0))


@pytest.mark.always
def test_smoothed_attributions_keep_the_order_of_argnums():
    def f(x, y):
        return x @ W1 @ W2 + 3 * y @ W1 @ W2

    options = {"samples": 2, "argnums": (1, 0), "target": 0}
    in_y, in_x = attribution.smoothgrad(f, KEY, **options)(X, X)
    assert_close(in_y, 3 * in_x)


def test_examples_of_a_batch_get_different_noise():
    same = jnp.broadcast_to(X[0], X.shape)
    smooth = attribution.smoothgrad(mlp, KEY, samples=2, sigma=0.5)(same)
    assert len(np.unique(np.asarray(smooth)[:, 0])) == len(X)


def test_the_key_may_be_traced_and_differs_by_example_under_vmap():
    keys = jax.random.split(KEY, 5)

    def one(key, x):
        return attribution.smoothgrad(mlp, key, samples=3)(x)

    mapped = jax.jit(jax.vmap(one))(keys, X)
    assert_close(mapped, np.stack([one(k, x) for k, x in zip(keys, X, strict=True)]))


def test_keys_of_the_old_kind_are_keys():
    key = jax.random.PRNGKey(3)
    old = attribution.smoothgrad(mlp, key, samples=5, chunk=2)(X)
    new = attribution.smoothgrad(mlp, jax.random.wrap_key_data(key), samples=5)(X)
    assert_close(old, new)


def test_bad_arguments_are_refused():
    for bad, message in [
        ({"samples": 0}, "samples: got 0, expected an int >= 1"),
        ({"samples": 2.5}, "samples: got 2.5, expected an int >= 1"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"statistic": "median"}, "statistic: got 'median', expected one of mean"),
        ({"method": 1}, "method: got 1, expected a function"),
        ({"batch_ndim": -1}, "batch_ndim: got -1"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message):
            attribution.smoothgrad(mlp, KEY, **bad)
    with pytest.raises(TypeError, match="key: got 0, expected one PRNG key"):
        attribution.smoothgrad(mlp, 0)
    with pytest.raises(TypeError, match=r"key: got shape \(3,\)"):
        attribution.smoothgrad(mlp, jax.random.split(KEY, 3))
    with pytest.raises(ValueError, match="batch_ndim: got 3, expected an int in"):
        attribution.smoothgrad(mlp, KEY, batch_ndim=3)(X)
