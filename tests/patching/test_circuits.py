"""Edges and circuits: by hand, by brute force, and in both forms of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from jaxlrp import composites, patching
from tests.patching import networks as net

ONE = ("position", None)
SOURCES = {
    "embedding": patching.site("embedding", ONE),
    "attention": patching.site("attention_out", net.AXES),
    "mlp": patching.site("mlp_out", net.AXES),
}
TARGETS = {
    "mlp": patching.site("mlp_in", net.AXES),
    "final": patching.site("final", ONE),
}
NODES = {k: SOURCES[k] for k in ("embedding", "attention", "mlp")}
ARGS = (net.PARAMS, net.CLEAN, net.CORRUPT)


def decoder(params, ids):
    """The network with a tag on the branch that attention reads as well."""

    def layer(x, w):
        y = net.norm(checkpoint_name(x, "attention_in"))
        q, k, v = ((y @ w[n]).reshape(len(x), net.HEADS, -1) for n in "qkv")
        scores = jnp.einsum("qhd,khd->hqk", q, k)
        scores = jnp.where(np.tri(len(x), dtype=bool), scores, -jnp.inf)
        z = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)
        x = x + checkpoint_name(z.reshape(x.shape) @ w["o"], "attention_out")
        y = net.norm(checkpoint_name(x, "mlp_in"))
        hidden = jax.nn.silu(y @ w["gate"]) * (y @ w["up"])
        return x + checkpoint_name(hidden @ w["down"], "mlp_out"), None

    x = checkpoint_name(params["embed"][ids], "embedding")
    x, _ = jax.lax.scan(layer, x, params["layers"])
    return net.norm(checkpoint_name(x, "final")[-1]) @ params["out"]


def written_out(params, ids):
    x = checkpoint_name(params["embed"][ids], "embedding")
    for i in range(net.LAYERS):
        w = jax.tree.map(lambda a, i=i: a[i], params["layers"])
        y = net.norm(checkpoint_name(x, "attention_in"))
        q, k, v = ((y @ w[n]).reshape(len(x), net.HEADS, -1) for n in "qkv")
        scores = jnp.einsum("qhd,khd->hqk", q, k)
        scores = jnp.where(np.tri(len(x), dtype=bool), scores, -jnp.inf)
        z = jnp.einsum("hqk,khd->qhd", jax.nn.softmax(scores), v)
        x = x + checkpoint_name(z.reshape(x.shape) @ w["o"], "attention_out")
        y = net.norm(checkpoint_name(x, "mlp_in"))
        hidden = jax.nn.silu(y @ w["gate"]) * (y @ w["up"])
        x = x + checkpoint_name(hidden @ w["down"], "mlp_out")
    return net.norm(checkpoint_name(x, "final")[-1]) @ params["out"]


WHOLE = TARGETS | {"attention": patching.site("attention_in", net.AXES)}


def assert_close(found, wanted, atol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol),
        found,
        wanted,
    )


# ---- edges -------------------------------------------------------------------------


def test_edges_that_exist_are_those_that_the_residual_stream_has():
    found = patching.edges(decoder, SOURCES, WHOLE, None, net.metric)(*ARGS).exists
    first = {pair: there[0] for pair, there in found.items()}  # at one position
    later, same = np.triu(np.ones((2, 2), bool), 1), np.triu(np.ones((2, 2), bool))
    np.testing.assert_array_equal(first["attention", "mlp"], same)
    np.testing.assert_array_equal(first["attention", "attention"], later)
    np.testing.assert_array_equal(first["mlp", "mlp"], later)
    np.testing.assert_array_equal(first["mlp", "attention"], later)
    assert all(first[source, "final"].all() for source in SOURCES)


def test_what_passes_a_norm_is_no_edge():
    def f(w, x):  # a norm behind the sum, as in BERT
        x = x + checkpoint_name(x @ w, "u")
        near = checkpoint_name(x, "near")
        return checkpoint_name(net.norm(near) * 1.0, "far").sum()

    targets = {name: patching.site(name, (None,)) for name in ("near", "far")}
    args = jnp.eye(3), jnp.ones(3), jnp.arange(3.0)
    found = patching.edges(f, patching.site("u", (None,)), targets)(*args)
    assert found.exists["u", "near"]
    assert not found.exists["u", "far"]
    assert found.scores["u", "far"] == 0


@pytest.mark.parametrize("composite", [None, composites.RelP()], ids=["none", "RelP"])
def test_edges_are_differences_of_sources_times_multipliers_of_targets(composite):
    found = patching.edges(decoder, SOURCES, WHOLE, composite, net.metric)(*ARGS)
    values = patching.values(decoder, "attention_out")
    change = values(*ARGS[:2])[1]["attention_out"]
    change = change - values(net.PARAMS, net.CORRUPT)[1]["attention_out"]
    find = patching.multipliers(decoder, "mlp_in", composite, net.metric)
    slopes = find(net.PARAMS, net.CORRUPT)[2]["mlp_in"]
    wanted = np.zeros((net.TOKENS, 2, 2))
    for u in range(2):
        for v in range(u, 2):  # attention of a layer precedes its MLP
            wanted[:, u, v] = (change[u] * slopes[v]).sum(-1)
    assert_close(found.scores["attention", "mlp"], wanted)


def test_edges_without_positions_are_sums_over_them():
    def along(sites):
        summed = {k: (s.pattern, s.axes) for k, s in sites.items()}
        return {
            k: patching.site(name, [None if a == "position" else a for a in axes])
            for k, (name, axes) in summed.items()
        }

    args = (None, net.metric)
    one = patching.edges(decoder, along(SOURCES), along(WHOLE), *args)(*ARGS)
    every = patching.edges(decoder, SOURCES, WHOLE, *args)(*ARGS)
    assert_close(one.scores, jax.tree.map(lambda a: a.sum(0), every.scores))


def test_exact_edges_are_those_of_brute_force():
    found = patching.exact_edges(decoder, SOURCES, WHOLE, net.metric)(*ARGS)
    values = patching.values(decoder, ["attention_out", "embedding"])
    clean, corrupt = (values(net.PARAMS, ids)[1] for ids in ARGS[1:])
    change = clean["attention_out"] - corrupt["attention_out"]

    def score(where, added):
        """With something added to what the MLP of layer 1 reads, at one position."""
        extra = jnp.zeros((net.LAYERS, net.TOKENS, net.WIDTH)).at[1, where].set(added)
        _, own = patching.values(decoder, "mlp_in")(net.PARAMS, net.CORRUPT)
        patched = patching.patch(decoder, "mlp_in")
        mask = jnp.arange(2)[:, None, None] == 1
        new = {"mlp_in": (mask, own["mlp_in"] + extra)}
        return net.metric(patched(new, net.PARAMS, net.CORRUPT))

    base = net.metric(decoder(net.PARAMS, net.CORRUPT))
    for t in (1, 3):
        wanted = score(t, change[0, t]) - base
        assert_close(found.scores["attention", "mlp"][t, 0, 1], wanted)
    assert (found.scores["mlp", "mlp"][:, 1, 0] == 0).all()


def test_edges_do_not_depend_on_how_layers_are_written():
    for make in (
        lambda f: patching.edges(f, SOURCES, WHOLE, composites.RelP(), net.metric),
        lambda f: patching.exact_edges(f, SOURCES, WHOLE, net.metric),
    ):
        one, other = make(decoder)(*ARGS), make(written_out)(*ARGS)
        assert_close(one.scores, other.scores)
        assert one.exists == other.exists


def test_edges_can_be_compiled_and_mapped():
    find = patching.edges(decoder, SOURCES, WHOLE, composites.RelP(), net.metric)
    clean = jnp.stack([net.CLEAN, net.CLEAN[::-1]])
    corrupt = jnp.stack([net.CORRUPT, net.CLEAN])
    found = jax.jit(jax.vmap(find, (None, 0, 0)))(net.PARAMS, clean, corrupt)
    alone = find(net.PARAMS, clean[1], corrupt[1])
    assert_close(jax.tree.map(lambda a: a[1], found.scores), alone.scores)
    assert found.exists == alone.exists


# ---- circuits ----------------------------------------------------------------------


def kept(shapes, value):
    return jax.tree.map(lambda a: np.full(a.shape, value), shapes)


def test_a_circuit_of_all_nodes_is_clean_and_of_none_corrupt():
    run = patching.circuit(decoder, NODES)
    scores = patching.effects(decoder, NODES, None, net.metric)(*ARGS)
    assert_close(run(kept(scores, True), *ARGS), decoder(*ARGS[:2]))
    assert_close(run(kept(scores, False), *ARGS), decoder(net.PARAMS, net.CORRUPT))
    assert_close(run({}, *ARGS), decoder(*ARGS[:2]))


@pytest.mark.always
@pytest.mark.parametrize("f", [decoder, written_out])
def test_a_circuit_of_all_edges_is_clean_and_of_none_corrupt(f):
    run = patching.circuit(f, edges=(SOURCES, WHOLE))
    there = patching.edges(f, SOURCES, WHOLE, None, net.metric)(*ARGS).exists
    there = dict(there)
    assert_close(run(kept(there, True), *ARGS), f(*ARGS[:2]))
    assert_close(run(kept(there, False), *ARGS), f(net.PARAMS, net.CORRUPT))


@pytest.mark.parametrize("f", [decoder, written_out])
def test_an_edge_that_is_left_out_is_one_that_is_patched_the_other_way(f):
    run = patching.circuit(f, edges=(SOURCES, WHOLE))
    swapped = patching.exact_edges(f, SOURCES, WHOLE, net.metric)
    wanted = swapped(net.PARAMS, net.CORRUPT, net.CLEAN)
    whole = net.metric(f(*ARGS[:2]))
    for pair, at in ((("attention", "mlp"), (1, 0, 1)), (("mlp", "final"), (3, 0))):
        keep = kept(dict(wanted.exists), True)
        keep[pair][at] = False
        found = net.metric(run(keep, *ARGS)) - whole
        assert_close(found, wanted.scores[pair][at])


def test_circuits_can_be_mapped_over_what_they_keep():
    run = patching.circuit(decoder, NODES)
    places = patching.order(patching.exact(decoder, NODES, net.metric)(*ARGS))
    sizes = jnp.array([0, 3, 11])

    def of_size(k):
        return run(jax.tree.map(lambda p: p < k, places), *ARGS)

    assert_close(jax.vmap(of_size)(sizes), jnp.stack([*map(of_size, sizes)]))


def test_what_is_ablated_may_be_a_mean_zero_or_given():
    node = {"mlp": NODES["mlp"]}
    keep = {"mlp": np.zeros((net.LAYERS, net.TOKENS), bool)}
    many = jnp.stack([net.CLEAN, net.CORRUPT])
    mean = patching.circuit(decoder, node, ablate="mean")(keep, *ARGS[:2], many)
    values = patching.values(decoder, "mlp_out")
    both = [values(net.PARAMS, ids)[1]["mlp_out"] for ids in many]
    patched = patching.patch(decoder, "mlp_out")
    middle = {"mlp_out": (both[0] + both[1]) / 2}
    assert_close(mean, patched(middle, *ARGS[:2]))
    zero = patching.circuit(decoder, node, ablate=0)(keep, *ARGS)
    assert_close(zero, patched({"mlp_out": 0.0}, *ARGS[:2]))
    given = patching.circuit(decoder, node, ablate={"mlp": 0.0})(keep, *ARGS)
    assert_close(given, zero)


def test_a_share_is_kept():
    node = {"mlp": NODES["mlp"]}
    keep = {"mlp": np.full((net.LAYERS, net.TOKENS), 0.25)}
    found = patching.circuit(decoder, node, ablate=0)(keep, *ARGS)
    wanted = patching.patch(decoder, "mlp_out")({"mlp_out": lambda x: x / 4}, *ARGS[:2])
    assert_close(found, wanted)


# ---- rankings ----------------------------------------------------------------------


def test_places_are_those_of_all_scores_together():
    scores = {"a": jnp.array([[1.0, -4.0], [3.0, 0.0]]), "b": jnp.array([2.0])}
    signed = patching.order(scores)
    assert {k: v.tolist() for k, v in signed.items()} == {
        "a": [[2, 4], [0, 3]],
        "b": [1],
    }
    assert patching.order(scores, "size")["a"].tolist() == [[3, 0], [1, 4]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16])
def test_places_are_those_of_scores_of_any_type(dtype):
    scores = {"a": np.array([0, 120, 100, 127], dtype)}
    for by in ("signed", "size"):
        assert patching.order(scores, by)["a"].tolist() == [3, 1, 2, 0]


def test_edges_that_do_not_exist_come_last():
    found = patching.edges(decoder, SOURCES, WHOLE, None, net.metric)(*ARGS)
    places = patching.order(found)
    count = sum(int(there.sum()) for there in found.exists.values())
    for pair, there in found.exists.items():
        np.testing.assert_array_equal(places[pair] < count, there)


def test_areas_are_those_below_the_curve_and_to_one():
    fractions = [0.0, 0.25, 1.0]
    cpr, cmd = patching.faithfulness([0.0, 2.0, 1.0], fractions)
    assert cpr == pytest.approx(0.25 * 1 + 0.75 * 1.5)
    assert cmd == pytest.approx(0.25 * 1 + 0.75 * 0.5)
    again = patching.faithfulness([5.0, 11.0, 8.0], fractions, full=8.0, none=5.0)
    assert np.allclose(again, (cpr, cmd))
    rows = patching.faithfulness(np.ones((4, 3)), fractions)
    assert rows[0].shape == (4,)


# ---- bad input ---------------------------------------------------------------------

BAD = {
    "neither": (lambda: patching.circuit(decoder), "nodes: expected either"),
    "both": (
        lambda: patching.circuit(decoder, "mlp_out", edges=("mlp_out", "final")),
        "nodes: expected either",
    ),
    "ablate": (
        lambda: patching.circuit(decoder, "mlp_out", ablate="noise"),
        "ablate: got 'noise', expected 'corrupt', 'mean', 0 or a dict",
    ),
    "a node of keep": (
        lambda: patching.circuit(decoder, "mlp_out")({"mlp": True}, *ARGS),
        "keep: got 'mlp', expected one of 'mlp_out'",
    ),
    "the shape of keep": (
        lambda: patching.circuit(decoder, NODES)({"mlp": np.ones(2, bool)}, *ARGS),
        r"keep\['mlp'\]: got shape \(2,\), expected that of its scores, \(2, 4\)",
    ),
    "ends that do not meet": (
        lambda: patching.edges(
            decoder,
            patching.site("mlp_out", ("layer", "position", "width")),
            patching.site("mlp_in", net.AXES),
            None,
            net.metric,
        )(*ARGS),
        "axes: 'mlp_in' has an axis called None more than the other end",
    ),
    "sizes that do not meet": (
        lambda: patching.edges(
            decoder,
            patching.site("embedding", (None, "width")),
            patching.site("final", ("width", None)),
            None,
            net.metric,
        )(*ARGS),
        "targets: 'final' has shape .* does not meet 'embedding'",
    ),
    "only": (
        lambda: patching.edges(
            decoder,
            patching.site("embedding", ONE, only={"position": 0}),
            patching.site("final", ONE),
            None,
            net.metric,
        )(*ARGS),
        "only: got one for 'embedding', which has edges",
    ),
    "by": (lambda: patching.order({"a": jnp.ones(1)}, "rank"), "by: got 'rank'"),
    "fractions": (
        lambda: patching.faithfulness([0.0, 1.0], [1.0, 0.0]),
        "fractions: got .*expected ascending numbers between 0 and 1",
    ),
    "scores": (
        lambda: patching.faithfulness([0.0, 1.0, 2.0], [0.0, 1.0]),
        r"scores: got shape \(3,\) for 2 fractions",
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
