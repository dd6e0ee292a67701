"""What lies between cuts is worked out again: less memory, the same relevance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from benchmarks import hlo
from jaxlrp import composites, rules
from jaxlrp._rewriting.blocks import Block, arrange
from jaxlrp._rewriting.segments import _cuts, _made, segments
from jaxlrp._trace import trace

LAYERS, WIDTH, ROWS = 12, 16, 64


def layer(w, x):
    y = x - x.mean(-1, keepdims=True)
    y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + 1e-5)
    return x + jnp.tanh(y @ w[0]) * jax.nn.gelu(y @ w[1])


def stacked(params, x):
    for w in params:
        x = layer(w, x)
    return x.mean(0)


def looped(params, x):
    return jax.lax.scan(lambda x, w: (layer(w, x), None), x, params)[0].mean(0)


def convolutional(params, x):
    """No two stretches are alike."""
    x = x.reshape(4, 16, WIDTH)
    for number, w in enumerate(params[:6]):
        kernel = jnp.broadcast_to(w[0][None], (number + 1, WIDTH, WIDTH))
        x = jax.lax.conv_general_dilated(
            x, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
        )
        x = jax.nn.relu(x + number)
    return x.mean((0, 1))


NETWORKS = {"stacked": stacked, "looped": looped, "convolutional": convolutional}
RNG = np.random.default_rng(0)
PARAMS = RNG.normal(size=(LAYERS, 2, WIDTH, WIDTH)) / 4
X = RNG.normal(size=(ROWS, WIDTH))


@functools.cache
def program(name, remat):
    explain = jaxlrp.value_and_lrp(NETWORKS[name], remat=remat)
    arrays = [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in (PARAMS, X)]
    return jax.jit(explain).lower(*arrays).compile()


def temporary(name, remat):
    found = hlo.temporary(program(name, remat))
    assert found is not None
    return found


@functools.cache
def saved_by_a_checkpoint():
    """What JAX's own leaves of a gradient's memory: on a CPU JAX 0.10 saves little."""
    arrays = [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in (PARAMS, X)]

    def score(layer, params, x):
        for w in params:
            x = layer(w, x)
        return x.sum()

    found = [
        hlo.temporary(
            jax.jit(jax.grad(functools.partial(score, f), 1)).lower(*arrays).compile()
        )
        for f in (jax.checkpoint(layer), layer)
    ]
    return found[0] / found[1]


@pytest.mark.parametrize(
    ("name", "most"), [("stacked", 0.35), ("looped", 0.35), ("convolutional", 0.9)]
)
def test_what_is_worked_out_again_needs_no_memory(name, most):
    if name != "looped" and saved_by_a_checkpoint() > 0.6:
        most = 1.2  # nor does it here: the compiler works all of it out at once
    assert temporary(name, True) <= most * temporary(name, False)


def test_it_takes_one_forward_pass_more():
    found = [hlo.contractions(program("stacked", r).as_text()) for r in (False, True)]
    once, again = found
    assert once == 2 * 2 * LAYERS
    # The last segment is not run again.
    assert again <= 3 * 2 * LAYERS
    if saved_by_a_checkpoint() > 0.6:
        assert again >= once  # a compiler that merges both passes may run none again
    else:
        assert again > once


def test_a_cut_is_where_the_least_crosses_in_its_part():
    passing = [9, 9, 9, 1, 9, 9, 2, 9, 9, 1, 9, 9]
    assert _cuts([1] * 12, passing, 4) == [3, 6, 9]
    assert _cuts([1] * 12, passing, 2) == [6]
    assert _cuts([1] * 12, passing, 1) == []
    assert _cuts([1] * 3, [9, 1, 1], 3) == [1, 2]


def test_what_is_made_in_a_block_is_what_its_steps_make():
    layers = list(PARAMS)  # what JAX makes of a loop over an array differs by version
    reading = trace(stacked, (layers, X), {}, composites.AttnLRP(), -1, False).reading
    items = arrange(reading)
    assert any(isinstance(item, Block) for item in items)
    assert sum(map(_made, items)) == sum(map(_made, reading.steps))


def test_a_policy_says_what_is_kept():
    policy = jax.checkpoint_policies.dots_saveable
    kept = hlo.contractions(program("stacked", policy).as_text())
    assert kept == hlo.contractions(program("stacked", False).as_text())
    memory = [temporary("looped", r) for r in (True, policy, False)]
    assert memory[0] < memory[1] < memory[2]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "composite",
    [None, composites.EpsilonPlusFlat(), composites.Uniform(rules.WSquare())],
    ids=["Default", "EpsilonPlusFlat", "w-square"],
)
def test_relevance_is_the_same(name, composite):
    with jax.enable_x64():
        found, expected = (
            jax.jit(jaxlrp.value_and_lrp(NETWORKS[name], composite, remat=remat))(
                PARAMS, X
            )
            for remat in (True, False)
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12),
            found,
            expected,
        )


def test_it_composes_with_capture_vmap_and_grad():
    from jax.ad_checkpoint import checkpoint_name

    def f(params, x):
        for number, w in enumerate(params[:3]):
            x = checkpoint_name(layer(w, x), f"layer_{number}")
        return x.mean(0)

    def both(remat):
        explain = jaxlrp.lrp(f, target="all", capture="layer_1", remat=remat)
        xs = jnp.stack([X[:4], X[4:8]])
        loss = lambda x: (explain(PARAMS, x)[0] ** 2).sum()  # noqa: E731
        return jax.vmap(explain, (None, 0))(PARAMS, xs), jax.grad(loss)(xs[0])

    with jax.enable_x64():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10),
            jax.jit(both, static_argnums=0)(True),
            jax.jit(both, static_argnums=0)(False),
        )


@pytest.mark.parametrize("transform", ["relprop", "lrp_each"])
def test_other_transformations_take_it(transform):
    f = functools.partial(stacked, jnp.asarray(PARAMS[:3]))

    def explained(x, remat):
        if transform == "lrp_each":
            return jaxlrp.lrp_each(lambda x: f(x)[:4, None], remat=remat)(x)
        out, pull = jaxlrp.relprop(f, x, remat=remat)
        return pull(out)

    found = [jax.jit(explained, static_argnums=1)(X[:4], r) for r in (True, False)]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_effects_run_once():
    seen = []

    def f(x):
        for _ in range(4):
            x = layer(PARAMS[0].astype(x.dtype), x)
            jax.debug.callback(lambda v: seen.append(float(v)), x[0, 0])
        return x.mean(0)

    jax.block_until_ready(jax.jit(jaxlrp.lrp(f, remat=True))(X))
    jax.effects_barrier()
    assert len(seen) == 4


@pytest.mark.whole
@pytest.mark.parametrize("wrong", [None, 3, "dots"])
def test_other_values_are_refused(wrong):
    with pytest.raises(TypeError, match="remat: got .* expected a bool or one of"):
        jaxlrp.lrp(stacked, remat=wrong)


def test_a_loop_and_the_last_segment_are_not_worked_out_again():
    """A loop's iterations are; of what has effects there is one run."""

    def f(params, x):
        x = stacked(params[:4], x[None])[None] * x
        x = jax.lax.scan(lambda x, w: (layer(w, x), None), x, params)[0]
        return stacked(params[:4], x)

    arrays = jnp.asarray(PARAMS, jnp.float32), jnp.asarray(X[:2], jnp.float32)
    reading = trace(f, arrays, {}, composites.Default(), -1, False).reading
    found = segments(reading.steps, reading)
    assert tuple(i for s in found for i in s.items) == reading.steps
    (alone,) = [s for s in found if any(i.role == "control" for i in s.items)]
    assert len(alone.items) == 1 and not alone.again
    assert not found[-1].again
    assert sum(s.again for s in found) >= 2
