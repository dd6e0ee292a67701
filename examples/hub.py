"""Models of the Hugging Face hub, by name: four kinds, explained by the same lines.

    f = ...                                   # from (params, inputs) to scores
    explain = jax.jit(jaxlrp.value_and_lrp(f, composite))
    scores, relevance = explain(params, inputs)

`vit` explains the class of an image, `bert` where the answer to a question begins and
ends, `llama` the next token, `t5` the first token of an answer. Inputs are pixels or
token ids; a token's relevance is that of its embedding. Leaves `hub_<kind>.html` or
`hub_vit.png` in `out/`.

Needs transformers before version 5, which dropped Flax, and what comes with it:

    python -m examples.hub bert --name <a name of the hub, or a folder>
    python -m examples.hub --tiny

`--tiny` needs no network: it saves each kind with random weights, loads it back by the
same code, explains it, and checks that relevances and what is absorbed add up to the
scores. `make hub` does that.
"""

import argparse
import contextlib
import dataclasses
import importlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxlrp
from examples.digits_figures import png
from jaxlrp import _files, composites, plot, text

NAMES = {
    "vit": "google/vit-base-patch16-224",
    "bert": "bert-large-uncased-whole-word-masking-finetuned-squad",
    "llama": "openlm-research/open_llama_3b_v2",
    "t5": "google/flan-t5-base",
}
KINDS = tuple(NAMES)
COMPOSITES = {
    "vit": composites.AttnLRPGamma(),
    "bert": composites.AttnLRP(),
    "llama": composites.AttnLRP(),
    "t5": composites.AttnLRP(),
}

QUESTION = "What does the relevance of a layer add up to?"
CONTEXT = "The relevance of a layer adds up to the score of the network."
PROMPT = "The capital of France is"
INSTRUCTION = "Is this review positive or negative? A wonderful film, well acted."

Scores = Callable[[Any, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is explained.

    Attributes:
      scores: from parameters and inputs to scores, of which the highest along the last
        axis is explained.
      params: the model's.
      inputs: what is attributed, pixels or token ids, with a batch axis of one.
      tokens: how the ids are written; None for an image.
      answer: what the highest scores stand for.
    """

    scores: Scores
    params: Any
    inputs: jax.Array
    tokens: tuple[str, ...]
    answer: Callable[[np.ndarray], str]


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line can change."""

    kind: str | None = None
    name: str | None = None
    image: Path | None = None
    tiny: bool = False
    out: Path = Path("out")


# The same lines for all


def explain(task: Task, composite: Any) -> tuple[np.ndarray, np.ndarray]:
    """The scores, and the relevance of the inputs for the highest."""
    explained = jax.jit(jaxlrp.value_and_lrp(task.scores, composite))
    scores, relevance = explained(task.params, task.inputs)
    return np.asarray(scores), np.asarray(relevance)


def missing(task: Task, composite: Any, relevance: np.ndarray) -> float:
    """What is left when relevances and what was absorbed are taken from the scores.

    It is a fraction of the largest of these sums: rounding, if all is well. Relevances
    that are not finite, or all zero, explain nothing.
    """
    if not np.isfinite(relevance).all() or not relevance.any():
        return math.inf
    audit = jaxlrp.audit(task.scores, composite)(task.params, task.inputs)
    absorbed = sum(audit.absorbed.values())
    total, found = float(audit.total_out), float(relevance.sum())
    scale = max(abs(total), abs(found), abs(absorbed))
    return abs(total - found - absorbed) / scale


# Loading


def _transformers() -> Any:
    """The library, which jaxlrp itself does not need."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise ImportError(
            "examples/hub.py needs transformers: pip install 'transformers<5'"
        ) from error


def load_vit(name: str, image: Path | None) -> Task:
    """An image and its class."""
    transformers = _transformers()
    model, params = transformers.FlaxViTForImageClassification.from_pretrained(
        name, _do_init=False
    )
    file = transformers.utils.cached_file(name, "preprocessor_config.json")
    pixels = _pixels(image, json.loads(Path(file).read_text()))

    def scores(params: Any, pixels: jax.Array) -> jax.Array:
        return model(pixels, params=params).logits

    def answer(scores: np.ndarray) -> str:
        return model.config.id2label[int(scores[0].argmax())]

    return Task(scores, params, jnp.asarray(pixels), (), answer)


def load_bert(name: str, image: Path | None) -> Task:
    """A question and a text: where the answer begins, and where it ends."""
    transformers = _transformers()
    model, params = transformers.FlaxBertForQuestionAnswering.from_pretrained(
        name, _do_init=False
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    given = tokenizer(QUESTION, CONTEXT, return_tensors="np")
    parts = jnp.asarray(given["token_type_ids"])
    tokens = tuple(tokenizer.convert_ids_to_tokens(given["input_ids"][0]))

    def scores(params: Any, ids: jax.Array) -> jax.Array:
        out = model(ids, token_type_ids=parts, params=params)
        ends = jnp.stack([out.start_logits, out.end_logits], axis=1)
        # The answer is in the text, the second part.
        return jnp.where(parts[:, None] == 1, ends, -1e9)

    def answer(scores: np.ndarray) -> str:
        start, end = scores[0].argmax(-1)
        return " ".join(tokens[start : end + 1])

    return Task(scores, params, jnp.asarray(given["input_ids"]), tokens, answer)


def load_llama(name: str, image: Path | None) -> Task:
    """The beginning of a text: how it goes on."""
    transformers = _transformers()
    model, params = transformers.FlaxLlamaForCausalLM.from_pretrained(
        name, _do_init=False
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    ids = tokenizer(PROMPT, return_tensors="np")["input_ids"]

    def scores(params: Any, ids: jax.Array) -> jax.Array:
        return model(ids, params=params).logits[:, -1]

    tokens = tuple(tokenizer.convert_ids_to_tokens(ids[0]))
    return Task(scores, params, jnp.asarray(ids), tokens, _next(tokenizer))


def load_t5(name: str, image: Path | None) -> Task:
    """An instruction: how the answer begins."""
    transformers = _transformers()
    with old_keywords():
        model, params = transformers.FlaxT5ForConditionalGeneration.from_pretrained(
            name, _do_init=False
        )
    tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    ids = tokenizer(INSTRUCTION, return_tensors="np")["input_ids"]
    start = jnp.full((1, 1), model.config.decoder_start_token_id, jnp.int32)

    def scores(params: Any, ids: jax.Array) -> jax.Array:
        with old_keywords():
            out = model(ids, decoder_input_ids=start, params=params)
        return out.logits[:, -1]

    tokens = tuple(tokenizer.convert_ids_to_tokens(ids[0]))
    return Task(scores, params, jnp.asarray(ids), tokens, _next(tokenizer))


LOAD: Mapping[str, Callable[[str, Path | None], Task]] = {
    "vit": load_vit,
    "bert": load_bert,
    "llama": load_llama,
    "t5": load_t5,
}


def _next(tokenizer: Any) -> Callable[[np.ndarray], str]:
    return lambda scores: tokenizer.convert_ids_to_tokens(int(scores[0].argmax()))


def _pixels(path: Path | None, config: Mapping[str, Any]) -> np.ndarray:
    """An image file, or noise, as a model wants it, "1 3 height width"."""
    height, width = config["size"]["height"], config["size"]["width"]
    if path is None:
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3))
        image = Image.fromarray(noise.astype(np.uint8))
    else:
        image = Image.open(path).convert("RGB")
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32) * config.get("rescale_factor", 1 / 255)
    pixels = (pixels - np.array(config["image_mean"])) / np.array(config["image_std"])
    return np.moveaxis(pixels, -1, 0)[None].astype(np.float32)


@contextlib.contextmanager
def old_keywords() -> Iterator[None]:
    """`jnp.clip` with the keywords that T5 uses and JAX has removed."""
    clip = jnp.clip

    def with_old(
        a: Any, a_min: Any = None, a_max: Any = None, **given: Any
    ) -> jax.Array:
        return clip(a, **({"min": a_min, "max": a_max} | given))

    with mock.patch.object(jnp, "clip", with_old):
        yield


# Tiny models with random weights, saved as real ones are

_TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def _word_level(words: str, special: tuple[str, ...], template: str) -> Any:
    """A tokenizer that knows these words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {w: i for i, w in enumerate([*special, *sorted(set(words.split()))])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore
    known = [(token, vocabulary[token]) for token in special]
    made.post_processor = processors.TemplateProcessing(template, None, known)  # type: ignore
    return _transformers().PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", eos_token="</s>"
    )


def save_vit(folder: Path) -> None:
    transformers = _transformers()
    config = transformers.ViTConfig(**_TINY, image_size=32, patch_size=8, num_labels=5)
    transformers.FlaxViTForImageClassification(config).save_pretrained(folder)
    wanted = {"size": {"height": 32, "width": 32}} | dict.fromkeys(
        ("image_mean", "image_std"), [0.5, 0.5, 0.5]
    )
    _files.write(folder / "preprocessor_config.json", json.dumps(wanted).encode())


def save_bert(folder: Path) -> None:
    transformers = _transformers()
    words = f"{QUESTION} {CONTEXT}".lower().replace("?", " ?").replace(".", " .")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = folder / "vocab.txt"
    lines = "\n".join([*special, *sorted(set(words.split()))])
    _files.write(vocabulary, lines.encode())
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(vocabulary))
    tokenizer.save_pretrained(folder)
    config = transformers.BertConfig(**_TINY, vocab_size=len(tokenizer))
    transformers.FlaxBertForQuestionAnswering(config).save_pretrained(folder)


def save_llama(folder: Path) -> None:
    transformers = _transformers()
    tokenizer = _word_level(PROMPT, ("<unk>", "<s>", "</s>", "<pad>"), "<s> $A")
    tokenizer.save_pretrained(folder)
    config = transformers.LlamaConfig(
        **_TINY, vocab_size=len(tokenizer), num_key_value_heads=2
    )
    transformers.FlaxLlamaForCausalLM(config).save_pretrained(folder)


def save_t5(folder: Path) -> None:
    transformers = _transformers()
    tokenizer = _word_level(INSTRUCTION, ("<pad>", "</s>", "<unk>"), "$A </s>")
    tokenizer.save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    with old_keywords():
        model = transformers.FlaxT5ForConditionalGeneration(config)
    model.save_pretrained(folder)


SAVE: Mapping[str, Callable[[Path], None]] = {
    "vit": save_vit,
    "bert": save_bert,
    "llama": save_llama,
    "t5": save_t5,
}


# Showing


def show(kind: str, task: Task, scores: np.ndarray, relevance: np.ndarray) -> bytes:
    """A heatmap: HTML of a text, PNG of an image."""
    title = f"{kind}: {task.answer(scores)}"
    if task.tokens:
        picture = text.heatmap(task.tokens, relevance[0], title=title)
        return text.page(picture, title=title).encode("utf-8", "xmlcharrefreplace")
    figure = plot.images(relevance, task.inputs, labels=title, channel=1, cell=3.4)
    return png(figure)


def run(kind: str, name: str, options: Options) -> float:
    """Load, explain, show; returns what is missing from the sum."""
    composite = COMPOSITES[kind]
    task = LOAD[kind](name, options.image)
    scores, relevance = explain(task, composite)
    rest = missing(task, composite, relevance)
    print(
        f"{kind}: {task.answer(scores)!r}, scores {scores.max(-1).ravel()}, relevance "
        f"{relevance.sum():.4f}, unexplained {rest:.1e}"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"hub_{kind}{'.html' if task.tokens else '.png'}"
    _files.write(path, show(kind, task, scores, relevance))
    print(f"wrote {path}")
    return rest


def tiny(options: Options) -> None:
    """Each kind with random weights, saved and loaded.

    Raises:
      ArithmeticError: if relevances and what is absorbed do not add up to the scores.
    """
    for kind in KINDS if options.kind is None else (options.kind,):
        with tempfile.TemporaryDirectory() as folder:
            SAVE[kind](Path(folder))
            rest = run(kind, folder, options)
        if not rest < 1e-3:
            raise ArithmeticError(f"{kind}: {rest:.1%} of the score is unexplained")


def main(options: Options) -> None:
    if options.tiny:
        tiny(options)
        return
    kinds = KINDS if options.kind is None else (options.kind,)
    for kind in kinds:
        run(kind, options.name or NAMES[kind], options)


def parse(arguments: list[str] | None = None) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(
        description="Explain models of the Hugging Face hub.",
    )
    parser.add_argument("kind", nargs="?", choices=KINDS, help="all if unset")
    parser.add_argument("--name", help="of the hub, or a folder")
    parser.add_argument("--image", type=Path, help="for vit; noise if unset")
    parser.add_argument(
        "--tiny", action="store_true", help="random weights, no network, sums checked"
    )
    parser.add_argument("--out", type=Path, default=defaults.out, help="folder")
    options = Options(**vars(parser.parse_args(arguments)))
    if options.name and options.kind is None:
        parser.error("--name: a model is of one kind, expected it in front")
    if options.name and options.tiny:
        parser.error("--name: got it with --tiny, which makes its own models")
    return options


if __name__ == "__main__":
    main(parse())
