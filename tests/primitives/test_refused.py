"""What relevance cannot pass is refused by name, with a reason; off its way it runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse

import jaxlrp
from jaxlrp.errors import UnexplainedPrimitiveError
from jaxlrp.primitives import Kind, entries

X = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, (3, 3)), jnp.float32)


def through_an_array(x):
    box = jax.new_ref(jnp.zeros_like(x))
    box[...] = 2 * x
    return box[...]


def from_an_array(x):
    return jax.new_ref(x)[...]


def product_of_sparse(x):
    a = sparse.BCOO.fromdense(x, nse=9)
    return (a @ a).todense()


REFUSED = {
    "a write": (through_an_array, "swap.*mutable arrays"),
    "a read": (from_an_array, "mutable arrays"),
    "eigenvectors": (lambda x: jnp.linalg.eig(x)[1].real, "eig.*enable_eigvec_derivs"),
    "a parameter": (lambda x: lax.betainc(x, x + 1, 0.5 + 0 * X), "no derivative"),
    "an order": (lambda x: lax.polygamma(x, 1 + 0 * X), "no derivative"),
    "in place": (lambda x: x.at[0].apply(jnp.tanh), r"scatter.*use x.at\[i\].set"),
    "sparse": (product_of_sparse, "make one of them dense"),
    "zeta": (lambda x: lax.zeta(x + 1, x), "no derivative"),
    "schur": (lambda x: jax.scipy.linalg.schur(x)[0], "schur.*no derivative"),
    "updated factor": (
        lambda x: lax.linalg.cholesky_update(jnp.eye(3, dtype=x.dtype), x[0]),
        "no derivative",
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", REFUSED)
def test_relevance_is_refused_by_name(name):
    f, reason = REFUSED[name]
    with pytest.raises(UnexplainedPrimitiveError, match=reason) as caught:
        jax.eval_shape(jaxlrp.lrp(f, target="all"), X)
    assert "test_refused.py" in str(caught.value)
    assert "jaxlrp.custom_lrp" in str(caught.value)


def test_plan_shows_what_is_refused():
    plan = jaxlrp.plan(from_an_array)(X)
    assert {row.primitives for row in plan.unexplained} == {("new_ref",), ("get",)}


def test_what_relevance_does_not_pass_is_no_obstacle():
    def f(x):
        box = jax.new_ref(jnp.ones((3, 3), x.dtype))
        box[...] = box[...] * 3
        return x * box[...]

    np.testing.assert_allclose(jaxlrp.lrp(f, target="all")(X), 3 * X)


def test_every_refusal_has_a_reason():
    refused = {n: e for n, e in entries().items() if e.kind is Kind.REFUSED}
    assert not [n for n, e in refused.items() if len(e.reason) < 20]
