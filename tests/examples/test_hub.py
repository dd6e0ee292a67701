"""What the example of the Hugging Face hub does without transformers."""

import math
import struct
import sys

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

from examples import hub  # noqa: E402
from jaxlrp import composites  # noqa: E402

TABLE = jnp.array([[1.0, -1.0], [2.0, 0.5], [-3.0, 4.0]])


def of_text():
    """Scores are sums of the tokens' rows and a bias."""

    def scores(params, ids):
        return params[ids].sum(1) + jnp.array([0.0, 0.25])

    ids = jnp.array([[0, 2, 1]])
    return hub.Task(scores, TABLE, ids, ("a", "<b>", "c"), lambda s: str(s.argmax()))


def of_image():
    def scores(params, pixels):
        return (params * pixels).sum((1, 2, 3))[:, None]

    pixels = jnp.asarray(hub._pixels(None, CONFIG))
    params = jnp.linspace(-1, 1, pixels.size).reshape(pixels.shape)
    return hub.Task(scores, params, pixels, (), lambda s: "noise")


CONFIG = {
    "size": {"height": 6, "width": 4},
    "image_mean": [0.5, 0.25, 0.0],
    "image_std": [0.5, 0.25, 1.0],
}


def test_scores_and_relevances_are_those_of_the_highest():
    scores, relevance = hub.explain(of_text(), composites.AttnLRP())
    np.testing.assert_allclose(scores, [[0.0, 3.75]])
    np.testing.assert_allclose(relevance, [[-1.0, 4.0, 0.5]])


def test_what_is_absorbed_is_not_missing():
    task, composite = of_text(), composites.AttnLRP()
    _, relevance = hub.explain(task, composite)
    assert hub.missing(task, composite, relevance) < 1e-6
    assert hub.missing(task, composite, relevance + 0.5) > 0.1
    assert hub.missing(task, composite, 0 * relevance) == math.inf
    assert hub.missing(task, composite, np.nan * relevance) == math.inf


def test_texts_become_pages_and_images_pictures(tmp_path, monkeypatch):
    tasks = {"bert": of_text(), "vit": of_image()}
    loaders = {k: lambda name, image, k=k: tasks[k] for k in tasks}
    monkeypatch.setattr(hub, "LOAD", loaders)
    monkeypatch.setattr(hub, "COMPOSITES", dict.fromkeys(tasks, composites.AttnLRP()))
    options = hub.Options(out=tmp_path / "out")
    for kind in tasks:
        assert hub.run(kind, "a/name", options) < 1e-4
    page = (options.out / "hub_bert.html").read_text()
    assert "bert: 1" in page and "&lt;b&gt;" in page and "<b>" not in page
    picture = (options.out / "hub_vit.png").read_bytes()
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", picture[16:24]) == (828, 739)


def test_pixels_are_scaled_and_normalised(tmp_path):
    from PIL import Image

    path = tmp_path / "grey.png"
    Image.new("RGB", (3, 3), (255, 0, 51)).save(path)
    pixels = hub._pixels(path, CONFIG)
    assert pixels.shape == (1, 3, 6, 4) and pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0, :, 0, 0], [1.0, -1.0, 0.2], rtol=1e-6)
    assert (pixels == pixels[:, :, :1, :1]).all()


def test_clip_takes_its_old_keywords_for_a_while():
    clip = jnp.clip
    with hub.old_keywords():
        assert jnp.clip(jnp.array(5.0), a_min=0, a_max=2) == 2
        assert jnp.clip(jnp.array(5.0), -1, 3) == 3
        assert jnp.clip(jnp.array(5.0), max=4) == 4
    assert jnp.clip is clip


def test_all_kinds_are_complete():
    tables = (hub.NAMES, hub.COMPOSITES, hub.LOAD, hub.SAVE)
    assert all(tuple(table) == hub.KINDS for table in tables)


def test_transformers_is_asked_for_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match="needs transformers: pip install"):
        hub.main(hub.parse(["--tiny"]))


@pytest.mark.parametrize("line", ["--name x", "bert --tiny --name x", "gpt"])
def test_bad_command_lines_are_refused(line, capsys):
    with pytest.raises(SystemExit):
        hub.parse(line.split())
    assert "error" in capsys.readouterr().err


def test_a_sum_that_is_off_fails(monkeypatch):
    monkeypatch.setattr(hub, "SAVE", dict.fromkeys(hub.KINDS, lambda folder: None))
    monkeypatch.setattr(hub, "run", lambda *_: 0.5)
    with pytest.raises(ArithmeticError, match=r"vit: 50.0% of the score"):
        hub.tiny(hub.Options(tiny=True))
