"""All spellings of a function have the relevance of its reference form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites
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
    """Features behind a layer's weights, whose relevance depends on the layer's rule."""
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
