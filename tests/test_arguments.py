"""Arguments of the wrong kind: errors that name them, before anything is computed."""

import dataclasses
import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Primitive

import jaxlrp
from jaxlrp import attribution, composites, concepts, deep_taylor, evaluation, rules
from jaxlrp import text as pictures
from jaxlrp.evaluation import protocols

W = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)
X = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3)), jnp.float32)


def dense(x):
    return x @ W


# ---- flags ---------------------------------------------------------------------------


def flags_of(namespace):
    """Each parameter that is a bool of each public function."""
    for name in namespace.__all__:
        function = getattr(namespace, name)
        if inspect.isfunction(function):
            for parameter in inspect.signature(function).parameters.values():
                if parameter.annotation in ("bool", bool):
                    yield function, parameter.name


SPACES = (jaxlrp, attribution, composites, concepts, evaluation, protocols, pictures)
FLAGS = sorted(
    {pair for space in SPACES for pair in flags_of(space)},
    key=lambda pair: (pair[0].__module__, pair[0].__name__, pair[1]),
)


def arguments_of(function):
    """Something for each parameter that has no default."""
    known = {
        "f": dense,
        "key": jax.random.key(0),
        "window": (1,),
        "layer": "h",
        "background": X,
        "references": X,
        "site": "h",
        "low": 0.0,
        "high": 1.0,
        "score": lambda x: x.sum(),
        "explain": lambda x: x,
        "x": X,
        "near": X[None],
        "tokens": ["a"],
        "relevances": [1.0],
        "first": ["a"],
        "second": ["b"],
        "matrix": [[1.0]],
        "mask": X > 0,
        "relevance": X,
        "target": 0,
        "attribution": X,
        "perturbations": X[None],
    }
    needed = [
        p.name
        for p in inspect.signature(function).parameters.values()
        if p.default is p.empty and p.kind is not p.VAR_KEYWORD
    ]
    return {name: known[name] for name in needed if name in known}


def test_there_are_flags():
    names = {name for _, name in FLAGS}
    assert {"has_aux", "normalise", "relative", "hold_gates", "numbers"} <= names
    assert len(FLAGS) > 25


@pytest.mark.whole
@pytest.mark.parametrize("given", ["no", 1, None, np.array([True, False])], ids=repr)
@pytest.mark.parametrize(("function", "name"), FLAGS)
def test_a_flag_is_true_or_false(function, name, given):
    message = rf"{name}: got {re.escape(repr(given))}, expected True or False"
    with pytest.raises(TypeError, match=message):
        function(**arguments_of(function) | {name: given})


def test_a_flag_of_numpy_is_one():
    found = jaxlrp.lrp(lambda x: (dense(x), x), has_aux=np.bool_(True))(X)
    np.testing.assert_array_equal(found[1], X)


OPTIONS = [
    (kind, field.name)
    for kind in vars(rules).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind)
    if field.metadata.get("static")
]


@pytest.mark.whole
@pytest.mark.parametrize("given", ["no", 1, 0, None, np.array([True, False])], ids=repr)
@pytest.mark.parametrize(("kind", "name"), OPTIONS)
def test_an_option_of_a_rule_is_one_of_its_choices(kind, name, given):
    with pytest.raises(ValueError, match=f"{name}: got .* for {kind.__name__}, expect"):
        kind(**{name: given})


# ---- numbers of rules ----------------------------------------------------------------

NUMBERS = [
    (kind, field.name)
    for kind in vars(rules).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    for field in dataclasses.fields(kind)
    if issubclass(kind, rules.Rule)
    and not field.metadata.get("static")
    and field.name != "rule"
]
NONE_IS_ONE = {
    ("Pass", "epsilon"),
    ("Taylor", "root"),
    ("Taylor", "temperature"),
    ("UniformSplit", "epsilon"),
}


def test_there_are_numbers():
    names = {(kind.__name__, name) for kind, name in NUMBERS}
    assert {("Epsilon", "epsilon"), ("Gamma", "gamma"), ("ZBox", "low")} <= names
    assert len(names) > 20


@pytest.mark.whole
@pytest.mark.parametrize(
    "given",
    [None, "a", 1j, True, [0.1], object(), jnp.array(1j), np.array("a"), np.bool_(0)],
    ids=lambda given: f"{type(given).__name__} {getattr(given, 'dtype', given)}"[:20],
)
@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_a_number_of_a_rule_is_real(kind, name, given):
    if given is None and (kind.__name__, name) in NONE_IS_ONE:
        assert getattr(kind(**{name: None}), name) is None
        return
    message = f"{name}: got .* for {kind.__name__}, expected .*number"
    with pytest.raises(TypeError, match=message):
        kind(**{name: given})


BOUNDLESS = {"low", "high", "root", "alpha", "beta"}


@pytest.mark.whole
@pytest.mark.parametrize(
    "given",
    [-1, -0.5, float("nan"), float("inf"), np.float32("nan"), np.array([0.1, -1.0])],
    ids=repr,
)
@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_a_number_of_a_rule_is_finite_and_not_negative(kind, name, given):
    if name in BOUNDLESS:
        given = np.where(np.isfinite(given), np.nan, given)
    with pytest.raises(ValueError, match=f"{name}.*: got .* for {kind.__name__}, exp"):
        kind(**{name: given})


@pytest.mark.parametrize("number", [float, np.float32, np.float64, np.array, jnp.array])
def test_numbers_of_any_library_are_taken(number):
    for kind, name in NUMBERS:
        value = {"low": -1.0, "high": 2.0, "alpha": 2.0, "beta": 1.0}.get(name, 0.5)
        kind(**{name: number(value)})


def test_traced_numbers_are_taken_whatever_they_are():
    def size(gamma):
        composite = composites.Uniform(rules.Gamma(gamma, epsilon=gamma))
        return jaxlrp.lrp(dense, composite)(X).sum()

    assert np.isfinite(jax.jit(size)(0.1)) and np.isfinite(jax.grad(size)(0.1))
    assert np.isfinite(jax.vmap(size)(jnp.arange(3.0))).all()


def test_a_rule_that_is_taken_apart_is_not_checked_again():
    rule = rules.AlphaBeta(2.0, 1.0)
    for value in (None, "name", -3.0, object()):
        again = jax.tree.map(lambda _, value=value: value, rule)
        assert isinstance(again, rules.AlphaBeta)
    assert jax.tree.map(lambda _: 0, composites.EpsilonPlus()) is not None


@pytest.mark.whole
@pytest.mark.parametrize(
    ("alpha", "beta"), [(2.0, 2.0), (np.float32(2), np.float32(0)), (0, 1)]
)
def test_alpha_and_beta_belong_together(alpha, beta):
    with pytest.raises(ValueError, match=r"alpha|beta"):
        rules.AlphaBeta(alpha, beta)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("low", "high"),
    [(1.0, 0.0), (np.float32(2), 1), (np.zeros(3), np.array([1.0, -1.0, 1.0]))],
)
def test_a_box_with_low_above_high(low, high):
    for make in (rules.ZBox, composites.BiLRP, composites.EpsilonGammaBox):
        with pytest.raises(ValueError, match="low, high: got .*, expected low <= high"):
            make(low, high)


@pytest.mark.whole
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
@pytest.mark.parametrize("shape", [(7,), (1, 2, 3), (2, 1, 1)])
@pytest.mark.parametrize("name", ["low", "high"])
def test_a_box_of_another_shape_than_the_input(name, shape, wrap):
    bound = np.full(shape, {"low": -9.0, "high": 9.0}[name])
    rule = dataclasses.replace(rules.ZBox(-9.0, 9.0), **{name: bound})
    message = rf"{name}: got shape {re.escape(str(shape))} for ZBox, .*\(2, 3\)"
    with pytest.raises(ValueError, match=message):
        wrap(jaxlrp.lrp(dense, composites.Uniform(rule)))(X)


def test_a_box_whose_bounds_do_not_fit_each_other():
    with pytest.raises(ValueError, match=r"low, high: got shapes \(2,\) and \(3,\)"):
        rules.ZBox(np.zeros(2), np.ones(3))


def test_a_filter_filters_for_a_rule():
    for given in (None, rules.Epsilon, rules.TopK(), 3):
        with pytest.raises(TypeError, match="rule: got .*, expected a layer's rule"):
            rules.TopK(given)


# ---- lines of composites -------------------------------------------------------------

LINES = [
    ({"scope": 3}, TypeError, "scope: got 3, expected a glob"),
    ({"scope": ["a"]}, TypeError, r"scope: got \['a'\], expected a glob"),
    ({"primitive": 3}, TypeError, "primitive: got 3, expected the name"),
    ({"first": "no"}, TypeError, "first: got 'no', expected True or False"),
    ({"first": None}, TypeError, "first: got None, expected True or False"),
    ({"activated": "no"}, ValueError, "activated: got 'no', expected True, False or"),
    ({"recurrent": np.ones(2)}, ValueError, r"recurrent: got array"),
    ({"residual": 1}, ValueError, "residual: got 1, expected True, False or None"),
    ({"depth": 3}, ValueError, "depth: got 3, expected a pair"),
    ({"depth": ("a", None)}, ValueError, r"depth: got \('a', None\), expected a pair"),
]


@pytest.mark.whole
@pytest.mark.parametrize(("conditions", "error", "message"), LINES)
def test_a_condition_of_the_wrong_kind(conditions, error, message):
    with pytest.raises(error, match=message):
        composites.AttnLRP().on("layer", rules.Epsilon(), **conditions)


@pytest.mark.whole
@pytest.mark.parametrize("role", [3, None, ["layer"]])
def test_a_role_is_a_name(role):
    with pytest.raises(ValueError, match="role: got .*, expected one of"):
        composites.AttnLRP().on(role, rules.Epsilon())


def test_a_class_is_no_rule():
    with pytest.raises(TypeError, match="rule: got .*Gamma.*was it meant to be called"):
        composites.AttnLRP().on("layer", rules.Gamma)


class Plain(rules.LayerRule):
    """Neither a dataclass nor a pytree, with a number that nobody knows of."""

    def __init__(self):
        self.number = 3.0


def test_a_rule_that_is_no_dataclass():
    with pytest.raises(
        TypeError, match="rule: got .*Plain.*frozen dataclass.*register"
    ):
        composites.AttnLRP().on("layer", Plain())


def deep(x):
    for _ in range(3):
        x = jax.nn.relu(x @ W @ W.T)
    return x


@pytest.mark.whole
@pytest.mark.parametrize("look", [jaxlrp.lrp, jaxlrp.plan, jaxlrp.audit])
def test_a_depth_that_no_layer_has(look):
    composite = composites.AttnLRP().on("layer", rules.Epsilon(), depth=(10, None))
    with pytest.raises(ValueError, match=r"depth: \(10, None\) .* lie 5 layers"):
        look(deep, composite)(X)


def test_the_end_of_a_schedule_may_have_no_layer():
    found = jaxlrp.lrp(deep, composites.BiLRP(-9.0, 9.0))(X)
    assert np.isfinite(found).all()
    composite = composites.AttnLRP().on("layer", rules.Epsilon(), depth=(5, None))
    jaxlrp.lrp(deep, composite)(X)
    only = composites.AttnLRP().on("layer", rules.Epsilon(), depth=(2, 4))
    jaxlrp.lrp(lambda x: 2 * x, only, target="all")(X)  # no layer at all


def test_a_depth_inside_of_a_loop_is_found():
    def f(x):
        return jax.lax.scan(lambda h, _: (jnp.tanh(h @ W @ W.T), None), x, length=2)[0]

    composite = composites.AttnLRP().on("layer", rules.Epsilon(), depth=(1, None))
    jaxlrp.lrp(f, composite)(X)


@pytest.mark.whole
@pytest.mark.parametrize("scope", ["typo", "*/typo"])
def test_a_plan_refuses_the_scopes_that_lrp_refuses(scope):
    def f(x):
        with jax.named_scope("head"):
            return dense(x)

    line = composites.AttnLRP().on("layer", rules.Epsilon(), scope=scope)
    held = composites.AttnLRP().hold(scope)
    for composite in (line, held):
        for look in (jaxlrp.lrp, jaxlrp.plan):
            with pytest.raises(ValueError, match=r"scope: .* matches none of the"):
                look(f, composite)(X)


# ---- functions -----------------------------------------------------------------------

TRANSFORMATIONS = {
    "lrp": jaxlrp.lrp,
    "value_and_lrp": jaxlrp.value_and_lrp,
    "lrp_each": jaxlrp.lrp_each,
    "parameter_relevance": jaxlrp.parameter_relevance,
    "plan": jaxlrp.plan,
    "audit": jaxlrp.audit,
    "check": jaxlrp.check,
    "value_grad_and_lrp": jaxlrp.value_grad_and_lrp,
    "relprop": lambda f: jaxlrp.relprop(f, X),
    "sites": concepts.sites,
    "channel_relevance": lambda f: concepts.channel_relevance(f, site="h"),
    "fullgrad": attribution.fullgrad,
    "gradient": attribution.gradient,
    "occlusion": lambda f: attribution.occlusion(f, (1,)),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_what_is_no_function_is_refused_when_it_is_given(name):
    with pytest.raises(TypeError, match="f: got 3, expected a function"):
        TRANSFORMATIONS[name](3)


ASKING_MORE = {"channel_relevance", "occlusion", "parameter_relevance"}
"""They need a site, a window or parameters."""


@pytest.mark.whole
@pytest.mark.parametrize("name", sorted(set(TRANSFORMATIONS) - ASKING_MORE))
def test_an_output_that_is_no_array_is_named(name):
    look = TRANSFORMATIONS[name]
    message = r"f: its output\['label'\] is 'cat' of type str, expected an array"
    with pytest.raises(TypeError, match=message):
        found = look(lambda x: {"scores": dense(x), "label": "cat"})
        found(X)


def test_rules_of_ones_own_are_functions():
    for make in (
        lambda given: jaxlrp.custom_lrp(given),
        lambda given: jaxlrp.register_rule(Primitive("new"))(given),
        lambda given: jaxlrp.custom_lrp(dense).deflrp(given, dense),
        lambda given: jaxlrp.custom_lrp(dense).deflrp(dense, given),
    ):
        for given in (None, 3, "rule"):
            with pytest.raises(
                TypeError, match=f": got {given!r}, expected a function"
            ):
                make(given)
    assert "new" not in jaxlrp.primitives.entries()


ROUTES = [
    (([X], []), ValueError, "scales: got 0 of them, expected 1"),
    (([], [X]), ValueError, "scales: got 1 of them, expected 0"),
    (([X, X], [X]), ValueError, "scales: got 1 of them, expected 2"),
    ((X, [X]), TypeError, "surrogates: got .*, expected a tuple or list"),
    (([X], 1.0), TypeError, "scales: got float, expected a tuple or list"),
    (([X.T], [1.0]), ValueError, r"surrogates\[0\]: got shape \(3, 2\), expected"),
    (([X], [jnp.ones(2)]), ValueError, r"scales\[0\]: got shape \(2,\), expected"),
    (([X], [jnp.ones((1, 2, 3))]), ValueError, r"scales\[0\]: got shape \(1, 2, 3\)"),
    (([X], ["a"]), TypeError, r"scales\[0\]: got 'a', expected an array"),
]


@pytest.mark.whole
@pytest.mark.parametrize(("given", "error", "message"), ROUTES)
def test_a_route_of_lists_that_do_not_fit(given, error, message):
    with pytest.raises(error, match=message):
        jaxlrp.route(X, *given)


# ---- arguments and targets -----------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize("look", ["lrp", "gradient", "deep_lift"])
@pytest.mark.parametrize(
    "given",
    [
        np.array([object()]),
        np.array(["a", "b"]),
        np.array(["2020-01-01"], "datetime64[D]"),
        np.str_("a"),
        [1.0, object()],
    ],
    ids=["objects", "text", "dates", "a text", "a list with an object"],
)
def test_attributed_objects_are_refused(look, given):
    make = {
        "lrp": jaxlrp.lrp,
        "gradient": attribution.gradient,
        "deep_lift": lambda f: jaxlrp.lrp(f, baseline=0.0),
    }[look]
    with pytest.raises(
        TypeError, match=r"argument 1.* is attributed: got .*expected an"
    ):
        make(lambda w, x: x @ w)(W, given)


def test_objects_that_are_not_attributed_stay_as_they_are():
    names = np.array(["a", "b"], object)
    found = jaxlrp.lrp(lambda names, x: dense(x) * (names[1] == "b"))(names, X)
    np.testing.assert_array_equal(found, jaxlrp.lrp(dense)(X))


EVERYWHERE = [jaxlrp.lrp, attribution.gradient, attribution.integrated_gradients]


@pytest.mark.whole
@pytest.mark.parametrize("look", EVERYWHERE)
def test_no_class_is_the_highest_of_none(look):
    with pytest.raises(
        ValueError, match=r"target: got 'max' .*\(2, 0\), expected at l"
    ):
        look(lambda x: x @ jnp.zeros((3, 0)))(X)


def test_no_complex_number_is_the_highest():
    def f(x):
        return (x @ W).astype(jnp.complex64) * (1 + 1j)

    for target in ("max", jaxlrp.targets.LogOdds("max")):
        with pytest.raises(TypeError, match="target: got 'max' .* complex64, none of"):
            jaxlrp.lrp(f, target=target)(X)
    assert np.isfinite(jaxlrp.lrp(f, target=1)(X)).all()


@pytest.mark.whole
@pytest.mark.parametrize("target", [10**12, -(10**12), 10**30, np.int64(2**40)])
def test_a_class_beyond_all_numbers(target):
    for look in (jaxlrp.lrp, jaxlrp.audit, attribution.gradient):
        with pytest.raises(
            ValueError, match=r"target: got .*, expected classes in \[-4"
        ):
            look(dense, target=target)(X)


@pytest.mark.whole
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_a_complex_relevance_has_no_place_in_a_real_output(wrap):
    out, pull = jaxlrp.relprop(dense, X)
    with pytest.raises(TypeError, match="R_out: got dtype complex64, expected real"):
        wrap(pull)(out * (1 + 2j))
    for look in (jaxlrp.lrp, attribution.gradient, jaxlrp.parameter_relevance):
        argnums = {"argnums": 0} if look is jaxlrp.parameter_relevance else {}
        f = (lambda x, w: x @ w) if argnums else dense
        given = (X, W) if argnums else (X,)
        options = {"params": 1, **argnums} if argnums else {}
        with pytest.raises(TypeError, match=r"target\(out\): got dtype complex64, exp"):
            wrap(look(f, target=lambda y: y * 1j, **options))(*given)


def test_a_complex_relevance_of_a_complex_output_is_one():
    out, pull = jaxlrp.relprop(lambda x: x * (1 + 2j), X)
    np.testing.assert_allclose(pull(out), X, rtol=1e-6)


def test_a_relevance_that_is_no_array():
    _, pull = jaxlrp.relprop(dense, X)
    with pytest.raises(TypeError, match="R_out: got 'all', expected an array"):
        pull("all")


# ---- the modules beside --------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize("site", [3, None, ["h"]])
def test_a_site_is_a_name(site):
    for make in (
        lambda: concepts.channel_relevance(dense, site=site),
        lambda: concepts.heatmaps(dense, site=site),
        lambda: concepts.attribution_graph(dense, upper=site, lower="h"),
        lambda: concepts.attribution_graph(dense, upper="h", lower=site),
    ):
        with pytest.raises(TypeError, match="(site|upper|lower): got .*, expected the"):
            make()


@pytest.mark.whole
@pytest.mark.parametrize("axis", [1.5, "0", None, True])
def test_an_axis_is_an_int(axis):
    for make in (
        lambda: concepts.channel_relevance(dense, site="h", axis=axis),
        lambda: concepts.heatmaps(dense, site="h", axis=axis),
        lambda: concepts.attribution_graph(
            dense, upper="h", lower="g", lower_axis=axis
        ),
        lambda: concepts.attribution_graph(
            dense, upper="h", lower="g", upper_axis=axis
        ),
    ):
        with pytest.raises(TypeError, match="axis: got .*, expected an axis, an int"):
            make()
    if axis is not None:
        with pytest.raises(TypeError, match="examples: got .*, expected an axis"):
            concepts.channel_relevance(dense, site="h", examples=axis)


def test_scores_of_nothing_are_not_maximised():
    with pytest.raises(TypeError, match="scores: got 3, expected a function"):
        concepts.maximise(3, [X])
    with pytest.raises(TypeError, match="batches: got 3, expected an iterable"):
        concepts.maximise(lambda x: x, 3)


ROOTS = [
    ((rules.Epsilon(), X, W), TypeError, "rule: got .*, expected one with a root"),
    ((None, X, W), TypeError, "rule: got None, expected one with a root"),
    ((rules.WSquare, X, W), TypeError, "rule: got .*, expected one with a root"),
    ((rules.WSquare(), "x", W), TypeError, "x: got 'x' .*expected an array"),
    ((rules.WSquare(), X * 1j, W), TypeError, "x: got .*expected an array of real"),
    ((rules.WSquare(), X, None), TypeError, "kernel: got None .*expected an array"),
    ((rules.WSquare(), X, W[0]), ValueError, r"kernel: got shape \(4,\), expected"),
    ((rules.WSquare(), X, W.T), ValueError, r"x: got shape \(2, 3\), expected"),
    ((rules.WSquare(), X[0, 0], W), ValueError, r"x: got shape \(\), expected"),
    ((rules.WSquare(), X, W, jnp.ones(3)), ValueError, r"bias: got shape \(3,\)"),
    ((rules.WSquare(), X, W, "b"), TypeError, "bias: got 'b' .*expected an array"),
    ((rules.ZBox(np.zeros(2), 1.0), X, W), ValueError, r"low: got shape \(2,\)"),
]


@pytest.mark.whole
@pytest.mark.parametrize(("given", "error", "message"), ROOTS)
def test_roots_of_what_is_no_layer(given, error, message):
    with pytest.raises(error, match=message):
        deep_taylor.root_points(*given)


def test_shares_of_roots_alone():
    with pytest.raises(TypeError, match="roots: got 3, expected what root_points ret"):
        deep_taylor.shares(3, X, W)
    roots = deep_taylor.root_points(rules.WSquare(), X, W)
    with pytest.raises(ValueError, match="roots: got points of shape"):
        deep_taylor.shares(roots, X[:1], W)
    # Data may hold anything: what has no root is infinite or NaN, as documented.
    unknown = deep_taylor.root_points(rules.WSquare(), np.full(3, np.nan), W)
    assert not unknown.inside.any()


@pytest.mark.whole
@pytest.mark.parametrize("window", [(4,), (3, 3), (9, 1)])
def test_a_window_larger_than_the_input(window):
    explain = attribution.occlusion(lambda x: x.sum(), window)
    with pytest.raises(ValueError, match=r"window: got .*, expected at most"):
        explain(X)
