"""Pairs of prompts that differ in one token, and the answers to both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from examples.smollm import Loaded

NAMES = (
    *("Anna", "John", "Mary", "Tom", "James", "Paul", "Peter", "David", "Sarah"),
    *("Emma", "Alice", "Bob", "Jack", "Kate", "Laura", "Mark", "Lucy", "Henry"),
    *("Simon", "Adam", "Ben", "Sam", "George", "Martin", "Robert", "Michael"),
    *("Daniel", "William", "Charles", "Jane", "Helen", "Susan", "Maria", "Max"),
)

CAPITALS = {
    **{"France": "Paris", "Germany": "Berlin", "England": "London"},
    **{"Greece": "Athens", "Cuba": "Havana", "Norway": "Oslo", "Italy": "Rome"},
    **{"Japan": "Tokyo", "Egypt": "Cairo", "China": "Beijing", "Spain": "Madrid"},
    **{"Poland": "Warsaw", "Russia": "Moscow", "Sweden": "Stockholm"},
    **{"Ireland": "Dublin", "Kenya": "Nairobi", "Peru": "Lima", "Chile": "Santiago"},
    **{"Iran": "Tehran", "Iraq": "Baghdad", "Canada": "Ottawa", "Austria": "Vienna"},
    **{"Portugal": "Lisbon", "Belgium": "Brussels", "Denmark": "Copenhagen"},
    **{"Hungary": "Budapest", "Syria": "Damascus", "Finland": "Helsinki"},
}


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of prompts of one length.

    Attributes:
      clean: token ids, `Int[np.ndarray, "pairs tokens"]`.
      corrupt: the same with other tokens in one place or more.
      answers: of either, `Int[np.ndarray, "pairs 2"]`.
      start: the first position in which they differ.
      texts: both prompts, for showing.
    """

    clean: np.ndarray
    corrupt: np.ndarray
    answers: np.ndarray
    start: int
    texts: tuple[tuple[str, str], ...]


def _pairs(model: Loaded, texts: list[tuple[str, str]], answers: list) -> Pairs:
    """The same as ids; all prompts must have one length, all answers be one token."""
    clean, corrupt = (
        np.array([model.ids(pair[i]) for pair in texts]) for i in range(2)
    )
    ids = [[model.ids(f" {word}") for word in pair] for pair in answers]
    differ = (clean != corrupt).any(0)
    return Pairs(
        clean,
        corrupt,
        np.array(ids)[..., 0],
        int(np.argmax(differ)),
        tuple(texts),
    )


def names(model: Loaded, count: int, seed: int) -> Pairs:
    """Indirect objects: who is given a drink. The corrupt prompt swaps the giver."""
    rng = np.random.default_rng(seed)
    texts, answers = [], []
    for _ in range(count):
        a, b = rng.choice(NAMES, 2, replace=False)
        start = f"Then, {a} and {b} went to the store."
        texts.append((f"{start} {b} gave a drink to", f"{start} {a} gave a drink to"))
        answers.append((a, b))
    return _pairs(model, texts, answers)


def capitals(model: Loaded, count: int, seed: int) -> Pairs:
    """Capitals: of which country. The corrupt prompt has another one."""
    rng = np.random.default_rng(seed)
    texts, answers = [], []
    for _ in range(count):
        pair = rng.choice(list(CAPITALS), 2, replace=False)
        texts.append(tuple(f"The capital of {c} is the city of" for c in pair))
        answers.append(tuple(CAPITALS[c] for c in pair))
    return _pairs(model, texts, answers)


def others(model: Loaded, count: int, seed: int) -> Pairs:
    """Indirect objects where the corrupt prompt is about two other people."""
    rng = np.random.default_rng(seed)
    texts, answers = [], []
    for _ in range(count):
        a, b, c, d = rng.choice(NAMES, 4, replace=False)
        prompts = (
            f"Then, {x} and {y} went to the store. {y} gave a drink to"
            for x, y in ((a, b), (c, d))
        )
        texts.append(tuple(prompts))
        answers.append((a, c))
    return _pairs(model, texts, answers)


SMOLLM, INDUCTION = "SmolLM2-135M", "induction"


@dataclasses.dataclass(frozen=True)
class Task:
    """What is measured.

    Attributes:
      pairs: makes pairs of prompts, `pairs(model, count, seed)`.
      text: what the page says about it.
      count: of pairs.
      model: whose.
      methods: what is compared, or all there is.
      edges: methods that order circuits of edges, too.
    """

    pairs: Callable[[Loaded, int, int], Pairs]
    text: str
    count: int = 30
    model: str = SMOLLM
    methods: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()
