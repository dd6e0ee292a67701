"""BiLRP against a loop over `jaxlrp.lrp`, closed forms, and conservation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules, similarity

TOKENS, OTHER, WIDTH, DIMENSIONS = 4, 3, 5, 6


def embed(params, x):
    """Tokens mix by attention, then each has a hidden layer, then their mean."""
    mixed = x + jax.nn.softmax(x @ params["mix"] @ x.T) @ x
    hidden = jax.nn.relu(mixed @ params["up"] + params["bias"])
    return (hidden @ params["down"]).mean(0)


def embed_ids(params, ids):
    return embed(params, params["table"][ids])


@pytest.fixture(scope="module")
def params():
    random = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(random.standard_normal(shape, np.float32))

    return {
        "mix": 0.3 * normal(WIDTH, WIDTH),
        "up": normal(WIDTH, 7),
        "bias": 0.1 * normal(7),
        "down": normal(7, DIMENSIONS),
        "table": normal(9, WIDTH),
    }


@pytest.fixture(scope="module")
def inputs():
    random = np.random.default_rng(1)
    shapes = (TOKENS, WIDTH), (OTHER, WIDTH)
    return tuple(jnp.asarray(random.standard_normal(s, np.float32)) for s in shapes)


COMPOSITES = {
    "default": None,
    "CPLRP": composites.CPLRP(),
    "gamma": composites.Uniform(rules.Gamma(0.25)),
    "flat first": composites.Epsilon().on("layer", rules.Flat(), first=True),
}


def plain(f, composite, params, x, y):
    """The definition: one call of `lrp` for each dimension and input, in NumPy."""

    @jax.jit
    def explain(k, v):
        return jaxlrp.lrp(f, composite, target=k)(params, v)

    total = 0.0
    for k in range(DIMENSIONS):
        one, two = (np.asarray(explain(k, v), np.float64) for v in (x, y))
        total = total + np.multiply.outer(one, two)
    return total


@pytest.mark.always
@pytest.mark.parametrize("name", COMPOSITES)
def test_relevance_of_pairs_is_a_sum_over_single_explanations(name, params, inputs):
    explain = jax.jit(similarity.bilrp(embed, COMPOSITES[name]))
    found = explain(params, *inputs)
    expected = plain(embed, COMPOSITES[name], params, *inputs)
    assert found.shape == (TOKENS, WIDTH, OTHER, WIDTH)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * scale)


def test_relevance_of_token_ids_is_a_matrix(params):
    x, y = jnp.array([3, 1, 4, 1]), jnp.array([5, 8, 2])
    found = jax.jit(similarity.bilrp(embed_ids))(params, x, y)
    expected = plain(embed_ids, None, params, x, y)
    assert found.shape == (4, 3) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    # A token's relevance is that of its embedding's features.
    reduced = jax.jit(similarity.bilrp(embed, reduce=lambda r: r.sum(-1)))
    table = params["table"]
    of_features = reduced(params, table[x], table[y])
    np.testing.assert_allclose(found, of_features, rtol=1e-4, atol=1e-5)


def test_relevance_of_a_bilinear_form_is_its_terms():
    random = np.random.default_rng(2)
    w = random.standard_normal((4, 3))
    x, y = random.standard_normal((2, 4))
    with jax.enable_x64(True):
        explain = similarity.bilrp(lambda x: x @ jnp.asarray(w), composites.AttnLRP())
        found = explain(jnp.asarray(x), jnp.asarray(y))
        expected = np.einsum("i,ik,jk,j->ij", x, w, w, y)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
        assert found.dtype == jnp.float64


def test_sums_are_the_similarity_and_the_explanation_of_one_side(params, inputs):
    """Without biases and softmax LRP conserves on both branches."""

    def f(x):
        return jax.nn.relu(x @ params["up"]) @ params["down"]

    x, y = (v[0] for v in inputs)
    value, found = jax.jit(similarity.value_and_bilrp(f))(x, y)
    np.testing.assert_allclose(value, f(x) @ f(y), rtol=1e-6)
    np.testing.assert_allclose(found.sum(), value, rtol=1e-3)
    held = f(y)
    one_side = jaxlrp.lrp(lambda x: f(x) @ held, target="all")(x)
    np.testing.assert_allclose(found.sum(1), one_side, rtol=1e-3, atol=1e-4)


@pytest.mark.always
def test_cosine_is_the_similarity_of_embeddings_that_normalise_themselves(
    params, inputs
):
    def unit(params, x):
        y = embed(params, x)
        return y / jnp.linalg.norm(y)

    explain = similarity.value_and_bilrp(embed, cosine=True)
    value, found = jax.jit(explain)(params, *inputs)
    expected, by_itself = jax.jit(similarity.value_and_bilrp(unit))(params, *inputs)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    scale = np.abs(by_itself).max()
    np.testing.assert_allclose(found, by_itself, rtol=1e-3, atol=1e-4 * scale)


def test_cosine_with_a_zero_embedding_is_zero():
    explain = similarity.value_and_bilrp(lambda x: 2 * x, cosine=True)
    value, found = explain(jnp.zeros(2), jnp.ones(2))
    assert value == 0 and (found == 0).all()


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_change_nothing(chunk, params, inputs):
    whole = jax.jit(similarity.bilrp(embed))(params, *inputs)
    parts = jax.jit(similarity.bilrp(embed, chunk=chunk))(params, *inputs)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_maps_over_pairs(params):
    first, second = jnp.array([[1, 2], [3, 4]]), jnp.array([[5, 6, 7], [8, 0, 1]])
    explain = similarity.bilrp(embed_ids, chunk=4)
    mapped = jax.jit(jax.vmap(explain, (None, 0, 0)))(params, first, second)
    one = jax.jit(explain)
    for i in range(2):
        alone = one(params, first[i], second[i])
        np.testing.assert_allclose(mapped[i], alone, rtol=1e-4, atol=1e-5)


def test_projections_are_right_on_average(params):
    """Linear in the seed: each estimate is that with `A.T A` between the branches."""
    x, y = jnp.array([3, 1]), jnp.array([5, 8, 2])
    branch = jax.jit(similarity.branch(embed_ids))
    (_, of_x), (_, of_y) = branch(params, x), branch(params, y)
    m, exact = 4, np.einsum("ki,kj->ij", of_x, of_y)

    def estimate(key):
        explain = similarity.value_and_bilrp(embed_ids, projections=m, key=key)
        return explain(params, x, y)

    keys = jax.random.split(jax.random.key(0), 400)
    values, found = jax.jit(jax.vmap(estimate))(keys)
    signs = jax.random.rademacher(keys[0], (m, DIMENSIONS), jnp.float32)
    by_hand = np.einsum("ki,mk,ml,lj->ij", of_x, signs, signs, of_y) / m
    np.testing.assert_allclose(found[0], by_hand, rtol=1e-3, atol=1e-4)
    error = found.std(0) / np.sqrt(len(keys))
    assert (np.abs(found.mean(0) - exact) < 4 * error).all()
    similar = embed_ids(params, x) @ embed_ids(params, y)
    np.testing.assert_allclose(values, similar, rtol=1e-5)


def test_branches_of_two_encoders_are_joined(params, inputs):
    x, y = inputs
    text, of_text = similarity.branch(embed)(params, x)
    other, of_other = similarity.branch(lambda y: y @ params["up"][:, :6])(y[0])
    found = similarity.join(of_text, of_other)
    assert found.shape == (TOKENS, WIDTH, WIDTH)
    expected = np.einsum("kab,kc->abc", of_text, of_other)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(text, embed(params, x), rtol=1e-6)
    np.testing.assert_allclose(other, y[0] @ params["up"][:, :6], rtol=1e-6)


def test_the_attributed_argument_need_not_be_the_last(params, inputs):
    def swapped(x, params, *, scale):
        return scale * embed(params, x)

    explain = jax.jit(similarity.bilrp(swapped, argnums=0))
    found = explain(inputs[0], params, inputs[1], scale=2.0)
    expected = 4 * jax.jit(similarity.bilrp(embed))(params, *inputs)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_pytree_is_attributed_through_reduce(params, inputs):
    def f(params, x):
        return embed(params, x["left"] + x["right"])

    def of_leaves(r):
        return jnp.stack([r["left"].sum(), r["right"].sum()])

    x = {"left": inputs[0], "right": 0.5 * inputs[0]}
    found = jax.jit(similarity.bilrp(f, reduce=of_leaves))(params, x, x)
    assert found.shape == (2, 2)
    with pytest.raises(TypeError, match=r"reduce: got None for .* expected a function"):
        similarity.bilrp(f)(params, x, x)


def test_patches_of_images_are_pairs_under_the_composite_of_the_paper():
    """Without biases the pairs add up; each is a sum over the pixels of its patches."""
    random = np.random.default_rng(3)
    kernel = jnp.asarray(random.standard_normal((4, 1, 3, 3), np.float32))
    last = jnp.asarray(random.standard_normal((4, 5), np.float32))

    def f(x):
        h = jax.lax.conv(x[None], kernel, (1, 1), "SAME")[0]
        return jax.nn.relu(h).mean((1, 2)) @ last

    def patches(r):
        return r.reshape(r.shape[1] // 2, 2, r.shape[2] // 2, 2).sum((1, 3))

    x, y = (jnp.asarray(random.uniform(size=(1, n, n)), jnp.float32) for n in (6, 4))
    composite = composites.BiLRP(0.0, 1.0)
    of_patches = jax.jit(similarity.bilrp(f, composite, reduce=patches))(x, y)
    of_pixels = jax.jit(similarity.bilrp(f, composite))(x, y)
    assert of_patches.shape == (3, 3, 2, 2)
    by_hand = of_pixels.reshape(3, 2, 3, 2, 2, 2, 2, 2).sum((1, 3, 5, 7))
    np.testing.assert_allclose(of_patches, by_hand, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(of_patches.sum(), f(x) @ f(y), rtol=1e-4)


def test_a_warning_names_the_line_of_the_caller():
    x = jnp.ones(3)
    with pytest.warns(jaxlrp.errors.IndependentArgumentWarning) as caught:
        similarity.bilrp(lambda params, x: params)(x, x, x)
        similarity.branch(lambda params, x: params)(x, x)
    assert [Path(w.filename).name for w in caught] == [Path(__file__).name] * 3


def test_low_precision_is_summed_in_float32(params, inputs):
    low = jax.tree.map(lambda v: v.astype(jnp.bfloat16), (params, inputs))
    explain = jax.jit(similarity.bilrp(embed))
    found, expected = explain(low[0], *low[1]), explain(params, *inputs)
    assert found.dtype == jnp.float32
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"argnums": (0,)}, TypeError, r"argnums: got \(0,\), expected one int"),
        ({"argnums": "x"}, TypeError, r"argnums: got 'x'"),
        ({"chunk": 0}, ValueError, r"chunk: got 0, expected an int >= 1"),
        ({"chunk": 1.5}, TypeError, r"chunk: got 1.5"),
        ({"projections": 0, "key": 0}, ValueError, r"projections: got 0"),
        ({"projections": 3}, TypeError, r"key: got None, expected one PRNG key"),
        ({"key": 3}, ValueError, r"key: got one without projections"),
        ({"reduce": 3}, TypeError, r"reduce: got 3, expected a function or None"),
        ({"composite": rules.Flat()}, TypeError, r"composite: got Flat"),
    ],
)
def test_bad_options_are_named(options, error, message):
    with pytest.raises(error, match=message):
        similarity.bilrp(lambda x: x, **options)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda x: x[None], r"f: got the output float32\[1, 2\].*map over batches"),
        (lambda x: x.sum(), r"f: got the output float32\[\], expected one array"),
        (lambda x: (x, x), r"f: got the output \('float32\[2\]', 'float32\[2\]'\)"),
        (lambda x: x + 1j, r"f: got the output complex64\[2\], expected one array of"),
    ],
)
def test_what_is_no_embedding_is_refused(f, message):
    with pytest.raises(ValueError, match=message):
        similarity.bilrp(f)(jnp.ones(2), jnp.ones(2))


def test_a_missing_input_and_a_bad_result_are_named():
    with pytest.raises(TypeError, match="got 1 positional arguments, expected those"):
        similarity.bilrp(lambda x: x)(jnp.ones(2))
    with pytest.raises(TypeError, match="reduce: it returned list, expected an array"):
        similarity.bilrp(lambda x: x, reduce=list)(  # type: ignore[arg-type]
            jnp.ones(2), jnp.ones(2)
        )
    with pytest.raises(TypeError, match="f: got 3, expected a function"):
        similarity.branch(3)  # type: ignore[arg-type]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("second", "message"),
    [
        (np.ones((2, 3)), r"second: got shape \(2, 3\), expected \(4, ...\)"),
        (np.float32(1), r"second: got .*1.0.*, expected the relevances of a branch"),
    ],
)
def test_branches_that_do_not_fit_are_refused(second, message):
    with pytest.raises(ValueError, match=message):
        similarity.join(jnp.ones((4, 2)), second)
