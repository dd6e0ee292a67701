"""`vmap` changes no reading of an elementwise function, whatever it spreads.

Each operand is a number or an array, mapped over or not, attributed or constant.
"""

import itertools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy import special

import jaxlrp
from jaxlrp import composites
from jaxlrp._program.program import flatten
from jaxlrp.primitives import Kind, lookup

BATCH, EACH = 2, 4
"""Examples, and how many of the combinations are drawn for each function and rule."""
ANY, POSITIVE, UNIT, LARGE = (-2.0, 2.0), (0.5, 2.0), (0.2, 0.9), (1.5, 2.5)

FUNCTIONS = {
    # of the rule book
    "add": (lax.add, ANY, 2),
    "sub": (lax.sub, ANY, 2),
    "mul": (lax.mul, ANY, 2),
    "div": (lax.div, POSITIVE, 2),
    "rem": (lax.rem, ANY, 2),
    "max": (lax.max, ANY, 2),
    "min": (lax.min, ANY, 2),
    "pow": (lax.pow, POSITIVE, 2),
    "atan2": (lax.atan2, ANY, 2),
    "nextafter": (lax.nextafter, POSITIVE, 2),
    "igamma": (lax.igamma, POSITIVE, 2),
    "igammac": (lax.igammac, POSITIVE, 2),
    "select_n": (lambda a, b: jnp.where(a > b, a, b), ANY, 2),
    "clamp": (lambda a, b, c: jnp.clip(a, -b, c), UNIT, 3),
    "betainc": (special.betainc, UNIT, 3),
    # of several
    "xlogy": (special.xlogy, UNIT, 2),
    "xlog1py": (special.xlog1py, UNIT, 2),
    "kl_div": (special.kl_div, UNIT, 2),
    "rel_entr": (special.rel_entr, UNIT, 2),
    "entr": (special.entr, UNIT, 1),
    "beta": (special.beta, POSITIVE, 2),
    "betaln": (special.betaln, POSITIVE, 2),
    "poch": (special.poch, LARGE, 2),
    "polygamma": (lambda a, b: special.polygamma(1, a) * b, POSITIVE, 2),
    "multigammaln": (lambda a: special.multigammaln(a, 2), LARGE, 1),
    "log_ndtr": (special.log_ndtr, ANY, 1),
    "logit": (special.logit, UNIT, 1),
    "sinc": (jnp.sinc, POSITIVE, 1),
    "logaddexp": (jnp.logaddexp, ANY, 2),
    "logaddexp2": (jnp.logaddexp2, ANY, 2),
    "hypot": (jnp.hypot, ANY, 2),
    "copysign": (jnp.copysign, ANY, 2),
    "mod": (jnp.mod, ANY, 2),
    "fmax": (jnp.fmax, ANY, 2),
    "float_power": (jnp.float_power, POSITIVE, 2),
    "floor_divide": (jnp.floor_divide, POSITIVE, 2),
    "heaviside": (lambda a, b: a * jnp.heaviside(a, b), ANY, 2),
    "gelu": (jax.nn.gelu, ANY, 1),
    "mish": (jax.nn.mish, ANY, 1),
    "selu": (jax.nn.selu, ANY, 1),
    "hard_swish": (jax.nn.hard_swish, ANY, 1),
    "elu": (jax.nn.elu, ANY, 2),
    "celu": (lambda a, b: jax.nn.celu(-a, b), POSITIVE, 2),
    "leaky_relu": (jax.nn.leaky_relu, ANY, 2),
    "squareplus": (jax.nn.squareplus, POSITIVE, 2),
    "swish": (lambda a, b: a * jax.nn.sigmoid(b * a), ANY, 2),
    "snake": (lambda a, b: a + jnp.sin(a * b) ** 2 / b, POSITIVE, 2),
    "softplus": (lambda a, b: jax.nn.softplus(a * b) / b, POSITIVE, 2),
    "huber": (
        lambda a, b: jnp.where(abs(a - b) < 1, (a - b) ** 2 / 2, abs(a - b) - 0.5),
        ANY,
        2,
    ),
    "gauss": (lambda a, b, c: jnp.exp(-(((a - b) / c) ** 2)), POSITIVE, 3),
    "logistic": (lambda a, b, c: c / (1 + jnp.exp(-b * a)), POSITIVE, 3),
    "poisson": (lambda a, b: a * jnp.log(a) - a + b, POSITIVE, 2),
    "tanh": (lambda a, b: jnp.tanh(a * b) + a, ANY, 2),
    "bent twice": (lambda a, b: (jax.nn.softplus(a) + 1) * b, ANY, 2),
    "lerp": (lambda a, b, c: a * (1 - c) + b * c, UNIT, 3),
}
COMPOSITES = [composites.Default(), composites.AttnLRP(), composites.Epsilon()]


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def combinations(count):
    """`(shapes, axes that are mapped, attributed)`, with something of each."""
    shapes = itertools.product([(), (3,)], repeat=count)
    mapped = (m for m in itertools.product([False, True], repeat=count) if any(m))
    active = (a for a in itertools.product([False, True], repeat=count) if any(a))
    return list(itertools.product(shapes, list(mapped), list(active)))


def given_apart(f, active):
    """`f` of what is constant and of what is attributed."""

    def apart(constants, attributed):
        constants, attributed = iter(constants), iter(attributed)
        return f(*[next(attributed if a else constants) for a in active])

    return apart


def parted(operands, active):
    pairs = list(zip(operands, active, strict=True))
    return [x for x, a in pairs if not a], [x for x, a in pairs if a]


def by_vmap(f, composite, operands, axes, active, out_axes):
    whole = given_apart(jax.vmap(f, axes, out_axes), active)
    return jaxlrp.lrp(whole, composite, target="all")(*parted(operands, active))


def by_loop(f, composite, operands, axes, active):
    """What is not mapped gets the sum over all examples."""
    one = jaxlrp.lrp(given_apart(f, active), composite, target="all")
    sums = [np.zeros(np.shape(x)) for x in operands]
    for i in range(BATCH):
        pairs = zip(operands, axes, strict=True)
        row = [
            x if axis is None else np.take(np.asarray(x), i, axis) for x, axis in pairs
        ]
        row = list(map(jnp.asarray, row))  # a number would be known
        found = iter(one(*parted(row, active)))
        for place, (axis, a) in enumerate(zip(axes, active, strict=True)):
            if a:
                at = np.index_exp[:] * (axis or 0) + (i,)
                sums[place][... if axis is None else at] += next(found)
    return parted(sums, active)[1]


@pytest.mark.always
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TargetWarning")
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.IndependentArgumentWarning")
@pytest.mark.filterwarnings("ignore::jaxlrp.errors.RelevanceWarning")
@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda c: c.name)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_relevance_by_vmap_is_that_of_a_loop(name, composite):
    f, (low, high), count = FUNCTIONS[name]
    draw = np.random.default_rng(zlib.crc32(f"{name} {composite.name}".encode()))
    choices = combinations(count)
    if name == "betainc":  # JAX has no derivative of it in its parameters
        choices = [c for c in choices if c[2] == (False, False, True)]
    for at in draw.permutation(len(choices))[:EACH]:
        shapes, mapped, active = choices[at]
        axes = [
            int(draw.integers(len(shape) + 1)) if m else None
            for shape, m in zip(shapes, mapped, strict=True)
        ]
        sizes = [
            shape if axis is None else (*shape[:axis], BATCH, *shape[axis:])
            for shape, axis in zip(shapes, axes, strict=True)
        ]
        operands = [jnp.asarray(draw.uniform(low, high, size)) for size in sizes]
        out_axes = int(draw.integers(max(map(len, shapes)) + 1))
        found = by_vmap(f, composite, operands, tuple(axes), active, out_axes)
        expected = by_loop(f, composite, operands, axes, active)
        message = f"{name}: shapes {shapes}, axes {axes}, attributed {active}"
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_allclose(a, b, 1e-9, 1e-9, err_msg=message)


def test_every_elementwise_primitive_of_several_operands_is_among_them():
    """But for those without a derivative, and those of floats' inside."""
    used = set()
    for f, _, count in FUNCTIONS.values():
        program = flatten(jax.make_jaxpr(f)(*[0.5] * count))
        used |= {e.primitive for e in program.equations if len(e.inputs) > 1}
    named = {p.name for p in used if (e := lookup(p)) and e.kind is Kind.ELEMENTWISE}
    wanted = {"add", "sub", "mul", "div", "rem", "max", "min", "pow", "atan2"}
    wanted |= {"nextafter", "igamma", "igammac", "select_n"}
    assert wanted <= named


def test_the_issues_example():
    """Arrays against a number: the logarithm's argument is spread, or is not."""
    x, y = jnp.array([[0.3, 0.8], [0.5, 0.2]]), jnp.array([0.7, 0.4])
    for f in (special.xlogy, special.xlog1py, special.kl_div):
        for active in ((True, False), (False, True), (True, True)):
            found = by_vmap(f, None, [x, y], (0, 0), active, 0)
            expected = by_loop(f, None, [x, y], [0, 0], active)
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b, 1e-9, 1e-9)
