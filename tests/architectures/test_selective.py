"""Selective state-space models: one relevance, however the recurrence is written."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites

STEPS, WIDTH, STATE = 6, 3, 2
rng = np.random.default_rng(0)
PARAMS = {
    name: jnp.asarray(rng.normal(size=shape), jnp.float32)
    for name, shape in {
        "x_proj": (WIDTH, 2 * STATE + WIDTH),
        "skip": (WIDTH,),
        "gate": (WIDTH, WIDTH),
        "out": (WIDTH, 2),
    }.items()
}
DECAY = -jnp.asarray(rng.uniform(0.2, 1.0, (WIDTH, STATE)), jnp.float32)
X = jnp.asarray(rng.normal(size=(STEPS, WIDTH)), jnp.float32)


def by_scan(decay, drive, c):
    def step(state, now):
        decay, drive, c = now
        state = decay * state + drive
        return state, jnp.einsum("dn,n->d", state, c)

    return lax.scan(step, jnp.zeros((WIDTH, STATE)), (decay, drive, c))[1]


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


FORMS = {f.__name__: f for f in (by_scan, by_associative_scan, by_convolution)}


def selective(form, stop, params, x):
    """Coefficients made of the input: by a scope, or stopped by the model itself."""
    u = jax.nn.silu(x)
    with jax.named_scope("x_proj"):
        projected = u @ params["x_proj"]
        b, c, step = jnp.split(projected, [STATE, 2 * STATE], -1)
        step = jax.nn.softplus(step)
    if stop:
        b, c, step = map(lax.stop_gradient, (b, c, step))
    decay = jnp.exp(step[..., None] * DECAY)
    y = FORMS[form](decay, (step * u)[..., None] * b[:, None], c)
    y = (y + params["skip"] * u) * jax.nn.silu(x @ params["gate"])
    return y[-1] @ params["out"]


@functools.cache
def stopped():
    f = functools.partial(selective, "by_scan", True)
    return np.asarray(jax.jit(jaxlrp.lrp(f, composites.MambaLRP()))(PARAMS, X))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_relevance_of_coefficients_that_are_constants(form):
    f = functools.partial(selective, form, False)
    composite = composites.MambaLRP("*x_proj*")
    found = jax.jit(jaxlrp.lrp(f, composite))(PARAMS, X)
    size = np.abs(stopped()).max()
    np.testing.assert_allclose(found, stopped(), rtol=1e-4, atol=1e-4 * size)
    value = f(PARAMS, X).max()
    np.testing.assert_allclose(found.sum(), value, rtol=1e-3)
    audit = jaxlrp.audit(f, composite)(PARAMS, X)
    assert abs(audit.residual) < 1e-4 * abs(audit.total_out)


def test_without_a_scope_coefficients_take_their_part():
    f = functools.partial(selective, "by_scan", False)
    found = jaxlrp.lrp(f, composites.MambaLRP())(PARAMS, X)
    assert np.abs(found - stopped()).max() > 0.1 * np.abs(stopped()).max()
