"""Eager calls that come again: the same bits sooner, and never what was true before."""

import concurrent.futures
import contextlib
import dataclasses
import gc
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, mlir

import jaxlrp
from jaxlrp import _lrp, _replay, _trace, composites, primitives, rules, targets
from jaxlrp._rewriting import evaluate
from jaxlrp.errors import BoundsWarning, RelevanceWarning
from jaxlrp.primitives import Entry, Kind

RNG = np.random.default_rng(0)
W = jnp.asarray(RNG.standard_normal((4, 4)), jnp.float32)
V = jnp.asarray(RNG.standard_normal((4, 4)), jnp.float32)
X = jnp.asarray(RNG.standard_normal((3, 4)), jnp.float32)
Y = jnp.asarray(RNG.standard_normal((3, 4)), jnp.float32)


def network(w, x):
    return jax.nn.relu(x @ w) @ V


def attention(w, x):
    q, k, v = x @ w, x @ V, x
    return jax.nn.softmax(q @ k.T / 2) @ v


def looped(w, x):
    return lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, length=3)[0]


def branched(w, x):
    return lax.cond(x[0, 0] > 0, lambda x: x @ w, lambda x: x @ V, x)


def repeated(w, x):
    @jax.jit
    def block(x, w):
        for _ in range(4):
            x = x + jnp.tanh(x @ w) * jax.nn.sigmoid(x)
        return x

    return block(block(x, w), w)


NETWORKS = [network, attention, looped, branched, repeated]


class Readings:
    """How often something was read, and evaluated by its rules."""

    def __init__(self, monkeypatch):
        self.read = self.seeded = 0
        read, seed = _trace.read, _lrp.seed

        def counted_read(*args, **kwargs):
            self.read += 1
            return read(*args, **kwargs)

        def counted_seed(*args, **kwargs):
            self.seeded += 1
            return seed(*args, **kwargs)

        monkeypatch.setattr(_trace, "read", counted_read)
        monkeypatch.setattr(_lrp, "seed", counted_seed)


@pytest.fixture
def counted(monkeypatch):
    return Readings(monkeypatch)


def same_bits(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array) and a.aval == b.aval
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def anew(f, *args, **options):
    """The same without any memory."""
    return jaxlrp.lrp(f, **options)(*args)


# ---- the same, sooner ----------------------------------------------------------------


@pytest.mark.parametrize("f", NETWORKS, ids=lambda f: f.__name__)
def test_what_comes_again_is_the_same_bit_for_bit(f, counted):
    explain = jaxlrp.value_and_lrp(f)
    first = explain(W, X)
    for _ in range(4):
        same_bits(explain(W, X), first)
    assert counted.read == 1 and counted.seeded == 3
    same_bits(explain(V, Y), jaxlrp.value_and_lrp(f)(V, Y))
    assert counted.seeded == 4  # that of the other one


def test_what_is_written_down_is_not_arranged_to_be_compiled(monkeypatch):
    explain = jaxlrp.lrp(network)
    monkeypatch.setattr(evaluate, "arrange", lambda _: pytest.fail("as if compiled"))
    same_bits(*[explain(W, X) for _ in range(4)][2:])


@pytest.mark.parametrize(
    "target", ["all", 1, (1,), targets.LogOdds(), targets.Contrastive(0)], ids=str
)
def test_any_target_that_is_plain_data_comes_again(target, counted):
    explain = jaxlrp.lrp(network, target=target)
    first = explain(W, X)
    for _ in range(4):
        same_bits(explain(W, X), first)
    assert counted.seeded == 3


@pytest.mark.parametrize(
    "composite",
    [composites.EpsilonPlusFlat(), composites.Uniform(rules.Gamma(0.1))],
    ids=lambda c: c.name,
)
def test_any_composite_of_plain_rules_comes_again(composite, counted):
    explain = jaxlrp.lrp(network, composite)
    first = explain(W, X)
    for _ in range(4):
        same_bits(explain(W, X), first)
    assert counted.seeded == 3


def test_what_else_f_returns_is_that_of_each_call():
    calls = []

    def f(x):
        calls.append(None)
        return x @ W, {"number": len(calls), "mean": x.mean(), "text": "a"}

    explain = jaxlrp.lrp(f, has_aux=True)
    for i in range(1, 6):
        _, aux = explain(X * i)
        assert aux["number"] == i and aux["text"] == "a"
        np.testing.assert_allclose(aux["mean"], (X * i).mean(), rtol=1e-6)


def test_from_many_threads_at_once():
    explain = jaxlrp.lrp(network)
    inputs = [X * i for i in range(1, 9)]
    expected = [anew(network, W, x) for x in inputs]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: explain(W, x), inputs))
    same_bits(found, expected)


# ---- nothing of before ---------------------------------------------------------------


def test_weights_that_f_closes_over_are_those_of_now():
    holder = {"w": W}

    def f(x):
        return jax.nn.relu(x @ holder["w"]) @ V

    explain = jaxlrp.lrp(f)
    for w in (W, W, W, W, V, 2 * W):  # V twice is another program
        holder["w"] = w
        same_bits(explain(X), anew(f, X))


def test_numpy_weights_that_are_changed_in_place_are_those_of_now():
    w = np.array(W)
    explain = jaxlrp.lrp(lambda x: jax.nn.relu(x @ w) @ V)
    for _ in range(5):
        same_bits(explain(X), anew(network, jnp.array(w), X))
        w *= 1.5


def test_an_updated_module_is_explained_as_it_is_now():
    model = nnx.Linear(4, 3, use_bias=False, rngs=nnx.Rngs(0))
    closed, given = jaxlrp.lrp(lambda x: model(x)), jaxlrp.lrp(lambda m, x: m(x))
    for i in range(5):
        model.kernel[...] = model.kernel[...] + i
        expected = anew(lambda w, x: x @ w, model.kernel[...], X)
        np.testing.assert_allclose(closed(X), expected, rtol=1e-6)
        np.testing.assert_allclose(given(model, X), expected, rtol=1e-6)


def test_numbers_and_branches_of_python_are_those_of_now():
    state = {"scale": 1.0, "deep": False}

    def f(w, x):
        h = jnp.tanh(state["scale"] * x @ w)
        return h @ V if state["deep"] else h

    explain = jaxlrp.lrp(f)
    for scale, deep in [(1.0, False)] * 4 + [(2.0, False), (2.0, True), (1.0, False)]:
        state.update(scale=scale, deep=deep)
        same_bits(explain(W, X), anew(f, W, X))


def test_shapes_dtypes_and_weak_types_are_told_apart():
    explain = jaxlrp.lrp(lambda x: jnp.tanh(2 * x), target="all")
    for x in (X, X[0], X.astype(jnp.bfloat16), X[0, 0], 2.0, jnp.float32(2.0)) * 4:
        same_bits(explain(x), anew(lambda x: jnp.tanh(2 * x), x, target="all"))


@pytest.mark.parametrize(
    "setting", [jax.enable_x64(True), jax.default_matmul_precision("highest")]
)
def test_settings_are_those_of_now(setting):
    explain = jaxlrp.lrp(network)
    first = [explain(W, X) for _ in range(4)][0]
    with setting:
        w, x = jnp.asarray(np.array(W, float)), jnp.asarray(np.array(X, float))
        for _ in range(4):
            same_bits(explain(w, x), anew(network, w, x))
    same_bits(explain(W, X), first)


def doubled():
    """A primitive of the user's."""
    mine = Primitive("mine")
    mine.def_impl(lambda x: 2 * x)
    mine.def_abstract_eval(lambda x: x)
    ad.deflinear2(mine, lambda c, x: [2 * c])
    mlir.register_lowering(mine, mlir.lower_fun(lambda x: 2 * x, False))
    return mine


def test_an_entry_of_the_rule_book_is_that_of_now():
    mine = doubled()
    explain = jaxlrp.lrp(lambda x: mine.bind(x) @ W)
    primitives.enter_primitive(mine, Entry(Kind.LINEAR))
    found = [explain(X) for _ in range(4)]
    assert jnp.abs(found[-1]).sum() > 0
    jaxlrp.register_rule(mine)(lambda apply, active, x: jaxlrp.route(apply(x), [], []))
    assert jnp.abs(explain(X)).sum() == 0


def test_a_rule_of_the_users_is_asked_each_time():
    state = {"factor": 1.0}

    @dataclasses.dataclass(frozen=True)
    class Mine(rules.LayerRule):
        def shares(self, layer):
            kernel, _ = layer.fold()
            z = layer.linear(layer.x, kernel)
            return (rules.Share(z * state["factor"], layer.y, 0.0),)

    explain = jaxlrp.lrp(lambda x: x @ W, composites.Uniform(Mine()))
    first = explain(X)
    for factor in (1.0, 1.0, 1.0, 2.0, 3.0):
        state["factor"] = factor
        np.testing.assert_allclose(explain(X), factor * first, rtol=1e-5)


def test_a_rule_that_a_user_registered_is_asked_each_time():
    state, mine = {"factor": 1.0}, doubled()

    @jaxlrp.register_rule(mine)
    def _(apply, active, x):
        y = apply(x)
        return jaxlrp.route(y, [x], [jnp.full_like(y, state["factor"])])

    explain = jaxlrp.lrp(lambda x: mine.bind(x) @ W)
    first = explain(X)
    for factor in (1.0, 1.0, 1.0, 2.0, 3.0):
        state["factor"] = factor
        np.testing.assert_allclose(explain(X), factor * first, rtol=1e-5)


def test_functions_with_rules_or_derivatives_of_their_own_are_asked_each_time():
    state = {"factor": 1.0}

    @jaxlrp.custom_lrp
    def rule(x):
        return 2 * x

    rule.deflrp(lambda x: (2 * x, None), lambda _, r: (state["factor"] * r,))

    @jax.custom_jvp
    def derivative(x):
        return jnp.round(x)

    @derivative.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        return jnp.round(x), state["factor"] * t

    def surrogate(define):
        """Of a function of JAX's own, in which nothing of it is the user's."""
        f = jax.custom_jvp(define)
        f.defjvps(lambda t, y, x: state["factor"] * t)
        return f

    def by_rule(primals, tangents):
        return jnp.tanh(primals[0]), state["factor"] * tangents[0]

    steep = jax.custom_jvp(jnp.tanh)
    steep.defjvp(by_rule)
    others = [steep, *map(surrogate, (jnp.tanh, jax.nn.relu, jax.jit(jax.nn.relu6)))]
    taylor = composites.Proportional().on("activation", rules.Taylor())
    for f in (rule, derivative, *others):
        explain = jaxlrp.lrp(lambda x, f=f: f(x), taylor)
        first = explain(X)
        for factor in (1.0, 1.0, 1.0, 2.0):
            state["factor"] = factor
            np.testing.assert_allclose(explain(X), factor * first, rtol=1e-5)
        state["factor"] = 1.0


def test_arrays_in_composites_and_targets_are_those_of_now(counted):
    low, classes = np.full(4, -9.0, np.float32), np.array([0, 1, 2])
    boxed = composites.Epsilon().on("layer", rules.ZBox(low, 9.0), first=True)
    explain = jaxlrp.lrp(network, boxed, target=classes)
    before = [explain(W, X) for _ in range(4)][-1]
    low -= 9.0
    classes[:] = 3
    assert not np.allclose(explain(W, X), before)
    assert counted.read == 5


def test_effects_happen_in_each_call():
    seen = []

    def f(x):
        jax.debug.callback(lambda v: seen.append(float(v)), x.sum())
        return x @ W

    explain = jaxlrp.lrp(f)
    for i in range(1, 6):
        explain(X * i)
        jax.effects_barrier()
        assert len(seen) == i


# ---- as ever -------------------------------------------------------------------------


def test_transformations_of_what_was_called_before():
    explain = jaxlrp.lrp(network)
    expected = [explain(W, X) for _ in range(4)][-1]
    np.testing.assert_allclose(jax.jit(explain)(W, X), expected, rtol=1e-4, atol=1e-6)
    mapped = jax.vmap(explain, (None, 0))(W, X)
    np.testing.assert_allclose(mapped, expected, rtol=1e-4, atol=1e-6)
    slope = jax.grad(lambda w: explain(w, X).sum())(W)
    assert slope.shape == W.shape and jnp.abs(slope).sum() > 0
    closed = jax.grad(lambda w: jaxlrp.lrp(lambda x: network(w, x))(X).sum())(W)
    same_bits(closed, slope)


def test_arrays_on_several_devices_stay_where_they_are():
    devices = jax.sharding.Mesh(jax.devices()[:3], ("batch",))
    split = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec("batch"))
    whole = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec())
    x = jax.device_put(X, split)
    w = jax.device_put(W, jax.devices()[1])
    explain = jaxlrp.lrp(network)
    expected = explain(W, X)
    for _ in range(4):
        elsewhere = explain(w, jax.device_put(X, jax.devices()[1]))
        assert elsewhere.devices() == {jax.devices()[1]}
        found = explain(jax.device_put(W, whole), x)
        assert found.sharding.is_equivalent_to(split, 2)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_an_input_that_was_deleted_is_an_error():
    explain = jaxlrp.lrp(network)
    x = X + 0
    for _ in range(4):
        explain(W, x)
    x.delete()
    with pytest.raises((RuntimeError, ValueError), match="deleted"):
        explain(W, x)


def test_what_is_debugged_is_computed_anew(counted):
    explain = jaxlrp.lrp(network)
    expected = [explain(W, X) for _ in range(4)][-1]
    with jax.disable_jit():
        np.testing.assert_allclose(explain(W, X), expected, rtol=1e-4, atol=1e-6)
    assert counted.read == 2
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        explain(W, X.at[0, 0].set(jnp.nan))


def test_a_guard_of_transfers_refuses_no_call():
    w, x = jax.device_put((W, X))
    explain = jaxlrp.lrp(network)
    expected = [explain(w, x) for _ in range(4)][-1]
    with jax.transfer_guard("disallow"):
        found = explain(w, x)
    np.testing.assert_array_equal(found, expected)


def test_errors_are_the_same_each_time():
    explain = jaxlrp.lrp(lambda x: jnp.argsort(x), target="all")
    for _ in range(4):
        with pytest.raises(TypeError, match="no floating-point leaf"):
            explain(X)


def test_values_are_warned_of_whenever_they_come():
    def f(w, x):
        return x @ w - 5.0 * x.sum()

    quiet = jnp.ones((1, 4)), jnp.ones((4, 1))
    boxed = composites.Epsilon().on("layer", rules.ZBox(0.0, 1.0), first=True)
    box = jaxlrp.lrp(lambda x, w: x @ w, boxed, argnums=0)
    large = jaxlrp.lrp(lambda w, x: x @ w, target="all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            box(*quiet)
            large(quiet[1], quiet[0])
    with pytest.warns(BoundsWarning):
        box(2 * quiet[0], quiet[1])
    cancelling = jnp.array([[1e6], [-1e6], [1.0], [1.0]])
    with pytest.warns(RelevanceWarning):
        large(cancelling, quiet[0])


@pytest.mark.always
def test_what_is_remembered_holds_no_arrays_and_does_not_grow():
    class Holder:
        w = W + 0

    explain = jaxlrp.lrp(lambda x: repeated(Holder.w, x))
    for _ in range(4):
        explain(X)
    old = weakref.ref(Holder.w)
    Holder.w = W + 1
    explain(X)
    gc.collect()
    assert old() is None
    memories = _replay.Memories()
    for n in range(2 * _replay.LIMIT):
        jaxpr = jax.make_jaxpr(jnp.sin)(jnp.ones(n))
        assert memories.of(jaxpr, [], None) is not None
    assert len(memories.kept) == _replay.LIMIT


# ---- forms ---------------------------------------------------------------------------


def form(f, *args):
    return _replay.form_of(jax.make_jaxpr(f)(*args))


def in_scope(x):
    with jax.named_scope("a"):
        return x * 2


EQUAL = {
    "constants": (lambda x: x @ W, lambda x: x @ V),
    "activation": (lambda x: jax.nn.relu(x), lambda x: jax.nn.relu(x)),
    "scan": (lambda x: looped(W, x), lambda x: looped(W, x)),
    "branches": (lambda x: branched(W, x), lambda x: branched(W, x)),
}
OTHER = {
    "literals": (lambda x: x * 2, lambda x: x * 3),
    "zeros": (lambda x: x + 0.0, lambda x: x + -0.0),
    "wiring": (lambda x: jnp.sin(x) - x, lambda x: x - jnp.sin(x)),
    "scopes": (lambda x: x * 2, in_scope),
    "one constant or two": (lambda x: x @ W @ W, lambda x: x @ W @ V),
    "parameters": (lambda x: x.sum(0), lambda x: x.sum(1)),
    "activations": (jax.nn.relu, jax.nn.relu6),
    "bodies": (
        lambda x: lax.scan(lambda h, _: (h * 2, None), x, length=3)[0],
        lambda x: lax.scan(lambda h, _: (h * 3, None), x, length=3)[0],
    ),
    "lengths": (
        lambda x: lax.scan(lambda h, _: (h * 2, None), x, length=3)[0],
        lambda x: lax.scan(lambda h, _: (h * 2, None), x, length=4)[0],
    ),
    "outputs": (lambda x: (x, 2 * x), lambda x: (2 * x, x)),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", EQUAL)
def test_equal_programs_have_one_form(name):
    one, other = EQUAL[name]
    assert form(one, X) == form(other, X)


@pytest.mark.whole
@pytest.mark.parametrize("name", OTHER)
def test_other_programs_have_other_forms(name):
    one, other = OTHER[name]
    square = X @ X.T
    with contextlib.suppress(TypeError):
        assert form(one, square) != form(other, square) or name.startswith("one")
    assert form(one, X) != form(other, X)


@pytest.mark.parametrize("f", [jax.nn.relu, jax.nn.relu6, jax.nn.softplus])
def test_derivatives_of_jax_are_known(f):
    assert form(lambda x: f(x), X) == form(lambda x: f(x), X)


def test_a_function_with_its_own_derivative_equals_itself_alone():
    @jax.custom_jvp
    def f(x):
        return jnp.sin(x)

    f.defjvp(lambda primals, tangents: (jnp.sin(primals[0]), tangents[0]))
    assert form(lambda x: f(x), X) != form(lambda x: f(x), X)
    compiled = jax.jit(f)
    assert form(lambda x: compiled(x), X) == form(lambda x: compiled(x), X)


def test_a_jit_that_holds_arrays_equals_nothing():
    compiled = jax.jit(lambda x: x @ W)
    with pytest.raises(_replay._Unlike):
        form(lambda x: compiled(x), X)
    explain = jaxlrp.lrp(lambda x: jax.jit(lambda x: x @ holder["w"])(x))
    holder = {"w": W}
    for w in (W, W, W, W, V):
        holder["w"] = w
        same_bits(explain(X), anew(lambda x, w=w: x @ w, X))


@pytest.mark.parametrize(
    "value", [1, "a", (1.0, None), rules.Gamma(0.1), np.float32(1)]
)
def test_plain_data_is_fixed(value):
    assert _replay.is_fixed(value)


@pytest.mark.parametrize("value", [[1], {}, X, np.ones(1), rules.Gamma(X), len, (len,)])
def test_what_may_change_is_not_fixed(value):
    assert not _replay.is_fixed(value)
