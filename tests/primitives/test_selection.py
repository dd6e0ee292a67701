"""The winner takes all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp

X = jnp.asarray(np.random.default_rng(0).permutation(12).reshape(3, 4) + 1.0)

SELECTIONS = {
    "max": lambda x: x.max(1),
    "min": lambda x: x.min(0),
    "pool": lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 2), "SAME"),
    "min pool": lambda x: lax.reduce_window(
        x, jnp.inf, lax.min, (2, 2), (1, 1), "VALID"
    ),
    "cumulative max": lambda x: lax.cummax(x, 1),
    "cumulative min": lambda x: lax.cummin(x, 0),
    "sort": lambda x: jnp.sort(x, 1),
    "sort by keys": lambda x: lax.sort((x[:, 0], x[:, 1]), num_keys=1)[1],
    "descending": lambda x: jnp.sort(x, 1, descending=True),
    "top k": lambda x: lax.top_k(x, 2)[0],
    "median": lambda x: jnp.sort(x.ravel())[6],
    "argmax and gather": lambda x: jnp.take_along_axis(
        x, x.argmax(1, keepdims=True), 1
    ),
}


@pytest.mark.parametrize("name", SELECTIONS)
def test_winner_takes_all(name):
    select = SELECTIONS[name]
    out, pull = jaxlrp.relprop(select, X)
    seeds = jnp.eye(out.size).reshape(out.size, *out.shape)
    landed = np.asarray(jax.vmap(pull)(seeds)).reshape(out.size, -1)
    expected = (np.asarray(out).reshape(-1, 1) == np.asarray(X).ravel()).astype(float)
    np.testing.assert_allclose(landed, expected, rtol=1e-6)
    found = jaxlrp.lrp(select, target="all")(X)
    np.testing.assert_allclose(found.ravel(), expected.sum(0) * X.ravel(), rtol=1e-6)
    roles = {row.role for row in jaxlrp.plan(select)(X).rows}
    assert roles <= {"selection", "structural", "inactive"}


def test_ties_of_a_maximum_are_shared_and_of_a_pool_go_to_the_first():
    x = jnp.array([3.0, 1.0, 3.0])
    assert jaxlrp.lrp(jnp.max)(x).tolist() == [1.5, 0.0, 1.5]
    pool = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (3,), (1,), "VALID")  # noqa: E731
    assert jaxlrp.lrp(pool)(x).tolist() == [3.0, 0.0, 0.0]


@pytest.mark.whole
@pytest.mark.parametrize("ties", ["first", "share"])
def test_maximum_of_two_values(ties):
    composite = jaxlrp.composites.Composite("t").on(
        "selection", jaxlrp.rules.WinnerTakesAll(ties=ties)
    )
    a, b = jnp.array([1.0, 3.0, 2.0]), jnp.array([2.0, 1.0, 2.0])
    explain = jaxlrp.lrp(jnp.maximum, composite, argnums=(0, 1), target="all")
    to_a, to_b = explain(a, b)
    assert to_a.tolist() == [0, 3, 1] and to_b.tolist() == [2, 0, 1]


def test_value_at_its_bound_shares_with_it():
    x, bound = jnp.array([1.0, 3.0, 2.0]), jnp.array([2.0, 2.0, 2.0])
    clamp = lambda x, high: lax.clamp(jnp.zeros(3), x, high)  # noqa: E731
    to_x, to_bound = jaxlrp.lrp(clamp, argnums=(0, 1), target="all")(x, bound)
    assert to_x.tolist() == [1, 0, 1] and to_bound.tolist() == [0, 2, 1]


def test_signs_survive_a_selection():
    composite = jaxlrp.composites.Uniform(jaxlrp.rules.ZPlus())
    w = jnp.cos(jnp.arange(12.0)).reshape(4, 3)
    known = jaxlrp.lrp(lambda x: jnp.sort(jax.nn.relu(x)) @ w, composite)(X)
    general = jaxlrp.lrp(lambda x: jnp.sort(x) @ w, composite)(X)
    np.testing.assert_allclose(known, general, rtol=1e-5)


@pytest.mark.always
def test_windows_with_holes_give_all_to_their_first_winner():
    """JAX has no derivative there: maxima and minima, and ties."""
    x = np.array([3.0, 1.0, 2.0, 1.0, 5.0, 7.0, 0.0], np.float32)
    for init, join in ((-jnp.inf, lax.max), (jnp.inf, lax.min)):
        pool = lambda x, i=init, j=join: lax.reduce_window(  # noqa: E731
            x, i, j, (2,), (1,), [(1, 1)], window_dilation=(2,)
        )
        padded = np.concatenate([[init], x, [init]])
        pairs = [padded[:-2], padded[2:]]
        picks = np.argmax(pairs, 0) if join is lax.max else np.argmin(pairs, 0)
        chosen = np.choose(picks, pairs)
        np.testing.assert_array_equal(pool(x), chosen)
        wanted = np.zeros(9)
        np.add.at(wanted, np.arange(7) + 2 * picks, chosen)
        wanted = wanted[1:-1]
        found = jaxlrp.lrp(pool, target="all")(x)
        np.testing.assert_allclose(found, wanted, rtol=1e-6)
