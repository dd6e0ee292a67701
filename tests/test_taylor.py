"""Terms by order against closed forms and Hessians; roots; what is left."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import attribution, taylor
from jaxlrp.taylor import Search

RNG = np.random.default_rng(7)
W1, W2 = RNG.normal(size=(6, 5)), RNG.normal(size=(5, 3))
X, ROOT = RNG.normal(size=(2, 6))


def mlp(params, x):
    return jnp.tanh(x @ params[0]) @ params[1]


PARAMS = (jnp.asarray(W1, jnp.float32), jnp.asarray(W2, jnp.float32))


def score(x, target=1):
    return mlp((W1, W2), x)[target]


def polynomial(x):
    return 2 + x[0] - 3 * x[1] * x[2] + x[0] * x[1] * x[2] + x[2] ** 3


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def test_a_polynomial_has_its_terms_and_nothing_is_left():
    x, root = np.array([1.0, 2.0, -1.0]), np.array([0.5, -1.0, 2.0])
    found = taylor.taylor(polynomial, 3, root=root)(x)
    np.testing.assert_allclose(found.value, polynomial(x))
    np.testing.assert_allclose(found.at_root, polynomial(root))
    np.testing.assert_allclose(found.root, root)
    assert len(found.terms) == 3
    np.testing.assert_allclose([t.sum() for t in found.terms], found.series, rtol=1e-12)
    gain = polynomial(x) - polynomial(root)
    np.testing.assert_allclose(gain - np.cumsum(found.series), found.residual)
    np.testing.assert_allclose(found.residual[-1], 0, atol=1e-12)
    assert abs(found.residual[0]) > 1 and abs(found.residual[1]) > 1


@pytest.mark.always
def test_terms_are_derivatives_at_the_root():
    found = jax.jit(taylor.taylor(mlp, 3, root=ROOT, target=1))(PARAMS_64(), X)
    d = X - ROOT
    first = jax.grad(score)(ROOT)
    hessian = jax.jit(jax.hessian(score))(ROOT)
    third = jax.jit(jax.jacfwd(jax.hessian(score)))(ROOT)
    np.testing.assert_allclose(found.terms[0], d * first, rtol=1e-10)
    np.testing.assert_allclose(found.terms[1], d * (hessian @ d) / 2, rtol=1e-10)
    expected = d * np.einsum("ijk,j,k->i", third, d, d) / 6
    np.testing.assert_allclose(found.terms[2], expected, rtol=1e-9)


def PARAMS_64():  # noqa: N802
    return jnp.asarray(W1), jnp.asarray(W2)


@pytest.mark.always
def test_sums_of_terms_and_what_is_left_are_the_gain():
    """To rounding, in single precision, for every order."""
    for order in (1, 2, 5):
        found = taylor.taylor(mlp, order, root=0.3)(PARAMS, jnp.float32(X))
        assert found.series.dtype == jnp.float32 and found.series.shape == (order,)
        total = sum(t.sum() for t in found.terms) + found.residual[-1]
        np.testing.assert_allclose(total, found.value - found.at_root, atol=2e-5)


def test_series_is_that_of_the_line_and_converges():
    near = 0.9 * X
    found = taylor.series(mlp, 8, root=near, target=1)(PARAMS_64(), X)
    np.testing.assert_allclose(found[0], score(near))
    np.testing.assert_allclose(found.sum(), score(X), rtol=1e-9)
    whole = taylor.taylor(mlp, 4, root=near, target=1)(PARAMS_64(), X)
    np.testing.assert_allclose(found[1:5], whole.series, rtol=1e-9)


def quadratic(x):
    return jnp.sum(x**2 * jnp.arange(24.0).reshape(4, 6)) + (x[0] @ x[2]) * x[1, 1]


def dense(x, root):
    d = (x - root).reshape(-1)
    h = jax.hessian(lambda v: quadratic(v.reshape(4, 6)))(root.reshape(-1))
    return d[:, None] * np.asarray(h) * d / 2


def test_rows_pairs_and_matrix_agree_with_the_hessian():
    x, root = RNG.normal(size=(2, 4, 6))
    expected = dense(x, root).reshape(4, 6, 4, 6)

    def ask(**options):
        explain = taylor.taylor(quadratic, root=root, **options)
        return np.asarray(jax.jit(explain)(x).interactions)

    whole = ask(rows="all")
    np.testing.assert_allclose(whole, expected, atol=1e-12)
    np.testing.assert_allclose(whole, whole.transpose(2, 3, 0, 1), atol=1e-12)
    np.testing.assert_allclose(ask(rows=[7, 0]), expected.reshape(24, 4, 6)[[7, 0]])
    np.testing.assert_allclose(ask(rows=7), expected[1, 1])
    np.testing.assert_allclose(ask(rows=[(1, 1), (3, 5)], chunk=1)[1], expected[3, 5])
    flat = expected.reshape(24, 24)
    pairs = [(7, 3), (0, 12), (7, 23)]
    np.testing.assert_allclose(ask(pairs=pairs), [flat[p] for p in pairs])
    places = [[(1, 1), (0, 3)], [(0, 0), (2, 0)]]
    np.testing.assert_allclose(ask(pairs=places), [flat[7, 3], flat[0, 12]])
    np.testing.assert_allclose(ask(pairs=(7, 3)), flat[7, 3])
    traced = jax.jit(lambda p: taylor.taylor(quadratic, root=root, pairs=p)(x))
    np.testing.assert_allclose(traced(jnp.array(pairs)).interactions, ask(pairs=pairs))


def test_units_are_sums_over_their_elements():
    x, root = RNG.normal(size=(2, 4, 6))
    each = dense(x, root).reshape(4, 6, 4, 6)
    grid = each.reshape(2, 2, 3, 2, 2, 2, 3, 2).sum((1, 3, 5, 7))

    def ask(units, **options):
        explain = taylor.taylor(quadratic, root=root, units=units, **options)
        return explain(x).interactions

    np.testing.assert_allclose(ask((2, 3), rows="all"), grid, atol=1e-12)
    np.testing.assert_allclose(ask((2, 3), rows=[(1, 2)])[0], grid[1, 2], atol=1e-12)
    labels = RNG.integers(-1, 3, size=(4, 6))
    hot = np.stack([labels == k for k in range(3)]).astype(float)
    expected = np.einsum("aij,ijkl,bkl->ab", hot, each, hot)
    np.testing.assert_allclose(ask(labels, rows="all"), expected, atol=1e-12)


def test_pytrees_and_several_arguments_have_labels():
    def f(a, tree):
        return a[0] * tree["w"][1] * 5 + tree["v"] ** 2

    a, tree = jnp.array([2.0, 1.0]), {"v": jnp.array(3.0), "w": jnp.array([1.0, 4.0])}
    labels = (np.array([0, 0]), {"v": np.array(1), "w": np.array([-1, 2])})
    explain = taylor.taylor(f, units=labels, rows="all", argnums=(0, 1))
    found = explain(a, tree)
    expected = [[0, 0, 20], [0, 9, 0], [20, 0, 0]]
    np.testing.assert_allclose(found.interactions, expected)
    np.testing.assert_allclose(found.terms[1][0], [20, 0])
    np.testing.assert_allclose(found.terms[1][1]["w"], [0, 20])
    with pytest.raises(ValueError, match=r"^units: got None for 3 attributed arrays"):
        taylor.taylor(f, rows=0, argnums=(0, 1))(a, tree)


def test_maps_over_examples_and_has_auxiliary_data():
    def f(params, x):
        return mlp(params, x), {"hidden": x @ params[0]}

    explain = jax.jit(jax.vmap(taylor.taylor(f, rows=[2], has_aux=True), (None, 0)))
    found, aux = explain(PARAMS, jnp.float32([X, ROOT]))
    assert aux["hidden"].shape == (2, 5)
    single, _ = taylor.taylor(f, rows=[2], has_aux=True)(PARAMS, jnp.float32(ROOT))
    np.testing.assert_allclose(found.interactions[1], single.interactions, atol=1e-5)
    np.testing.assert_allclose(found.terms[1][1], single.terms[1], atol=1e-5)


def test_the_class_is_that_of_the_input():
    x, root = np.array([2.0, 0.0]), np.array([0.0, 5.0])
    found = taylor.taylor(lambda x: x**2, root=root)(x)
    np.testing.assert_allclose((found.value, found.at_root), (4, 0))


def test_first_order_at_the_input_is_gradient_times_difference():
    found = taylor.taylor(mlp, 1, root=ROOT)(PARAMS_64(), X)
    gradient = attribution.gradient(
        lambda x: mlp(PARAMS_64(), x), target=int(mlp(PARAMS_64(), X).argmax())
    )(ROOT)
    np.testing.assert_allclose(found.terms[0], gradient * (X - ROOT), rtol=1e-10)


# ---- roots that are searched -------------------------------------------------------


def test_a_root_of_a_linear_function_is_the_nearest():
    w = np.array([3.0, 4.0])
    found = taylor.taylor(lambda x: x @ w - 5, 1, root=Search())(w)
    np.testing.assert_allclose(found.root, w / 5)
    np.testing.assert_allclose((found.at_root, found.residual[0]), 0, atol=1e-12)


@pytest.mark.whole
@pytest.mark.parametrize("level", [0.0, 1.5])
def test_a_search_finds_the_level_inside_the_domain(level):
    def f(x):
        return jnp.exp(x[0]) + x[1] ** 2 - 2

    search = Search(level=level, low=0.0, high=np.array([2.0, 1.2]), steps=60)
    found = jax.jit(taylor.taylor(f, root=search))(np.array([1.0, 1.0]))
    np.testing.assert_allclose(found.at_root, level, atol=1e-9)
    assert (found.root >= 0).all() and (found.root <= np.array([2.0, 1.2])).all()


def test_a_search_that_fails_says_so():
    found = taylor.taylor(lambda x: x[0] ** 2 + 1, root=Search())(np.array([2.0]))
    assert found.at_root >= 1
    flat = taylor.taylor(lambda x: 0 * x[0] + 1, root=Search())(np.array([2.0]))
    assert flat.at_root == 1 and flat.root == 2


# ---- bad input ---------------------------------------------------------------------


def relu(x):
    return jax.nn.relu(x @ W1) @ W2


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": 0}, r"^order: got 0, expected an int >= 1"),
        ({"order": 2.0}, r"^order: got 2.0"),
        ({"order": 1, "rows": [0]}, r"^order: got 1 with rows, expected at least 2"),
        ({"root": np.zeros(4)}, r"^root: got shape \(4,\) .* \(6,\)"),
        ({"root": "zero"}, r"^root: got 'zero'"),
        ({"rows": [6]}, r"^rows: got \[6\], expected numbers of units in \[0, 6\)"),
        ({"rows": [-1]}, r"^rows: got"),
        ({"rows": "some"}, r"^rows: got 'some', expected 'all'"),
        ({"rows": [0.5]}, r"^rows: got \[0.5\]"),
        ({"pairs": [0, 1, 2]}, r"^pairs: got shape \(3,\)"),
        ({"pairs": [(0, 9)]}, r"^pairs: got \[\(0, 9\)\]"),
        ({"rows": [0], "pairs": [(0, 1)]}, r"^pairs: got both"),
        ({"rows": [0], "units": (4,)}, r"^units: got the grid \(4,\) .* divides"),
        ({"rows": [0], "units": (3, 2)}, r"^units: got the grid"),
        ({"rows": [0], "units": np.zeros(5, int)}, r"^units: got labels of shape"),
        ({"rows": [0], "units": np.zeros(6)}, r"^units: got array"),
        ({"rows": [0], "units": np.full(6, -1)}, r"^units: got labels without"),
        ({"root": Search(low=np.zeros(2))}, r"^low: got shape"),
        ({"chunk": 0}, r"^chunk: got 0"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        taylor.taylor(lambda x: x @ W1, **{"order": 2, **options})(X)


def test_relus_have_first_order_and_no_second():
    found = taylor.taylor(relu, 1)(X)
    assert found.terms[0].shape == (6,)
    for explain in (taylor.taylor(relu), taylor.series(relu, 2)):
        with pytest.raises(ValueError, match=r"f: it is not twice differentiable"):
            explain(X)
    left = taylor.taylor(relu, root=X / 2, beta=np.inf)(X)
    np.testing.assert_allclose(left.series[1], 0)
    smooth = taylor.taylor(relu, root=X / 2, beta=3.0)(X)
    assert abs(smooth.series[1]) > 1e-3


def test_a_matrix_larger_than_the_memory_says_how_large():
    with pytest.raises(ValueError, match=r"^rows: got None.*4,000,000,000,000 bytes"):
        jax.eval_shape(
            taylor.taylor(lambda x: (x**2).sum(), rows="all"),
            jax.ShapeDtypeStruct((1_000_000,), jnp.float32),
        )


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"rows": np.zeros(10**6, int)},
            r"^rows: got 1,000,000 of them, which take 4,000,000,000,000 bytes of",
        ),
        (
            {"pairs": np.stack([np.arange(10**6)] * 2, 1)},
            r"^pairs: got 1,000,000 different first units, whose rows take 4,",
        ),
    ],
)
def test_more_rows_than_memory_are_refused(options, message):
    given = jax.ShapeDtypeStruct((1_000_000,), jnp.float32)
    square = lambda x: (x**2).sum()  # noqa: E731
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(taylor.taylor(square, **options), given)
    # Many pairs of one unit are one row.
    one = np.stack([np.full(10**6, 3), np.arange(10**6)], 1)
    found = jax.eval_shape(taylor.taylor(square, pairs=one), given)
    assert found.interactions.shape == (10**6,)


def test_searches_are_checked():
    with pytest.raises(ValueError, match="^steps: "):
        Search(steps=0)
    with pytest.raises(TypeError, match="^level: "):
        Search(level="zero")
