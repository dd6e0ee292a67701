"""Relevance of units over a dataset, by hand, and what is kept of a network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from jaxlrp import composites, patching, runs
from tests.patching import networks as net

SITES = {
    "neurons": patching.site("hidden", ("layer", None, "neuron")),
    "heads": patching.site("z", ("layer", None, "head", None)),
}
IDS = jnp.array([[1, 2, 3, 4], [5, 2, 0, 6], [3, 3, 1, 1]])
ANSWERS = jnp.array([[2, 3], [0, 1], [4, 5]])


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def values(ids, name):
    """What is tagged, layers stacked."""
    seen = []

    def tag(x, tagged):
        seen.extend([x] if tagged == name else [])
        return x

    net.unrolled(net.PARAMS, ids, tag)
    return jnp.stack(seen)


@functools.cache
def neurons_by_hand():
    """Of each row, by RelP."""
    rows = []
    for ids in IDS:
        c = net.by_hand(net.RelP, ids, "hidden")
        rows.append((values(ids, "hidden") * c).sum(1))
    return np.asarray(rows)


@functools.cache
def found(f, composite=None):
    find = patching.units(f, SITES, composite, net.metric)
    return jax.jit(jax.vmap(find, (None, 0, None)))(net.PARAMS, IDS, net.ANSWERS)


def test_relevance_of_units_is_value_times_multiplier_in_a_scan_and_written_out():
    scanned = found(net.scanned, composites.RelP())
    assert scanned["heads"].shape == (3, net.LAYERS, net.HEADS)
    close(scanned["neurons"], neurons_by_hand())
    close(found(net.unrolled, composites.RelP())["heads"], scanned["heads"])


def test_without_rules_it_is_gradient_times_value():
    rows = [
        (values(ids, "hidden") * net.by_hand(net.Plain, ids, "hidden")).sum(1)
        for ids in IDS
    ]
    close(found(net.scanned)["neurons"], jnp.stack(rows))


def test_units_of_a_layer_that_everything_passes_add_up_to_the_score():
    def f(w, x):
        hidden = checkpoint_name(jax.nn.relu(x @ w["in"]), "hidden")
        return hidden @ w["out"]

    w = {"in": net.PARAMS["out"], "out": net.PARAMS["out"].T}
    x = jnp.linspace(-1, 1, net.WIDTH)
    metric = lambda out, k: out[k]  # noqa: E731
    scores = patching.units(f, "hidden", composites.Proportional(), metric)(w, x, 1)
    close(scores["hidden"].sum(), f(w, x)[1])
    assert jnp.isfinite(scores["hidden"]).all()


def test_experts_of_a_mixture_are_units():
    """What an expert gives, times the weight that the router gives it."""

    def mixture(w, x):
        weights = jax.nn.softmax(x @ w["router"])
        inner = jax.nn.relu(jnp.einsum("td,edh->eth", x, w["up"]))
        given = jnp.einsum("eth,ehd->etd", inner, w["down"])
        given = checkpoint_name(given, "experts")
        return jnp.einsum("te,etd->d", weights, given)

    rng = np.random.default_rng(0)
    shapes = {"router": (4, 3), "up": (3, 4, 5), "down": (3, 5, 4)}
    w = {n: jnp.asarray(rng.normal(size=s), jnp.float32) for n, s in shapes.items()}
    x = jnp.asarray(rng.normal(size=(6, 4)), jnp.float32)
    site = patching.site("experts", ("expert", None, None))
    metric = lambda out: out[2]  # noqa: E731
    weights = jax.nn.softmax(x @ w["router"])
    _, given = patching.values(mixture, "experts")(w, x)
    by_hand = jnp.einsum("te,et->e", weights, given["experts"][..., 2])
    # A product of two signals is halved by AttnLRP, and not by the derivative.
    for composite, share in ((None, 1.0), (composites.AttnLRP(), 0.5)):
        relevance = patching.units(mixture, site, composite, metric)(w, x)
        close(relevance["experts"], share * by_hand)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_means_of_half_precision_are_summed_in_full(dtype):
    x = jnp.asarray(np.random.default_rng(0).uniform(100, 300, (512, 2)), dtype)
    f = lambda w, x: checkpoint_name(x * w, "h").sum()  # noqa: E731
    found = patching.mean_units(f, "h")(jnp.ones(2, dtype), [x])["h"]
    np.testing.assert_allclose(found, np.asarray(x, float).mean(0), rtol=1e-6)


@pytest.mark.always
@pytest.mark.parametrize("by", ["signed", "size"])
def test_means_and_differences_of_datasets(by):
    of = np.abs if by == "size" else lambda r: r
    find = patching.mean_units(
        net.scanned, SITES["neurons"], composites.RelP(), net.metric, by=by
    )
    pairs = jnp.broadcast_to(net.ANSWERS, (3, 2))
    batches = [(IDS[:2], pairs[:2]), (IDS[2:], pairs[2:])]
    means = find(net.PARAMS, iter(batches))["hidden"]
    close(means, of(neurons_by_hand()).mean(0))
    assert means.dtype == np.float64
    less = find(net.PARAMS, batches, less=batches[1:])["hidden"]
    close(less, means - of(neurons_by_hand()[2]))


def test_runs_reduce_units_of_a_dataset(tmp_path):
    find = patching.units(net.scanned, SITES["neurons"], composites.RelP(), net.metric)

    @jax.jit
    def explain(ids):
        return jax.vmap(lambda row: find(net.PARAMS, row, net.ANSWERS))(ids)

    run = runs.attribute(
        explain,
        np.asarray(IDS),
        tmp_path / "run",
        batch_size=2,
        write=(),
        reduce={"mean": runs.Moments("hidden")},
        progress=False,
    )
    close(run.reduced("mean")["mean"], neurons_by_hand().mean(0))


def test_what_is_kept_is_a_circuit_with_zero_elsewhere():
    scores = {"neurons": neurons_by_hand().mean(0)}
    run = patching.circuit(net.scanned, {"neurons": SITES["neurons"]}, ablate=0)

    @jax.jit
    def pruned(share):
        keep = patching.prune(scores, share)
        return net.metric(run(keep, net.PARAMS, IDS[0]))

    kept = np.argsort(np.argsort(-scores["neurons"].ravel())) < 6
    kept = kept.reshape(net.LAYERS, 1, net.HIDDEN)
    changes = {
        ("hidden", i): lambda x, i=i: x * kept[i].astype(np.float32) for i in range(2)
    }
    wanted = net.patched_by_hand(IDS[0], changes)
    both = jax.vmap(pruned)(jnp.array([0.0, 0.4]))
    close(both, [net.metric(net.scanned(net.PARAMS, IDS[0])), wanted])


@pytest.mark.always
def test_shares_of_each_layer_alone():
    scores = {"a": jnp.array([[1.0, -5.0, 2.0, 3.0], [10.0, 11.0, 12.0, -13.0]])}
    keep = patching.prune(scores, 0.5, apart=1)["a"]
    assert keep.tolist() == [[False, False, True, True], [False, True, True, False]]
    together = patching.prune(scores, 0.5, by="size")["a"]
    assert together.tolist() == [[False] * 4, [True] * 4]
    assert patching.prune(scores, 1.0)["a"].sum() == 0
    assert patching.prune(scores, 0.0, apart=0)["a"].all()


def test_bad_arguments_are_named():
    find = patching.mean_units(net.scanned, "hidden", None, net.metric)
    ids = (IDS,)
    with pytest.raises(ValueError, match="by: got 'largest'"):
        patching.mean_units(net.scanned, "hidden", by="largest")
    with pytest.raises(TypeError, match="batches: got .*, expected an iterable"):
        find(net.PARAMS, IDS)
    with pytest.raises(ValueError, match="batches: got no batch"):
        find(net.PARAMS, [])
    with pytest.raises(ValueError, match=r"less, batch 0: got arrays of shapes"):
        find(net.PARAMS, [ids], less=[(IDS, ANSWERS[:2])])
    with pytest.raises(ValueError, match=r"batch 1: 'hidden' has units of shape"):
        find(net.PARAMS, [ids, (IDS[:, :3],)])
    with pytest.raises(ValueError, match="less: 'hidden' has units of shape"):
        find(net.PARAMS, [ids], less=[(IDS[:, :3],)])
    with pytest.raises(ValueError, match="share: got 1.5"):
        patching.prune({"a": jnp.ones(2)}, 1.5)
    with pytest.raises(ValueError, match=r"apart: got 2, .*\['a'\] have shape \(2,\)"):
        patching.prune({"a": jnp.ones(2)}, 0.5, apart=2)
    with pytest.raises(TypeError, match="apart: got -1"):
        patching.prune({"a": jnp.ones(2)}, 0.5, apart=-1)
    with pytest.raises(TypeError, match="corrupt: got None, with ablate='mean'"):
        patching.circuit(net.scanned, "hidden", ablate="mean")({}, net.PARAMS, IDS[0])
