"""The check, the warning and the amplification: no explosion without a word."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

import jaxlrp
from jaxlrp import composites, rules
from jaxlrp.errors import RelevanceWarning

EPSILON = composites.Epsilon()


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


N, STEPS = 6, 32
U, V, HEAD = 4.0 * draw(N, N), draw(4, N), draw(N, 3)
SEQUENCE = draw(STEPS, 4)


def recurrence(xs):
    """Weights far too large: relevance outgrows the score by many orders."""

    u, v, head = (jnp.asarray(w, xs.dtype) for w in (U, V, HEAD))

    def move(h, x):
        return jnp.tanh(h @ u + x @ v), None

    return lax.scan(move, jnp.zeros(N, xs.dtype), xs)[0] @ head


X, W = np.abs(draw(2, 5)), np.abs(draw(5, 3))


def tame(x):
    return jax.nn.relu(x @ W)


def the(findings, kind):
    """The message of the one finding of a kind."""
    (message,) = [f.message for f in findings.found if f.kind == kind]
    return message


# ---- the check -----------------------------------------------------------------------


def test_the_largest_absorption_is_named_though_it_is_negative():
    b = -0.9 * (X[:1] @ W)
    found = jaxlrp.check(lambda x: x @ W + b[0], EPSILON, target=0)(X[:1])
    assert found.share == pytest.approx(10.0, rel=1e-3)
    assert "1000.0% of the score" in the(found, "share")
    assert "-900.0% of it is bias" in the(found, "share")


def test_nothing_stands_out_where_all_is_well():
    found = jaxlrp.check(tame)(X)
    assert found.kinds == ()
    assert found.score == pytest.approx(float(tame(X).max(-1).sum()), rel=1e-5)
    assert found.share == pytest.approx(1.0, rel=1e-4)
    assert found.amplification == pytest.approx(1.0, rel=1e-4)
    assert str(found).endswith("nothing stands out")


def test_an_explosion_is_named_with_step_and_loop():
    found = jaxlrp.check(recurrence, EPSILON)(SEQUENCE)
    assert found.kinds[0] == "explosion"
    message = the(found, "explosion")
    assert f"{found.amplification:.3g} times" in message
    assert "(recurrence.<locals>.move)" in message
    assert "in an iteration of the loop" in message
    assert "activations that may saturate, in a recurrence" in message
    assert message.split()[0] in str(found)
    assert all(len(line) <= 88 or "/" in line for line in str(found).splitlines())


def test_a_growth_that_is_spread_over_many_layers_is_named_by_role():
    weights = [draw(30, 30, seed=i) for i in range(12)]

    def f(x):
        for i, w in enumerate(weights):
            with jax.named_scope(f"layer_{i}"):
                x = jnp.tanh(x @ w)
        return x

    message = the(jaxlrp.check(f, EPSILON)(draw(30)), "explosion")
    assert "of role dense make it" in message


def test_relevance_that_is_nan_or_infinite_is_an_explosion():
    found = jaxlrp.check(lambda x: jnp.log(x) @ W, EPSILON)(X - 10.0)
    assert "explosion" in found.kinds
    assert "NaN or infinite, by the result of log" in the(found, "explosion")
    assert found.amplification == np.inf


def test_a_score_of_zero_is_said_and_divides_nothing():
    found = jaxlrp.check(lambda x: jax.nn.relu(-x @ W), EPSILON)(X)
    assert found.kinds == ("zero score",)
    assert np.isnan(found.share) and found.amplification == 1.0
    str(found)


def test_a_small_share_is_said_with_what_kept_the_rest():
    found = jaxlrp.check(lambda x: x @ W + 100.0, EPSILON)(X)
    assert found.kinds == ("share",)
    assert found.share < 0.1
    assert "of it is bias" in the(found, "share")


def test_a_sum_that_cancels_is_named():
    f = lambda x: x["a"] + x["b"]  # noqa: E731
    x = {"a": jnp.array([3.0, 1.0]), "b": jnp.array([-2.9, 0.0])}
    found = jaxlrp.check(f, EPSILON, target=0)(x)
    assert found.kinds == ()  # the other element does not cancel
    x = {"a": jnp.array([3.0]), "b": jnp.array([-2.9])}
    found = jaxlrp.check(f, EPSILON, target=0)(x)
    assert found.kinds == ("cancellation",)
    message = the(found, "cancellation")
    assert "test_check.py" in message and "59 times as large as the sum" in message


class Block(nn.Module):
    train: bool
    norm: str = "batch"
    noise: str = "dropout"

    @nn.compact
    def __call__(self, x):
        h = nn.Conv(4, (3, 3))(x)
        if self.norm == "batch":
            h = nn.BatchNorm(use_running_average=not self.train)(h)
        elif self.norm == "layer":
            h = nn.LayerNorm()(h)
        elif self.norm == "group":
            h = nn.GroupNorm(2)(h)
        elif self.norm == "instance":
            h = nn.InstanceNorm()(h)
        h = nn.relu(h)
        if self.noise == "dropout":
            h = nn.Dropout(0.5, deterministic=not self.train)(h)
        return nn.Dense(3)(h.mean((1, 2)))


IMAGES = draw(4, 6, 6, 2)


def checked(module, images=IMAGES, argnums=-1, **options):
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = module.init(keys, images)

    def f(variables, key, x):
        rngs = {"dropout": key}
        return module.apply(variables, x, rngs=rngs, mutable=["batch_stats"])[0]

    args = variables, jax.random.key(2), images
    return jaxlrp.check(f, EPSILON, argnums, **options)(*args)


@pytest.mark.parametrize("images", [IMAGES, IMAGES[:1]], ids=["four", "one"])
def test_statistics_of_a_batch_are_found(images):
    assert "batch statistics" in checked(Block(train=True), images).kinds
    assert "batch statistics" not in checked(Block(train=False), images).kinds


@pytest.mark.parametrize("norm", ["layer", "group", "instance", "none"])
def test_statistics_of_an_example_are_none_of_a_batch(norm):
    assert "batch statistics" not in checked(Block(train=True, norm=norm)).kinds


def test_statistics_of_a_batch_are_found_inside_of_loops():
    def f(x):
        def layer(h, _):
            h = h @ jnp.eye(5)
            return (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-3), None

        return lax.scan(layer, x, None, length=2)[0] @ W

    assert "batch statistics" in jaxlrp.check(f, EPSILON)(draw(3, 5)).kinds


def test_dropout_is_found_where_it_is_on():
    found = checked(Block(train=True, norm="layer"))
    assert "random numbers" in found.kinds
    assert "stochastic.py" in the(found, "random numbers")
    assert "random numbers" not in checked(Block(train=False)).kinds


RANDOM = {
    "noise that is added": lambda k, x: x + jax.random.normal(k, x.shape),
    "a mask that is multiplied": lambda k, x: x * jax.random.bernoulli(k, 0.5, x.shape),
    "in a loop": lambda k, x: lax.scan(
        lambda h, k: (h * jax.random.bernoulli(k, 0.5, h.shape), None),
        x,
        jax.random.split(k, 3),
    )[0],
    "made outside of the loop": lambda k, x: lax.scan(
        lambda h, m: (h * m, None), x, jax.random.uniform(k, (3, *x.shape))
    )[0],
}


@pytest.mark.whole
@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_are_found_however_they_come(name):
    f = lambda k, x: RANDOM[name](k, x) @ W  # noqa: E731
    assert "random numbers" in jaxlrp.check(f, EPSILON)(jax.random.key(0), X).kinds


def test_random_weights_are_no_noise():
    f = lambda k, x: x @ jax.random.uniform(k, (5, 3))  # noqa: E731
    assert "random numbers" not in jaxlrp.check(f, EPSILON)(jax.random.key(0), X).kinds


HEADS = {
    "softmax": (lambda y: jax.nn.softmax(y), "softmax"),
    "log softmax": (lambda y: jax.nn.log_softmax(y), "softmax"),
    "softmax, one class": (lambda y: jax.nn.softmax(y)[:, :1], "softmax"),
    "softmax, cast": (lambda y: jax.nn.softmax(y).astype(jnp.bfloat16), "softmax"),
    "softmax in a call": (lambda y: jax.jit(jax.nn.softmax)(y), "softmax"),
    "sigmoid": (lambda y: jax.nn.sigmoid(y), "sigmoid"),
    "scores": (lambda y: y, None),
    "silu": (lambda y: jax.nn.silu(y), None),
    "softmax inside": (lambda y: jax.nn.softmax(y) @ W.T, None),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", HEADS)
def test_probabilities_at_the_output_are_found(name):
    head, expected = HEADS[name]
    found = jaxlrp.check(lambda x: head(x @ W), EPSILON)(X)
    assert ("probabilities" in found.kinds) == (expected is not None)
    if expected:
        assert expected in the(found, "probabilities")


SHAPES = {
    "classes": (lambda x: x @ W, "max", None),
    "no classes": (lambda x: (x @ W)[:, 0], "max", "chooses among the examples"),
    "no classes, by number": (lambda x: (x @ W)[:, 0], 1, "chooses among the examples"),
    "no classes, all": (lambda x: (x @ W)[:, 0], "all", None),
    "one class": (lambda x: (x @ W)[:, :1], "max", None),
    "a number": (lambda x: (x @ W).sum(), "max", None),
    "places": (lambda x: (x @ W)[:, None] * jnp.ones((7, 1)), "max", "has 7 places"),
    "places, chosen": (
        lambda x: (x @ W)[:, None] * jnp.ones((7, 1)),
        lambda y: y.at[:, 1:].set(0.0),
        None,
    ),
}


@pytest.mark.whole
@pytest.mark.parametrize("name", SHAPES)
def test_an_output_without_an_axis_of_classes_is_found(name):
    f, target, expected = SHAPES[name]
    found = jaxlrp.check(f, EPSILON, target=target)(X)
    assert ("class axis" in found.kinds) == (expected is not None)
    if expected:
        assert expected in the(found, "class axis")


def test_one_example_alone_has_an_axis_of_classes():
    found = jaxlrp.check(lambda x: x @ W, EPSILON)(X[0])
    assert "class axis" not in found.kinds


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_is_checked(dtype):
    x = jnp.asarray(SEQUENCE, dtype)
    found = jaxlrp.check(recurrence, EPSILON)(x)
    assert found.kinds[0] == "explosion"
    assert jaxlrp.check(tame)(jnp.asarray(X, dtype)).kinds == ()


COMPOSITES = {
    "Default": composites.Default(),
    "AttnLRP": composites.AttnLRP(),
    "flat": composites.Uniform(rules.Flat()),
    "alpha-beta": composites.EpsilonAlpha2Beta1(),
    "gradient": composites.GuidedBackprop(),
    "DynamicLRP": composites.DynamicLRP(),
}


@pytest.mark.parametrize("name", COMPOSITES)
def test_any_composite_trees_and_token_ids_are_checked(name):
    table = draw(11, 5)

    def f(params, x):
        h = params["table"][x["ids"]] + x["positions"]
        h = jax.vmap(lambda h: jnp.tanh(h @ params["w"]))(h)
        return jax.nn.relu(h.mean(-2)) @ params["head"]

    params = {"table": table, "w": draw(5, 5), "head": draw(5, 3)}
    x = {"ids": jnp.arange(8).reshape(2, 4), "positions": draw(2, 4, 5)}
    found = jaxlrp.check(f, COMPOSITES[name])(params, x)
    relevance = jax.jit(jaxlrp.lrp(f, COMPOSITES[name]))(params, x)
    size = sum(np.abs(r).sum() for r in jax.tree.leaves(relevance))
    assert found.audit.size_in == pytest.approx(size, rel=1e-4)
    assert str(found)


def test_parameters_and_several_arguments_are_checked():
    found = jaxlrp.check(lambda w, x: x @ w, EPSILON, (0, 1))(W, X)
    assert found.kinds == () and found.share == pytest.approx(1.0, rel=1e-4)


def test_auxiliary_outputs_play_no_part():
    f = lambda x: (x @ W, jax.nn.softmax(x))  # noqa: E731
    assert jaxlrp.check(f, EPSILON, has_aux=True)(X).kinds == ()


def test_a_check_of_traced_arguments_is_refused():
    with pytest.raises(TypeError, match="call it outside jit"):
        jax.jit(lambda x: jaxlrp.check(tame)(x).share)(X)


# ---- the warning ---------------------------------------------------------------------


def test_an_explosion_is_warned_of_once_and_where_it_is_called():
    explain = jaxlrp.lrp(recurrence, EPSILON)
    with pytest.warns(RelevanceWarning, match=r"jaxlrp\.check") as caught:
        explain(SEQUENCE)
    assert len(caught) == 1 and caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explain(SEQUENCE)


def test_the_value_beside_it_is_no_reason_to_be_silent():
    with pytest.warns(RelevanceWarning) as caught:
        jaxlrp.value_and_lrp(recurrence, EPSILON)(SEQUENCE)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "transform", [jax.jit, lambda f: lambda x: jax.vmap(f)(x[None]), jax.jacrev]
)
def test_nothing_is_compared_where_values_are_traced(transform):
    transform(jaxlrp.lrp(recurrence, EPSILON))(SEQUENCE)


def test_what_is_compiled_is_the_same_without_the_warning(monkeypatch):
    found = []
    for _ in range(2):
        lowered = jax.jit(jaxlrp.lrp(recurrence, EPSILON)).lower(SEQUENCE)
        found.append(lowered.as_text())
        monkeypatch.setattr(jaxlrp._lrp, "warn_large", lambda *_, **__: False)
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_is_compared(dtype):
    with pytest.warns(RelevanceWarning):
        jaxlrp.lrp(recurrence, EPSILON)(jnp.asarray(SEQUENCE, dtype))


@pytest.mark.whole
@pytest.mark.parametrize("target", [lambda y: y, "all", 1])
def test_any_target_is_compared(target):
    with pytest.warns(RelevanceWarning):
        jaxlrp.lrp(recurrence, EPSILON, target=target)(SEQUENCE)


def test_relevance_that_is_nan_is_warned_of():
    with pytest.warns(RelevanceWarning, match="NaN or infinite"):
        jaxlrp.lrp(lambda x: jnp.log(x) @ W, EPSILON)(X - 10.0)


def test_masked_scores_are_no_explosion():
    masked = jnp.array([False, True, False])
    jaxlrp.lrp(lambda x: jnp.where(masked, -jnp.inf, x @ W), EPSILON)(X)


def test_a_score_of_zero_is_no_explosion():
    jaxlrp.lrp(lambda x: jax.nn.relu(-x @ W), EPSILON)(X)


def test_a_gradient_has_no_size_to_compare_with():
    f = lambda x: 1e-6 * tame(1e6 * x)  # noqa: E731
    jaxlrp.lrp(f, composites.GuidedBackprop())(X)


# ---- the amplification ---------------------------------------------------------------


def test_amplification_is_the_size_over_that_of_the_score():
    relevance = {"a": jnp.array([3.0, -2.0]), "b": jnp.array([[-1.0]])}
    assert float(jaxlrp.amplification(relevance, jnp.array([-1.5, 0.5]))) == 3.0


def test_amplification_works_under_jit_and_for_each_example():
    @jax.jit
    def explain(xs):
        scores, relevance = jaxlrp.value_and_lrp(jax.vmap(recurrence), EPSILON)(xs)
        return jax.vmap(jaxlrp.amplification)(relevance, scores.max(-1))

    times = explain(jnp.stack([SEQUENCE, SEQUENCE[::-1]]))
    assert times.shape == (2,) and (times > 100).all()
    one = jaxlrp.check(recurrence, EPSILON)(SEQUENCE).amplification
    assert times[0] == pytest.approx(one, rel=0.05)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("relevance", "score", "expected"),
    [
        (0.0, 0.0, 1.0),
        (1.0, 0.0, np.inf),
        (np.nan, 1.0, np.inf),
        (-np.inf, 1.0, np.inf),
        (0.0, 2.0, 0.0),
    ],
)
def test_amplification_of_nothing_and_of_what_is_no_number(relevance, score, expected):
    found = jaxlrp.amplification(jnp.array([relevance]), jnp.array(score))
    assert float(found) == expected


def test_amplification_of_low_precision_does_not_overflow():
    relevance = jnp.full(100_000, 60_000.0, jnp.float16)
    found = jaxlrp.amplification(relevance, jnp.array(6.0, jnp.float16))
    assert float(found) == pytest.approx(1e9, rel=1e-3)


@pytest.mark.always
def test_of_a_single_example_there_is_nothing_to_choose():
    for f in (lambda x: (x @ W)[:, 0], lambda x: (x @ W)[:, None] * jnp.ones((7, 1))):
        assert "class axis" in jaxlrp.check(f)(X).kinds
        assert "class axis" not in jaxlrp.check(f)(X[:1]).kinds
    # A single place for each is none to add up.
    assert "class axis" not in jaxlrp.check(lambda x: (x @ W)[:, None])(X).kinds
