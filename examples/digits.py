"""Explain a small network for handwritten digits, from data to report.

Trains a convolutional network on the digits that come with scikit-learn, explains
every test image with one compiled `jaxlrp.value_and_lrp`, and leaves three files in
`out/`:

    relevances.npz   images, labels, logits and one relevance map for each class
    heatmaps.png     one digit of each class with its relevance
    report.html      accuracy, conservation, faithfulness, cost, errors explained

Run it from the root of the repository:

    python examples/digits.py
"""

import argparse
import dataclasses
import io
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import jaxlrp
from jaxlrp import _files, composites, rules

if not __package__:  # run as a script: `examples` is found from the root
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples import digits_figures, digits_report

CLASSES = 10
PIXELS = 64
# Ink is +1 and paper is -1, so that paper can be evidence too: relevance is a
# product with the pixel, and a pixel of value 0 could not receive any. 0 is grey,
# "no information", and what a flipped pixel is set to.
INK, GREY, PAPER = 1.0, 0.0, -1.0

COMPOSITES = {
    "epsilon": composites.Epsilon(),
    "epsilon-plus": composites.EpsilonPlus(),
    "epsilon-plus-flat": composites.EpsilonPlusFlat(),
    "epsilon-gamma-box": composites.EpsilonGammaBox(low=PAPER, high=INK),
    # Normalised features have both signs, for which this form of gamma is made.
    "gamma": composites.Epsilon().on("convolution", rules.GeneralizedGamma(0.15)),
}

Params = Any
Apply = Callable[[Params, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line can change."""

    out: Path = Path("out")
    epochs: int = 30
    seed: int = 0
    composite: str = "epsilon"
    images: int | None = None  # explain only the first so many test images
    batch_size: int = 128


@dataclasses.dataclass(frozen=True)
class Data:
    """Images in [-1, 1], "images height width 1", and their labels, "images"."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


# The network


class Block(nnx.Module):
    """Convolution, layer normalisation over the channels, GELU."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        self.conv = nnx.Conv(inputs, outputs, (3, 3), rngs=rngs)
        self.norm = nnx.LayerNorm(outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return nnx.gelu(self.norm(self.conv(x)))


class Network(nnx.Module):
    """Three convolutions, two of them residual, and two dense layers."""

    def __init__(self, rngs: nnx.Rngs, width: int = 16):
        self.stem = Block(1, width, rngs)
        self.block1 = Block(width, width, rngs)
        self.block2 = Block(width, width, rngs)
        self.hidden = nnx.Linear(4 * 4 * width, 64, rngs=rngs)
        self.logits = nnx.Linear(64, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.stem(x)
        x = x + self.block1(x)
        x = nnx.max_pool(x, (2, 2), strides=(2, 2))
        x = x + self.block2(x)
        x = nnx.gelu(self.hidden(x.reshape(-1)))
        return self.logits(x)


def build(seed: int) -> tuple[Apply, Params]:
    """A plain function of parameters and one image, and the first parameters."""
    graphdef, params, rest = nnx.split(Network(nnx.Rngs(seed)), nnx.Param, ...)

    def apply(params: Params, image: jax.Array) -> jax.Array:
        return nnx.merge(graphdef, params, rest)(image)

    return apply, params


# Data and training


def load(options: Options) -> Data:
    """The 1797 digits of scikit-learn, 30 % of each class kept for testing."""
    digits: Any = load_digits()
    images = PAPER + (INK - PAPER) * digits.images.astype(np.float32)[..., None] / 16
    labels = digits.target.astype(np.int32)
    split: Any = train_test_split(
        images, labels, test_size=0.3, stratify=labels, random_state=options.seed
    )
    train_images, test_images, train_labels, test_labels = split
    return Data(
        train_images,
        train_labels,
        test_images[: options.images],
        test_labels[: options.images],
    )


def train(
    apply: Apply, params: Params, data: Data, options: Options, batch_size: int = 64
) -> Params:
    """AdamW on the cross-entropy; one `scan` for each epoch.

    Noise on the training images keeps the network from relying on single pixels.
    """
    steps = len(data.train_images) // batch_size
    schedule = optax.cosine_decay_schedule(3e-3, options.epochs * steps)
    optimiser = optax.adamw(schedule, weight_decay=1e-2)

    def loss(params: Params, images: jax.Array, labels: jax.Array) -> jax.Array:
        logits = jax.vmap(apply, (None, 0))(params, images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry, batch):
        (params, state, key), (images, labels) = carry, batch
        key, now = jax.random.split(key)
        noisy = images + 0.3 * jax.random.normal(now, images.shape)
        grads = jax.grad(loss)(params, noisy, labels)
        updates, state = optimiser.update(grads, state, params)
        return (optax.apply_updates(params, updates), state, key), None

    @jax.jit
    def epoch(carry, images, labels):
        return jax.lax.scan(step, carry, (images, labels))[0]

    rng = np.random.default_rng(options.seed)
    carry = (params, optimiser.init(params), jax.random.key(options.seed))
    for _ in range(options.epochs):
        order = rng.permutation(len(data.train_images))[: steps * batch_size]
        order = order.reshape(steps, batch_size)
        carry = epoch(carry, data.train_images[order], data.train_labels[order])
    return jax.block_until_ready(carry[0])


# Explaining


def all_relevance(apply: Apply, composite: Any) -> Callable:
    """Logits and one relevance map per class, for a batch of images, compiled."""

    def one_class(params: Params, image: jax.Array, target: jax.Array):
        return jaxlrp.value_and_lrp(apply, composite, target=target)(params, image)

    # The logits do not depend on the class: the forward pass is shared.
    all_classes = jax.vmap(one_class, (None, None, 0), out_axes=(None, 0))

    def one_image(params: Params, image: jax.Array):
        return all_classes(params, image, jnp.arange(CLASSES))

    return jax.jit(jax.vmap(one_image, (None, 0)))


def in_batches(
    f: Callable, params: Params, images: np.ndarray, batch_size: int, name: str
) -> Any:
    """`f(params, images)` in batches of one size: one program serves them all."""
    outputs = []
    with tqdm(total=len(images), unit="image", desc=name) as progress:
        for first in range(0, len(images), batch_size):
            batch = images[first : first + batch_size]
            missing = batch_size - len(batch)
            padded = np.pad(batch, [(0, missing)] + [(0, 0)] * (batch.ndim - 1))
            outputs.append(jax.device_get(f(params, padded)))
            progress.update(len(batch))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(images)], *outputs)


def of_class(relevance: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """From 'images classes ...' the maps of one class per image, 'images ...'."""
    return relevance[np.arange(len(classes)), classes]


def most_confused(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The class with the highest logit among the wrong ones."""
    wrong = logits.copy()
    wrong[np.arange(len(labels)), labels] = -np.inf
    return wrong.argmax(-1)


def gradient_times_input(apply: Apply) -> Callable:
    """The gradient of the highest logit times the image, for a batch, compiled."""

    def one_image(params: Params, image: jax.Array):
        return image * jax.grad(lambda image: apply(params, image).max())(image)

    return jax.jit(jax.vmap(one_image, (None, 0)))


def highest_relevance(apply: Apply, composite: Any) -> Callable:
    """Logits and the relevance of the highest, for a batch of images, compiled."""
    return jax.jit(jax.vmap(jaxlrp.value_and_lrp(apply, composite), (None, 0)))


# Measuring


def flipping(apply: Apply, flips: np.ndarray) -> Callable:
    """Pixel flipping: softmax and logit of the predicted class after `flips` pixels.

    The returned function takes parameters, images and a ranking of pixels for each
    image (highest first) and returns Float[Array, 'images flips 2'].
    """

    def one_image(params: Params, image: jax.Array, ranking: jax.Array):
        predicted = apply(params, image).argmax()
        place = jnp.argsort(jnp.argsort(-ranking.ravel())).reshape(image.shape)

        def after(count: jax.Array):
            logits = apply(params, jnp.where(place < count, GREY, image))
            return jnp.stack([jax.nn.softmax(logits), logits])[:, predicted]

        return jax.vmap(after)(jnp.asarray(flips))

    return jax.jit(jax.vmap(one_image, (None, 0, 0)))


def measure_faithfulness(
    apply: Apply,
    params: Params,
    images: np.ndarray,
    rankings: dict[str, np.ndarray],
    flips: np.ndarray,
) -> dict[str, digits_figures.Flipped]:
    """Curves of every method, most relevant first and least relevant first."""
    flip = flipping(apply, flips)

    def curves(ranking: np.ndarray) -> digits_figures.Flipped:
        morf = np.asarray(flip(params, images, ranking))
        lerf = np.asarray(flip(params, images, -ranking))
        # The mean height between the curves: 'images 2'.
        between = np.trapezoid(lerf - morf, flips, axis=1) / flips[-1]
        error = between.std(0) / np.sqrt(len(images))
        return digits_figures.Flipped(
            morf.mean(0), lerf.mean(0), between.mean(0), 1.96 * error
        )

    return {name: curves(ranking) for name, ranking in rankings.items()}


def measure_cost(
    apply: Apply,
    params: Params,
    images: np.ndarray,
    explainers: dict[str, Callable],
    rounds: int = 15,
) -> dict[str, float]:
    """Median seconds for one batch, all compiled, measured in turn."""

    def highest(params: Params, image: jax.Array):
        logits = apply(params, image)
        return logits.max(), logits

    gradient = jax.value_and_grad(highest, argnums=1, has_aux=True)
    functions = {
        "forward": jax.jit(jax.vmap(apply, (None, 0))),
        "value_and_grad": jax.jit(jax.vmap(gradient, (None, 0))),
    } | explainers
    batch = jnp.asarray(images)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, f in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(f(params, batch))
            seconds[name].append(time.perf_counter() - start)
    # The first round compiles.
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


# Writing


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    return buffer.getvalue()


def choose(labels: np.ndarray) -> np.ndarray:
    """The first test image of each class: nobody picked them."""
    return np.unique(labels, return_index=True)[1]


def run(options: Options) -> digits_report.Results:
    """The whole job: load, train, explain, measure, write."""
    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    composite = COMPOSITES[options.composite]

    data = load(options)
    apply, params = build(options.seed)
    params = train(apply, params, data, options)
    images, labels = data.test_images, data.test_labels
    batch_size = min(options.batch_size, len(images))

    explaining = time.perf_counter()
    logits, relevance = in_batches(
        all_relevance(apply, composite), params, images, batch_size, "explaining"
    )
    explaining = time.perf_counter() - explaining
    relevance = relevance[..., 0]  # images classes height width
    predicted, confused = logits.argmax(-1), most_confused(logits, labels)
    print(f"accuracy on {len(labels)} test images: {np.mean(predicted == labels):.1%}")

    maps = {"LRP": of_class(relevance, predicted)}
    maps["gradient x input"] = np.asarray(
        gradient_times_input(apply)(params, images)[..., 0]
    )
    rng = np.random.default_rng(options.seed)
    maps["random"] = rng.permuted(
        np.broadcast_to(np.arange(PIXELS, dtype=np.float32), (len(images), PIXELS)),
        axis=1,
    ).reshape(len(images), 8, 8)
    explainers = {name: highest_relevance(apply, c) for name, c in COMPOSITES.items()}
    others = {
        name: in_batches(f, params, images, batch_size, name)[1][..., 0]
        for name, f in explainers.items()
        if name != options.composite
    }
    flips = np.arange(0, PIXELS + 1, 2)
    faithfulness = measure_faithfulness(apply, params, images, maps | others, flips)
    cost = measure_cost(apply, params, images[:batch_size], explainers)
    audit = jaxlrp.audit(jax.vmap(apply, (None, 0)), composite)(params, images)

    wrong = np.flatnonzero(predicted != labels)
    least_sure = np.argsort(np.sort(logits, -1)[:, -1] - np.sort(logits, -1)[:, -2])
    results = digits_report.Results(
        composite=options.composite,
        network=Network.__doc__ or "",
        train_size=len(data.train_images),
        images=images[..., 0],
        labels=labels,
        logits=logits,
        relevance=relevance,
        confused=confused,
        gradient_times_input=maps["gradient x input"],
        others=others,
        examples=choose(labels),
        errors=wrong if len(wrong) else least_sure[:1],
        flips=flips,
        faithfulness=faithfulness,
        cost=cost,
        cost_batch=batch_size,
        seconds_explaining=explaining,
        audit=audit,
        environment=(
            f"Python {platform.python_version()}, JAX {jax.__version__}, "
            f"{jax.default_backend()} with {os.cpu_count()} cores"
        ),
    )
    arrays = {
        "images": images[..., 0],
        "labels": labels,
        "logits": logits,
        "relevance": relevance,
        "predicted": predicted,
        "most_confused": confused,
        "gradient_times_input": maps["gradient x input"],
    }
    figures = digits_report.figures(results)
    page = digits_report.page(results, figures, time.perf_counter() - start)
    products = {
        "relevances.npz": npz(arrays),
        "heatmaps.png": figures["heatmaps"],
        "report.html": page.encode(),
    }
    for name, content in products.items():
        _files.write(options.out / name, content)
        print(f"wrote {options.out / name} ({len(content) / 1e6:.1f} MB)")
    print(f"finished in {time.perf_counter() - start:.0f} s")
    print("pretrained networks, on photographs, letters and words: make real")
    return results


def parse(arguments: list[str] | None = None) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(
        description="Explain a small network for handwritten digits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=defaults.out, help="folder")
    parser.add_argument(
        "--epochs", type=int, default=defaults.epochs, help="of training"
    )
    parser.add_argument(
        "--seed", type=int, default=defaults.seed, help="of split and training"
    )
    parser.add_argument(
        "--composite", choices=sorted(COMPOSITES), default=defaults.composite
    )
    parser.add_argument(
        "--images", type=int, default=defaults.images, help="test images, all if unset"
    )
    parser.add_argument(
        "--batch-size", type=int, default=defaults.batch_size, help="of explanations"
    )
    return Options(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    run(parse())
