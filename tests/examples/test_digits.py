"""The digits example from end to end, in a reduced form, and its small parts."""

import dataclasses
import html.parser
import struct

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("tqdm")

from examples import digits, digits_report  # noqa: E402

COUNT = 48


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """The folder that a short run leaves, and what it found out."""
    out = tmp_path_factory.mktemp("digits") / "out"
    options = digits.parse(
        f"--out {out} --epochs 6 --images {COUNT} --batch-size 20".split()
    )
    return out, digits.run(options)


@pytest.fixture(scope="module")
def arrays(products):
    with np.load(products[0] / "relevances.npz") as file:
        return dict(file)


def test_leaves_three_files_and_no_other(products):
    out, _ = products
    names = sorted(path.name for path in out.iterdir())
    assert names == ["heatmaps.png", "relevances.npz", "report.html"]


def test_arrays_have_the_documented_shapes(arrays):
    assert {name: array.shape for name, array in arrays.items()} == {
        "images": (COUNT, 8, 8),
        "labels": (COUNT,),
        "logits": (COUNT, 10),
        "relevance": (COUNT, 10, 8, 8),
        "predicted": (COUNT,),
        "most_confused": (COUNT,),
        "gradient_times_input": (COUNT, 8, 8),
    }
    assert all(np.isfinite(array).all() for array in arrays.values())
    assert np.array_equal(arrays["predicted"], arrays["logits"].argmax(-1))
    assert (arrays["most_confused"] != arrays["labels"]).all()


def test_relevance_sums_to_the_logits_up_to_the_biases(arrays):
    total, logits = arrays["relevance"].sum((2, 3)), arrays["logits"]
    assert np.corrcoef(total.ravel(), logits.ravel())[0, 1] > 0.95
    scale = np.abs(logits.max(-1)).mean()
    assert np.abs(total - logits).mean() < 0.15 * scale
    # The gradient does not: layer normalisation takes the contrast out.
    gradient = arrays["gradient_times_input"].sum((1, 2))
    assert np.abs(gradient).mean() < 0.15 * scale


def test_classes_are_explained_differently(arrays):
    relevance = arrays["relevance"].reshape(COUNT, 10, 64)
    assert all(np.linalg.matrix_rank(maps) == 10 for maps in relevance)


def test_audit_agrees_with_the_arrays(products, arrays):
    audit = products[1].audit
    predicted = digits.of_class(arrays["relevance"], arrays["predicted"])
    np.testing.assert_allclose(audit.total_out, arrays["logits"].max(-1).sum(), 1e-4)
    np.testing.assert_allclose(audit.total_in, predicted.sum(), 1e-3)
    rest = audit.total_out - audit.total_in - sum(audit.absorbed.values())
    assert abs(rest) < 1e-2 * abs(audit.total_out)


def test_training_was_of_use_and_lrp_beats_chance(products):
    _, results = products
    assert results.accuracy > 0.8
    lrp, chance = results.faithfulness["LRP"], results.faithfulness["random"]
    assert lrp.between[0] > chance.between[0] + 0.2
    assert set(digits.COMPOSITES) | {"forward", "value_and_grad"} == set(results.cost)


class Outline(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects pictures and text."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.sources.append(dict(attrs)["src"])
        if tag not in ("img", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_report_is_well_formed_self_contained_and_has_the_numbers(products):
    out, results = products
    outline = Outline()
    page = (out / "report.html").read_text(encoding="utf-8")
    outline.feed(page)
    outline.close()
    assert outline.open == []
    assert len(outline.sources) == 6
    assert all(s.startswith("data:image/png;base64,") for s in outline.sources)
    assert "http" not in page.replace("http-equiv", "")
    text = " ".join(outline.text)
    for number in (
        digits_report.percent(results.accuracy),
        digits_report.percent(results.audit.total_in / results.audit.total_out),
        digits_report.number(results.relative_cost, 2),
        digits_report.number(results.faithfulness["LRP"].between[0], 2),
    ):
        assert number in text
    assert all(name in text for name in digits.COMPOSITES)
    assert "nan" not in text.lower().split()


def test_picture_is_a_png_of_readable_size(products):
    content = (products[0] / "heatmaps.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert 800 < width < 2000 and 800 < height < 2000


def test_the_same_seed_gives_the_same_network():
    options = digits.Options(epochs=1)
    data = digits.load(options)
    runs = []
    for _ in range(2):
        apply, params = digits.build(options.seed)
        params = digits.train(apply, params, data, options)
        runs.append(np.asarray(apply(params, data.test_images[0])))
    np.testing.assert_array_equal(*runs)


def test_panel_without_errors_shows_the_least_certain_image(products):
    """An accuracy of 100 % must not break the report."""
    _, results = products
    perfect = dataclasses.replace(
        results, labels=results.predicted, errors=np.array([3])
    )
    assert digits_report.errors(perfect)[:4] == b"\x89PNG"
    pictures = dict.fromkeys(digits_report.figures(perfect), b"\x89PNG" * 8)
    assert "makes no error" in digits_report.page(perfect, pictures, 1.0)


def test_most_confused_is_the_best_wrong_class():
    logits = np.array([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert digits.most_confused(logits, np.array([0, 1])).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("value", "digits_", "text"),
    [(1234.56, 1, "1\N{THIN SPACE}234.6"), (-0.04, 1, "0.0"), (-2.5, 1, "−2.5")],
)
def test_numbers_are_written_for_readers(value, digits_, text):
    assert digits_report.number(value, digits_) == text
