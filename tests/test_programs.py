"""Programs of all kinds, none of them a network: what goes in comes out.

None has a constant that takes part, so that the relevances add up to the output.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp

KEYS = jax.random.split(jax.random.key(3), 4)
X = jax.random.normal(KEYS[0], (4, 6))
W = jax.random.normal(KEYS[1], (6, 6))
V = jax.random.normal(KEYS[2], (6,))
DEFINITE = W @ W.T + 5 * jnp.eye(6)


def decayed(x):
    """A linear recurrence whose decay depends on the input."""

    def join(a, b):
        return a[0] * b[0], b[0] * a[1] + b[1]

    return lax.associative_scan(join, (jax.nn.sigmoid(x), x))[1]


def graph_attention(x):
    senders, receivers = jnp.array([0, 1, 2, 3, 0]), jnp.array([1, 2, 3, 0, 2])
    h = x @ W
    e = jnp.exp(h[senders] @ V)
    total = jax.ops.segment_sum(e, receivers, 4)
    weights = lax.stop_gradient(e / total[receivers])
    return jax.ops.segment_sum(weights[:, None] * h[senders], receivers, 4)


def rotated(x):
    turned = lax.complex(x[:, :3], x[:, 3:]) * jnp.exp(1j * jnp.arange(4.0)[:, None])
    return jnp.concatenate([jnp.real(turned), jnp.imag(turned)], -1)


def fixed_steps(x):
    def step(i, state):
        return jnp.tanh(state @ W)

    return lax.fori_loop(0, jnp.int32(3), step, x)


PROGRAMS = {
    "norm": lambda x: jnp.linalg.norm(x, axis=-1),
    "linear solve": lambda x: jnp.linalg.solve(DEFINITE, x.T),
    "conjugate gradients": lambda x: jax.scipy.sparse.linalg.cg(DEFINITE.dot, x[0])[0],
    "determinant": lambda x: jnp.linalg.det(x[:, :4]),
    "singular values": lambda x: jnp.linalg.svd(x, compute_uv=False),
    "eigenvalues": lambda x: jnp.linalg.eigvalsh(x[:, :4] + x[:, :4].T),
    "median": lambda x: jnp.median(x, axis=0),
    "quantile": lambda x: jnp.quantile(x, 0.3, axis=0),
    "associative scan": decayed,
    "Fourier layer": lambda x: jnp.fft.irfft(jnp.fft.rfft(x) * (V[:4] + 1j)),
    "spectrum": lambda x: jnp.abs(jnp.fft.fft(x)) ** 2,
    "complex rotation": rotated,
    "angle": lambda x: jnp.angle(lax.complex(x[:, :3], x[:, 3:])),
    "largest of segments": lambda x: jax.ops.segment_max(x, jnp.array([0, 1, 0, 1]), 2),
    "graph attention": graph_attention,
    "interpolation at points": lambda x: jax.scipy.ndimage.map_coordinates(
        x, [jnp.array([0.5, 1.5]), jnp.array([1.2, 3.7])], 1
    ),
    "resized": lambda x: jax.image.resize(x, (7, 9), "bicubic"),
    "three factors": lambda x: jnp.einsum("ij,jk,ik->k", x, W, x),
    "Kronecker product": lambda x: jnp.kron(x[:2, :2], x[2:, 2:]),
    "product over an axis": lambda x: jnp.prod(x, axis=0),
    "running product": lambda x: jnp.cumprod(x, axis=0),
    "Hessian": lambda x: jax.hessian(lambda u: (u @ W @ u) ** 2)(x[0]),
    "gradient": lambda x: jax.grad(lambda u: ((u @ W) ** 4).sum())(x),
    "directional derivative": lambda x: jax.jvp(
        lambda u: (u @ W) ** 3, (x,), (jnp.ones_like(x),)
    )[1],
    "linearised": lambda x: jax.linearize(lambda u: u @ W, x)[1](x),
    "transposed": lambda x: jax.linear_transpose(lambda u: u @ W, x)(x)[0],
    "branches under vmap": lambda x: jax.vmap(
        lambda r: lax.cond(r[0] > 0, jnp.sin, lambda r: r * 2, r)
    )(x),
    "switch": lambda x: lax.switch(1, [jnp.sin, lambda a: a @ W], x),
    "map in batches": lambda x: lax.map(lambda r: jnp.tanh(W @ r), x, batch_size=3),
    "loop with a traced bound": fixed_steps,
    "by platform": lambda x: lax.platform_dependent(
        x, cpu=lambda x: x @ W, default=lambda x: x
    ),
    "remat that saves products": jax.checkpoint(
        lambda x: jnp.sin(jnp.sin(x) @ W),
        policy=jax.checkpoint_policies.dots_saveable,
    ),
    "remat that saves nothing": jax.checkpoint(
        lambda x: jnp.sin(x @ W) * x, policy=jax.checkpoint_policies.nothing_saveable
    ),
    "ragged product": lambda x: lax.ragged_dot(
        x, jax.random.normal(KEYS[3], (3, 6, 5)), jnp.array([1, 2, 1])
    ),
    "sorted and permuted": lambda x: jnp.sort(x, axis=1) @ W + x[:, jnp.argsort(V)],
    "sorted by another": lambda x: lax.sort((x[:, 0], x[:, 1]), num_keys=1)[1],
    "largest entries": lambda x: jnp.take_along_axis(x, lax.top_k(x, 3)[1], 1) @ W[:3],
    "cases": lambda x: jnp.select([x > 1, x > 0], [x * 2, x], 0.0),
    "pieces": lambda x: jnp.piecewise(x, [x < 0], [lambda a: -a, lambda a: a**2]),
    "polynomial without a constant": lambda x: x**3 - 2 * x**2 + 3 * x,
    "dropped out": lambda x: (
        jnp.where(jax.random.bernoulli(KEYS[3], 0.8, x.shape), x / 0.8, 0) @ W
    ),
    "patches": lambda x: lax.conv_general_dilated_patches(
        x[None, :, :, None],
        (2, 2),
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "convolution with itself": lambda x: jax.scipy.signal.convolve(
        x, x[:2, :2], "valid"
    ),
    "cosine transform": lambda x: jax.scipy.fft.dct(x),
    "differences": lambda x: jnp.trapezoid(jnp.diff(x, axis=0), axis=0),
    "empty loop": lambda x: lax.scan(lambda c, r: (c @ W, r), x[0], x[:0])[0],
    "single number": lambda x: jnp.sin(x[0, 0]) * x[1, 1],
}


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TrainingWarning")
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_relevance_of_the_input_is_the_output(name):
    f = PROGRAMS[name]
    assert jaxlrp.plan(f)(X).coverage == 1.0
    value, relevance = jax.jit(jaxlrp.value_and_lrp(f, target="all"))(X)
    assert relevance.shape == X.shape
    size = float(jnp.abs(value).sum())
    np.testing.assert_allclose(relevance.sum(), value.sum(), atol=1e-4 * max(size, 1))
    assert np.asarray(relevance).any()
