"""Keras 3 on JAX: its applications, models of keras-hub, and its layers, tiny.

Keras-hub's backbones are taken without their presets; token ids are attributed, masks
are held.
"""

import functools
import os
from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.zoo.weights import Model, fill, ids, normal

os.environ["KERAS_BACKEND"] = "jax"  # read when Keras is imported

import keras  # noqa: E402
import keras_hub  # noqa: E402
from keras.src.applications.convnext import ConvNeXt  # noqa: E402
from keras.src.applications.densenet import DenseNet  # noqa: E402
from keras.src.backend import random as keras_random  # noqa: E402

LIBRARY = "Keras"

Build = Callable[[], Model]


def _zeros(shape: Any, *args: Any, dtype: Any = None, **kwargs: Any) -> jax.Array:
    return jnp.zeros(shape, dtype or "float32")


DRAWS = ("uniform", "normal", "truncated_normal")


def _quickly(make: Callable[[], Any]) -> Any:
    """Makes a model whose weights are zeros: its initialisers would be compiled."""
    with mock.patch.multiple(keras_random, **dict.fromkeys(DRAWS, _zeros)):
        return make()


def stateless(
    make: Callable[[], Any],
    x: Any,
    held: Mapping[str, jax.Array] | None = None,
    output: str | None = None,
) -> Model:
    """A Keras model as a function of its variables and `x`; `held` are constants."""
    model = _quickly(make)
    names = [f"{i:04}/{v.path}" for i, v in enumerate(model.variables)]
    trainable = {id(v) for v in model.trainable_variables}
    places = [id(v) in trainable for v in model.variables]
    params = fill(dict(zip(names, (v.value for v in model.variables), strict=True)))

    def f(params: Any, x: Any) -> jax.Array:
        values = [params[name] for name in names]
        first = [v for v, p in zip(values, places, strict=True) if p]
        rest = [v for v, p in zip(values, places, strict=True) if not p]
        whole = {**x, **held} if held is not None else x
        out, _ = model.stateless_call(first, rest, whole, training=False)
        return out if output is None else out[output]

    return f, (params, x)


# ---- keras.applications ----------------------------------------------------------


def _application(make: Callable[..., Any], size: int = 32, **options: Any) -> Build:
    """An application of its own depth; `options` make it small where they can."""
    options = {"weights": None, "classes": 5, "classifier_activation": None, **options}
    options["input_shape"] = (size, size, 3)
    return lambda: stateless(lambda: make(**options), normal(1, size, size, 3))


_APPLICATIONS = keras.applications

IMAGES: dict[str, Build] = {
    "ResNet50V2": _application(_APPLICATIONS.ResNet50V2),
    "DenseNet": _application(functools.partial(DenseNet, [2, 2, 2, 2])),
    "MobileNet": _application(_APPLICATIONS.MobileNet, alpha=0.25),
    "MobileNetV2": _application(_APPLICATIONS.MobileNetV2, alpha=0.35),
    "MobileNetV3Small": _application(
        _APPLICATIONS.MobileNetV3Small, minimalistic=False, dropout_rate=0.0
    ),
    "EfficientNetB0": _application(_APPLICATIONS.EfficientNetB0),
    "ConvNeXt": _application(
        functools.partial(ConvNeXt, [1, 1, 2, 1], [8, 16, 24, 32])
    ),
}


# ---- keras-hub -------------------------------------------------------------------

WIDTH, TOKENS = 32, 12
_TEXT = {"vocabulary_size": 99, "num_layers": 2, "hidden_dim": WIDTH}
_ENCODER = _TEXT | {"num_heads": 4, "intermediate_dim": 64}
_DECODER = _TEXT | {
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_dim": 64,
}


def _hub(name: str, x: Callable[[], Any], held: Callable[[], Any], **sizes: Any):
    output = sizes.pop("output", None)

    def make() -> Any:
        return getattr(keras_hub.models, f"{name}Backbone")(**sizes)

    return lambda: stateless(make, x(), held(), output)


def _ones(tokens: int = TOKENS) -> jax.Array:
    return jnp.ones((1, tokens), "int32")


def _text(name: str, **sizes: Any) -> Build:
    """A model of token ids and a padding mask."""
    return _hub(
        name,
        lambda: {"token_ids": ids(1, TOKENS)},
        lambda: {"padding_mask": _ones()},
        **sizes,
    )


def _segments(name: str, masked: bool = True, **sizes: Any) -> Build:
    """A model of token ids, segments and a padding mask."""
    held = {"padding_mask": _ones()} if masked else {}
    return _hub(
        name,
        lambda: {"token_ids": ids(1, TOKENS)},
        lambda: {"segment_ids": 0 * _ones(), **held},
        **({"output": "sequence_output"} | sizes),
    )


def _pair(name: str, **sizes: Any) -> Build:
    """An encoder and a decoder of token ids; both are attributed."""
    return _hub(
        name,
        lambda: {
            "encoder_token_ids": ids(1, TOKENS),
            "decoder_token_ids": ids(1, 7, seed=3),
        },
        lambda: {
            "encoder_padding_mask": _ones(),
            "decoder_padding_mask": _ones(7),
        },
        **({"output": "decoder_sequence_output"} | sizes),
    )


def _image(name: str, size: int = 32, **sizes: Any) -> Build:
    """A model of an image."""
    output = sizes.pop("output", None)

    def make() -> Any:
        backbone = getattr(keras_hub.models, f"{name}Backbone")
        return backbone(image_shape=(size, size, 3), **sizes)

    return lambda: stateless(make, normal(1, size, size, 3), None, output)


TOKEN_MODELS: dict[str, Build] = {
    "BERT": _segments("Bert", **_ENCODER),
    "ALBERT": _segments("Albert", embedding_dim=16, **_ENCODER),
    "ELECTRA": _segments(
        "Electra",
        embedding_dim=16,
        vocab_size=99,
        **{k: v for k, v in _ENCODER.items() if k != "vocabulary_size"},
    ),
    "RoBERTa": _text("Roberta", **_ENCODER),
    "XLM-RoBERTa": _text("XLMRoberta", **_ENCODER),
    "DistilBERT": _text("DistilBert", **_ENCODER),
    "DeBERTaV3": _text("DebertaV3", bucket_size=8, max_sequence_length=16, **_ENCODER),
    "FNet": _segments(
        "FNet", False, **{k: v for k, v in _ENCODER.items() if k != "num_heads"}
    ),
    "RoFormerV2": _segments("RoformerV2", False, output=None, head_size=8, **_ENCODER),
    "XLNet": _segments("XLNet", output=None, **_ENCODER),
    "ESM2": _hub("ESM2", lambda: {"token_ids": ids(1, TOKENS)}, lambda: {}, **_ENCODER),
    "GPT-2": _text("GPT2", **_ENCODER),
    "GPT-NeoX": _text("GPTNeoX", **_ENCODER),
    "OPT": _text("OPT", **_ENCODER),
    "Bloom": _text("Bloom", **_ENCODER),
    "Falcon": _text("Falcon", num_attention_heads=4, intermediate_dim=128, **_TEXT),
    "Llama": _text("Llama", **_DECODER),
    "Llama 3": _text("Llama3", **_DECODER),
    "Mistral": _text("Mistral", sliding_window=4, **_DECODER),
    "Mixtral": _text("Mixtral", num_experts=4, **_DECODER),
    "Phi-3": _text("Phi3", **_DECODER),
    "Gemma": _text("Gemma", head_dim=8, **_DECODER),
    "Gemma 2": _text(
        "Gemma",
        head_dim=8,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        attention_logit_soft_cap=50.0,
        final_logit_soft_cap=30.0,
        use_sliding_window_attention=True,
        sliding_window_size=4,
        **_DECODER,
    ),
    "Gemma 3": _text(
        "Gemma3",
        image_size=32,
        head_dim=8,
        use_post_ffw_norm=True,
        use_post_attention_norm=True,
        use_sliding_window_attention=True,
        sliding_window_size=4,
        **_DECODER,
    ),
    "Qwen2": _text("Qwen", **_DECODER),
    "Qwen3": _text("Qwen3", head_dim=8, **_DECODER),
    "Qwen2 MoE": _text(
        "QwenMoe",
        moe_intermediate_dim=16,
        shared_expert_intermediate_dim=16,
        num_experts=4,
        top_k=2,
        **_DECODER,
    ),
    "Qwen3 MoE": _text(
        "Qwen3Moe", moe_intermediate_dim=16, num_experts=4, top_k=2, **_DECODER
    ),
    "Qwen3.5, gated delta net": _text(
        "Qwen3_5",
        head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        layer_types=["linear_attention", "full_attention"],
        **_DECODER,
    ),
    "GPT-OSS": _text("GptOss", num_experts=4, head_dim=8, **_DECODER),
    "RWKV-7": _text(
        "RWKV7",
        hidden_size=WIDTH,
        head_size=8,
        num_layers=2,
        vocabulary_size=99,
        intermediate_dim=64,
        gate_lora=8,
        mv_lora=8,
        aaa_lora=8,
        decay_lora=8,
    ),
    "BART": _pair("Bart", **_ENCODER),
    "T5": _pair("T5", key_value_dim=8, **_ENCODER),
    "Whisper": _hub(
        "Whisper",
        lambda: {
            "encoder_features": normal(1, 32, 16),
            "decoder_token_ids": ids(1, 7, seed=3),
        },
        lambda: {"decoder_padding_mask": _ones(7)},
        num_mels=16,
        max_encoder_sequence_length=32,
        max_decoder_sequence_length=16,
        output="decoder_sequence_output",
        **_ENCODER,
    ),
}

_VISION = {"num_layers": 2, "num_heads": 4, "hidden_dim": WIDTH}

HUB_IMAGES: dict[str, Build] = {
    "ViT": _image("ViT", patch_size=8, mlp_dim=64, **_VISION),
    "DeiT": _image("DeiT", patch_size=8, intermediate_dim=64, **_VISION),
    "DINOv2": _image(
        "DINOV2",
        patch_size=8,
        intermediate_dim=64,
        num_register_tokens=2,
        use_swiglu_ffn=True,
        position_embedding_shape=(32, 32, 3),
        **_VISION,
    ),
    "DINOv3": _image("DINOV3", patch_size=8, intermediate_dim=64, **_VISION),
    "Swin": _image(
        "SwinTransformer",
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
    ),
    "MiT": _image(
        "MiT",
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[2, 1],
        max_drop_path_rate=0.0,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        hidden_dims=[16, 32],
    ),
    "ViTDet": _image(
        "ViTDet",
        hidden_size=WIDTH,
        num_layers=2,
        intermediate_dim=64,
        num_heads=4,
        global_attention_layer_indices=[1],
        patch_size=8,
        num_output_channels=16,
        window_size=2,
    ),
    "CSPNet": _image(
        "CSPNet",
        stem_filters=8,
        stem_kernel_size=3,
        stem_strides=2,
        stackwise_depth=[1, 1],
        stackwise_strides=[1, 2],
        stackwise_num_filters=[16, 32],
        block_type="dark_block",
        stage_type="csp",
        bottle_ratio=[0.5, 1.0],
        block_ratio=[1.0, 0.5],
        expand_ratio=[2.0, 1.0],
    ),
    "HGNetV2": _image(
        "HGNetV2",
        output="stage1",
        depths=[1, 1],
        embedding_size=8,
        hidden_sizes=[16, 32],
        stem_channels=[3, 8, 8],
        hidden_act="relu",
        use_learnable_affine_block=True,
        stackwise_stage_filters=[[8, 8, 16, 1, 2, 3], [16, 8, 32, 1, 2, 3]],
        apply_downsample=[False, True],
        use_lightweight_conv_block=[False, True],
    ),
}


# ---- layers ----------------------------------------------------------------------


def _layers(shape: tuple[int, ...], make: Callable[[Any], Any]) -> Build:
    """A functional model of layers."""

    def model() -> Any:
        x = keras.Input(shape)
        return keras.Model(x, make(x))

    return lambda: stateless(model, normal(2, *shape))


_L = keras.layers


def _head(x: Any) -> Any:
    return _L.Dense(3)(x)


LAYERS: dict[str, Build] = {
    "LSTM": _layers(
        (7, 4), lambda x: _head(_L.LSTM(8)(_L.LSTM(8, return_sequences=True)(x)))
    ),
    "GRU, both ways": _layers((7, 4), lambda x: _head(_L.Bidirectional(_L.GRU(8))(x))),
    "ConvLSTM": _layers(
        (4, 8, 8, 2), lambda x: _head(_L.Flatten()(_L.ConvLSTM2D(4, 3)(x)))
    ),
    "separable convolutions": _layers(
        (16, 16, 3),
        lambda x: _head(
            _L.GlobalMaxPooling2D()(
                _L.SeparableConv2D(8, 3, activation="silu")(
                    _L.DepthwiseConv2D(3, activation="relu6")(x)
                )
            )
        ),
    ),
    "transposed convolutions": _layers(
        (8, 8, 2),
        lambda x: _L.Conv2DTranspose(3, 3, strides=2)(
            _L.UpSampling2D(interpolation="bilinear")(_L.Conv2D(4, 3)(x))
        ),
    ),
    "norms": _layers(
        (9, 8),
        lambda x: _head(
            _L.UnitNormalization()(
                _L.GroupNormalization(2)(
                    _L.Dense(8)(_L.LayerNormalization()(_L.RMSNormalization()(x)))
                )
            )
        ),
    ),
    "attention": _layers(
        (6, 8),
        lambda x: _head(
            _L.GroupQueryAttention(4, 4, 2)(
                *[_L.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)] * 2
            )
        ),
    ),
    "additive attention": _layers(
        (6, 8), lambda x: _head(_L.AdditiveAttention()([x, _L.Dense(8)(x)]))
    ),
    "squeeze and excite": _layers(
        (8, 8, 4),
        lambda x: _head(
            _L.GlobalAveragePooling2D()(
                _L.Multiply()(
                    [
                        x,
                        _L.Dense(4, activation="hard_sigmoid")(
                            _L.GlobalAveragePooling2D(keepdims=True)(x)
                        ),
                    ]
                )
            )
        ),
    ),
}

MODELS: dict[str, dict[str, Build]] = {
    "keras.applications": IMAGES,
    "keras-hub, text and audio": TOKEN_MODELS,
    "keras-hub, images": HUB_IMAGES,
    "layers": LAYERS,
}
