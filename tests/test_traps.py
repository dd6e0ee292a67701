"""Warnings of what is certain and hardly meant, and none of ordinary networks."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import jaxlrp
from jaxlrp import attribution, composites
from jaxlrp.errors import ArgumentWarning, TargetWarning, TrainingWarning
from tests.models.architectures import ARCHITECTURES

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
X = jnp.asarray(RNG.standard_normal((5, 4)), jnp.float32)
W = jnp.asarray(RNG.standard_normal((4, 3)), jnp.float32)
IMAGES = jnp.asarray(RNG.standard_normal((3, 8, 8, 2)), jnp.float32)
OURS = (ArgumentWarning, TargetWarning, TrainingWarning)
each_way = pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])


def dense(x):
    return jnp.tanh(x @ W)


def warned(call):
    """The kinds of this package's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [w.category for w in caught if issubclass(w.category, OURS)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_no_architecture_is_warned_of(name):
    """What structure tells is told while the function is traced."""
    architecture = ARCHITECTURES[name]
    apply, params, inputs = architecture.small()
    explain = jaxlrp.lrp(apply, target=architecture.target)
    assert warned(lambda: jax.eval_shape(explain, params, inputs)) == []


# ---- training ------------------------------------------------------------------------


class Linen(nn.Module):
    train: bool = False
    dropout: bool = False
    norm: str = "batch"

    @nn.compact
    def __call__(self, x):
        h = nn.Conv(4, (3, 3))(x)
        if self.norm == "batch":
            h = nn.BatchNorm(use_running_average=not self.train)(h)
        else:
            h = {"layer": nn.LayerNorm, "instance": nn.InstanceNorm}[self.norm]()(h)
        h = nn.relu(h).mean((1, 2))
        h = nn.Dropout(0.5, deterministic=not self.dropout)(h)
        return nn.Dense(3)(h)


def linen(keeps=False, images=IMAGES, **options):
    """A call, which keeps the running statistics or throws them away."""
    module = Linen(**options)
    variables = module.init({"params": KEY, "dropout": KEY}, images)

    def f(variables, x):
        given = {"rngs": {"dropout": KEY}, "mutable": ["batch_stats"]}
        out = module.apply(variables, x, **given)
        return out if keeps else out[0]

    return lambda wrap: wrap(jaxlrp.lrp(f, has_aux=keeps))(variables, images)


@each_way
@pytest.mark.parametrize("keeps", [True, False])
def test_running_statistics_are_those_of_training(wrap, keeps):
    with pytest.warns(TrainingWarning, match="statistics over the batch") as caught:
        linen(keeps, train=True)(wrap)
    assert len(caught) == 1 and caught[0].filename == __file__


@each_way
@pytest.mark.parametrize(
    "options",
    [{}, {"norm": "layer", "train": True}, {"norm": "instance", "train": True}],
    ids=str,
)
def test_evaluation_is_no_training(wrap, options):
    assert warned(lambda: linen(**options)(wrap)) == []


@each_way
def test_dropout_is_training(wrap):
    with pytest.warns(TrainingWarning, match="random mask .* dropout") as caught:
        linen(dropout=True)(wrap)
    assert len(caught) == 1 and caught[0].filename == __file__


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(4, 4, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


@each_way
@pytest.mark.parametrize("train", [True, False])
def test_nnx_in_training_and_not(wrap, train):
    module = Nnx(nnx.Rngs(0))
    module.train() if train else module.eval()
    graph, state = nnx.split(module)
    explain = jaxlrp.lrp(lambda state, x: nnx.merge(graph, state)(x))
    expected = [TrainingWarning] * 2 if train else []
    assert warned(lambda: wrap(explain)(state, X)) == expected


AVERAGES = {
    "weighted": lambda old, new: 0.9 * old + 0.1 * new,
    "moved": lambda old, new: old + 0.1 * (new - old),
    "moved, the other way": lambda old, new: old - 0.1 * (old - new),
    "counted": lambda old, new: (0.9 * old + new * 0.1) / (1 - 0.9**3),
}


@each_way
@pytest.mark.parametrize("name", AVERAGES)
def test_running_statistics_however_they_are_kept(wrap, name):
    def f(state, x):
        h = x @ W
        mean, var = h.mean(0), jnp.mean(h**2, 0) - h.mean(0) ** 2
        state = {
            "mean": AVERAGES[name](state["mean"], mean),
            "var": AVERAGES[name](state["var"], var),
        }
        return (h - mean) * jax.lax.rsqrt(var + 1e-5) @ W.T, state

    state = {"mean": jnp.zeros(3), "var": jnp.ones(3)}
    explain = jaxlrp.lrp(f, has_aux=True)
    assert warned(lambda: wrap(explain)(state, X)) == [TrainingWarning]


@each_way
def test_a_bias_is_no_running_statistic(wrap):
    def f(params, x):  # batch norm as one scale and one shift, without stored numbers
        h = x @ W
        scale = params["scale"] * jax.lax.rsqrt(h.var(0) + 1e-5)
        return (h * scale + (params["bias"] - h.mean(0) * scale)) @ W.T

    params = {"scale": jnp.ones(3), "bias": jnp.ones(3)}
    assert warned(lambda: wrap(jaxlrp.lrp(f))(params, X)) == []


@each_way
def test_dropout_of_one_example_that_is_mapped(wrap):
    def one(x):
        keep = jax.random.bernoulli(KEY, 0.5, (3,))
        return jnp.where(keep, x @ W / 0.5, 0)

    assert warned(lambda: wrap(jaxlrp.lrp(jax.vmap(one)))(X)) == [TrainingWarning]


QUIET = {
    "noise that is added": lambda x: dense(x) + jax.random.normal(KEY, (5, 3)),
    "a variational code": lambda x: (
        dense(x) + jnp.exp(dense(x)) * jax.random.normal(KEY, (5, 3))
    ),
    "random weights": lambda x: x @ jax.random.uniform(KEY, (4, 3)),
    "a mask that is given": lambda x: dense(x) * (jnp.arange(3) > 0),
    "statistics of the batch alone": lambda x: dense((x - x.mean(0)) / x.std(0)),
}


@each_way
@pytest.mark.parametrize("name", QUIET)
def test_what_is_not_certain_is_not_warned_of(wrap, name):
    assert warned(lambda: wrap(jaxlrp.lrp(QUIET[name]))(X)) == []


MASKS = {
    "a product": lambda x: x * jax.random.bernoulli(KEY, 0.5, x.shape),
    "a choice": lambda x: jnp.where(jax.random.bernoulli(KEY, 0.5, x.shape), x, 0),
    "a floor": lambda x: x * jnp.floor(0.5 + jax.random.uniform(KEY, (5, 1))),
    "scaled first": lambda x: x * (jax.random.uniform(KEY, x.shape) < 0.5) / 0.5,
    "in a loop": lambda x: jax.lax.scan(
        lambda h, k: (h * jax.random.bernoulli(k, 0.5, h.shape), None),
        x,
        jax.random.split(KEY, 2),
    )[0],
}


@each_way
@pytest.mark.parametrize("name", MASKS)
def test_random_masks_are_warned_of(wrap, name):
    explain = jaxlrp.lrp(lambda x: dense(MASKS[name](x)))
    assert warned(lambda: wrap(explain)(X)) == [TrainingWarning]


def test_one_warning_of_each_kind_is_enough():
    explain = jaxlrp.lrp(lambda x: jax.nn.softmax(dense(MASKS["a product"](x))))
    assert warned(lambda: explain(X)) == [TrainingWarning, TargetWarning]
    assert warned(lambda: explain(X)) == []


def test_a_plan_has_what_is_hardly_meant():
    plan = jaxlrp.plan(lambda x: jax.nn.softmax(dense(MASKS["a product"](x))))(X)
    assert [trap.split(":")[0] for trap in plan.traps] == [
        "random numbers",
        "probabilities",
    ]
    assert "hardly meant:" in str(plan) and "dropout" in str(plan)
    assert jaxlrp.plan(dense)(X).traps == ()
    assert "hardly meant" not in str(jaxlrp.plan(dense)(X))
    module = Linen(train=True)
    variables = module.init(KEY, IMAGES)
    apply = lambda v, x: module.apply(v, x, mutable=["batch_stats"])[0]  # noqa: E731
    (trap,) = jaxlrp.plan(apply)(variables, IMAGES).traps
    printed = " ".join(str(jaxlrp.plan(apply)(variables, IMAGES)).split())
    assert trap.startswith("batch statistics: ")
    assert trap.partition(": at ")[0] in printed and "stored statistics" in printed


# ---- targets -------------------------------------------------------------------------

HEADS = {
    "softmax": lambda y: jax.nn.softmax(y),
    "log-softmax": lambda y: jax.nn.log_softmax(y),
    "sigmoid": lambda y: jax.nn.sigmoid(y),
    "softmax in a call": lambda y: jax.jit(jax.nn.softmax)(y),
    "softmax, cast": lambda y: jax.nn.softmax(y).astype(jnp.bfloat16),
}


@each_way
@pytest.mark.parametrize(
    "target", ["max", "all", 1, lambda y: y], ids=["max", "all", "a class", "any"]
)
@pytest.mark.parametrize("name", HEADS)
def test_probabilities_are_warned_of(wrap, target, name):
    whole = target == "all" or callable(target)
    head = W.T[:, :1] if whole and name == "sigmoid" else W.T
    explain = jaxlrp.lrp(lambda x: HEADS[name](dense(x) @ head), target=target)
    with pytest.warns(TargetWarning, match="Explain the scores before it") as caught:
        wrap(explain)(X)
    assert len(caught) == 1 and caught[0].filename == __file__


NO_HEADS = {
    "scores": lambda y: y,
    "silu": jax.nn.silu,
    "softmax inside": lambda y: jax.nn.softmax(y) @ W.T,
    "gate": lambda y: jax.nn.sigmoid(y) * y,
}


@pytest.mark.parametrize("name", NO_HEADS)
def test_scores_are_no_probabilities(name):
    assert warned(lambda: jaxlrp.lrp(lambda x: NO_HEADS[name](dense(x)))(X)) == []


def test_what_a_decoder_draws_is_no_probability():
    explain = jaxlrp.lrp(lambda x: jax.nn.sigmoid(dense(x)), target="all")
    assert warned(lambda: explain(X)) == []


def test_a_function_without_layers_is_studied_for_itself():
    for f in (jax.nn.softmax, jax.nn.sigmoid, jax.nn.log_softmax):
        assert warned(lambda f=f: jaxlrp.lrp(f, composites.AttnLRP())(X)) == []


def test_an_output_that_is_not_explained_may_be_a_probability():
    f = lambda x: (dense(x), jax.nn.softmax(dense(x)))  # noqa: E731
    assert warned(lambda: jaxlrp.lrp(f, target=("max", None))(X)) == []
    assert warned(lambda: jaxlrp.lrp(f, has_aux=True)(X)) == []
    assert warned(lambda: jaxlrp.lrp(f, target=(None, 0))(X)) == [TargetWarning]


class Regressor(nn.Module):
    @nn.compact
    def __call__(self, x):
        h = nn.relu(nn.Conv(4, (3, 3))(x))
        h = nn.avg_pool(nn.max_pool(h, (2, 2), (2, 2)), (2, 2), (2, 2))
        return nn.Dense(1)(h.reshape(len(h), -1))[:, 0]


REGRESSORS = {
    "dense": (lambda x: dense(x) @ jnp.ones(3), X),
    "a column": (lambda x: dense(x)[:, 0], X),
    "squeezed": (lambda x: jnp.squeeze(dense(x)[:, :1], -1), X),
    "a sum": (lambda x: jax.nn.gelu(x @ W).sum(-1), X),
    "normalised": (lambda x: dense(x / jnp.linalg.norm(x, axis=1)[:, None])[:, 1], X),
    "mapped": (jax.vmap(lambda x: dense(x)[0]), X),
    "a tree": (lambda x: {"y": dense(x)[:, 0]}, X),
    "images": (
        lambda x: Regressor().apply(Regressor().init(KEY, IMAGES), x),
        IMAGES,
    ),
}


@each_way
@pytest.mark.parametrize("name", REGRESSORS)
def test_numbers_of_examples_are_no_classes(wrap, name):
    f, x = REGRESSORS[name]
    with pytest.warns(TargetWarning, match='target="all" explains each') as caught:
        wrap(jaxlrp.lrp(f))(x)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert warned(lambda: wrap(jaxlrp.lrp(f, target="all"))(x)) == []
    assert warned(lambda: jaxlrp.lrp(f)(x[:1])) == []


def test_numbers_of_examples_are_found_by_the_relevance_too():
    def f(x):  # which rows meet in a loop is not followed
        step = lambda h, x: (jnp.tanh(h + x @ W[:2]), None)  # noqa: E731
        steps = jnp.moveaxis(x.reshape(5, 2, 2), 1, 0)
        return jax.lax.scan(step, jnp.zeros((5, 3)), steps)[0].sum(-1)

    assert warned(lambda: jaxlrp.lrp(f)(X)) == [TargetWarning]


SCORES = {
    "classes": dense,
    "as many classes": lambda x: x.reshape(-1) @ jnp.ones((20, 5)),
    "attention": lambda x: (jax.nn.softmax(x @ x.T) @ x).sum(-1),
    "sums of the others": lambda x: dense(x).sum(-1).sum() - dense(x).sum(-1),
    "one example": lambda x: dense(x[0]),
    "cumulative": lambda x: jnp.cumsum(dense(x).sum(-1)),
    "a number": lambda x: dense(x).sum(),
}


@each_way
@pytest.mark.parametrize("name", SCORES)
def test_what_has_classes_is_not_warned_of(wrap, name):
    x = X[::-1] if name == "cumulative" else X  # not the first of them is the highest
    assert warned(lambda: wrap(jaxlrp.lrp(SCORES[name]))(x)) == []


# ---- keywords ------------------------------------------------------------------------

LOOKS = {
    "lrp": jaxlrp.lrp,
    "value_and_lrp": jaxlrp.value_and_lrp,
    "lrp_each": jaxlrp.lrp_each,
    "plan": jaxlrp.plan,
    "audit": jaxlrp.audit,
    "gradient": attribution.gradient,
}


def network(w, x):
    return x @ w


@pytest.mark.parametrize("name", LOOKS)
def test_a_later_argument_by_keyword_is_warned_of(name):
    look = LOOKS[name]
    message = r"argument 0 is attributed, .*'x', which comes later.*argnums=0"
    with pytest.warns(ArgumentWarning, match=message) as caught:
        look(network)(W, x=X)
    assert caught[0].filename == __file__
    assert warned(lambda: look(network, argnums=0)(W, x=X)) == []
    assert warned(lambda: look(network)(W, X)) == []


@pytest.mark.whole
@pytest.mark.parametrize("name", LOOKS)
def test_all_arguments_by_keyword_are_refused(name):
    message = "argnums: .* 0 positional arguments: pass the attributed argument by posi"
    with pytest.raises(ValueError, match=message):
        LOOKS[name](lambda x: x @ W)(x=X)


def test_keywords_that_nobody_would_attribute_are_not_warned_of():
    def f(w, x, train=False, mask=None, *, scale=1.0, **others):
        return x @ w * scale

    explain = jaxlrp.lrp(f)
    quiet = {"train": True, "mask": X[:, :1] > 0, "scale": jnp.ones(3), "more": X}
    assert warned(lambda: explain(W, X, **quiet)) == []
    assert warned(lambda: explain(W, X, mask=jnp.ones(3))) == [ArgumentWarning]


@each_way
def test_functions_with_rules_of_their_own_are_passed(wrap):
    @jaxlrp.custom_lrp
    def own(x):
        return jnp.tanh(x @ W)

    own.deflrp(lambda x: (own(x), x), lambda x, R: (x * R.sum(-1, keepdims=True),))
    assert warned(lambda: wrap(jaxlrp.lrp(own))(X)) == []
    assert warned(lambda: wrap(jaxlrp.lrp(lambda x: own(x)[:, 0]))(X)) == (
        [] if wrap is jax.jit else [TargetWarning]
    )
    assert jaxlrp.plan(own)(X).traps == ()
