"""Layers go by the paths of their parameters: these paths, and globs for them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import _names, composites, concepts, rules

X = jnp.array([[1.0, 2.0], [0.5, 1.5]])
EYE = jnp.eye(2)
PARAMS = {
    "conv1": {"kernel": EYE + 0.1, "bias": jnp.ones(2)},
    "layers": [{"w": EYE + 0.2}, {"w": EYE + 0.3}],
    "head/~/out": {"w": EYE + 0.4},
}


def net(params, x):
    x = x @ params["conv1"]["kernel"] + params["conv1"]["bias"]
    for layer in params["layers"]:
        x = jnp.tanh(x @ layer["w"])
    return x @ params["head/~/out"]["w"]


def parameters(f, *args, **options):
    rows = jaxlrp.plan(f, **options)(*args).rows
    return [row.parameter for row in rows if row.role == "dense"]


def flat_layers(f, pattern, *args):
    """The parameters of those layers that a line for a pattern gives its rule."""
    composite = composites.AttnLRP().on("layer", rules.Flat(), scope=pattern)
    rows = jaxlrp.plan(f, composite)(*args).rows
    return [row.parameter for row in rows if row.rule.startswith("Flat")]


# ---- what a glob matches -----------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("conv1", "conv1.kernel"),
        ("conv1.kernel", "conv1.kernel"),
        ("conv1*", "conv10.kernel"),
        ("*.kernel", "conv1.kernel"),
        ("layers[3]", "layers[3].attention.query"),
        ("layers[3].attention.query", "layers[3].attention.query"),
        ("layers.3", "layers[3].w"),
        ("layers.[0-3]", "layers[3].w"),
        ("layers[*].w", "layers[12].w"),
        ("layers[:]", "layers[:]"),
        ("['params']['Dense_0']", "params.Dense_0.kernel"),
        ('["params"]["Dense_0"].kernel', "params.Dense_0.kernel"),
        ("mlp/~/linear_0", "mlp/~/linear_0.w"),
        ("['mlp/~/linear_0']['w']", "mlp/~/linear_0.w"),
        ("*", "anything[0]"),
    ],
)
def test_a_pattern_matches_a_path_or_its_beginning(pattern, name):
    assert _names.fits(pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("conv1", "conv10.kernel"),
        ("conv1", "block.conv1.kernel"),
        ("kernel", "conv1.kernel"),
        ("layers[1]", "layers[12].w"),
        ("layers[13]", "layers[3].w"),
        ("conv", "conv1.kernel"),
    ],
)
def test_a_pattern_does_not_match_a_part_of_a_name(pattern, name):
    assert not _names.fits(pattern, name)


# ---- names -------------------------------------------------------------------------


def test_layers_are_called_as_the_paths_of_their_kernels():
    names = ["conv1.kernel", "layers[0].w", "layers[1].w", "head/~/out.w"]
    assert parameters(net, PARAMS, X) == names


def test_an_argument_that_is_the_array_goes_by_its_own_name():
    assert parameters(lambda w, x: x @ w, EYE, X) == ["w"]
    by_keyword = lambda x, *, w: x @ w  # noqa: E731
    rows = jaxlrp.plan(by_keyword)(X, w=EYE).rows
    assert [row.parameter for row in rows] == ["w"]


def test_equal_paths_of_two_arguments_begin_with_the_arguments_names():
    def f(encoder, decoder, x):
        return x @ encoder["w"] @ decoder["w"]

    args = {"w": EYE}, {"w": EYE}, X
    assert parameters(f, *args) == ["encoder.w", "decoder.w"]
    assert flat_layers(f, "decoder", *args) == ["decoder.w"]
    assert flat_layers(f, "w", *args) == ["encoder.w", "decoder.w"]


def test_the_arguments_name_may_come_first():
    assert flat_layers(net, "params.conv1", PARAMS, X) == ["conv1.kernel"]


def test_arguments_without_names_are_counted():
    assert parameters(lambda *args: args[1] @ args[0], EYE, X) == ["[0]"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Linear:
    weight: jax.Array
    bias: jax.Array

    def __call__(self, x):
        return x @ self.weight.T + self.bias


def test_a_model_that_is_a_pytree_of_objects():
    model = {"body": [Linear(EYE, jnp.ones(2))], "head": Linear(EYE, jnp.ones(2))}
    f = lambda model, x: model["head"](jnp.tanh(model["body"][0](x)))  # noqa: E731
    assert parameters(f, model, X) == ["body[0].weight", "head.weight"]


class Net(nnx.Module):
    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv1 = nnx.Linear(2, 2, rngs=rngs)
        self.norm = nnx.LayerNorm(2, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs) for _ in range(2)])

    def __call__(self, x):
        x = self.norm(self.conv1(x))
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return x


NNX_NAMES = ["conv1.kernel", "layers[0].kernel", "layers[1].kernel"]


def test_layers_of_nnx_by_the_state_and_by_the_model():
    graph, state = nnx.split(Net())
    merged = lambda state, x: nnx.merge(graph, state)(x)  # noqa: E731
    assert parameters(merged, state, X) == NNX_NAMES
    assert flat_layers(merged, "layers[1]", state, X) == NNX_NAMES[2:]
    assert flat_layers(lambda model, x: model(x), "conv1", Net(), X) == NNX_NAMES[:1]


# ---- what weights are made of ------------------------------------------------------


def quantised(p, x):
    return x @ (p["q"].astype(jnp.float32) * p["scale"])


def low_rank(p, x):
    return x @ (p["w"] + p["a"] @ p["b"])


def normed(p, x):
    return x @ (p["g"] * p["v"] / jnp.sqrt((p["v"] ** 2).sum(0)))


WAYS = {
    "transposed": (lambda p, x: x @ p["w"].T, {"w": EYE}, ["w"]),
    "cast": (lambda p, x: x @ p["w"].astype(jnp.float32), {"w": EYE.astype(int)}, "w"),
    "cut": (lambda p, x: x @ p["w"][:, 1:3], {"w": jnp.ones((2, 4))}, ["w"]),
    "in a jit": (lambda p, x: jax.jit(lambda w, x: x @ w)(p["w"], x), {"w": EYE}, "w"),
    "checkpoint": (
        lambda p, x: jax.checkpoint(lambda w, x: x @ w)(p["w"], x),
        {"w": EYE},
        "w",
    ),
    "branch": (
        lambda p, x: lax.cond(True, lambda w, x: x @ w, lambda w, x: x, p["w"], x),
        {"w": EYE},
        "w",
    ),
    "quantised": (quantised, {"q": EYE.astype(jnp.int8), "scale": jnp.ones(2)}, "q"),
    "low rank": (low_rank, {"w": EYE, "a": EYE[:, :1], "b": EYE[:1]}, ["w", "a", "b"]),
    "weight norm": (normed, {"g": jnp.ones(2), "v": EYE}, ["g", "v"]),
    "one of a stack": (
        lambda p, x: x @ p["w"][1] @ p["w"][0].T,
        {"w": jnp.stack([EYE] * 3)},
        ["w[1]", "w[0]"],
    ),
    "unstacked": (
        lambda p, x: [x := x @ w for w in p["w"]][-1],
        {"w": jnp.stack([EYE] * 2)},
        ["w[0]", "w[1]"],
    ),
    "a stack in a scan": (
        lambda p, x: lax.scan(lambda h, w: (h @ w, None), x, p["w"])[0],
        {"w": jnp.stack([EYE] * 3)},
        "w[:]",
    ),
    "a computed index": (
        lambda p, x: lax.fori_loop(0, 3, lambda i, h: h @ p["w"][i], x),
        {"w": jnp.stack([EYE] * 3)},
        "w[*]",
    ),
    "stacked by the program": (
        lambda p, x: lax.scan(lambda h, w: (h @ w, None), x, jnp.stack(p["w"]))[0],
        {"w": [EYE, EYE]},
        ["w[0]", "w[1]"],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_layer_goes_by_the_leaves_that_its_kernel_is_made_of(way):
    f, params, names = WAYS[way]
    for name in [names] if isinstance(names, str) else names:
        assert flat_layers(f, name, params, X)
    kernels = flat_layers(f, "*", params, X)
    assert kernels and set(kernels) <= {*names, names if isinstance(names, str) else ""}


def test_what_a_condition_is_made_of_names_nothing():
    def f(p, x):
        return x @ jnp.where(p["limit"] > 0, p["w"], 0.0)

    names = parameters(f, {"limit": jnp.ones(()), "w": EYE}, X)
    assert names == ["w"]
    with pytest.raises(ValueError, match="'limit' of composite"):
        flat_layers(f, "limit", {"limit": jnp.ones(()), "w": EYE}, X)


def test_a_constant_of_very_many_leaves_has_no_name():
    ws = {f"w{i}": EYE for i in range(17)}
    assert parameters(lambda ws, x: x @ sum(ws.values()), ws, X) == [""]
    del ws["w0"]
    assert parameters(lambda ws, x: x @ sum(ws.values()), ws, X) == ["w1"]


# ---- rules by name -----------------------------------------------------------------


def test_a_rule_for_one_layer_by_path_is_that_by_scope():
    w = {"a": EYE + 0.1, "b": EYE + 0.2}

    def scoped(x):
        for name, kernel in w.items():
            with jax.named_scope(name):
                x = jnp.tanh(x @ kernel)
        return x

    def pure(w, x):
        return jnp.tanh(jnp.tanh(x @ w["a"]) @ w["b"])

    composite = composites.AttnLRP().on("layer", rules.Flat(), scope="b")
    by_path = jaxlrp.lrp(pure, composite)(w, X)
    np.testing.assert_array_equal(by_path, jaxlrp.lrp(scoped, composite)(X))
    plain = jaxlrp.lrp(pure, composites.AttnLRP())(w, X)
    assert not np.allclose(by_path, plain)


def test_a_scope_and_a_path_both_match():
    def f(p, x):
        with jax.named_scope("first"):
            return jnp.tanh(x @ p["w"])

    assert flat_layers(f, "first", {"w": EYE}, X) == ["w"]
    assert flat_layers(f, "w", {"w": EYE}, X) == ["w"]


def test_equal_blocks_that_are_jitted_are_told_apart_by_path():
    @jax.jit
    def block(w, x):
        for _ in range(5):
            x = jnp.tanh(x @ w["w"] + w["b"])
        return x

    params = [{"w": EYE, "b": jnp.ones(2)}, {"w": EYE, "b": jnp.ones(2)}]
    f = lambda params, x: block(params[1], block(params[0], x))  # noqa: E731
    assert flat_layers(f, "[1]", params, X) == ["params[1].w"] * 5


def test_a_batch_norm_goes_by_any_of_its_parameters():
    def f(p, x):
        return ((x @ p["w"] - p["bn"]["mean"]) * p["bn"]["scale"]) + p["bn"]["bias"]

    bn = {"mean": jnp.ones(2), "scale": 2 * jnp.ones(2), "bias": jnp.ones(2)}
    args = {"w": EYE, "bn": bn}, X
    for name in ("bn", "bn.mean", "bn.scale", "bn.bias"):
        composite = composites.AttnLRP().on("batch_norm", rules.Pass(), scope=name)
        rows = jaxlrp.plan(f, composite)(*args).rows
        assert [row.role for row in rows] == ["dense", "batch_norm"]
        assert rows[0].parameter == "w"


def test_what_is_computed_with_a_parameter_can_be_held():
    def f(p, x):
        return jax.nn.sigmoid(x @ p["router"]).sum(-1, keepdims=True) * (x @ p["w"])

    params = {"router": EYE, "w": EYE}
    held = composites.AttnLRP().hold("router")
    gate = jax.nn.sigmoid(X @ EYE).sum(-1, keepdims=True)
    found = jaxlrp.lrp(f, held, target="all")(params, X)
    np.testing.assert_allclose(found, gate * X, rtol=1e-5)


def test_names_change_no_relevance():
    asked = composites.AttnLRP().on("layer", rules.LRP0(), scope="layers[0]")
    found = jaxlrp.lrp(net, asked)(PARAMS, X)
    np.testing.assert_array_equal(
        found, jaxlrp.lrp(net, composites.AttnLRP())(PARAMS, X)
    )


# ---- values by name ----------------------------------------------------------------


def test_what_a_layer_gives_is_captured_by_its_path():
    _, captured = jaxlrp.lrp(net, capture=["conv1", "layers[1].w"])(PARAMS, X)
    assert list(captured) == ["conv1.kernel", "layers[1].w"]

    def tagged(params, x):
        first = x @ params["conv1"]["kernel"] + params["conv1"]["bias"]
        with jax.named_scope("first"):
            first = first * 1.0
        for layer in params["layers"]:
            first = jnp.tanh(first @ layer["w"])
        return first @ params["head/~/out"]["w"]

    _, by_scope = jaxlrp.lrp(tagged, capture="first")(PARAMS, X)
    np.testing.assert_allclose(captured["conv1.kernel"], by_scope["first"], rtol=1e-5)


def test_a_value_that_has_a_name_keeps_it_and_goes_by_the_path_as_well():
    def f(p, x):
        with jax.named_scope("first"):
            h = x @ p["w"]
        return jnp.tanh(h) @ p["v"]

    args = {"w": EYE, "v": EYE}, X
    assert list(concepts.sites(f)(*args)) == ["first", "v"]
    assert list(jaxlrp.lrp(f, capture="first")(*args)[1]) == ["first"]
    assert list(jaxlrp.lrp(f, capture="w")(*args)[1]) == ["w"]


def test_weights_that_are_used_twice_give_values_with_numbers():
    def f(p, x):
        with jax.named_scope("net"):
            return jnp.tanh(jnp.tanh(x @ p["w"]) @ p["w"])

    _, captured = jaxlrp.lrp(f, capture="w")({"w": EYE}, X)
    assert list(captured) == ["w#0", "w#1"]


def test_a_path_names_the_value_of_the_innermost_scope():
    def f(p, x):
        with jax.named_scope("net"), jax.named_scope("layer"):
            return x @ p["w"]

    assert list(concepts.sites(f)({"w": EYE}, X)) == ["net", "net/layer"]
    assert list(jaxlrp.lrp(f, capture="w")({"w": EYE}, X)[1]) == ["w"]


def test_a_tag_comes_before_a_path():
    def f(p, x):
        tagged = checkpoint_name(jnp.tanh(x @ p["h"]["w"]), "h")
        return tagged @ p["out"]

    args = {"h": {"w": EYE}, "out": EYE}, X
    assert list(jaxlrp.lrp(f, capture="h")(*args)[1]) == ["h"]
    assert list(jaxlrp.lrp(f, capture="h.w")(*args)[1]) == ["h.w"]


def test_a_condition_by_path():
    mask = jnp.array([1.0, 0.0])
    conditions = {"layers[1]": mask}
    part = jaxlrp.lrp(net, target="all", conditions=conditions)(PARAMS, X)
    rest = jaxlrp.lrp(net, target="all", conditions={"layers[1]": 1 - mask})(PARAMS, X)
    whole = jaxlrp.lrp(net, target="all")(PARAMS, X)
    np.testing.assert_allclose(part + rest, whole, rtol=1e-5)
    assert not np.allclose(part, whole)


def stacked(p, x):
    return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, p["layers"]["w"])[0]


STACK = {"layers": {"w": jnp.stack([EYE + 0.1, EYE + 0.2, EYE + 0.3])}}


def test_one_layer_of_a_scan_is_captured_by_its_number():
    _, every = jaxlrp.lrp(stacked, capture="layers")(STACK, X)
    assert every["layers.w[:]"].shape == (3, 2, 2)
    _, one = jaxlrp.lrp(stacked, capture="layers.w[1]")(STACK, X)
    assert list(one) == ["layers.w[1]"]
    np.testing.assert_array_equal(one["layers.w[1]"], every["layers.w[:]"][1])


def test_a_condition_on_one_layer_of_a_scan():
    mask = jnp.array([1.0, 0.0])
    ones = jnp.ones((3, 1, 2)).at[1].set(mask)
    one = jaxlrp.lrp(stacked, conditions={"layers.w[1]": mask})(STACK, X)
    every = jaxlrp.lrp(stacked, conditions={"layers": ones})(STACK, X)
    np.testing.assert_array_equal(one, every)


def test_grad_cam_and_concepts_by_path():
    cam = jaxlrp.attribution.grad_cam(net, "layers[0]", target="all")(PARAMS, X)
    assert cam.shape == (2,)
    channels = concepts.channel_relevance(net, site="conv1")(PARAMS, X)
    assert channels.shape == (2, 2)


# ---- reports -----------------------------------------------------------------------


def test_a_plan_shows_paths_only_where_there_are_any():
    shown = str(jaxlrp.plan(net)(PARAMS, X))
    assert "layer" in shown.splitlines()[1].split() and "head/~/out.w" in shown
    without = str(jaxlrp.plan(lambda x: jnp.tanh(x @ EYE))(X))
    assert "layer" not in without.splitlines()[1].split()


def test_an_audit_is_by_layer_where_there_are_no_scopes():
    audit = jaxlrp.audit(net, composites.Uniform(rules.Epsilon()))(PARAMS, X)
    assert audit.by_scope()["conv1.kernel"]["bias"] != 0
    assert "conv1.kernel" in str(audit)


# ---- names of nothing --------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("covn1", r"0 scopes and the 4 parameter paths of f; the nearest: 'conv1"),
        ("layers[7]", r"nearest: 'layers\[[01]\].w'"),
        ("conv1.bias", r"'conv1.bias' is part of the layer 'conv1.kernel'"),
    ],
)
def test_the_error_lists_the_nearest(pattern, message):
    with pytest.raises(ValueError, match=message):
        flat_layers(net, pattern, PARAMS, X)


def test_the_error_lists_both_kinds():
    def f(p, x):
        with jax.named_scope("conv_1"):
            return jnp.tanh(x) @ p["conv1"]

    with pytest.raises(ValueError, match=r"nearest: 'conv1', 'conv_1'"):
        flat_layers(f, "conv2", {"conv1": EYE}, X)


def test_the_error_says_that_constants_have_no_name():
    closed = lambda x: net(PARAMS, x)  # noqa: E731
    with pytest.raises(ValueError, match="weights that f closes over are constants"):
        flat_layers(closed, "conv1", X)
    with pytest.raises(ValueError, match="weights that f closes over are constants"):
        jaxlrp.lrp(closed, capture="conv1")(X)


def test_the_error_says_that_a_scan_has_one_rule():
    with pytest.raises(ValueError, match=r"have one rule, that of 'layers.w\[:\]'"):
        flat_layers(stacked, "layers.w[1]", STACK, X)


def test_a_value_that_no_name_fits():
    with pytest.raises(ValueError, match=r"got 'convv1', .* nearest of .*conv1.kernel"):
        jaxlrp.lrp(net, capture="convv1")(PARAMS, X)
