"""Occlusion, against loops over windows and captum's numbers."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import attribution
from tests.models.networks import golden

RNG = np.random.default_rng(6)
W = jnp.asarray(RNG.normal(size=(5, 4, 2, 3)), jnp.float32)
X = jnp.asarray(RNG.normal(size=(3, 5, 4, 2)), jnp.float32)


@jax.jit
def f(x):
    """Logits (..., 3) of images (..., 5, 4, 2)."""
    return jnp.tanh(jnp.einsum("...hwc,hwck->...k", x, W)) * jnp.arange(1.0, 4.0)


def assert_close(value, wanted, rtol=1e-4, atol=1e-5):
    np.testing.assert_allclose(value, wanted, rtol=rtol, atol=atol)


def by_loop(x, window, strides, baseline, target):
    """A mean over windows for one image, cut off at the ends."""
    x = np.asarray(x)
    total, count = np.zeros_like(x), np.zeros_like(x)
    starts = []
    for size, w, s in zip(x.shape, window, strides, strict=True):
        places = [0]
        while places[-1] + w < size:
            places.append(places[-1] + s)
        starts.append(places)
    for corner in itertools.product(*starts):
        place = tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        covered = x.copy()
        covered[place] = np.broadcast_to(baseline, x.shape)[place]
        total[place] += float(f(x)[target] - f(covered)[target])
        count[place] += 1
    return total / count


@pytest.mark.always
@pytest.mark.parametrize(
    ("window", "strides"),
    [
        ((2, 2, 2), (2, 2, 2)),
        ((3, 2, 1), (2, 1, 1)),
        ((2, 3, 2), (1, 3, 1)),
        ((5, 1, 2), (4, 1, 2)),
    ],
)
def test_losses_are_averaged_over_the_windows_that_cover_an_element(window, strides):
    explain = attribution.occlusion(f, window, strides=strides, baseline=0.3, target=1)
    wanted = np.stack([by_loop(x, window, strides, 0.3, 1) for x in X])
    assert_close(explain(X), wanted)
    assert_close(explain(X[0]), wanted[0])
    assert_close(jax.jit(jax.vmap(explain))(X), wanted)


def test_windows_touch_by_default_and_one_stride_is_for_all_axes():
    touching = attribution.occlusion(f, (2, 2, 2))(X)
    assert_close(touching, attribution.occlusion(f, (2, 2, 2), strides=2)(X))


def test_a_window_over_everything_gives_what_the_score_loses_in_all():
    baseline = X[0] + 1
    explain = attribution.occlusion(f, (5, 4, 2), baseline=baseline, target=2)
    loss = f(X)[:, 2] - f(baseline)[2]
    assert_close(explain(X), np.broadcast_to(loss[:, None, None, None], X.shape))


def test_the_class_is_that_of_the_input_whatever_is_covered():
    classes = f(X).argmax(-1)
    wanted = [
        by_loop(x, (2, 4, 2), (2, 4, 2), 5.0, c)
        for x, c in zip(X, classes, strict=True)
    ]
    assert_close(attribution.occlusion(f, (2, 4, 2), baseline=5.0)(X), np.stack(wanted))


@pytest.mark.parametrize("chunk", [1, 3, 20, 1000])
def test_chunks_do_not_matter(chunk):
    whole = attribution.occlusion(f, (2, 1, 2), chunk=12)(X)
    assert_close(attribution.occlusion(f, (2, 1, 2), chunk=chunk)(X), whole)


def test_chunks_bound_the_memory():
    def memory(window):
        explain = attribution.occlusion(f, window, chunk=2)
        x = jnp.zeros((100, 5, 4, 2))
        analysis = jax.jit(explain).lower(x).compile().memory_analysis()
        return analysis.temp_size_in_bytes

    assert memory((1, 1, 1)) < 1.5 * memory((5, 4, 1))


def test_the_function_need_not_be_differentiable():
    def counts(x):
        positive = jax.pure_callback(
            lambda x: (np.asarray(x) > 0).sum(-1).astype(np.float32),
            jax.ShapeDtypeStruct(x.shape[:-1], jnp.float32),
            x,
            vmap_method="broadcast_all",
        )
        return positive[..., None]

    x = jnp.array([[1.0, -1.0, 2.0], [-1.0, -2.0, 3.0]])
    losses = attribution.occlusion(counts, (1,))(x)
    np.testing.assert_array_equal(losses, [[1, 0, 1], [0, 0, 1]])


def test_several_arrays_are_covered_one_after_the_other():
    def g(x):
        return x["a"].prod(-1, keepdims=True) * x["b"]

    x = {"a": jnp.array([[2.0, 3.0]]), "b": jnp.array([[5.0]])}
    losses = attribution.occlusion(g, (1,), baseline={"a": 1.0, "b": 0.0})(x)
    np.testing.assert_array_equal(losses["a"], [[15, 20]])
    np.testing.assert_array_equal(losses["b"], [[30]])


def test_every_example_may_have_several_scores():
    def g(x):  # (batch, token, class)
        return jnp.stack([x, 2 * x], -1)

    x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(attribution.occlusion(g, (2,))(x), [[6, 6], [14, 14]])


def test_occlusion_is_that_of_captum():
    # captum 0.9.0, Occlusion(baselines=0.25 and 0) on the first example of mlp.npz.
    # It divides in float32, whatever the dtype.
    overlapping = [0.0096402112, 0.0149839399, 0.1166980118]
    overlapping += [0.2018013149, 0.0721137226, -0.0463068374]
    cut_off = [0.0672897473] * 3 + [0.1379892528] + [0.2086887509] * 2
    with jax.enable_x64(True):
        g, params, x = golden.mlp()
        explain = attribution.occlusion(g, (2,), strides=1, baseline=0.25)
        assert_close(explain(params, x)[0], overlapping, 2e-7, 1e-10)
        explain = attribution.occlusion(g, (4,), strides=3)
        assert_close(explain(params, x)[0], cut_off, 2e-7, 1e-10)


@pytest.mark.always
def test_occlusion_of_images_is_that_of_captum():
    # captum 0.9.0, Occlusion((3, 5, 4), strides=(3, 3, 2), baselines=0.5) on cnn.npz.
    wanted = [
        [0.2935797572, 0.258140862, 0.487131685, 0.6138662696],
        [0.381121546, 0.3595762551, 0.4804396033, 0.6004058123],
        [0.3476082981, 0.2512812912, 0.2280466408, 0.3926301897],
        [0.1506913453, -0.0146095157, -0.0891257972, 0.1292871237],
    ]
    with jax.enable_x64(True):
        g, params, x = golden.cnn()
        explain = attribution.occlusion(g, (3, 5, 4), strides=(3, 3, 2), baseline=0.5)
        losses = np.asarray(jax.jit(explain)(params, x))
    assert_close(losses[0, 0, ::3, ::3], wanted, 2e-7, 1e-10)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("window", "options", "message"),
    [
        (2, {}, "window: got 2, expected a sequence of ints"),
        ((2, 0, 1), {}, "window: got 0, expected an int >= 1"),
        ((1,) * 5, {}, "window: got .*, expected at most 4 sizes for argument 0"),
        ((2, 2), {}, r"its first 2 axes count examples, but an output .* \(3, 3\)"),
        ((2, 2, 2), {"strides": 3}, "strides: got .* none larger than that"),
        ((2, 2, 2), {"strides": (1, 1)}, "strides: got .* expected one for each"),
        ((2, 2, 2), {"chunk": 0}, "chunk: got 0"),
        ((2, 2, 2), {"baseline": jnp.zeros(7)}, "baseline: got shape"),
    ],
)
def test_bad_windows_are_refused(window, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        attribution.occlusion(f, window, **options)(X)
