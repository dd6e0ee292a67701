"""Composites are data: lines, of which the last that matches wins."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.composites import Place

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 3)), jnp.float32)
K = jnp.asarray(np.random.default_rng(1).normal(size=(2, 2, 3, 3)), jnp.float32)
W = jnp.asarray(np.random.default_rng(2).normal(size=(3, 5)), jnp.float32)


def conv(x):
    return jax.lax.conv_general_dilated(
        x, K, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def net(x):
    h = jax.nn.relu(conv(x))
    with jax.named_scope("middle"):
        h = jax.nn.relu(conv(h) + h)
    with jax.named_scope("head"):
        return h.mean((1, 2)) @ W


def chosen(composite, f=net):
    """{role: names of the rules, in order} of a plan."""
    found = {}
    for row in jaxlrp.plan(f, composite)(X).rows:
        found.setdefault(row.role, []).append(row.rule.split("(")[0])
    return found


PRESETS = {
    "AttnLRP": (composites.AttnLRP(), ["LRP0", "LRP0"], "LRP0", "LRP0"),
    "Epsilon": (composites.Epsilon(), ["Epsilon", "Epsilon"], "Epsilon", "Norm"),
    "EpsilonPlus": (composites.EpsilonPlus(), ["ZPlus", "ZPlus"], "Epsilon", "Norm"),
    "EpsilonPlusFlat": (
        composites.EpsilonPlusFlat(),
        ["Flat", "ZPlus"],
        "Epsilon",
        "Norm",
    ),
    "EpsilonGammaBox": (
        composites.EpsilonGammaBox(-1, 1),
        ["ZBox", "GeneralizedGamma"],
        "Epsilon",
        "Norm",
    ),
    "EpsilonAlpha2Beta1": (
        composites.EpsilonAlpha2Beta1(),
        ["AlphaBeta", "AlphaBeta"],
        "Epsilon",
        "Norm",
    ),
    "EpsilonAlpha2Beta1Flat": (
        composites.EpsilonAlpha2Beta1Flat(),
        ["Flat", "AlphaBeta"],
        "Epsilon",
        "Norm",
    ),
    "Uniform": (composites.Uniform(rules.Gamma()), ["Gamma", "Gamma"], "Gamma", "LRP0"),
    "SequentialPresetA": (
        composites.SequentialPresetA(),
        ["AlphaBeta", "AlphaBeta"],
        "Epsilon",
        "Norm",
    ),
    "SequentialPresetAFlat": (
        composites.SequentialPresetAFlat(),
        ["Flat", "AlphaBeta"],
        "Epsilon",
        "Norm",
    ),
    "SequentialPresetBFlatUntil": (
        composites.SequentialPresetBFlatUntil(2),
        ["Flat", "Flat"],
        "Epsilon",
        "Norm",
    ),
    "DeepTaylor": (
        composites.DeepTaylor(),
        ["ZPlus", "ZPlus"],
        "ZPlus",
        "Gradient",
    ),
    "DeepTaylorBounded": (
        composites.DeepTaylorBounded(),
        ["ZBox", "ZPlus"],
        "ZPlus",
        "Gradient",
    ),
    "BiLRP": (composites.BiLRP(-1, 1), ["ZBox", "Gamma"], "Gamma", "LRP0"),
    "ExcitationBackprop": (
        composites.ExcitationBackprop(),
        ["ZPlus", "ZPlus"],
        "ZPlus",
        "Norm",
    ),
    "GuidedBackprop": (
        composites.GuidedBackprop(),
        ["Gradient", "Gradient"],
        "Gradient",
        "Gradient",
    ),
    "CPLRPGamma": (
        composites.CPLRPGamma(),
        ["GeneralizedGamma", "GeneralizedGamma"],
        "GeneralizedGamma",
        "LRP0",
    ),
    "MambaLRP": (composites.MambaLRP(), ["LRP0", "LRP0"], "LRP0", "LRP0"),
    "DynamicLRP": (
        composites.DynamicLRP(),
        ["Epsilon", "Epsilon"],
        "Epsilon",
        "Absolute",
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", PRESETS)
def test_preset_gives_each_role_its_rule(name):
    composite, convolutions, dense, sums = PRESETS[name]
    found = chosen(composite)
    assert found["convolution"] == convolutions
    assert found["dense"] == [dense]
    assert found["sum"] == [sums]
    assert found["average"] == [sums]


MADE = [n for n in composites.__all__ if inspect.isfunction(getattr(composites, n))]


@pytest.mark.whole
@pytest.mark.parametrize("name", MADE)
def test_every_preset_is_named_as_its_function(name):
    given = {
        "Uniform": (rules.LRP0(),),
        "SequentialPresetBFlatUntil": (3,),
        **dict.fromkeys(("EpsilonGammaBox", "BiLRP"), (-1.0, 1.0)),
    }
    made = getattr(composites, name)
    composite = made(*given.get(name, ()))
    assert composite.name.split("(")[0] == name


def test_sequential_presets_have_the_options_of_their_rules():
    small = {"epsilon": 1e-7, "stabiliser": "zeros"}
    for alpha, preset in (
        (1.0, composites.SequentialPresetA(0.3)),
        (2.0, composites.SequentialPresetBFlatUntil(2, 0.3)),
    ):
        place = functools.partial(composites.Place, depth=5)
        convolution = rules.AlphaBeta(alpha, alpha - 1, bias="whole", **small)
        assert preset.rule(place("convolution")) == convolution
        assert preset.rule(place("dense")) == rules.Epsilon(0.3)
        assert preset.rule(place("average")) == rules.Norm(**small)
        assert preset.rule(place("sum")) == rules.Norm(**small)


def by_depth(x):
    """Twelve dense layers."""
    for _ in range(12):
        x = jax.nn.relu(x @ jnp.eye(3))
    return x


def test_gamma_of_bilrp_falls_with_depth():
    composite = composites.BiLRP(-1.0, 1.0)
    rows = jaxlrp.plan(by_depth, composite)(jnp.ones(3)).rows
    found = [row.rule for row in rows if row.role == "dense"]
    gammas = [0.5] * 5 + [0.25] * 3 + [0.1] * 3
    assert found == [*(f"Gamma(gamma={g})" for g in gammas), "LRP0()"]


def test_conservative_propagation_gives_values_all():
    """Two tokens attend to each other: weights are constants."""
    x = jnp.asarray(np.random.default_rng(3).normal(size=(2, 3)), jnp.float32)
    weigh = lambda x: jax.nn.softmax(x @ x.T)  # noqa: E731
    found = jaxlrp.lrp(lambda x: weigh(x) @ x, composites.CPLRP(), target="all")(x)
    expected = x * weigh(x).sum(0)[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize("hold", [False, True])
def test_conservative_propagation_holds_gates_if_asked(hold):
    f = lambda x: jax.nn.silu(x[:2]) * x[2:]  # noqa: E731
    x = jnp.array([1.0, -2.0, 3.0, 4.0])
    composite = composites.CPLRP(hold_gates=hold)
    found = jaxlrp.lrp(f, composite, target="all")(x)
    gate = 0.0 if hold else 0.5
    expected = jnp.concatenate([gate * f(x), (1 - gate) * f(x)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_state_space_step_and_decay_take_nothing():
    """h' = exp(-softplus(d)) h + softplus(d) u: the state and the input take all."""

    def f(d, h, u):
        step = jax.nn.softplus(d)
        return jnp.exp(-step) * h + step * u

    args = [jnp.array(v) for v in ([1.0, -1.0], [2.0, 0.5], [-1.0, 3.0])]
    explain = jaxlrp.lrp(f, composites.MambaLRP(), argnums=(0, 1, 2), target="all")
    with pytest.warns(jaxlrp.errors.IndependentArgumentWarning, match="argument 0"):
        d, h, u = explain(*args)
    step = jax.nn.softplus(args[0])
    np.testing.assert_allclose(d, 0.0, atol=1e-7)
    np.testing.assert_allclose(h, jnp.exp(-step) * args[1], rtol=1e-5)
    np.testing.assert_allclose(u, step * args[2], rtol=1e-5)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("composite", "gate"),
    [
        (composites.GuidedBackprop(), lambda z, r: (z > 0) * np.maximum(r, 0)),
        (composites.DeconvNet(), lambda z, r: np.maximum(r, 0)),
        (composites.BetaSmooth(2.0), lambda z, r: r / (1 + np.exp(-2 * z))),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_modified_gradient_is_its_formula(composite, gate):
    generator = np.random.default_rng(4)
    v, w, x = (generator.normal(size=s) for s in ((4, 5), (5, 3), (4,)))
    v, w, x = (a.astype("float32") for a in (v, w, x))
    f = lambda x: jax.nn.relu(x @ v) @ w  # noqa: E731
    out = np.asarray(f(x))
    seed = out * (out == out.max())
    expected = v @ gate(x @ v, w @ seed)
    np.testing.assert_allclose(jaxlrp.lrp(f, composite)(x), expected, rtol=1e-4)


def test_no_composite_is_the_default_one():
    assert chosen(None) == chosen(composites.Default())
    np.testing.assert_array_equal(
        jaxlrp.lrp(net)(X), jaxlrp.lrp(net, composites.Default())(X)
    )


def test_last_line_that_matches_wins():
    composite = composites.Epsilon().on("layer", rules.LRP0())
    assert chosen(composite)["convolution"] == ["LRP0", "LRP0"]
    composite = composite.on("convolution", rules.Flat()).on("dense", rules.Gamma())
    found = chosen(composite)
    assert (found["convolution"], found["dense"]) == (["Flat", "Flat"], ["Gamma"])


@pytest.mark.whole
@pytest.mark.parametrize(
    ("conditions", "convolutions", "dense"),
    [
        ({"scope": "middle"}, ["LRP0", "Gamma"], ["LRP0"]),
        ({"scope": "*d*"}, ["LRP0", "Gamma"], ["Gamma"]),
        ({"scope": "h*d"}, ["LRP0", "LRP0"], ["Gamma"]),
        ({"first": True}, ["Gamma", "LRP0"], ["LRP0"]),
        ({"first": True, "scope": "middle"}, ["LRP0", "LRP0"], ["LRP0"]),
        ({"primitive": "dot_general"}, ["LRP0", "LRP0"], ["Gamma"]),
        ({"primitive": "conv_general_dilated"}, ["Gamma", "Gamma"], ["LRP0"]),
        ({"depth": (None, 1)}, ["Gamma", "LRP0"], ["LRP0"]),
        ({"depth": (1, None)}, ["LRP0", "Gamma"], ["Gamma"]),
        ({"depth": (1, 2)}, ["LRP0", "Gamma"], ["LRP0"]),
        ({"activated": True}, ["Gamma", "LRP0"], ["LRP0"]),
        ({"activated": False}, ["LRP0", "Gamma"], ["Gamma"]),
    ],
)
def test_conditions_of_a_line(conditions, convolutions, dense):
    def f(x):
        h = jax.nn.relu(conv(x))
        with jax.named_scope("middle"):
            h = conv(h)
        with jax.named_scope("head"):
            return h.mean((1, 2)) @ W

    composite = composites.AttnLRP().on("layer", rules.Gamma(), **conditions)
    found = chosen(composite, f)
    assert (found["convolution"], found["dense"]) == (convolutions, dense)


def test_a_step_is_first_if_no_layer_lies_before_any_of_its_operands():
    def f(x):
        h = x[:, :2] + x[:, 1:]  # of the input alone
        h = jnp.tanh(h @ W[:2])
        h = h + x[:, :1]  # of a layer's result and of the input
        h = jnp.tanh(h @ W.T)
        return h + h[:, ::-1]  # of a layer's results

    marked = composites.AttnLRP().on("sum", rules.Pass(), first=True)
    plan = jaxlrp.plan(f, marked)(jnp.ones((2, W.shape[0])))
    sums = ["Pass" in row.rule for row in plan.rows if row.role == "sum"]
    assert sums == [True, False, False]


def test_composite_is_not_changed_by_adding_to_it():
    composite = composites.Epsilon()
    before = str(composite)
    composite.on("layer", rules.LRP0())
    composite.named("other")
    assert str(composite) == before


def test_composite_is_printed_line_by_line():
    composite = composites.AttnLRP().on(
        "dense", rules.Gamma(0.1), first=True, scope="a*", primitive="dot_general"
    )
    lines = str(composite.named("mine")).splitlines()
    assert lines[0] == "mine"
    assert lines[1].split() == ["role", "rule", "where", "documented", "in"]
    assert lines[2].split() == ["layer", "LRP0()", "jaxlrp.rules.LRP0"]
    assert "[first, scope=a*, primitive=dot_general]" in lines[3]
    assert "Gamma(gamma=0.1" in lines[3]


def test_a_printed_line_that_later_ones_take_over_says_so():
    beaten = composites.Epsilon().on("dense", rules.LRP0())
    assert "never" not in str(beaten)
    lines = str(beaten.on("convolution", rules.LRP0())).splitlines()
    assert [i for i, line in enumerate(lines) if "never" in line] == [2]


def test_a_rule_of_ones_own_is_documented_where_it_is_defined():
    printed = str(composites.AttnLRP().on("sum", Mine()))
    assert f"{Mine.__module__}.Mine" in printed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mine(rules.RelevanceRule):
    def relevances(self, operation, R):
        return tuple(R for _ in operation.xs)


# ---- changing the numbers of a preset ---------------------------------------------


def rules_of(composite, role):
    return [line.rule for line in composite.of_role(role)]


def test_numbers_of_a_role_are_replaced_in_all_its_lines():
    box = composites.EpsilonGammaBox(-1.0, 1.0)
    changed = box.replace("convolution", gamma=0.1)
    assert changed.assignments[1] == dataclasses.replace(
        box.assignments[1], rule=rules.GeneralizedGamma(0.1)
    )
    others = [line for i, line in enumerate(box.assignments) if i != 1]
    assert [line for i, line in enumerate(changed.assignments) if i != 1] == others


def test_a_line_for_several_roles_keeps_the_others():
    changed = composites.Epsilon().replace("dense", epsilon=0.1)
    assert changed.rule(Place("dense")) == rules.Epsilon(0.1)
    assert changed.rule(Place("convolution")) == rules.Epsilon()


def test_a_group_is_replaced_in_the_lines_of_its_roles():
    composite = composites.EpsilonPlus().replace("layer", epsilon=0.1)
    assert composite.rule(Place("dense")) == rules.Epsilon(0.1)
    assert composite.rule(Place("convolution")) == rules.ZPlus(0.1)
    assert composite.rule(Place("sum")) == rules.Norm()


def test_conditions_stay_where_numbers_are_replaced():
    default = composites.Default().replace("dense", gamma=0.2)
    assert default.rule(Place("dense", recurrent=True)) == rules.GeneralizedGamma(0.2)
    assert rules_of(default, "dense")[0] == rules_of(composites.Default(), "dense")[0]


def test_the_rule_inside_of_a_filter_is_replaced():
    changed = composites.DynamicLRP(keep=0.5).replace("layer", epsilon=0.1)
    filtered = changed.rule(Place("dense"))
    assert (filtered.rule.epsilon, filtered.keep) == (0.1, 0.5)


def test_the_default_of_a_role_is_replaced():
    changed = composites.AttnLRP().replace("normaliser", mean=True)
    assert changed.rule(Place("normaliser")) == rules.Detach(mean=True)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("role", "changes", "error", "message"),
    [
        ("dens", {"gamma": 1.0}, ValueError, "role: got 'dens', expected one of"),
        ("dense", {}, TypeError, "changes: got none"),
        ("dense", {"gama": 1.0}, TypeError, r"got gama .* Epsilon\(epsilon, "),
        ("convolution", {"gamma": -1.0}, ValueError, "gamma: got -1.0"),
    ],
)
def test_what_cannot_be_replaced(role, changes, error, message):
    with pytest.raises(error, match=message):
        composites.Default().replace(role, **changes)


def test_composite_is_a_pytree_of_numbers():
    composite = composites.EpsilonGammaBox(-1.0, 1.0, epsilon=1e-3, gamma=0.5)
    leaves, tree = jax.tree.flatten(composite)
    assert {-1.0, 1.0, 1e-3, 0.5} <= set(leaves)
    assert jax.tree.unflatten(tree, leaves) == composite


def test_composite_can_be_an_argument_of_a_compiled_function():
    traces = []

    @jax.jit
    def explain(composite, x):
        traces.append(composite)
        return jaxlrp.lrp(net, composite)(x)

    for gamma in (0.1, 1.0):
        composite = composites.Uniform(rules.GeneralizedGamma(gamma))
        expected = jaxlrp.lrp(net, composite)(X)
        np.testing.assert_allclose(
            explain(composite, X), expected, rtol=1e-4, atol=1e-5
        )
    assert len(traces) == 1


@pytest.mark.whole
@pytest.mark.parametrize("role", sorted(composites.ALLOWED))
def test_default_of_a_role_is_allowed_for_it(role):
    assert isinstance(composites.DEFAULTS[role], composites.ALLOWED[role])
    assert set(composites.DEFAULTS) == set(composites.ALLOWED)


def batch_norm(x):
    a, b = np.arange(1.0, 4.0, dtype="float32"), np.ones(3, "float32")
    return (conv(x) - b / 2) * a + b


ROLES = {
    "convolution": net,
    "dense": lambda x: conv(x) @ W[:, :3],  # of one shape, for `Pass`
    "batch_norm": batch_norm,
    "average": net,
    "sum": net,
    "activation": lambda x: jnp.tanh(x @ W),
    "normaliser": lambda x: x / jnp.sqrt((x * x).mean(-1, keepdims=True)),
    "quotient": lambda x: (x @ W) / (1 + (x @ W[:, ::-1]) ** 2),
    "softmax": jax.nn.softmax,
    "bilinear": lambda x: jnp.einsum("bhwc,bhvc->bhwv", x, x[..., ::-1]),
    "product": lambda x: (x @ W) * jax.nn.sigmoid(x @ W[:, ::-1]),
    "scale": lambda x: x * jnp.arange(1.0, 5.0)[:, None, None],
    "shift": lambda x: x + jnp.arange(1.0, 5.0)[:, None, None],
    "selection": lambda x: x.max(-1),
}


# Every role with every rule that it takes.
CHOICES = [
    (role, rules.Epsilon if rule is rules.LayerRule else rule)
    for role, allowed in composites.ALLOWED.items()
    for rule in allowed
]
HOLDING = ("normaliser", "quotient")


@pytest.mark.parametrize(("role", "rule"), CHOICES)
def test_every_allowed_rule_runs(role, rule):
    composite = composites.AttnLRP().on(role, rule())
    # Relevance reaches the input past the role as well.
    f = lambda x: (ROLES[role](x).ravel()[:9], x.ravel()[:9])  # noqa: E731
    assert role in chosen(composite, f) or rule in (rules.Detach, rules.Merge)
    for target in ("all", lambda out: out):
        found = jaxlrp.lrp(f, composite, target=target)(X)
        assert np.isfinite(found).all() and np.abs(found).max() > 0


@pytest.mark.parametrize(
    ("role", "rule"),
    [(a, b) for a, b in CHOICES if b is not rules.Detach or a in HOLDING],
)
def test_relevance_that_is_the_output_is_the_target_all(role, rule):
    """Seeds as a multiple of the output and as plain relevance are one rule."""
    weights = np.cos(np.arange(50.0)).astype("float32")

    def f(x):
        y = ROLES[role](x)
        return y.ravel()[:50] * weights[: y.size]

    composite = composites.AttnLRP().on(role, rule())
    plain, multiple = (
        jax.jit(jaxlrp.lrp(f, composite, target=t))(X) for t in (lambda out: out, "all")
    )
    scale = np.abs(multiple).max()
    np.testing.assert_allclose(plain / scale, multiple / scale, rtol=1e-4, atol=1e-5)


# ---- scopes that are held ----------------------------------------------------------


def routed(x, w):
    with jax.named_scope("router"):
        weights = jax.nn.softmax(x @ w)
    return jnp.tanh((weights[:, None] * w.T) @ x)


def test_what_a_held_scope_computes_is_a_constant():
    """As if the program stopped the gradient there; shapes, loops and jit as usual."""
    rng = np.random.default_rng(1)
    x, w = (jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((3,), (3, 4)))

    def stopped(x, w):
        weights = jax.lax.stop_gradient(jax.nn.softmax(x @ w))
        return jnp.tanh((weights[:, None] * w.T) @ x)

    for base in (composites.AttnLRP(), composites.EpsilonPlus()):
        expected = jaxlrp.lrp(stopped, base, argnums=0)(x, w)
        held = base.hold("*router*")
        for explain in (jaxlrp.lrp(routed, held, argnums=0),):
            np.testing.assert_allclose(explain(x, w), expected, rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(jax.jit(explain)(x, w), expected, rtol=1e-5)
    looped = lambda x: jax.lax.fori_loop(0, 2, lambda _, h: routed(h, w)[:3], x)  # noqa: E731
    by_hand = lambda x: stopped(stopped(x, w)[:3], w)[:3]  # noqa: E731
    held = composites.AttnLRP().hold("*router*")
    found = jaxlrp.lrp(looped, held, target="all")(x)
    expected = jaxlrp.lrp(by_hand, composites.AttnLRP(), target="all")(x)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert "any    constant  [scope=*router*]" in str(held)


def test_a_held_scope_may_begin_behind_a_layer_or_inside_an_activation():
    x, w = jnp.array([1.0, -2.0, 0.5]), jnp.arange(9.0).reshape(3, 3) / 4

    def f(x):
        h = x @ w
        with jax.named_scope("shift"):
            shifted = h + 0.5
        y = jax.nn.sigmoid(x)
        with jax.named_scope("inner"):
            inner = y * x
        with jax.named_scope("loop"):
            steps = jax.lax.while_loop(lambda v: v.sum() < 9, lambda v: v * v + 1, x)
        with jax.named_scope("host"):
            host = jax.pure_callback(np.sin, x, x, vmap_method="sequential")
        return (shifted + inner + steps + host) * x

    held = composites.AttnLRP()
    for scope in ("shift", "inner", "loop", "host"):
        held = held.hold(scope)
    found = jaxlrp.lrp(f, held, target="all")(x)
    np.testing.assert_allclose(found, f(x), rtol=1e-5)


def test_a_held_scope_that_is_not_there_is_an_error():
    held = composites.AttnLRP().hold("*rooter*")
    with pytest.raises(ValueError, match="rooter.*matches none"):
        jaxlrp.lrp(routed, held, argnums=0)(jnp.ones(3), jnp.ones((3, 4)))
    with pytest.raises(TypeError, match="scope: got 3"):
        composites.AttnLRP().hold(3)


def test_options_and_conditions_of_presets():
    place = composites.Place
    default = composites.Default()
    assert default.rule(place("dense")) == rules.Epsilon(1e-6, relative=True)
    for role in ("dense", "convolution"):
        recurrent = default.rule(place(role, recurrent=True))
        assert recurrent == rules.GeneralizedGamma(0.05)
    assert default.rule(place("convolution")) == rules.GeneralizedGamma(0.25)
    assert default.rule(place("sum")) == rules.GeneralizedGamma(1.0)
    assert default.rule(place("sum", residual=True)) == rules.LRP0()
    softmax = place("softmax")
    assert composites.DynamicLRP().rule(softmax) == rules.Detach()
    assert composites.DynamicLRP(softmax=True).rule(softmax) == rules.Taylor()
    layer = composites.DynamicLRP(gamma=0.5, epsilon=0.1).rule(place("dense"))
    assert layer == rules.GeneralizedGamma(0.5, epsilon=0.1, bias="absolute")
    deep = composites.DeepTaylor()
    assert deep.rule(place("dense")) == rules.ZPlus(bias="ignore")
    assert deep.rule(place("sum")) == deep.rule(place("average")) == rules.Gradient()
    flat = composites.SequentialPresetBFlatUntil(2)
    kinds = [type(flat.rule(place("convolution", depth=d))) for d in range(3)]
    assert kinds == [rules.Flat, rules.Flat, rules.AlphaBeta]
    for depth, gamma in ((0, 0.5), (4, 0.5), (5, 0.25), (8, 0.1), (10, 0.1)):
        rule = composites.BiLRP(0.0, 1.0).rule(place("dense", depth=depth))
        assert rule == rules.Gamma(gamma)
    assert composites.BiLRP(0.0, 1.0).rule(place("dense", depth=11)) == rules.LRP0()
    for make, kind in ((True, rules.GeneralizedGamma), (False, rules.Gamma)):
        box = composites.EpsilonGammaBox(0.0, 1.0, generalized=make)
        assert isinstance(box.rule(place("convolution")), kind)
        assert box.rule(place("shift", first=True)) == rules.Pass()


def test_a_layer_that_something_else_reads_too_is_not_activated():
    marked = composites.AttnLRP().on("layer", rules.Flat(), activated=True)

    def rules_of(f):
        plan = jaxlrp.plan(f, marked)(jnp.ones((2, W.shape[0])))
        return ["Flat" in row.rule for row in plan.rows if row.role == "dense"]

    assert rules_of(lambda x: jnp.tanh(x @ W)) == [True]
    assert rules_of(lambda x: jnp.tanh(h := x @ W) + h[::-1]) == [False]
    assert rules_of(lambda x: (jnp.tanh(h := x @ W), h)) == [False]
    assert rules_of(lambda x: jnp.tanh(h := x @ W) * jnp.sin(h)) == [True]
