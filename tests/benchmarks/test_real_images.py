"""The measures of explanations of images say what they should, where that is known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from PIL import Image  # noqa: E402

from benchmarks.real import images  # noqa: E402
from benchmarks.real.images import Crops, Montages, Network  # noqa: E402
from examples import efficientnet, photographs  # noqa: E402
from jaxlrp import composites  # noqa: E402

SIZE = 16


def linear(params, x):
    """Class 0 is the left half's red, class 1 the right half's green."""
    middle = x.shape[1] // 2
    return jnp.stack([x[:, :middle, 0].sum(), x[:, middle:, 1].sum()]) * params


NETWORK = Network(linear, jnp.float32(2.0), unit=4)
DEFAULT = images.lrp("", composites.Default()).make(linear)


@pytest.fixture(scope="module")
def found():
    inputs = np.random.default_rng(0).uniform(0.1, 1, (3, SIZE, SIZE, 3))
    return Crops(jnp.float32(inputs), jnp.array([0, 1, 0]), np.array([0, 0, 1]))


@pytest.fixture(scope="module")
def pairs(found):
    return Montages(found.inputs[:2], jnp.array([[0, 1], [0, 1]]))


def by_hand(x, target, order):
    """The scores as patches of 4 by 4, in their order, get the mean colour."""
    units = [(i, j) for i in range(4) for j in range(4)]
    channel, columns = target, slice(0, 8) if target == 0 else slice(8, 16)

    def score(x):
        return 2 * x[:, columns, channel].sum()

    def worth(unit):
        i, j = unit
        inside = np.zeros_like(x)
        inside[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = 1
        return score(x * inside)

    ranked = sorted(units, key=worth, reverse=order == "morf")
    mean, scores, fractions = x.mean((0, 1)), [], []
    for step in images.STEPS:
        count = int(np.floor(step * 16 + 1e-9))
        gone = x.copy()
        for i, j in ranked[:count]:
            gone[4 * i : 4 * i + 4, 4 * j : 4 * j + 4] = mean
        scores.append(score(gone))
        fractions.append(count / 16)
    return np.trapezoid(scores, fractions)


def test_the_area_is_that_by_hand(found):
    relevance = images.explained(NETWORK, DEFAULT, found.inputs, found.targets)
    areas = images.abpc(NETWORK, found, relevance)
    for i in range(3):
        x, target = np.asarray(found.inputs[i], float), int(found.targets[i])
        expected = by_hand(x, target, "lerf") - by_hand(x, target, "morf")
        # Scores of about 150, in single precision.
        assert areas[i] == pytest.approx(expected, abs=5e-4)
    assert (areas > 0.1).all()
    opposite = images.abpc(NETWORK, found, -relevance)
    np.testing.assert_allclose(opposite, -areas, atol=5e-4)
    np.testing.assert_array_equal(images.abpc(NETWORK, found, 0 * relevance), 0)


def test_a_right_explanation_lies_in_the_half_of_its_class():
    left = np.zeros((2, 4, 6, 3))
    left[:, :, :3] = 1.0
    right = left[:, :, ::-1]
    np.testing.assert_array_equal(images.halves(left, right), 1)
    np.testing.assert_array_equal(images.halves(right, left), 0)
    both = np.ones_like(left)
    np.testing.assert_allclose(images.halves(both, both), 0.5)


def test_what_speaks_against_a_class_is_left_out():
    relevance = np.ones((1, 4, 6, 3))
    relevance[:, :, 3:] = -5.0
    np.testing.assert_array_equal(images.halves(relevance, relevance), [[1, 0]])
    # Of a pixel it is the sum over its channels that counts.
    relevance[..., 3:, 0] = 11.0
    np.testing.assert_allclose(images.halves(relevance, relevance), [[0.75, 0.25]])
    np.testing.assert_array_equal(images.halves(-relevance, 0 * relevance), 0)


def test_maps_of_two_classes_are_alike_or_not():
    a = np.random.default_rng(0).standard_normal((2, 5, 5, 3))
    np.testing.assert_allclose(images.alike(a, 3 * a), 1, atol=1e-6)
    np.testing.assert_allclose(images.alike(a, -a), 1, atol=1e-6)
    left, right = a.copy(), a.copy()
    left[:, :, 2:], right[:, :, :2] = 0, 0
    assert (images.alike(left, right) < 0).all()
    np.testing.assert_allclose(images.correlation(a, 2 * a + 1), 1, atol=1e-6)
    assert np.isnan(images.correlation(a, np.ones_like(a))).all()


def test_all_measures_of_a_right_explanation(found, pairs):
    measures = images.measure(NETWORK, DEFAULT, found, pairs)
    assert measures["ABPC"].shape == (3,) and (measures["ABPC"] > 0).all()
    np.testing.assert_allclose(measures["half"], np.ones((2, 2)))
    assert (measures["same"] < 0).all()
    for name in ("gradient", "size", "kept"):
        np.testing.assert_allclose(measures[name], np.ones(3), rtol=1e-5)
    assert measures["seconds"] > 0


def test_an_explanation_that_is_twice_too_large_and_cancels(found, pairs):
    def explain(params, x, target):
        relevance = DEFAULT(params, x, target)
        return 3 * relevance - jnp.roll(relevance, SIZE // 2, 1)

    measures = images.measure(NETWORK, explain, found, pairs)
    np.testing.assert_allclose(measures["kept"], 2, rtol=1e-5)
    np.testing.assert_allclose(measures["size"], 4, rtol=1e-5)


def test_only_images_of_which_the_network_is_sure_count():
    inputs = np.zeros((3, SIZE, SIZE, 3), np.float32)
    inputs[1, :, 8:, 1] = 1.0
    found = images.sure(NETWORK, inputs, [4, 5, 6], least=0.9)
    assert found.groups.tolist() == [5] and found.targets.tolist() == [1]
    assert found.inputs.shape == (1, SIZE, SIZE, 3)
    assert len(images.sure(NETWORK, inputs, [4, 5, 6], least=0.4).groups) == 3


def test_errors_are_those_of_a_mean_over_photographs():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    mean, error = images.mean_and_error(values, np.arange(4))
    assert (mean, error) == pytest.approx((4.0, values.std(ddof=1) / 2))
    # The same crop six times says no more than once.
    again = images.mean_and_error(np.repeat(values, 6), np.repeat(np.arange(4), 6))
    assert again == pytest.approx((mean, error))
    assert np.isnan(images.mean_and_error(values, np.zeros(4))[1])


@pytest.mark.parametrize("method", images.METHODS, ids=lambda m: f"{m.side} {m.name}")
def test_methods_explain_a_network_of_images(method):
    network = efficientnet.EfficientNetLite(
        stages=(efficientnet.Stage(2, 3, 1, 2, 4),), stem=4, head=4, classes=3
    )
    x = jax.ShapeDtypeStruct((SIZE, SIZE, 3), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    explain = method.make(efficientnet.of_one(network))
    found = jax.eval_shape(explain, params, x, jax.ShapeDtypeStruct((), jnp.int32))
    assert found.shape == x.shape


def test_methods_have_names_of_their_own():
    names = [(method.side, method.name) for method in images.METHODS]
    assert len(set(names)) == len(names)


def test_random_relevance_depends_on_the_image_and_the_class(found):
    explain = images.METHODS[0].make(linear)
    a = explain(None, found.inputs[0], jnp.int32(0))
    assert (a == explain(None, found.inputs[0], jnp.int32(0))).all()
    assert (a != explain(None, found.inputs[0], jnp.int32(1))).any()
    assert (a != explain(None, found.inputs[1], jnp.int32(0))).any()


def test_the_command_measures_and_keeps_a_record(tmp_path, monkeypatch, capsys):
    """On pictures that are made here: red photographs and green ones."""
    for name, colour in {"red": (250, 130, 130), "green": (130, 250, 130)}.items():
        noise = np.random.default_rng(0).integers(-9, 5, (60, 80, 3))
        pixels = np.uint8(np.array(colour) + noise)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    photos = tuple(
        photographs.Photograph(name, ("", ""), f"{name}.png", label)
        for name, label in {"red": "tench", "green": "goldfish"}.items()
    )
    monkeypatch.setattr(photographs, "path", lambda photo: tmp_path / photo.file)
    monkeypatch.setattr(photographs, "PHOTOGRAPHS", photos)
    monkeypatch.setattr(photographs, "KNOWN", photos)
    network = Network(linear, jnp.float32(1e-3), unit=112)
    monkeypatch.setattr(images, "pretrained", lambda: network)
    record = tmp_path / "out" / "record.json"
    images.main(["--methods", "jaxlrp Default", "random", "--record", str(record)])
    rows = json.loads(record.read_text())
    assert [row["method"] for row in rows] == ["random", "Default"]
    default = rows[1]
    assert len(default["each"]) == 12 and len(default["halves"]) == 1
    # Class 0 is tench, a red fish on the left.
    assert default["half"] == pytest.approx(1) and default["kept"] == pytest.approx(1)
    said = capsys.readouterr().out
    assert said.startswith("12 crops, 1 montages\n")
    assert said.index("| Default |") > said.index("| random |")
    assert said.rindex("| Default |") < said.rindex("| random |")
