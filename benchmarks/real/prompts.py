"""Explanations of what a language model says next, where the evidence is known.

    python -m benchmarks.real.prompts               all methods
    python -m benchmarks.real.prompts --methods Default AttnLRP

The network is SmolLM2-135M (`examples.smollm`). Each prompt has one word on which the
answer rests, and the network's likeliest next token is the answer, or begins it. What
is explained is its logit. Tokens are replaced by the mean of all embeddings. The first
token is one of those that the others' attention rests on when they look for nothing,
whatever it is; without `--first` it is not ranked nor removed. Measures:
`benchmarks.real.sequences`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.real import sequences
from benchmarks.real.sequences import Method, Setting, lrp
from examples import smollm
from jaxlrp import composites, rules

# The evidence replaces the braces; answers may be the beginning of one.
TEMPLATES = {
    "The capital of {} is the city of": {
        "France": "Paris",
        "Germany": "Berlin",
        "England": "London",
        "Greece": "Athens",
        "Cuba": "Havana",
        "Norway": "Oslo",
    },
    "The capital of Italy is Rome. The capital of {} is": {
        "France": "Paris",
        "Japan": "Tokyo",
        "Egypt": "Cairo",
        "Greece": "Athens",
        "China": "Beijing",
    },
    "The opposite of hot is cold. The opposite of {} is": {
        "left": "right",
        "open": "closed",
        "black": "white",
        "fast": "slow",
        "happy": "sad",
        "war": "peace",
    },
    "Rome is a city in Italy, and {} is a city in": {
        "Tokyo": "Japan",
        "Berlin": "Germany",
        "Madrid": "Spain",
        "Moscow": "Russia",
        "Beijing": "China",
        "Oslo": "Norway",
    },
    "The plural of dog is dogs. The plural of {} is": {
        "child": "children",
        "mouse": "mice",
        "foot": "feet",
        "woman": "women",
        "tooth": "teeth",
    },
    "People in Italy speak Italian, while people in {} speak": {
        "Mexico": "Spanish",
        "Japan": "Japanese",
        "Russia": "Russian",
        "France": "French",
        "Greece": "Greek",
    },
    "He was born in {} and so his native language is": {
        "Germany": "German",
        "Japan": "Japanese",
        "Russia": "Russian",
        "Italy": "Italian",
        "Spain": "Spanish",
        "Poland": "Polish",
    },
    "The chemical symbol for {} is": {
        "gold": "Au",
        "silver": "Ag",
        "iron": "Fe",
        "hydrogen": "H",
        "sodium": "Na",
        "copper": "Cu",
    },
    "The country of {} is on the continent of": {
        "Kenya": "Africa",
        "France": "Europe",
        "China": "Asia",
        "India": "Asia",
        "Brazil": "South",
    },
    "The children wanted a {}, but their parents did not want a": {
        "dog": "dog",
        "cat": "cat",
        "horse": "horse",
        "bird": "bird",
    },
    "My brother plays the {} every evening. He bought a new": {
        "piano": "piano",
        "guitar": "guitar",
        "violin": "violin",
        "flute": "flute",
    },
    "When the {} fell from the table, nobody picked up the": {
        "knife": "knife",
        "spoon": "spoon",
    },
}


class Prompt(NamedTuple):
    """A text, the word in it that an answer rests on, and the answer."""

    text: str
    evidence: str
    answer: str


PROMPTS = tuple(
    Prompt(template.format(evidence), evidence, answer)
    for template, answers in TEMPLATES.items()
    for evidence, answer in answers.items()
)


def evidence_tokens(model: smollm.Loaded, prompt: Prompt) -> np.ndarray:
    """Which tokens are part of the evidence, `Bool[np.ndarray, "tokens"]`."""
    start = prompt.text.index(prompt.evidence)
    stop = start + len(prompt.evidence)
    offsets = model.tokenizer.encode(prompt.text).offsets
    return np.array([low < stop and high > start for low, high in offsets])


def setting(
    model: smollm.Loaded,
    prompts: Sequence[Prompt] = PROMPTS,
    first: bool = False,
    zero: bool = False,
) -> Setting:
    """The network, with the prompts that are explained.

    Args:
      model: the network.
      prompts: those that it answers.
      first: rank and remove the first token as well.
      zero: replace tokens by zero, not by the mean embedding.

    Raises:
      ValueError: if the network answers one otherwise.
    """
    lengths = np.array([len(model.ids(p.text)) for p in prompts])
    tokens = int(lengths.max())
    ids = np.stack([model.ids(p.text, tokens) for p in prompts])

    def f(params: Any, x: Array, length: Array) -> Array:
        return smollm.logits(model.config, params, x, length)

    table = model.params["embed"]

    @jax.jit
    def answers(params: Any, ids: Array, lengths: Array) -> Array:
        def one(each: Any) -> Array:
            return f(params, params["embed"][each[0]], each[1]).argmax()

        return jax.lax.map(one, (ids, lengths))

    targets = np.asarray(answers(model.params, ids, lengths))
    for prompt, target in zip(prompts, targets, strict=True):
        found = model.words([target])[0].strip()
        if found != prompt.answer:
            raise ValueError(
                f"prompts: {prompt.text!r} is answered {found!r}, expected "
                f"{prompt.answer!r}"
            )
    places = np.arange(tokens)
    counts = (places < lengths[:, None]) & (places >= (0 if first else 1))
    evidence = np.zeros_like(counts)
    for row, prompt in zip(evidence, prompts, strict=True):
        found = evidence_tokens(model, prompt)
        row[: len(found)] = found
    return Setting(
        name="SmolLM2-135M",
        f=f,
        params=model.params,
        inputs=table[ids],
        others=jnp.asarray(lengths),
        targets=jnp.asarray(targets),
        counts=jnp.asarray(counts),
        evidence=jnp.asarray(evidence),
        baseline=jnp.zeros_like(table[0]) if zero else table.mean(0),
    )


METHODS: tuple[Method, ...] = (
    *sequences.general(steps=8, samples=8),
    lrp("Default", composites.Default()),
    lrp(
        "Default, residual sums by absolute size",
        composites.Default().on("sum", rules.Absolute(joint=True), residual=True),
    ),
    lrp("Proportional (default before)", composites.Proportional()),
    lrp(
        "Proportional, gamma .1 on layers",
        composites.Proportional().on("layer", rules.GeneralizedGamma(0.1)),
    ),
    *sequences.of_transformers(),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.prompts")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--zero", action="store_true", help="tokens become zero")
    parser.add_argument("--first", action="store_true", help="rank the first token too")
    options = parser.parse_args(argv)
    at = setting(smollm.load(), first=options.first, zero=options.zero)
    chosen = [m for m in METHODS if not options.methods or m.name in options.methods]
    print(f"\n{sequences.table(sequences.compare(at, chosen))}")


if __name__ == "__main__":
    main()
