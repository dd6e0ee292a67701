"""Token ids: the relevance of an id is that of what it looks up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp.composites import Composite, EpsilonPlusFlat, Uniform
from jaxlrp.rules import Epsilon, Flat

VOCABULARY, WIDTH, LENGTH = 7, 4, 5
KEYS = jax.random.split(jax.random.key(0), 4)
PARAMS = {
    "table": jax.random.normal(KEYS[0], (VOCABULARY, WIDTH)),
    "positions": 0.3 * jax.random.normal(KEYS[1], (2 * LENGTH, WIDTH)),
    "hidden": jax.random.normal(KEYS[2], (WIDTH, WIDTH)),
    "out": jax.random.normal(KEYS[3], (WIDTH, 3)),
}
IDS = jnp.array([1, 3, 6, 0, 3])


def head(params, embedded):
    """A small network over embeddings, each in its place."""
    x = embedded + params["positions"][: embedded.shape[0]]
    return jax.nn.relu(x @ params["hidden"]).mean(0) @ params["out"]


def of_embeddings(embedded, composite=None):
    return jaxlrp.lrp(head, composite)(PARAMS, embedded).sum(-1)


def assert_close(found, expected, tolerance=1e-5):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


LOOKUPS = {
    "brackets": lambda table, ids: table[ids],
    "take": lambda table, ids: jnp.take(table, ids, axis=0),
    "take, clipped": lambda table, ids: jnp.take(table, ids, axis=0, mode="clip"),
    "one-hot code": lambda table, ids: jax.nn.one_hot(ids, VOCABULARY) @ table,
    "one-hot code by hand": lambda table, ids: (
        (ids[:, None] == jnp.arange(VOCABULARY)).astype(table.dtype) @ table
    ),
    "one-hot code by where": lambda table, ids: (
        jnp.where(jnp.arange(VOCABULARY)[None] == ids[:, None], 1.0, 0.0) @ table
    ),
    "one-hot code that is scattered": lambda table, ids: (
        jnp.zeros((LENGTH, VOCABULARY)).at[jnp.arange(LENGTH), ids].set(1.0) @ table
    ),
    "one by one": lambda table, ids: jax.vmap(lambda i: table[i])(ids),
    "dynamic slices": lambda table, ids: jax.vmap(
        lambda i: lax.dynamic_index_in_dim(table, i, keepdims=False)
    )(ids),
    "loop": lambda table, ids: lax.map(lambda i: table[i], ids),
    "remapped": lambda table, ids: table[::-1][
        jnp.arange(VOCABULARY)[::-1][(ids + 2 * VOCABULARY) % VOCABULARY]
    ],
    "switch": lambda table, ids: lax.switch(
        ids[0], [lambda i: table[i], lambda i: 1.0 * jnp.take(table, i, axis=0)], ids
    ),
    "remat": jax.checkpoint(lambda table, ids: table[ids]),
    "batch": lambda table, ids: table[ids.reshape(1, -1)].reshape(LENGTH, WIDTH),
    "columns": lambda table, ids: jnp.stack(
        [table[ids, k] for k in range(WIDTH)], axis=-1
    ),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_a_token_has_the_relevance_of_its_embedding(name):
    def f(params, ids):
        return head(params, LOOKUPS[name](params["table"], ids))

    found = jax.jit(jaxlrp.lrp(f))(PARAMS, IDS)
    assert found.dtype == jnp.float32 and found.shape == IDS.shape
    assert_close(found, of_embeddings(PARAMS["table"][IDS]))
    audit = jaxlrp.audit(f)(PARAMS, IDS)
    assert abs(audit.residual) < 1e-5 * abs(audit.total_out)
    assert_close(audit.total_in, found.sum())
    plan = jaxlrp.plan(f)(PARAMS, IDS)
    assert plan.coverage == 1.0
    assert any(row.role == "lookup" for row in plan.rows)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32"])
def test_ids_of_any_integer_type(dtype):
    f = lambda ids: head(PARAMS, PARAMS["table"][ids])  # noqa: E731
    assert_close(jaxlrp.lrp(f)(IDS.astype(dtype)), of_embeddings(PARAMS["table"][IDS]))


def test_booleans_name_one_of_two_rows():
    flags = jnp.array([True, False, True, True, False])
    f = lambda flags: head(PARAMS, PARAMS["table"][flags.astype(int)])  # noqa: E731
    expected = of_embeddings(PARAMS["table"][flags.astype(int)])
    assert_close(jaxlrp.lrp(f)(flags), expected)


MOVES = {
    "shifted right": lambda ids: jnp.concatenate([jnp.array([2]), ids[:-1]]),
    "rolled": lambda ids: jnp.roll(ids, 2),
    "padded": lambda ids: jnp.pad(ids, (1, 2), constant_values=4),
    "between special tokens": lambda ids: jnp.concatenate(
        [jnp.array([5]), ids, jnp.array([6, 6])]
    ),
    "reversed": lambda ids: ids[::-1],
    "written into a buffer": lambda ids: jnp.full(8, 4).at[2:7].set(ids),
    "put into a buffer": lambda ids: lax.dynamic_update_slice(
        jnp.full(8, 4), ids, (jnp.asarray(1),)
    ),
    "masked": lambda ids: jnp.where(jnp.arange(LENGTH) < 3, ids, 4),
    "permuted": lambda ids: ids[jnp.array([4, 2, 0, 1, 3])],
    "repeated": lambda ids: jnp.tile(ids, 2),
    "split": lambda ids: jnp.split(ids, [2])[1],
    "clipped": lambda ids: jnp.clip(ids, 1, 4),
}


@pytest.mark.always
@pytest.mark.parametrize("name", MOVES)
def test_relevance_follows_ids_that_are_moved(name):
    move = MOVES[name]
    weights = jax.random.normal(KEYS[1], (3 * LENGTH, WIDTH))

    def f(ids):
        moved = move(ids)
        return jnp.sum(PARAMS["table"][moved] * weights[: moved.size])

    rows = np.asarray(PARAMS["table"])[np.asarray(move(IDS))]
    arrived = (rows * np.asarray(weights)[: len(rows)]).sum(-1)
    # Where each place comes from: numbers that stand for the places of the ids.
    marks = np.asarray(move(jnp.arange(LENGTH) + 100))
    if name == "clipped":
        marks = np.arange(LENGTH) + 100
    expected = [arrived[marks == 100 + i].sum() for i in range(LENGTH)]
    assert_close(jaxlrp.lrp(f)(IDS), expected)


def test_an_id_that_makes_two_look_ups_has_both_relevances():
    def both(p, ids):
        x = p["table"][ids] + p["positions"][ids]
        return (x @ p["hidden"]).sum(0) @ p["out"]

    first = lambda e: ((e + PARAMS["positions"][IDS]) @ PARAMS["hidden"]).sum(0)  # noqa: E731
    second = lambda e: ((PARAMS["table"][IDS] + e) @ PARAMS["hidden"]).sum(0)  # noqa: E731
    target = int(both(PARAMS, IDS).argmax())
    plain = Uniform(Epsilon(0.0))
    parts = [
        jaxlrp.lrp(lambda e, f=f: f(e) @ PARAMS["out"], plain, target=target)(e)
        for f, e in (
            (first, PARAMS["table"][IDS]),
            (second, PARAMS["positions"][IDS]),
        )
    ]
    found = jaxlrp.lrp(both, plain)(PARAMS, IDS)
    assert_close(found, sum(parts).sum(-1), 1e-4)


def test_ids_that_look_up_together_share_in_equal_parts():
    table = jax.random.normal(KEYS[0], (VOCABULARY * VOCABULARY, 3))
    f = lambda a, b: table[a * VOCABULARY + b].sum(0)  # noqa: E731
    a, b = jaxlrp.lrp(f, argnums=(0, 1))(IDS, IDS[::-1])
    expected = table[IDS * VOCABULARY + IDS[::-1]]
    best = int(expected.sum(0).argmax())
    np.testing.assert_allclose(a, expected[:, best] / 2, rtol=1e-5)
    np.testing.assert_allclose(b, expected[:, best] / 2, rtol=1e-5)


@pytest.mark.always
def test_ids_that_are_columns_of_one_index_share_in_equal_parts():
    table = jax.random.normal(KEYS[0], (VOCABULARY, VOCABULARY))
    w = jnp.arange(1.0, LENGTH)
    f = lambda ids: table[ids[:-1], ids[1:]] @ w  # noqa: E731
    half = table[IDS[:-1], IDS[1:]] * w / 2
    expected = jnp.pad(half, (0, 1)) + jnp.pad(half, (1, 0))
    np.testing.assert_allclose(jaxlrp.lrp(f)(IDS), expected, rtol=1e-4)


def test_a_count_of_tokens_goes_to_each_of_them():
    w = jax.random.normal(KEYS[1], (VOCABULARY,))
    bag = lambda ids: jnp.zeros(VOCABULARY).at[ids].add(1.0) @ w  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(bag)(IDS), w[IDS], rtol=1e-5)


COUNTS = {
    "integers": lambda ids: jnp.bincount(ids, length=VOCABULARY).astype(float),
    "added": lambda ids: jnp.zeros(VOCABULARY).at[ids].add(2.0) / 2,
    "subtracted": lambda ids: -jnp.zeros(VOCABULARY).at[ids].subtract(1.0),
}


@pytest.mark.parametrize("name", COUNTS)
def test_every_way_of_counting_tokens(name):
    w = jax.random.normal(KEYS[1], (VOCABULARY,))
    bag = lambda ids: COUNTS[name](ids) @ w  # noqa: E731
    np.testing.assert_allclose(jax.jit(jaxlrp.lrp(bag))(IDS), w[IDS], rtol=1e-4)


OFFSETS = {
    "to some ids": lambda ids: ids.at[1].add(-1),
    "of ids into a buffer": lambda ids: jnp.ones(LENGTH, int).at[:].add(ids) % 7,
    "of ids to themselves": lambda ids: ids.at[jnp.arange(LENGTH)].add(ids) % 7,
}


@pytest.mark.parametrize("name", OFFSETS)
def test_what_is_added_to_an_id_leaves_it_all_relevance(name):
    move = OFFSETS[name]
    f = lambda ids: head(PARAMS, PARAMS["table"][move(ids)])  # noqa: E731
    assert_close(jaxlrp.lrp(f)(IDS), of_embeddings(PARAMS["table"][move(IDS)]))


def test_an_id_whose_place_is_written_over_receives_nothing():
    w = jax.random.normal(KEYS[1], (VOCABULARY,))
    values = jnp.arange(1.0, LENGTH + 1)
    f = lambda ids: jnp.zeros(VOCABULARY).at[ids].set(values) @ w  # noqa: E731
    expected = (values * w[IDS]).at[1].set(0)  # 3 stands in two places
    np.testing.assert_allclose(jaxlrp.lrp(f)(IDS), expected, rtol=1e-4)


def test_an_id_that_says_where_to_write_has_what_was_written():
    w = jnp.arange(1.0, 9)
    update = jnp.array([2.0, 3.0])
    f = lambda i: lax.dynamic_update_slice(jnp.ones(8), update, (i,)) @ w  # noqa: E731
    np.testing.assert_allclose(jaxlrp.lrp(f)(jnp.asarray(4)), 2 * 5 + 3 * 6, rtol=1e-4)


@pytest.mark.always
@pytest.mark.parametrize("low", [-np.inf, np.finfo(np.float32).min, -1e9])
def test_masks_and_positions_made_of_ids_receive_nothing(low):
    def f(ids):
        mask = ids != 0
        positions = jnp.cumsum(mask) * mask
        x = PARAMS["table"][ids] + PARAMS["positions"][positions]
        scores = jnp.where(mask[None], x @ x.T, low)
        hidden = jax.nn.softmax(scores) @ x
        pooled = (hidden * mask[:, None]).sum(0) / mask.sum()
        return pooled @ PARAMS["out"]

    def by_embeddings(embedded):
        mask = IDS != 0
        x = embedded + PARAMS["positions"][jnp.cumsum(mask) * mask]
        scores = jnp.where(mask[None], x @ x.T, low)
        hidden = jax.nn.softmax(scores) @ x
        return (hidden * mask[:, None]).sum(0) / mask.sum() @ PARAMS["out"]

    found = jaxlrp.lrp(f)(IDS)
    assert_close(found, jaxlrp.lrp(by_embeddings)(PARAMS["table"][IDS]).sum(-1))
    assert found[3] == 0  # the padding


def test_ids_that_pick_what_is_attributed_leave_it_all_relevance():
    f = lambda x: (x["signal"][x["ids"]] @ PARAMS["hidden"]).sum(0)  # noqa: E731
    signal = PARAMS["table"]
    found = jaxlrp.lrp(f)({"ids": IDS, "signal": signal})
    alone = jaxlrp.lrp(lambda s: (s[IDS] @ PARAMS["hidden"]).sum(0))(signal)
    np.testing.assert_array_equal(found["signal"], alone)
    assert not np.asarray(found["ids"]).any()


def test_ids_and_floats_in_one_pytree():
    def f(batch):
        x = jnp.concatenate([PARAMS["table"][batch["ids"]], batch["image"]])
        return head(PARAMS, x)

    image = jax.random.normal(KEYS[3], (2, WIDTH))
    found = jaxlrp.lrp(f)({"ids": IDS, "image": image})
    both = jnp.concatenate([PARAMS["table"][IDS], image])
    expected = jaxlrp.lrp(head)(PARAMS, both)
    assert_close(found["ids"], expected[:LENGTH].sum(-1))
    assert_close(found["image"], expected[LENGTH:])


def test_leaves_that_name_nothing_are_zero():
    tree = {"key": jax.random.key(1), "count": jnp.uint32(3), "w": PARAMS["out"]}
    found = jaxlrp.lrp(lambda p, x: x @ p["w"], argnums=0)(tree, jnp.ones(WIDTH))
    assert found["key"].shape == () and found["key"] == 0
    assert found["count"].dtype == jnp.float32 and found["count"] == 0
    assert np.asarray(found["w"]).any()


def test_vmap_over_sequences_and_over_targets():
    f = lambda ids: head(PARAMS, PARAMS["table"][ids])  # noqa: E731
    batch = jnp.stack([IDS, IDS[::-1]])
    found = jax.vmap(jaxlrp.lrp(f))(batch)
    for row, ids in zip(found, batch, strict=True):
        assert_close(row, jaxlrp.lrp(f)(ids))
    one = lambda t: jaxlrp.lrp(f, target=t)(IDS)  # noqa: E731
    by_target = jax.vmap(one)(jnp.arange(3))
    assert_close(by_target[1], one(1))


@pytest.mark.parametrize(
    "composite", [EpsilonPlusFlat(), Composite("flat").on("layer", Flat())]
)
def test_rules_that_send_relevance_beside_the_value(composite):
    f = lambda ids: head(PARAMS, PARAMS["table"][ids])  # noqa: E731
    expected = of_embeddings(PARAMS["table"][IDS], composite)
    assert_close(jaxlrp.lrp(f, composite)(IDS), expected)


def test_the_relevance_of_ids_is_differentiable_in_parameters():
    loss = lambda p: (jaxlrp.lrp(by_table)(p, IDS) ** 2).sum()  # noqa: E731
    by_table = lambda p, ids: head(p, p["table"][ids])  # noqa: E731
    slope = jax.grad(loss)(PARAMS)["table"][1, 0]
    step = 1e-2
    moved = [
        loss({**PARAMS, "table": PARAMS["table"].at[1, 0].add(s)})
        for s in (step, -step)
    ]
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2 * step), rtol=2e-2)


def test_tokens_of_a_recurrent_network():
    def f(ids):
        def cell(h, i):
            h = jnp.tanh(h @ PARAMS["hidden"] + PARAMS["table"][i])
            return h, None

        return lax.scan(cell, jnp.zeros(WIDTH), ids)[0] @ PARAMS["out"]

    def by_embeddings(xs):
        def cell(h, x):
            return jnp.tanh(h @ PARAMS["hidden"] + x), None

        return lax.scan(cell, jnp.zeros(WIDTH), xs)[0] @ PARAMS["out"]

    expected = jaxlrp.lrp(by_embeddings)(PARAMS["table"][IDS]).sum(-1)
    assert_close(jax.jit(jaxlrp.lrp(f))(IDS), expected)


def test_a_loop_that_carries_ids():
    def f(ids):
        def body(buffer, k):
            return jnp.roll(buffer, 1), PARAMS["table"][buffer[0]] * (k + 1.0)

        return lax.scan(body, ids, jnp.arange(3))[1].sum(0) @ PARAMS["out"]

    found = jaxlrp.lrp(f)(IDS)
    target = int(f(IDS).argmax())
    each = PARAMS["table"][IDS] @ PARAMS["out"][:, target]
    expected = np.zeros(LENGTH)
    for k in range(3):  # the k-th step looks up what stood k places before the end
        expected[-k % LENGTH] += (k + 1) * each[-k % LENGTH]
    assert_close(found, expected)


def test_a_custom_rule_may_explain_ids():
    @jaxlrp.custom_lrp
    def embed(table, ids):
        return table[ids]

    embed.deflrp(
        lambda table, ids: (embed(table, ids), None),
        lambda _, R: (None, R.sum(-1)),
    )
    f = lambda params, ids: head(params, embed(params["table"], ids))  # noqa: E731
    assert_close(jaxlrp.lrp(f)(PARAMS, IDS), of_embeddings(PARAMS["table"][IDS]))


def test_what_cannot_be_read_is_refused_for_ids_too():
    spec = jax.ShapeDtypeStruct((LENGTH, WIDTH), jnp.float32)
    table = np.asarray(PARAMS["table"])

    def f(ids):
        return jax.pure_callback(lambda i: table[np.asarray(i)], spec, ids).sum(0)

    with pytest.raises(jaxlrp.errors.UnexplainedPrimitiveError, match="pure_callback"):
        jaxlrp.lrp(f)(IDS)


def test_comparisons_alone_give_a_warning_and_zeros():
    f = lambda ids: (ids > 2).astype(jnp.float32) @ jnp.ones(LENGTH)  # noqa: E731
    with pytest.warns(jaxlrp.errors.IndependentArgumentWarning, match="argument 0"):
        assert not np.asarray(jaxlrp.lrp(f)(IDS)).any()


def test_complex_arguments_have_a_real_relevance():
    w = jax.random.normal(KEYS[0], (3, 3)) + 1j * jax.random.normal(KEYS[1], (3, 3))
    x = jax.random.normal(KEYS[2], (3,)) + 1j
    f = lambda x: jnp.real(x @ w)  # noqa: E731
    found = jaxlrp.lrp(f, Uniform(Epsilon(0.0)), target=1)(x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, jnp.real(x * w[:, 1]), rtol=1e-5)


def test_softmax_of_what_token_ids_look_up_is_one_in_a_loop_too():
    table = jnp.asarray(np.random.default_rng(5).normal(size=(7, 4)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(6).normal(size=(2, 4, 4)), jnp.float32)

    def layer(x, w):
        return x + jax.nn.softmax(x @ w @ x.T) @ x, None

    def scanned(ids):
        return jax.lax.scan(layer, table[ids], weights)[0].sum()

    def written_out(ids):
        x = table[ids]
        for w in weights:
            x, _ = layer(x, w)
        return x.sum()

    ids = jnp.array([1, 4, 2])
    composite = jaxlrp.composites.CPLRP()
    found = jaxlrp.lrp(scanned, composite, target="all")(ids)
    wanted = jaxlrp.lrp(written_out, composite, target="all")(ids)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
    roles = str(jaxlrp.plan(scanned, composite)(ids))
    assert "softmax" in roles
