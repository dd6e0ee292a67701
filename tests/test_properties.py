"""Random small programs: what must hold for each of them.

A program is a list of operations on a matrix of a fixed shape; Hypothesis draws and
shrinks the list. Compiling dominates, so examples are few and the properties of one
program are checked together.
"""

import functools
import warnings

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.errors import BoundsWarning, IndependentArgumentWarning

ROWS, COLUMNS = 3, 4
rng = np.random.default_rng(0)
SQUARE = rng.normal(size=(COLUMNS, COLUMNS)) / 2
BIAS = rng.normal(size=COLUMNS)
MASK = rng.random((ROWS, COLUMNS)) > 0.3

# Operations keep the shape (ROWS, COLUMNS); `x` is the program's input.
OPERATIONS = {
    # elementwise
    "relu": lambda h, x: jax.nn.relu(h),
    "tanh": lambda h, x: jnp.tanh(h),
    "silu": lambda h, x: jax.nn.silu(h),
    "gelu": lambda h, x: jax.nn.gelu(h),
    "sigmoid": lambda h, x: jax.nn.sigmoid(h),
    "sine": lambda h, x: jnp.sin(h),
    "square": lambda h, x: h * h / 4,
    "softplus": lambda h, x: jax.nn.softplus(h),
    "leaky": lambda h, x: jnp.where(h > 0, h, 0.1 * h),
    "clip": lambda h, x: jnp.clip(h, -1.0, 2.0),
    "scale": lambda h, x: -1.5 * h,
    "shift": lambda h, x: h + 0.5,
    # sums and products of active values
    "skip": lambda h, x: h + x,
    "difference": lambda h, x: h - 0.5 * x,
    "product": lambda h, x: h * jnp.tanh(x),
    "gate": lambda h, x: h * jax.nn.sigmoid(x @ SQUARE),
    "quotient": lambda h, x: h / (1.0 + x * x),
    "larger": lambda h, x: jnp.maximum(h, x),
    # contractions
    "dense": lambda h, x: h @ SQUARE + BIAS,
    "columns": lambda h, x: (h.T @ np.ones((ROWS, ROWS)) / 3).T,
    "bilinear": lambda h, x: h @ x.T @ h / 8,
    # structure
    "transpose": lambda h, x: h.T.reshape(ROWS, COLUMNS),
    "shuffle": lambda h, x: jnp.concatenate([h[:, 2:], x[:, :2]], axis=1),
    "pad": lambda h, x: jnp.pad(h[1:], ((1, 0), (0, 0)), constant_values=0.3),
    "gather": lambda h, x: h[:, np.array([3, 3, 0, 1])],
    "update": lambda h, x: h.at[0].set(x[1]),
    "mask": lambda h, x: jnp.where(MASK, h, 0.2),
    "stop": lambda h, x: h + lax.stop_gradient(x),
    # reductions and selections
    "mean": lambda h, x: h - h.mean(0),
    "pool": lambda h, x: jnp.broadcast_to(h.max(1, keepdims=True), h.shape),
    "cumsum": lambda h, x: jnp.cumsum(h, 1),
    "sort": lambda h, x: jnp.sort(h, 1),
    # softmax and normalisers
    "softmax": lambda h, x: jax.nn.softmax(h) * 2,
    "masked softmax": lambda h, x: jax.nn.softmax(jnp.where(MASK, h, -1e9), axis=0),
    "log-softmax": lambda h, x: jax.nn.log_softmax(h),
    "layer norm": lambda h, x: (
        (h - h.mean(-1, keepdims=True)) * lax.rsqrt(h.var(-1, keepdims=True) + 0.1)
    ),
    "rms norm": lambda h, x: (
        h / jnp.sqrt((h * h).mean(-1, keepdims=True) + 0.1) * (1.0 + BIAS)
    ),
    "attention": lambda h, x: jax.nn.softmax(h @ x.T / 2) @ h,
    # control flow
    "scan": lambda h, x: lax.scan(lambda c, t: (jnp.tanh(c + t), c), x[0], h)[1],
    "loop": lambda h, x: lax.fori_loop(0, 2, lambda i, h: jnp.tanh(h @ SQUARE) + h, h),
    "cond": lambda h, x: lax.cond(x[0, 0] > 0, jnp.sin, lambda h: h @ SQUARE, h),
    "remat": lambda h, x: jax.checkpoint(lambda h: jax.nn.silu(h @ SQUARE))(h),
}
COMPOSITES = {
    "Default": None,
    "AttnLRP": composites.AttnLRP(),
    "Epsilon": composites.Epsilon(1e-3),
    "EpsilonPlusFlat": composites.EpsilonPlusFlat(1e-3),
    "WSquare": composites.Uniform(rules.WSquare()),
    "ZBox": composites.Uniform(rules.ZPlus()).on(
        "layer", rules.ZBox(-3.0, 3.0), first=True
    ),
    "Absolute": composites.Uniform(rules.Epsilon(1e-3, bias="absolute"))
    .on("sum", rules.Absolute(1e-3))
    .on("average", rules.Absolute(1e-3))
    .on("product", rules.Absolute(1e-3))
    .on("shift", rules.Absolute(1e-3)),
    "Whole": composites.Uniform(rules.AlphaBeta(epsilon=1e-3, bias="share"))
    .on("normaliser", rules.Pass())
    .on("softmax", rules.Pass())
    .on("sum", rules.UniformSplit())
    .on("batch_norm", rules.Pass()),
    "Rescaled": composites.Uniform(rules.TopK(rules.Epsilon(1e-3), 0.5))
    .on("sum", rules.Rescaled(1e-3))
    .on("normaliser", rules.Detach(mean=True))
    .on("selection", rules.WinnerTakesAll(ties="share")),
    "Guided": composites.Composite("Guided")
    .on("any", rules.Gradient())
    .on("activation", rules.Guided()),
}

programs = st.lists(st.sampled_from(list(OPERATIONS)), min_size=1, max_size=6)
few = hypothesis.settings(
    derandomize=True,
    deadline=None,
    max_examples=12,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


def build(names):
    def program(x):
        h = x = jnp.asarray(x)
        for name in names:
            h = OPERATIONS[name](h, x)
        return h

    return program


def inputs(seed):
    return np.random.default_rng(seed).normal(size=(ROWS, COLUMNS))


def quiet(test):
    """A program may drop its input; that it is told so is tested elsewhere."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", IndependentArgumentWarning)
            warnings.simplefilter("ignore", BoundsWarning)
            with jax.enable_x64(True):
                test(*args, **kwargs)

    return run


def assert_close(value, expected, size, tolerance=1e-9):
    assert np.abs(np.asarray(value) - np.asarray(expected)).max() <= tolerance * size


@few
@hypothesis.given(programs, st.sampled_from(list(COMPOSITES)), st.integers(0, 9))
@quiet
def test_every_program_is_explained_alike_by_jit_and_vmap(names, composite, seed):
    f = build(names)
    explain = jaxlrp.value_and_lrp(f, COMPOSITES[composite])
    x = inputs(seed)
    value, relevance = jax.jit(explain)(x)
    plain = jax.jit(f)(x)
    hypothesis.assume(np.isfinite(plain).all())
    size = 1 + np.abs(relevance).max()
    assert_close(value, plain, 1 + np.abs(plain).max(), 1e-12)
    assert relevance.shape == x.shape and relevance.dtype == x.dtype
    assert np.isfinite(relevance).all()
    eager = explain(x)
    assert_close(eager[0], plain, 1 + np.abs(plain).max(), 1e-12)
    assert_close(eager[1], relevance, size)
    batch = np.stack([x, inputs(seed + 100)])
    mapped = jax.jit(jax.vmap(explain))(batch)[1]
    other = jax.jit(explain)(batch[1])[1]
    assert_close(mapped[0], relevance, size)
    assert_close(mapped[1], other, 1 + np.abs(other).max())


@few
@hypothesis.given(programs, st.sampled_from(list(COMPOSITES)), st.integers(0, 9))
@quiet
def test_the_parts_of_every_audit_add_up_to_the_whole(names, composite, seed):
    f = build(names)
    x = inputs(seed)
    audit = jaxlrp.audit(f, COMPOSITES[composite], target="all")(x)
    parts = [audit.total_in, *audit.absorbed.values()]
    # Relevance may cancel on its way: rounding is that of the largest message.
    largest = [abs(s.arrived) + abs(s.passed) for s in audit.steps]
    size = 1 + sum(map(abs, parts)) + max(largest, default=0.0)
    assert abs(sum(parts) - audit.total_out) <= 1e-8 * size
    out = np.asarray(f(x))
    assert_close(audit.total_out, out.sum(), 1 + np.abs(out).sum(), 1e-12)


LINEAR = [
    "relu", "leaky", "scale", "skip", "difference", "columns", "transpose", "gather",
    "shuffle", "update", "pool", "sort", "cumsum", "mean", "larger",
]  # fmt: skip


@few
@hypothesis.given(
    st.lists(st.sampled_from(LINEAR), min_size=1, max_size=6), st.integers(0, 9)
)
@quiet
def test_piecewise_linear_programs_conserve_and_are_gradient_times_input(names, seed):
    f = build(names)
    x = inputs(seed)
    value, relevance = jaxlrp.value_and_lrp(f, composites.AttnLRP(), target="all")(x)
    gradient = jax.grad(lambda x: f(x).sum())(x)
    size = 1 + np.abs(relevance).sum()
    assert_close(relevance, x * gradient, size, 1e-12)
    assert_close(relevance.sum(), value.sum(), size, 1e-12)


# What has no rule of its own is no gradient of relevances: it stays a multiple.
RULED = sorted(set(OPERATIONS) - {"cumsum", "larger", "sort", "stop"})


@few
@hypothesis.given(
    st.lists(st.sampled_from(RULED), min_size=1, max_size=6), st.integers(0, 9)
)
@quiet
def test_gradient_on_every_role_is_the_gradient(names, seed):
    f = build(names)
    x = inputs(seed)
    composite = composites.Composite("Gradient").on("any", rules.Gradient())
    out, pull = jaxlrp.relprop(f, x, composite=composite)
    r = inputs(seed + 50)
    _, transpose = jax.vjp(f, jnp.asarray(x))
    expected = transpose(jnp.asarray(r))[0]
    assert_close(pull(r), expected, 1 + np.abs(expected).max())
