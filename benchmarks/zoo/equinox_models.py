"""Equinox: its layers, and the vision models of eqxvision."""

import functools
import sys
import types
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from benchmarks.zoo.weights import Model, fill, normal

LIBRARY = "Equinox"

Build = Callable[[], Model]


def partitioned(
    make: Callable[[], Any],
    x: jax.Array,
    call: Callable[[Any, jax.Array], jax.Array] = lambda model, x: jax.vmap(model)(x),
) -> Model:
    """An Equinox model as a function of its arrays and `x`."""
    try:
        model = eqx.filter_eval_shape(make)
    except jax.errors.ConcretizationTypeError:  # its constructor looks at values
        model = make()
    model = eqx.nn.inference_mode(fill(model, out_first=True))
    params, static = eqx.partition(model, eqx.is_inexact_array)
    return lambda params, x: call(eqx.combine(params, static), x), (params, x)


KEY = jax.random.key(0)
_nn = eqx.nn


def _last(cell: Any, xs: jax.Array) -> jax.Array:
    """The hidden state that a cell has after a sequence."""
    size = cell.hidden_size
    start = jnp.zeros(size) if isinstance(cell, _nn.GRUCell) else (jnp.zeros(size),) * 2
    state, _ = jax.lax.scan(lambda h, x: (cell(x, h), None), start, xs)
    return state if isinstance(cell, _nn.GRUCell) else state[0]


def _recurrent(cell: Callable[..., Any]) -> Build:
    def make() -> Any:
        return cell(4, 8, key=KEY), _nn.Linear(8, 3, key=KEY)

    def call(model: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(lambda xs: model[1](_last(model[0], xs)))(x)

    return lambda: partitioned(make, normal(2, 9, 4), call)


def _cnn() -> Any:
    return _nn.Sequential(
        [
            _nn.Conv2d(3, 8, 3, padding=1, key=KEY),
            _nn.Lambda(jax.nn.relu),
            _nn.MaxPool2d(2, 2),
            _nn.Conv2d(8, 8, 3, groups=2, key=KEY),
            _nn.GroupNorm(2, 8),
            _nn.Lambda(jax.nn.leaky_relu),
            _nn.AdaptiveAvgPool2d(2),
            _nn.Lambda(jnp.ravel),
            _nn.Linear(32, 5, key=KEY),
        ]
    )


class Block(eqx.Module):
    """A transformer block on rotary queries and keys."""

    norms: list[Any]
    attention: Any
    feed_forward: Any
    rotary: Any

    def __init__(self) -> None:
        self.norms = [_nn.LayerNorm(16), _nn.RMSNorm(16)]
        self.attention = _nn.MultiheadAttention(2, 16, key=KEY)
        self.feed_forward = _nn.MLP(16, 16, 32, 1, jax.nn.gelu, key=KEY)
        self.rotary = _nn.RotaryPositionalEmbedding(8)

    def __call__(self, x: jax.Array) -> jax.Array:
        def turned(q: Any, k: Any, v: Any) -> Any:
            turn = jax.vmap(self.rotary, in_axes=1, out_axes=1)
            return turn(q), turn(k), v

        h = jax.vmap(self.norms[0])(x)
        mask = jnp.tril(jnp.ones((len(x), len(x)), bool))
        x = x + self.attention(h, h, h, mask, process_heads=turned)
        return x + jax.vmap(self.feed_forward)(jax.vmap(self.norms[1])(x))


LAYERS: dict[str, Build] = {
    "MLP": lambda: partitioned(lambda: _nn.MLP(10, 5, 32, 3, key=KEY), normal(4, 10)),
    "CNN": lambda: partitioned(_cnn, normal(2, 3, 16, 16)),
    "GRU": _recurrent(_nn.GRUCell),
    "LSTM": _recurrent(_nn.LSTMCell),
    "transformer block": lambda: partitioned(Block, normal(2, 7, 16)),
    "transposed convolution": lambda: partitioned(
        lambda: _nn.ConvTranspose2d(3, 4, 3, stride=2, key=KEY), normal(1, 3, 6, 6)
    ),
}


# ---- eqxvision -------------------------------------------------------------------


class BatchNorm(eqx.Module):
    """Batch normalisation in inference, with the call of the one that is gone.

    eqxvision asks for `equinox.experimental.BatchNorm`, which Equinox has removed.
    """

    weight: jax.Array
    bias: jax.Array
    mean: jax.Array
    var: jax.Array
    eps: float = eqx.field(static=True)

    def __init__(
        self, input_size: int, axis_name: Any = None, eps: float = 1e-5, **_: Any
    ):
        self.weight, self.var = jnp.ones(input_size), jnp.ones(input_size)
        self.bias, self.mean = jnp.zeros(input_size), jnp.zeros(input_size)
        self.eps = eps

    def __call__(self, x: jax.Array, *, key: Any = None, inference: Any = None):
        def wide(v: jax.Array) -> jax.Array:
            return v.reshape((-1,) + (1,) * (x.ndim - 1))

        x = (x - wide(self.mean)) / jnp.sqrt(wide(self.var) + self.eps)
        return x * wide(self.weight) + wide(self.bias)


def _vision_models() -> Any:
    """`eqxvision.models`, with an Equinox that has no experimental module."""
    if "equinox.experimental" not in sys.modules:
        module = types.ModuleType("equinox.experimental")
        names = {"BatchNorm": BatchNorm, "StateIndex": type(None), "set_state": None}
        module.__dict__.update(names)
        sys.modules["equinox.experimental"] = eqx.experimental = module
    import eqxvision.models

    return eqxvision.models


def _vision(name: str, size: int = 64, pick: Any = None, **options: Any) -> Build:
    def build() -> Model:
        make = functools.partial(getattr(_vision_models(), name), **options)

        def call(model: Any, x: jax.Array) -> jax.Array:
            keys = jax.random.split(KEY, len(x))
            out = jax.vmap(model, axis_name="batch")(x, key=keys)
            return out if pick is None else pick(out)

        return partitioned(make, normal(1, 3, size, size), call)

    return build


VISION: dict[str, Build] = {
    "AlexNet": _vision("alexnet", 224, num_classes=5),
    "VGG11, batch norm": _vision("vgg11_bn", 224, num_classes=5),
    "ResNet18": _vision("resnet18", num_classes=5),
    "GoogLeNet": _vision("googlenet", num_classes=5, aux_logits=False),
    "SqueezeNet1.1": _vision("squeezenet1_1", num_classes=5),
    "ShuffleNetV2": _vision("shufflenet_v2_x0_5", num_classes=5),
    "MobileNetV3": _vision("mobilenet_v3_small", num_classes=5),
    "EfficientNetB0": _vision("efficientnet_b0", num_classes=5),
    "ViT": _vision("vit_tiny", 32, img_size=32, patch_size=8, num_classes=5),
    "Swin": _vision("swin_t", 224, num_classes=5),
    "SwinV2": _vision("swin_v2_t", 256, num_classes=5),
}

MODELS: dict[str, dict[str, Build]] = {"layers": LAYERS, "eqxvision": VISION}
