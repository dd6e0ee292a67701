"""Linear transforms are exact; decompositions are explained by their gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)), jnp.float32)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.fft.irfft(jnp.fft.rfft(x), n=4),
        lambda x: jnp.abs(jnp.fft.ifft(jnp.fft.fft(x)).real),
        lambda x: jnp.fft.fft2(x).imag,
        lambda x: lax.complex(x, 2 * x).imag + lax.conj(lax.complex(x, x)).real,
    ],
)
def test_complex_numbers_in_between_lose_nothing(f):
    found = jaxlrp.lrp(f, composites.AttnLRP(), target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-3, atol=1e-4)
    assert found.dtype == X.dtype


@pytest.mark.always
@pytest.mark.parametrize(
    "composite", [None, composites.AttnLRP(), composites.Uniform(rules.Epsilon())]
)
@pytest.mark.parametrize("part", [jnp.real, jnp.imag])
def test_layer_with_complex_weights(composite, part):
    """As in Fourier neural operators."""
    kernel = X + 1j * X.T
    f = lambda x: part(x @ kernel)  # noqa: E731
    found = jaxlrp.lrp(f, composite, target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-2)


def test_spectral_convolution_under_the_default():
    kernel = X[:3, :3] + 1j * X[1:, 1:]
    f = lambda x: jnp.fft.irfft(jnp.fft.rfft(x) @ kernel, n=4)  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-2)


COMPLEX = jnp.array([1 + 1j, 2 - 1j, 0.3j, 1.0])
OF_COMPLEX = {
    "square": lambda z: z**2,
    "power": lambda z: z**2.5,
    "reciprocal": lambda z: 1 / z,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "sqrt": jnp.sqrt,
    "sine": jnp.sin,
    "cosine": jnp.cos,
    "size of exp": lambda z: jnp.abs(jnp.exp(z)) * (1 + 1j),
    "chosen": lambda z: jnp.where(jnp.array([1, 0, 1, 1]) > 0, jnp.exp(z), 0),
    "modReLU": lambda z: jax.nn.relu(jnp.abs(z) - 0.1) * z / jnp.abs(z),
}


@pytest.mark.parametrize("name", OF_COMPLEX)
@pytest.mark.parametrize(
    "composite", [None, composites.AttnLRP(), composites.Epsilon(), composites.CPLRP()]
)
def test_functions_of_complex_numbers_hand_relevance_on(name, composite):
    """`R = Re(z c_z)`, and the secant's multiplier is `y / z`."""
    f = OF_COMPLEX[name]
    for part in (jnp.real, jnp.imag):

        def network(x, part=part):
            return part(f(x * COMPLEX))

        explain = jaxlrp.lrp(network, composite, target="all")
        expected = network(X[0])
        np.testing.assert_allclose(explain(X[0]), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("x64", [False, True])
def test_a_spectrum_squared_adds_up(x64):
    with jax.enable_x64(x64):
        x = jnp.asarray(np.asarray(X[0]), float)
        f = lambda x: jnp.fft.irfft(jnp.fft.rfft(x) ** 2)  # noqa: E731
        found = jax.jit(jaxlrp.lrp(f, target="all"))(x)
        assert found.dtype == x.dtype
        np.testing.assert_allclose(found.sum(), f(x).sum(), rtol=1e-4)


def test_where_a_complex_number_is_zero_its_function_has_its_derivative():
    f = lambda x: jnp.real(jnp.expm1(x * COMPLEX) * (2 - 1j))  # noqa: E731
    explain = jaxlrp.lrp(f, target="all")
    x = jnp.array([0.0, 0.5, 0.0, 1.0])
    np.testing.assert_allclose(explain(x).sum(), f(x).sum(), rtol=1e-5)
    # A derivative of the relevance there is that of the function.
    slope = jax.grad(lambda x: explain(x).sum())(x)
    expected = jax.grad(lambda x: f(x).sum())(x)
    np.testing.assert_allclose(slope, expected, rtol=1e-4)


def test_no_relevance_arrives_at_a_complex_overflow():
    x = jnp.array([1.0, 200.0])
    f = lambda x: jnp.where(x < 100, jnp.real(jnp.exp(x * (1 + 0j))), 0.0)  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(x)
    np.testing.assert_allclose(found, [np.e, 0.0], rtol=1e-5)


@pytest.mark.parametrize("add", [jnp.sum, jnp.mean])
def test_sums_of_complex_numbers_by_size(add):
    """As dynamicLRP shares all sums: `|z_k|` of the sum of those."""
    f = lambda x: jnp.real(add(x * COMPLEX * (1 - 2j)))  # noqa: E731
    found = jaxlrp.lrp(f, composites.DynamicLRP(), target="all")(X[0])
    size = np.abs(X[0] * COMPLEX)
    np.testing.assert_allclose(found, f(X[0]) * size / size.sum(), rtol=1e-4)


DECOMPOSITIONS = {
    "cholesky": lambda x: jnp.linalg.cholesky(x @ x.T + 4 * jnp.eye(4)),
    "eigh": lambda x: jnp.linalg.eigvalsh(x + x.T),
    "svd": lambda x: jnp.linalg.svd(x, compute_uv=False),
    "inverse": lambda x: jnp.linalg.inv(x + 5 * jnp.eye(4)),
    "determinant": jnp.linalg.det,
}


@pytest.mark.parametrize("name", DECOMPOSITIONS)
def test_decomposition_gives_finite_relevance(name):
    found = jaxlrp.lrp(DECOMPOSITIONS[name], target="all")(X)
    assert found.shape == X.shape and np.isfinite(found).all()


@pytest.mark.parametrize("f", [jnp.linalg.inv, jnp.linalg.det, jnp.linalg.cholesky])
def test_what_is_of_a_degree_conserves(f):
    matrix = X @ X.T + 5 * jnp.eye(4)
    found = jaxlrp.lrp(f, target="all")(matrix)
    np.testing.assert_allclose(found.sum(), f(matrix).sum(), rtol=1e-3)


def test_gradient_of_a_solution_on_request():
    """A matrix is held as a divisor is, by a rule that a composite can change."""
    matrix, side = X + 5 * jnp.eye(4), X[0]
    taylor = composites.Composite("t").on("quotient", rules.Taylor())
    explain = jaxlrp.lrp(jnp.linalg.solve, taylor, argnums=(0, 1), target="all")
    slopes = jax.grad(lambda *a: jnp.linalg.solve(*a).sum(), (0, 1))(matrix, side)
    for r, x, g in zip(explain(matrix, side), (matrix, side), slopes, strict=True):
        np.testing.assert_allclose(r, x * g, rtol=1e-3, atol=1e-5)
    flat = composites.Uniform(rules.Flat())
    found = jaxlrp.lrp(
        lambda x: jnp.linalg.solve(x + 5 * jnp.eye(4), x[0]), flat, target="all"
    )(X)
    assert np.isfinite(found).all()


HIGH = {
    "searchsorted": (lambda x: x * jnp.searchsorted(jnp.sort(x[0]), x[1]), None),
    "nonzero": (lambda x: x[jnp.nonzero(x[:, 0] > 0, size=2)[0]], None),
}
if jax.__version_info__ >= (0, 12):  # before, they pick the bits of a number apart
    HIGH |= {
        "ldexp": (lambda x: jnp.ldexp(x, 3), lambda x: 8 * x),
        "mantissa": (lambda x: jnp.frexp(x)[0], lambda x: jnp.frexp(x)[0]),
    }


@pytest.mark.parametrize("name", HIGH)
def test_what_newer_versions_make_one_primitive_of(name):
    """In JAX 0.12 some functions are one equation without a jaxpr inside."""
    f, expected = HIGH[name]
    for explain in (jaxlrp.lrp(f, target="all"), jax.jit(jaxlrp.lrp(f, target="all"))):
        found = explain(X)
        np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-4)
        if expected is not None:
            np.testing.assert_allclose(found, expected(X), rtol=1e-5)


THREE = [jnp.abs(X[:2, :3]), jnp.abs(X[:3]), jnp.abs(X[1:, :2])]


def test_product_of_three_conserves():
    for spec in ("ij,jk,lm->il", "ij,jk,li->k", "ij,jk,li->"):
        f = lambda *xs, spec=spec: jnp.einsum(spec, *xs)  # noqa: E731
        found = jaxlrp.lrp(f, argnums=(0, 1, 2), target="all")(*THREE)
        total = sum(float(r.sum()) for r in found)
        np.testing.assert_allclose(total, f(*THREE).sum(), rtol=1e-4)


@pytest.mark.parametrize("reverse", [False, True])
def test_associative_scan_equals_its_primitive(reverse):
    for operation, primitive in ((jnp.add, lax.cumsum), (jnp.maximum, lax.cummax)):
        scan = lambda x, op=operation: lax.associative_scan(op, x, reverse=reverse)  # noqa: E731
        known = lambda x, p=primitive: p(x, reverse=reverse)  # noqa: E731
        plain = composites.Proportional()  # by their signs partial sums share otherwise
        found, expected = (jaxlrp.lrp(f, plain, target="all")(X) for f in (scan, known))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["eigh", "svd"])
def test_spectrum_is_of_degree_one(name):
    f = DECOMPOSITIONS[name]
    found = jaxlrp.lrp(f, target="all")(X)
    np.testing.assert_allclose(found.sum(), f(X).sum(), rtol=1e-3, atol=1e-4)
    gradient = X * jax.grad(lambda x: f(x).sum())(X)
    np.testing.assert_allclose(found, gradient, rtol=1e-3, atol=1e-4)
