"""PyTorch modules as JAX functions, by torchax; torchvision's models among them."""

import contextlib
import functools
import importlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import torch

from benchmarks.zoo.weights import Model, fill, normal

LIBRARY = "PyTorch, by torchax"

Build = Callable[[], Model]


def _torchvision() -> Any:
    """torchvision, with operators declared that its import looks for.

    Where its compiled operators do not load, as with some builds for the CPU, nothing
    declares these. Where they load, declaring them twice would end the process.
    """
    with contextlib.suppress(RuntimeError):
        return importlib.import_module("torchvision")
    boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):
            torch.library.define(f"torchvision::{name}", boxes)
    return importlib.import_module("torchvision")


_PACKET = torch._ops.OpOverloadPacket
_overload = _PACKET.__getattr__


def _overload_or_name(self: Any, name: str) -> Any:
    """An overload, or a placeholder for those of named tensors.

    torchax looks them up; this PyTorch has them no longer.
    """
    try:
        return _overload(self, name)
    except AttributeError:
        if "imname" in name or "names" in name:
            return (str(self), name)
        raise


_with_names = functools.partial(
    mock.patch.object, _PACKET, "__getattr__", _overload_or_name
)


def extracted(module: torch.nn.Module, x: jax.Array) -> Model:
    """A PyTorch module as a function of its state and `x`."""
    with _with_names():
        import torchax

        state, function = torchax.extract_jax(module.eval())

    def f(state: Any, x: jax.Array) -> jax.Array:
        with _with_names():
            return function(state, (x,))

    return f, (fill(state, out_first=True), x)


def _encoder() -> torch.nn.Module:
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True)
    return torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


def _cnn() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1),
        torch.nn.BatchNorm2d(8),
        torch.nn.SiLU(),
        torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 16, 3, groups=2),
        torch.nn.GroupNorm(4, 16),
        torch.nn.GELU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 5),
    )


def _vision(name: str, size: int = 32, **options: Any) -> Build:
    def build() -> Model:
        make = getattr(_torchvision().models, name)
        return extracted(make(num_classes=5, **options), normal(1, 3, size, size))

    return build


MODULES: dict[str, Build] = {
    "CNN": lambda: extracted(_cnn(), normal(2, 3, 16, 16)),
    "TransformerEncoder": lambda: extracted(_encoder(), normal(2, 7, 32)),
}

VISION: dict[str, Build] = {
    "ResNet18": _vision("resnet18"),
    "ViT": _vision(
        "VisionTransformer",
        image_size=32,
        patch_size=8,
        num_layers=2,
        num_heads=4,
        hidden_dim=32,
        mlp_dim=64,
    ),
}

MODELS: dict[str, dict[str, Build]] = {"torch.nn": MODULES, "torchvision": VISION}
