"""Effects by difference quotients between both runs: `at="between"`, `at="blend"`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxlrp import attribution, composites, patching
from tests.patching import networks as net

SITES = {
    "residual": patching.site("residual", net.AXES),
    "attention": patching.site("attention_out", net.AXES),
    "mlp": patching.site("mlp_out", net.AXES),
    "z": patching.site("z", ("layer", "position", "head", None)),
}
ARGS = (net.PARAMS, net.CLEAN, net.CORRUPT, net.ANSWERS)


def between(f, sites=SITES, metric=net.metric):
    return patching.effects(f, sites, None, metric, at="between")


def change(metric=net.metric, clean=net.CLEAN, corrupt=net.CORRUPT):
    """What the metric changes by from the corrupt to the clean run."""
    one, two = (metric(net.unrolled(net.PARAMS, ids)) for ids in (clean, corrupt))
    return one - two


def assert_close(found, wanted, atol=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol),
        found,
        wanted,
    )


@pytest.mark.parametrize("form", ["scanned", "unrolled", "scanned_again"])
def test_a_layers_effects_add_up_to_the_whole_change(form):
    found = jax.jit(between(getattr(net, form)))(*ARGS)
    # What a layer begins with is all that there is; so the scores of its positions add
    # up, as those of a gradient at one end do not.
    assert_close(found["residual"].sum(1), jnp.full(net.LAYERS, change()))
    one = patching.effects(net.scanned, SITES, None, net.metric)(*ARGS)
    assert abs(one["residual"].sum(1) - change()).max() > 0.05
    assert_close(found, between(net.scanned)(*ARGS))


def test_multipliers_are_quotients_written_by_hand():
    rng = np.random.default_rng(2)
    w, v = rng.normal(size=(2, 4, 4))
    a, b = rng.normal(size=(2, 4))

    def f(params, x):
        w, v = params
        h = checkpoint_name(x @ w, "h")
        t = checkpoint_name(jnp.tanh(h), "t")
        return (t * (t @ v) / (1 + jnp.exp(-h))).sum()

    found = between(f, ("h", "t"), None)((w, v), a, b)
    (h, h0), (t, t0) = (a @ w, b @ w), (np.tanh(a @ w), np.tanh(b @ w))
    g, g0 = t @ v, t0 @ v
    d, d0 = 1 + np.exp(-h), 1 + np.exp(-h0)
    p, p0 = t * g, t0 * g0
    of_p = (1 / d + 1 / d0) / 2
    of_t = of_p * (g + g0) / 2 + (of_p * (t + t0) / 2) @ v.T
    of_d = -(p + p0) / 2 / d / d0
    of_h = of_t * (t - t0) / (h - h0) + of_d * (d - d0) / (h - h0)
    assert_close(found, {"h": (h - h0) * of_h, "t": (t - t0) * of_t}, 1e-5)


def test_it_is_deep_lift_where_that_is_asked_about_the_input():
    def f(w, x):
        x = checkpoint_name(x * 1.0, "x")
        return (jax.nn.softmax(x @ w) * jax.nn.gelu(x)).sum()

    w, clean, corrupt = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 4)))
    wanted = attribution.deep_lift(f, baseline=corrupt, target="all")(w, clean)
    assert_close(between(f, "x", None)(w, clean, corrupt)["x"], wanted)


def test_it_is_exact_where_only_one_thing_is_patched_and_all_else_follows():
    """The embedding of the only token that differs: the whole change."""
    clean, corrupt = net.CLEAN, net.CLEAN.at[1].set(5)
    sites = {"e": patching.site("embedding", ("position", None))}
    find, judge = (
        between(net.scanned, sites),
        patching.exact(net.scanned, sites, net.metric),
    )
    args = net.PARAMS, clean, corrupt
    assert_close(find(*args), judge(*args))
    assert abs(judge(*args)["e"][1]) > 0.1


def test_a_curved_metric_is_followed_too():
    def metric(out, answers=net.ANSWERS):
        return jax.nn.log_softmax(3 * out)[answers[0]] ** 2

    found = between(net.scanned, metric=metric)(*ARGS)
    wanted = jnp.full(net.LAYERS, change(metric))
    assert_close(found["residual"].sum(1), wanted, 1e-4)


def test_values_are_each_runs_own_where_no_gradient_passes():
    """Masks of ids, counts, and what is held are those of either run."""

    def f(params, ids):
        x = params["embed"][ids]
        mask = (ids != 5)[:, None]
        x = checkpoint_name(jnp.where(mask, x, 0.1), "masked")
        held = checkpoint_name(x * lax.stop_gradient(x), "held")
        return (held / mask.sum()).sum()

    _, clean = patching.values(f, ("masked", "held"))(net.PARAMS, net.CLEAN)
    _, corrupt = patching.values(f, ("masked", "held"))(net.PARAMS, net.CORRUPT)
    found = between(f, ("masked", "held"), None)(*ARGS[:3])
    # Of the divisor, which is a count, and of what is held nothing passes.
    assert_close(found["held"], (clean["held"] - corrupt["held"]) / 4)
    wanted = (clean["masked"] - corrupt["masked"]) * clean["masked"] / 4
    assert_close(found["masked"], wanted)
    assert abs(found["masked"][1]).min() > 0  # the mask of the corrupt run was seen


@pytest.mark.parametrize("g", [jax.nn.leaky_relu, jax.nn.elu, jax.nn.hard_tanh])
def test_choices_of_one_variable_are_each_runs_own(g):
    rng = np.random.default_rng(4)
    w, one, other = (jnp.asarray(a, jnp.float32) for a in rng.normal(size=(3, 4, 4)))

    def f(w, x):
        inner = checkpoint_name(x @ w, "inner")
        return jnp.sin(checkpoint_name(g(inner), "outer") @ w).sum()

    found = between(f, ["inner", "outer"], None)(w, one, other)
    wanted = f(w, one) - f(w, other)
    assert_close({n: e.sum() for n, e in found.items()}, dict.fromkeys(found, wanted))


def test_branches_are_those_of_the_clean_run():
    def f(w, x):
        def one(x):
            return checkpoint_name(2 * x, "h") ** 2

        return lax.cond(x[0] > 0, one, lambda x: x, x).sum()

    clean, corrupt = jnp.array([1.0, 2.0]), jnp.array([-1.0, 1.0])
    found = between(f, "h", None)((), clean, corrupt)
    assert_close(found["h"], [0.0, 12.0])


def test_edges_into_the_end_add_up():
    axes = net.AXES
    sources = {
        "embedding": patching.site("embedding", axes[1:]),
        "attention": patching.site("attention_out", axes),
        "mlp": patching.site("mlp_out", axes),
    }
    final = patching.site("final", axes[1:])
    find = patching.edges(net.scanned, sources, final, None, net.metric, at="between")
    found = jax.jit(find)(*ARGS).scores
    assert_close(sum(v.sum() for v in found.values()), change())


def blended(large, small, change):
    share = np.minimum(abs(np.asarray(large) / change), 1)
    return share**0.5 * large + (1 - share**0.5) * small


@pytest.mark.parametrize("form", ["scanned", "unrolled"])
def test_a_blend_has_quotients_where_they_are_large_and_else_the_gradient(form):
    f = getattr(net, form)
    find = functools.partial(patching.effects, f, SITES, None, net.metric)
    found, large, small = (
        jax.jit(find(at=at))(*ARGS) for at in ("blend", "between", "corrupt")
    )
    for name in SITES:
        assert_close(found[name], blended(large[name], small[name], change()))
    assert abs(found["residual"] - large["residual"]).max() > 0.01
    assert abs(found["residual"] - small["residual"]).max() > 0.01


def test_edges_are_blended_one_by_one():
    ends = patching.site("mlp_out", net.AXES), patching.site("final", net.AXES[1:])
    find = functools.partial(patching.edges, net.scanned, *ends, None, net.metric)
    found, large, small = (
        find(at=at)(*ARGS).scores["mlp_out", "final"]
        for at in ("blend", "between", "corrupt")
    )
    assert_close(found, blended(large, small, change()))


def test_a_blend_of_what_changes_nothing_is_finite():
    find = patching.effects(simple, "h", at="blend")
    w, x = jnp.eye(2), jnp.array([1.0, 0.0])
    assert_close(find(w, x, x[::-1])["h"], [1.0, -1.0])  # together they are nothing
    assert_close(find(w, x, x)["h"], [0.0, 0.0])


@pytest.mark.parametrize("kind", ["between", "blend"])
def test_pairs_can_be_mapped_and_lie_on_eight_devices(kind):
    # Without XLA's optimisations what is partitioned has NaN beside masked scores.
    jax.config.update("jax_disable_most_optimizations", False)
    one = patching.effects(net.scanned, SITES, None, net.metric, at=kind)
    mapped = jax.vmap(one, (None, 0, 0, 0))
    rng = np.random.default_rng(1)
    clean, corrupt = rng.integers(0, net.WORDS, (2, 8, net.TOKENS))
    answers = jnp.tile(net.ANSWERS, (8, 1))
    spread = NamedSharding(
        Mesh(np.array(jax.devices()), ("pairs",)), PartitionSpec("pairs")
    )
    on_many = [jax.device_put(a, spread) for a in (clean, corrupt, answers)]
    found = jax.jit(mapped)(net.PARAMS, *on_many)
    assert len(found["mlp"].sharding.device_set) == 8
    alone = jax.jit(one)(net.PARAMS, clean[3], corrupt[3], answers[3])
    assert_close(jax.tree.map(lambda a: a[3], found), alone, 2e-5)


@pytest.mark.parametrize(("kind", "most"), [("between", 3.3), ("blend", 4.4)])
def test_it_takes_two_forward_passes_and_a_reverse_pass_for_each(kind, most):
    rng = np.random.default_rng(0)
    w = jnp.asarray(rng.normal(size=(3, 128, 128)) / 12, jnp.float32)

    def f(w, x):
        for each in w:
            x = x + checkpoint_name(jnp.tanh(x @ each), "out")
        return x.sum()

    def flops(f, *args):
        return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]

    clean, corrupt = jnp.asarray(rng.normal(size=(2, 64, 128)), jnp.float32)
    find = patching.effects(f, patching.site("out", ("layer", None, None)), at=kind)
    assert flops(find, w, clean, corrupt) < most * flops(f, w, clean)


def switched(params, x):
    values, factor = x
    return (checkpoint_name(values, "h") * factor).sum()


def simple(w, x):
    return checkpoint_name(x @ w, "h").sum()


BAD = {
    "rules": (
        lambda: patching.effects(simple, "h", composites.RelP(), at="between"),
        "composite: got Composite.name='RelP'.* with at='between'.*expected None",
    ),
    "rules of edges": (
        lambda: patching.edges(simple, "h", "h", composites.RelP(), at="between"),
        "composite: got Composite.name='RelP'.* with at='between'.*expected None",
    ),
    "two programs": (
        lambda: between(switched, "h", None)(
            (), (jnp.ones(2), 1.0), (jnp.zeros(2), 2.0)
        ),
        "at: got 'between', but clean and corrupt differ in what is no array",
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()
