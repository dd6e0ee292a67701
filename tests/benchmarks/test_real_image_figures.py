"""Pictures of photographs: what is drawn is what was explained."""

import io

import numpy as np
import pytest

pytest.importorskip("matplotlib")

import jax.numpy as jnp  # noqa: E402
from PIL import Image  # noqa: E402

from benchmarks.real import image_figures, images  # noqa: E402
from examples import efficientnet  # noqa: E402
from jaxlrp import composites  # noqa: E402

PIXELS = np.full((16, 16, 3), 200, np.uint8)


def linear(params, x):
    """Class 0 is the left half, class 1 the right half."""
    middle = x.shape[1] // 2
    return jnp.stack([x[:, :middle].sum(), x[:, middle:].sum()]) * params


NETWORK = images.Network(linear, jnp.float32(1.0))
METHODS = (
    images.lrp("one", composites.Default()),
    images.lrp("two", composites.EpsilonPlus()),
)


def test_maps_are_sums_over_channels_of_each_method_and_class():
    x = efficientnet.normalise(PIXELS)
    found = image_figures.maps(NETWORK, METHODS, x, [1, 0])
    assert found.shape == (2, 2, 16, 16)
    expected = np.where(np.arange(16) >= 8, x.sum(-1), 0)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(found[1, 1], expected[:, ::-1], rtol=1e-5)


def test_the_picture_is_small_and_red_where_a_class_is():
    names = efficientnet.class_names()[:2]
    drawn = image_figures.picture(NETWORK, PIXELS, names, METHODS[:1])
    with Image.open(io.BytesIO(drawn)) as image:
        assert image.format == "WEBP"
        colors = np.asarray(image.convert("RGB")).astype(int)
    assert len(drawn) < image_figures.LARGEST
    strong = (colors[..., 0] > 100) & (colors[..., 1:] < 60).all(-1)
    # The map is the right half of the picture, the first class its upper half.
    rows, columns = np.nonzero(strong)
    height, width = strong.shape
    assert (columns > width / 2).all()
    upper, lower = columns[rows < height / 3], columns[rows > 2 * height / 3]
    assert upper.size and lower.size and upper.max() < lower.min()


def test_a_class_without_a_name_is_refused():
    with pytest.raises(ValueError):
        image_figures.picture(NETWORK, PIXELS, ["no such class"], METHODS)


def test_the_command_draws_all_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(images, "pretrained", lambda: NETWORK)
    pictures = {"a.png": (lambda: PIXELS, efficientnet.class_names()[:2])}
    monkeypatch.setattr(image_figures, "PICTURES", pictures)
    monkeypatch.setattr(image_figures, "METHODS", METHODS)
    image_figures.main(["--out", str(tmp_path / "out")])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.png"]
    assert capsys.readouterr().out == f"{tmp_path / 'out' / 'a.png'}\n"
    monkeypatch.setattr(image_figures, "LARGEST", 10)
    with pytest.raises(ValueError, match="at most 10"):
        image_figures.main(["--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
