"""Libraries of models in Flax: jimm, mamba2-jax and flaxmodels, and NNX itself."""

from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import flaxmodels
import jax
import jax.numpy as jnp
import jimm.models
import mamba2_jax
import qwix
from flax import linen, nnx

from benchmarks.zoo.weights import Model, fill, ids, normal

LIBRARY = "Flax, packages"

Build = Callable[[], Model]


def split(
    make: Callable[[], Any],
    x: Any,
    call: Callable[[Any, Any], jax.Array] = lambda model, x: model(x),
) -> Model:
    """An NNX module as a function of its parameters and `x`; other state is held."""
    model = nnx.eval_shape(make)
    model.eval()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = fill((params, rest))

    def f(params: Any, x: Any) -> jax.Array:
        params, rest_ = jax.tree.map(lambda v: v, (params, rest))
        return call(nnx.merge(graph, params, rest_), x)

    return f, (params, x)


def applied(module: linen.Module, x: Any, **options: Any) -> Model:
    """A Linen module as a function of its variables and `x`."""
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda x: module.init(key, x, **options), x)
    return lambda params, x: module.apply(params, x, **options), (fill(shapes), x)


# ---- NNX -------------------------------------------------------------------------


class TutorialCNN(nnx.Module):
    """The network of Flax's first tutorial, for small images."""

    def __init__(self, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.conv2 = nnx.Conv(8, 16, (3, 3), rngs=rngs)
        self.dropout = nnx.Dropout(0.025, rngs=rngs)
        self.linear1 = nnx.Linear(256, 32, rngs=rngs)
        self.linear2 = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.dropout(self.conv1(x))))
        x = nnx.avg_pool(x, (2, 2), strides=(2, 2))
        x = nnx.avg_pool(nnx.relu(self.conv2(x)), (2, 2), strides=(2, 2))
        return self.linear2(nnx.relu(self.linear1(x.reshape(x.shape[0], -1))))


class TutorialGPT(nnx.Module):
    """A decoder as in the JAX AI Stack's tutorial."""

    def __init__(self, rngs: nnx.Rngs):
        self.tokens = nnx.Embed(99, 32, rngs=rngs)
        self.positions = nnx.Embed(16, 32, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(32, rngs=rngs) for _ in range(2)])
        self.attention = nnx.MultiHeadAttention(4, 32, decode=False, rngs=rngs)
        self.up = nnx.Linear(32, 64, rngs=rngs)
        self.down = nnx.Linear(64, 32, rngs=rngs)
        self.head = nnx.Linear(32, 99, use_bias=False, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = self.tokens(tokens) + self.positions(jnp.arange(tokens.shape[1]))
        h = self.attention(x, mask=nnx.make_causal_mask(tokens))
        x = self.norms[0](x + h)
        x = self.norms[1](x + self.down(nnx.relu(self.up(x))))
        return self.head(x)


def _recurrent(cell: Callable[..., Any]) -> Build:
    def make() -> Any:
        rngs = nnx.Rngs(0)
        rnn = nnx.RNN(cell(4, 8, rngs=rngs), rngs=rngs)
        return nnx.Sequential(rnn, lambda h: h[:, -1], nnx.Linear(8, 3, rngs=rngs))

    return lambda: split(make, normal(2, 9, 4))


NNX: dict[str, Build] = {
    "tutorial CNN": lambda: split(
        lambda: TutorialCNN(nnx.Rngs(0)), normal(2, 16, 16, 1)
    ),
    "tutorial GPT": lambda: split(lambda: TutorialGPT(nnx.Rngs(0)), ids(2, 12)),
    "LSTM": _recurrent(nnx.LSTMCell),
    "GRU": _recurrent(nnx.GRUCell),
}


# ---- jimm ------------------------------------------------------------------------


def _jimm(name: str, sizes: Mapping[str, Any], x: Any, call: Any = None) -> Build:
    """A model of jimm; its parameters are sharded, here over one device."""

    def build() -> Model:
        explicit = (jax.sharding.AxisType.Explicit,)
        mesh = jax.make_mesh((1,), ("fsdp",), axis_types=explicit)
        with jax.set_mesh(mesh):
            make = getattr(jimm.models, name)
            f, args = split(
                lambda: make(rngs=nnx.Rngs(0), **sizes),
                x(),
                call or (lambda m, x: m(x)),
            )

        def on_mesh(params: Any, x: Any) -> jax.Array:
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return f(params, x)

        return on_mesh, args

    return build


def _image() -> jax.Array:
    return normal(2, 32, 32, 3)


_VIT = {
    "img_size": 32,
    "patch_size": 8,
    "num_layers": 2,
    "num_heads": 4,
    "mlp_dim": 64,
    "hidden_size": 32,
}
_TWO_TOWERS = {
    "image_resolution": 32,
    "vision_layers": 2,
    "vision_hidden_size": 64,
    "vision_patch_size": 8,
    "context_length": 12,
    "vocab_size": 99,
    "text_hidden_size": 64,
    "num_text_heads": 4,
    "num_text_layers": 2,
}


def _image_and_text() -> dict[str, jax.Array]:
    return {"image": normal(2, 32, 32, 3), "text": ids(2, 12)}


JIMM: dict[str, Build] = {
    "ViT": _jimm("VisionTransformer", {**_VIT, "num_classes": 5}, _image),
    "DINOv2": _jimm("DINOv2Model", _VIT, _image),
    "DINOv3": _jimm("DINOv3Model", _VIT, _image),
    "CLIP": _jimm("CLIP", _TWO_TOWERS, _image_and_text, lambda m, x: m(**x)),
    "SigLIP": _jimm("SigLIP", _TWO_TOWERS, _image_and_text, lambda m, x: m(**x)),
}


# ---- mamba2-jax and flaxmodels ---------------------------------------------------


def _mamba2() -> Model:
    config = mamba2_jax.Mamba2Config(
        vocab_size=99,
        hidden_size=32,
        state_size=8,
        head_dim=8,
        chunk_size=8,
        num_hidden_layers=2,
    )
    return split(
        lambda: mamba2_jax.Mamba2ForCausalLM(config, rngs=nnx.Rngs(0)),
        ids(2, 20),
        lambda model, x: model(x)["logits"],
    )


def _with_old_keywords(reshape: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """`jnp.reshape` with the keyword that StyleGAN2 uses and JAX has removed."""
    return lambda a, shape=None, newshape=None: reshape(
        a, newshape if shape is None else shape
    )


def _style_gan() -> Model:
    """StyleGAN2: the image of a latent vector."""
    reshape = _with_old_keywords(jnp.reshape)
    generator = flaxmodels.stylegan2.Generator(
        resolution=16,
        z_dim=16,
        w_dim=16,
        mapping_layer_features=16,
        num_ws=6,
        num_mapping_layers=2,
        fmap_base=128,
        fmap_max=16,
    )
    options = {"train": False, "noise_mode": "const"}
    with mock.patch.object(jnp, "reshape", reshape):
        f, args = applied(generator, normal(1, 16), **options)

    def image(params: Any, x: jax.Array) -> jax.Array:
        with mock.patch.object(jnp, "reshape", reshape):
            return f(params, x).reshape(len(x), -1)

    return image, args


OTHERS: dict[str, Build] = {
    "Mamba-2": _mamba2,
    "flaxmodels ResNet18": lambda: applied(
        flaxmodels.ResNet18(output="logits", pretrained=None, num_classes=5),
        normal(1, 64, 64, 3),
        train=False,
    ),
    "flaxmodels StyleGAN2": _style_gan,
}

# ---- qwix ------------------------------------------------------------------------


class SmallCNN(linen.Module):
    """Two convolutions, a mean, two dense layers."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for features in (16, 32):
            x = linen.relu(linen.Conv(features, (3, 3))(x))
        return linen.Dense(10)(linen.relu(linen.Dense(64)(x.mean((1, 2)))))


class SmallEncoder(linen.Module):
    """Two layers of a transformer."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x += linen.MultiHeadDotProductAttention(4)(linen.LayerNorm()(x))
            x += linen.Dense(64)(linen.gelu(linen.Dense(128)(linen.LayerNorm()(x))))
        return linen.Dense(10)(x.mean(1))


def in_int8(module: linen.Module, x: Any, **how: Any) -> Model:
    """After training, weights and activations of eight bits."""
    bits = {"weight_qtype": jnp.int8, "act_qtype": jnp.int8, **how}
    provider = qwix.PtqProvider([qwix.QuantizationRule(module_path=".*", **bits)])
    quantised = qwix.quantize_model(module, provider)
    key = jax.random.key(0)
    params = fill(jax.eval_shape(lambda x: module.init(key, x), x))["params"]
    held = qwix.quantize_params(params, quantised.init(key, x)["params"])
    return lambda x: quantised.apply({"params": held}, x), (x,)


QWIX: Mapping[str, Build] = {
    "CNN in int8": lambda: in_int8(SmallCNN(), normal(1, 32, 32, 3)),
    "CNN in int8 with offsets": lambda: in_int8(
        SmallCNN(), normal(1, 32, 32, 3), act_calibration_method="minmax"
    ),
    "Encoder in int8": lambda: in_int8(SmallEncoder(), normal(1, 16, 64)),
}


MODELS: dict[str, dict[str, Build]] = {
    "NNX": NNX,
    "qwix": QWIX,
    "jimm": JIMM,
    "mamba2-jax and flaxmodels": OTHERS,
}
