"""Values, multipliers, patches and effects: by hand, by brute force, in all forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlrp import composites, patching, rules
from tests.patching import networks as net

HANDS = {
    "gradient": (None, net.Plain),
    "AttnLRP": (composites.AttnLRP(), net.AttnLRP),
    "RelP": (composites.RelP(), net.RelP),
    "CPLRP": (composites.CPLRP(), net.CPLRP),
    "GIM": (composites.GIM(), net.GIM),
}
SITES = {
    "residual": patching.site("residual", net.AXES),
    "mlp": patching.site("mlp_out", net.AXES),
    "z": patching.site("z", ("layer", "position", "head", None)),
}
ARGS = (net.PARAMS, net.CLEAN, net.CORRUPT, net.ANSWERS)


def assert_close(found, wanted, atol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol),
        found,
        wanted,
    )


@functools.cache
def true_effects(name):
    """Brute force: each node of a tag patched by hand."""
    out, clean = patching.values(net.scanned, name)(net.PARAMS, net.CLEAN)
    base = net.metric(net.scanned(net.PARAMS, net.CORRUPT))
    found = np.zeros((net.LAYERS, net.TOKENS))
    for i, t in np.ndindex(*found.shape):
        new = clean[name][i, t]
        change = {(name, i): lambda x, t=t, new=new: x.at[t].set(new)}
        found[i, t] = net.patched_by_hand(net.CORRUPT, change) - base
    return found


# ---- multipliers -------------------------------------------------------------------


@pytest.mark.always
@pytest.mark.parametrize("tag", net.TAGS)
@pytest.mark.parametrize("method", HANDS)
def test_multipliers_are_those_of_rules_written_by_hand(method, tag):
    composite, by_hand = HANDS[method]
    find = patching.multipliers(net.scanned, tag, composite, net.metric)
    _, _, found = jax.jit(find)(net.PARAMS, net.CLEAN)
    assert_close(found[tag], net.by_hand(by_hand, net.CLEAN, tag))


@pytest.mark.parametrize("composite", [composites.RelP(), None], ids=["RelP", "none"])
def test_multipliers_are_finite_where_the_value_is_zero(composite):
    w = jnp.array([[1.0, -1.0, 0.5], [2.0, 0.3, -1.0]])
    down = jnp.array([1.0, 2.0, 3.0])

    def f(params, x):
        return checkpoint_name(jax.nn.relu(x @ w), "hidden") @ down

    x = jnp.array([-1.0, 0.0])
    find = patching.multipliers(f, "hidden", composite)
    _, values, found = find((), x)
    assert_close(values["hidden"], [0.0, 1.0, 0.0])
    assert_close(found["hidden"], down)


def test_relevance_is_value_times_multiplier():
    composite = composites.AttnLRP()
    find = patching.multipliers(net.scanned, "mlp_out", composite, lambda out: out[2])
    _, values, found = find(net.PARAMS, net.CLEAN)
    import jaxlrp

    explain = jaxlrp.lrp(net.scanned, composite, target=2, capture="mlp_out")
    _, captured = explain(net.PARAMS, net.CLEAN)
    score = net.scanned(net.PARAMS, net.CLEAN)[2]
    relevance = values["mlp_out"] * found["mlp_out"]
    assert_close(relevance, captured["mlp_out"] / score * score, atol=1e-4)


def test_a_metric_has_no_rule():
    """The difference of two outputs would share its relevance under a rule of sums."""

    def f(params, x):
        return checkpoint_name(x, "x") * 1.0

    x = jnp.array([3.0, 2.9])
    find = patching.multipliers(f, "x", composites.ResLRP(), lambda y: y[0] - y[1])
    assert_close(find((), x)[2]["x"], [1.0, -1.0])


def test_rules_that_give_relevances_are_refused():
    composite = composites.AttnLRP().on("layer", rules.Flat())
    find = patching.multipliers(net.scanned, "hidden", composite, net.metric)
    with pytest.raises(ValueError, match="composite: AttnLRP has a rule behind"):
        find(net.PARAMS, net.CLEAN)


# ---- exact and estimated -----------------------------------------------------------


@pytest.mark.always
@pytest.mark.parametrize("tag", ["residual", "attention_out", "mlp_out"])
def test_exact_effects_are_those_of_brute_force(tag):
    find = patching.exact(net.scanned, patching.site(tag, net.AXES), net.metric)
    assert_close(find(*ARGS)[tag], true_effects(tag))


def test_heads_are_patched_alone():
    find = jax.jit(patching.exact(net.scanned, SITES["z"], net.metric, batch=3))
    found = find(*ARGS)["z"]
    assert found.shape == (net.LAYERS, net.TOKENS, net.HEADS)
    clean = patching.values(net.scanned, "z")(net.PARAMS, net.CLEAN)[1]["z"]
    change = {("z", 1): lambda x: x.at[-1, 0].set(clean[1, -1, 0])}
    base = net.metric(net.scanned(net.PARAMS, net.CORRUPT))
    assert_close(found[1, -1, 0], net.patched_by_hand(net.CORRUPT, change) - base)


def test_only_some_nodes_are_asked_about():
    some = patching.site("mlp_out", net.AXES, only={"position": [-1, 1], "layer": 0})
    for transform in (
        patching.exact(net.scanned, some, net.metric),
        patching.effects(net.scanned, some, composites.RelP(), net.metric),
    ):
        whole = patching.site("mlp_out", net.AXES)
        if transform.__qualname__.startswith("exact"):
            every = patching.exact(net.scanned, whole, net.metric)
        else:
            every = patching.effects(net.scanned, whole, composites.RelP(), net.metric)
        found, all_ = transform(*ARGS)["mlp_out"], every(*ARGS)["mlp_out"]
        assert_close(found, all_[:1][:, [-1, 1]])


@pytest.mark.always
@pytest.mark.parametrize("method", HANDS)
def test_effects_are_differences_times_multipliers(method):
    composite, by_hand = HANDS[method]
    find = patching.effects(net.scanned, SITES["mlp"], composite, net.metric)
    values = patching.values(net.scanned, "mlp_out")
    change = (
        values(net.PARAMS, net.CLEAN)[1]["mlp_out"]
        - values(net.PARAMS, net.CORRUPT)[1]["mlp_out"]
    )
    wanted = (change * net.by_hand(by_hand, net.CORRUPT, "mlp_out")).sum(-1)
    assert_close(find(*ARGS)["mlp_out"], wanted)


def test_both_ends_are_the_mean_of_either():
    find = functools.partial(
        patching.effects, net.scanned, SITES, composites.CPLRP(), net.metric
    )
    both, clean, corrupt = (find(at=at)(*ARGS) for at in ("both", "clean", "corrupt"))
    assert_close(both, jax.tree.map(lambda a, b: (a + b) / 2, clean, corrupt))


@pytest.mark.parametrize("composite", [None, composites.RelP()], ids=["none", "RelP"])
def test_steps_are_the_mean_along_the_embeddings(composite):
    sites = {"mlp": SITES["mlp"], "e": patching.site("embedding", (None, None))}
    find = patching.effects(
        net.scanned, sites, composite, net.metric, at=3, along="embedding"
    )
    found = find(*ARGS)

    def from_embedded(params, e):
        same = checkpoint_name(e, "e")
        w = params["layers"]
        x, _ = lax.scan(lambda x, w: (net.layer(x, w, checkpoint_name), None), same, w)
        return net.norm(x[-1]) @ params["out"]

    clean, corrupt = (net.PARAMS["embed"][i] for i in (net.CLEAN, net.CORRUPT))
    slopes = [
        patching.multipliers(from_embedded, "mlp_out", composite, net.metric)(
            net.PARAMS, corrupt + share * (clean - corrupt)
        )[2]["mlp_out"]
        for share in (1 / 6, 1 / 2, 5 / 6)
    ]
    values = patching.values(from_embedded, "mlp_out")
    change = (
        values(net.PARAMS, clean)[1]["mlp_out"]
        - values(net.PARAMS, corrupt)[1]["mlp_out"]
    )
    assert_close(found["mlp"], (change * sum(slopes) / 3).sum(-1))
    # Without `along`, the way is that of an input which is floating-point itself.
    direct = patching.effects(
        from_embedded, {"mlp": SITES["mlp"]}, composite, net.metric, at=3
    )
    assert_close(direct(net.PARAMS, clean, corrupt), {"mlp": found["mlp"]})


@pytest.mark.always
def test_many_steps_of_the_gradient_add_up_to_the_change():
    """Integrated gradients are complete at the site along which the way goes."""
    find = patching.effects(
        net.scanned, "embedding", None, net.metric, at=64, along="embedding"
    )
    change = net.metric(net.scanned(net.PARAMS, net.CLEAN)) - net.metric(
        net.scanned(net.PARAMS, net.CORRUPT)
    )
    assert_close(jax.jit(find)(*ARGS)["embedding"].sum(), change, atol=2e-3)


# ---- forms of a program ------------------------------------------------------------


@pytest.mark.parametrize("composite", [None, composites.GIM()], ids=["none", "GIM"])
@pytest.mark.parametrize("form", ["unrolled", "scanned_again"])
def test_the_form_of_the_program_changes_nothing(form, composite):
    other = getattr(net, form)
    for find in (
        lambda f: patching.effects(f, SITES, composite, net.metric),
        lambda f: patching.effects(
            f, SITES, composite, net.metric, at=2, along="embedding"
        ),
    ):
        assert_close(find(other)(*ARGS), find(net.scanned)(*ARGS))


@pytest.mark.parametrize("form", ["unrolled", "scanned_again"])
def test_exact_effects_do_not_depend_on_the_form(form):
    find = functools.partial(patching.exact, sites=SITES, metric=net.metric)
    assert_close(find(getattr(net, form))(*ARGS), find(net.scanned)(*ARGS))


def test_a_pattern_for_several_tags_of_a_loop_stacks_them_in_their_order():
    both = patching.site("*_out", net.AXES)
    found = {}
    for f in (net.scanned, net.unrolled):
        found[f] = patching.values(f, {"x": both})(net.PARAMS, net.CLEAN)[1]["x"]
    assert_close(found[net.scanned], found[net.unrolled])
    attention = patching.values(net.scanned, "attention_out")(net.PARAMS, net.CLEAN)
    assert_close(found[net.scanned][::2], attention[1]["attention_out"])


@pytest.mark.parametrize("kind", ["exact", "RelP", "steps"])
def test_pairs_can_be_mapped_over(kind):
    find = {
        "exact": patching.exact(net.scanned, SITES, net.metric),
        "RelP": patching.effects(net.scanned, SITES, composites.RelP(), net.metric),
        "steps": patching.effects(
            net.scanned, SITES, None, net.metric, at=2, along="embedding"
        ),
    }[kind]
    clean = jnp.stack([net.CLEAN, net.CLEAN[::-1]])
    corrupt = jnp.stack([net.CORRUPT, net.CLEAN])
    answers = jnp.stack([net.ANSWERS, net.ANSWERS[::-1]])
    mapped = jax.jit(jax.vmap(find, (None, 0, 0, 0)))
    found = mapped(net.PARAMS, clean, corrupt, answers)
    for i in range(2):
        alone = find(net.PARAMS, clean[i], corrupt[i], answers[i])
        assert_close(jax.tree.map(lambda a, i=i: a[i], found), alone)


@pytest.mark.parametrize("kind", ["exact", "RelP", "gradient"])
def test_pairs_can_lie_on_eight_devices(kind):
    find = {
        "exact": patching.exact(net.scanned, SITES, net.metric, batch=4),
        "RelP": patching.effects(net.scanned, SITES, composites.RelP(), net.metric),
        "gradient": patching.effects(net.scanned, SITES, None, net.metric, at="both"),
    }[kind]
    mapped = jax.vmap(find, (None, 0, 0, 0))
    rng = np.random.default_rng(1)
    clean, corrupt = rng.integers(0, net.WORDS, (2, 8, net.TOKENS))
    answers = jnp.tile(net.ANSWERS, (8, 1))
    mesh = Mesh(np.array(jax.devices()), ("pairs",))
    spread = NamedSharding(mesh, PartitionSpec("pairs"))
    on_many = [jax.device_put(a, spread) for a in (clean, corrupt, answers)]
    found = jax.jit(mapped)(net.PARAMS, *on_many)
    assert len(found["mlp"].sharding.device_set) == 8
    assert_close(found, mapped(net.PARAMS, clean, corrupt, answers), atol=2e-5)


def test_values_in_branches_are_those_of_the_branch_that_is_taken():
    def f(w, x):
        def one(x):
            return checkpoint_name(2 * x, "h") @ w

        def other(x):
            return checkpoint_name(3 * x, "h") @ w

        return lax.cond(x[0] > 0, one, other, x).sum()

    w, x = jnp.eye(2), jnp.array([1.0, 2.0])
    # Each branch has a value of its own, the one for False first, as in JAX's program;
    # that of the branch that is not taken is zero.
    _, found = patching.values(f, "h")(w, x)
    assert_close(found["h"], [[0.0, 0.0], [2.0, 4.0]])
    effects = patching.effects(f, patching.site("h", ("branch", None)))
    assert_close(effects(w, x, x / 2)["h"], [0.0, 3.0])


@pytest.mark.parametrize("composite", [None, composites.RelP()], ids=["none", "RelP"])
def test_effects_take_two_forward_passes_and_one_reverse_pass(composite):
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(3, 128, 128)) / 12, jnp.float32)

    def f(w, x):
        for each in w:
            x = x + checkpoint_name(jnp.tanh(x @ each), "out")
        return x.sum()

    def flops(f, *args):
        return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]

    clean, corrupt = jnp.asarray(rng.normal(size=(2, 64, 128)), jnp.float32)
    find = patching.effects(f, patching.site("out", ("layer", None, None)), composite)
    assert flops(find, w, clean, corrupt) < 3.2 * flops(f, w, clean)


# ---- patches -----------------------------------------------------------------------


def test_a_patch_of_everything_is_the_clean_run():
    _, clean = patching.values(net.scanned, "embedding")(net.PARAMS, net.CLEAN)
    new = {"embedding": clean["embedding"]}
    out = patching.patch(net.scanned, "embedding")(new, net.PARAMS, net.CORRUPT)
    assert_close(out, net.scanned(net.PARAMS, net.CLEAN))


def test_all_nodes_of_a_layer_patched_are_the_clean_run():
    _, clean = patching.values(net.scanned, "residual")(net.PARAMS, net.CLEAN)
    layer = jnp.array([False, True])[:, None, None]
    new = {"residual": (layer, clean["residual"])}
    out = patching.patch(net.scanned, "residual")(new, net.PARAMS, net.CORRUPT)
    assert_close(out, net.scanned(net.PARAMS, net.CLEAN))


def test_a_patch_is_a_value_a_masked_value_or_a_function():
    patched = patching.patch(net.scanned, "mlp_out")
    args = net.PARAMS, net.CLEAN
    zeros = jnp.zeros((net.LAYERS, net.TOKENS, net.WIDTH))
    wanted = patched({"mlp_out": zeros}, *args)
    assert_close(patched({"mlp_out": 0.0}, *args), wanted)
    assert_close(patched({"mlp_out": lambda x: 0 * x}, *args), wanted)
    assert_close(patched({"mlp_out": (jnp.array(True), 0.0)}, *args), wanted)
    assert_close(patched({"mlp_out": (jnp.array(1.0), 0.0)}, *args), wanted)
    assert_close(patched({}, *args), net.scanned(*args))
    assert abs(wanted - net.scanned(*args)).max() > 0.01
    half = patched({"mlp_out": lambda x: x / 2}, *args)
    assert_close(patched({"mlp_out": (jnp.array(0.5), 0.0)}, *args), half)


def test_a_patch_can_be_differentiated():
    patched = patching.patch(net.scanned, "mlp_out")
    _, values = patching.values(net.scanned, "mlp_out")(net.PARAMS, net.CLEAN)

    def score(new):
        return net.metric(patched({"mlp_out": new}, net.PARAMS, net.CLEAN))

    found = jax.grad(score)(values["mlp_out"])
    # Of the last layer nothing but the value passes it: there it is the multiplier.
    wanted = net.by_hand(net.Plain, net.CLEAN, "mlp_out")
    assert_close(found[-1], wanted[-1])
    step = 1e-2
    moved = values["mlp_out"].at[0, -1, 0].add(step)
    other = values["mlp_out"].at[0, -1, 0].add(-step)
    slope = (score(moved) - score(other)) / (2 * step)
    assert_close(found[0, -1, 0], slope, atol=1e-3)


def test_values_inside_a_unit_are_seen_where_no_rule_needs_it_whole():
    def f(w, x):
        with jax.named_scope("layer"):
            return jax.nn.relu(checkpoint_name(x @ w, "z") + 1.0).sum()

    w, x = jnp.eye(2), jnp.array([1.0, -3.0])
    _, _, found = patching.multipliers(f, "z")(w, x)
    assert_close(found["z"], [1.0, 0.0])


# ---- cost --------------------------------------------------------------------------


def test_cost_is_known_before_anything_runs():
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), ARGS[:3])
    found = patching.cost(net.scanned, SITES["mlp"], batch=4)(*shapes)
    assert found.runs == 2 + net.LAYERS * net.TOKENS
    more = patching.cost(net.scanned, SITES["mlp"], batch=8)(*shapes)
    assert more.bytes == 2 * found.bytes > 0


# ---- bad input ---------------------------------------------------------------------


def in_while(params, x):
    def body(state):
        i, x = state
        return i + 1, checkpoint_name(jnp.tanh(x), "h")

    return lax.while_loop(lambda s: s[0] < 3, body, (0, x))[1].sum()


FLOATS = (jnp.eye(2), jnp.ones(2), jnp.zeros(2))


def simple(w, x):
    return checkpoint_name(x @ w, "h").sum()


BAD = {
    "unknown site": (
        lambda: patching.effects(net.scanned, "mlp_oot", None, net.metric)(*ARGS),
        ValueError,
        "sites: got 'mlp_oot', which names no value; nearest.*mlp_out",
    ),
    "a while loop": (
        lambda: patching.values(in_while, "h")((), jnp.ones(2)),
        ValueError,
        "sites: got 'h', but 'h' lies in a while loop",
    ),
    "shapes": (
        lambda: patching.effects(simple, "h")(FLOATS[0], jnp.ones(2), jnp.ones((3, 2))),
        ValueError,
        r"corrupt: got shape \(3, 2\).*clean has there, shape \(2,\)",
    ),
    "structures": (
        lambda: patching.effects(simple, "h")(*FLOATS[:2], {"x": jnp.ones(2)}),
        ValueError,
        "corrupt: got the structure",
    ),
    "no scalar": (
        lambda: patching.effects(net.scanned, "mlp_out", None)(*ARGS[:3]),
        ValueError,
        r"f: got shape \(7,\).*expected a real number; without a metric",
    ),
    "a metric of integers": (
        lambda: patching.exact(net.scanned, "mlp_out", lambda y: y.argmax())(*ARGS[:3]),
        ValueError,
        r"metric: got shape \(\) and dtype int32, expected a real number",
    ),
    "axes": (
        lambda: patching.effects(
            net.scanned, patching.site("mlp_out", ("layer", None)), None, net.metric
        )(*ARGS),
        ValueError,
        r"axes: got \('layer', None\) for 'mlp_out', expected 3 names, the first of",
    ),
    "an axis twice": (
        lambda: patching.site("h", ("a", "a")),
        ValueError,
        "axes: got .*in which a name stands twice",
    ),
    "only of no axis": (
        lambda: patching.site("h", ("a",), only={"b": 0}),
        ValueError,
        "only: got 'b', expected the name of an axis",
    ),
    "only out of range": (
        lambda: patching.effects(simple, patching.site("h", ("a",), only={"a": 2}))(
            *FLOATS
        ),
        ValueError,
        r"only\['a'\]: got 2 for 'h', expected one in \[-2, 2\)",
    ),
    "several shapes": (
        lambda: patching.values(net.scanned, patching.site("[mh]*"))(*ARGS[:2]),
        ValueError,
        "sites: got .*names values of several shapes",
    ),
    "the shape of a patch": (
        lambda: patching.patch(simple, "h")({"h": jnp.ones(3)}, *FLOATS[:2]),
        ValueError,
        r"new\['h'\]: got a value of shape \(3,\), expected one that broadcasts to",
    ),
    "the shape of a mask": (
        lambda: patching.patch(simple, "h")(
            {"h": (jnp.ones(3, bool), 0.0)}, *FLOATS[:2]
        ),
        ValueError,
        r"new\['h'\]: got a mask of shape \(3,\)",
    ),
    "a patch of integers": (
        lambda: patching.patch(simple, "h")({"h": jnp.ones(2, int)}, *FLOATS[:2]),
        TypeError,
        r"new\['h'\]: got dtype int32, expected float32",
    ),
    "what a function returns": (
        lambda: patching.patch(simple, "h")({"h": lambda x: x > 0}, *FLOATS[:2]),
        ValueError,
        r"new\['h'\]: the function returned shape \(2,\) and dtype bool",
    ),
    "an unknown patch": (
        lambda: patching.patch(simple, "h")({"g": 0.0}, *FLOATS[:2]),
        ValueError,
        "new: got 'g', expected one of h",
    ),
    "at": (
        lambda: patching.effects(simple, "h", at="middle"),
        ValueError,
        "at: got 'middle', expected one of 'corrupt', 'clean', 'both', 'between'",
    ),
    "a way along integers": (
        lambda: patching.effects(net.scanned, "mlp_out", None, net.metric, at=2)(*ARGS),
        ValueError,
        "along: got None, but the input has dtype int32",
    ),
    "aux without a metric": (
        lambda: patching.effects(simple, "h")(*FLOATS, 1),
        TypeError,
        "aux: got 1 more arguments, but there is no metric",
    ),
    "no sites": (
        lambda: patching.effects(simple, ()),
        TypeError,
        "sites: got",
    ),
    "one value in two sites": (
        lambda: patching.values(simple, {"a": "h", "b": "h"})(*FLOATS[:2]),
        ValueError,
        "sites: 'h' belongs to two of them, 'b' and 'a'",
    ),
    "no array among the inputs": (
        lambda: patching.effects(branching, "h")(
            (), (jnp.ones(2), True), (jnp.ones(2), False)
        ),
        TypeError,
        r"argument 1\[1\] is attributed: got True of type bool",
    ),
}


@pytest.mark.always
def test_what_is_asked_about_is_a_part_of_all():
    args = (jnp.eye(2), jnp.array([1.0, 2.0]), jnp.zeros(2))
    whole = patching.effects(simple, patching.site("h", ("a",)))(*args)
    for only, wanted in ((-1, [-1]), ([1, 0], [1, 0])):
        site = patching.site("h", ("a",), only={"a": only})
        part = patching.effects(simple, site)(*args)
        np.testing.assert_allclose(part["h"], whole["h"][np.array(wanted)])


def branching(params, x):
    values, tagged = x
    return (checkpoint_name(values, "h") if tagged else values * 2.0).sum()


@pytest.mark.whole
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("at", ["corrupt", "between"])
def test_what_is_masked_in_both_runs_has_no_effect(at):
    def f(v, x):
        scores = jnp.where(jnp.arange(3) < 2, x, -jnp.inf)
        return jax.nn.softmax(checkpoint_name(scores, "scores")) @ v

    args = jnp.array([1.0, -2.0, 5.0]), jnp.array([1.0, 2.0, 3.0]), jnp.zeros(3)
    found = patching.effects(f, "scores", at=at)(*args)["scores"]
    assert jnp.isfinite(found).all() and found[2] == 0 and abs(found[:2]).min() > 0
    v, x, _ = args
    find = patching.effects(f, "scores")
    slope = jax.jacobian(lambda clean: find(v, clean, x)["scores"])(x)
    assert abs(jnp.diag(slope)[:2]).min() > 0  # equal ones change as well


def test_large_constants_are_warned_of():
    w = jnp.ones((3000, 3000))

    def f(params, x):
        return checkpoint_name(x @ w, "h").sum()

    from jaxlrp.errors import ConstantsWarning

    with pytest.warns(ConstantsWarning, match="f closes over 34 MiB of arrays"):
        patching.values(f, "h")((), jnp.ones(3000))
