"""Selective state-space models: one relevance, however the recurrence is written.

What steers the state, `A`, `B`, `C` and the step size, is made of the input and held,
as in MambaLRP: the relevance is that of a model that stops the gradient there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

BATCH, STEPS, WIDTH, STATE = 2, 6, 3, 2
rng = np.random.default_rng(0)
PARAMS = {
    name: rng.normal(size=shape)
    for name, shape in {
        "x_proj": (WIDTH, 2 * STATE + WIDTH),
        "skip": (WIDTH,),
        "gate": (WIDTH, WIDTH),
        "out": (WIDTH, 2),
        "back": (2, WIDTH),
    }.items()
}
PARAMS["skip"] *= 0.1  # most comes through the state
DECAY = -rng.uniform(0.2, 1.0, (WIDTH, STATE))
X = rng.normal(size=(STEPS, WIDTH))
XS = rng.normal(size=(BATCH, STEPS, WIDTH))
OLD = (
    composites.MambaLRP()
    .on("product", rules.SignalTakesAll())
    .on("bilinear", rules.UniformSplit())
)
"""`MambaLRP` with gates known by their signs alone."""


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


# ---- the state, step by step -------------------------------------------------------


def by_scan(decay, drive, c):
    def step(state, now):
        decay, drive, c = now
        state = decay * state + drive
        return state, jnp.einsum("dn,n->d", state, c)

    return lax.scan(step, jnp.zeros((WIDTH, STATE)), (decay, drive, c))[1]


def by_scan_read_behind(decay, drive, c):
    """All states are kept, and read as products that are summed."""

    def step(state, now):
        decay, drive = now
        state = decay * state + drive
        return state, state

    states = lax.scan(step, jnp.zeros((WIDTH, STATE)), (decay, drive))[1]
    return (c[:, None] * states).sum(-1)


def by_loop(decay, drive, c):
    """Written into an array; `fori_loop` is a scan here."""

    def step(t, carry):
        state, y = carry
        state = drive[t] + state * decay[t]
        return state, y.at[t].set((state * c[t]).sum(1))

    start = jnp.zeros((WIDTH, STATE)), jnp.zeros((STEPS, WIDTH))
    return lax.fori_loop(0, STEPS, step, start)[1]


def by_hand(decay, drive, c):
    state, y = jnp.zeros((WIDTH, STATE)), []
    for t in range(STEPS):
        state = decay[t] * state + drive[t]
        y.append(state @ c[t])
    return jnp.stack(y)


def by_associative_scan(decay, drive, c):
    def join(first, second):
        return first[0] * second[0], second[0] * first[1] + second[1]

    states = lax.associative_scan(join, (decay, drive))[1]
    return jnp.einsum("tdn,tn->td", states, c)


def by_convolution(decay, drive, c):
    """Every step with every one before it: `prod of the decays between`."""
    total = jnp.cumsum(jnp.log(decay), 0)
    seen = jnp.tri(STEPS, dtype=bool)[..., None, None]
    between = jnp.where(seen, jnp.exp(total[:, None] - total[None]), 0)
    return jnp.einsum("tsdn,sdn,tn->td", between, drive, c)


FORMS = {
    f.__name__: f
    for f in (
        by_scan,
        by_scan_read_behind,
        by_loop,
        by_hand,
        by_associative_scan,
        by_convolution,
    )
}


# ---- what drives it: the step, the signal and `B`, in any order ---------------------


DRIVES = {
    "step first": lambda step, u, b: (step * u)[..., None] * b[:, None],
    "outer first": lambda step, u, b: step[..., None] * (b[:, None] * u[..., None]),
    "matrix first": lambda step, u, b: u[..., None] * (step[..., None] * b[:, None]),
    "einsum": functools.partial(jnp.einsum, "td,td,tn->tdn"),
    "einsum of two": lambda step, u, b: jnp.einsum("td,tn->tdn", u * step, b),
    "matrix by einsum": lambda step, u, b: (
        jnp.einsum("td,tn->tdn", step, b) * u[..., None]
    ),
    "mapped": lambda step, u, b: step[..., None] * jax.vmap(jnp.outer)(u, b),
    "negative": lambda step, u, b: -(step * -u)[..., None] * b[:, None],
}


def selective(form, drive, stop, params, x, decay=DECAY):
    """Coefficients made of the input: held by structure, or stopped by the model."""
    u = jax.nn.silu(x)
    with jax.named_scope("x_proj"):
        projected = u @ params["x_proj"]
        b, c, step = jnp.split(projected, [STATE, 2 * STATE], -1)
        step = jax.nn.softplus(step)
    if stop:
        b, c, step = map(lax.stop_gradient, (b, c, step))
    decay = jnp.exp(step[..., None] * decay)
    y = FORMS[form](decay, DRIVES[drive](step, u, b), c)
    y = (y + params["skip"] * u) * jax.nn.silu(x @ params["gate"])
    return y @ params["out"]


def last(form, drive, stop, params, x):
    return selective(form, drive, stop, params, x)[-1]


def explained(f, x=X, composite=None):
    composite = composite or composites.MambaLRP()
    explain = jaxlrp.lrp(f, composite, target="all")
    return np.asarray(jax.jit(explain)(PARAMS, x))


def assert_same(found, expected):
    size = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * size)


@functools.cache
def stopped():
    return explained(functools.partial(last, "by_scan", "step first", True))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_relevance_of_coefficients_that_are_constants(form):
    f = functools.partial(last, form, "step first", False)
    assert_same(explained(f), stopped())
    assert_same(explained(f, composite=composites.MambaLRP("*x_proj*")), stopped())


@pytest.mark.parametrize("form", ["by_scan", "by_convolution"])
@pytest.mark.parametrize("drive", DRIVES)
def test_the_signal_is_known_in_any_order_of_the_factors(form, drive):
    assert_same(explained(functools.partial(last, form, drive, False)), stopped())


def test_all_relevance_is_accounted_for():
    f = functools.partial(last, "by_scan", "step first", False)
    audit = jaxlrp.audit(f, composites.MambaLRP(), target="all")(PARAMS, X)
    assert abs(audit.residual) < 1e-9 * abs(audit.total_out)
    np.testing.assert_allclose(audit.total_in, audit.total_out, rtol=1e-9)


def test_without_structure_or_scope_coefficients_take_their_part():
    f = functools.partial(last, "by_scan", "step first", False)
    found = explained(f, composite=OLD)
    assert np.abs(found - stopped()).max() > 0.1 * np.abs(stopped()).max()


# ---- inside the loop, in layers, in batches ----------------------------------------


def all_inside(step, u, b, c):
    """The loop is given the parts and makes decay, drive and result of them."""

    def advance(state, now):
        step, u, b, c = now
        state = jnp.exp(step[:, None] * DECAY) * state
        state = state + (step * u)[:, None] * b
        return state, state @ c

    return lax.scan(advance, jnp.zeros((WIDTH, STATE)), (step, u, b, c))[1]


def matrix_outside(step, u, b, c):
    """The loop is given decay and `step B`, and the signal."""

    def advance(state, now):
        decay, matrix, u, c = now
        state = decay * state + matrix * u[:, None]
        return state, state @ c

    decay, matrix = jnp.exp(step[..., None] * DECAY), step[..., None] * b[:, None]
    start = jnp.zeros((WIDTH, STATE))
    return lax.scan(advance, start, (decay, matrix, u, c))[1]


def outer_outside(step, u, b, c):
    """The loop is given decay, step and `u B`."""

    def advance(state, now):
        step, outer, c = now
        state = jnp.exp(step[:, None] * DECAY) * state + step[:, None] * outer
        return state, state @ c

    start = jnp.zeros((WIDTH, STATE))
    return lax.scan(advance, start, (step, u[..., None] * b[:, None], c))[1]


def signed_decay(step, u, b, c):
    """Decays are `1 + step A`, not known by their sign."""

    def advance(state, now):
        step, u, b, c = now
        state = (1 + 0.5 * step[:, None] * DECAY) * state
        return state + (step * u)[:, None] * b, state @ c

    return lax.scan(advance, jnp.zeros((WIDTH, STATE)), (step, u, b, c))[1]


def normalised(step, u, b, c):
    """`B` and `C` behind an RMS norm, as in Jamba."""

    def norm(v):
        return v * lax.rsqrt((v**2).mean(-1, keepdims=True) + 1e-6)

    return all_inside(step, u, norm(b), norm(c))


def heads(step, u, b, c):
    """A decay and a step for each head, one `B` and `C` for all: Mamba-2."""
    step, u = step[:, :1], u.reshape(STEPS, 1, WIDTH)

    def advance(state, now):
        step, u, b, c = now
        state = jnp.exp(step * DECAY[:1, 0])[:, None, None] * state
        state = state + jnp.einsum("h,hp,n->hpn", step, u, b)
        return state, jnp.einsum("hpn,n->hp", state, c)

    start = jnp.zeros((1, WIDTH, STATE))
    return lax.scan(advance, start, (step, u, b, c))[1].reshape(STEPS, WIDTH)


PARTS = {
    f.__name__: f
    for f in (
        all_inside,
        matrix_outside,
        outer_outside,
        signed_decay,
        normalised,
        heads,
    )
}


def block(parts, stop, params, x, activation=jax.nn.silu):
    u = activation(x)
    b, c, step = jnp.split(u @ params["x_proj"], [STATE, 2 * STATE], -1)
    with jax.named_scope("step"):
        step = jax.nn.softplus(step)
    if stop:
        b, c, step = map(lax.stop_gradient, (b, c, step))
    y = PARTS[parts](step, u, b, c)
    return (y + params["skip"] * u) * jax.nn.silu(x @ params["gate"])


@pytest.mark.parametrize("parts", PARTS)
def test_loops_may_be_given_any_of_the_parts(parts):
    found, expected = (
        explained(functools.partial(block, parts, stop)) for stop in (False, True)
    )
    assert_same(found, expected)
    if parts in ("all_inside", "matrix_outside", "outer_outside"):
        f = functools.partial(block, "all_inside", True)
        assert_same(found, explained(f))


def layers_called(one, params, x):
    """A function that is traced once and called for each layer."""
    one = jax.jit(one)
    return one(params, one(params, x))


def layers_evaluated_again(one, params, x):
    one = jax.checkpoint(one)
    return one(params, one(params, x))


def layers_in_a_loop(one, params, x):
    return lax.scan(lambda x, _: (one(params, x), None), x, None, length=2)[0]


def layers_of_examples(one, params, x):
    one = jax.vmap(one, (None, 0))
    x = jnp.stack([x, 2 * x, -x])
    return one(params, one(params, x))[1]


LAYERS = (
    layers_called,
    layers_evaluated_again,
    layers_in_a_loop,
    layers_of_examples,
)


@pytest.mark.parametrize("stack", LAYERS, ids=lambda f: f.__name__)
def test_coefficients_are_known_in_layers(stack):
    def f(stop, params, x):
        def one(params, x):
            h = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
            return x + block("all_inside", stop, params, h)

        return stack(one, params, x)[-1]

    found, expected = (explained(functools.partial(f, stop)) for stop in (False, True))
    assert_same(found, expected)
    old = explained(functools.partial(f, False), composite=OLD)
    assert np.abs(old - expected).max() > 0.01 * np.abs(expected).max()


def in_batches(stop, params, x):
    """Written for batches, time second."""
    u = jax.nn.silu(x)
    b, c, step = jnp.split(u @ params["x_proj"], [STATE, 2 * STATE], -1)
    step = jax.nn.softplus(step)
    if stop:
        b, c, step = map(lax.stop_gradient, (b, c, step))

    def advance(state, now):
        step, u, b, c = now
        drive = jnp.einsum("bd,bn,bd->bdn", step, b, u)
        state = jnp.exp(step[..., None] * DECAY) * state + drive
        return state, jnp.einsum("bdn,bn->bd", state, c)

    start = jnp.zeros((BATCH, WIDTH, STATE))
    over_time = [v.swapaxes(0, 1) for v in (step, u, b, c)]
    y = lax.scan(advance, start, tuple(over_time))[1].swapaxes(0, 1)
    return (y + params["skip"] * u) * jax.nn.silu(x @ params["gate"])


def test_examples_in_a_batch_are_explained_as_they_are_alone():
    found, expected = (
        explained(functools.partial(in_batches, stop), XS) for stop in (False, True)
    )
    assert_same(found, expected)
    for one, x in zip(found, XS, strict=True):
        alone = explained(functools.partial(block, "all_inside", True), x)
        np.testing.assert_allclose(one, alone, rtol=0, atol=1e-9 * np.abs(found).max())


def test_a_signal_that_cannot_be_negative_is_none_of_the_coefficients():
    """By its sign it is no more than a step size is: that has to be named."""
    f = functools.partial(block, "all_inside", activation=jax.nn.relu)
    found = explained(
        functools.partial(f, False), composite=composites.MambaLRP("step")
    )
    assert_same(found, explained(functools.partial(f, True)))

    def alone(stop, params, x):
        u = jnp.abs(x)
        b, c = jnp.split(u @ params["x_proj"][:, : 2 * STATE], 2, -1)
        if stop:
            b, c = map(lax.stop_gradient, (b, c))
        return all_inside(jnp.full_like(x, 0.5), u, b, c)

    found, expected = (explained(functools.partial(alone, s)) for s in (False, True))
    assert_same(found, expected)


# ---- what is no state space --------------------------------------------------------


def attention_by_token(params, x):
    """One query at a time, keys and values in a cache, a temperature of the input."""
    q, k, v = jnp.split(x @ params["x_proj"][:, :6], 3, -1)
    warm = jax.nn.softplus(x @ params["out"][:, :1])

    def step(cache, now):
        t, q, k, v, warm = now
        cache = [
            lax.dynamic_update_slice_in_dim(old, (new * warm)[None], t, 0)
            for old, new in zip(cache, (k, v), strict=True)
        ]
        scores = jnp.where(jnp.arange(STEPS) <= t, cache[0] @ q, -jnp.inf)
        return cache, jax.nn.softmax(scores) @ cache[1]

    empty = [jnp.zeros((STEPS, 2))] * 2
    return lax.scan(step, empty, (jnp.arange(STEPS), q, k, v, warm))[1]


def linear_attention(params, x):
    """No softmax: all that tells queries from keys and values is the order."""
    q, k, v = jnp.split(x @ params["x_proj"][:, :6], 3, -1)
    return jnp.tril(q @ k.T) @ v


def linear_attention_by_products(params, x):
    q, k, v = jnp.split(x @ params["x_proj"][:, :6], 3, -1)
    return jnp.tril((q[:, None] * k).sum(-1)) @ v


def attention(params, x):
    q, k, v = jnp.split(x @ params["x_proj"][:, :6], 3, -1)
    return jax.nn.softmax(q @ k.T) @ v


def pooled(params, x):
    """Tokens weighed by the input, cosines, and gates of channels and tokens."""
    weight = x @ params["out"][:, 0]
    h = (weight[:, None] * x).sum(0)
    unit = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    cosines = (unit * unit[0]).sum(-1)
    gates = jax.nn.sigmoid(x.mean(0)) * jax.nn.sigmoid(x.mean(1))[:, None]
    return h + cosines @ (gates * x)


def mixture(params, x):
    """Two experts, weighed by a router."""
    weights = jax.nn.softmax(x @ params["out"])
    experts = jnp.stack([x @ params["gate"], jnp.tanh(x @ params["gate"].T)], 1)
    return jnp.einsum("te,ted->td", weights, experts)


@pytest.mark.parametrize(
    "f",
    [
        attention,
        attention_by_token,
        linear_attention,
        linear_attention_by_products,
        pooled,
        mixture,
    ],
    ids=lambda f: f.__name__,
)
def test_nothing_else_has_coefficients(f):
    np.testing.assert_array_equal(explained(f), explained(f, composite=OLD))


def test_gates_are_held_in_a_product_that_is_written_as_a_contraction():
    """`td,td->td` sums over nothing."""

    def f(written, params, x):
        gate, signal = jax.nn.sigmoid(x @ params["gate"]), x @ params["gate"].T
        return written(gate, signal)

    by_einsum = functools.partial(f, functools.partial(jnp.einsum, "td,td->td"))
    found, expected = (
        explained(by_einsum),
        explained(functools.partial(f, jnp.multiply)),
    )
    assert_same(found, expected)
