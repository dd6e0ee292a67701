"""What positions contribute: found in the program, and what is missing adds up."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import attribution, composites
from jaxlrp.errors import PositionsWarning

LAYERS, TOKENS, WIDTH, HEADS, WORDS = 2, 5, 8, 2, 7
SIZE = WIDTH // HEADS
IDS = jnp.array([3, 1, 4, 1, 5])


def weights(seed=0):
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[-2]), jnp.float32)

    return {
        "embed": 2 * draw(WORDS, WIDTH),
        "place": draw(2 * TOKENS, WIDTH),
        "out": draw(WIDTH, WORDS),
        "layers": {n: draw(LAYERS, WIDTH, WIDTH) for n in ("q", "k", "v", "o", "up")}
        | {"near": draw(LAYERS, 2 * TOKENS, HEADS)},
    }


PARAMS = weights()


def norm(x):
    return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-5)


def mixed(scores):
    """Attention without a softmax, which to first order does not keep relevance."""
    return jnp.where(np.tri(scores.shape[-1], dtype=bool), scores, 0) / 3


def softmax(scores):
    causal = np.tri(scores.shape[-1], dtype=bool)
    return jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))


def attention(x, w, turn=lambda q: q, bias=None, attend=mixed):
    q, k, v = ((norm(x) @ w[n]).reshape(len(x), HEADS, SIZE) for n in "qkv")
    scores = jnp.einsum("qhd,khd->hqk", turn(q), turn(k)) / 2
    if bias is not None:
        scores = scores + bias(w, len(x))
    z = jnp.einsum("hqk,khd->qhd", attend(scores), v)
    return x + z.reshape(x.shape) @ w["o"]


def layer(x, w, **how):
    x = attention(x, w, **how)
    return x + jax.nn.relu(norm(x) @ w["up"])


def network(params, ids, start=lambda params, x: x, loop=False, **how):
    x = start(params, params["embed"][ids])
    if loop:
        x, _ = lax.scan(lambda x, w: (layer(x, w, **how), None), x, params["layers"])
    else:
        for i in range(LAYERS):
            w = jax.tree.map(lambda a, i=i: a[i], params["layers"])
            x = layer(x, w, **how)
    return norm(x[-1]) @ params["out"]


def learned(params, x):
    return x + params["place"][: len(x)]


def looked_up(params, x):
    return x + jnp.take(params["place"], jnp.arange(len(x)), axis=0)


def waves(count, width=WIDTH):
    angles = jnp.arange(count)[:, None] / 10 ** (2 * jnp.arange(width // 2) / width)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def sinusoids(params, x):
    return x + waves(len(x))


TABLE = np.asarray(waves(TOKENS))


def closed_over(params, x):
    return x + TABLE


def rotary(x):
    """Halves, as Llama has it; cosines and sines are made in each layer."""
    angles = jnp.arange(len(x))[:, None] / 10 ** (2 * jnp.arange(SIZE // 2) / SIZE)
    cos, sin = (
        jnp.concatenate([g(angles)] * 2, -1)[:, None] for g in (jnp.cos, jnp.sin)
    )
    one, two = jnp.split(x, 2, -1)
    return x * cos + jnp.concatenate([-two, one], -1) * sin


def alibi(w, count):
    far = jnp.arange(count)[:, None] - jnp.arange(count)[None]
    slopes = 2.0 ** -jnp.arange(1, HEADS + 1)
    return -slopes[:, None, None] * far


def relative(w, count):
    """A learned bias for each distance, as in T5."""
    far = jnp.arange(count)[:, None] - jnp.arange(count)[None] + count
    return jnp.moveaxis(w["near"][far], -1, 0)


WAYS = {
    "learned": ({"start": learned}, {"place"}),
    "looked up": ({"start": looked_up}, {"place"}),
    "sinusoids": ({"start": sinusoids}, {"sin"}),
    "closed over": ({"start": closed_over}, {"positions"}),
    "rotary": ({"turn": rotary}, {"cos", "sin"}),
    "alibi": ({"bias": alibi}, {"positions"}),
    "relative": ({"bias": relative}, {"layers.near[0]", "layers.near[1]"}),
}


def names(positions):
    return {name.partition("#")[0] for name in positions}


@pytest.mark.parametrize("way", WAYS)
def test_tokens_and_positions_add_up_to_the_logit(way):
    """No network here has a bias, so nothing else keeps relevance."""
    how, expected = WAYS[way]
    f = functools.partial(network, **how)
    tokens, positions = jax.jit(attribution.positional(f))(PARAMS, IDS)
    assert names(positions) == expected
    assert all(r.shape == (TOKENS,) for r in positions.values())
    of_positions = float(sum(r.sum() for r in positions.values()))
    score = float(f(PARAMS, IDS).max())
    np.testing.assert_allclose(tokens.sum() + of_positions, score, rtol=1e-4)
    assert abs(of_positions) > 1e-2 * abs(score)


def with_arguments(params, given, ids):
    """All of them at once, as arguments."""
    turn = given["cos"], given["sin"]

    def rotate(x):
        one, two = jnp.split(x, 2, -1)
        turned = jnp.concatenate([-two, one], -1)
        return x * turn[0][:, None] + turned * turn[1][:, None]

    return network(
        params,
        ids,
        start=lambda _, x: x + given["place"],
        turn=rotate,
        bias=lambda w, n: given["positions"],
        attend=softmax,
        loop=True,
    )


def own(params, ids):
    """The same, with encodings that the program makes; cosines outside of the loop."""
    angles = jnp.arange(TOKENS)[:, None] / 10 ** (2 * jnp.arange(SIZE // 2) / SIZE)
    angles = jnp.concatenate([angles, angles], -1)
    given = {
        "cos": jnp.cos(angles),
        "sin": jnp.sin(angles),
        "place": params["place"][:TOKENS],
        "positions": alibi(None, TOKENS),
    }
    return with_arguments(params, given, ids), given


def test_relevance_is_that_of_encodings_as_arguments():
    """In a scan, under a softmax, with rules by first order in it."""
    composite = composites.AttnLRP()
    find = attribution.positional(own, composite, target=3, has_aux=True)
    (found, positions), given = jax.jit(find)(PARAMS, IDS)
    explain = jaxlrp.lrp(with_arguments, composite, argnums=(1, 2), target=3)
    expected, tokens = jax.jit(explain)(PARAMS, given, IDS)
    np.testing.assert_allclose(found, tokens, rtol=1e-4, atol=1e-6)
    assert positions.keys() == expected.keys() == given.keys()
    for name, r in expected.items():
        sums = r.sum(1)
        if name == "positions":  # by halves to the one that asks, and to the other
            sums = (r.sum((0, 1)) + r.sum((0, 2))) / 2
        np.testing.assert_allclose(positions[name], sums, rtol=1e-3, atol=1e-6)
        assert float(jnp.abs(sums).max()) > 1e-4


def test_a_scan_gives_what_written_out_layers_give():
    """What is made inside of the loop is summed over its steps."""
    how = {"turn": rotary, "bias": relative}
    written, looped = (
        attribution.positional(functools.partial(network, loop=loop, **how))
        for loop in (False, True)
    )
    tokens, positions = jax.jit(written)(PARAMS, IDS)
    again, of_loop = jax.jit(looped)(PARAMS, IDS)
    np.testing.assert_allclose(tokens, again, rtol=1e-4, atol=1e-6)

    def total(found):
        by_name = {}
        for name, r in found.items():
            short = name.partition("#")[0].partition("[")[0]
            by_name[short] = by_name.get(short, 0) + r
        return by_name

    one, two = total(positions), total(of_loop)
    assert one.keys() == two.keys() == {"cos", "sin", "layers.near"}
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=1e-3, atol=1e-6)


PROPORTIONAL = composites.Proportional()


def bag(params, ids):
    """The table's relevance is that of a sum, in closed form."""
    x = params["embed"][ids] + params["place"][: ids.shape[-1]]
    return x.sum(-2) @ params["out"]


def test_mapped_over_examples_each_has_its_own():
    rows = jnp.stack([IDS, IDS[::-1]])
    explain = attribution.positional(bag, PROPORTIONAL, target=2)
    tokens, positions = jax.vmap(explain, (None, 0))(PARAMS, rows)
    column = PARAMS["out"][:, 2]
    np.testing.assert_allclose(tokens, PARAMS["embed"][rows] @ column, rtol=1e-5)
    each = PARAMS["place"][:TOKENS] @ column
    np.testing.assert_allclose(positions["place"], jnp.stack([each, each]), rtol=1e-5)
    # A batch in `x` shares the table, which gets what all of them give it.
    batched, together = explain(PARAMS, rows)
    np.testing.assert_allclose(batched, tokens, rtol=1e-5)
    np.testing.assert_allclose(together["place"], 2 * each, rtol=1e-5)


def test_embeddings_and_images_have_positions_too():
    x = PARAMS["embed"][IDS]

    def f(params, x):
        return ((x + params["place"][:TOKENS]) @ params["out"]).sum(0)

    tokens, positions = attribution.positional(f, PROPORTIONAL, target=0)(PARAMS, x)
    assert tokens.shape == x.shape
    column = PARAMS["out"][:, 0]
    np.testing.assert_allclose(
        positions["place"], PARAMS["place"][:TOKENS] @ column, rtol=1e-5
    )


def vision(params, image):
    """Patches by a convolution, a token of the class in front, a table, a bias."""
    patches = lax.conv_general_dilated(
        image[None],
        params["patch"],
        (2, 2),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = patches.reshape(-1, WIDTH)
    x = jnp.concatenate([params["class"], x]) + params["place"][:5] + params["bias"]
    return x.sum(0)


def test_patches_of_an_image_and_the_class_token_have_positions():
    rng = np.random.default_rng(1)
    params = {
        "patch": jnp.asarray(rng.normal(size=(2, 2, 3, WIDTH)), jnp.float32),
        "class": jnp.ones((1, WIDTH)),
        "place": PARAMS["place"],
        "bias": jnp.ones(WIDTH),
    }
    image = jnp.asarray(rng.normal(size=(4, 4, 3)), jnp.float32)
    find = attribution.positional(vision, PROPORTIONAL, target=1)
    tokens, positions = find(params, image)
    assert tokens.shape == image.shape
    # The bias is the same everywhere, and the class token stands at one place alone.
    assert positions.keys() == {"place"}
    np.testing.assert_allclose(positions["place"], PARAMS["place"][:5, 1], rtol=1e-5)


def test_masks_are_no_encodings():
    """Added or multiplied, infinite or not; and given as floats they are harmless."""

    def f(params, mask, ids):
        x = bag_of(params, ids)
        keys = jnp.arange(TOKENS)
        causal = jnp.where(keys[:, None] >= keys[None], 0.0, -jnp.inf)
        w = jax.nn.softmax(x @ x.T + causal + mask)
        seen = (ids > 0)[:, None].astype(jnp.float32)
        return (w @ x * seen).sum(0)

    def bag_of(params, ids):
        return params["embed"][ids] + params["place"][:TOKENS]

    blind = jnp.where(jnp.arange(TOKENS) == 2, -jnp.inf, 0.0) * jnp.ones((TOKENS, 1))
    find = attribution.positional(f, target=0)
    tokens, positions = find(PARAMS, blind, IDS)
    assert positions.keys() == {"place", "mask"}
    assert jnp.isfinite(tokens).all() and not positions["mask"].any()
    _, only = attribution.positional(f, target=0, only="pl*")(PARAMS, blind, IDS)
    assert only.keys() == {"place"}
    np.testing.assert_allclose(only["place"], positions["place"], rtol=1e-5)


# ---- a task of order ---------------------------------------------------------------


def reader(params, ids):
    """One head that looks at all tokens from the last, and a readout of two classes."""
    x = params["embed"][ids] + params["place"]
    scores = (x[-1] @ params["query"]) @ x.T
    z = jax.nn.softmax(scores) @ x
    return jax.nn.relu(z @ params["up"]) @ params["out"]


def trained(ids, labels):
    """Gradient descent from one start, until the task is solved."""
    rng = np.random.default_rng(0)
    shapes = {
        "embed": (4, 6),
        "place": (4, 6),
        "query": (6, 6),
        "up": (6, 12),
        "out": (12, 2),
    }
    params = {
        n: jnp.asarray(rng.normal(size=s) / 2, jnp.float32) for n, s in shapes.items()
    }

    def loss(params):
        logits = jax.vmap(reader, (None, 0))(params, ids)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(ids)), labels].mean()

    def step(params, _):
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, jax.grad(loss)(params)), 0

    params, _ = jax.jit(lambda p: lax.scan(step, p, length=1500))(params)
    logits = jax.vmap(reader, (None, 0))(params, ids)
    assert (logits.argmax(-1) == labels).all()
    return params


def test_where_a_token_stands_is_told_by_positions_alone():
    """The token 1 is looked for by its name, and its place is read: closed form."""
    params = {
        "embed": jnp.array([[0.0, 0.0], [1.0, 0.0]]),
        "place": jnp.array([[0.0, -2.0], [0.0, 1.0], [0.0, 3.0]]),
    }

    def f(params, ids):
        x = params["embed"][ids] + params["place"]
        w = jax.nn.softmax(9 * x[:, 0])
        return (w @ x[:, 1])[None]

    explain = attribution.positional(f, composites.CPLRP())
    for place, value in enumerate((-2.0, 1.0, 3.0)):
        tokens, positions = explain(params, (jnp.arange(3) == place).astype(int))
        np.testing.assert_allclose(tokens, 0, atol=1e-6)
        np.testing.assert_allclose(positions["place"][place], value, rtol=1e-3)
        np.testing.assert_allclose(positions["place"].sum(), value, rtol=1e-2)


def test_a_task_of_order_is_explained_by_positions():
    """Trained: which of two comes first, against which of two there is.

    Where order decides, positions alone tell the class, and have twice the share.
    """
    order = jnp.array([*itertools.permutations((1, 2, 3))])
    first = (jnp.argmin(abs(order - 2), 1) < jnp.argmin(abs(order - 1), 1)).astype(int)
    pairs = ((1, 1, 2), (2, 2, 1))
    kinds = jnp.array([p for pair in pairs for p in itertools.permutations(pair)])
    shares = []
    for rows, labels in ((order, first), (kinds, jnp.repeat(jnp.arange(2), 6))):
        ids = jnp.concatenate([rows, jnp.zeros((len(rows), 1), int)], 1)
        params = trained(ids, labels)

        def difference(params, ids):
            return (reader(params, ids) @ jnp.array([-1.0, 1.0]))[None]

        explain = attribution.positional(difference, composites.AttnLRP(), target=0)
        tokens, positions = jax.vmap(explain, (None, 0))(params, ids)
        size = float(jnp.abs(positions["place"]).sum())
        shares.append(size / (size + float(jnp.abs(tokens).sum())))
        if rows is order:
            told = positions["place"].sum(1) > 0
            np.testing.assert_array_equal(told, labels == 1)
    assert shares[0] > 2 * shares[1]


# ---- what cannot be found ----------------------------------------------------------


def test_a_network_without_encodings_is_refused():
    with pytest.raises(ValueError, match="f: no encoding of positions was found"):
        attribution.positional(lambda p, ids: p["embed"][ids].sum(0))(PARAMS, IDS)


def test_what_cannot_be_followed_is_told():
    table = jnp.arange(3.0)

    def f(x):
        return jnp.fft.fft(x + table).real.sum()

    with pytest.warns(PositionsWarning, match="followed through fft at .*test_pos"):
        _, positions = attribution.positional(f)(jnp.ones(3))
    assert len(positions) == 1


def test_a_loop_over_positions_is_told():
    """Step by step there is no position's axis, and so no encoding in sight."""

    def f(params, ids):
        def step(h, now):
            x, place = now
            return jnp.tanh(h + x + place), h

        start = jnp.zeros(WIDTH)
        x = params["embed"][ids] + params["place"][:TOKENS]
        return lax.scan(step, start, (x, params["place"][:TOKENS]))[0]

    with pytest.warns(PositionsWarning, match="scan over positions at"):
        attribution.positional(f)(PARAMS, IDS)


def test_a_table_of_relative_positions_that_is_multiplied_is_told():
    """Scores with counted embeddings, as in Transformer-XL, are not read."""

    def f(params, ids):
        x = params["embed"][ids] + params["place"][:TOKENS]
        return (x @ waves(TOKENS).T).sum(0)

    with pytest.warns(PositionsWarning, match="what is made of counted numbers"):
        attribution.positional(f)(PARAMS, IDS)


def test_relative_keys_for_each_pair_are_encodings():
    """A contraction in which both have the asking position (Shaw et al. 2018)."""

    def f(params, ids):
        x = params["embed"][ids]
        near = params["near"][jnp.arange(TOKENS)[:, None] - jnp.arange(TOKENS) + TOKENS]
        return jnp.einsum("id,ijd->ij", x, near).sum(0)

    near = jnp.asarray(np.random.default_rng(0).normal(size=(10, WIDTH)), jnp.float32)
    params = PARAMS | {"near": near}
    explain = attribution.positional(f, PROPORTIONAL, target=2)
    tokens, positions = explain(params, IDS)
    score = float(f(params, IDS)[2])
    np.testing.assert_allclose(tokens.sum(), score / 2, rtol=1e-4)
    np.testing.assert_allclose(positions["near"].sum(), score / 2, rtol=1e-4)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"axis": "a"}, TypeError, "axis: got 'a', expected an int"),
        ({"axis": 1.5}, TypeError, "axis: got 1.5"),
        ({"axis": 1}, ValueError, r"axis: got 1, expected one in \[-1, 1\)"),
        ({"only": "plaice"}, ValueError, "only: got 'plaice', expected .*'place'"),
        ({"only": 3}, TypeError, "only: got 3"),
        ({"composite": 3}, TypeError, "composite: got 3"),
    ],
)
def test_what_does_not_fit_is_named(change, error, message):
    with pytest.raises(error, match=message):
        attribution.positional(bag, **change)(PARAMS, IDS)


def test_a_table_that_is_used_for_other_things_is_refused():
    def f(params, x):
        return ((x + params["place"]) @ params["place"].T).sum(0)

    with pytest.raises(ValueError, match="used for other things as well"):
        attribution.positional(f)(PARAMS, jnp.ones((2 * TOKENS, WIDTH)))
