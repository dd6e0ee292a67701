"""Explanations of why two sentences are similar, where it is known which words match.

    python -m benchmarks.real.pairs               all methods
    python -m benchmarks.real.pairs --methods Default AttnLRP

The network is all-MiniLM-L6-v2 (`examples.sentences_model`). What is explained is the
cosine similarity of one sentence with another, whose embedding is held constant; of
each pair both directions are examples. Similarities are below one, and ABPC is in their
units. Tokens are replaced by `[MASK]`, which the network was trained with; `[CLS]`,
`[SEP]` and padding are neither ranked nor removed. The evidence are the words that
carry the match most clearly, marked by hand. Measures: `benchmarks.real.sequences`.
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
from examples import sentences_model
from jaxlrp import composites, rules

# Stars stand around the evidence.
PAIRS = (
    # As in `examples.sentences`.
    ("A man is *eating* *food*.", "A man *eats* a piece of *bread*."),
    ("The *cat* sleeps on the *sofa*.", "A *kitten* is napping on the *couch*."),
    (
        "The *train* was late because of *snow*.",
        "Heavy *snowfall* delayed all *trains*.",
    ),
    ("A woman is playing the *violin*.", "A young lady plays an *instrument*."),
    ("*Stock* prices fell sharply on Monday.", "*Shares* dropped early in the week."),
    ("How do I reset my *password*?", "I forgot my *login* and cannot sign in."),
    # At home.
    (
        "A *dog* chased the ball across the garden.",
        "The *puppy* ran after its toy in the yard.",
    ),
    ("The *baby* is crying.", "An *infant* screams in its crib."),
    ("The *soup* is too *salty*.", "There is a lot of *salt* in this *broth*."),
    (
        "*Coffee* keeps me awake at night.",
        "I cannot sleep after drinking too much *espresso*.",
    ),
    (
        "She baked a chocolate *cake* for his *birthday*.",
        "There was a delicious *dessert* at the *party*.",
    ),
    (
        "Is there *gluten* in this bread?",
        "I am allergic to *wheat* and need to know the ingredients.",
    ),
    ("My sister is afraid of *spiders*.", "*Arachnids* terrify her."),
    ("My *laptop* does not turn on any more.", "The *computer* refuses to start."),
    # Outside.
    ("It has been *raining* all day.", "Take an *umbrella*, the weather is bad."),
    (
        "The *volcano* *erupted* last night.",
        "*Lava* flowed down the slope after the *eruption*.",
    ),
    (
        "We climbed the *mountain* before sunrise.",
        "The hikers reached the *summit* early in the morning.",
    ),
    ("The *moon* is full tonight.", "*Lunar* light fills the dark sky."),
    (
        "*Bees* collect nectar from flowers.",
        "Many plants are pollinated by *insects*.",
    ),
    (
        "The old *bridge* collapsed during the *flood*.",
        "High *water* destroyed a *crossing* over the river.",
    ),
    (
        "*Sea* levels rise because *glaciers* melt.",
        "The loss of *ice* makes the *oceans* higher.",
    ),
    (
        "The factory *pollutes* the *river*.",
        "Chemicals from the plant *poison* the *water* downstream.",
    ),
    (
        "The *wine* from this region is excellent.",
        "Many farmers in the valley own *vineyards*.",
    ),
    # On the road.
    (
        "Our *flight* to *Madrid* was cancelled.",
        "The *airline* called off the trip to *Spain*.",
    ),
    (
        "How far is it to the *airport*?",
        "What is the distance between the city and the terminal where *planes* depart?",
    ),
    (
        "The *hotel* room was *dirty*.",
        "Our *accommodation* had not been *cleaned*.",
    ),
    (
        "Electric *cars* need charging stations.",
        "A *vehicle* with a battery has to be plugged in.",
    ),
    (
        "He parked his *bicycle* in front of the shop.",
        "The *bike* stood outside the store.",
    ),
    (
        "*Paris* is the capital of *France*.",
        "The *Eiffel* Tower stands in the largest *French* city.",
    ),
    (
        "I would like to book a *table* for dinner.",
        "Can we reserve a place at your *restaurant* tonight?",
    ),
    # Health and sports.
    (
        "The doctor told him to stop *smoking*.",
        "He should give up *cigarettes*, his physician said.",
    ),
    (
        "He broke his *leg* while *skiing*.",
        "After an accident on the *slopes* his *knee* needed surgery.",
    ),
    (
        "*Antibiotics* do not work against viruses.",
        "This drug cures *bacterial* infections only.",
    ),
    (
        "The *goalkeeper* saved a penalty in the last minute.",
        "Late in the *football* match, the shot was stopped.",
    ),
    # Work, money and the law.
    (
        "The *lawyer* defended her client in court.",
        "An *attorney* spoke for the accused before the judge.",
    ),
    (
        "The *thief* was arrested by the police.",
        "Officers caught the man who *stole* the car.",
    ),
    (
        "The company *fired* two hundred *workers*.",
        "Many *employees* lost their *jobs* at the firm.",
    ),
    (
        "The president signed the new *law*.",
        "This *legislation* takes effect today, the government said.",
    ),
    (
        "*Interest* *rates* rose again this quarter.",
        "The central *bank* made *loans* more expensive.",
    ),
    (
        "Students protested against higher *tuition*.",
        "University *fees* led to demonstrations.",
    ),
    # Arts and learning.
    ("Who wrote *Hamlet*?", "*Shakespeare* is the author of many famous plays."),
    (
        "Scientists discovered a new *planet*.",
        "*Astronomers* have found a world that orbits a distant star.",
    ),
    (
        "The *museum* is closed on Tuesdays.",
        "You cannot visit the *gallery* today, it is shut.",
    ),
    (
        "Children learn to *read* at school.",
        "*Books* are important for pupils in the first grade.",
    ),
    (
        "The *novel* was translated into forty languages.",
        "Readers all over the world know this *book*.",
    ),
    (
        "He *paints* *portraits* of his friends.",
        "The *artist* *draws* people he knows.",
    ),
    (
        "The *guitarist* broke a string during the *concert*.",
        "One of the *musicians* had a problem on *stage*.",
    ),
    (
        "The *king* *abdicated* in favour of his son.",
        "The *monarch* gave up the *throne*.",
    ),
)


class Marked(NamedTuple):
    """A sentence, and where in it the evidence begins and ends."""

    text: str
    spans: tuple[tuple[int, int], ...]


class Example(NamedTuple):
    """The sentence that is explained, and the one that is held."""

    sentence: Marked
    other: Marked


def marked(text: str) -> Marked:
    """A sentence without the stars, and what stood between them.

    Raises:
      ValueError: if a star has no other one.
    """
    parts = text.split("*")
    if len(parts) % 2 == 0:
        raise ValueError(f"{text!r}: got a star without another, expected two each")
    stops = np.cumsum([len(part) for part in parts]).tolist()
    return Marked("".join(parts), tuple(zip(stops[:-1:2], stops[1::2], strict=True)))


def both_directions(pairs: Sequence[tuple[str, str]]) -> tuple[Example, ...]:
    """Each pair, then the same pair the other way round."""
    found = [(marked(one), marked(two)) for one, two in pairs]
    return tuple(e for a, b in found for e in (Example(a, b), Example(b, a)))


EXAMPLES = both_directions(PAIRS)


def evidence_tokens(model: sentences_model.Loaded, sentence: Marked) -> np.ndarray:
    """Which tokens are part of the evidence, `Bool[np.ndarray, "tokens"]`."""
    offsets = model.tokenizer.encode(sentence.text).offsets
    return np.array(
        [
            any(low < stop and high > start for start, stop in sentence.spans)
            for low, high in offsets
        ]
    )


def words(model: sentences_model.Loaded, sentence: Marked) -> np.ndarray:
    """Which tokens are not special, `Bool[np.ndarray, "tokens"]`."""
    return np.array(model.tokenizer.encode(sentence.text).special_tokens_mask) == 0


def setting(
    model: sentences_model.Loaded, examples: Sequence[Example] = EXAMPLES
) -> Setting:
    """The network, with the similarities that are explained.

    Raises:
      ValueError: if the tokenizer has no `[MASK]`.
    """
    apply: Any = model.network.apply
    mask = model.tokenizer.token_to_id("[MASK]")
    if mask is None:
        raise ValueError("model: its tokenizer has no '[MASK]', expected one")
    length = max(len(model.ids(s.text)[0]) for example in examples for s in example)

    def padded(rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack([np.pad(row, (0, length - len(row))) for row in rows])

    ids = padded([model.ids(e.sentence.text)[0] for e in examples])
    others = padded([model.ids(e.other.text)[0] for e in examples])

    def f(params: Any, x: Array, held: tuple[Array, Array]) -> Array:
        there, other = held
        return (apply(params, x, there, method="encode") @ other)[None]

    @jax.jit
    def embed(params: Any, ids: Array) -> Array:
        return jax.vmap(apply, (None, 0))(params, ids)

    def look_up(ids: np.ndarray) -> Array:
        return apply(model.params, jnp.asarray(ids), method="look_up")

    return Setting(
        name="all-MiniLM-L6-v2",
        f=f,
        params=model.params,
        inputs=look_up(ids),
        others=(jnp.asarray(ids != sentences_model.PAD), embed(model.params, others)),
        targets=jnp.zeros(len(examples), int),
        counts=jnp.asarray(padded([words(model, e.sentence) for e in examples])),
        evidence=jnp.asarray(
            padded([evidence_tokens(model, e.sentence) for e in examples])
        ),
        baseline=look_up(np.array(mask)),
        digits=3,
    )


def residual(rule: rules.Rule) -> composites.Composite:
    """The default with another rule of residual sums."""
    return composites.Default().on("sum", rule, residual=True)


METHODS: tuple[Method, ...] = (
    *sequences.general(steps=16, samples=8),
    lrp("Default", composites.Default()),
    lrp(
        "Default, residual sums by absolute size",
        residual(rules.Absolute(joint=True)),
    ),
    lrp("Default, residual sums gamma 1", residual(rules.GeneralizedGamma(1.0))),
    lrp("Default, residual sums gamma 16", residual(rules.GeneralizedGamma(16.0))),
    lrp("Proportional (default before)", composites.Proportional()),
    *sequences.of_transformers(),
)


def pretrained() -> sentences_model.Loaded:
    """The network with the weights of its package."""
    return sentences_model.load(sentences_model.pretrained())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.pairs")
    parser.add_argument("--methods", nargs="+", help="default: all")
    options = parser.parse_args(argv)
    at = setting(pretrained())
    chosen = [m for m in METHODS if not options.methods or m.name in options.methods]
    rows = sequences.compare(at, chosen)
    print(f"\n{sequences.table(rows, at.digits)}")


if __name__ == "__main__":
    main()
