"""Equal stretches of a program are traced once, and change nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp._reading.steps import Step
from jaxlrp._rewriting import blocks
from jaxlrp._rewriting.blocks import LEAST, Block, arrange
from jaxlrp._trace import as_composite, trace
from jaxlrp.rules._base import rule

LAYERS = 5
WIDTH = 8


def layer(weights, x, activation=jax.nn.gelu, factor=1.0):
    """Of more than `LEAST` steps, with attention, a norm and a gate."""
    scale, q, k, v, up, down = weights
    y = x - x.mean(-1, keepdims=True)
    y = scale * y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + 1e-5)
    weights = jax.nn.softmax((y @ q) @ (y @ k).T)
    x = x + factor * (weights @ (y @ v))
    gate, hidden = jnp.split(x @ up, 2, -1)
    return x + (activation(gate) * hidden) @ down


def parameters(layers=LAYERS):
    shapes = [(WIDTH,), *[(WIDTH, WIDTH)] * 3, (WIDTH, 2 * WIDTH), (WIDTH, WIDTH)]
    rng = np.random.default_rng(0)
    return [[rng.normal(size=s) / 3 for s in shapes] for _ in range(layers)]


def stacked(params, x, layer=layer):
    for number, weights in enumerate(params):
        with jax.named_scope(f"layer_{number}"):
            x = layer(weights, x)
    return x.mean(0)


X = np.random.default_rng(1).normal(size=(4, WIDTH))


def blocks_of(f, *args, composite=None):
    reading = trace(f, args, {}, as_composite(composite), -1, False).reading
    items = arrange(reading)
    steps = [s for i in items for s in (i.steps if isinstance(i, Block) else [i])]
    assert tuple(steps) == reading.steps  # all of them, in order
    return [i for i in items if isinstance(i, Block)]


def test_equal_layers_are_blocks_of_one_form():
    blocks = blocks_of(stacked, parameters(), X)
    assert len(blocks) >= LAYERS - 1  # what is first may differ
    assert len({b.form for b in blocks}) == 1
    assert [b.scope for b in blocks][-1] == f"layer_{LAYERS - 1}"
    assert all(len(b.outputs) == 1 for b in blocks)  # the residual stream


COMPOSITES = [
    None,
    composites.AttnLRP(),
    composites.EpsilonPlusFlat(),
    composites.EpsilonAlpha2Beta1(),
    composites.DynamicLRP(),
    composites.Uniform(rules.Flat()),
]


@pytest.mark.parametrize("composite", COMPOSITES, ids=lambda c: getattr(c, "name", ""))
def test_blocks_change_no_relevance(composite):
    with jax.enable_x64():
        args = parameters(), X
        explain = jaxlrp.value_and_lrp(stacked, composite, target="all")
        # Called as it is, each step is evaluated on its own.
        expected = explain(*args)
        found = jax.jit(explain)(*args)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
            found,
            expected,
        )


@functools.cache
def counting():
    """A rule, and the shapes of the layers that it was asked for."""
    asked = []

    @rule
    class Counting(rules.LayerRule):
        def shares(self, layer):
            asked.append(layer.y.shape)
            return (rules.Share(layer.y, layer.y, 1e-6),)

    return composites.Uniform(Counting()), asked


def test_a_block_is_traced_once_however_many_there_are():
    composite, asked = counting()
    counts = []
    for layers in (4, 12):
        asked.clear()
        explain = jaxlrp.lrp(stacked, composite, target="all")
        jax.make_jaxpr(explain)(parameters(layers), X)
        jax.jit(explain).lower(parameters(layers), X)
        counts.append(len(asked))
    # Five dense layers in each; what is traced does not grow with the depth.
    assert counts[0] == counts[1] < 2 * 4 * 5


def test_a_call_that_is_not_compiled_has_no_blocks():
    composite, asked = counting()
    asked.clear()
    jaxlrp.lrp(stacked, composite, target="all")(parameters(4), X)
    assert len(asked) == 4 * 5


def squared(power):
    """Equal values, other derivatives."""

    @jax.custom_jvp
    def f(x):
        return jax.nn.relu(x)

    f.defjvp(lambda p, t: (f(*p), power * t[0]))
    return f


DIFFERENT = {
    "constants": lambda i: functools.partial(layer, factor=1.0 + i),
    "signs of zero": lambda i: functools.partial(layer, factor=[0.0, -0.0][i % 2]),
    "activations": lambda i: functools.partial(
        layer, activation=[jax.nn.gelu, jnp.tanh, jax.nn.silu][i % 3]
    ),
    "derivatives": lambda i: functools.partial(layer, activation=squared(1.0 + i)),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs_has_another_form(what):
    layers = [DIFFERENT[what](i) for i in range(4)]

    def f(params, x):
        for one, weights in zip(layers, params, strict=True):
            x = one(weights, x)
        return x.mean(0)

    args = parameters(4), X
    form = {}
    for block in blocks_of(f, *args):
        form.setdefault(block.form, []).append(block)
    assert all(len(b) <= 2 for b in form.values())
    expected = jaxlrp.lrp(f, target="all")(*args)
    found = jax.jit(jaxlrp.lrp(f, target="all"))(*args)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_wiring_tells_blocks_apart():
    """The same equations, of other values: `a - b` and `b - a`."""

    def f(params, x):
        y = x[::-1]
        for i, weights in enumerate(params):
            x, y = layer(weights, x - y if i % 2 else y - x), x
        return x.mean(0)

    with jax.enable_x64():
        args = parameters(6), X
        expected = jaxlrp.lrp(f, target="all")(*args)
        found = jax.jit(jaxlrp.lrp(f, target="all"))(*args)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_what_is_known_of_values_tells_blocks_apart():
    """Behind a nonnegative input z-plus takes other products."""

    def f(params, x):
        for i, weights in enumerate(params):
            x = layer(weights, jnp.abs(x) if i < 3 else jnp.negative(x))
        return x.mean(0)

    composite = composites.EpsilonPlus()
    args = parameters(6), X
    expected = jaxlrp.lrp(f, composite, target="all")(*args)
    found = jax.jit(jaxlrp.lrp(f, composite, target="all"))(*args)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_relus_have_one_form_and_a_profile_shows_each_layer_in_both_passes():
    relu = functools.partial(layer, activation=jax.nn.relu)
    f = functools.partial(stacked, layer=relu)
    blocks = blocks_of(f, parameters(), X)
    assert len({b.form for b in blocks}) == 1
    compiled = jax.jit(jaxlrp.lrp(f)).lower(parameters(), X).compile().as_text()
    for number in range(LAYERS):
        assert f"/jvp(lrp)/layer_{number}/" in compiled
        assert f"/transpose(jvp(lrp))/layer_{number}/" in compiled


def test_blocks_whose_inner_scopes_differ_are_numbered():
    names = iter(range(100))

    def named(weights, x):
        with jax.named_scope(f"part_{next(names)}"):
            x = x + 1.0
        return layer(weights, x)

    def f(params, x):
        for weights in params:
            x = named(weights, x)
        return x.mean(0)

    scopes = [b.scope for b in blocks_of(f, parameters(), X)]
    assert scopes == [f"block_{i}" for i in range(len(scopes))]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_short_periods_are_put_together(size):
    def f(x):
        for _ in range(60):
            for i in range(size):
                x = x + jnp.tanh(jnp.roll(x, i + 1))
        return x

    blocks = blocks_of(f, jnp.ones(3))
    assert len(blocks) >= 2
    assert all(len(b.steps) >= LEAST for b in blocks)


def test_gradients_and_vmaps_pass_blocks():
    with jax.enable_x64():
        params = parameters(3)
        explain = jaxlrp.lrp(stacked, composites.AttnLRP(), target="all")

        def loss(explain, x):
            return (explain(params, x) ** 2).sum()

        slope = jax.jit(jax.grad(functools.partial(loss, jax.jit(explain))))(X)
        step = 1e-6 * np.random.default_rng(2).normal(size=X.shape)
        numeric = loss(explain, X + step) - loss(explain, X - step)
        np.testing.assert_allclose((slope * step).sum() * 2, numeric, rtol=1e-5)
        xs = np.stack([X, X[::-1]])
        each = jax.jit(jax.vmap(explain, (None, 0)))(params, xs)
        np.testing.assert_allclose(each[1], explain(params, xs[1]), rtol=1e-10)


# ---- forms ---------------------------------------------------------------------------


def the_step(f, role, composite=None):
    reading = trace(f, (X,), {}, as_composite(composite), -1, False).reading
    (step,) = (s for s in reading.steps if s.role == role)
    return step


NUMBERED = {"signals"}
"""What `_block` numbers, with the values of the equations."""


@pytest.mark.parametrize(
    "name", [f.name for f in dataclasses.fields(Step) if f.name not in NUMBERED]
)
def test_steps_that_differ_in_a_field_are_told_apart(name):
    square = np.eye(WIDTH)
    step = the_step(lambda x: jnp.tanh(x @ square), "activation")
    layer = the_step(lambda x: jnp.tanh(x @ square), "dense")
    other = {
        "role": "softmax",
        "equations": step.equations * 2,
        "form": dataclasses.replace(step.form, exact=True),
        "slot": 7,
    }
    changed = other[name] if name in other else not getattr(step, name)
    signatures = {
        blocks._signature(s)
        for s in (step, layer, dataclasses.replace(step, **{name: changed}))
    }
    assert len(signatures) == 3 and None not in signatures


def test_equations_that_differ_in_a_field_are_told_apart():
    (equation,) = the_step(lambda x: x @ np.eye(WIDTH), "dense").equations
    (other,) = the_step(lambda x: jnp.tanh(x[0] @ np.eye(WIDTH)), "dense").equations
    # Where it stands; and what has effects has no signature.
    unseen = {"source", "caller", "scope", "effectful"}
    kept = {f.name: getattr(equation, f.name) for f in dataclasses.fields(equation)}
    changed = {
        "primitive": jax.lax.tanh_p,
        "params": {"none": 1},
        "inputs": other.inputs,
        "outputs": other.outputs,
        "context": "another",
        "opaque": not equation.opaque,
    }
    assert set(changed) <= set(kept)
    signature = blocks._equation(equation)
    for name, value in changed.items():
        one = dataclasses.replace(equation, **{name: value})
        assert blocks._equation(one) != signature, name
    assert set(kept) - set(changed) == unseen


def in_parallel(x, begin, end):
    """Two stretches of equal equations; what surrounds the second one may differ."""
    weights = np.random.default_rng(2).normal(size=(4, WIDTH, WIDTH))
    begins = jnp.abs(x @ weights[0]), begin(x @ weights[1])
    results = []
    for y, w in zip(begins, weights[2:], strict=True):
        for _ in range(LEAST):
            y = y[::-1]
        results.append(y @ w)
    return (jnp.maximum(results[0], 0.0) + end(results[1])).sum(0)


def relu(y):
    return jnp.maximum(y, 0.0)


KNOWN = {
    "the same": (jnp.abs, relu, 2),
    "nonnegative": (lambda x: -jnp.abs(x), relu, 0),
    "rectified": (jnp.abs, lambda y: jnp.minimum(y, 0.0), 0),
}
"""What differs, where the second begins and ends, and how many blocks there are."""


def test_stretches_of_which_other_things_are_known_are_not_one():
    for begin, end, count in KNOWN.values():
        f = functools.partial(in_parallel, begin=begin, end=end)
        with jax.enable_x64():
            for rule in (rules.ZPlus(), rules.GeneralizedGamma(0.5)):
                composite = composites.Uniform(rule)
                assert len(blocks_of(f, X, composite=composite)) == count
                explain = jaxlrp.lrp(f, composite, target="all")
                np.testing.assert_allclose(jax.jit(explain)(X), explain(X), rtol=1e-9)
