"""What all methods have in common: arguments, targets, results, and errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import attribution

RNG = np.random.default_rng(0)
W1 = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
W2 = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)
KEY = jax.random.key(7)


def mlp(x):
    return jnp.tanh(x @ W1) @ W2


def expected(f, background=X, **options):
    return attribution.expected_gradients(f, KEY, background, samples=3, **options)


METHODS = {
    "gradient": attribution.gradient,
    "gradient_x_input": attribution.gradient_x_input,
    "saliency": attribution.saliency,
    "guided_backprop": attribution.guided_backprop,
    "deconvnet": attribution.deconvnet,
    "smoothgrad": lambda f, **o: attribution.smoothgrad(f, KEY, samples=3, **o),
    "integrated_gradients": functools.partial(
        attribution.integrated_gradients, steps=3
    ),
    "expected_gradients": expected,
    "deep_lift": attribution.deep_lift,
    "occlusion": lambda f, **o: attribution.occlusion(f, (1,), **o),
}
DETERMINISTIC = sorted(set(METHODS) - {"smoothgrad", "expected_gradients"})
each = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
each_deterministic = pytest.mark.parametrize("name", DETERMINISTIC)


def assert_close(value, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol)


@each
def test_attribution_has_the_arguments_shape_and_dtype(method):
    result = method(mlp)(X)
    assert result.shape == X.shape and result.dtype == X.dtype
    assert np.all(np.isfinite(result)) and np.any(result != 0)


@each
def test_jit_changes_nothing(method):
    assert_close(jax.jit(method(mlp))(X), method(mlp)(X))


@each_deterministic
def test_vmap_over_examples_is_the_batch(name):
    method = METHODS[name]
    assert_close(jax.vmap(method(mlp))(X), method(mlp)(X))


@each
def test_auxiliary_data_comes_back_beside_the_attribution(method):
    def f(x):
        return mlp(x), {"name": "hidden", "mean": x.mean()}

    result, aux = method(f, has_aux=True)(X)
    assert_close(result, method(mlp)(X))
    assert aux["name"] == "hidden"
    assert_close(aux["mean"], X.mean())


@each
def test_max_is_the_class_that_is_highest_at_the_input(method):
    classes = mlp(X).argmax(-1)
    assert_close(method(mlp)(X), method(mlp, target=classes)(X))


@each
def test_a_callable_target_gives_the_cotangent(method):
    def second(out):
        return jnp.zeros_like(out).at[:, 1].set(1.0)

    assert_close(method(mlp, target=second)(X), method(mlp, target=1)(X))


@each
def test_all_explains_the_sum_of_the_outputs(method):
    summed = method(lambda x: mlp(x).sum(-1, keepdims=True))(X)
    if method not in (attribution.guided_backprop, attribution.deconvnet):
        assert_close(method(mlp, target="all")(X), summed)
    assert summed.shape == X.shape


@each
def test_targets_of_the_package_set_a_class_against_the_others(method):
    target = jaxlrp.targets.Contrastive("max")

    def contrast(x):
        y = mlp(x)
        classes = mlp(X).argmax(-1)[:, None]
        own = jnp.take_along_axis(y, classes, 1)[:, 0]
        return own - (y.sum(-1) - own) / 2

    if method in (attribution.guided_backprop, attribution.deconvnet):
        seeds = target.multiplier(jax.nn.one_hot(mlp(X).argmax(-1), 3), mlp(X))
        wanted = method(mlp, target=lambda _: seeds)(X)
    else:
        wanted = method(lambda x: contrast(x)[:, None])(X)
    assert_close(method(mlp, target=target)(X), wanted)


@each_deterministic
def test_several_arguments_and_pytrees_keep_their_form(name):
    def f(scale, x, *, shift):
        return (x["a"] * scale[0]) @ W1 @ W2 + (x["b"] @ W1 + shift) @ W2

    x = {"a": X, "b": X[::-1] + 1}
    scale = [jnp.full((5, 1), 2.0)]
    method = METHODS[name]
    explain = method(f, argnums=(1, 0), target=1)
    in_x, in_scale = explain(scale, x, shift=jnp.ones(6))
    assert jax.tree.structure(in_x) == jax.tree.structure(x)
    assert jax.tree.structure(in_scale) == jax.tree.structure(scale)
    assert in_scale[0].shape == (5, 1)
    alone = method(f, argnums=1, target=1)(scale, x, shift=jnp.ones(6))
    if name not in ("integrated_gradients", "deep_lift"):  # which move both together
        assert_close(in_x["a"], alone["a"])
    assert_close(in_x["b"], alone["b"])


@each
def test_low_precision_inputs_get_attributions_of_their_dtype(method):
    low = X.astype(jnp.bfloat16)
    if method is expected:
        method = functools.partial(expected, background=low)
    result = method(lambda x: jnp.tanh(x @ W1.astype(x.dtype)) @ W2)(low)
    assert result.dtype == jnp.bfloat16
    assert np.all(np.isfinite(result.astype(jnp.float32)))


@pytest.mark.parametrize(
    "name", ["gradient", "smoothgrad", "integrated_gradients", "occlusion"]
)
def test_attributions_can_be_differentiated(name):
    explain = METHODS[name](mlp, target=1)

    def loss(x):
        return (explain(x) ** 2).sum()

    step = jnp.zeros_like(X).at[2, 1].set(1e-2)
    numeric = (loss(X + step) - loss(X - step)) / 2e-2
    assert_close(jax.grad(loss)(X)[2, 1], numeric, rtol=2e-2, atol=1e-3)


@each
def test_bad_arguments_are_refused(method):
    with pytest.raises(TypeError, match="f: got 3, expected a function"):
        method(3)
    with pytest.raises(ValueError, match="target: got 'best', expected 'max'"):
        method(mlp, target="best")
    with pytest.raises(TypeError, match="argnums: got 'x', expected an int"):
        method(mlp, argnums="x")
    with pytest.raises(ValueError, match="argnums: got 2, but f was called with 1"):
        method(mlp, argnums=2)(X)
    with pytest.raises(TypeError, match="argument 0 is attributed: got dtype int32"):
        method(mlp)(jnp.ones((5, 4), jnp.int32))
    with pytest.raises(ValueError, match="target: got 5, expected classes"):
        method(mlp, target=5)(X)
    with pytest.raises(TypeError, match="has_aux=True: f returned .*, expected a pair"):
        method(mlp, has_aux=True)(X)
    with pytest.raises(TypeError, match="its output has no floating-point leaf"):
        method(lambda x: mlp(x) > 0, target="all")(X)
