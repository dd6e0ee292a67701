"""What is not selected gets and gives exactly nothing, though it be infinite or NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites
from jaxlrp.errors import RelevanceWarning

ZEROS, ONES = np.zeros(4, np.float32), np.ones(4, np.float32)
MASK = np.zeros((2, 4), np.float32)
MASK[1] = [1, 1, 0, 0]


def l1(x):
    size = jnp.abs(x).sum()
    return jnp.where(size == 0, 0, x / size)


def l2(x):
    square = (x**2).sum()
    return jnp.where(square > 0, x / jnp.sqrt(square), 0)


def l2_by_reciprocal(x):
    square = (x**2).sum()
    return jnp.where(square > 0, x * lax.rsqrt(square), 0)


def min_max(x, otherwise=0.0):
    low, high = x.min(), x.max()
    return jnp.where(high > low, (x - low) / (high - low), otherwise)


def half_min_max(x):
    return min_max(x, 0.5)


def standardised(x):
    return jnp.where(x.std() > 0, (x - x.mean()) / x.std(), 0)


def cosine(x):
    a, b = x[:2], x[2:]
    dot = a @ b
    return jnp.where(dot != 0, dot / (jnp.linalg.norm(a) * jnp.linalg.norm(b)), 0)


def of_the_sum(f):
    return lambda x: jnp.where(x.sum() > 0, f(x, x.sum()), 0)


def of_elements(f, otherwise=0.0):
    return lambda x: jnp.where(x > 0, f(x), otherwise)


def masked_mean(x):
    count = jnp.asarray(MASK).sum(-1)
    mean = (x * jnp.asarray(MASK)).sum(-1) / count
    return jnp.where(count > 0, mean, 0)


def masked_mean_of_layer(x):
    count = jnp.asarray(MASK).sum(-1, keepdims=True)
    mean = (jnp.asarray(MASK) * x) @ jnp.ones((4, 3)) / count
    return jnp.where(count > 0, mean, 0)


def by_zero(divide):
    """`x / 0`, never selected."""
    return lambda x: jnp.where(jnp.zeros(4) != 0, divide(x, jnp.zeros(4)), 0)


FORMS = {
    "l1": (l1, ZEROS),
    "l2": (l2, ZEROS),
    "l2 by a reciprocal": (l2_by_reciprocal, ZEROS),
    "min-max": (min_max, ONES),
    "min-max, one half": (half_min_max, ONES),
    "standardised": (standardised, ONES),
    "cosine": (cosine, ZEROS),
    "log of a sum": (of_the_sum(lambda x, s: x * jnp.log(s)), ZEROS),
    "root of a sum": (of_the_sum(lambda x, s: x * jnp.sqrt(s)), ZEROS),
    "power of a sum": (of_the_sum(lambda x, s: x * s**-1.5), ZEROS),
    "reciprocal of a sum": (of_the_sum(lambda x, s: x * (1 / s)), ZEROS),
    "constant by a sum": (of_the_sum(lambda x, s: 3.0 / s), ZEROS),
    "root": (of_elements(jnp.sqrt), ZEROS),
    "log": (of_elements(jnp.log), ZEROS),
    "power": (of_elements(lambda x: x**-0.5), ZEROS),
    "integer power": (of_elements(lambda x: x**-2), ZEROS),
    "x log x": (of_elements(lambda x: x * jnp.log(x)), ZEROS),
    "by itself": (of_elements(lambda x: x / x), ZEROS),
    "sin(x) / x": (of_elements(lambda x: jnp.sin(x) / x, 1.0), ZEROS),
    "masked mean": (masked_mean, ONES),
    "masked mean of a layer": (masked_mean_of_layer, ONES),
    "by zero": (by_zero(jnp.divide), ONES),
    "by zero, a remainder": (by_zero(jnp.fmod), ONES),
    "by zero, a reciprocal": (by_zero(lambda x, zero: x * (1 / zero)), ONES),
    "by zero, a layer": (by_zero(lambda x, zero: x @ jnp.ones((4, 4)) / zero), ONES),
    "log, by a mask": (by_zero(lambda x, zero: jnp.log(x - 2 + zero)), ONES),
    "root, by a mask": (by_zero(lambda x, zero: jnp.sqrt(x - 2 + zero)), ONES),
}
COMPOSITES = [
    composites.Default(),
    composites.AttnLRP(),
    composites.CPLRP(),
    composites.Epsilon(),
    composites.EpsilonPlus(),
]


def behind_a_layer(f):
    return lambda x: f(x @ jnp.eye(4, dtype=x.dtype))


def in_a_scan(f):
    return lambda x: lax.scan(lambda c, _: (c, f(c)), x, None, 2)[1]


def relevances(f, x, composite):
    """In as many ways as there are to evaluate it."""
    lrp = jaxlrp.lrp(f, composite, target="all")
    yield "eager", lrp(x)
    yield "jit", jax.jit(lrp)(x)
    yield "vmap", jaxlrp.lrp(jax.vmap(f), composite, target="all")(jnp.stack([x, x]))
    yield "scan", jaxlrp.lrp(in_a_scan(f), composite, target="all")(x)


def nothing_expected(name):
    return name not in ("masked mean", "masked mean of a layer")


@pytest.mark.always
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TargetWarning")
@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda c: c.name)
@pytest.mark.parametrize("name", FORMS)
def test_what_is_not_selected_has_no_relevance(name, composite):
    f, x = FORMS[name]
    for g in (f, behind_a_layer(f)):
        for how, found in relevances(g, jnp.asarray(x), composite):
            assert np.isfinite(found).all(), how
            if nothing_expected(name):
                np.testing.assert_array_equal(found, 0, err_msg=how)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("name", FORMS)
def test_nor_in_half_precision(name, dtype):
    f, x = FORMS[name]
    found = jaxlrp.lrp(behind_a_layer(f), target="all")(jnp.asarray(x, dtype))
    assert np.isfinite(np.asarray(found, np.float32)).all()


@pytest.mark.parametrize("name", FORMS)
def test_the_audit_is_finite(name):
    f, x = FORMS[name]
    report = jaxlrp.audit(behind_a_layer(f), target="all")(jnp.asarray(x))
    assert np.isfinite([report.total_in, report.total_out, report.size_in]).all()


def test_a_row_that_is_padding_leaves_the_others_as_they_are():
    x = jnp.arange(8.0).reshape(2, 4)
    found = jaxlrp.lrp(masked_mean, target="all")(x)
    np.testing.assert_allclose(found, [[0, 0, 0, 0], [2, 2.5, 0, 0]], rtol=1e-6)


@pytest.mark.parametrize("name", ["l1", "min-max", "masked mean", "by zero"])
def test_the_gradient_of_the_relevance_is_finite(name):
    f, x = FORMS[name]
    explained = jaxlrp.lrp(behind_a_layer(f), target="all")
    found = jax.grad(lambda x: (explained(x) ** 2).sum())(jnp.asarray(x))
    assert np.isfinite(found).all()


def test_a_nan_that_is_selected_stays():
    with pytest.warns(RelevanceWarning, match="NaN or infinite"):
        found = jaxlrp.lrp(lambda x: jnp.log(x), target="all")(-jnp.ones(2))
    assert np.isnan(found).all()
