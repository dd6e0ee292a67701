"""The relevance, value and gradient of intermediate values, and conditions on them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp._reading.sites import find_sites, select
from jaxlrp._rewriting.backward import seed
from jaxlrp._rewriting.capture import relevances, values_and_gradients
from jaxlrp._trace import trace

EPSILON = composites.Uniform(rules.Epsilon(0.1))
RNG = np.random.default_rng(0)
W1 = jnp.asarray(RNG.normal(size=(4, 6)), jnp.float32)
W2 = jnp.asarray(RNG.normal(size=(6, 6)) / 2, jnp.float32)
W3 = jnp.asarray(RNG.normal(size=(6, 3)), jnp.float32)
B = jnp.asarray(RNG.normal(size=6), jnp.float32)
X = jnp.asarray(RNG.normal(size=(5, 4)), jnp.float32)


def assert_close(value, wanted):
    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


def lower(x):
    return jax.nn.relu(x @ W1 + B)


def upper(h):
    return jnp.tanh(h @ W2) @ W3


def tagged(x):
    return upper(checkpoint_name(lower(x), "hidden"))


def explain(f, composite=EPSILON, x=X, **options):
    return jax.jit(jaxlrp.lrp(f, composite, **options))(x)


# ---- capture -----------------------------------------------------------------------


@pytest.mark.parametrize("target", ["max", 1, lambda y: jnp.abs(y) + 1])
@pytest.mark.parametrize(
    "composite",
    [EPSILON, composites.Uniform(rules.LRP0()), composites.Uniform(rules.Flat())],
)
def test_relevance_of_a_tag_is_that_of_the_rest_as_a_function(composite, target):
    relevance, captured = explain(tagged, composite, target=target, capture="hidden")
    assert_close(captured["hidden"], explain(upper, composite, lower(X), target=target))
    assert_close(relevance, explain(tagged, composite, target=target))


def test_value_and_aux_keep_their_places():
    def f(x):
        return tagged(x), "aux"

    options = {"capture": ["hidden"], "has_aux": True}
    (value, aux), (relevance, captured) = jaxlrp.value_and_lrp(f, **options)(X)
    (again, same), also = jaxlrp.lrp(f, **options)(X)
    assert aux == also == "aux"
    assert_close(value, tagged(X))
    assert_close(relevance, again)
    assert_close(captured["hidden"], same["hidden"])


def test_several_names_and_globs():
    def f(x):
        with jax.named_scope("net"):
            h = checkpoint_name(x @ W1, "first")
            h = checkpoint_name(jnp.tanh(h) @ W2, "second")
        return h @ W3

    for capture in (["net/first", "net/second"], "net/*", ["first", "second"]):
        captured = explain(f, capture=capture)[1]
        assert set(captured) == {"net/first", "net/second"}
    assert_close(
        captured["net/first"], explain(lambda h: jnp.tanh(h) @ W2 @ W3, x=X @ W1)
    )


def test_a_scope_is_named_for_what_leaves_it():
    def f(x):
        with jax.named_scope("block"):
            with jax.named_scope("layer"):
                h = jax.nn.relu(x @ W1)
            a, b = jnp.tanh(h @ W2), jnp.cos(h)
        return (a @ W2 + b) @ W3

    captured = explain(f, capture="*")[1]
    assert set(captured) == {"block#0", "block#1", "block/layer"}
    h = jax.nn.relu(X @ W1)
    of_a = explain(lambda a: (a @ W2 + jnp.cos(h)) @ W3, x=jnp.tanh(h @ W2), target=0)
    asked = explain(f, capture="block", target=0)[1]
    assert_close(asked["block#0"], of_a)
    assert_close(
        explain(f, capture="block#1", target=0)[1]["block#1"], asked["block#1"]
    )


def test_equal_names_are_numbered_in_order():
    def f(x):
        for w in (W1, W2):
            x = checkpoint_name(jnp.tanh(x @ w), "h")
        return x @ W3

    captured = explain(f, capture="h")[1]
    assert list(captured) == ["h#0", "h#1"]
    assert captured["h#0"].shape == (5, 6)
    assert_close(
        captured["h#1"], explain(lambda h: h @ W3, x=jnp.tanh(jnp.tanh(X @ W1) @ W2))
    )


def attention(x, mask=None, rate=None):
    q, k, v = x @ W1, x @ W1[::-1], x @ W1[:, ::-1]
    with jax.named_scope("attend"):
        scores = q @ k.T / 2.0
        if mask is not None:
            scores = jnp.where(mask, scores, -jnp.inf)
        p = jax.nn.softmax(scores)
        if rate is not None:
            p = jnp.where(jnp.eye(5, dtype=bool), 0.0, p / (1 - rate))
        return p.astype(jnp.float32) @ v


@pytest.mark.parametrize("mask", [None, jnp.tri(5, dtype=bool)])
@pytest.mark.parametrize("rate", [None, 0.1])
def test_attention_maps_are_found_by_their_structure(mask, rate):
    x = X
    out, captured = explain(
        functools.partial(attention, mask=mask, rate=rate),
        target="all",
        capture="attention_map",
    )
    assert list(captured) == ["attend/attention_map"]
    # Half of each product goes to either factor, so the map gets half of the output.
    total = np.asarray(attention(x, mask, rate)).sum()
    assert_close(np.asarray(captured["attend/attention_map"]).sum(), total / 2)


def test_maps_of_written_out_softmaxes_are_found():
    def f(x):
        s = x @ x.T
        e = jnp.exp(s - s.max(-1, keepdims=True))
        return (e / e.sum(-1, keepdims=True)) @ x

    def of_logs(x):
        s = x @ x.T
        return jnp.exp(jax.nn.log_softmax(s)) @ x

    maps = [explain(g, capture="attention_map", target=0)[1] for g in (f, of_logs)]
    for captured in maps:
        assert_close(captured["attention_map"], maps[0]["attention_map"])
        assert captured["attention_map"].shape == (5, 5)


class Attending(linen.Module):
    """A layer, and attention with masks and dropout."""

    @linen.compact
    def __call__(self, x, mask):
        x = linen.relu(linen.Dense(8)(x))
        attend = linen.MultiHeadDotProductAttention(num_heads=2, dropout_rate=0.5)
        dropped = attend(x, mask=mask, deterministic=False)
        return linen.Dense(3)(x + dropped).sum(1)


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.TrainingWarning")
def test_values_of_a_linen_model_are_named_by_its_modules():
    model, mask = Attending(), jnp.tri(5, dtype=bool)
    x = jnp.asarray(RNG.normal(size=(2, 5, 4)), jnp.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    params = model.init(keys, x, mask)

    def f(x):
        return model.apply(params, x, mask, rngs=keys)

    names = "Attending/Dense_0", "attention_map", "MultiHeadDotProductAttention_0"
    captured = explain(f, x=x, capture=names)[1]
    block = "Attending/MultiHeadDotProductAttention_0"
    assert {name: r.shape for name, r in captured.items()} == {
        "Attending/Dense_0": (2, 5, 8),
        f"{block}/attention_map": (2, 2, 5, 5),
        block: (2, 5, 8),
    }
    future = np.asarray(captured[f"{block}/attention_map"])[..., ~np.asarray(mask)]
    np.testing.assert_array_equal(future, 0)


def test_values_in_loops_are_stacked_in_the_order_of_their_inputs():
    ws = jnp.stack([W2, W2 * 0.5, W2.T])

    def loop(x, reverse):
        def body(h, w):
            return jnp.tanh(checkpoint_name(h @ w, "pre")), None

        return jax.lax.scan(body, x @ W1, ws, reverse=reverse)[0] @ W3

    def unrolled(x, order):
        h = x @ W1
        for i in order:
            h = jnp.tanh(checkpoint_name(h @ ws[i], f"pre{i}"))
        return h @ W3

    for reverse, order in ((False, (0, 1, 2)), (True, (2, 1, 0))):
        captured = explain(functools.partial(loop, reverse=reverse), capture="pre")[1]
        wanted = explain(functools.partial(unrolled, order=order), capture="pre*")[1]
        assert captured["pre"].shape == (3, 5, 6)
        assert_close(captured["pre"], [wanted[f"pre{i}"] for i in range(3)])


@pytest.mark.always
def test_nested_loops_have_an_axis_each_and_branches_zeros():
    def f(x):
        def inner(h, flag):
            yes = lambda h: checkpoint_name(jnp.sin(h @ W2), "taken")  # noqa: E731
            return jax.lax.cond(flag, yes, jnp.tanh, h), None

        def outer(h, flags):
            return jax.checkpoint(lambda h: jax.lax.scan(inner, h, flags)[0])(h), None

        flags = jnp.array([[True, False, False], [False, True, True]])
        return jax.lax.scan(outer, x @ W1, flags)[0] @ W3

    captured = explain(f, capture="taken")[1]["taken"]
    assert captured.shape == (2, 3, 5, 6)
    is_zero = np.asarray(jnp.all(captured == 0, axis=(2, 3)))
    np.testing.assert_array_equal(is_zero, [[False, True, True], [True, False, False]])

    def straight(x):
        h = jnp.tanh(jnp.tanh(jnp.sin(x @ W1 @ W2)))
        h = checkpoint_name(jnp.sin(jnp.tanh(h) @ W2), "before")
        return checkpoint_name(jnp.sin(h @ W2), "last") @ W3

    wanted = explain(straight, capture=["before", "last"])[1]
    assert_close(captured[1, 1:], [wanted["before"], wanted["last"]])


def test_two_loops_over_one_body_are_told_apart():
    @jax.jit
    def block(h):
        def body(h, _):
            return checkpoint_name(jnp.tanh(h @ W2), "h"), None

        return jax.lax.scan(body, h, length=2)[0]

    def f(x):
        return block(block(x @ W1)) @ W3

    captured = explain(f, capture="h")[1]
    assert list(captured) == ["h#0", "h#1"]
    h = block(X @ W1)
    assert_close(
        captured["h#1"], explain(lambda h: block(h) @ W3, x=h, capture="h")[1]["h"]
    )


def test_calls_that_are_kept_elsewhere_are_looked_into():
    @jax.jit
    def block(h):
        for _ in range(6):
            h = jnp.tanh(h @ W2 + B)
        return checkpoint_name(h, "end")

    captured = explain(lambda x: block(block(x @ W1)) @ W3, capture="end")[1]
    assert list(captured) == ["end#0", "end#1"]
    end = block(block(X @ W1))
    assert_close(captured["end#1"], explain(lambda h: h @ W3, x=end))


def test_capture_under_vmap_and_grad():
    one = jaxlrp.lrp(tagged, EPSILON, capture="hidden", target=1)
    batch = one(X)[1]["hidden"]
    assert_close(jax.vmap(one)(X)[1]["hidden"], batch)

    def score(h):
        return jnp.sum(jaxlrp.lrp(upper, EPSILON, target=1)(h) ** 2)

    def through(x):
        return jnp.sum(one(x)[1]["hidden"] ** 2)

    _, pull = jax.vjp(lower, X)
    (wanted,) = pull(jax.grad(score)(lower(X)))
    assert_close(jax.grad(through)(X), wanted)


def test_low_precision_and_complex_values_can_be_captured():
    def f(x):
        h = checkpoint_name((x @ W1).astype(jnp.bfloat16), "low")
        z = checkpoint_name(h.astype(jnp.float32) @ (W2 + 1j * W2.T), "complex")
        return jnp.real(z)

    captured = explain(f, composites.Uniform(rules.LRP0()), capture="*")[1]
    assert captured["low"].dtype == jnp.bfloat16
    assert captured["complex"].dtype == jnp.float32
    peak = np.asarray(f(X)).max(-1)
    assert_close(captured["complex"].sum(-1), peak)
    np.testing.assert_allclose(
        captured["low"].astype(jnp.float32).sum(-1), peak, rtol=0.05, atol=0.05
    )


# ---- names that cannot be captured -------------------------------------------------


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"capture: got 'hiden'.*'hidden'"):
        explain(tagged, capture="hiden")
    with pytest.raises(ValueError, match=r"conditions: got 'hiden'.*'hidden'"):
        explain(tagged, conditions={"hiden": 1.0})
    with pytest.raises(ValueError, match="none has a name"):
        explain(upper, x=lower(X), capture="hidden")


def test_values_that_no_relevance_passes_are_refused_or_left_out():
    def f(x):
        fixed = checkpoint_name(jnp.ones(6) * 2, "h_fixed")
        stopped = checkpoint_name(jax.lax.stop_gradient(x @ W1), "h_stopped")
        return checkpoint_name(x @ W1, "h_live") * fixed @ W3 + stopped @ W3

    assert list(explain(f, capture="h_*")[1]) == ["h_live"]
    for name in ("h_fixed", "h_stopped", "h_[sf]*"):
        with pytest.raises(ValueError, match="no relevance passes it"):
            explain(f, capture=name)


def test_values_inside_units_are_refused_until_a_tag_divides_the_unit():
    def f(x, tag):
        with jax.named_scope("dense"):
            h = x @ W1
        return (checkpoint_name(h, "cut") if tag else h) + B

    with pytest.raises(ValueError, match="'dense' cannot be seen: it lies inside"):
        explain(functools.partial(f, tag=False), capture="dense")
    captured = explain(functools.partial(f, tag=True), capture=["dense", "cut"])[1]
    assert_close(captured["dense"], captured["cut"])


def test_a_tag_divides_activations_and_softmaxes():
    def f(x):
        h = x @ W1
        h = h * checkpoint_name(jax.nn.sigmoid(h), "gate")
        e = checkpoint_name(jnp.exp(h - h.max(-1, keepdims=True)), "exp")
        return e / e.sum(-1, keepdims=True) @ W3

    def rest(e):
        return e / e.sum(-1, keepdims=True) @ W3

    h = jax.nn.silu(X @ W1)
    e = jnp.exp(h - h.max(-1, keepdims=True))
    captured = explain(f, composites.Uniform(rules.LRP0()), capture=["gate", "exp"])[1]
    slope = jax.grad(lambda e: rest(e).max(-1).sum())(e)
    assert_close(captured["exp"], e * slope)
    # Half of the product goes to the gate.
    of_product = h * jax.grad(lambda h: (jax.nn.softmax(h) @ W3).max(-1).sum())(h)
    assert_close(captured["gate"], of_product / 2)


@pytest.mark.whole
@pytest.mark.parametrize(
    "options, message",
    [
        ({"capture": 3}, "capture: got 3"),
        ({"capture": [3]}, r"capture: got \[3\]"),
        ({"conditions": "hidden"}, "conditions: got 'hidden'"),
        ({"conditions": {"hidden": 1}}, r"conditions\['hidden'\]: got dtype int32"),
        ({"conditions": {"hidden": None}}, r"conditions\['hidden'\]: got None"),
        ({"conditions": {"hidden": "x"}}, r"conditions\['hidden'\]: got 'x'"),
    ],
)
def test_bad_questions_are_refused(options, message):
    with pytest.raises(TypeError, match=message):
        jaxlrp.lrp(tagged, **options)(X)


# ---- conditions --------------------------------------------------------------------

LINEAR_RULES = [
    composites.Uniform(rules.LRP0()),
    EPSILON,
    composites.Uniform(rules.Flat()),
]


@pytest.mark.parametrize("composite", LINEAR_RULES)
def test_conditions_on_channels_add_up(composite):
    masks = jnp.eye(6)

    def one(mask):
        return jaxlrp.lrp(tagged, composite, conditions={"hidden": mask})(X)

    parts = jax.jit(jax.vmap(one))(masks)
    assert_close(parts.sum(0), explain(tagged, composite))
    assert np.abs(np.asarray(parts)).sum() > 0


def test_a_condition_is_a_factor_of_the_captured_relevance():
    mask = jnp.array([True, False, True, False, False, True])
    plain = explain(tagged, capture="hidden")[1]["hidden"]
    relevance, masked = explain(tagged, capture="hidden", conditions={"hidden": mask})
    assert_close(masked["hidden"], plain * mask)
    # What is left is the explanation of the lower part, from that relevance on.
    _, pull = jaxlrp.relprop(lower, X, composite=EPSILON)
    assert_close(relevance, pull(plain * mask))


def stack(x, wrap=lambda body: body):
    def body(h, w):
        return checkpoint_name(jnp.tanh(h @ w), "hidden"), None

    def step(h, w):
        return wrap(functools.partial(body, w=w))(h)

    return jax.lax.scan(step, x @ W1, jnp.stack([W2, W2.T]))[0] @ W3


@pytest.mark.parametrize(
    "f",
    [tagged, stack, functools.partial(stack, wrap=jax.checkpoint)],
    ids=["plain", "loop", "remat"],
)
def test_the_forward_pass_is_not_repeated_for_each_mask(f):
    def one(mask):
        return jaxlrp.lrp(f, EPSILON, conditions={"hidden": mask})(X)

    jaxpr = str(jax.make_jaxpr(jax.vmap(one))(jnp.eye(6)))
    lines = jaxpr.splitlines()
    tanh = [v for v in lines if "= tanh" in v and "f32[]" not in v]  # of arrays
    assert tanh and all("f32[5,6]" in line for line in tanh)
    # Nor is the reverse pass above the site, and below there is one product a layer.
    products = [line for line in jaxpr.splitlines() if "= dot_general" in line]
    batched = [line for line in products if "f32[6,5" in line]
    below = {tagged: 1}.get(f, 2)
    assert len(batched) == below < len(products)


def test_conditions_in_loops_are_shared_or_one_for_each_iteration():
    def f(x):
        def body(h, w):
            return checkpoint_name(jnp.tanh(h @ w), "h"), None

        return jax.lax.scan(body, x @ W1, jnp.stack([W2, W2.T]))[0] @ W3

    def unrolled(x):
        h = checkpoint_name(jnp.tanh(x @ W1 @ W2), "h0")
        return checkpoint_name(jnp.tanh(h @ W2.T), "h1") @ W3

    one, two = jnp.asarray(RNG.random((2, 6)), jnp.float32)
    wanted = explain(unrolled, conditions={"h0": one, "h1": one})
    assert_close(explain(f, conditions={"h": one}), wanted)
    wanted = explain(unrolled, conditions={"h0": one, "h1": two})
    each = jnp.stack([one, two])[:, None]
    assert_close(explain(f, conditions={"h": each}), wanted)
    shape = r"\(2, 1, 4\).*\(5, 6\), or \(2, 5, 6\) for each iteration"
    with pytest.raises(ValueError, match=shape):
        explain(f, conditions={"h": jnp.ones((2, 1, 4))})


def test_a_mask_of_the_wrong_shape_is_refused():
    message = r"conditions\['hidden'\]: got shape \(7,\).*'hidden', \(5, 6\)"
    with pytest.raises(ValueError, match=message):
        explain(tagged, conditions={"hidden": jnp.ones(7)})


# ---- values and their own gradients ------------------------------------------------


def looped(x, middle=lambda h: h):
    def body(h, w):
        return jnp.tanh(middle(h @ w)), None

    return jax.lax.scan(body, jax.nn.gelu(x @ W1), jnp.stack([W2, W2.T]))[0] @ W3


def question(f, pattern):
    traced = trace(f, (X,), {}, EPSILON, -1, False, keep_calls=False)
    sites = select(find_sites(traced.reading), pattern, "capture")
    return traced, sites


def test_values_and_gradients_are_the_networks_own():
    traced, sites = question(tagged, "hidden")
    ones = lambda outs: [jnp.ones_like(y) for y in outs]  # noqa: E731
    values, gradients = values_and_gradients(traced, sites, ones)
    assert_close(values["hidden"], lower(X))
    assert_close(gradients["hidden"], jax.grad(lambda h: upper(h).sum())(lower(X)))


@pytest.mark.always
def test_values_and_gradients_in_a_loop():
    f = functools.partial(looped, middle=lambda h: checkpoint_name(h, "pre"))
    traced, sites = question(f, "pre")
    multiplier = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
    values, gradients = values_and_gradients(traced, sites, [multiplier])

    def moved(by):
        h = jax.nn.gelu(X @ W1)
        for w, d in zip((W2, W2.T), by, strict=True):
            h = jnp.tanh(h @ w + d)
        return jnp.sum(multiplier * (h @ W3))

    assert_close(gradients["pre"], jax.grad(moved)(jnp.zeros((2, 5, 6))))
    first = jax.nn.gelu(X @ W1) @ W2
    assert_close(values["pre"], [first, jnp.tanh(first) @ W2.T])


def test_gradients_pass_what_relevance_is_detached_from():
    def norm(h):
        return (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True)

    traced, sites = question(lambda x: norm(checkpoint_name(x @ W1, "h")) @ W3, "h")
    first = jnp.zeros((5, 3)).at[:, 0].set(1.0)
    _, gradients = values_and_gradients(traced, sites, [first])
    wanted = jax.grad(lambda h: jnp.sum((norm(h) @ W3)[:, 0]))(X @ W1)
    assert_close(gradients["h"], wanted)


def test_relevances_at_sites_are_those_that_are_captured():
    traced, sites = question(tagged, "hidden")
    start = functools.partial(seed, "max", traced.out_tree)
    leaves, captured = relevances(traced, EPSILON, sites, start)
    wanted = explain(tagged, capture="hidden")
    assert_close(leaves[0], wanted[0])
    assert_close(captured["hidden"], wanted[1]["hidden"])


def test_a_constant_behind_the_softmax_leaves_the_map_one():
    def f(x):
        return (jax.nn.softmax(x @ x.T) + jnp.eye(5) * 0.1) @ x

    assert list(explain(f, capture="attention_map", target="all")[1]) == [
        "attention_map"
    ]
