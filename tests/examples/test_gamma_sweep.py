"""The gamma sweep, in a reduced form, against explanations one by one."""

import jax
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

import jaxlrp  # noqa: E402
from examples import digits, gamma_sweep  # noqa: E402
from jaxlrp import composites, rules  # noqa: E402


@pytest.fixture(scope="module")
def products(tmp_path_factory, compiled_well):
    """The folder that a short run leaves, and what it found out."""
    out = tmp_path_factory.mktemp("sweep") / "out"
    options = gamma_sweep.parse(f"--out={out} --epochs 8 --images 12".split())
    return out, gamma_sweep.run(options)


def test_leaves_a_picture_and_no_other_file(products):
    out, _ = products
    assert [path.name for path in out.iterdir()] == ["gamma_sweep.png"]
    assert (out / "gamma_sweep.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_gamma_leads_from_epsilon_to_positive_maps(products):
    _, results = products
    count = len(gamma_sweep.GAMMAS)
    assert results.relevance.shape == (count, 8, 8)
    assert results.faithfulness.shape == results.negative.shape == (count, 12)
    negative = results.negative.mean(1)
    assert negative[0] > 0.05 and negative[-1] < 0.01
    assert (np.diff(negative) < 1e-4).all()
    assert abs(negative[0] - results.at_zero[1]) < 0.02
    assert (results.faithfulness.mean(1) > 0.1).all()


def test_sweep_gives_what_single_calls_give():
    apply, params = digits.build(0)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    gammas = np.array([0.0, 0.1, 10.0], np.float32)
    relevance, faithful, negative = gamma_sweep.sweep(apply)(params, images, gammas)
    assert faithful.shape == (2, 3)
    for i, gamma in enumerate(gammas):
        composite = composites.Uniform(rules.GeneralizedGamma(float(gamma)))
        explain = jax.vmap(jaxlrp.lrp(apply, composite), (None, 0))
        expected = np.asarray(jax.jit(explain)(params, images))[..., 0]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(relevance[:, i], expected, atol=1e-4 * scale)
        share = -np.minimum(expected, 0).sum((1, 2)) / np.abs(expected).sum((1, 2))
        np.testing.assert_allclose(negative[:, i], share, atol=1e-4)


def test_faithfulness_is_the_area_between_the_flipping_curves():
    """A network of one layer: a pixel's relevance is what wiping it out costs."""

    def apply(params, image):
        return (image * params).sum() * np.array([1.0, 0.0], np.float32)

    weights = np.arange(1.0, 65.0, dtype=np.float32).reshape(8, 8, 1)
    image = np.ones((1, 8, 8, 1), np.float32)
    sweep = gamma_sweep.sweep(apply)
    _, faithful, negative = sweep(weights, image, np.zeros(1, np.float32))
    up = np.concatenate([[0.0], np.cumsum(weights)])[gamma_sweep.FLIPS]
    down = np.concatenate([[0.0], np.cumsum(weights.ravel()[::-1])])[gamma_sweep.FLIPS]
    area = np.trapezoid(down - up, gamma_sweep.FLIPS) / 64 / weights.sum()
    np.testing.assert_allclose(faithful, area, rtol=1e-4)
    np.testing.assert_allclose(negative, 0.0)
