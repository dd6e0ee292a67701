"""Relevance does not depend on how a function is written, or the pair says why."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites
from tests.equal_programs import PAIRS, SHAPE

STABILISER = 1e-15


def unstabilised(composite):
    """With stabilisers no larger than rounding: they count the divisions.

    How many steps divide, and over which features, depends on how they are written;
    each moves relevance by some millionths, which would hide what else moves it.
    """

    def small(line):
        if not hasattr(line.rule, "epsilon"):
            return line
        rule = dataclasses.replace(line.rule, epsilon=STABILISER)
        return dataclasses.replace(line, rule=rule)

    lines = tuple(map(small, composite.assignments))
    return dataclasses.replace(composite, assignments=lines)


COMPOSITES = {
    c.name: unstabilised(c)
    for c in (
        composites.Default(),
        composites.AttnLRP(),
        composites.CPLRP(),
        composites.EpsilonPlus(),
    )
}
AMPLIFIED = 10
"""How much more than values relevances may differ: they are divided by values."""
rng = np.random.default_rng(2)
IN = rng.normal(size=(5, SHAPE[1])) / 2
X = rng.normal(size=(SHAPE[0], 5))


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def between(f):
    """A function between a layer and one that mixes all of its result."""
    here = jax.eval_shape(f, jax.ShapeDtypeStruct(SHAPE, jnp.float64))
    out = np.random.default_rng(3).normal(size=(here.size, 4))
    return lambda x: f(x @ IN).reshape(-1) @ out


def explained(f, composite):
    """The values, and the relevance of the input."""
    both = jaxlrp.value_and_lrp(between(f), composite, target="all")(X)
    return [np.asarray(result) for result in both]


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TrainingWarning")
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.IndependentArgumentWarning")
@pytest.mark.parametrize("name", PAIRS)
def test_relevance_does_not_depend_on_how_it_is_written(name):
    pair = PAIRS[name]
    for label, composite in COMPOSITES.items():
        value, wanted = explained(pair.one, composite)
        same, found = explained(pair.other, composite)
        tolerance = pair.precision * max(np.abs(value).max(), 1)
        np.testing.assert_allclose(same, value, 0, tolerance)
        error, size = np.abs(found - wanted).max(), np.abs(wanted).max()
        if label in pair.but:
            assert error > 1e-3 * size, f"{name}: {label} agrees"
        else:
            message = f"{label}: {error:.2g} of {size:.2g}"
            assert error <= AMPLIFIED * pair.precision * size, message


def test_there_are_a_hundred_pairs_and_few_differ():
    assert len(PAIRS) >= 100
    assert sum(bool(p.but) for p in PAIRS.values()) <= len(PAIRS) / 10
    assert all(p.why for p in PAIRS.values() if p.but)
