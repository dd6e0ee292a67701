"""Photographs that packages carry, for the networks of the examples.

They are read where the packages are installed, and none is kept here: those of
scikit-image (most of them CC0; `skimage.data` says whose they are), scikit-learn
(CC BY 2.0, see its `datasets/images/README.txt`) and matplotlib (in the public domain).
No photograph is ImageNet's.
"""

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

SKIMAGE = "skimage", "data"
SKLEARN = "sklearn", "datasets/images"
MATPLOTLIB = "matplotlib", "mpl-data/sample_data"
PIP = {"skimage": "scikit-image", "sklearn": "scikit-learn"}


class Photograph(NamedTuple):
    """A photograph, and what a network of ImageNet's classes sees in it.

    Attributes:
      name: what is to be seen.
      folder: a package and a folder in it.
      file: in that folder.
      label: the class of the object; None where ImageNet has none.
      place: where the object is, from 0, at the left or upper end, to 1.
    """

    name: str
    folder: tuple[str, str]
    file: str
    label: str | None = None
    place: float = 0.5


# Every photograph, those of textures and through instruments too. Of the stereo pair
# of a motorcycle the left one is taken.
PHOTOGRAPHS = (
    Photograph("cat", SKIMAGE, "chelsea.png", "Egyptian cat"),
    Photograph("coffee", SKIMAGE, "coffee.png", "espresso"),
    Photograph("motorcycle", SKIMAGE, "motorcycle_left.png", "moped", 0.25),
    Photograph("camera", SKIMAGE, "camera.png", "tripod", 0.75),
    Photograph("palace", SKLEARN, "china.jpg", "palace", 0.25),
    Photograph("flower", SKLEARN, "flower.jpg", "daisy"),
    Photograph("officer", MATPLOTLIB, "grace_hopper.jpg", "military uniform"),
    Photograph("rocket", SKIMAGE, "rocket.jpg", "missile"),
    Photograph("astronaut", SKIMAGE, "astronaut.png"),
    Photograph("clock", SKIMAGE, "clock_motion.png"),
    Photograph("coins", SKIMAGE, "coins.png"),
    Photograph("brick", SKIMAGE, "brick.png"),
    Photograph("grass", SKIMAGE, "grass.png"),
    Photograph("gravel", SKIMAGE, "gravel.png"),
    Photograph("moon", SKIMAGE, "moon.png"),
    Photograph("galaxies", SKIMAGE, "hubble_deep_field.jpg"),
    Photograph("retina", SKIMAGE, "retina.jpg"),
    Photograph("tissue", SKIMAGE, "ihc.png"),
)
KNOWN = tuple(photo for photo in PHOTOGRAPHS if photo.label is not None)


def path(photo: Photograph) -> Path:
    """Where a photograph lies; its package is found, not imported.

    Raises:
      FileNotFoundError: if the package is not installed, or does not have it.
    """
    package, folder = photo.folder
    found = importlib.util.find_spec(package)
    name = PIP.get(package, package)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"{photo.file}: needs {name}; pip install {name}")
    at = Path(found.origin).parent / folder / photo.file
    if not at.exists():
        raise FileNotFoundError(f"{at}: expected {name} to have this file")
    return at


def load(photo: Photograph) -> Image.Image:
    """A photograph in colours; gray ones have three equal channels."""
    with Image.open(path(photo)) as image:
        return image.convert("RGB")


Box = tuple[float, float, float, float]
"""Left, upper, right and lower end of a part of an image, in pixels."""


def boxes(size: tuple[int, int], part: float = 0.75) -> list[Box]:
    """Six squares of an image: the largest in the middle, and five smaller ones.

    These have `part` of its side; they lie in the image's corners and in its middle.
    """
    width, height = size
    whole = min(size)
    small = part * whole
    places = [(0.5, 0.5, whole), *((x, y, small) for x in (0, 1) for y in (0, 1))]
    return [
        box(size, (side, side), (x, y)) for x, y, side in [*places, (0.5, 0.5, small)]
    ]


def box(
    size: tuple[int, int], inner: tuple[float, float], place: tuple[float, float]
) -> Box:
    """A box of the size `inner`, from 0, at the left or upper end, to 1."""
    left, upper = (p * (s - i) for p, s, i in zip(place, size, inner, strict=True))
    return left, upper, left + inner[0], upper + inner[1]


def cut(image: Image.Image, box: Box, size: tuple[int, int]) -> np.ndarray:
    """A part of an image in another size, (width, height): pixels from 0 to 255."""
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box))


def half(photo: Photograph, size: int) -> np.ndarray:
    """A part that is twice as high as wide, where the object is: "size size/2 3"."""
    image = load(photo)
    high = min(image.height, 2 * image.width)
    place = (photo.place, 0.5)
    part = box(image.size, (high / 2, high), place)
    return cut(image, part, (size // 2, size))


def montage(left: Photograph, right: Photograph, size: int) -> np.ndarray:
    """Two photographs side by side, one half each: pixels from 0 to 255."""
    return np.concatenate([half(left, size), half(right, size)], 1)
