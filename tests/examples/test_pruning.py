"""The pruning example from end to end, in a reduced form, and its small parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

import jaxlrp  # noqa: E402
from examples import digits, pruning  # noqa: E402


@pytest.fixture(scope="module")
def products(tmp_path_factory, compiled_well):
    """The folder that a short run leaves, and what it found out."""
    out = tmp_path_factory.mktemp("pruning") / "out"
    short = "--epochs 8 --networks 1 --references 4 --images 200"
    return out, pruning.run(pruning.parse([f"--out={out}", *short.split()]))


@pytest.fixture(scope="module")
def network():
    """An untrained network, whose norms' shifts are not zero."""
    apply, params = digits.build(0)
    return apply, jax.tree.map(lambda p: p + 0.1, params)


def test_leaves_a_picture_and_no_other_file(products):
    out, _ = products
    assert [path.name for path in out.iterdir()] == ["pruning.png"]
    assert (out / "pruning.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_relevance_tells_what_can_go(products):
    _, results = products
    half = list(pruning.SPARSITIES).index(0.5)
    for curves in results.values():
        assert set(curves) == set(pruning.CRITERIA)
        whole = {runs[0, 0] for runs in curves.values()}
        assert len(whole) == 1 and whole.pop() > 0.8
        assert curves["relevance"][0, half] > curves["random"][0, half] + 0.15


def test_table_has_the_numbers(products):
    _, results = products
    lines = pruning.table(results).splitlines()
    assert len(lines) == 2 + len(pruning.SPARSITIES)
    shown = [float(cell) for cell in lines[2 + 5].split()[1:]]
    expected = [
        100 * results[kind][c][0, 5]
        for kind in ("weights", "filters")
        for c in pruning.CRITERIA
    ]
    np.testing.assert_allclose(shown, expected, atol=0.06)


def test_reference_relevance_is_a_mean_over_images(network):
    apply, params = network
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)
    labels = np.array([3, 1, 4, 1])
    weights, passed = pruning.reference_relevance(apply, 2)(params, images, labels)

    @jax.jit
    def explain(params, x, k):
        relevance = jaxlrp.parameter_relevance(apply, pruning.COMPOSITE, target=k)
        return relevance(params, x)

    single = [explain(params, x, k) for x, k in zip(images, labels, strict=True)]
    kernels = np.stack([pruning.kernel_of(r, "block1", "conv") for r in single])
    np.testing.assert_allclose(
        pruning.kernel_of(weights, "block1", "conv"),
        np.abs(kernels).mean(0),
        rtol=1e-3,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        pruning.kernel_of(passed, "block1", "conv"),
        np.abs(kernels.sum((1, 2, 3))).mean(0),
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.95])
def test_weights_of_the_lowest_scores_go_and_biases_stay(network, sparsity):
    _, params = network
    scores = jax.tree.map(jnp.abs, params)
    masks = pruning.weight_masks(params, scores, sparsity)
    pairs = list(zip(jax.tree.leaves(scores), jax.tree.leaves(masks), strict=True))
    gone = np.concatenate([s[~m] for s, m in pairs])
    kept = np.concatenate([s[m] for s, m in pairs if s.ndim > 1])
    assert abs(len(gone) / (len(gone) + len(kept)) - sparsity) < 1e-3
    assert gone.size == 0 or gone.max() < kept.min()
    assert all(m.all() for s, m in pairs if s.ndim == 1)


def test_a_removed_filter_leaves_nothing_behind_its_block(network):
    apply, params = network
    widths = {**dict.fromkeys(pruning.BLOCKS, 16), "hidden": 64}
    scores = {name: np.arange(1.0, n + 1) for name, n in widths.items()}
    scores["stem"] = np.r_[np.zeros(8), np.full(8, 100.0)]
    masks = pruning.filter_masks(params, scores, 8 / sum(widths.values()))
    kept = jax.tree.map(jnp.multiply, params, masks)
    assert not np.asarray(kept["stem"]["conv"]["kernel"][...])[..., :8].any()
    assert not np.asarray(kept["stem"]["norm"]["bias"][...])[:8].any()
    for name in ("block1", "block2", "hidden", "logits"):
        for p, q in zip(
            jax.tree.leaves(kept[name]), jax.tree.leaves(params[name]), strict=True
        ):
            np.testing.assert_array_equal(p, q)
    # Behind the block the first channels are zero whatever reads them.
    image = jnp.ones((8, 8, 1))
    changed = jax.tree.map(lambda p: p, kept)
    kernel = changed["block1"]["conv"]["kernel"][...]
    changed["block1"]["conv"]["kernel"][...] = kernel.at[:, :, :8].set(7.0)
    np.testing.assert_array_equal(apply(kept, image), apply(changed, image))


def test_reference_images_are_of_each_class():
    labels = np.array([*range(10), *range(10), *range(10)])
    chosen = pruning.of_each_class(labels, 2)
    assert np.bincount(labels[chosen]).tolist() == [2] * 10
    assert chosen.max() < 20
