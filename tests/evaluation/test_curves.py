"""Perturbation curves, against loops over units in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import evaluation
from jaxlrp.evaluation import Curve

RNG = np.random.default_rng(7)
W = RNG.normal(size=(4, 6, 2)).astype(np.float32)
X = RNG.normal(size=(3, 4, 6, 2)).astype(np.float32)
BASE = RNG.normal(size=(4, 6, 2)).astype(np.float32)
PIXELS = RNG.normal(size=(3, 4, 6, 1)).astype(np.float32)
PATCHES = RNG.normal(size=(3, 2, 2, 1)).astype(np.float32)


def f(x):
    """A number of an image (4, 6, 2)."""
    return jnp.tanh((x * W).sum() / 3) + x[0, 0, 0]


def reference(x):
    return np.tanh((x * W).sum() / 3) + x[0, 0, 0]


def order_of(relevance, order):
    """Units from the first to the last, by a stable sort of plain numbers."""
    values = relevance.reshape(-1).tolist()
    sign = -1 if order == "morf" else 1
    return sorted(range(len(values)), key=lambda i: sign * values[i])


def by_loop(x, relevance, order, fractions, baseline, insert=False, score=reference):
    """The curve, unit after unit."""
    baseline = np.broadcast_to(baseline, x.shape)
    first = order_of(relevance, order)
    blocks = [s // n for s, n in zip(x.shape, relevance.shape, strict=True)]
    scores = []
    for fraction in fractions:
        changed = (baseline if insert else x).copy()
        for unit in first[: int(fraction * len(first) + 1e-6)]:
            at = np.unravel_index(unit, relevance.shape)
            block = tuple(
                slice(i * b, (i + 1) * b) for i, b in zip(at, blocks, strict=True)
            )
            changed[block] = (x if insert else baseline)[block]
        scores.append(score(changed))
    return np.array(scores)


def trapezoid(q, s):
    return sum((q[i + 1] - q[i]) * (s[i] + s[i + 1]) / 2 for i in range(len(q) - 1)) / (
        q[-1] - q[0]
    )


@pytest.mark.parametrize("order", ["morf", "lerf"])
@pytest.mark.parametrize("units", [PIXELS, PATCHES], ids=["pixels", "patches"])
def test_curve_of_images_is_that_of_a_loop_over_units(units, order):
    @jax.jit
    @jax.vmap
    def curves(x, relevance):
        return evaluation.flipping(
            f, x, relevance, baseline=BASE, order=order, steps=5, chunk=4
        )

    found = curves(X, units)
    fractions = np.arange(6) / 5
    for i, x in enumerate(X):
        wanted = by_loop(x, units[i], order, fractions, BASE)
        np.testing.assert_allclose(found.scores[i], wanted, rtol=1e-4, atol=1e-5)
    n = units[0].size
    removed = np.floor(fractions * n + 1e-6) / n
    np.testing.assert_allclose(found.fractions, np.tile(removed, (3, 1)), rtol=1e-6)


def test_jitted_curve_is_the_eager_one():
    eager = evaluation.flipping(f, X[0], PIXELS[0], steps=4)
    jitted = jax.jit(lambda x, r: evaluation.flipping(f, x, r, steps=4))(
        X[0], PIXELS[0]
    )
    np.testing.assert_allclose(eager.scores, jitted.scores, rtol=1e-5)
    np.testing.assert_array_equal(eager.fractions, jitted.fractions)


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_chunk_does_not_change_the_curve(chunk):
    wanted = by_loop(X[0], PIXELS[0], "morf", np.arange(8) / 7, 0.0)
    curve = evaluation.flipping(f, X[0], PIXELS[0], steps=7, chunk=chunk)
    np.testing.assert_allclose(curve.scores, wanted, rtol=1e-4, atol=1e-5)


def test_insertion_begins_with_the_baseline_and_ends_with_the_input():
    curve = evaluation.insertion(f, X[0], PIXELS[0], baseline=BASE, steps=6)
    wanted = by_loop(X[0], PIXELS[0], "morf", np.arange(7) / 6, BASE, insert=True)
    np.testing.assert_allclose(curve.scores, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(curve.scores[0], f(BASE), rtol=1e-5)
    np.testing.assert_allclose(curve.scores[-1], f(X[0]), rtol=1e-5)


def test_deletion_is_flipping_of_the_most_relevant_first():
    given = evaluation.deletion(f, X[0], PIXELS[0], steps=3)
    wanted = evaluation.flipping(f, X[0], PIXELS[0], order="morf", steps=3)
    np.testing.assert_array_equal(given.scores, wanted.scores)


def test_fractions_may_be_given_and_are_those_that_are_removed():
    given = (0.0, 0.1, 0.3, 0.35, 0.9)
    curve = evaluation.flipping(f, X[0], PIXELS[0], steps=given)
    wanted = by_loop(X[0], PIXELS[0], "morf", given, 0.0)
    np.testing.assert_allclose(curve.scores, wanted, rtol=1e-4, atol=1e-5)
    counts = np.array([0, 2, 7, 8, 21])  # floor of 24 times the fraction
    np.testing.assert_allclose(curve.fractions, counts / 24, rtol=1e-6)


def test_steps_that_do_not_divide_the_units_remove_the_floor():
    x = jnp.arange(1.0, 8.0)
    curve = evaluation.flipping(jnp.sum, x, x, steps=3)
    np.testing.assert_allclose(curve.fractions, [0, 2 / 7, 4 / 7, 1], rtol=1e-6)
    np.testing.assert_allclose(curve.scores, [28, 28 - 13, 28 - 22, 0])


def test_49_steps_of_50176_pixels_are_1024_each():
    x = jnp.zeros((224, 224, 1))
    curve = evaluation.flipping(lambda x: 0.0, x, x, steps=49, chunk=1)
    counts = np.asarray(curve.fractions, np.float64) * 50176
    np.testing.assert_allclose(counts, np.arange(50) * 1024, rtol=1e-6)


def test_equal_units_go_in_the_order_of_the_array_in_both_orders():
    x = jnp.array([1.0, 10.0, 100.0, 1000.0])
    relevance = jnp.array([0.0, 2.0, -0.0, 2.0])
    morf = evaluation.flipping(jnp.sum, x, relevance, steps=4)
    lerf = evaluation.flipping(jnp.sum, x, relevance, steps=4, order="lerf")
    assert morf.scores.tolist() == [1111, 1101, 101, 100, 0]
    assert lerf.scores.tolist() == [1111, 1110, 1010, 1000, 0]
    many, tied = np.arange(500.0), np.arange(500.0) % 3  # more than a short sort
    for order in ("morf", "lerf"):
        curve = evaluation.flipping(jnp.sum, many, tied, steps=50, order=order)
        wanted = by_loop(many, tied, order, np.arange(51) / 50, 0.0, score=np.sum)
        np.testing.assert_allclose(curve.scores, wanted, rtol=1e-6)


def test_constant_relevance_has_no_area_between_its_curves():
    @jax.jit
    def gap(relevance):
        return evaluation.abpc(
            *(
                evaluation.flipping(f, X[0], relevance, order=order, steps=6)
                for order in ("morf", "lerf")
            )
        )

    for value in (0.0, 3.0):
        assert float(gap(np.full_like(PIXELS[0], value))) == 0.0


def test_relevance_that_is_no_number_has_a_curve_that_is_none():
    relevance = PIXELS[0].copy()
    relevance[1, 1] = np.nan

    @jax.jit
    def scores(where):
        return evaluation.flipping(f, X[0], relevance, where=where).scores

    where = np.ones(relevance.shape, bool)
    assert np.isnan(scores(where)).all()
    # ... unless it belongs to a unit that does not count.
    where[1, 1] = False
    assert np.isfinite(scores(where)).all()


def test_one_unit_is_there_until_the_last_step():
    curve = evaluation.flipping(jnp.sum, jnp.array([2.0]), jnp.array([1.0]), steps=3)
    assert curve.scores.tolist() == [2, 2, 2, 0]
    assert curve.fractions.tolist() == [0, 0, 0, 1]
    assert float(evaluation.area(curve)) == 1.0


@pytest.mark.whole
@pytest.mark.parametrize("insert", [False, True])
def test_units_that_do_not_count_stay_and_are_not_counted(insert):
    ids = jnp.array([[5, 6, 7, 8, 0, 0], [3, 4, 9, 0, 0, 0]])
    where = ids != 0
    relevance = jnp.array(
        [[1.0, 4.0, 2.0, 3.0, 9.0, 9.0], [0.1, 0.3, 0.2, 9.0, 9.0, 9.0]]
    )
    table = jnp.asarray(RNG.normal(size=11), jnp.float32)
    method = evaluation.insertion if insert else evaluation.flipping

    @jax.jit
    @jax.vmap
    def curves(ids, relevance, where):
        return method(
            lambda ids: table[ids].sum(),
            ids,
            relevance,
            baseline=10,
            steps=(0.0, 0.25, 0.5, 1.0),
            where=where,
        )

    found = curves(ids, relevance, where)
    for i, n in enumerate([4, 3]):
        short = np.asarray(ids[i, :n])
        counts = [int(q * n) for q in (0.0, 0.25, 0.5, 1.0)]
        wanted = by_loop(
            short,
            np.asarray(relevance[i, :n]),
            "morf",
            [c / n for c in counts],
            10,
            insert,
            lambda ids: np.asarray(table)[ids].sum(),
        )
        padding = (6 - n) * float(table[0])
        np.testing.assert_allclose(found.scores[i], wanted + padding, atol=1e-5)
        np.testing.assert_allclose(found.fractions[i], np.array(counts) / n, rtol=1e-6)


def test_traced_number_of_units_has_the_same_counts_as_a_static_one():
    steps = [i / 49 for i in range(50)]

    @jax.jit
    def fractions(x, where):
        return [
            evaluation.flipping(jnp.sum, x, x, steps=steps, where=w).fractions
            for w in (None, where)
        ]

    static, traced = fractions(np.arange(1000.0), np.ones(1000, bool))
    counts = np.array([i * 1000 // 49 for i in range(50)])
    np.testing.assert_array_equal(static, (counts / 1000).astype(np.float32))
    np.testing.assert_allclose(traced, counts / 1000, rtol=1e-6)


def test_many_units_are_counted_where_their_product_with_a_step_overflows():
    n, steps = 300_000, [0.0, 0.9998, 0.9999, 1.0]
    where, x = jnp.ones(n, bool), jnp.zeros(n)
    fractions = jax.jit(
        lambda w: evaluation.flipping(lambda _: 0.0, x, x, steps=steps, where=w)
    )(where).fractions
    counts = np.array([0, 299_940, 299_970, 300_000])  # 9998 n is more than 2**31
    np.testing.assert_allclose(fractions, counts / n, rtol=1e-6)


def test_no_units_that_count_leave_the_input_alone():
    x = jnp.arange(3.0)
    curve = jax.jit(lambda x, w: evaluation.flipping(jnp.sum, x, x, where=w, steps=2))(
        x, jnp.zeros(3, bool)
    )
    assert curve.scores.tolist() == [3, 3, 3] and not curve.fractions.any()
    assert jnp.isnan(evaluation.area(curve))


def test_attention_mask_can_be_flipped():
    values = jnp.array([1.0, 2.0, 6.0])

    def attended(mask):
        weights = jax.nn.softmax(jnp.where(mask > 0, 0.0, -1e9))
        return weights @ values

    mask = jnp.ones(3, jnp.int32)
    curve = evaluation.flipping(attended, mask, values, baseline=0, steps=(0, 1 / 3))
    np.testing.assert_allclose(curve.scores, [3.0, 1.5], rtol=1e-6)


def test_baseline_may_depend_on_what_is_removed():
    def kept_mean(x, removed):
        kept = ~removed
        return jnp.where(kept, x, 0).sum() / jnp.maximum(kept.sum(), 1)

    x = jnp.array([1.0, 2.0, 6.0])
    curve = evaluation.flipping(jnp.sum, x, x, baseline=kept_mean, steps=3)
    np.testing.assert_allclose(curve.scores, [9.0, 4.5, 3.0, 0.0], rtol=1e-6)


def test_score_may_be_several_numbers_and_half_precision_is_widened():
    def score(x):
        return jnp.stack([x.sum(), x.max()])

    x = jnp.array([1.0, 4.0], jnp.bfloat16)
    curve = evaluation.flipping(score, x, x, steps=2)
    assert curve.scores.dtype == jnp.float32
    np.testing.assert_allclose(curve.scores, [[5, 4], [1, 1], [0, 0]])
    np.testing.assert_allclose(evaluation.area(curve), [1.75, 1.5])


def test_areas_are_those_of_the_trapezoidal_rule():
    q = np.array([0.1, 0.2, 0.5, 0.9], np.float32)
    s = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    morf, lerf = (Curve(jnp.tile(q, (3, 1)), jnp.asarray(v)) for v in s)
    wanted = np.array([[trapezoid(q, curve) for curve in half] for half in s])
    np.testing.assert_allclose(evaluation.area(morf), wanted[0], rtol=1e-5)
    np.testing.assert_allclose(
        evaluation.abpc(morf, lerf), wanted[1] - wanted[0], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        evaluation.drop(morf), s[0, :, 0] - wanted[0], rtol=1e-4, atol=1e-6
    )


def test_area_of_batched_curves_of_several_scores():
    q = np.linspace(0, 1, 4, dtype=np.float32)
    s = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    found = evaluation.area(Curve(jnp.tile(q, (2, 1)), jnp.asarray(s)))
    wanted = [[trapezoid(q, s[i, :, k]) for k in range(3)] for i in range(2)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("measure", "insert"),
    [(evaluation.comprehensiveness, False), (evaluation.sufficiency, True)],
)
def test_drops_without_and_with_the_top_units_alone(measure, insert):
    bins = (0.05, 0.1, 0.5)
    tokens = X[0].reshape(24, 2)
    relevance = PIXELS[0].reshape(24, 1)

    def score(x):
        return jnp.square(x).sum() + x[0, 0]

    found = jax.jit(lambda x, r: measure(score, x, r, bins=bins))(tokens, relevance)
    losses = by_loop(tokens, relevance, "morf", bins, 0.0, insert, score)
    np.testing.assert_allclose(found, score(tokens) - losses.mean(), rtol=1e-4)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"relevance": jnp.zeros((4, 6))}, "relevance: got shape"),
        ({"relevance": jnp.zeros((4, 4, 1))}, "relevance: got shape"),
        ({"relevance": "x"}, "relevance: got 'x'"),
        ({"relevance": jnp.zeros((4, 6, 1), complex)}, "relevance: got dtype"),
        ({"baseline": jnp.zeros((5, 1))}, "baseline: got shape"),
        ({"baseline": "blur"}, "baseline: got 'blur'"),
        ({"order": "MoRF"}, "order: got 'MoRF'"),
        ({"steps": 0}, "steps: got 0"),
        ({"steps": (0.5, 0.2)}, "steps: got"),
        ({"steps": (0.5, 1.2)}, "steps: got"),
        ({"steps": ()}, "steps: got"),
        ({"steps": (float("nan"),)}, "steps: got"),
        ({"chunk": 0}, "chunk: got 0"),
        ({"where": jnp.ones((4, 6), bool)}, "where: got shape"),
        ({"where": jnp.ones((4, 6, 1))}, "where: got dtype"),
        ({"score": 3}, "score: got 3"),
    ],
)
def test_bad_arguments_are_named(given, message):
    arguments = {"score": f, "x": X[0], "relevance": PIXELS[0]} | given
    with pytest.raises((TypeError, ValueError), match=message):
        evaluation.flipping(
            arguments.pop("score"),
            arguments.pop("x"),
            arguments.pop("relevance"),
            **arguments,
        )


def test_bad_curves_are_refused():
    with pytest.raises(ValueError, match="single point"):
        evaluation.area(Curve(jnp.zeros(1), jnp.zeros(1)))
    with pytest.raises(TypeError, match="curve: got"):
        evaluation.area(jnp.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="curve: got fractions"):
        evaluation.area(Curve(jnp.zeros(3), jnp.zeros(2)))


@pytest.mark.whole
@pytest.mark.parametrize("how", ["sum", "max", "mean"])
def test_pooling_reduces_blocks(how):
    value = RNG.normal(size=(4, 6, 3)).astype(np.float32)
    found = evaluation.pool(value, (2, 3, -1), how)
    wanted = [
        [
            [getattr(np, how)(value[2 * i : 2 * i + 2, 3 * j : 3 * j + 3])]
            for j in range(2)
        ]
        for i in range(2)
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("window", "how", "message"),
    [
        ((4, 1), "sum", "window: got"),
        ((2,), "sum", "window: got"),
        ((0, 1), "sum", "window: got 0"),
        ((1, 1), "min", "how: got 'min'"),
    ],
)
def test_bad_windows_are_refused(window, how, message):
    with pytest.raises(ValueError, match=message):
        evaluation.pool(jnp.zeros((6, 6)), window, how)


def test_scores_are_logits_probabilities_and_hits():
    logits = np.array([1.0, 3.0, 2.0], np.float32)
    softmax = np.exp(logits) / np.exp(logits).sum()

    @jax.jit
    def scores(target):
        return [
            kind(lambda x: x, target)(logits)
            for kind in (
                evaluation.logit,
                evaluation.probability,
                evaluation.accuracy,
            )
        ]

    for target in range(3):
        wanted = [logits[target], softmax[target], float(target == 1)]
        np.testing.assert_allclose(scores(target), wanted, rtol=1e-6)


def test_scores_of_a_batch_are_refused():
    with pytest.raises(ValueError, match="measures are of one example"):
        evaluation.logit(lambda x: x, 0)(jnp.zeros((2, 3)))
