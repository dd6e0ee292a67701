"""EfficientNet-Lite0: the architecture, its weights, images, and photographs of things.

Most tests have random weights, in the published size or in a tiny one.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

from PIL import Image  # noqa: E402

from examples import efficientnet, photographs  # noqa: E402
from examples.efficientnet import EfficientNetLite, Stage  # noqa: E402

TINY = EfficientNetLite(
    stages=(Stage(1, 3, 1, 1, 4), Stage(2, 5, 2, 2, 6)), stem=4, head=8, classes=5
)


def shapes(network):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    tree = jax.eval_shape(network.init, jax.random.key(0), image)
    return traverse_util.flatten_dict(tree)


def random_tensors(network):
    """Under the file's names, kernels as (outputs, inputs, height, width)."""
    random = np.random.default_rng(0)
    tensors = {}
    for path, leaf in shapes(network).items():
        value = random.standard_normal(leaf.shape, np.float32) / 2
        if path[-1] in ("scale", "var"):
            value = 1 + np.abs(value)
        if path[-1] == "kernel":
            value = value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
        tensors[efficientnet.tensor_name(path)] = value
    return tensors


def test_published_sizes():
    found = shapes(EfficientNetLite())
    assert sum(v.size for k, v in found.items() if k[0] == "params") == 4_652_008
    assert found["params", "stem", "kernel"].shape == (3, 3, 3, 32)
    assert found["params", "block_3", "depthwise", "kernel"].shape == (5, 5, 1, 144)
    assert found["params", "block_15", "project", "kernel"].shape == (1, 1, 1152, 320)
    assert found["params", "classifier", "kernel"].shape == (1280, 1000)
    assert ("params", "block_0", "expand", "kernel") not in found
    assert ("params", "block_16", "project", "kernel") not in found


def test_every_parameter_has_a_name_of_its_own():
    found = [efficientnet.tensor_name(path) for path in shapes(EfficientNetLite())]
    # 49 convolutions, 49 times four numbers of a norm, kernel and bias of the last.
    assert len(set(found)) == len(found) == 49 + 49 * 4 + 2
    assert {
        "_conv_stem.weight",
        "_bn0.running_var",
        "_blocks.0._depthwise_conv.weight",
        "_blocks.1._expand_conv.weight",
        "_blocks.1._bn0.weight",
        "_blocks.15._bn2.bias",
        "_bn1.running_mean",
        "_fc.bias",
    } < set(found)


def convolve(x, kernel, stride):
    """A convolution of one image, padded to SAME, written out; kernel OIHW."""
    outputs, inputs, size, _ = kernel.shape
    groups = x.shape[-1] // inputs
    count = -(-x.shape[0] // stride)
    padding = max((count - 1) * stride + size - x.shape[0], 0)
    before = padding // 2
    x = np.pad(x, [(before, padding - before)] * 2 + [(0, 0)])
    y = np.zeros((count, count, outputs))
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for i, j in np.ndindex(count, count):
            rows = slice(i * stride, i * stride + size)
            columns = slice(j * stride, j * stride + size)
            part = x[rows, columns, first : first + inputs]
            y[i, j, o] = (part * kernel[o].transpose(1, 2, 0)).sum()
    return y


def written_out(x, tensors):
    """The tiny network on one image, in NumPy, from the file's tensors."""

    def normed(x, layer, norm, stride=1):
        y = convolve(x, tensors[f"{layer}.weight"], stride)
        mean, var = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
        y = (y - mean) / np.sqrt(var + 1e-3)
        return y * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"]

    def relu6(x):
        return np.clip(x, 0, 6)

    x = relu6(normed(x, "_conv_stem", "_bn0", 2))
    for block, stride in enumerate((1, 2, 1)):
        name = f"_blocks.{block}."
        h = x
        if block:
            h = relu6(normed(h, f"{name}_expand_conv", f"{name}_bn0"))
        h = relu6(normed(h, f"{name}_depthwise_conv", f"{name}_bn1", stride))
        h = normed(h, f"{name}_project_conv", f"{name}_bn2")
        x = x + h if block != 1 else h
    x = relu6(normed(x, "_conv_head", "_bn1")).mean((0, 1))
    return tensors["_fc.weight"] @ x + tensors["_fc.bias"]


@pytest.mark.parametrize("size", [16, 13])
def test_the_network_is_what_is_written_out(size):
    tensors = random_tensors(TINY)
    params = efficientnet.parameters(TINY, tensors)
    x = 3 * np.random.default_rng(1).standard_normal((size, size, 3), np.float32)
    apply = efficientnet.of_one(TINY)
    found = apply(params, jnp.asarray(x))
    expected = written_out(x.astype(float), tensors)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_tensor_that_is_missing_or_has_another_shape_is_named():
    tensors = random_tensors(TINY)
    name = "_blocks.1._expand_conv.weight"
    with pytest.raises(ValueError, match=f"got no '{name}'"):
        efficientnet.parameters(TINY, {k: v for k, v in tensors.items() if k != name})
    with pytest.raises(ValueError, match="expand_conv.*got shape .*expected"):
        efficientnet.parameters(TINY, tensors | {name: tensors[name][:, :-1]})


def test_pixels_are_normalised_and_restored():
    pixels = np.arange(256, dtype=np.uint8)
    x = efficientnet.normalise(pixels)
    assert x.dtype == np.float32
    assert x[127] == 0 and x[255] == 1
    assert (x.min(), x.max()) == (efficientnet.LOW, efficientnet.HIGH)
    np.testing.assert_array_equal(efficientnet.restore(x), pixels)
    assert efficientnet.restore(np.array([-3.0, 3.0])).tolist() == [0, 255]


def test_the_middle_of_an_image_is_prepared():
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = 255
    image = Image.fromarray(pixels)
    for given in (image, image.transpose(Image.Transpose.ROTATE_90)):
        x = efficientnet.prepare(given)
        assert x.shape == (224, 224, 3)
        assert (x == 1).all()
    assert efficientnet.prepare(image.convert("L")).shape == (224, 224, 3)


def test_classes_have_names():
    names = efficientnet.class_names()
    assert len(set(names)) == 1000
    found = {number: names[number] for number in (0, 285, 840, 967, 999)}
    assert found == {
        0: "tench",
        285: "Egyptian cat",
        840: "swab",
        967: "espresso",
        999: "toilet tissue",
    }


# Photographs


def test_boxes_lie_in_the_image():
    found = photographs.boxes((300, 200))
    assert found[0] == (50, 0, 250, 200)
    assert found[1] == (0, 0, 150, 150) and found[4] == (150, 50, 300, 200)
    assert found[5] == (75, 25, 225, 175)
    assert len(set(found)) == 6


def test_half_of_a_montage_is_one_photograph(tmp_path, monkeypatch):
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255)}
    for name, colour in colours.items():
        Image.new("RGB", (90, 60), colour).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(photographs, "path", lambda photo: tmp_path / photo.file)
    red, blue = (
        photographs.Photograph(name, ("", ""), f"{name}.png") for name in colours
    )
    found = photographs.montage(red, blue, 32)
    assert found.shape == (32, 32, 3)
    assert (found[:, :16] == colours["red"]).all()
    assert (found[:, 16:] == colours["blue"]).all()


def test_the_place_chooses_the_part(tmp_path, monkeypatch):
    pixels = np.zeros((40, 80, 3), np.uint8)
    pixels[:, 60:] = 255
    Image.fromarray(pixels).save(tmp_path / "x.png")
    monkeypatch.setattr(photographs, "path", lambda photo: tmp_path / photo.file)
    photo = photographs.Photograph("x", ("", ""), "x.png", place=1.0)
    assert (photographs.half(photo, 40) == 255).all()
    assert (photographs.half(photo._replace(place=0.0), 40) == 0).all()


def test_what_is_not_installed_is_said():
    photo = photographs.Photograph("x", ("no_such_package", "data"), "x.png")
    with pytest.raises(FileNotFoundError, match="pip install no_such_package"):
        photographs.path(photo)
    photo = photographs.Photograph("x", photographs.SKLEARN, "none.png")
    with pytest.raises(FileNotFoundError, match="expected scikit-learn to have"):
        photographs.path(photo)


# The real weights


@pytest.fixture(scope="module")
def pretrained():
    pytest.importorskip(efficientnet.PACKAGE)
    apply, params = efficientnet.load()
    return lambda x: jax.jit(apply)(params, jnp.asarray(x))


def test_logits_are_those_of_pytorch(pretrained):
    """The same tensors and pixels, through PyTorch's own functions."""
    photo = next(p for p in photographs.PHOTOGRAPHS if p.name == "palace")
    logits = np.asarray(pretrained(efficientnet.prepare(photographs.load(photo))))
    best = np.argsort(-logits)[:5]
    assert best.tolist() == [698, 442, 663, 483, 975]
    # Other versions of Pillow round pixels differently.
    expected = [8.0686, 7.7630, 7.0000, 6.2889, 6.1735]
    np.testing.assert_allclose(logits[best], expected, atol=0.05)


def test_photographs_have_their_classes(pretrained):
    """The label is the first of the network's classes, alone in one half."""
    pytest.importorskip("skimage")
    names = efficientnet.class_names()
    assert len(photographs.KNOWN) == 8
    for photo in photographs.KNOWN:
        grey = np.full((224, 112, 3), 127, np.uint8)
        pixels = np.concatenate([photographs.half(photo, 224), grey], 1)
        logits = pretrained(efficientnet.normalise(pixels))
        assert names[int(logits.argmax())] == photo.label


def test_the_command_names_classes(pretrained, capsys):
    photo = next(p for p in photographs.PHOTOGRAPHS if p.name == "officer")
    efficientnet.main([str(photographs.path(photo))])
    assert capsys.readouterr().out.startswith("grace_hopper.jpg: military uniform ")
