"""What the forward pass keeps for the reverse pass, and what is made of it again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp
from benchmarks import gradient_ratio, hlo
from jaxlrp import _trace, composites, rules
from jaxlrp._reading import finish
from tests.models import usual as models

EPSILON = composites.Uniform(rules.Epsilon(1e-3))
LRP0 = composites.Uniform(rules.LRP0())
ARGNUMS = (0, 1, 2)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng([seed, *shape]).normal(size=shape))


def cell(x, h, c):
    """A gated unit: halves of `W x` and `U h + b` make its gate and its signal."""
    w, u, b = draw(3, 8), draw(4, 8, seed=1), draw(8, seed=2)
    (wg, ws), (ug, us) = (jnp.split(z, 2, axis=1) for z in (x @ w, h @ u + b))
    return jnp.tanh(jax.nn.sigmoid(wg + ug) * c + jnp.tanh(ws + us) * c)


def inputs():
    return draw(2, 3), draw(2, 4), draw(2, 4, seed=1)


def origins(composite):
    """The activations that relevance passes, and what makes their roots again."""
    traced = _trace.trace(cell, inputs(), {}, composite, ARGNUMS, False)
    steps = [s for s in traced.reading.steps if s.role == "activation"]
    return [(*_names([s.main]), _names(s.recipe)) for s in steps]


def _names(equations):
    return [str(e.primitive) for e in equations]


GATES, STATE = ["split", "split", "add"], ["mul", "mul", "add"]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("composite", "gates", "state"),
    [
        (EPSILON, GATES, STATE),
        (LRP0, [], STATE),  # no layer keeps what it gives
        (EPSILON.on("dense", rules.Epsilon(1e-3, bias="ignore")), [], STATE),
        (EPSILON.on("sum", rules.Norm(1e-3)), [], []),  # divides by the sum
        (EPSILON.on("product", rules.SignalTakesAll()), GATES, []),
    ],
    ids=["epsilon", "lrp0", "no bias", "norm of sums", "gates held"],
)
def test_a_root_is_made_again_of_what_rules_keep(composite, gates, state):
    expected = [("logistic", gates), ("tanh", gates), ("tanh", state)]
    held = composite.assignments[-1].role == "product"
    assert origins(composite) == expected[held:]


@pytest.mark.parametrize("composite", [EPSILON, LRP0], ids=["epsilon", "lrp0"])
def test_what_is_made_again_changes_no_relevance_and_no_derivative(
    composite, monkeypatch
):
    def explained(*args):
        return jaxlrp.lrp(cell, composite, argnums=ARGNUMS, target="all")(*args)

    def both(*args):
        loss = lambda *args: sum(jnp.sum(jnp.sin(r)) for r in explained(*args))  # noqa: E731
        return explained(*args), jax.grad(loss, ARGNUMS)(*args)

    found = jax.jit(both)(*inputs())
    monkeypatch.setattr(finish, "with_saved", lambda steps, _: tuple(steps))
    jax.clear_caches()
    expected = jax.jit(both)(*inputs())
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), *(found, expected)
    )


def spread(x):
    """A step for each channel, and a decay for each channel and state."""
    return jnp.exp(jnp.tanh(x)[:, :, None] * draw(3, 4)).sum(-1)


def test_a_root_is_made_again_of_what_is_smaller():
    traced = _trace.trace(spread, (draw(2, 3),), {}, EPSILON, (0,), False)
    (exp,) = (s for s in traced.reading.steps if str(s.main.primitive) == "exp")
    assert _names(exp.recipe) == ["mul"]
    assert exp.sources[0].aval.shape == (2, 3, 1)


def test_a_root_of_the_size_of_what_makes_it_is_kept():
    f = lambda x: jnp.exp(x * draw(3))  # noqa: E731
    traced = _trace.trace(f, (draw(2, 3),), {}, EPSILON, (0,), False)
    assert [s.recipe for s in traced.reading.steps if s.role == "activation"] == [()]


HALVES = {
    "a unit with a gate": lambda a, g: a * jax.nn.sigmoid(g),
    "two activations": lambda a, g: jnp.sin(a) + jnp.tanh(g),
    "of one product": lambda a, g: jnp.tanh(jnp.split(a * g, [1], axis=1)[1]),
}


@pytest.mark.parametrize("composite", [EPSILON, LRP0], ids=["epsilon", "lrp0"])
@pytest.mark.parametrize("name", HALVES)
def test_any_part_may_be_a_root(name, composite, monkeypatch):
    w, b = draw(3, 8), draw(8)

    def f(x):
        return HALVES[name](*jnp.split(x @ w + b, 2, axis=1))

    (x, *_), explain = inputs(), jaxlrp.lrp(f, composite, target="all")
    found = explain(x)
    monkeypatch.setattr(finish, "with_saved", lambda steps, _: tuple(steps))
    np.testing.assert_allclose(found, explain(x), rtol=1e-12)
    if composite is LRP0:
        absorbed = jaxlrp.audit(f, composite, target="all")(x).absorbed
        np.testing.assert_allclose(
            found.sum() + sum(absorbed.values()), f(x).sum(), rtol=1e-9
        )


def test_a_recurrent_network_keeps_no_sums_of_its_layers():
    apply, params, x = models.network(
        models.Recurrent(nn.OptimizedLSTMCell, 64, 5), 1, 50, 64
    )
    sides = gradient_ratio.gradient(apply), gradient_ratio.relevance(apply, EPSILON)
    slope, found = (
        hlo.temporary(jax.jit(side).lower(params, x).compile()) for side in sides
    )
    assert found <= 1.2 * slope
