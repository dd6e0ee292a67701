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


@dataclasses.dataclass(frozen=True)
class One:
    value: int


@dataclasses.dataclass(frozen=True)
class Other:
    value: int


def test_forms_of_two_classes_are_told_apart():
    step = the_step(lambda x: x @ np.eye(WIDTH), "dense")
    forms = One(1), Other(1), One(2), Other(1)
    found = [blocks._signature(dataclasses.replace(step, form=f)) for f in forms]
    assert len(set(found)) == 3 and found[1] == found[3] and None not in found


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


# ---- what a stretch reads ------------------------------------------------------------


def grid(table, x):
    """Features at the corners of a cell, as a hash grid looks them up."""
    low = jnp.floor(x * 8)
    within = x * 8 - low
    total = 0.0
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        cell = (low + jnp.array(corner)).astype(jnp.uint32)
        place = (cell[..., 0] + 3 * cell[..., 1]) % 16
        weights = jnp.where(jnp.array(corner), within, 1 - within)
        total = total + jnp.prod(weights, -1) * table[place]
    return total


MAPS = (
    jnp.tanh,
    jax.nn.relu,
    jax.nn.gelu,
    jax.nn.softmax,
    lambda a: a - jnp.floor(a),
    lambda a: 1 - a,
    lambda a: jnp.exp(-a * a),
    lambda a: jnp.roll(a, 1, -1),
    lambda a: a[:, jnp.floor(jnp.abs(a[0])).astype(int) % 4],
    lambda a: (a - a.mean()) * jax.lax.rsqrt(a.var() + 1e-5),
)
PAIRS = (
    jnp.add,
    jnp.subtract,
    jnp.multiply,
    jnp.maximum,
    lambda a, b: a / (1 + jnp.abs(b)),
    lambda a, b: jnp.where(a > b, a, 1 - b),
    lambda a, b: jax.nn.softmax(a @ b.T / 2) @ b,
)


def repeated(seed):
    """A random stretch, several times; all of them read what was made before."""
    draw = np.random.default_rng(seed)
    chosen = [
        (draw.random(), draw.choice(MAPS), draw.choice(PAIRS), draw.random(2))
        for _ in range(draw.integers(8, 20))
    ]
    times = int(draw.integers(3, 6))
    masks = draw.random((times, 3, 4)) < 0.5
    params = draw.normal(size=(times, 4, 4)) / 2

    def stretch(values, kept, weights, mask):
        values = list(values)
        for kind, of_one, of_two, places in chosen:
            i, j = (int(place * len(values)) for place in places)
            own = kept[i % len(kept)]
            if kind < 0.1:
                values.append(values[i] @ weights)
            elif kind < 0.25:
                values.append(jnp.where(mask, own, 1 - own))
            elif kind < 0.4:
                values.append(of_one(own * jnp.where(mask, 1.0, 2.0)))
            elif kind < 0.45:
                values.append(own * values[j])
            elif kind < 0.7:
                values.append(of_one(values[i]))
            else:
                values.append(of_two(values[i], values[j]))
        return sum(values[len(kept) :]) / len(values)  # nothing of it is unused

    def f(params, x):
        kept = [x, x - jnp.floor(x), 1 - x]
        total = y = x
        for weights, mask in zip(params, masks, strict=True):
            y = stretch([*kept, y], kept, weights, mask)
            total = total + y
        return total

    return f, (params, draw.normal(size=(3, 4)))


def assert_compiled_is_as_called(f, args, composite=None):
    explain = functools.partial(jaxlrp.lrp, f, composite, target="all")
    with jax.enable_x64():
        expected = explain()(*args)
        size = float(jnp.abs(expected).max())
        for remat in (False, True):
            found = jax.jit(explain(remat=remat))(*args)
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9 * size)


def test_a_stretch_reads_what_another_step_of_it_makes_for_itself():
    x = jnp.array([[0.1, 0.7], [0.4, 0.2], [0.9, 0.3]])
    assert blocks_of(grid, jnp.arange(16.0), x)
    assert_compiled_is_as_called(grid, (jnp.arange(16.0), x))


@pytest.mark.parametrize("seed", range(24))
def test_repeated_stretches_are_compiled_as_they_are_called(seed):
    with jax.enable_x64():
        f, args = repeated(seed)
    composite = [*COMPOSITES, composites.CPLRP()][seed % 7]
    assert_compiled_is_as_called(f, args, composite)
