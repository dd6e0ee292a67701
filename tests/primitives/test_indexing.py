"""Indices decide where relevance goes and receive none."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp

X = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, (4, 3)), jnp.float32)
U = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, (2, 3)), jnp.float32)
ROWS = jnp.array([3, 1])


def both(f):
    """Relevances of operand and update, with every output its own value."""
    return jaxlrp.lrp(f, argnums=(0, 1), target="all")(X, U)


def test_what_is_written_over_gets_nothing():
    to_x, to_u = both(lambda x, u: x.at[ROWS].set(u))
    np.testing.assert_allclose(to_x, X.at[ROWS].set(0))
    np.testing.assert_allclose(to_u, U)


def test_what_is_added_is_shared_in_proportion():
    to_x, to_u = both(lambda x, u: x.at[ROWS].add(u))
    np.testing.assert_allclose(to_x, X, rtol=1e-6)
    np.testing.assert_allclose(to_u, U, rtol=1e-6)


@pytest.mark.parametrize("kind", ["max", "min"])
def test_what_wins_a_scatter_takes_all(kind):
    f = lambda x, u: getattr(x.at[ROWS], kind)(u)  # noqa: E731
    to_x, to_u = both(f)
    np.testing.assert_allclose(to_x.sum() + to_u.sum(), f(X, U).sum(), rtol=1e-5)


def test_update_of_a_slice():
    f = lambda x, u: lax.dynamic_update_slice(x, u, (1, 0))  # noqa: E731
    to_x, to_u = both(f)
    np.testing.assert_allclose(to_x, X.at[1:3].set(0))
    np.testing.assert_allclose(to_u, U)


def test_lookup_out_of_range_gets_nothing():
    f = lambda x: x.at[jnp.array([0, 9])].get(mode="fill", fill_value=5.0)  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found, X.at[1:].set(0))


def test_indices_that_depend_on_the_input_get_nothing():
    f = lambda x: x[jnp.argsort(x[:, 0])] * jnp.arange(4.0)[:, None]  # noqa: E731
    order = np.argsort(X[:, 0])
    rank = np.empty(4)
    rank[order] = np.arange(4)
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found, X * rank[:, None], rtol=1e-6)


@pytest.mark.parametrize("rows", [[3, 1], [3, 3]])
def test_a_factor_of_zero_in_a_scatter_passes_nothing(rows):
    """A product gives each factor an equal part; one of zero is zero."""
    u = U.at[0, 1].set(0.0)
    f = lambda x, u: x.at[jnp.array(rows)].multiply(u)  # noqa: E731
    to_x, to_u = jaxlrp.lrp(f, argnums=(0, 1), target="all")(X, u)
    assert to_u[0, 1] == to_x[3, 1] == 0
    np.testing.assert_allclose(to_x.sum() + to_u.sum(), f(X, u).sum(), rtol=1e-5)
