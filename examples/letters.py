"""Which letters make a phoneme, with a real pretrained recurrent network.

The package `g2p-en` carries a network that turns an English word's letters into
phonemes, in ARPABET: a GRU reads the letters, a second one, which starts from the
state that the first one ends in, writes the phonemes. Here it is in plain JAX, both as
`lax.scan`, with the package's weights:

    letters, embedded    GRU    state    GRU, given the phonemes so far    logits

The logit explained is that of one phoneme of the word that the network writes, given
those before it. It is a function of the letters' embeddings, and a letter's relevance
is the sum over its embedding. Leaves `letters.html` in `out/`.

Run it from the root of the repository, with the package installed (`--no-deps` does,
only its weights are read):

    python -m examples.letters

Source: Park, Kim 2019, "g2pE" (the network); Cho et al. 2014, "Learning phrase
representations using RNN encoder-decoder for statistical machine translation" (the
cell, here in PyTorch's form).
"""

import argparse
import string
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import jaxlrp
from jaxlrp import attribution, composites, rules, text

WORDS = ("psychology", "nation", "machine", "knight", "thought", "phoenix")

_SPECIAL = ("<pad>", "<unk>", "</s>")
LETTERS = (*_SPECIAL, *string.ascii_lowercase)
UNKNOWN, LAST = 1, 2
"""The ids of an unknown letter and of the end of a word."""

# ARPABET; a vowel's number is its stress: none, the first, the second.
PHONEMES = tuple(
    """
    <pad> <unk> <s> </s>
    AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2
    B CH D DH EH0 EH1 EH2 ER0 ER1 ER2 EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2
    JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2
    UW UW0 UW1 UW2 V W Y Z ZH
    """.split()
)
START, END = 2, 3
"""The ids of what comes before and after a word's phonemes."""
LONGEST = 20
"""No word has more phonemes."""

Params = dict[str, Array]
"""Under the file's names; of the weights the rows are outputs."""


# The network


def gru(params: Params, name: str, inputs: Array, state: Array) -> Array:
    """The states of a GRU along a sequence.

        r = sigmoid(W_r x + U_r h),  z = sigmoid(W_z x + U_z h)
        n = tanh(W_n x + r (U_n h)),  h' = (1 - z) n + z h

    Args:
      params: the weights, with biases throughout.
      name: "enc" or "dec".
      inputs: `Float[Array, "steps width"]`.
      state: the first one, `Float[Array, "hidden"]`.

    Returns:
      The state after each step, `Float[Array, "steps hidden"]`.
    """
    w, u = params[f"{name}_w_ih"].T, params[f"{name}_w_hh"].T
    b, c = params[f"{name}_b_ih"], params[f"{name}_b_hh"]

    def step(h: Array, x: Array) -> tuple[Array, Array]:
        xr, xz, xn = jnp.split(x @ w + b, 3)
        hr, hz, hn = jnp.split(h @ u + c, 3)
        z = jax.nn.sigmoid(xz + hz)
        n = jnp.tanh(xn + jax.nn.sigmoid(xr + hr) * hn)
        h = (1 - z) * n + z * h
        return h, h

    return lax.scan(step, state, inputs)[1]


def read(params: Params, letters: Array, length: Array | int) -> Array:
    """The state after a word.

    Args:
      params: the network's.
      letters: embedded, with the end of the word, `Float[Array, "steps width"]`; what
        comes after `length` is padding.
      length: how many there are; it may be traced.

    Returns:
      `Float[Array, "hidden"]`.
    """
    first = jnp.zeros(params["enc_w_hh"].shape[-1], letters.dtype)
    return gru(params, "enc", letters, first)[length - 1]


def logits(
    params: Params,
    letters: Array,
    length: Array | int,
    phonemes: Array,
    place: Array | int,
) -> Array:
    """The logits of one phoneme, given those before it.

    Args:
      params: the network's.
      letters: as for `read`.
      length: as for `read`.
      phonemes: the word's, ids, `Int[Array, "phonemes"]`; those from `place` on are
        ignored.
      place: which one, from 0; it may be traced.

    Returns:
      `Float[Array, "vocabulary"]`.
    """
    before = jnp.concatenate([jnp.array([START]), phonemes])[:-1]
    states = gru(
        params, "dec", params["dec_emb"][before], read(params, letters, length)
    )
    return states[place] @ params["fc_w"].T + params["fc_b"]


def write(params: Params, letters: Array, length: Array | int) -> Array:
    """The phonemes that the network writes, each the likeliest after those before.

    Args:
      params: the network's.
      letters: as for `read`.
      length: as for `read`.

    Returns:
      Ids, `Int[Array, "phonemes"]`; from the end on all are `END`.
    """

    def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], Array]:
        before, state = carry
        state = gru(params, "dec", params["dec_emb"][before][None], state)[-1]
        found = jnp.argmax(state @ params["fc_w"].T + params["fc_b"])
        found = jnp.where(before == END, END, found)
        return (found, state), found

    start = (jnp.array(START), read(params, letters, length))
    return lax.scan(step, start, length=LONGEST)[1]


# Words and weights


def spell(word: str, steps: int | None = None) -> np.ndarray:
    """A word's letters and its end as ids.

    Args:
      word: in lower case; what is not in the alphabet is unknown.
      steps: the length to pad to, by default none.

    Returns:
      `Int[np.ndarray, "steps"]`.

    Raises:
      ValueError: if the word is longer.
    """
    ids = [LETTERS.index(c) if c in LETTERS else UNKNOWN for c in word] + [LAST]
    if steps is not None and len(ids) > steps:
        raise ValueError(f"word: got {word!r}, expected less than {steps} letters")
    return np.pad(ids, (0, 0 if steps is None else steps - len(ids)))


def names(phonemes: Sequence[int] | np.ndarray) -> list[str]:
    """Ids of phonemes as they are called, up to the end."""
    found = [PHONEMES[i] for i in phonemes]
    return found[: found.index("</s>")] if "</s>" in found else found


def load(path: Path | None = None) -> Params:
    """The weights, from a file or from the package `g2p-en`, which is not imported."""
    if path is None:
        file = metadata.distribution("g2p-en").locate_file("g2p_en/checkpoint20.npz")
        path = Path(str(file))
    with np.load(path, allow_pickle=False) as arrays:
        return {name: jnp.asarray(arrays[name], jnp.float32) for name in arrays}


# The whole job

METHODS = {
    "default": lambda f, target: jaxlrp.lrp(f, target=target),
    "generalised gamma": lambda f, target: jaxlrp.lrp(
        f,
        composites.Proportional().on("layer", rules.GeneralizedGamma(4.0)),
        target=target,
    ),
    "gradient × input": lambda f, target: attribution.gradient_x_input(
        f, target=target
    ),
}


def explain(params: Params, words: Sequence[str], method: str) -> list[text.Heatmap]:
    """A heatmap for each word: the letters' relevance for each of its phonemes."""
    steps = max(len(word) for word in words) + 1

    @jax.jit
    def relevances(letters: Array, length: Array) -> tuple[Array, Array]:
        phonemes = write(params, letters, length)

        def one(place: Array) -> Array:
            def f(letters: Array) -> Array:
                return logits(params, letters, length, phonemes, place)

            return METHODS[method](f, phonemes[place])(letters).sum(-1)

        return phonemes, lax.map(one, jnp.arange(LONGEST))

    pictures = []
    for word in words:
        letters = params["enc_emb"][spell(word, steps)]
        phonemes, found = jax.device_get(relevances(letters, len(word) + 1))
        labels = names(phonemes)
        pictures.append(
            text.heatmap(
                [*word, "</s>"],
                found[: len(labels), : len(word) + 1],
                labels=labels,
                scale="row",
                title=f"{word}: {method}",
            )
        )
    return pictures


def run(words: Sequence[str], out: Path) -> None:
    """Explain words under all methods, and write the page."""
    params = load()
    pictures = {method: explain(params, words, method) for method in METHODS}
    for picture in pictures["default"]:
        print(picture.title.split(":")[0], *(row.label for row in picture.rows))
    out.mkdir(parents=True, exist_ok=True)
    by_word = zip(*pictures.values(), strict=True)
    text.save(
        out / "letters.html",
        *(picture for of_word in by_word for picture in of_word),
        title="Letters and phonemes",
    )
    print(f"wrote {out / 'letters.html'}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Explain phonemes by letters.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("words", nargs="*", help="words, by default a few")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder")
    options = parser.parse_args(argv)
    run(options.words or WORDS, options.out)


if __name__ == "__main__":
    main()
