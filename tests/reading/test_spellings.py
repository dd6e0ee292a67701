"""All spellings of a function have the relevance of its reference form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites
from jaxlrp.errors import UnreadSoftmaxWarning
from tests.spellings import GROUPS

COMPOSITES = (
    composites.Default(),
    composites.AttnLRP(),
    composites.CPLRP(),
    composites.EpsilonPlus(),
)
ROUNDED, EPSILON = 1e-9, 1e-5
"""EpsilonPlus' stabiliser is 1e-6, whatever the size of what it is added to."""
EXAMPLES = 2
CASES = [(g, s) for g, group in GROUPS.items() for s in group.spellings]


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def arguments(group):
    """Weights of layers, of scores and of values, and what they are made of."""
    draw = np.random.default_rng(0).normal
    first, *others = GROUPS[group].shapes
    x = draw(size=(EXAMPLES, 4))
    return draw(size=(4, *first)), [draw(size=(4, *shape)) for shape in others], x


def explained(f, group, composite, mapped):
    """The relevance of each example, by `vmap` or one by one."""
    w, us, x = arguments(group)

    def through(x):
        return f(x @ w, *(jnp.tensordot(x, u, 1) for u in us))

    if mapped:
        whole = jaxlrp.lrp(jax.vmap(through), composite, target="all")
        return np.asarray(jax.jit(whole)(x))
    one = jax.jit(jaxlrp.lrp(through, composite, target="all"))
    return np.stack([one(row) for row in x])


@functools.cache
def expected(group):
    with jax.enable_x64(True):
        f = GROUPS[group].reference
        return [
            None if c.name in GROUPS[group].but else explained(f, group, c, False)
            for c in COMPOSITES
        ]


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TargetWarning")
@pytest.mark.parametrize("mapped", [False, True], ids=["alone", "vmap"])
@pytest.mark.parametrize(("group", "spelling"), CASES, ids=str)
def test_relevance_does_not_depend_on_the_spelling(group, spelling, mapped):
    f = GROUPS[group].spellings[spelling]
    for composite, wanted in zip(COMPOSITES, expected(group), strict=True):
        if wanted is None:
            continue
        found = explained(f, group, composite, mapped)
        precision = EPSILON if composite.name == "EpsilonPlus" else ROUNDED
        tolerance = precision * np.abs(wanted).max()
        message = f"{group}, {spelling}, {composite.name}"
        np.testing.assert_allclose(
            found, wanted, rtol=0, atol=tolerance, err_msg=message
        )


def seg(s):
    """The issue's example: attention over the edges that lead to one node."""
    ids = jnp.zeros(3, int)
    e = jnp.exp(s - jax.ops.segment_max(s, ids, 1)[ids])
    return e / jax.ops.segment_sum(e, ids, 1)[ids]


def test_no_relevance_is_divided_by_the_distance_to_the_maximum():
    v, s = jnp.array([1.0, -2.0, 0.5]), jnp.array([1.0, 1.0001, -3.0])
    found = jaxlrp.lrp(lambda s: seg(s) @ v, composites.AttnLRP(), target="all")(s)
    np.testing.assert_allclose(found, [0.7387, -0.7478, -0.0270], atol=5e-5)


def test_an_exponential_of_a_difference_to_the_maximum_keeps_its_derivative():
    """Also where nothing divides: at the maximum its argument is zero."""
    s = jnp.array([1.0, 1.0 + 1e-9, -3.0])
    f = lambda s: jnp.exp(s - s.max()) * jnp.arange(3.0)  # noqa: E731
    found = jaxlrp.lrp(f, composites.AttnLRP(), target="all")(s)
    assert np.abs(found).max() < 10


def odd(s):
    e = jnp.exp(s - s.max())
    return e / (e.sum() + s.sum() ** 2)


def test_what_is_no_softmax_is_warned_of_by_its_line():
    s = jnp.array([1.0, 2.0, -3.0])
    with pytest.warns(UnreadSoftmaxWarning, match=r"test_spellings\.py:\d+.*\(odd\)"):
        found = jaxlrp.lrp(odd, composites.AttnLRP(), target="all")(s)
    assert np.isfinite(found).all()
    plan = jaxlrp.plan(odd, composites.AttnLRP())(s)
    assert [row.primitives for row in plan.rows if row.unread] == [("div",)]
    assert "not read as softmax" in str(plan)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.exp(x) / (1 + jnp.exp(x)),
        lambda x: (jnp.exp(x) - jnp.exp(-x)) / (jnp.exp(x) + jnp.exp(-x)),
        lambda x: jnp.log(jnp.exp(x) + jnp.exp(-x)),
        lambda x: jnp.logaddexp(x, 0.0),
    ],
)
def test_functions_of_each_element_are_no_softmax(f):
    plan = jaxlrp.plan(f, composites.AttnLRP())(jnp.ones((2, 3)))
    assert "softmax" not in [row.role for row in plan.rows]
    assert not any(row.unread for row in plan.rows)
