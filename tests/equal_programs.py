"""Pairs of programs of the same function, written differently, as data.

Nothing in the conventions of relevance tells the two apart, or the pair says what
does: `but` has the composites under which they differ and `why` the reason, which
`docs/when-it-fails.md` lists. Softmax has a table of its own, `tests/spellings.py`.

A pair is added as a line of `PAIRS`: two functions of `x`, (3, 8), which are read
behind a layer and in front of one. `tests/test_equal_programs.py` compares them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

Form = Callable[..., Any]
C, S = np.cos(np.arange(4.0)), np.sin(np.arange(4.0))
"""The cosines and sines of a rotation."""
SHAPE = (3, 8)
_draw: Callable[..., Any] = np.random.default_rng(1).normal

W = _draw(size=(8, 6)) / 2
SQUARE = _draw(size=(8, 8)) / 2
OTHER = _draw(size=(8, 8)) / 2
Q, K = _draw(size=(2, 8, 8)) / 2
B = _draw(size=6)
BIAS = _draw(size=8)
SCALE = 1 + np.abs(_draw(size=8))
MEAN, VAR = _draw(size=6), 1 + np.abs(_draw(size=6))
GAIN = 1 + np.abs(_draw(size=6))
POSITIONS = _draw(size=SHAPE)
ROWS = _draw(size=(3, 3))
KERNEL = _draw(size=(3, 8, 5)) / 2
"""Of a convolution over the rows: (width, input, output)."""
KERNELS = _draw(size=(2, 2, 1, 4)) / 2
"""Of a convolution of an image: (height, width, input, output)."""
TABLE = _draw(size=(9, 8))
IDS = np.array([4, 0, 7])
MASK = _draw(size=SHAPE) > -0.5
CAUSAL = np.tri(3, dtype=bool)


@dataclasses.dataclass(frozen=True)
class Pair:
    """One function, written twice.

    Attributes:
      one: a function of `x`.
      other: the same function.
      but: names of composites under which their relevances differ.
      why: the convention that is the reason.
      precision: of the values; relevances may differ by ten times as much.
    """

    one: Form
    other: Form
    but: tuple[str, ...] = ()
    why: str = ""
    precision: float = 1e-10


# ---- layers --------------------------------------------------------------------------


def conv(x, kernel, window=(1,), padding: Any = "SAME"):
    return lax.conv_general_dilated(
        x[None], kernel, window, padding, dimension_numbers=("NWC", "WIO", "NWC")
    )[0]


def conv_image(x, **given):
    return lax.conv_general_dilated(
        x[None, :, :, None],
        KERNELS,
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **given,
    )[0]


def conv_image_channels_first(x):
    kernel = KERNELS.transpose(3, 2, 0, 1)
    return lax.conv(x[None, None], kernel, (1, 1), "VALID")[0].transpose(1, 2, 0)


def split_in_columns(x):
    return jnp.concatenate([x @ W[:, :2], x @ W[:, 2:]], -1)


def split_in_rows(x):
    return x[:, :3] @ W[:3] + x[:, 3:] @ W[3:]


def by_fori_loop(x):
    y = jnp.zeros((3, 6))
    return lax.fori_loop(0, 3, lambda i, y: y.at[i].set(x[i] @ W), y)


LAYERS = {
    "einsum": Pair(lambda x: x @ W, lambda x: jnp.einsum("ij,jk->ik", x, W)),
    "einsum, transposed": Pair(
        lambda x: x @ W, lambda x: jnp.einsum("ij,kj->ki", x, W.T).T
    ),
    "tensordot": Pair(lambda x: x @ W, lambda x: jnp.tensordot(x, W, 1)),
    "dot_general": Pair(
        lambda x: x @ W,
        lambda x: lax.dot_general(jnp.asarray(W), x, (((0,), (1,)), ((), ()))).T,
    ),
    "weights transposed": Pair(lambda x: x @ W, lambda x: (W.T @ x.T).T),
    "vmap of a row": Pair(lambda x: x @ W, jax.vmap(lambda r: r @ W)),
    "vmap of columns of weights": Pair(
        lambda x: x @ W, lambda x: jax.vmap(lambda w: x @ w, 1, 1)(jnp.asarray(W))
    ),
    "map of a row": Pair(lambda x: x @ W, lambda x: lax.map(lambda r: r @ W, x)),
    "rows in a list": Pair(lambda x: x @ W, lambda x: jnp.stack([r @ W for r in x])),
    "rows in a loop": Pair(lambda x: x @ W, by_fori_loop),
    "columns apart": Pair(lambda x: x @ W, split_in_columns),
    "convolution of width one": Pair(
        lambda x: x @ W,
        lambda x: conv(x, W[None]),
        ("Default", "EpsilonPlus"),
        "a convolution is no dense layer, whatever its width",
    ),
    "products, summed": Pair(
        lambda x: x @ W,
        lambda x: (x[:, :, None] * W).sum(1),
    ),
    "vecdot": Pair(lambda x: x @ W, lambda x: jnp.vecdot(x[:, None], jnp.asarray(W.T))),
    "inner": Pair(lambda x: x @ W, lambda x: jnp.inner(x, W.T)),
    "flattened": Pair(
        lambda x: jnp.einsum("ij,ijk->k", x, _PLANES),
        lambda x: x.reshape(-1) @ _PLANES.reshape(24, 5),
    ),
    "Kronecker": Pair(
        lambda x: ROWS @ x,
        lambda x: (np.kron(ROWS, np.eye(8)) @ x.ravel()).reshape(3, 8),
    ),
    "block-diagonal": Pair(
        lambda x: jnp.einsum("igj,gjk->igk", x.reshape(3, 2, 4), _BLOCKS).reshape(3, 8),
        lambda x: x @ jax.scipy.linalg.block_diag(*_BLOCKS),
    ),
    "batch dimension": Pair(lambda x: x @ W, lambda x: jnp.matmul(x[None], W[None])[0]),
    "multi_dot": Pair(
        lambda x: (x @ SQUARE) @ OTHER,
        lambda x: jnp.linalg.multi_dot([x, SQUARE, OTHER]),
    ),
    "layout of an image": Pair(conv_image, conv_image_channels_first),
    "convolution by a matrix": Pair(
        lambda x: jnp.einsum("ij,ki->kj", x, ROWS), lambda x: ROWS @ x
    ),
    "convolution unrolled in images": Pair(
        lambda x: jnp.stack([conv(x, KERNEL), conv(2 * x, KERNEL)]),
        lambda x: jax.vmap(lambda x: conv(x, KERNEL))(jnp.stack([x, 2 * x])),
    ),
    "dilated": Pair(
        lambda x: conv(x, KERNEL, padding=[(2, 2)]),
        lambda x: conv(jnp.pad(x, ((2, 2), (0, 0))), KERNEL, padding="VALID"),
    ),
    "jnp.convolve": Pair(
        lambda x: jax.vmap(lambda r: jnp.convolve(r, BIAS[:3], "valid"))(x),
        lambda x: conv_rows(x, BIAS[:3][::-1]),
    ),
    "transposed convolution": Pair(
        lambda x: lax.conv_transpose(x[None], KERNEL, (2,), "SAME"),
        lambda x: lax.conv_transpose(
            x[None],
            KERNEL[::-1].transpose(0, 2, 1),
            (2,),
            "SAME",
            transpose_kernel=True,
        ),
    ),
    "depthwise": Pair(
        lambda x: lax.conv_general_dilated(
            x[None],
            KERNEL[:, :1, :1] * SCALE,
            (1,),
            "SAME",
            feature_group_count=8,
            dimension_numbers=("NWC", "WIO", "NWC"),
        )[0],
        lambda x: jax.vmap(
            lambda c, k: conv(c[:, None], k[:, None, None])[:, 0], (1, 1), 1
        )(x, jnp.asarray(KERNEL[:, 0, :1] * SCALE)),
    ),
}
_PLANES = _draw(size=(3, 8, 5)) / 2
_BLOCKS = _draw(size=(2, 4, 4)) / 2


def conv_rows(x, kernel: Any):
    return lax.conv_general_dilated(
        x[:, :, None],
        kernel[:, None, None],
        (1,),
        "VALID",
        dimension_numbers=("NWC", "WIO", "NWC"),
    )[:, :, 0]


# ---- biases and batch norm ----------------------------------------------------------


def one_more_feature(x):
    """A bias as the weights of a feature that is always one."""
    ones = jnp.ones((3, 1))
    return jnp.concatenate([x, ones], 1) @ np.concatenate([W, B[None]])


def batch_norm(h):
    return (h - MEAN) / jnp.sqrt(VAR + 1e-5) * GAIN + B


def batch_norm_rsqrt(h):
    return (h - MEAN) * (lax.rsqrt(VAR + 1e-5) * GAIN) + B


def batch_norm_folded_scale(h):
    scale = GAIN / np.sqrt(VAR + 1e-5)
    return h * scale + (B - MEAN * scale)


def folded(x):
    scale = GAIN / np.sqrt(VAR + 1e-5)
    return x @ (W * scale) + (B - MEAN * scale)


def normed(norm: Form) -> Form:
    return lambda x: norm(x @ W)


BIASES = {
    "in front": Pair(lambda x: x @ W + B, lambda x: B + x @ W),
    "subtracted": Pair(lambda x: x @ W + B, lambda x: x @ W - (-B)),
    "added at": Pair(lambda x: x @ W + B, lambda x: (x @ W).at[:].add(B)),
    "broadcast": Pair(
        lambda x: x @ W + B, lambda x: x @ W + jnp.broadcast_to(B, (3, 6))
    ),
    "in parts": Pair(lambda x: x @ W + B, lambda x: x @ W + B / 4 + 3 * B / 4),
    "start of a sum": Pair(lambda x: x @ W + B, lambda x: sum([x @ W], jnp.asarray(B))),
    "in vmap": Pair(lambda x: x @ W + B, jax.vmap(lambda r: r @ W + B)),
    "under a reshape": Pair(
        lambda x: x @ W + B,
        lambda x: ((x @ W).reshape(3, 2, 3) + B.reshape(2, 3)).reshape(3, 6),
    ),
    "of each position": Pair(
        lambda x: x @ SQUARE + POSITIONS, lambda x: POSITIONS + x @ SQUARE
    ),
    "a feature of ones": Pair(
        lambda x: x @ W + B,
        one_more_feature,
    ),
    "batch norm, rsqrt": Pair(normed(batch_norm), normed(batch_norm_rsqrt)),
    "batch norm, scale and shift": Pair(
        normed(batch_norm), normed(batch_norm_folded_scale)
    ),
    "batch norm, folded": Pair(normed(batch_norm), folded),
    "batch norm, vmap": Pair(normed(batch_norm), normed(jax.vmap(batch_norm))),
    "batch norm, jax.nn": Pair(
        normed(batch_norm),
        normed(lambda h: jax.nn.standardize(h, 0, MEAN, VAR, 1e-5) * GAIN + B),
    ),
    "batch norm, jit": Pair(normed(batch_norm), normed(jax.jit(batch_norm))),
}

# ---- normalisations of an example ---------------------------------------------------


def mean(x):
    return x.mean(-1, keepdims=True)


def layer_norm(x):
    return (x - mean(x)) / jnp.sqrt(mean((x - mean(x)) ** 2) + 0.1) * SCALE + BIAS


def layer_norm_moments(x):
    """The variance as the mean of the squares less the square of the mean."""
    var = mean(x * x) - mean(x) ** 2
    return (x - mean(x)) * lax.rsqrt(var + 0.1) * SCALE + BIAS


def layer_norm_matrix(x):
    centred = x @ (np.eye(8) - 1 / 8)
    return centred / jnp.sqrt(mean(centred**2) + 0.1) * SCALE + BIAS


def layer_norm_scale_first(x):
    return (x - mean(x)) * (lax.rsqrt(x.var(-1, keepdims=True) + 0.1) * SCALE) + BIAS


def layer_norm_row(r):
    c = r - r.mean()
    return c / jnp.sqrt(c @ c / 8 + 0.1) * SCALE + BIAS


def layer_norm_flax(x):
    """As Flax writes it: two moments at once, and a scale that is joined first."""
    mu, mu2 = x.mean(-1), lax.square(x).mean(-1)
    var = jnp.maximum(0.0, mu2 - lax.square(mu))
    y = x - jnp.expand_dims(mu, -1)
    return y * (lax.rsqrt(jnp.expand_dims(var, -1) + 0.1) * SCALE) + BIAS


def rms_norm(x):
    return x / jnp.sqrt(mean(x**2) + 0.1) * SCALE


def l2_norm(x):
    return x / jnp.sqrt((x**2).sum(-1, keepdims=True))


def group_norm(x):
    g = x.reshape(3, 2, 4)
    g = (g - mean(g)) / jnp.sqrt(g.var(-1, keepdims=True) + 0.1)
    return g.reshape(3, 8)


def group_norm_parts(x):
    def part(g):
        return (g - mean(g)) / jnp.sqrt(g.var(-1, keepdims=True) + 0.1)

    return jnp.concatenate([part(x[:, :4]), part(x[:, 4:])], -1)


NORMS = {
    "layer norm, moments": Pair(layer_norm, layer_norm_moments),
    "layer norm, jnp.var": Pair(layer_norm, layer_norm_scale_first),
    "layer norm, Flax": Pair(layer_norm, layer_norm_flax),
    "layer norm, vmap": Pair(layer_norm, jax.vmap(layer_norm_row)),
    "layer norm, map": Pair(layer_norm, lambda x: lax.map(layer_norm_row, x)),
    "layer norm, matrix": Pair(layer_norm, layer_norm_matrix),
    "layer norm, standardize": Pair(
        layer_norm, lambda x: jax.nn.standardize(x, -1, epsilon=0.1) * SCALE + BIAS
    ),
    "layer norm, transposed": Pair(
        layer_norm,
        lambda x: (
            (jax.nn.standardize(x.T, 0, epsilon=0.1) * SCALE[:, None] + BIAS[:, None]).T
        ),
    ),
    "RMS norm, rsqrt": Pair(
        rms_norm, lambda x: SCALE * (x * lax.rsqrt(mean(lax.square(x)) + 0.1))
    ),
    "RMS norm, power": Pair(
        rms_norm, lambda x: x * jnp.power(mean(x**2) + 0.1, -0.5) * SCALE
    ),
    "RMS norm, norm": Pair(
        rms_norm,
        lambda x: (
            x
            / jnp.sqrt(jnp.linalg.norm(x, axis=-1, keepdims=True) ** 2 / 8 + 0.1)
            * SCALE
        ),
    ),
    "RMS norm, einsum": Pair(
        rms_norm,
        lambda x: x / jnp.sqrt(jnp.einsum("ij,ij->i", x, x) / 8 + 0.1)[:, None] * SCALE,
    ),
    "L2 norm, jnp.linalg": Pair(
        l2_norm, lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    ),
    "L2 norm, reciprocal": Pair(
        l2_norm, lambda x: x * (1 / jnp.linalg.norm(x, axis=-1))[:, None]
    ),
    "L2 norm, logarithms": Pair(
        l2_norm,
        lambda x: x * jnp.exp(-0.5 * jnp.log((x**2).sum(-1, keepdims=True))),
        ("AttnLRP", "EpsilonPlus"),
        "a root by logarithms is no normaliser",
    ),
    "group norm, parts": Pair(group_norm, group_norm_parts),
    "group norm, vmap": Pair(
        group_norm,
        lambda x: jax.vmap(
            lambda g: (g - mean(g)) / jnp.sqrt(g.var(-1, keepdims=True) + 0.1), 1, 1
        )(x.reshape(3, 2, 4)).reshape(3, 8),
    ),
    "instance norm, two axes": Pair(
        lambda x: (x - x.mean()) / jnp.sqrt(x.var() + 0.1),
        lambda x: jax.nn.standardize(x, (0, 1), epsilon=0.1),
    ),
    "mean subtracted, negated": Pair(lambda x: x - mean(x), lambda x: -mean(x) + x),
    "mean subtracted, sum": Pair(
        lambda x: x - mean(x), lambda x: x - x.sum(-1, keepdims=True) / 8
    ),
    "mean subtracted, product": Pair(
        lambda x: x - mean(x), lambda x: x - x @ np.full((8, 8), 1 / 8)
    ),
    "mean subtracted, one map": Pair(
        lambda x: x - mean(x), lambda x: x @ (np.eye(8) - 1 / 8)
    ),
}

# ---- activations --------------------------------------------------------------------


def on(f: Form) -> Form:
    """An activation behind a layer with a bias."""
    return lambda x: f(x @ W + B)


def erf(h):
    return 0.5 * h * (1 + lax.erf(h / math.sqrt(2)))


def gelu_tanh(h):
    return 0.5 * h * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))


def softplus(h):
    return jnp.maximum(h, 0) + jnp.log1p(jnp.exp(-jnp.abs(h)))


ACTIVATIONS = {
    "relu, maximum": (jax.nn.relu, lambda h: jnp.maximum(h, 0)),
    "relu, maximum, first": (jax.nn.relu, lambda h: jnp.maximum(0.0, h)),
    "relu, where": (jax.nn.relu, lambda h: jnp.where(h > 0, h, 0)),
    "relu, product": (jax.nn.relu, lambda h: h * (h > 0)),
    "relu, clip": (jax.nn.relu, lambda h: jnp.clip(h, 0)),
    "relu, absolute": (jax.nn.relu, lambda h: (h + jnp.abs(h)) / 2),
    "relu, minimum": (jax.nn.relu, lambda h: -jnp.minimum(-h, 0)),
    "relu, select": (jax.nn.relu, lambda h: jnp.select([h > 0], [h], 0.0)),
    "leaky relu": (
        lambda h: jax.nn.leaky_relu(h, 0.1),
        lambda h: jnp.maximum(h, 0.1 * h),
    ),
    "leaky relu, sum": (
        lambda h: jax.nn.leaky_relu(h, 0.1),
        lambda h: jax.nn.relu(h) - 0.1 * jax.nn.relu(-h),
    ),
    "relu6": (jax.nn.relu6, lambda h: jnp.minimum(jnp.maximum(h, 0), 6)),
    "relu6, clip": (jax.nn.relu6, lambda h: jnp.clip(h, 0, 6)),
    "gelu, erf": (lambda h: jax.nn.gelu(h, approximate=False), erf),
    "gelu, cdf": (
        lambda h: jax.nn.gelu(h, approximate=False),
        lambda h: h * jax.scipy.stats.norm.cdf(h),
    ),
    "gelu, tanh": (jax.nn.gelu, gelu_tanh),
    "gelu, powers": (
        jax.nn.gelu,
        lambda h: (
            h * jax.nn.sigmoid(2 * math.sqrt(2 / math.pi) * h * (1 + 0.044715 * h * h))
        ),
    ),
    "silu, product": (jax.nn.silu, lambda h: h * jax.nn.sigmoid(h)),
    "silu, quotient": (jax.nn.silu, lambda h: h / (1 + jnp.exp(-h))),
    "silu, tanh": (jax.nn.silu, lambda h: h * (1 + jnp.tanh(h / 2)) / 2),
    "sigmoid, reciprocal": (jax.nn.sigmoid, lambda h: 1 / (1 + jnp.exp(-h))),
    "sigmoid, tanh": (jax.nn.sigmoid, lambda h: 0.5 * (jnp.tanh(h / 2) + 1)),
    "sigmoid, quotient": (jax.nn.sigmoid, lambda h: jnp.exp(h) / (1 + jnp.exp(h))),
    "sigmoid, where": (
        jax.nn.sigmoid,
        lambda h: jnp.where(
            h >= 0,
            1 / (1 + jnp.exp(-jnp.abs(h))),
            jnp.exp(-jnp.abs(h)) / (1 + jnp.exp(-jnp.abs(h))),
        ),
    ),
    "sigmoid, expit": (jax.nn.sigmoid, jax.scipy.special.expit),
    "tanh, sigmoid": (jnp.tanh, lambda h: 2 * jax.nn.sigmoid(2 * h) - 1),
    "tanh, exponentials": (
        jnp.tanh,
        lambda h: (jnp.exp(h) - jnp.exp(-h)) / (jnp.exp(h) + jnp.exp(-h)),
    ),
    "tanh, quotient": (jnp.tanh, lambda h: jnp.sinh(h) / jnp.cosh(h)),
    "softplus, logarithm": (jax.nn.softplus, lambda h: jnp.log(1 + jnp.exp(h))),
    "softplus, log1p": (jax.nn.softplus, lambda h: jnp.log1p(jnp.exp(h))),
    "softplus, stable": (jax.nn.softplus, softplus),
    "softplus, logaddexp": (jax.nn.softplus, lambda h: jnp.logaddexp(h, 0.0)),
    "softplus, log-sigmoid": (jax.nn.softplus, lambda h: -jax.nn.log_sigmoid(-h)),
    "log-sigmoid": (jax.nn.log_sigmoid, lambda h: jnp.log(jax.nn.sigmoid(h))),
    "elu, where": (jax.nn.elu, lambda h: jnp.where(h > 0, h, jnp.expm1(h))),
    "elu, safe": (
        jax.nn.elu,
        lambda h: jnp.where(h > 0, h, jnp.expm1(jnp.where(h > 0, 0.0, h))),
    ),
    "elu, sum": (jax.nn.elu, lambda h: jax.nn.relu(h) + jnp.expm1(jnp.minimum(h, 0))),
    "selu": (
        jax.nn.selu,
        lambda h: (
            1.0507009873554805
            * jnp.where(h > 0, h, 1.6732632423543772 * (jnp.exp(h) - 1))
        ),
    ),
    "mish": (jax.nn.mish, lambda h: h * jnp.tanh(jax.nn.softplus(h))),
    "mish, by hand": (jax.nn.mish, lambda h: h * jnp.tanh(jnp.log1p(jnp.exp(h)))),
    "hard swish": (jax.nn.hard_swish, lambda h: h * jax.nn.relu6(h + 3) / 6),
    "hard swish, clip": (jax.nn.hard_swish, lambda h: h * jnp.clip(h / 6 + 0.5, 0, 1)),
    "hard tanh": (jax.nn.hard_tanh, lambda h: jnp.clip(h, -1, 1)),
    "hard tanh, min and max": (
        jax.nn.hard_tanh,
        lambda h: jnp.minimum(1.0, jnp.maximum(-1.0, h)),
    ),
    "soft sign": (jax.nn.soft_sign, lambda h: h / (1 + jnp.abs(h))),
    "absolute, sign": (jnp.abs, lambda h: h * jnp.sign(h)),
    "absolute, where": (jnp.abs, lambda h: jnp.where(h < 0, -h, h)),
    "absolute, maximum": (jnp.abs, lambda h: jnp.maximum(h, -h)),
    "absolute, root": (jnp.abs, lambda h: jnp.sqrt(h * h)),
    "square, product": (jnp.square, lambda h: h * h),
    "square, power": (jnp.square, lambda h: h**2),
    "square, float power": (jnp.square, lambda h: jnp.power(jnp.abs(h), 2.0)),
    "cube": (lambda h: h**3, lambda h: h * h * h),
    "cube, square": (lambda h: h**3, lambda h: h * h**2),
    "root": (lambda h: jnp.sqrt(h * h + 1), lambda h: (h**2 + 1) ** 0.5),
    "inverse root": (lambda h: lax.rsqrt(h * h + 1), lambda h: 1 / jnp.sqrt(h * h + 1)),
    "inverse root, power": (
        lambda h: lax.rsqrt(h * h + 1),
        lambda h: jnp.power(h * h + 1, -0.5),
    ),
    "division by a constant": (
        lambda h: jnp.tanh(h / 3),
        lambda h: jnp.tanh(h * (1 / 3)),
    ),
    "polynomial, Horner": (
        lambda h: h**3 - 2 * h**2 + 3 * h,
        lambda h: ((h - 2) * h + 3) * h,
    ),
    "custom_jvp": (jnp.sin, jax.custom_jvp(jnp.sin)),
    "jit": (jnp.sin, jax.jit(jnp.sin)),
    "vmap": (jnp.sin, jax.vmap(jax.vmap(jnp.sin))),
    "map": (jax.nn.silu, lambda h: lax.map(jax.nn.silu, h)),
    "checkpoint": (jax.nn.silu, jax.checkpoint(jax.nn.silu)),
    "double where": (
        lambda h: jnp.where(h > 0, jnp.log1p(h), 0),
        lambda h: jnp.where(h > 0, jnp.log1p(jnp.where(h > 0, h, 0.0)), 0),
    ),
}
ACTIVATIONS = {k: Pair(on(a), on(b)) for k, (a, b) in ACTIVATIONS.items()}

# ---- gates and products -------------------------------------------------------------


def gated(gate: Form, signal: Form = lambda x: x @ OTHER) -> Form:
    """A gate that a layer makes, on what another makes."""
    return lambda x: gate(x @ SQUARE) * signal(x)


def highway(x):
    g = jax.nn.sigmoid(x @ SQUARE)
    return g * jnp.tanh(x @ OTHER) + (1 - g) * x


def highway_opposite(x):
    g, c = jax.nn.sigmoid(x @ SQUARE), jax.nn.sigmoid(-(x @ SQUARE))
    return jnp.tanh(x @ OTHER) * g + x * c


GATES = {
    "gate, reciprocal": Pair(
        gated(jax.nn.sigmoid), gated(lambda h: 1 / (1 + jnp.exp(-h)))
    ),
    "gate, tanh": Pair(
        gated(jax.nn.sigmoid),
        gated(lambda h: 0.5 + 0.5 * jnp.tanh(0.5 * h)),
        ("Default", "CPLRP"),
        "a constant plus a value is not known to be a gate",
    ),
    "gate, expit": Pair(gated(jax.nn.sigmoid), gated(jax.scipy.special.expit)),
    "gate, last": Pair(
        gated(jax.nn.sigmoid), lambda x: (x @ OTHER) * jax.nn.sigmoid(x @ SQUARE)
    ),
    "gate, einsum": Pair(
        gated(jax.nn.sigmoid),
        lambda x: jnp.einsum("ij,ij->ij", x @ OTHER, jax.nn.sigmoid(x @ SQUARE)),
    ),
    "gate, one layer for both": Pair(
        gated(jax.nn.sigmoid),
        lambda x: (lambda h: jax.nn.sigmoid(h[:, :8]) * h[:, 8:])(
            x @ np.concatenate([SQUARE, OTHER], 1)
        ),
    ),
    "gate, glu": Pair(
        lambda x: (x @ OTHER) * jax.nn.sigmoid(x @ SQUARE),
        lambda x: jax.nn.glu(x @ np.concatenate([OTHER, SQUARE], 1)),
    ),
    "gate, where": Pair(
        gated(lambda h: (h > 0).astype(h.dtype)),
        lambda x: jnp.where(x @ SQUARE > 0, x @ OTHER, 0),
    ),
    "SwiGLU": Pair(
        gated(jax.nn.silu),
        lambda x: (x @ OTHER) * ((x @ SQUARE) * jax.nn.sigmoid(x @ SQUARE)),
    ),
    "highway": Pair(highway, highway_opposite),
    "product, commuted": Pair(
        lambda x: (x @ SQUARE) * (x @ OTHER), lambda x: (x @ OTHER) * (x @ SQUARE)
    ),
    "product, einsum": Pair(
        lambda x: (x @ SQUARE) * (x @ OTHER),
        lambda x: jnp.einsum("ij,ij->ij", x @ SQUARE, x @ OTHER),
    ),
    "three factors, brackets": Pair(
        lambda x: ((x @ SQUARE) * (x @ OTHER)) * x,
        lambda x: (x @ SQUARE) * ((x @ OTHER) * x),
    ),
    "quotient, reciprocal": Pair(
        lambda x: x / (1 + (x @ SQUARE) ** 2),
        lambda x: x * (1 / (1 + (x @ SQUARE) ** 2)),
        ("AttnLRP", "EpsilonPlus"),
        "a divisor is held, a factor shares",
    ),
    "quotient, by lax": Pair(
        lambda x: x / (1 + jnp.abs(x @ SQUARE)),
        lambda x: lax.div(x, jnp.abs(x @ SQUARE) + 1),
    ),
    "squared difference": Pair(
        lambda x: (x - POSITIONS) ** 2, lambda x: jnp.square(POSITIONS - x)
    ),
    "bilinear, einsum": Pair(
        lambda x: (x @ Q) @ (x @ K).T, lambda x: jnp.einsum("id,jd->ij", x @ Q, x @ K)
    ),
    "outer product": Pair(
        lambda x: x[0][:, None] * x[1][None], lambda x: jnp.outer(x[0], x[1])
    ),
    "dot of two": Pair(
        lambda x: jnp.vdot(x[0], x[1]), lambda x: jnp.einsum("i,i->", x[0], x[1])
    ),
}

# ---- attention -----------------------------------------------------------------------


def heads(x):
    return x.reshape(3, 2, 4)


def attention(x, mask=None):
    q, k, v = x @ Q / 2, x @ K, x @ OTHER
    scores = q @ k.T
    if mask is not None:
        scores = jnp.where(mask, scores, -jnp.inf)
    return jax.nn.softmax(scores, -1) @ v


def attention_einsum(x):
    q, k, v = x @ Q, x @ K, x @ OTHER
    weights = jax.nn.softmax(jnp.einsum("qd,kd->qk", q, k) / 2, -1)
    return jnp.einsum("qk,kd->qd", weights, v)


def attention_values_first(x):
    q, k, v = x @ Q, x @ K, x @ OTHER
    return (v.T @ jax.nn.softmax(k @ q.T / 2, 0)).T


def attention_one_layer(x):
    q, k, v = jnp.split(x @ np.concatenate([Q, K, OTHER], 1), 3, 1)
    return jax.nn.softmax(q @ k.T / 2, -1) @ v


def attention_by_query(x):
    q, k, v = x @ Q, x @ K, x @ OTHER
    return jax.vmap(lambda q: jax.nn.softmax(k @ q / 2) @ v)(q)


def attention_heads(x):
    q, k, v = heads(x @ Q), heads(x @ K), heads(x @ OTHER)
    weights = jax.nn.softmax(jnp.einsum("qhd,khd->hqk", q, k) / 2, -1)
    return jnp.einsum("hqk,khd->qhd", weights, v).reshape(3, 8)


def attention_heads_matmul(x):
    q, k, v = (heads(x @ w).transpose(1, 0, 2) for w in (Q, K, OTHER))
    weights = jax.nn.softmax(q @ k.transpose(0, 2, 1) / 2, -1)
    return (weights @ v).transpose(1, 0, 2).reshape(3, 8)


def attention_heads_vmap(x):
    def head(q, k, v):
        return jax.nn.softmax(q @ k.T / 2, -1) @ v

    q, k, v = heads(x @ Q), heads(x @ K), heads(x @ OTHER)
    return jax.vmap(head, 1, 1)(q, k, v).reshape(3, 8)


def attention_heads_loop(x):
    def head(i):
        q, k, v = (x @ w[:, 4 * i : 4 * i + 4] for w in (Q, K, OTHER))
        return jax.nn.softmax(q @ k.T / 2, -1) @ v

    return jnp.concatenate([head(0), head(1)], -1)


def attention_jax(x, **given):
    q, k, v = heads(x @ Q), heads(x @ K), heads(x @ OTHER)
    return jax.nn.dot_product_attention(q[None], k[None], v[None], scale=0.5, **given)[
        0
    ].reshape(3, 8)


ATTENTION = {
    "attention, einsum": Pair(attention, attention_einsum),
    "attention, keys first": Pair(attention, attention_values_first),
    "attention, one layer": Pair(attention, attention_one_layer),
    "attention, by query": Pair(attention, attention_by_query),
    "attention, map": Pair(
        attention,
        lambda x: lax.map(lambda q: jax.nn.softmax(x @ K @ q / 2) @ (x @ OTHER), x @ Q),
    ),
    "attention, masked by a large number": Pair(
        lambda x: attention(x, CAUSAL),
        lambda x: (
            jax.nn.softmax(jnp.where(CAUSAL, (x @ Q) @ (x @ K).T / 2, -1e30), -1)
            @ (x @ OTHER)
        ),
    ),
    "attention, mask of softmax": Pair(
        lambda x: attention(x, CAUSAL),
        lambda x: (
            jax.nn.softmax((x @ Q) @ (x @ K).T / 2, -1, where=CAUSAL) @ (x @ OTHER)
        ),
    ),
    "heads, matmul": Pair(attention_heads, attention_heads_matmul),
    "heads, vmap": Pair(attention_heads, attention_heads_vmap),
    "heads, loop": Pair(attention_heads, attention_heads_loop),
    # jax.nn's softmax is in float32.
    "heads, jax.nn": Pair(attention_heads, attention_jax, precision=1e-6),
    "heads, causal": Pair(
        lambda x: attention_jax(x, is_causal=True),
        lambda x: attention_jax(x, mask=jnp.asarray(CAUSAL)[None, None]),
    ),
    "heads, biased": Pair(
        lambda x: attention_jax(x, is_causal=True),
        lambda x: attention_jax(x, bias=jnp.where(CAUSAL, 0.0, -1e30)[None, None]),
    ),
    "linear attention": Pair(
        lambda x: (jax.nn.elu(x @ Q) + 1) @ ((jax.nn.elu(x @ K) + 1).T @ (x @ OTHER)),
        lambda x: jnp.einsum(
            "qd,de->qe",
            jax.nn.elu(x @ Q) + 1,
            jnp.einsum("kd,ke->de", jax.nn.elu(x @ K) + 1, x @ OTHER),
        ),
    ),
}

# ---- sums, means, pooling ------------------------------------------------------------


def block(x):
    return jax.nn.relu(x @ SQUARE)


def second(x):
    return jnp.tanh(x @ OTHER)


WINDOW = (1, 2)
SUMS = {
    "residual, order": Pair(lambda x: x + block(x), lambda x: block(x) + x),
    "residual, sum": Pair(lambda x: x + block(x), lambda x: sum([block(x)], x)),
    "residual, stack": Pair(
        lambda x: x + block(x),
        lambda x: jnp.stack([x, block(x)]).sum(0),
    ),
    "residual, brackets": Pair(
        lambda x: (x + block(x)) + second(x),
        lambda x: x + (block(x) + second(x)),
    ),
    "residual, minus": Pair(lambda x: x + block(x), lambda x: x - (-block(x))),
    "residual, vmap": Pair(
        lambda x: x + block(x), jax.vmap(lambda r: r + jax.nn.relu(r @ SQUARE))
    ),
    "residual, added at": Pair(
        lambda x: x + block(x),
        lambda x: x.at[:].add(block(x)),
    ),
    "sum, accumulated": Pair(
        lambda x: x[0] + x[1] + x[2], lambda x: x[0] + (x[2] + x[1])
    ),
    "sum, constants between": Pair(
        lambda x: x + second(x) + POSITIONS, lambda x: x + (POSITIONS + second(x))
    ),
    "mean, sum": Pair(lambda x: x.mean(0), lambda x: x.sum(0) / 3),
    "mean, product": Pair(lambda x: x.mean(0), lambda x: x.sum(0) * (1 / 3)),
    "mean, matrix": Pair(
        lambda x: x.mean(0),
        lambda x: np.full(3, 1 / 3) @ x,
    ),
    "mean, scaled first": Pair(lambda x: x.mean(0), lambda x: (x / 3).sum(0)),
    "mean, nanmean": Pair(lambda x: x.mean(0), lambda x: jnp.average(x, 0)),
    "mean, two steps": Pair(
        lambda x: x.mean(),
        lambda x: x.mean(0).mean(),
    ),
    "mean, reshaped": Pair(lambda x: x.mean((0, 1)), lambda x: x.reshape(-1).mean()),
    "sum, by segments": Pair(
        lambda x: x.sum(0),
        lambda x: jax.ops.segment_sum(x, np.zeros(3, int), 1)[0],
    ),
    "sum, cumulated": Pair(
        lambda x: x.sum(0),
        lambda x: jnp.cumsum(x, 0)[-1],
    ),
    "sum, by scan": Pair(
        lambda x: x[0] + x[1] + x[2],
        lambda x: lax.scan(lambda c, r: (c + r, None), x[0], x[1:])[0],
        ("Default",),
        "a loop adds two at a time",
    ),
    "average pooling, window": Pair(
        lambda x: x.reshape(3, 4, 2).mean(-1),
        lambda x: lax.reduce_window(x, 0.0, lax.add, WINDOW, WINDOW, "VALID") / 2,
    ),
    "average pooling, convolution": Pair(
        lambda x: x.reshape(3, 4, 2).mean(-1),
        lambda x: lax.conv_general_dilated(
            x[:, :, None],
            jnp.full((2, 1, 1), 0.5),
            (2,),
            "VALID",
            dimension_numbers=("NWC", "WIO", "NWC"),
        )[:, :, 0],
        ("Default", "EpsilonPlus"),
        "a convolution is a layer, whatever its weights",
    ),
    "average pooling, slices": Pair(
        lambda x: (x[:, ::2] + x[:, 1::2]) / 2,
        lambda x: x[:, ::2] / 2 + x[:, 1::2] / 2,
    ),
    "max pooling, window": Pair(
        lambda x: x.reshape(3, 4, 2).max(-1),
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, WINDOW, WINDOW, "VALID"),
    ),
    "max pooling, maximum": Pair(
        lambda x: x.reshape(3, 4, 2).max(-1),
        lambda x: jnp.maximum(x[:, ::2], x[:, 1::2]),
    ),
    "max, sort": Pair(lambda x: x.max(-1), lambda x: jnp.sort(x, -1)[:, -1]),
    "max, top_k": Pair(lambda x: x.max(-1), lambda x: lax.top_k(x, 1)[0][:, 0]),
    "max, argmax": Pair(
        lambda x: x.max(-1),
        lambda x: jnp.take_along_axis(x, x.argmax(-1)[:, None], -1)[:, 0],
    ),
    "max, minus min": Pair(lambda x: x.max(-1), lambda x: -(-x).min(-1)),
    "median": Pair(lambda x: jnp.median(x, 0), lambda x: jnp.sort(x, 0)[1]),
    "logsumexp": Pair(
        lambda x: jax.nn.logsumexp(x, -1), lambda x: jnp.log(jnp.exp(x).sum(-1))
    ),
    "logsumexp, shifted": Pair(
        lambda x: jax.nn.logsumexp(x, -1),
        lambda x: jnp.log(jnp.exp(x - x.max(-1)[:, None]).sum(-1)) + x.max(-1),
        ("CPLRP",),
        "softmax passes nothing, a maximum beside it does",
    ),
    "logsumexp, logaddexp": Pair(
        lambda x: jax.nn.logsumexp(x[:, :2], -1),
        lambda x: jnp.logaddexp(x[:, 0], x[:, 1]),
    ),
}

# ---- structure, masks, embeddings ---------------------------------------------------


def one_hot(ids, n=3):
    return (np.asarray(ids)[:, None] == np.arange(n)).astype(float)


STRUCTURE = {
    "slice, take": Pair(lambda x: x[:, 2:5], lambda x: jnp.take(x, np.arange(2, 5), 1)),
    "slice, dynamic": Pair(
        lambda x: x[1:], lambda x: lax.dynamic_slice(x, (1, 0), (2, 8))
    ),
    "slice, split": Pair(lambda x: x[:, :4], lambda x: jnp.split(x, 2, 1)[0]),
    "row, one-hot": Pair(lambda x: x[1], lambda x: one_hot([1])[0] @ x),
    "rows, one-hot": Pair(
        lambda x: x[np.array([2, 0])],
        lambda x: one_hot([2, 0]) @ x,
    ),
    "rows, vmap": Pair(
        lambda x: x[np.array([2, 0])],
        lambda x: jax.vmap(lambda i: x[i])(jnp.array([2, 0])),
    ),
    "reverse": Pair(lambda x: x[::-1], lambda x: jnp.flip(x, 0)),
    "reverse, gather": Pair(lambda x: x[::-1], lambda x: x[np.array([2, 1, 0])]),
    "reverse, permutation": Pair(lambda x: x[::-1], lambda x: one_hot([2, 1, 0]) @ x),
    "roll": Pair(
        lambda x: jnp.roll(x, 1, 0), lambda x: jnp.concatenate([x[-1:], x[:-1]])
    ),
    "pad": Pair(
        lambda x: jnp.pad(x, ((1, 0), (0, 0))),
        lambda x: jnp.concatenate([jnp.zeros((1, 8)), x]),
    ),
    "pad, update": Pair(
        lambda x: jnp.pad(x, ((1, 0), (0, 0))),
        lambda x: jnp.zeros((4, 8)).at[1:].set(x),
    ),
    "stack": Pair(
        lambda x: jnp.stack([x[0], x[1]]), lambda x: jnp.concatenate([x[:1], x[1:2]])
    ),
    "transpose": Pair(lambda x: x.T, lambda x: jnp.einsum("ij->ji", x)),
    "repeat, broadcast": Pair(
        lambda x: jnp.repeat(x, 2, 0),
        lambda x: jnp.broadcast_to(x[:, None], (3, 2, 8)).reshape(6, 8),
    ),
    "tile": Pair(lambda x: jnp.tile(x, (2, 1)), lambda x: jnp.concatenate([x, x])),
    "diagonal": Pair(
        lambda x: jnp.diagonal(x), lambda x: jnp.stack([x[i, i] for i in range(3)])
    ),
    "diagonal, einsum": Pair(
        lambda x: jnp.diagonal(x[:, :3]), lambda x: jnp.einsum("ii->i", x[:, :3])
    ),
    "mask, product": Pair(lambda x: jnp.where(MASK, x, 0), lambda x: x * MASK),
    "mask, select": Pair(
        lambda x: jnp.where(MASK, x, 0),
        lambda x: lax.select(jnp.asarray(MASK), x, 0 * x),
    ),
    "mask, update": Pair(
        lambda x: x * (np.arange(3) != 1)[:, None], lambda x: x.at[1].set(0)
    ),
    "triangle": Pair(lambda x: jnp.tril(x), lambda x: x * np.tri(3, 8)),
    "chosen by index": Pair(
        lambda x: jnp.where(MASK, x, 2 * x),
        lambda x: lax.select_n(jnp.asarray(MASK), 2 * x, x),
    ),
    "embedding, take": Pair(
        lambda x: x + jnp.asarray(TABLE)[IDS], lambda x: x + jnp.take(TABLE, IDS, 0)
    ),
    "embedding, one-hot": Pair(
        lambda x: x + jnp.asarray(TABLE)[IDS],
        lambda x: x + jax.nn.one_hot(IDS, 9) @ TABLE,
    ),
    "look-up in what is explained": Pair(
        lambda x: x[np.array([0, 2, 2])],
        lambda x: jax.nn.one_hot(np.array([0, 2, 2]), 3) @ x,
    ),
    "cast and back": Pair(
        lambda x: x @ W,
        lambda x: (x.astype(complex) @ W).real,
    ),
    "real part": Pair(
        lambda x: x @ W,
        lambda x: jnp.real(lax.complex(x @ W, x @ W)),
    ),
    "rotation, complex": Pair(
        lambda x: jnp.concatenate(
            [
                x[:, :4] * np.cos(1.0) - x[:, 4:] * np.sin(1.0),
                x[:, :4] * np.sin(1.0) + x[:, 4:] * np.cos(1.0),
            ],
            1,
        ),
        lambda x: (lambda z: jnp.concatenate([z.real, z.imag], 1))(
            lax.complex(x[:, :4], x[:, 4:]) * np.exp(1j)
        ),
    ),
    "rotation, whole": Pair(
        lambda x: (lambda a, b: jnp.concatenate([a * C - b * S, b * C + a * S], 1))(
            *jnp.split(x, 2, 1)
        ),
        lambda x: (
            x * np.tile(C, 2)
            + jnp.concatenate([-x[:, 4:], x[:, :4]], 1) * np.tile(S, 2)
        ),
    ),
    "rotation, neighbours": Pair(
        lambda x: (
            lambda a, b: jnp.stack([a * C - b * S, b * C + a * S], -1).reshape(3, 8)
        )(x[:, ::2], x[:, 1::2]),
        lambda x: (
            x * np.repeat(C, 2)
            + jnp.stack([-x[:, 1::2], x[:, ::2]], -1).reshape(3, 8) * np.repeat(S, 2)
        ),
    ),
}

# ---- losses, minima and maxima -------------------------------------------------------

LOSSES = {
    "squared error": Pair(
        lambda x: ((x - POSITIONS) ** 2).mean(),
        lambda x: jnp.mean(jnp.square(x - POSITIONS)),
    ),
    "squared error, product": Pair(
        lambda x: ((x - POSITIONS) ** 2).mean(),
        lambda x: ((x - POSITIONS) * (x - POSITIONS)).mean(),
    ),
    "absolute error": Pair(
        lambda x: jnp.abs(x - POSITIONS).sum(),
        lambda x: jnp.maximum(x - POSITIONS, POSITIONS - x).sum(),
        ("Default", "AttnLRP", "CPLRP", "EpsilonPlus"),
        "the argument of an activation is what all paths pass",
    ),
    "cross-entropy": Pair(
        lambda x: -jax.nn.log_softmax(x)[np.arange(3), IDS].sum(),
        lambda x: -(jax.nn.log_softmax(x) * one_hot(IDS, 8)).sum(),
    ),
    "cross-entropy, logsumexp": Pair(
        lambda x: -jax.nn.log_softmax(x)[np.arange(3), IDS],
        lambda x: jax.nn.logsumexp(x, -1) - x[np.arange(3), IDS],
        ("Default", "CPLRP"),
        "a log-softmax keeps its derivative, a difference has the rule of sums",
    ),
    "binary cross-entropy": Pair(
        lambda x: jax.nn.softplus(x) * 0.3 + jax.nn.softplus(-x) * 0.7,
        lambda x: -jax.nn.log_sigmoid(-x) * 0.3 - jax.nn.log_sigmoid(x) * 0.7,
    ),
    "hinge": Pair(lambda x: jax.nn.relu(1 - x), lambda x: jnp.maximum(0, 1 - x)),
    "clip, min and max": Pair(
        lambda x: jnp.clip(x, -1, 1), lambda x: jnp.minimum(jnp.maximum(x, -1), 1)
    ),
    "clip, lax": Pair(lambda x: jnp.clip(x, -1, 1), lambda x: lax.clamp(-1.0, x, 1.0)),
    "maximum, where": Pair(
        lambda x: jnp.maximum(x, x @ SQUARE),
        lambda x: jnp.where(x > x @ SQUARE, x, x @ SQUARE),
    ),
    "maximum, minimum": Pair(
        lambda x: jnp.maximum(x, x @ SQUARE), lambda x: -jnp.minimum(-x, -(x @ SQUARE))
    ),
    "maximum, stack": Pair(
        lambda x: jnp.maximum(x, x @ SQUARE),
        lambda x: jnp.stack([x, x @ SQUARE]).max(0),
    ),
    "sine, cosine": Pair(
        lambda x: jnp.sin(x),
        lambda x: jnp.cos(x - np.pi / 2),
        ("Default", "AttnLRP", "CPLRP", "EpsilonPlus"),
        "the argument of an activation is what all paths pass",
    ),
    "exponential, power": Pair(jnp.exp, lambda x: jnp.power(jnp.e, x)),
    "root, power": Pair(
        lambda x: jnp.sqrt(jnp.abs(x)), lambda x: jnp.power(jnp.abs(x), 0.5)
    ),
    "reciprocal": Pair(lambda x: 1 / (2 + x * x), lambda x: jnp.power(2 + x * x, -1)),
}

# ---- loops, branches, calls ----------------------------------------------------------

LAYER = (SQUARE, OTHER)


def step(h, w):
    return jnp.tanh(h @ w)


def stacked(x):
    return step(step(x, SQUARE), OTHER)


def recurrent(x):
    h = x[0]
    for r in x[1:]:
        h = jnp.tanh(h @ SQUARE + r @ OTHER)
    return h


def recurrent_step(h, r):
    return jnp.tanh(h @ SQUARE + r @ OTHER)


def recurrent_scan(x, **given):
    return lax.scan(lambda h, r: (recurrent_step(h, r), None), x[0], x[1:], **given)[0]


def recurrent_while(x):
    def body(s):
        return s[0] + 1, recurrent_step(s[1], x[s[0]])

    return lax.while_loop(lambda s: s[0] < 3, body, (1, x[0]))[1]


def decayed(x):
    h = x[0]
    for r in x[1:]:
        h = 0.5 * h + r
    return h


def decayed_associative(x):
    def join(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    return lax.associative_scan(join, (jnp.full((3, 8), 0.5), x))[1][-1]


def unit(x):
    """What is wrapped below."""
    h = jax.nn.gelu(x @ SQUARE + BIAS)
    return x + h @ OTHER


def with_vjp(f):
    own = jax.custom_vjp(f)
    own.defvjp(lambda x: jax.vjp(f, x), lambda pull, g: pull(g))
    return own


def with_jvp(f):
    own = jax.custom_jvp(f)
    own.defjvp(lambda xs, ts: jax.jvp(f, xs, ts))
    return own


LOOPS = {
    "stacked layers, scan": Pair(
        stacked,
        lambda x: lax.scan(lambda h, w: (step(h, w), None), x, np.stack(LAYER))[0],
    ),
    "stacked layers, fori": Pair(
        stacked,
        lambda x: lax.fori_loop(
            0, 2, lambda i, h: step(h, jnp.asarray(np.stack(LAYER))[i]), x
        ),
    ),
    "recurrent, scan": Pair(recurrent, recurrent_scan),
    "recurrent, unrolled": Pair(recurrent, lambda x: recurrent_scan(x, unroll=2)),
    "recurrent, fori": Pair(
        recurrent,
        lambda x: lax.fori_loop(1, 3, lambda i, h: recurrent_step(h, x[i]), x[0]),
    ),
    "recurrent, while": Pair(recurrent, recurrent_while),
    "recurrent, backwards": Pair(
        recurrent,
        lambda x: lax.scan(
            lambda h, r: (recurrent_step(h, r), None), x[0], x[:0:-1], reverse=True
        )[0],
    ),
    "recurrent, projected at once": Pair(
        recurrent,
        lambda x: lax.scan(
            lambda h, r: (jnp.tanh(h @ SQUARE + r), None), x[0], x[1:] @ OTHER
        )[0],
    ),
    "recurrent, concatenated": Pair(
        recurrent,
        lambda x: lax.scan(
            lambda h, r: (
                jnp.tanh(jnp.concatenate([h, r]) @ np.concatenate(LAYER)),
                None,
            ),
            x[0],
            x[1:],
        )[0],
        ("Default",),
        "one layer, or two and a sum",
    ),
    "decay, scan": Pair(
        decayed,
        lambda x: lax.scan(lambda h, r: (0.5 * h + r, None), x[0], x[1:])[0],
    ),
    "decay, associative": Pair(
        decayed,
        decayed_associative,
    ),
    "decay, matrix": Pair(
        decayed,
        lambda x: np.array([0.25, 0.5, 1.0]) @ x,
        ("Default",),
        "a product with a constant is a layer",
    ),
    "cond, taken": Pair(
        unit, lambda x: lax.cond(x[0, 0] < jnp.inf, unit, lambda x: x @ OTHER, x)
    ),
    "switch, taken": Pair(unit, lambda x: lax.switch(1, [lambda x: x, unit], x)),
    "cond, select": Pair(
        lambda x: jnp.where(x[0, 0] > 0, x @ SQUARE, x @ OTHER),
        lambda x: lax.cond(x[0, 0] > 0, lambda x: x @ SQUARE, lambda x: x @ OTHER, x),
    ),
    "jit": Pair(unit, jax.jit(unit)),
    "checkpoint": Pair(unit, jax.checkpoint(unit)),
    "checkpoint of a part": Pair(
        unit,
        lambda x: (
            x + jax.checkpoint(lambda x: jax.nn.gelu(x @ SQUARE + BIAS) @ OTHER)(x)
        ),
    ),
    "custom_vjp": Pair(unit, with_vjp(unit)),
    "custom_jvp": Pair(unit, with_jvp(unit)),
    "vmap of one": Pair(unit, lambda x: jax.vmap(unit)(x[None])[0]),
    "linearised": Pair(
        lambda x: x @ W,
        lambda x: jax.linear_transpose(
            lambda y: y @ W.T, jax.ShapeDtypeStruct((3, 6), x.dtype)
        )(x)[0],
    ),
    "barrier": Pair(unit, lambda x: unit(lax.optimization_barrier(x))),
    "platforms": Pair(
        unit, lambda x: lax.platform_dependent(x, cpu=unit, default=unit)
    ),
    "name": Pair(unit, lambda x: checkpoint_name(unit(x), "unit")),
    "dead code": Pair(unit, lambda x: (x.sort(), unit(x))[1]),
    "through a tuple": Pair(
        lambda x: jax.nn.gelu(x @ SQUARE) + x,
        lambda x: (lambda p: p[0] + p[1])(
            jax.jit(lambda x: (jax.nn.gelu(x @ SQUARE), x))(x)
        ),
    ),
}

PAIRS: Mapping[str, Pair] = (
    LAYERS
    | BIASES
    | NORMS
    | ACTIVATIONS
    | GATES
    | ATTENTION
    | SUMS
    | STRUCTURE
    | LOSSES
    | LOOPS
)
"""By name."""
