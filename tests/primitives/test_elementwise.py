"""What the book claims of elementwise primitives holds for numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Literal

import jaxlrp
from jaxlrp import _compat
from jaxlrp.primitives import Kind, elementwise, entries

SIZE = 8


def draw(key, low=-1.5, high=1.5):
    return np.random.default_rng(key).uniform(low, high, SIZE)


def power(x):
    return lax.integer_pow(x, 3)


# {name: (a function that is that one primitive, how many operands)}
MAPS = (
    {
        name: (getattr(lax, name), 1)
        for name in """
        neg abs exp exp2 logistic erfc square cosh sqrt rsqrt cbrt log tanh erf asinh
        atan sinh sin tan expm1 log1p acos acosh asin atanh cos erf_inv lgamma digamma
        bessel_i0e bessel_i1e
    """.split()
    }
    | {
        name: (getattr(lax, name), 2)
        for name in "add sub mul div max min pow atan2 rem nextafter igamma".split()
    }
    | {
        "integer_pow": (power, 1),
        "clamp": (lax.clamp, 3),
        "select_n": (lambda a, b: lax.select_n(jnp.arange(SIZE) % 2 == 0, a, b), 2),
        "convert_element_type": (
            lambda x: lax.convert_element_type(x, jnp.float32).astype(jnp.float64),
            1,
        ),
        "reduce_precision": (lambda x: lax.reduce_precision(x, 11, 52), 1),
        "copy": (jnp.copy, 1),
    }
)


def equation_of(name):
    """The equation that a map makes, and its entry."""
    f, n = MAPS[name]
    jaxpr, _ = _compat.open_jaxpr(jax.make_jaxpr(f)(*[draw(i) for i in range(n)]))
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in (name, f"{name}_p"):
            return eqn, entries()[eqn.primitive.name]
    pytest.skip(f"{name} is traced to something else by this version of JAX")


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def on(eqn, arguments):
    """The equation's map on its operands that are no literals or masks."""
    bind = _compat.primitive_bind(eqn.primitive, dict(eqn.params))
    operands, queue = [], list(arguments)
    for v in eqn.invars:
        if isinstance(v, Literal):
            operands.append(v.val)
        elif not jnp.issubdtype(v.aval.dtype, jnp.inexact):
            operands.append(np.arange(SIZE) % 2 == 0)
        else:
            operands.append(jnp.asarray(queue.pop(0), v.aval.dtype))
    return np.asarray(bind(*operands)[0])


def floats(eqn):
    """Positions of the operands that are floating."""
    return [
        i
        for i, v in enumerate(eqn.invars)
        if not isinstance(v, Literal) and jnp.issubdtype(v.aval.dtype, jnp.inexact)
    ]


@pytest.mark.parametrize("name", MAPS)
def test_claim_of_linearity(name):
    """Affine in every subset of operands that is claimed; truly so, or not at all."""
    eqn, entry = equation_of(name)
    assert entry.kind is Kind.ELEMENTWISE
    places = floats(eqn)
    for subset in itertools.product([False, True], repeat=len(places)):
        if not any(subset):
            continue
        active = [False] * len(eqn.invars)
        for place, a in zip(places, subset, strict=True):
            active[place] = a
        base = [draw(i, 0.3, 0.9) for i in range(len(places))]

        def moved(scale, subset=subset, base=base):
            changed = [
                b + scale * a * draw(10 + i, 0.01, 0.1)
                for i, (a, b) in enumerate(zip(subset, base, strict=True))
            ]
            return on(eqn, changed)

        # Affine: second differences vanish, here and (for kinks) around zero.
        second = moved(2.0) - 2 * moved(1.0) + moved(0.0)
        kinks = moved(12.0) - 2 * moved(0.0) + moved(-12.0)
        tolerance = 1e-5 if name == "convert_element_type" else 1e-10
        is_affine = max(np.abs(second).max(), np.abs(kinks).max()) < tolerance
        if entry.linear(active):
            assert is_affine, subset


LINEAR_ALONE = {"neg", "convert_element_type", "reduce_precision", "copy"}


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(LINEAR_ALONE))
def test_linear_map_of_one_operand_is_claimed(name):
    eqn, entry = equation_of(name)
    assert entry.linear([True])
    np.testing.assert_allclose(
        on(eqn, [2 * draw(0)]), 2 * on(eqn, [draw(0)]), rtol=1e-6
    )


@pytest.mark.whole
@pytest.mark.parametrize("name", MAPS)
def test_claim_of_sign(name):
    eqn, entry = equation_of(name)
    places = floats(eqn)
    for signs in itertools.product([False, True], repeat=len(places)):
        known = [True] * len(eqn.invars)  # masks are nonnegative
        for place, sign in zip(places, signs, strict=True):
            known[place] = sign
        for v, i in zip(eqn.invars, range(len(known)), strict=True):
            if isinstance(v, Literal):
                known[i] = bool(np.all(np.asarray(v.val) >= 0))
        if not entry.nonnegative(known, eqn.params):
            continue
        for trial in range(5):
            arguments = [
                draw((trial, i), 0.0 if sign else -1.5) for i, sign in enumerate(signs)
            ]
            if name == "clamp":  # the bounds in their order
                arguments[2] = arguments[0] + np.abs(arguments[2])
            assert not (on(eqn, arguments) < 0).any(), signs


@pytest.mark.whole
@pytest.mark.parametrize("name", MAPS)
@pytest.mark.parametrize("literal", [0.0, 0.5, 1.0, -1.0, None])
def test_claim_of_homogeneity(name, literal):
    """With a literal in place of each operand in turn, and with none."""
    eqn, entry = equation_of(name)
    places = floats(eqn)
    if literal is not None and len(places) == 1:
        return  # nothing but a constant
    positions = places if literal is not None else [None]
    for position in positions:
        literals = [None] * len(eqn.invars)
        if position is not None:
            literals[position] = np.float64(literal)
        if not entry.homogeneous(literals):
            continue

        def f(scale, position=position):
            arguments = [
                np.full(SIZE, literal) if place == position else scale * draw(i)
                for i, place in enumerate(places)
            ]
            return on(eqn, arguments)

        np.testing.assert_allclose(f(3.0), 3 * f(1.0), rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "literals"),
    [("max", [None, 0.0]), ("max", [0.0, None]), ("min", [None, 0.0]), ("abs", [None])],
)
def test_relu_and_its_kin_are_homogeneous(name, literals):
    assert entries()[name].homogeneous(literals)


@pytest.mark.parametrize("literals", [[None, 6.0], [None, None], [0.1, None]])
def test_other_thresholds_are_not(literals):
    assert not entries()["min"].homogeneous(literals)


@pytest.mark.parametrize("y", [-3, -1, 2, 3])
def test_integer_powers(y):
    entry, params = entries()["integer_pow"], {"y": y}
    x = draw(0)
    assert entry.takes_root(params) is (y < 0)
    if entry.nonnegative([False], params):
        assert (x**y >= 0).all()
    assert entry.nonnegative([True], params)


def test_roots_make_scales():
    names = [n for n in ("sqrt", "rsqrt", "pow") if entries()[n].takes_root({"y": 0.5})]
    assert names == ["sqrt", "rsqrt", "pow"]
    assert not entries()["tanh"].takes_root({})
    assert not entries()["mul"].takes_root({})


def test_module_says_what_it_is_for():
    assert "Elementwise" in elementwise.__doc__


@pytest.mark.parametrize("quantise", [jnp.round, jnp.floor, jnp.ceil])
def test_rounding_passes_relevance_on_as_an_activation(quantise):
    """Of numbers quantised by their own scale; the scale is held."""

    weights = jnp.asarray(draw(0)[:4], jnp.float32)

    def quantised(x):
        scale = jnp.abs(x).max() / 7
        return quantise(x / scale) * scale

    x = jnp.asarray([3.0, -1.2, 0.7, 2.2], jnp.float32)
    found = jaxlrp.lrp(lambda x: quantised(x) @ weights, target="all")(x)
    np.testing.assert_allclose(found, quantised(x) * weights, rtol=1e-4, atol=1e-6)
    assert not jax.grad(lambda x: quantise(x).sum())(x).any()


def test_the_number_next_to_a_value_is_the_value():
    x = jnp.array([1.0, -2.0, 3.0])
    found = jaxlrp.lrp(lambda x: 2.0 * lax.nextafter(x, 9.0 + 0 * x), target="all")(x)
    np.testing.assert_allclose(found, 2.0 * x, rtol=1e-6)


def test_the_power_zero_is_a_constant():
    x = draw(0)
    f = lambda x: lax.integer_pow(x, 0) * jnp.tanh(x) + x  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(x)
    np.testing.assert_allclose(found, jnp.tanh(x) + x, rtol=1e-6)
    with pytest.warns(jaxlrp.errors.IndependentArgumentWarning):
        assert not np.asarray(jaxlrp.lrp(lambda x: x**0, target="all")(x)).any()


@pytest.mark.parametrize(
    "power",
    [
        lambda x: lax.pow(x, 0.0),
        lambda x: lax.pow(x, jnp.zeros(x.shape, x.dtype)),
        lambda x: x**0.0,
        lambda x: jnp.power(x, 0),
        lambda x: jnp.float_power(x, 0),
    ],
)
def test_so_is_the_power_zero_of_floats(power):
    x = jnp.array([2.0, 3.0])
    found = jaxlrp.lrp(lambda x: 5 * power(x) + x, target="all")(x)
    np.testing.assert_array_equal(found, x)
