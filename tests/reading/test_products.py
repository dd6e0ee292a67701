"""Products are shared by their factors, however they are bracketed."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules

X = tuple(map(jnp.float32, (2.0, 3.0, 4.0)))
EVEN = composites.AttnLRP()

THREE = {
    "left": lambda a, b, c: (a * b) * c,
    "right": lambda a, b, c: a * (b * c),
    "across": lambda a, b, c: (a * c) * b,
    "cast": lambda a, b, c: (a * b).astype(jnp.float16).astype(jnp.float32) * c,
    "scaled": lambda a, b, c: (2.0 * (a * b)) * (c / 2.0),
    "negative": lambda a, b, c: -(a * (-(b * c))),
    "shaped": lambda a, b, c: ((a * b)[None, None].T * c[None])[0, 0],
    "broadcast": lambda a, b, c: (jnp.broadcast_to(a * b, 3) * c)[0],
    "read twice": lambda a, b, c: (a * b) * c + 0.0 * (a * b),
    "under jit": jax.jit(lambda a, b, c: jax.jit(jnp.multiply)(a, b) * c),
}


def explained(f, composite=EVEN, args=X):
    explain = jaxlrp.lrp(f, composite, argnums=tuple(range(len(args))), target="all")
    return [np.asarray(r) for r in explain(*args)]


@pytest.mark.parametrize("form", THREE)
def test_three_factors_get_a_third_each(form):
    rounding = 1e-3 if form == "cast" else 1e-6
    np.testing.assert_allclose(explained(THREE[form]), [8.0] * 3, rtol=rounding)


@pytest.mark.always
def test_five_factors_get_a_fifth_each_however_they_are_bracketed():
    xs = tuple(jnp.float32(n) for n in (2, -3, 5, 0.5, 4))

    def tree(order, cut):
        def f(*xs):
            ys = [xs[i] for i in order]
            left, right = ys[:cut], ys[cut:]
            return jnp.prod(jnp.stack([1.0])) * _product(left) * _product(right)

        return f

    def _product(ys):
        total = ys[0]
        for y in ys[1:]:
            total = total * y
        return total

    expected = np.prod([float(x) for x in xs]) / 5
    orders = list(itertools.permutations(range(5)))[::17]
    for order, cut in itertools.product(orders, range(1, 5)):
        found = explained(tree(order, cut), args=xs)
        np.testing.assert_allclose(found, [expected] * 5, rtol=1e-5)


POWERS = {
    "product": lambda a, b: (a * a) * b,
    "one by one": lambda a, b: a * (a * b),
    "power": lambda a, b: a**2 * b,
    "square": lambda a, b: jnp.square(a) * b,
}


@pytest.mark.parametrize("form", POWERS)
def test_a_square_counts_twice(form):
    np.testing.assert_allclose(explained(POWERS[form], args=X[:2]), [8, 4], rtol=1e-6)


def test_contractions_are_products_too():
    a, b, c = np.random.default_rng(0).normal(size=(3, 3, 3)).astype(np.float32)
    forms = (
        lambda a, b, c: (a @ b) @ c,
        lambda a, b, c: a @ (b @ c),
        lambda a, b, c: jnp.einsum("ij,jk,kl->il", a, b, c),
    )
    third = float((a @ b @ c).sum()) / 3
    found = [explained(f, args=(a, b, c)) for f in forms]
    for relevances in found:
        np.testing.assert_allclose([r.sum() for r in relevances], third, rtol=1e-4)
        for one, other in zip(relevances, found[0], strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_a_gate_that_is_held_is_not_a_factor():
    gated = composites.Proportional()

    def f(g, a, b):
        return (jax.nn.sigmoid(g) * a) * b

    explain = jaxlrp.lrp(f, gated, argnums=(1, 2), target="all")
    factors = explain(jnp.float32(0.3), jnp.float32(-2), X[1])
    half = float(f(0.3, -2.0, 3.0)) / 2
    np.testing.assert_allclose(factors, [half, half], rtol=1e-6)


def test_layers_sums_and_activations_make_one_factor():
    w = jnp.ones((1, 1))
    for inner in (lambda z: (z[None] @ w)[0], jnp.tanh, lambda z: z + X[0]):

        def f(a, b, c, inner=inner):
            return inner(a * b) * c

        *_, last = explained(f)
        np.testing.assert_allclose(last, float(f(*X)) / 2, rtol=1e-6)


def test_pairwise_halves_at_each_multiplication():
    pairwise = EVEN.on("product", rules.UniformSplit(pairwise=True))
    found = explained(THREE["left"], pairwise)
    np.testing.assert_allclose(found, [6, 6, 12], rtol=1e-6)
    found = explained(THREE["right"], pairwise)
    np.testing.assert_allclose(found, [12, 6, 6], rtol=1e-6)


def test_pairwise_is_checked():
    with pytest.raises(ValueError, match="pairwise"):
        rules.UniformSplit(pairwise=2)
