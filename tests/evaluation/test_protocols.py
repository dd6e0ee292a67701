"""Published evaluations, against loops that follow the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp.evaluation import baselines, protocols

RNG = np.random.default_rng(5)
K = 3
W = RNG.normal(size=(8, 8, 2, K)).astype(np.float32) / 4
X = RNG.normal(size=(4, 8, 8, 2)).astype(np.float32)
R = RNG.normal(size=(4, 8, 8, 2)).astype(np.float32)
LABELS = np.array([0, 1, 2, 0])


def f(x):
    return jnp.tanh(jnp.einsum("hwc,hwck->k", x, W, precision="highest"))


def logits(x):
    return np.tanh(np.einsum("hwc,hwck->k", x, W))


def probabilities(x):
    e = np.exp(logits(x))
    return e / e.sum()


SCORES = {
    "logit": lambda x, t: logits(x)[t],
    "probability": lambda x, t: probabilities(x)[t],
    "accuracy": lambda x, t: float(logits(x).argmax() == t),
}


def trapezoid(q, s):
    return sum((q[i + 1] - q[i]) * (s[i] + s[i + 1]) / 2 for i in range(len(q) - 1))


def removed_in_steps(x, heat, fill, size, largest, patch=1):
    """The images after each step of `size` units, in the order of `heat`."""
    first = np.argsort(-heat.reshape(-1) if largest else heat.reshape(-1))
    changed, found = x.copy(), []
    for k in range(len(first) // size):
        for unit in first[k * size : (k + 1) * size]:
            i, j = (p * patch for p in np.unravel_index(unit, heat.shape))
            changed[i : i + patch, j : j + patch] = fill[i : i + patch, j : j + patch]
        found.append(changed.copy())
    return found


@pytest.mark.always
@pytest.mark.parametrize("score", ["accuracy", "logit"])
@pytest.mark.parametrize("patch", [None, 2])
def test_dynamiclrp_over_a_dataset_is_four_times_the_gap_of_mean_curves(patch, score):
    size = 6 if patch is None else 3

    @jax.jit
    @jax.vmap
    def measured(x, r, t):
        return protocols.dynamiclrp(
            f, x, r, t, patch=patch, step=size, kernel=5, sigma=2.0, score=score
        )

    found = jax.tree.map(lambda v: v.mean(0), measured(X, R, LABELS))
    curves = {}
    for name, largest in (("morf", True), ("lerf", False)):
        per_image = []
        for x, r, t in zip(X, R, LABELS, strict=True):
            heat = np.abs(r).sum(-1)
            if patch:
                heat = heat.reshape(4, 2, 4, 2).max((1, 3))
            fill = np.asarray(baselines.blur(x, 5, 2.0))
            images = removed_in_steps(x, heat, fill, size, largest, patch or 1)
            per_image.append([SCORES[score](image, t) for image in [x, *images]])
        curves[name] = np.mean(per_image, 0)
    steps = len(curves["morf"]) - 1
    assert steps == (10 if patch is None else 5)
    x_axis = np.arange(steps + 1) * 4
    area = {name: trapezoid(x_axis, s) / steps for name, s in curves.items()}
    whole = trapezoid(x_axis, np.full(steps + 1, curves["morf"][0])) / steps
    wanted = {
        "abpc": area["lerf"] - area["morf"],
        "comprehensiveness": whole - area["morf"],
        "sufficiency": whole - area["lerf"],
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["morf"].scores, curves["morf"], atol=1e-4)


def test_dynamiclrp_is_49_steps_at_the_size_of_imagenet():
    x = jax.ShapeDtypeStruct((224, 224, 3), jnp.float32)

    def run(x, patch):
        return protocols.dynamiclrp(lambda x: x[0, 0], x, x, 0, patch=patch)

    for patch in (None, 16):
        result = jax.eval_shape(lambda x, p=patch: run(x, p), x)
        assert result["morf"].fractions.shape == (50,)


def test_dynamiclrp_with_channels_first_is_the_same():
    moved = [np.moveaxis(v[0], -1, 0) for v in (X, R)]
    options = dict(patch=2, step=4, kernel=3, sigma=1.0, score="logit")

    def first(x):
        return f(jnp.moveaxis(x, 0, -1))

    @jax.jit
    def both(x, r):
        return (
            protocols.dynamiclrp(f, X[0], R[0], 1, **options)["abpc"],
            protocols.dynamiclrp(first, x, r, 1, channel_axis=0, **options)["abpc"],
        )

    last, moved_there = both(*moved)
    np.testing.assert_allclose(last, moved_there, rtol=1e-4, atol=1e-5)


def test_attnlrp_is_the_gap_of_the_logit():
    relevance = R[0].sum(-1, keepdims=True)
    found = jax.jit(lambda x, r: protocols.attnlrp(f, x, r, 2, baseline=0.0, steps=8))(
        X[0], relevance
    )
    wanted = 0.0
    zeros = np.zeros_like(X[0])
    for largest in (False, True):
        images = removed_in_steps(X[0], relevance[..., 0], zeros, 8, largest)
        scores = [logits(x)[2] for x in [X[0], *images]]
        wanted += (-1 if largest else 1) * trapezoid(np.arange(9) / 8, scores)
    np.testing.assert_allclose(found["abpc"], wanted, rtol=1e-3, atol=1e-5)


def test_chefer_is_the_mean_accuracy_from_a_tenth_to_nine_tenths():
    black = np.array([-0.5, -1.0], np.float32)

    @jax.jit
    @jax.vmap
    def measured(x, r, t):
        return protocols.chefer(f, x, r, t, black=black)

    found = measured(X, R, LABELS)
    for i in range(len(X)):
        for name, sign in (("positive", 1), ("negative", -1)):
            heat = sign * R[i].sum(-1).reshape(-1)
            hits = []
            for tenth in range(1, 10):
                top = np.argsort(-heat)[: int(64 * tenth / 10)]
                image = X[i].reshape(64, 2).copy()
                image[top] = black
                hits.append(SCORES["accuracy"](image.reshape(8, 8, 2), LABELS[i]))
            # int(64 tenths / 10) pixels are not exactly tenths of 64.
            q = np.array([int(64 * tenth / 10) / 64 for tenth in range(1, 10)])
            wanted = trapezoid(q, hits) / (q[-1] - q[0])
            np.testing.assert_allclose(found[name][i], wanted, rtol=1e-5)


def test_eraser_of_padded_sequences_is_that_of_the_short_ones():
    table = RNG.normal(size=(9, K)).astype(np.float32)
    ids = np.array([[1, 2, 3, 4, 5, 0], [6, 7, 8, 0, 0, 0]])
    relevance = RNG.normal(size=ids.shape).astype(np.float32)
    bins = (0.2, 0.4, 0.5)

    def classify(ids):
        return jnp.where((ids > 0)[:, None], jnp.asarray(table)[ids], 0).sum(0)

    @jax.jit
    @jax.vmap
    def measured(ids, r):
        return protocols.eraser(
            classify, ids, r, 1, baseline=0, bins=bins, where=ids > 0
        )

    found = measured(ids, relevance)
    for i, n in enumerate((5, 3)):

        def p(kept, i=i):
            z = table[ids[i][list(kept)]].sum(0) if len(kept) else np.zeros(K)
            return np.exp(z[1]) / np.exp(z).sum()

        order = np.argsort(-relevance[i, :n])
        counts = [int(q * n + 1e-6) for q in bins]
        comp = np.mean([p(range(n)) - p(order[k:]) for k in counts])
        suff = np.mean([p(range(n)) - p(order[:k]) for k in counts])
        np.testing.assert_allclose(found["comprehensiveness"][i], comp, atol=1e-5)
        np.testing.assert_allclose(found["sufficiency"][i], suff, atol=1e-5)


def test_rise_is_the_area_of_deletion_and_insertion():
    step = 10  # does not divide 64: the last step has four pixels
    found = protocols.rise(f, X[0], R[0], 1, step=step, kernel=5, sigma=1.0)
    blur = np.asarray(baselines.blur(X[0], 5, 1.0, padding="zero"))
    order = np.argsort(-R[0].sum(-1).reshape(-1))
    for name, start, finish in (
        ("deletion", X[0], np.zeros_like(X[0])),
        ("insertion", blur, X[0]),
    ):
        image = start.reshape(64, 2).copy()
        scores = [probabilities(start)[1]]
        for k in range(0, 64, step):
            at = order[k : k + step]
            image[at] = finish.reshape(64, 2)[at]
            scores.append(probabilities(image.reshape(8, 8, 2))[1])
        np.testing.assert_allclose(found[name].scores, scores, rtol=1e-3)
        q = np.array([*range(0, 64, step), 64]) / 64
        auc = trapezoid(q, scores)
        np.testing.assert_allclose(found[f"{name}_auc"], auc, rtol=1e-3)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: protocols.chefer(f, X, R, 0), "x: got shape"),
        (lambda: protocols.rise(f, X[0], R[0], 0, channel_axis=3), "channel_axis: got"),
        (lambda: protocols.dynamiclrp(f, X[0], R[0], 0), "step: got 1024"),
        (
            lambda: protocols.dynamiclrp(f, X[0], R[0], 0, step=1, score="hits"),
            "score: got 'hits'",
        ),
        (
            lambda: protocols.dynamiclrp(f, X[0], R[0], 0, patch=3),
            "window: got",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
