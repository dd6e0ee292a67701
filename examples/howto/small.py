"""Small networks, trained in seconds on data that is at hand; the how-tos explain them.

None of this is about relevance: in your own program, your model stands here.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def train(
    model: Any, loss: Callable, *data: Any, steps: int = 150, rate: float = 5e-3
) -> Any:
    """Minimises `loss(model, *data)` with Adam, all data in each step."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimiser = optax.adam(rate)

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        grads = jax.grad(lambda p: loss(nnx.merge(graph, p, rest), *data))(params)
        updates, state = optimiser.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    start = params, optimiser.init(params)
    run = jax.jit(lambda start: jax.lax.scan(step, start, None, steps)[0])
    return nnx.merge(graph, run(start)[0], rest)


def error(model: Any, x: Any, labels: Any) -> jax.Array:
    return cross_entropy(model(x), labels).mean()


# ---- images ------------------------------------------------------------------------


class Classifier(nnx.Module):
    """Two convolutions and a dense layer."""

    def __init__(self, rngs: nnx.Rngs):
        self.edges = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.parts = nnx.Conv(8, 16, (3, 3), rngs=rngs)
        self.scores = nnx.Linear(16 * 16, 10, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.edges(images))
        x = nnx.max_pool(nnx.relu(self.parts(x)), (2, 2), strides=(2, 2))
        return self.scores(x.reshape(len(x), -1))


@functools.cache
def digits(train_on: int = 600) -> tuple[Classifier, np.ndarray, np.ndarray]:
    """A classifier of handwritten digits, and images and labels it has not seen."""
    bunch: Any = load_digits()
    images = (bunch.images[..., None] / 16).astype(np.float32)
    model = Classifier(nnx.Rngs(0))
    model = train(model, error, images[:train_on], bunch.target[:train_on])
    return model, images[train_on:], bunch.target[train_on:]


class Finder(nnx.Module):
    """A class for each pixel, and for each of 16 boxes a score and its place."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 12, (3, 3), rngs=rngs)
        self.second = nnx.Conv(12, 12, (5, 5), rngs=rngs)
        self.classes = nnx.Conv(12, 3, (1, 1), rngs=rngs)
        self.boxes = nnx.Conv(12, 3 + 4, (4, 4), strides=4, rngs=rngs)

    def __call__(self, images: jax.Array) -> dict[str, jax.Array]:
        x = nnx.relu(self.second(nnx.relu(self.first(images))))
        found = self.boxes(x).reshape(len(x), -1, 7)
        return {
            "pixels": self.classes(x),
            "scores": found[..., :3],
            "boxes": found[..., 3:],
        }


@functools.cache
def shapes(count: int = 64) -> tuple[Finder, np.ndarray, np.ndarray]:
    """A finder of squares (1) and crosses (2), images, and the class of each pixel."""
    draw = np.random.default_rng(0)
    images = draw.normal(0, 0.1, (count, 16, 16, 1)).astype(np.float32)
    classes = np.zeros((count, 16, 16), int)
    square = np.ones((4, 4), bool)
    cross = np.eye(4, dtype=bool) | np.eye(4, dtype=bool)[::-1]
    for image, of in zip(images, classes, strict=True):
        for k, left in ((1, 0), (2, 8)):
            i, j = draw.integers(0, 12), left + draw.integers(0, 4)
            where = square if k == 1 else cross
            image[i : i + 4, j : j + 4, 0] += where
            of[i : i + 4, j : j + 4] = np.where(where, k, 0)
    cells = classes.reshape(count, 4, 4, 4, 4).max((2, 4)).reshape(count, 16)

    def both(model: Any, images: Any) -> jax.Array:
        out = model(images)
        pixels = cross_entropy(out["pixels"], jnp.array(classes)).mean()
        return pixels + cross_entropy(out["scores"], jnp.array(cells)).mean()

    return train(Finder(nnx.Rngs(0)), both, images, rate=1e-2), images, classes


# ---- text --------------------------------------------------------------------------

OPINIONS = {"good": 1, "great": 1, "lovely": 1, "bad": 0, "dull": 0, "awful": 0}
THINGS = ("film", "plot", "music", "cast")
PLACES = {"paris": "france", "rome": "italy", "oslo": "norway", "cairo": "egypt"}
WORDS = ("the", "is", "in", "not", ".", *OPINIONS, *THINGS, *PLACES, *PLACES.values())


def ids(text: str) -> jax.Array:
    return jnp.array([WORDS.index(word) for word in text.split()])


class Transformer(nnx.Module):
    """One layer of attention, and a dense one; causal where it writes."""

    def __init__(self, outputs: int, causal: bool, rngs: nnx.Rngs):
        self.embed = nnx.Embed(len(WORDS), 24, rngs=rngs)
        self.places = nnx.Embed(16, 24, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 24, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(24, rngs=rngs)
        self.hidden = nnx.Linear(24, 48, rngs=rngs)
        self.scores = nnx.Linear(48, outputs, rngs=rngs)
        self.causal = causal

    def __call__(self, ids: jax.Array) -> jax.Array:
        return self.classify(self.embed(ids))

    def classify(self, embedded: jax.Array) -> jax.Array:
        length = embedded.shape[-2]
        x = embedded + self.places(jnp.arange(length))
        mask = jnp.tril(jnp.ones((1, length, length), bool)) if self.causal else None
        x = x + self.attention(self.norm(x), mask=mask)
        x = x if self.causal else x.mean(-2)
        return self.scores(nnx.gelu(self.hidden(x)))


@functools.cache
def opinions() -> Transformer:
    """It tells praise (1) from blame (0), and knows what "not" does."""
    plain = [f"the {thing} is {word} ." for thing in THINGS for word in OPINIONS]
    turned = [text.replace(" is ", " is not ") for text in plain]
    praise = jnp.array([k for _ in THINGS for k in OPINIONS.values()])
    texts = [jnp.stack(list(map(ids, group))) for group in (plain, turned)]

    def loss(model: Any) -> jax.Array:
        return error(model, texts[0], praise) + error(model, texts[1], 1 - praise)

    return train(Transformer(2, False, nnx.Rngs(0)), loss)


@functools.cache
def writer() -> Transformer:
    """A language model that has read where some towns are."""
    facts = [f"{town} is in {land} ." for town, land in PLACES.items()]
    texts = jnp.stack([ids(f"{a} {b}") for a in facts for b in facts])

    def loss(model: Any, texts: jax.Array) -> jax.Array:
        return cross_entropy(model(texts[:, :-1]), texts[:, 1:]).mean()

    return train(Transformer(len(WORDS), True, nnx.Rngs(0)), loss, texts)


# ---- series and tables -------------------------------------------------------------


class Reader(nnx.Module):
    """An LSTM that reads a series and judges it at its end."""

    def __init__(self, features: int, rngs: nnx.Rngs):
        self.cell = nnx.RNN(nnx.LSTMCell(features, 12, rngs=rngs))
        self.scores = nnx.Linear(12, 2, rngs=rngs)

    def __call__(self, series: jax.Array) -> jax.Array:
        start = jnp.zeros((*series.shape[:-2], 12))
        states = self.cell(series, initial_carry=(start, start))
        return self.scores(states[..., -1, :])


SENSORS = ("pressure", "flow", "heat")


@functools.cache
def alarms(count: int = 96) -> tuple[Reader, np.ndarray]:
    """Did the pressure have a peak (1)? With series of three sensors."""
    draw = np.random.default_rng(0)
    time = np.arange(32)
    series = draw.normal(0, 0.25, (count, 32, 3)) + np.sin(time / 4)[:, None] / 2
    labels = np.arange(count) % 2
    for one, label in zip(series, labels, strict=True):
        peak = 2 * np.exp(-(((time - draw.integers(6, 26)) / 1.5) ** 2))
        one[:, 0 if label else 1] += peak
    series = series.astype(np.float32)
    model = train(Reader(3, nnx.Rngs(0)), error, series, labels, rate=2e-2)
    return model, series[labels == 1]


class Risk(nnx.Module):
    """The risk of a patient, from numbers and from the town, which is an index."""

    def __init__(self, rngs: nnx.Rngs):
        self.town = nnx.Embed(4, 4, rngs=rngs)
        self.hidden = nnx.Linear(6, 16, rngs=rngs)
        self.risk = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, patient: dict[str, jax.Array]) -> jax.Array:
        numbers = jnp.stack([patient["age"] / 100, patient["dose"]], -1)
        x = jnp.concatenate([numbers, self.town(patient["town"])], -1)
        return self.risk(nnx.relu(self.hidden(x)))


@functools.cache
def patients(count: int = 200) -> tuple[Risk, dict[str, jax.Array]]:
    """A model of risk, and its table."""
    draw = np.random.default_rng(0)
    age, dose = draw.uniform(20, 90, count), draw.uniform(0, 2, count)
    town = draw.integers(0, 4, count)
    risk = age / 30 - dose * (age < 50) + (town == 2)
    table = {
        "age": jnp.array(age, jnp.float32),
        "dose": jnp.array(dose, jnp.float32),
        "town": jnp.array(town),
    }

    def loss(model: Any, table: Any) -> jax.Array:
        return ((model(table)[:, 0] - risk) ** 2).mean()

    return train(Risk(nnx.Rngs(0)), loss, table, rate=1e-2), table
