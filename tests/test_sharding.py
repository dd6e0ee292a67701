"""Relevance on many devices: the collectives of the gradient, laid out as the input."""

import collections
import dataclasses
import functools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxlrp
from jaxlrp import composites, rules, targets

COLLECTIVES = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
COMPOSITES = {
    "Default": composites.Default(),
    "AttnLRP": composites.AttnLRP(),
    "LRP-0": composites.Uniform(rules.LRP0()),
    "Epsilon": composites.Uniform(rules.Epsilon(1e-6)),
    "EpsilonPlusFlat": composites.EpsilonPlusFlat(),
    "GeneralizedGamma": composites.Uniform(rules.GeneralizedGamma(0.25)),
    "TopK": composites.Uniform(rules.TopK(rules.Epsilon(), 0.25)),
}


# ---- ways to lay arrays out --------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Way:
    """How a model and its inputs lie on eight devices.

    Attributes:
      devices: of each axis of the mesh; `d` has the data, `m` the features.
      full: every parameter is spread over `d`, and gathered where it is used:
        "compiler" leaves it to XLA where, "hand" says it.
      kind: of the axes.
    """

    devices: tuple[tuple[str, int], ...]
    full: str = ""
    kind: AxisType = AxisType.Auto

    @property
    def explicit(self) -> bool:
        return self.kind == AxisType.Explicit

    @property
    def batch(self) -> str | None:
        return "d" if "d" in dict(self.devices) else None

    def mesh(self) -> Any:
        names, sizes = zip(*self.devices, strict=True)
        return jax.make_mesh(sizes, names, axis_types=(self.kind,) * len(names))

    def spec(self, name: str, w: np.ndarray, tensor: dict[str, P]) -> P:
        """Of a parameter; fully sharded along the axis of most entries."""
        if self.full:
            axis = int(np.argmax(w.shape))
            return P(*["d" if i == axis else None for i in range(w.ndim)])
        return tensor[name] if "m" in dict(self.devices) else P()

    def used(self, w: Any) -> Any:
        """A parameter where it is used."""
        if self.explicit and self.full:
            return jax.sharding.reshard(w, P())
        return lax.with_sharding_constraint(w, P()) if self.full == "hand" else w

    def rows(self, x: Any) -> Any:
        """An activation that stays where its examples are."""
        if self.full and not self.explicit:
            return lax.with_sharding_constraint(x, P("d"))
        return x

    def summed(self, equation: str, x: Any, w: Any) -> Any:
        """A contraction over features that lie on many devices."""
        if not self.explicit:
            return jnp.einsum(equation, x, w)
        rank = len(equation.split("->")[1])
        spec = P(self.batch, *[None] * (rank - 1))
        return jnp.einsum(equation, x, w, out_sharding=spec)


ALONE = Way((("d", 1),))
AUTO = {
    "data": Way((("d", 8),)),
    "tensor": Way((("m", 8),)),
    "fully sharded": Way((("d", 8),), full="compiler"),
    "fully sharded, by hand": Way((("d", 8),), full="hand"),
    "data x tensor": Way((("d", 2), ("m", 4))),
}
EXPLICIT = {
    name: dataclasses.replace(AUTO[name], kind=AxisType.Explicit)
    for name in ("data", "tensor", "fully sharded, by hand", "data x tensor")
}
WAYS = {
    **{f"auto, {name}": way for name, way in AUTO.items()},
    **{f"explicit, {name}": way for name, way in EXPLICIT.items()},
}


# ---- models ------------------------------------------------------------------------

rng = np.random.default_rng(0)
BATCH, TOKENS, WIDTH, HEADS, HIDDEN, CLASSES = 8, 4, 16, 8, 32, 24


def normal(*shape: int) -> np.ndarray:
    scale = math.prod(shape[:-1]) ** -0.5 if len(shape) > 1 else 1.0
    return (scale * rng.normal(size=shape)).astype(np.float32)


def norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)


def transformer(way: Way, p: Any, x: Any) -> Any:
    w = {name: way.used(v) for name, v in p.items()}
    h = norm(x)
    q, k, v = (jnp.einsum("btd,dhe->bthe", h, w[n]) for n in "qkv")
    a = jax.nn.softmax(jnp.einsum("bthe,bshe->bhts", q, k) / 2, -1)
    h = jnp.einsum("bhts,bshe->bthe", a, v)
    x = way.rows(x + way.summed("bthe,hed->btd", h, w["o"]))
    h = jax.nn.gelu(norm(x) @ w["up"] + w["b"])
    x = way.rows(x + way.summed("btf,fd->btd", h, w["down"]) + w["c"])
    return way.rows(way.rows(norm(x).mean(1)) @ w["head"])


def convolved(x, kernel):
    names = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)


def network(way: Way, p: Any, x: Any) -> Any:
    w = {name: way.used(v) for name, v in p.items()}
    x = way.rows(jax.nn.relu(convolved(x, w["k"]) + w["a"]))
    x = way.rows(jax.nn.relu(convolved(x, w["l"]) + w["b"]))
    x = lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = way.rows(x.reshape(len(x), -1))
    x = way.rows(jax.nn.relu(x @ w["dense"] + w["c"]))
    return way.rows(x @ w["head"])


@dataclasses.dataclass(frozen=True)
class Model:
    """A function, its arguments, and how features split over `m` (Megatron)."""

    apply: Callable[..., Any]
    params: Any
    x: np.ndarray
    tensor: dict[str, P]


MODELS = {
    "transformer": Model(
        transformer,
        {
            **{n: normal(WIDTH, HEADS, 4) for n in "qkv"},
            "o": normal(HEADS, 4, WIDTH),
            "up": normal(WIDTH, HIDDEN),
            "b": normal(HIDDEN),
            "down": normal(HIDDEN, WIDTH),
            "c": normal(WIDTH),
            "head": normal(WIDTH, CLASSES),
        },
        normal(BATCH, TOKENS, WIDTH) * 5,
        {
            **{n: P(None, "m") for n in ("q", "k", "v", "up")},
            **{n: P("m") for n in ("o", "b", "down")},
            **{n: P() for n in ("c", "head")},
        },
    ),
    "network": Model(
        network,
        {
            "k": normal(3, 3, 1, 8),
            "a": normal(8),
            "l": normal(3, 3, 8, 16),
            "b": normal(16),
            "dense": normal(4 * 4 * 16, HIDDEN),
            "c": normal(HIDDEN),
            "head": normal(HIDDEN, CLASSES),
        },
        normal(BATCH, 8, 8, 1) * 5,
        {
            "k": P(None, None, None, "m"),
            "a": P("m"),
            "l": P(None, None, "m"),
            "b": P(),
            "dense": P(None, "m"),
            "c": P("m"),
            "head": P("m"),
        },
    ),
}


# ---- what runs, and what travels ---------------------------------------------------


def gradient(apply: Callable[..., Any]) -> Callable[..., Any]:
    """All scores, and the gradient of each example's highest one."""

    def highest(p, x):
        scores = apply(p, x)
        return scores.max(-1).sum(), scores

    def both(p, x):
        (_, scores), slope = jax.value_and_grad(highest, 1, has_aux=True)(p, x)
        return scores, slope

    return both


def traffic(text: str) -> collections.Counter:
    """How many arrays of which size each kind of collective moves.

    Of arrays, since the compiler puts several of them into one collective.
    """
    moved: collections.Counter = collections.Counter()
    for result, kind in re.findall(rf"= (.*?) ({COLLECTIVES})(?:-start)?\(", text):
        for shape in re.findall(r"\w+\[([\d,]*)\]", result):
            moved[kind, math.prod(int(n) for n in shape.split(",") if n)] += 1
    return moved


def compiled(f: Callable[..., Any], *args: Any) -> Any:
    quick = {"xla_backend_optimization_level": 0}  # of the code for a device alone
    return jax.jit(f).lower(*args).compile(quick)


def placed(way: Way, model: Model, mesh: Any) -> tuple[Any, Any]:
    params = {
        n: jax.device_put(w, NamedSharding(mesh, way.spec(n, w, model.tensor)))
        for n, w in model.params.items()
    }
    return params, jax.device_put(model.x, NamedSharding(mesh, P(way.batch)))


@functools.cache
def explained(name: str, way: Way, composite: str) -> Any:
    """Traffic, scores, explanation and input; `composite` "" is the gradient."""
    model = MODELS[name]
    apply = functools.partial(model.apply, way)
    f = (
        jaxlrp.value_and_lrp(apply, COMPOSITES[composite])
        if composite
        else gradient(apply)
    )
    mesh = way.mesh()
    with jax.set_mesh(mesh):
        params, x = placed(way, model, mesh)
        program = compiled(f, params, x)
        scores, result = program(params, x)
    return traffic(program.as_text()), scores, result, x


def assert_as_alone(name: str, way: Way, composite: str) -> None:
    """The numbers of one device, and the relevance lies as the input does."""
    _, scores, relevance, x = explained(name, way, composite)
    _, scores_alone, alone, _ = explained(name, ALONE, composite)
    for found, expected in ((scores, scores_alone), (relevance, alone)):
        most = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * most)
    assert relevance.sharding.is_equivalent_to(x.sharding, x.ndim)


def more_than_gradient(name: str, way: Way, composite: str) -> dict[Any, int]:
    """What travels more often than the gradient needs; less often is negative."""
    difference = explained(name, way, composite)[0].copy()
    difference.subtract(explained(name, way, "")[0])
    return {move: count for move, count in difference.items() if count}


def split_over(way: Way) -> int:
    """How many devices have a part of the batch."""
    return dict(way.devices)["d"] if way.batch else 1


def applies(name: str, way: Way) -> bool:
    """JAX asks each convolution for its layout where axes of features are explicit."""
    return not (way.explicit and name == "network" and "m" in dict(way.devices))


# ---- the same collectives as the gradient ------------------------------------------


@pytest.mark.parametrize("way", AUTO.values(), ids=AUTO)
@pytest.mark.parametrize("name", MODELS)
def test_gradient_travels_as_the_way_says(name, way):
    found, params = explained(name, way, "")[0], MODELS[name].params
    if way.full == "hand":
        once = [("all-gather", w.size) for w in params.values()]
        assert found == collections.Counter(once)
    kinds = {kind for kind, _ in found}
    expected = "all-gather" if way.full else "all-reduce"
    assert kinds == ({expected} if way.full or "m" in dict(way.devices) else set())


ONE_PASS = [
    *[("transformer", w, "AttnLRP") for w in WAYS],
    *[("network", f"auto, {w}", c) for w in AUTO for c in ("LRP-0", "Epsilon")],
]


@pytest.mark.parametrize(("name", "way", "composite"), ONE_PASS)
def test_one_reverse_pass_moves_what_the_gradient_moves(name, way, composite):
    assert more_than_gradient(name, WAYS[way], composite) == {}
    assert_as_alone(name, WAYS[way], composite)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_relative_epsilon_moves_one_number_for_each_position_of_split_features(
    name, way
):
    """The mean of a layer's squares, where devices have a part of its features each."""
    way = WAYS[way]
    if not applies(name, way):
        way = WAYS["explicit, data"]
    rows = BATCH // split_over(way)
    expected: dict[Any, int] = {}
    if "m" in dict(way.devices) and name == "transformer":  # q, k, v and up
        expected = {("all-reduce", rows * TOKENS): 4}
    elif "m" in dict(way.devices):  # the first convolution and the first dense layer
        expected = {("all-reduce", rows * 8 * 8): 1, ("all-reduce", rows): 1}
    assert more_than_gradient(name, way, "Default") == expected
    assert_as_alone(name, way, "Default")


@pytest.mark.parametrize("way", [w for w in WAYS if applies("network", WAYS[w])])
def test_rules_with_changed_weights_move_what_their_contractions_need(way):
    way = WAYS[way]
    found = more_than_gradient("network", way, "EpsilonPlusFlat")
    rows = BATCH // split_over(way)
    kernel, bias = (("all-gather", MODELS["network"].params[n].size) for n in "lb")
    first = ("all-gather", MODELS["network"].params["k"].size)
    expected: dict[Any, int] = {}
    if way.full == "compiler":  # gathers what z-plus makes of weights, and not the
        expected = {kernel: 1, bias: 1, first: -1}  # first ones for a way back
    elif "m" in dict(way.devices):  # z-plus sums the second convolution once more
        expected = {("all-reduce", rows * 8 * 8 * 16): 1}
    assert found == expected
    assert_as_alone("network", way, "EpsilonPlusFlat")


@pytest.mark.parametrize("name", MODELS)
def test_weights_gathered_by_hand_serve_all_contractions_of_a_rule(name):
    way = WAYS["auto, fully sharded, by hand"]
    assert more_than_gradient(name, way, "GeneralizedGamma") == {}
    assert_as_alone("network", way, "GeneralizedGamma")


# ---- what else can be asked --------------------------------------------------------

BOTH = ["auto, data x tensor", "explicit, data x tensor"]
CLASS_OF_EACH = np.arange(BATCH, dtype=np.int32) % CLASSES
TARGETS = {
    "max": "max",
    "all": "all",
    "class": 3,
    "classes": CLASS_OF_EACH,
    "contrastive": targets.Contrastive(CLASS_OF_EACH),
    "log-odds": targets.LogOdds(),
    "callable": jnp.square,
}


def assert_close(found: Any, expected: Any) -> None:
    most = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * most)


def asked(way: Way, question: Callable[[Way], Callable[..., Any]]) -> Any:
    """The answer about the transformer, its classes over the features' axis."""
    return asked_and_traffic(way, question)[0]


def asked_and_traffic(way: Way, question: Callable[[Way], Callable[..., Any]]) -> Any:
    """The answer, and what travels for it."""
    model = MODELS["transformer"]
    spread = dataclasses.replace(model, tensor=model.tensor | {"head": P(None, "m")})
    mesh = way.mesh()
    with jax.set_mesh(mesh):
        params, x = placed(way, spread, mesh)
        program = compiled(question(way), params, x)
        return program(params, x), traffic(program.as_text())


def lies(array: Any, *spec: Any) -> bool:
    expected = NamedSharding(array.sharding.mesh, P(*spec))
    return array.sharding.is_equivalent_to(expected, array.ndim)


@pytest.mark.parametrize("way", BOTH)
def test_targets_where_classes_lie_on_many_devices(way):
    def question(way):
        def all_targets(p, x):
            apply = functools.partial(transformer, way)
            return {n: jaxlrp.lrp(apply, target=t)(p, x) for n, t in TARGETS.items()}

        return all_targets

    found, alone = asked(WAYS[way], question), asked(ALONE, question)
    for name in TARGETS:
        assert_close(found[name], alone[name])
        assert lies(found[name], "d")


@pytest.mark.parametrize("way", BOTH)
def test_the_highest_of_spread_classes_is_found_without_gathering_all_scores(way):
    def relevance(target):
        def question(way):
            apply = functools.partial(transformer, way)
            return jaxlrp.value_and_lrp(apply, COMPOSITES["AttnLRP"], target=target)

        return asked_and_traffic(WAYS[way], question)[1]

    def slope(way):
        return gradient(functools.partial(transformer, way))

    least = asked_and_traffic(WAYS[way], slope)[1]
    # A gradient of a maximum asks all devices what it is, and how often it occurs.
    rows = BATCH // 2
    least.subtract({("all-reduce", rows): 2})
    least = +least
    assert relevance(3) == least
    # Of each of four devices its highest score, and where that is.
    assert relevance("max") == least + collections.Counter(
        {("all-gather", 4 * rows): 2}
    )


@pytest.mark.parametrize("way", BOTH)
def test_targets_that_are_mapped_over(way):
    def question(way):
        apply = functools.partial(transformer, way)
        one = lambda p, x, t: jaxlrp.lrp(apply, target=t)(p, x)  # noqa: E731
        return lambda p, x: jax.vmap(one, (None, None, 0))(p, x, jnp.arange(3))

    found = asked(WAYS[way], question)
    assert_close(found, asked(ALONE, question))
    assert lies(found, None, "d")


@pytest.mark.parametrize("way", BOTH)
def test_largest_relevances_of_features_on_many_devices(way):
    def question(way):
        return jaxlrp.lrp(functools.partial(transformer, way), COMPOSITES["TopK"])

    found = asked(WAYS[way], question)
    assert_close(found, asked(ALONE, question))
    assert lies(found, "d")


@pytest.mark.parametrize("way", BOTH)
def test_parameters_have_relevance_where_they_lie(way):
    def question(way):
        explain = jaxlrp.parameter_relevance(functools.partial(transformer, way))
        return lambda p, x: explain(p, x)

    found, alone = asked(WAYS[way], question), asked(ALONE, question)
    for name in MODELS["transformer"].params:
        assert_close(found[name], alone[name])
    assert lies(found["up"], None, "m") and lies(found["down"], "m")


def deep(way: Way, p: Any, x: Any) -> Any:
    """The same feed-forward block three times, by a scan over stacked parameters."""

    def block(x, w):
        hidden = jax.nn.gelu(norm(x) @ w["up"] + w["b"])
        hidden = checkpoint_name(hidden, "hidden")
        return x + way.summed("btf,fd->btd", hidden, w["down"]), None

    stacked = {n: jnp.stack([p[n]] * 3) for n in ("up", "b", "down")}
    return lax.scan(block, x, stacked)[0].mean(1)


@pytest.mark.parametrize("way", BOTH)
def test_captured_relevance_lies_like_its_value_also_in_a_loop(way):
    def question(way):
        return jaxlrp.lrp(functools.partial(deep, way), capture="hidden")

    found, alone = asked(WAYS[way], question), asked(ALONE, question)
    assert_close(found[0], alone[0])
    assert_close(found[1]["hidden"], alone[1]["hidden"])
    assert found[1]["hidden"].shape == (3, BATCH, TOKENS, HIDDEN)
    assert lies(found[0], "d")
    assert lies(found[1]["hidden"], None, "d", None, "m")
