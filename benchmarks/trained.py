"""Small networks trained here, on digits and on questions whose evidence is known.

Digits are scikit-learn's, real images that it carries. The questions are made up: a
text has eight facts, each a token that stands for a key and its value, and eight words
that say nothing, in random order, and a question, which is a key; the answer is the
value. The token of that fact is the evidence, all that an answer can rest on.

    python -m benchmarks.trained        train all, for all seeds
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import linen as nn
from flax import serialization
from jax import Array
from sklearn.datasets import load_digits

from jaxlrp import _files
from tests.models.architectures import transformers
from tests.models.architectures.transformers import Language, Stack, Text, Vision

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "out" / "trained"

KEYS, VALUES, FACTS, WORDS = 12, 12, 8, 8
QUESTIONS = KEYS * VALUES
"""The first token that is a question; those before it are facts."""
NOTHING = QUESTIONS + KEYS
"""The first token that says nothing."""
VOCABULARY = NOTHING + 12
LENGTH = FACTS + WORDS + 1


class Examples(NamedTuple):
    """Inputs with their classes, and for texts which tokens are the evidence."""

    inputs: Array
    labels: Array
    evidence: Array | None = None


@dataclasses.dataclass(frozen=True)
class Task:
    """A network and what it is trained for.

    Attributes:
      name: of the network.
      module: the network; its output is scores of classes.
      batches: the examples to train with, from a seed, without end.
      test: examples that it is not trained with.
      steps: how many batches it is trained with.
      rate: the highest learning rate.
    """

    name: str
    module: nn.Module
    batches: Callable[[int], Iterator[Examples]]
    test: Callable[[], Examples]
    steps: int
    rate: float


# ---- digits ----------------------------------------------------------------------


@functools.cache
def _digits() -> tuple[Examples, Examples]:
    """(those to train with, those to test with): 8 x 8, one channel, in [-1, 1]."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images[order, ..., None] / 8 - 1).astype(np.float32)
    labels = data.target[order].astype(np.int32)
    split = len(order) * 3 // 4
    first, second = slice(split), slice(split, None)
    return Examples(images[first], labels[first]), Examples(
        images[second], labels[second]
    )


def _images(seed: int, size: int = 128) -> Iterator[Examples]:
    """Digits in random order, each moved by up to one pixel, with a little noise."""
    random = np.random.default_rng(seed)
    images, labels, _ = _digits()[0]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    window = np.arange(8)
    while True:
        chosen = random.integers(0, len(labels), size)
        i, j = random.integers(0, 3, (2, size, 1)) + window
        moved = padded[chosen[:, None, None], i[:, :, None], j[:, None, :]]
        noise = 0.1 * random.standard_normal(moved.shape)
        yield Examples((moved + noise).astype(np.float32), labels[chosen])


class CNN(nn.Module):
    """Convolutions, one max pooling, two dense layers."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.max_pool(x, (2, 2), (2, 2))
        x = nn.relu(nn.Conv(32, (3, 3))(x))
        x = nn.relu(nn.Dense(64)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)


# ---- questions -------------------------------------------------------------------


def questions(seed: int, size: int, last: bool) -> Examples:
    """Texts, and a question that comes first or last."""
    random = np.random.default_rng(seed)
    every = np.tile(np.arange(KEYS), (size, 1))
    keys = random.permuted(every, axis=1)[:, :FACTS]
    values = random.integers(0, VALUES, (size, FACTS))
    words = random.integers(NOTHING, VOCABULARY, (size, WORDS))
    text = np.concatenate([keys * VALUES + values, words], 1)
    asked = np.arange(text.shape[1]) == 0  # the order is random, so the first fact
    order = random.permuted(np.tile(np.arange(text.shape[1]), (size, 1)), axis=1)
    text, evidence = np.take_along_axis(text, order, 1), asked[order]
    question = QUESTIONS + keys[:, :1]
    parts = [text, question] if last else [question, text]
    marks = [evidence, 0 * question] if last else [0 * question, evidence]
    return Examples(
        np.concatenate(parts, 1).astype(np.int32),
        values[:, 0].astype(np.int32),
        np.concatenate(marks, 1).astype(bool),
    )


def _texts(seed: int, last: bool, size: int = 128) -> Iterator[Examples]:
    number = 0
    while True:
        yield questions(hash((seed, number)) % 2**31, size, last)
        number += 1


ENCODER = Stack(32, 2, 4, 64, where="post", final=False)
DECODER = Stack(
    32,
    2,
    4,
    64,
    groups=2,
    norm="rms",
    activation="silu",
    gated=True,
    bias=False,
    causal=True,
    theta=1e4,
)

TASKS = {
    task.name: task
    for task in (
        Task("CNN", CNN(), _images, lambda: _digits()[1], 1000, 2e-3),
        Task(
            "ViT",
            transformers.ViT(Vision(Stack(64, 2, 4, 128), 8, 2, 10)),
            _images,
            lambda: _digits()[1],
            3000,
            2e-3,
        ),
        Task(
            "encoder",
            transformers.TextEncoder(
                Text(ENCODER, VOCABULARY, LENGTH, LENGTH, 0, VALUES)
            ),
            functools.partial(_texts, last=False),
            functools.partial(questions, 10**6, 512, last=False),
            1200,
            3e-3,
        ),
        Task(
            "decoder",
            transformers.Decoder(Language(DECODER, VOCABULARY, LENGTH)),
            functools.partial(_texts, last=True),
            functools.partial(questions, 10**6, 512, last=True),
            1200,
            3e-3,
        ),
    )
}
"""The networks, by name."""


def train(task: Task, seed: int) -> Any:
    """The parameters after training."""
    batches = task.batches(seed)
    params = task.module.init(jax.random.key(seed), next(batches).inputs)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, task.rate, task.steps // 20, task.steps
    )
    optimizer = optax.adamw(schedule, weight_decay=1e-2)

    def loss(params: Any, inputs: Array, labels: Array) -> Array:
        scores = task.module.apply(params, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()

    @jax.jit
    def update(params: Any, state: Any, inputs: Array, labels: Array) -> Any:
        value, gradient = jax.value_and_grad(loss)(params, inputs, labels)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    for _, (inputs, labels, _) in zip(range(task.steps), batches, strict=False):
        params, state, _ = update(params, state, inputs, labels)
    return params


def accuracy(task: Task, params: Any) -> float:
    inputs, labels, _ = task.test()
    scores = jax.jit(task.module.apply)(params, inputs)
    return float((scores.argmax(-1) == labels).mean())


def trained(name: str, seed: int, folder: Path = KEPT) -> Any:
    """The parameters of a task, trained once and kept."""
    path = folder / f"{name}-{seed}.msgpack"
    task = TASKS[name]
    like = jax.eval_shape(
        task.module.init, jax.random.key(seed), next(task.batches(seed)).inputs
    )
    if path.exists():
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        return serialization.from_bytes(zeros, path.read_bytes())
    params = jax.device_get(train(task, seed))
    _files.write(path, serialization.to_bytes(params), folders=True)
    return params


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trained")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args(argv)
    for name in options.tasks:
        for seed in range(options.seeds):
            start = time.perf_counter()
            params = trained(name, seed)
            seconds = time.perf_counter() - start
            reached = accuracy(TASKS[name], params)
            print(f"{name} {seed}: accuracy {reached:.3f}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
