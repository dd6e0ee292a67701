"""Explanations of which phoneme a network hears in a word, against the alignment.

    python -m benchmarks.real.phonemes               all methods
    python -m benchmarks.real.phonemes --methods Default DeepLIFT

The network is the GRU of g2p-en (`examples.letters`). What is explained is the logit
of one phoneme of a word, given those before it. Letters are replaced by the network's
own `<unk>`, or with `--zero` by an embedding of zero, which it never met; the end of
the word is not ranked nor removed. The evidence are the letters that the phoneme is
spelled with, by `align`. Measures: `benchmarks.real.sequences`.
"""

from __future__ import annotations

import argparse
import functools
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.real import sequences
from benchmarks.real.sequences import Method, Setting, lrp
from examples import letters
from jaxlrp import attribution, compat, composites, rules

WORDS = tuple(
    """
    psychology nation machine knight thought elephant telephone photograph science
    physics orchestra character rhythm xylophone bureau chocolate mountain
    knowledge island listen castle whistle autumn column daughter through beautiful
    business music unique technique journey question picture measure treasure
    vision decision musician electrician special official delicious precious conscience
    guitar biscuit building circuit design computer window kitchen weather bridge finger
    scissors exam yellow garden
    """.split()
)

# How phonemes, without stress, are spelled in these words and in some others; `$` is
# the end of a word. Two phonemes in a row may share their letters.
SPELLINGS = {
    "AA": "a o ow",
    "AE": "a au",
    "AH": "a e i o u ai io ou",
    "AO": "a o au augh ough aw",
    "AW": "ou ow",
    "AY": "i y igh is ie",
    "B": "b bb",
    "CH": "ch tch t",
    "D": "d dd",
    "DH": "th",
    "EH": "e a ea",
    "ER": "er or ar ur ir our ure$",
    "EY": "a ai ay ey",
    "F": "f ff ph gh",
    "G": "g gg gu gh",
    "HH": "h wh",
    "IH": "i y e u ui a",
    "IY": "e i y ee ea ie ey",
    "JH": "j g dg dge$ ge$",
    "K": "c k ck ch q que$ cc",
    "L": "l ll le$",
    "M": "m mm mn mb",
    "N": "n nn kn gn ne$",
    "NG": "n ng",
    "OW": "o ow oa eau",
    "OY": "oi oy",
    "P": "p pp",
    "R": "r rr wr rh",
    "S": "s ss c sc ps st ce$",
    "SH": "sh ti ci ch ss sci",
    "T": "t tt te$ bt",
    "TH": "th",
    "UH": "u oo ou",
    "UW": "u oo ou ew ue ough",
    "V": "v ve$",
    "W": "w wh u",
    "Y": "y u",
    "Z": "z zz s ss x",
    "ZH": "s si su",
    "K S": "x",
    "G Z": "x",
    "Y UW": "u eau eu ew ue",
    "Y UH": "u",
    "AH L": "le$",
    "AH M": "m$",
}
_PHONEMES = {tuple(names.split()): set(s.split()) for names, s in SPELLINGS.items()}

SILENT = 1.0
"""What a letter that no phoneme takes costs; the price of an alignment is their sum."""


def align(word: str, phonemes: Sequence[str]) -> tuple[float, list[tuple[int, int]]]:
    """Which letters each phoneme of a word is spelled with.

    The alignment keeps the order. Each phoneme, or two in a row, has letters in a row
    with which `SPELLINGS` spells it; letters in between are silent. The one with the
    fewest silent letters is taken.

    Args:
      word: in lower case.
      phonemes: of the word, with or without stress.

    Returns:
      (the number of silent letters, for each phoneme its first letter and the one after
      its last). The number is infinite if there is no alignment.

    Examples:
      >>> from benchmarks.real import phonemes
      >>> phonemes.align("knight", ["N", "AY1", "T"])
      (0.0, [(0, 2), (2, 5), (5, 6)])
    """
    plain = tuple(re.sub("[0-9]", "", p) for p in phonemes)

    @functools.cache
    def best(i: int, j: int) -> tuple[float, tuple[tuple[int, int], ...]]:
        """The letters from `i` on, and the phonemes from `j` on."""
        if i == len(word):
            return (0.0 if j == len(plain) else math.inf), ()
        cost, rest = best(i + 1, j)
        found = (cost + SILENT, rest)
        for count in (1, 2):
            for spelling in _PHONEMES.get(plain[j : j + count], ()):
                if len(plain) >= j + count and f"{word}$".startswith(spelling, i):
                    stop = i + len(spelling.removesuffix("$"))
                    cost, rest = best(stop, j + count)
                    if cost < found[0]:
                        found = (cost, ((i, stop),) * count + rest)
        return found

    cost, spans = best(0, 0)
    return cost, list(spans)


def setting(
    params: letters.Params,
    words: Sequence[str] = WORDS,
    count: int = 200,
    zero: bool = False,
) -> Setting:
    """The network, with phonemes of words that it writes.

    Args:
      params: the network's.
      words: in lower case.
      count: how many phonemes are explained; a fixed random choice.
      zero: replace letters by zero, not by the unknown letter.

    Raises:
      ValueError: if a word's phonemes, as the network writes them, cannot be aligned.
    """
    steps = max(map(len, words)) + 1
    spelled = np.stack([letters.spell(word, steps) for word in words])
    lengths = np.array([len(word) + 1 for word in words])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def write(params: letters.Params, ids: Array, length: Array) -> Array:
        return letters.write(params, params["enc_emb"][ids], length)

    written = np.asarray(write(params, spelled, lengths))
    places = np.arange(steps)
    pairs, evidence = [], []
    for i, word in enumerate(words):
        names = letters.names(written[i])
        cost, spans = align(word, names)
        if not cost < math.inf:
            raise ValueError(f"words: {word!r} does not align with {' '.join(names)}")
        pairs += [(i, place) for place in range(len(names))]
        evidence += [(places >= low) & (places < high) for low, high in spans]
    random = np.random.default_rng(0)
    chosen = np.sort(random.permutation(len(pairs))[:count])
    word, place = np.array(pairs)[chosen].T

    def f(params: letters.Params, x: Array, other: Any) -> Array:
        length, phonemes, place = other
        return letters.logits(params, x, length, phonemes, place)

    table = params["enc_emb"]
    return Setting(
        name="letters to phonemes",
        f=f,
        params=params,
        inputs=table[spelled[word]],
        others=tuple(map(jnp.asarray, (lengths[word], written[word], place))),
        targets=jnp.asarray(written[word, place]),
        counts=jnp.asarray(places < lengths[word, None] - 1),
        evidence=jnp.asarray(np.stack(evidence)[chosen]),
        baseline=jnp.zeros_like(table[0]) if zero else table[letters.UNKNOWN],
        steps=steps - 1,
        batch=50,
    )


def _from_zero(f: sequences.F, x: Array, target: Array, baseline: Array) -> Array:
    """Integrated gradients whose way begins at zero, whatever letters become."""
    zero = jnp.where(baseline == x, x, 0)
    return attribution.integrated_gradients(f, target=target, baseline=zero, steps=50)(
        x
    )


METHODS: tuple[Method, ...] = (
    *sequences.general(),
    Method("integrated gradients from zero", "other", _from_zero),
    lrp("Default", composites.Default()),
    lrp("Proportional (default before)", composites.Proportional()),
    lrp(
        "Proportional, gamma 4 on layers",
        composites.Proportional().on("layer", rules.GeneralizedGamma(4.0)),
    ),
    lrp(
        "Proportional, bounded sums",
        composites.Proportional().on("sum", rules.GeneralizedGamma(1.0)),
    ),
    lrp("Epsilon", composites.Epsilon()),
    lrp("EpsilonPlus", composites.EpsilonPlus()),
    lrp("EpsilonAlpha2Beta1", composites.EpsilonAlpha2Beta1()),
    lrp("generalised gamma", composites.Uniform(rules.GeneralizedGamma(0.25))),
    lrp("AttnLRP", composites.AttnLRP()),
    lrp("CPLRP, gates held", composites.CPLRP(hold_gates=True)),
    lrp("ResLRP", composites.ResLRP()),
    lrp("EpsilonPlus", compat.zennit.EpsilonPlus(), "zennit"),
    lrp("EpsilonAlpha2Beta1", compat.zennit.EpsilonAlpha2Beta1(), "zennit"),
    lrp("LRP", compat.captum.LRP(), "captum"),
    lrp("AttnLRP", compat.lxt.AttnLRP(), "LXT"),
    lrp("plain", composites.DynamicLRP(), "dynamicLRP"),
    lrp("gamma", composites.DynamicLRP(gamma=0.25), "dynamicLRP"),
)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.phonemes")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--zero", action="store_true", help="letters become zero")
    options = parser.parse_args(argv)
    at = setting(letters.load(), zero=options.zero)
    chosen = [m for m in METHODS if not options.methods or m.name in options.methods]
    print(f"\n{sequences.table(sequences.compare(at, chosen))}")


if __name__ == "__main__":
    main()
