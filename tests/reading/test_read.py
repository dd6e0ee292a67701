"""Roles are recovered from structure, however a network is written."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

ATTN_LRP = composites.AttnLRP()


def draw(*shape, seed=0):
    """Numbers of both signs, none close to zero: Float[Array, '*shape']."""
    rng = np.random.default_rng([seed, *shape])
    values = rng.uniform(0.2, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
    return jnp.asarray(values)


IDLE = ("structural", "detached", "inactive")


def roles(f, *args, composite=None, argnums=-1, skip=IDLE):
    """The roles of a function's steps, in order."""
    plan = jaxlrp.plan(f, composite, argnums)(*args)
    assert plan.coverage == 1.0
    return [row.role for row in plan.rows if row.role not in skip]


def lrp0(f, *args, **options):
    return jaxlrp.lrp(f, ATTN_LRP, target="all", **options)(*args)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# ---- layers --------------------------------------------------------------------------


def test_positional_embedding_is_no_bias():
    x, w, position = draw(2, 3, 4), draw(4, 5), draw(3, 5)
    f = lambda x: x @ w + position  # noqa: E731
    assert roles(f, x) == ["dense", "shift"]
    np.testing.assert_allclose(lrp0(f, x), x * w.sum(1))
    audit = jaxlrp.audit(f, ATTN_LRP, target="all")(x)
    np.testing.assert_allclose(audit.absorbed["constants"], 2 * position.sum())


def test_factor_that_varies_over_positions_is_no_part_of_the_layer():
    x, w, mask = draw(2, 3, 4), draw(4, 5), draw(3, 1)
    f = lambda x: (x @ w) * mask  # noqa: E731
    assert roles(f, x) == ["dense", "scale"]
    found = jaxlrp.lrp(f, composites.Uniform(rules.Epsilon(0.1)), target="all")(x)
    z = np.asarray(x @ w)
    expected = x * ((np.asarray(mask) * z / (z + 0.1 * np.sign(z))) @ np.asarray(w).T)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_shared_weights_are_layers_each_time():
    x, w = draw(2, 4), draw(4, 4)
    f = lambda x: jnp.tanh(x @ w) @ w.T  # noqa: E731
    assert roles(f, x) == ["dense", "activation", "dense"]
    np.testing.assert_allclose(lrp0(f, x).sum(), f(x).sum())


def test_layer_whose_output_is_used_twice_ends_there():
    x, w, b = draw(2, 4), draw(4, 4), draw(4)

    def f(x):
        h = x @ w
        return jnp.tanh(h + b) @ w + h

    assert roles(f, x) == ["dense", "shift", "activation", "dense", "sum"]
    h = x @ w
    passed = (jnp.tanh(h + b) * w.sum(1) * h / (h + b)).sum()
    np.testing.assert_allclose(lrp0(f, x).sum(), h.sum() + passed)


def test_weights_made_from_weights_are_no_step():
    """Weight standardisation concerns the kernel, which is not explained."""
    x, w, gain = draw(2, 4), draw(4, 3), draw(3)

    def f(x):
        standard = (w - w.mean(0)) * lax.rsqrt(w.var(0) + 1e-6) * gain
        return x @ standard

    assert roles(f, x) == ["dense"]
    np.testing.assert_allclose(lrp0(f, x).sum(), f(x).sum())


def test_weight_standardisation_of_explained_weights_is_a_normaliser():
    x, w = draw(2, 4), draw(4, 3)

    def f(w):
        centred = w - w.mean(0)
        return x @ (centred * lax.rsqrt((centred**2).mean(0) + 1e-6))

    assert "normaliser" in roles(f, w) and "product" not in roles(f, w)
    np.testing.assert_allclose(lrp0(f, w).sum(), f(w).sum(), rtol=1e-9)


def batch_norm_by_hand(h, mean, var, scale, bias):
    return (h - mean) / jnp.sqrt(var + 1e-5) * scale + bias


def batch_norm_folded(h, mean, var, scale, bias):
    factor = scale * lax.rsqrt(var + 1e-5)
    return h * factor + (bias - mean * factor)


def batch_norm_as_flax(h, mean, var, scale, bias):
    shape = (1,) * (h.ndim - 1) + (-1,)
    y = h - mean.reshape(shape)
    factor = lax.rsqrt(var.reshape(shape) + 1e-5) * scale.reshape(shape)
    return y * factor + bias.reshape(shape)


BATCH_NORMS = [batch_norm_by_hand, batch_norm_folded, batch_norm_as_flax]


@pytest.mark.parametrize("norm", BATCH_NORMS)
def test_batch_norm_is_folded_into_its_convolution(norm):
    x, w = draw(2, 4, 4, 2), draw(3, 3, 2, 3)
    mean, scale, bias = (draw(3, seed=k) for k in (1, 2, 3))
    var = jnp.abs(draw(3, seed=4))
    numbers = ("NHWC", "HWIO", "NHWC")

    def conv(x, w):
        return lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=numbers)

    f = lambda x: norm(conv(x, w), mean, var, scale, bias)  # noqa: E731
    assert roles(f, x) == ["convolution"]
    factor = scale / jnp.sqrt(var + 1e-5)
    merged = lambda x: conv(x, w * factor) + (bias - mean * factor)  # noqa: E731
    for rule in (rules.ZPlus(), rules.GeneralizedGamma(0.3), rules.WSquare()):
        found, expected = (
            jaxlrp.lrp(g, composites.Uniform(rule))(x) for g in (f, merged)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_flax_batch_norm_is_folded_into_its_layer():
    class Linen(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(3, (3, 3))(x)
            return linen.BatchNorm(use_running_average=True)(x)

    x = draw(1, 4, 4, 2).astype("float32")
    variables = Linen().init(jax.random.key(0), x)
    assert roles(Linen().apply, variables, x) == ["convolution"]
    layers = (
        nnx.Conv(2, 3, (3, 3), rngs=nnx.Rngs(0)),
        nnx.BatchNorm(3, use_running_average=True, rngs=nnx.Rngs(0)),
    )
    assert roles(lambda x: layers[1](layers[0](x)), x) == ["convolution"]


def test_integer_weights_are_a_kernel():
    x = draw(2, 4).astype("float32")
    w = jnp.arange(-6, 6, dtype=jnp.int8).reshape(4, 3)
    scale = draw(3).astype("float32")
    f = lambda x: (x @ w.astype("float32")) * scale  # noqa: E731
    assert roles(f, x) == ["dense"]
    explain = jaxlrp.lrp(f, composites.Uniform(rules.ZPlus()))
    assert np.isfinite(explain(x)).all()


# ---- first layers --------------------------------------------------------------------


def firsts(f, *args, argnums=-1):
    """For each layer in order: is it a first one?"""
    marked = composites.Uniform(rules.LRP0()).on("layer", rules.Flat(), first=True)
    plan = jaxlrp.plan(f, marked, argnums)(*args)
    layers = ("dense", "convolution")
    return ["Flat" in row.rule for row in plan.rows if row.role in layers]


def test_first_layer_is_found_in_the_graph():
    x, w = draw(2, 4), draw(4, 4)
    assert firsts(lambda x: jnp.tanh(jnp.sin(x) @ w) @ w, x) == [True, False]


def test_every_branch_from_the_input_has_a_first_layer():
    x, w = draw(2, 4), draw(4, 4)
    f = lambda x: (jnp.tanh(x @ w) + jnp.tanh((2 * x) @ w)) @ w  # noqa: E731
    assert firsts(f, x) == [True, True, False]


def test_two_inputs_have_a_first_layer_each():
    a, b, w = draw(2, 4), draw(2, 4, seed=1), draw(4, 4)
    f = lambda a, b: jnp.tanh(jnp.tanh(a @ w) @ w + b @ w) @ w  # noqa: E731
    assert firsts(f, a, b, argnums=(0, 1)) == [True, False, True, False]
    assert firsts(f, a, b, argnums=0) == [True, False, False]


def test_first_layer_inside_a_scan_is_that_of_the_input():
    xs, w, u = draw(5, 2, 3), draw(3, 4), draw(4, 4)

    def f(xs):
        def step(h, x):
            h = jnp.tanh(x @ w + h @ u)
            return h, None

        return lax.scan(step, jnp.zeros((2, 4)), xs)[0]

    assert firsts(f, xs) == [True, False]


# ---- activations ---------------------------------------------------------------------


def gelu_tanh(x):
    return 0.5 * x * (1 + jnp.tanh(jnp.sqrt(2 / jnp.pi) * (x + 0.044715 * x**3)))


def gelu_erf(x):
    return x * 0.5 * (1.0 + lax.erf(x / np.sqrt(2.0)))


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "relu by maximum": lambda x: jnp.maximum(x, 0),
    "relu by maximum, swapped": lambda x: jnp.maximum(0.0, x),
    "relu by an array of zeros": lambda x: jnp.maximum(x, jnp.zeros_like(x)),
    "relu by where": lambda x: jnp.where(x > 0, x, 0.0),
    "relu by clip": lambda x: jnp.clip(x, 0),
    "relu by a product": lambda x: x * (x > 0),
    "relu by abs": lambda x: (x + jnp.abs(x)) / 2,
    "relu6": jax.nn.relu6,
    "relu6 by clip": lambda x: jnp.clip(x, 0, 6),
    "relu6 by minimum": lambda x: jnp.minimum(jnp.maximum(x, 0), 6),
    "leaky relu": jax.nn.leaky_relu,
    "leaky relu by maximum": lambda x: jnp.maximum(x, 0.01 * x),
    "leaky relu by two": lambda x: jax.nn.relu(x) - 0.1 * jax.nn.relu(-x),
    "elu": jax.nn.elu,
    "celu": jax.nn.celu,
    "selu": jax.nn.selu,
    "selu by hand": lambda x: 1.0507 * jnp.where(x > 0, x, 1.6733 * jnp.expm1(x)),
    "gelu": jax.nn.gelu,
    "gelu exact": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu tanh by hand": gelu_tanh,
    "gelu erf by hand": gelu_erf,
    "silu": jax.nn.silu,
    "silu by hand": lambda x: x * jax.nn.sigmoid(x),
    "silu by division": lambda x: x / (1 + jnp.exp(-x)),
    "mish": jax.nn.mish,
    "mish by hand": lambda x: x * jnp.tanh(jnp.log1p(jnp.exp(x))),
    "softplus": jax.nn.softplus,
    "softplus by hand": lambda x: jnp.log(1 + jnp.exp(x)),
    "soft sign": jax.nn.soft_sign,
    "hard tanh": jax.nn.hard_tanh,
    "hard swish": jax.nn.hard_swish,
    "log sigmoid": jax.nn.log_sigmoid,
    "squareplus": jax.nn.squareplus,
    "squared relu": lambda x: jax.nn.relu(x) ** 2,
    "tanh": jnp.tanh,
    "tanh by exponentials": lambda x: (
        (jnp.exp(x) - jnp.exp(-x)) / (jnp.exp(x) + jnp.exp(-x))
    ),
    "sigmoid": jax.nn.sigmoid,
    "sigmoid by hand": lambda x: 1 / (1 + jnp.exp(-x)),
    "sigmoid by exponentials": lambda x: jnp.exp(x) / (1 + jnp.exp(x)),
    "sine": jnp.sin,
    "square": jnp.square,
    "cube": lambda x: x * x * x,
    "residual of itself": lambda x: x + jnp.tanh(x),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_passes_relevance_unchanged(name):
    phi = ACTIVATIONS[name]
    x, w = draw(3, 4), draw(4, 5)
    f = lambda x: phi(x @ w)  # noqa: E731
    z = np.asarray(x @ w)
    expected = x * ((np.asarray(phi(z)) / z) @ np.asarray(w).T)
    np.testing.assert_allclose(lrp0(f, x), expected, rtol=1e-9, atol=1e-12)
    found = roles(f, x)
    allowed = {"activation", "scale", "sum", "quotient", "shift"}
    assert found[0] == "dense" and set(found[1:]) <= allowed


@pytest.mark.whole
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_at_zero_is_finite(name):
    phi = ACTIVATIONS[name]
    found = lrp0(lambda x: phi(x * 1.0), jnp.zeros(3))
    assert (np.asarray(found) == 0).all()


RELUS = [n for n in ACTIVATIONS if n.startswith("relu by") and n != "relu by abs"]


@pytest.mark.parametrize("name", RELUS)
def test_inactive_unit_carries_the_same_relevance_however_relu_is_written(name):
    """Under a rule that does not look at values, it carries some."""
    x, w, v = draw(3, 4), draw(4, 5), draw(5, 2)
    composite = composites.Uniform(rules.Flat())
    found, expected = (
        jaxlrp.lrp(lambda x, phi=phi: phi(x @ w) @ v, composite)(x)
        for phi in (ACTIVATIONS[name], jax.nn.relu)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_activation_with_a_scale_and_a_shift_before_it():
    x, a, c = draw(4), draw(4, seed=1), draw(4, seed=2)
    f = lambda x: jax.nn.gelu(a * x + c)  # noqa: E731
    # Identity to a x + c, of which x has its own part.
    np.testing.assert_allclose(lrp0(f, x), a * x * f(x) / (a * x + c))
    assert roles(f, x) == ["scale", "shift", "activation"]


def test_learned_activation_holds_its_parameters():
    x, w, slope = draw(3, 4), draw(4, 5), jnp.abs(draw(5))
    f = lambda x: (z := x @ w) * jax.nn.sigmoid(slope * z)  # noqa: E731
    assert roles(f, x) == ["dense", "activation"]
    np.testing.assert_allclose(lrp0(f, x).sum(), f(x).sum())


def test_custom_jvp_activation_is_one_activation():
    @jax.custom_jvp
    def phi(x):
        return jnp.where(x > 0, x, jnp.sinh(x))

    phi.defjvp(lambda p, t: (phi(*p), t[0]))
    x, w = draw(3, 4), draw(4, 5)
    assert roles(lambda x: phi(x @ w), x) == ["dense", "activation"]
    np.testing.assert_allclose(lrp0(lambda x: phi(x @ w), x).sum(), phi(x @ w).sum())


# ---- normalisers ---------------------------------------------------------------------


def layer_norm(x, axis=-1):
    centred = x - x.mean(axis, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(axis, keepdims=True) + 1e-5)


def fast_layer_norm(x):
    mean, square = x.mean(-1, keepdims=True), (x * x).mean(-1, keepdims=True)
    var = jnp.maximum(0.0, square - mean * mean)
    return (x - mean) * lax.rsqrt(var + 1e-5)


LAYER_NORMS = {
    "naive": layer_norm,
    "fast variance": fast_layer_norm,
    "jnp.var": lambda x: (
        (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
    ),
    "jnp.std": lambda x: (
        (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.std(-1, keepdims=True) ** 2 + 1e-5)
    ),
    "power": lambda x: (
        (c := x - x.mean(-1, keepdims=True))
        * ((c * c).mean(-1, keepdims=True) + 1e-5) ** -0.5
    ),
    "reciprocal": lambda x: (
        (c := x - x.mean(-1, keepdims=True))
        * (1.0 / jnp.sqrt(jnp.square(c).mean(-1, keepdims=True) + 1e-5))
    ),
    "sum over size": lambda x: (
        (c := x - jnp.sum(x, -1, keepdims=True) / x.shape[-1])
        / jnp.sqrt(jnp.sum(c**2, -1, keepdims=True) / x.shape[-1] + 1e-5)
    ),
    "einsum": lambda x: (
        (c := x - x.mean(-1, keepdims=True))
        / jnp.sqrt(jnp.einsum("bi,bi->b", c, c) / x.shape[-1] + 1e-5)[:, None]
    ),
    "jax.nn.standardize": lambda x: jax.nn.standardize(x, epsilon=1e-5),
    "linen": lambda x: linen.LayerNorm(
        epsilon=1e-5, use_bias=False, use_scale=False, dtype="float64"
    ).apply({}, x),
    "linen, slow variance": lambda x: linen.LayerNorm(
        epsilon=1e-5, use_bias=False, use_scale=False, use_fast_variance=False
    ).apply({}, x),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", LAYER_NORMS)
def test_layer_norm_is_linear_with_the_deviation_held(name):
    norm, x, gain = LAYER_NORMS[name], draw(3, 6), draw(6)
    f = lambda x: norm(x) * gain  # noqa: E731
    found = roles(f, x)
    assert "normaliser" in found
    assert not {"product", "quotient", "gradient", "bilinear"} & set(found)
    values = np.asarray(x)
    held = np.asarray(gain) / np.sqrt(values.var(-1, keepdims=True) + 1e-5)
    expected = values * (held - held.mean(-1, keepdims=True))
    np.testing.assert_allclose(lrp0(f, x), expected, rtol=1e-5, atol=1e-8)


RMS_NORMS = {
    "rsqrt": lambda x: x * lax.rsqrt((x * x).mean(-1, keepdims=True)),
    "division": lambda x: x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True)),
    "power": lambda x: x * jnp.power(jnp.square(x).mean(-1, keepdims=True), -0.5),
    "reciprocal": lambda x: x * (1 / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True))),
    "norm": lambda x: (
        x / (jnp.linalg.norm(x, axis=-1, keepdims=True) / np.sqrt(x.shape[-1]))
    ),
    "norm and maximum": lambda x: (
        x
        * (
            np.sqrt(x.shape[-1])
            / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-9)
        )
    ),
    "einsum": lambda x: (
        x * lax.rsqrt(jnp.einsum("...i,...i->...", x, x) / x.shape[-1])[..., None]
    ),
    "vecdot": lambda x: x / jnp.sqrt(jnp.vecdot(x, x) / x.shape[-1])[..., None],
    "in float32": lambda x: (
        x.astype("float32")
        * lax.rsqrt(jnp.square(x.astype("float32")).mean(-1, keepdims=True))
    ).astype(x.dtype),
    "mapped": jax.vmap(lambda row: row / jnp.sqrt(jnp.mean(row**2))),
    "linen": lambda x: linen.RMSNorm(epsilon=0.0, use_scale=False).apply({}, x),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", RMS_NORMS)
def test_rms_norm_passes_relevance_unchanged(name):
    norm, x, gain = RMS_NORMS[name], draw(3, 6), draw(6)
    f = lambda x: norm(x) * gain  # noqa: E731
    found = roles(f, x)
    assert "normaliser" in found
    assert not {"product", "quotient", "gradient", "bilinear"} & set(found)
    np.testing.assert_allclose(lrp0(f, x), f(x), rtol=1e-5)


def group_norm(x):
    """Float[Array, 'batch height width channels'], two groups."""
    n, h, w, c = x.shape
    grouped = x.reshape(n, h, w, 2, c // 2)
    return layer_norm(grouped, (1, 2, 4)).reshape(x.shape)


OTHER_NORMS = {
    "group": group_norm,
    "linen group": lambda x: linen.GroupNorm(
        2, use_bias=False, use_scale=False, epsilon=1e-5
    ).apply({}, x),
    "instance": lambda x: layer_norm(x, (1, 2)),
    "linen instance": lambda x: linen.InstanceNorm(
        use_bias=False, use_scale=False, epsilon=1e-5
    ).apply({}, x),
    "batch statistics": lambda x: layer_norm(x, (0, 1, 2)),
}


@pytest.mark.parametrize("name", OTHER_NORMS)
def test_norm_of_an_image_is_linear_with_the_deviation_held(name):
    norm, x = OTHER_NORMS[name], draw(2, 3, 3, 4)
    gain = draw(2, 3, 3, 4, seed=1)
    f = lambda x: norm(x) * gain  # noqa: E731
    found = roles(f, x)
    assert "normaliser" in found
    assert not {"product", "quotient", "gradient"} & set(found)
    np.testing.assert_allclose(lrp0(f, x).sum(), f(x).sum(), rtol=1e-7)


DIVISIVE_NORMS = {
    "L2": lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
    "L2 with epsilon": lambda x: x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1),
    "L1": lambda x: x / jnp.abs(x).sum(-1, keepdims=True),
    "maximum": lambda x: x / jnp.abs(x).max(-1, keepdims=True),
    "sum of squares": lambda x: x / (x**2).sum(-1, keepdims=True),
    "local response": lambda x: (
        x
        / (
            2.0
            + 1e-1
            * lax.reduce_window(x * x, 0.0, lax.add, (1, 3), (1, 1), [(0, 0), (1, 1)])
        )
        ** 0.75
    ),
    "local response by convolution": lambda x: (
        x
        / (1.0 + jnp.stack([jnp.convolve(r * r, jnp.ones(3), "same") for r in x]))
        ** 0.75
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", DIVISIVE_NORMS)
def test_divisor_is_held(name):
    norm, x = DIVISIVE_NORMS[name], draw(3, 6)
    assert {"normaliser", "quotient"} & set(roles(norm, x))
    np.testing.assert_allclose(lrp0(norm, x), norm(x), rtol=1e-9)


def test_cosine_attention_holds_its_norms():
    x, wq, wk = draw(2, 3, 4), draw(4, 4), draw(4, 4, seed=1)

    def unit(v):
        return v * lax.rsqrt((v * v).sum(-1, keepdims=True) + 1e-6)

    f = lambda x: jnp.einsum("bqd,bkd->bqk", unit(x @ wq), unit(x @ wk))  # noqa: E731
    found = roles(f, x)
    assert found.count("normaliser") == 2 and "bilinear" in found
    np.testing.assert_allclose(lrp0(f, x).sum(), f(x).sum(), rtol=1e-6)


def test_normaliser_by_its_gradient_where_a_composite_says_so():
    x = draw(3, 6)
    norm = RMS_NORMS["division"]
    composite = ATTN_LRP.on("normaliser", rules.Taylor())
    found = jaxlrp.lrp(norm, composite, target="all")(x)
    np.testing.assert_allclose(found.sum(-1), 0.0, atol=1e-9)  # degree zero


# ---- softmax -------------------------------------------------------------------------


def softmax_plain(x):
    e = jnp.exp(x)
    return e / e.sum(-1, keepdims=True)


def softmax_shifted(x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softmax_stopped(x):
    e = jnp.exp(x - lax.stop_gradient(x.max(-1, keepdims=True)))
    return e / e.sum(-1, keepdims=True)


def softmax_reciprocal(x):
    e = jnp.exp(x - x.max(-1, keepdims=True))
    return e * (1 / jnp.sum(e, -1, keepdims=True))


SOFTMAXES = {
    "jax.nn": jax.nn.softmax,
    "jax.nn, other axis": lambda x: jax.nn.softmax(x.T, axis=0).T,
    "jax.nn, where": lambda x: jax.nn.softmax(x, where=jnp.ones_like(x, bool)),
    "plain": softmax_plain,
    "shifted": softmax_shifted,
    "stopped": softmax_stopped,
    "reciprocal": softmax_reciprocal,
    "reciprocal first": lambda x: (
        (1 / (e := jnp.exp(x)).sum(-1, keepdims=True)).astype(e.dtype) * e
    ),
    "two exponentials": lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
    "einsum": lambda x: (e := jnp.exp(x)) / jnp.einsum("bi->b", e)[:, None],
    "with a floor": lambda x: (e := jnp.exp(x)) / (e.sum(-1, keepdims=True) + 1e-20),
    "powers of two": lambda x: (
        (e := jnp.exp2(x / np.log(2.0))) / e.sum(-1, keepdims=True)
    ),
    "from its logarithm": lambda x: jnp.exp(jax.nn.log_softmax(x)),
    "from logsumexp": lambda x: jnp.exp(x - jax.nn.logsumexp(x, -1, keepdims=True)),
    "in float32": lambda x: jax.nn.softmax(x.astype("float32")).astype(x.dtype),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_is_expanded_as_one(name):
    softmax, x, r = SOFTMAXES[name], draw(3, 5), draw(3, 5, seed=1)
    _, pull = jaxlrp.relprop(softmax, x, composite=ATTN_LRP)
    s = np.asarray(jax.nn.softmax(x))
    expected = x * (r - s * r.sum(-1, keepdims=True))
    np.testing.assert_allclose(pull(r), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize(
    "name", [n for n in SOFTMAXES if n not in ("from its logarithm", "from logsumexp")]
)
def test_softmax_can_be_detached(name):
    """CP-LRP; the exponential of a logarithm is no softmax by structure."""
    f = SOFTMAXES[name]
    assert "softmax" in roles(f, draw(3, 5))
    composite = ATTN_LRP.on("softmax", rules.Detach())
    with pytest.warns(jaxlrp.errors.IndependentArgumentWarning):
        found = jaxlrp.lrp(f, composite, target="all")(draw(3, 5))
    assert (np.asarray(found) == 0).all()


MASK = np.array(((1, 1, 0, 1, 0), (1, 0, 0, 0, 0), (1, 1, 1, 1, 1)), bool)
MASKED = {
    "jax.nn": lambda x: jax.nn.softmax(x, where=MASK),
    "minus infinity": lambda x: jax.nn.softmax(jnp.where(MASK, x, -jnp.inf)),
    "large number": lambda x: jax.nn.softmax(jnp.where(MASK, x, -1e30)),
    "added": lambda x: jax.nn.softmax(x + jnp.where(MASK, 0.0, -1e9)),
    "by hand": lambda x: (
        (e := jnp.where(MASK, jnp.exp(x), 0.0)) / e.sum(-1, keepdims=True)
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", MASKED)
def test_masked_entries_get_nothing(name):
    x, r = draw(3, 5), draw(3, 5, seed=1)
    _, pull = jaxlrp.relprop(MASKED[name], x, composite=ATTN_LRP)
    found = np.asarray(pull(r * MASK))
    assert (found[~MASK] == 0).all()
    s = np.asarray(jax.nn.softmax(x, where=MASK))
    expected = x * (r * MASK - s * (r * MASK).sum(-1, keepdims=True))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)


def test_logsumexp_shares_by_probability():
    x = draw(3, 5)
    np.testing.assert_allclose(
        lrp0(lambda x: jax.nn.logsumexp(x, axis=-1), x), x * jax.nn.softmax(x)
    )
    by_hand = lambda x: jnp.log(jnp.exp(x).sum(-1))  # noqa: E731
    np.testing.assert_allclose(lrp0(by_hand, x), x * jax.nn.softmax(x))


def test_log_softmax_is_gradient_times_input():
    x, c = draw(3, 5), 1.0
    found = lrp0(jax.nn.log_softmax, x)
    expected = x * (c - 5 * jax.nn.softmax(x))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_logistic_regression_by_hand_is_no_softmax():
    x = draw(3, 5)
    f = lambda x: jnp.exp(x) / (1 + jnp.exp(x))  # noqa: E731
    assert "softmax" not in roles(f, x)
    g = lambda x: (x * jax.nn.sigmoid(x)).sum(-1)  # noqa: E731
    assert "softmax" not in roles(g, x)


# ---- products and sums ---------------------------------------------------------------


def test_gated_unit_is_split_evenly_or_given_to_the_signal():
    x, a, b = draw(3, 4), draw(4, 5), draw(4, 5, seed=1)
    signal, gate = x @ a, jax.nn.sigmoid(x @ b)
    f = lambda x: (x @ a) * jax.nn.sigmoid(x @ b)  # noqa: E731
    assert roles(f, x).count("product") == 1
    half = 0.5 * x * (gate @ a.T) + 0.5 * x * ((signal * gate / (x @ b)) @ b.T)
    np.testing.assert_allclose(lrp0(f, x), half, rtol=1e-9)
    takes_all = ATTN_LRP.on("product", rules.SignalTakesAll())
    found = jaxlrp.lrp(f, takes_all, target="all")(x)
    np.testing.assert_allclose(found, x * (gate @ a.T), rtol=1e-9)


def channel_gate(sigmoid):
    def f(x):  # Float[Array, 'batch position channel']
        return x * sigmoid(x.mean(1, keepdims=True))

    return f


@pytest.mark.always
def test_gate_by_an_average_is_the_same_however_the_sigmoid_is_written():
    x = draw(2, 6, 3)
    by_hand = lambda v: 1 / (1 + jnp.exp(-v))  # noqa: E731
    found, expected = (
        lrp0(channel_gate(sigmoid), x) for sigmoid in (by_hand, jax.nn.sigmoid)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_bilinear_product_gives_half_to_each():
    x, a, b = draw(2, 3, 4), draw(4, 5), draw(4, 5, seed=1)
    f = lambda x: jnp.einsum("bqd,bkd->bqk", x @ a, x @ b)  # noqa: E731
    assert roles(f, x) == ["dense", "dense", "bilinear"]
    np.testing.assert_allclose(lrp0(f, x).sum(), f(x).sum(), rtol=1e-9)
    _, pull = jaxlrp.relprop(
        lambda q, k: q @ k.T, draw(3, 4), draw(2, 4), argnums=(0, 1)
    )
    to_q, to_k = pull(jnp.ones((3, 2)))
    np.testing.assert_allclose(to_q.sum(), 3.0, rtol=1e-9)
    np.testing.assert_allclose(to_k.sum(), 3.0, rtol=1e-9)


def test_a_contraction_that_sums_has_no_gate():
    """`sum_k e_qk x_kd` with `e >= 0`: half to each, as of any such product."""
    x, c = draw(3, 3), draw(3, 3, seed=1)
    takes_all = ATTN_LRP
    for role in ("product", "bilinear"):
        takes_all = takes_all.on(role, rules.SignalTakesAll())
    both = lambda a, b: jnp.einsum("qk,kd->qd", jnp.exp(a), b)  # noqa: E731
    found = jaxlrp.lrp(both, takes_all, argnums=(0, 1), target="all")(x, c)
    np.testing.assert_allclose(found[1], c * jnp.exp(x).sum(0)[:, None] / 2)
    np.testing.assert_allclose(found[0].sum(), found[1].sum())


def test_what_constants_mix_behind_a_softmax_is_a_layer():
    x, w = draw(3, 4), draw(4, 2)

    def by_hand(x):
        e = jnp.exp(x)
        return (e / e.sum(-1, keepdims=True)) @ w

    assert roles(by_hand, x)[-1] == "dense"
    assert roles(lambda x: jax.nn.softmax(x) @ w, x)[-1] == "dense"


def test_gram_matrix_is_no_statistic():
    """Its diagonal is a sum of squares, the rest has any sign."""
    x, w = draw(3, 4), draw(3, 2)
    same = lambda x: jnp.einsum("ij,kj->ik", x, x) @ w  # noqa: E731
    other = lambda x: (x @ (x * 1.0).T) @ w  # noqa: E731
    for rule in (rules.ZPlus(), rules.AlphaBeta(), rules.GeneralizedGamma()):
        found, expected = (
            jaxlrp.lrp(f, composites.Uniform(rule), target="all")(x)
            for f in (same, other)
        )
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)


def test_residual_is_a_sum():
    x, w = draw(3, 4), draw(4, 4)
    f = lambda x: x + jnp.tanh(x @ w)  # noqa: E731
    assert roles(f, x) == ["dense", "activation", "sum"]
    np.testing.assert_allclose(lrp0(f, x).sum(), f(x).sum())


def test_difference_is_a_sum_with_a_sign():
    a, b = draw(4), draw(4, seed=1)
    to_a, to_b = lrp0(lambda a, b: a - b, a, b, argnums=(0, 1))
    np.testing.assert_allclose(to_a, a)
    np.testing.assert_allclose(to_b, -b)


def test_maximum_of_two_goes_to_the_greater():
    a, b = draw(4), draw(4, seed=1)
    to_a, to_b = lrp0(jnp.maximum, a, b, argnums=(0, 1))
    np.testing.assert_allclose(to_a, np.where(a > b, a, 0))
    np.testing.assert_allclose(to_b, np.where(b > a, b, 0))


def test_average_with_its_factor_is_one_step():
    x = draw(2, 3, 4)
    assert roles(lambda x: x.mean((1, 2)), x) == ["average"]
    masked = lambda x: jnp.mean(x, 1, where=jnp.arange(3)[:, None] < 2)  # noqa: E731
    assert "average" in roles(masked, x)
    assert (np.asarray(lrp0(masked, x))[:, 2] == 0).all()


def test_stop_gradient_detaches_what_is_behind_it():
    x, w = draw(3, 4), draw(4, 4)
    f = lambda x: x * lax.stop_gradient(jax.nn.sigmoid(x @ w))  # noqa: E731
    assert roles(f, x) == ["scale"]
    np.testing.assert_allclose(lrp0(f, x), f(x))


def test_mask_by_where_is_structural():
    x, w = draw(3, 4), draw(4, 4)
    mask = jnp.array((True, False, True, True))
    f = lambda x: jnp.where(mask, x, 7.0) @ w  # noqa: E731
    assert roles(f, x) == ["dense"]
    np.testing.assert_allclose(lrp0(f, x), jnp.where(mask, x * w.sum(1), 0))


def test_lookup_follows_the_indices():
    table, ids = draw(5, 3), jnp.array((4, 0, 4))
    found = lrp0(lambda table: table[ids], table)
    expected = np.zeros((5, 3))
    expected[4], expected[0] = 2 * table[4], table[0]
    np.testing.assert_allclose(found, expected)


def test_one_hot_times_a_table_is_a_layer():
    weights = draw(3, 5)
    table = draw(5, 4)
    f = lambda p: p @ table  # noqa: E731
    assert roles(f, weights) == ["dense"]


# ---- scopes --------------------------------------------------------------------------


def scoped(x):
    w, v = draw(4, 4), draw(4, 3)
    with jax.named_scope("body"):
        h = jnp.tanh(x @ w + 0.3)
    with jax.named_scope("head"):
        return h @ v + 0.5


BY_SCOPE = ATTN_LRP.on("layer", rules.Gamma(1.0), scope="head*")

SURROUNDED = {
    "jit": jax.jit(jaxlrp.lrp(scoped, BY_SCOPE, target=0)),
    "vmap outside": jax.vmap(jaxlrp.lrp(scoped, BY_SCOPE, target=0)),
    "vmap inside": jaxlrp.lrp(jax.vmap(scoped), BY_SCOPE, target=0),
    "jit inside": jaxlrp.lrp(jax.jit(scoped), BY_SCOPE, target=0),
    "remat inside": jaxlrp.lrp(jax.checkpoint(scoped), BY_SCOPE, target=0),
    "scan inside": jaxlrp.lrp(
        lambda x: lax.scan(lambda c, r: (c, scoped(r)), None, x)[1], BY_SCOPE, target=0
    ),
}


@pytest.mark.parametrize("name", SURROUNDED)
def test_scope_is_the_same_under_every_transformation(name):
    x = draw(2, 4)
    expected = jaxlrp.lrp(scoped, BY_SCOPE, target=0)(x)
    plain = jaxlrp.lrp(scoped, ATTN_LRP, target=0)(x)
    assert np.abs(expected - plain).max() > 1e-3
    np.testing.assert_allclose(SURROUNDED[name](x), expected, rtol=1e-9)


def test_scope_around_the_transformation_does_not_count():
    x = draw(2, 4)
    expected = jaxlrp.lrp(scoped, BY_SCOPE, target=0)(x)
    with jax.named_scope("explanation"):
        found = jaxlrp.lrp(scoped, BY_SCOPE, target=0)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_selection_between_a_constant_and_several_values():
    def f(x):
        which = (x > 0).astype(jnp.int32) + (x > 1).astype(jnp.int32)
        return jax.lax.select_n(which, jnp.zeros_like(x), x, 2 * x)

    x = jnp.asarray([-1.0, 0.5, 2.0])
    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(x), f(x))


@pytest.mark.whole
@pytest.mark.parametrize("inside", ["nothing", "scan", "cond", "checkpoint"])
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_callback_off_the_way_of_relevance_is_run(inside, dtype):
    shape = jax.ShapeDtypeStruct((3,), dtype)

    def count(x):
        return jax.pure_callback(lambda v: np.asarray(v, dtype), shape, x)

    wrapped = {
        "nothing": count,
        "scan": lambda x: jax.lax.scan(lambda c, v: (c, count(v)), 0.0, x[None])[1][0],
        "cond": lambda x: jax.lax.cond(x[0] > 9, lambda v: count(v) + 1, count, x),
        "checkpoint": jax.checkpoint(count),
    }[inside]
    f = lambda x: (2 * x, wrapped(x))  # noqa: E731
    x = jnp.asarray([1.0, 2.0, 3.0])
    found, aux = jaxlrp.lrp(f, target="all", has_aux=True)(x)
    np.testing.assert_allclose(found, 2 * x)
    np.testing.assert_array_equal(aux, np.asarray(x, dtype))


@pytest.mark.always
def test_a_constant_mask_is_no_part_of_a_soft_cap():
    mask = np.tril(np.ones((3, 3), bool))

    def f(x):
        scores = 5.0 * jnp.tanh(x @ x.T / 5.0)
        scores = jnp.where(mask, scores, jnp.finfo(scores.dtype).min)
        return (jax.nn.softmax(scores) @ x)[-1]

    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
    roles = [(row.role, row.primitives[-1]) for row in jaxlrp.plan(f)(x).rows]
    assert ("activation", "tanh") in roles or ("activation", "mul") in roles
    assert np.isfinite(np.asarray(jaxlrp.lrp(f)(x))).all()


def test_attention_whose_division_comes_last_is_that_of_a_softmax():
    def first(x):
        return jax.nn.softmax(x["scores"]) @ x["values"]

    def last(x):
        e = jnp.exp(x["scores"])
        return e @ x["values"] / e.sum(-1, keepdims=True)

    x = {"scores": draw(3, 5), "values": draw(5, 2, seed=1)}
    for composite in (ATTN_LRP, composites.Default()):
        found, wanted = (
            jaxlrp.lrp(f, composite, target="all")(x) for f in (last, first)
        )
        for name in x:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)
