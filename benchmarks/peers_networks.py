"""Networks of `tests.models.usual` in PyTorch, as zennit, captum and LXT need them.

With random weights: what is compared is time. Needs PyTorch and transformers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers
from captum.attr._utils.custom_modules import Addition_Module
from torch import Tensor, nn
from zennit.layer import Sum

from benchmarks.rates import TINY_STAGES
from examples.efficientnet import CLASSES, HEAD, STAGES, STEM, Stage


@dataclasses.dataclass(frozen=True)
class Convolutions:
    """A VGG's or a ResNet's sizes.

    Attributes:
      stages: the features of its convolutions, or of blocks and how many they are.
      dense: of a VGG's hidden layers.
      classes: how many scores.
      size: of images.
    """

    stages: Sequence[Sequence[int]]
    dense: Sequence[int]
    classes: int
    size: int


@dataclasses.dataclass(frozen=True)
class Transformer:
    """A transformer's sizes.

    Attributes:
      width: of the residual stream.
      heads: of attention.
      layers: how many.
      hidden: width of the multi-layer perceptron.
      classes: how many scores.
      tokens: how many, or the size of images.
      groups: of heads that share keys.
      patch: size of a patch.
      padding: tokens at the end that are masked.
    """

    width: int
    heads: int
    layers: int
    hidden: int
    classes: int
    tokens: int
    groups: int = 0
    patch: int = 0
    padding: int = 0


VGG16 = Convolutions(
    ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3), (4096, 4096), 1000, 224
)
RESNET18 = Convolutions(((64, 2), (128, 2), (256, 2), (512, 2)), (), 1000, 224)
VIT = Transformer(384, 6, 12, 1536, 1000, 224, patch=16)
BERT = Transformer(768, 12, 12, 3072, 2, 128, padding=16)
LLAMA = Transformer(768, 12, 12, 2048, 32000, 256, groups=4)
TINY = {
    "vgg16": Convolutions(((4,), (6,)), (8,), 5, 8),
    "resnet18": Convolutions(((4, 1), (6, 1)), (), 5, 32),
    "vit": Transformer(8, 2, 2, 32, 5, 8, patch=4),
    "bert": Transformer(8, 2, 2, 32, 2, 5, padding=1),
    "llama": Transformer(8, 4, 2, 12, 7, 5, groups=2),
}
SIZES: dict[str, Convolutions | Transformer] = {
    "vgg16": VGG16,
    "resnet18": RESNET18,
    "vit": VIT,
    "bert": BERT,
    "llama": LLAMA,
}


class Vgg(nn.Module):
    def __init__(self, sizes: Convolutions) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        features, size = 3, sizes.size
        for stage in sizes.stages:
            for wide in stage:
                parts += [nn.Conv2d(features, wide, 3, padding=1), nn.ReLU()]
                features = wide
            parts.append(nn.MaxPool2d(2))
            size //= 2
        self.features = nn.Sequential(*parts)
        parts, features = [], features * size**2
        for wide in sizes.dense:
            parts += [nn.Linear(features, wide), nn.ReLU()]
            features = wide
        self.head = nn.Sequential(*parts, nn.Linear(features, sizes.classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


class Stacked(nn.Module):
    """zennit's sum of a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = Sum()

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.sum(torch.stack([a, b], -1))


class Plain(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


ADDITIONS: dict[str, Callable[[], nn.Module]] = {
    "zennit": Stacked,
    "captum": Addition_Module,
    "plain": Plain,
}
"""How a residual sum is written, for whom."""


class Block(nn.Module):
    def __init__(
        self, features: int, wide: int, stride: int, add: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, wide, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(wide)
        self.relu1 = nn.ReLU()
        self.second = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(wide)
        # captum asks for a rule of every module, of an identity too.
        self.skip: nn.Module | None = None
        if stride > 1 or features != wide:
            shortcut = nn.Conv2d(features, wide, 1, stride, bias=False)
            self.skip = nn.Sequential(shortcut, nn.BatchNorm2d(wide))
        self.add, self.relu2 = add(), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu1(self.norm1(self.first(x)))
        h = self.norm2(self.second(h))
        return self.relu2(self.add(h, x if self.skip is None else self.skip(x)))


class ResNet(nn.Module):
    def __init__(self, sizes: Convolutions, add: Callable[[], nn.Module]) -> None:
        super().__init__()
        features = sizes.stages[0][0]
        self.stem = nn.Conv2d(3, features, 7, 2, 3, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(features), nn.ReLU()
        self.pool = nn.MaxPool2d(3, 2, 1)
        blocks = []
        for i, (wide, count) in enumerate(sizes.stages):
            for j in range(count):
                stride = 2 if i and not j else 1
                blocks.append(Block(features, wide, stride, add))
                features = wide
        self.blocks = nn.Sequential(*blocks)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(features, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm(self.stem(x))))
        return self.head(self.average(self.blocks(x)).flatten(1))


class Inverted(nn.Module):
    """An inverted residual block of EfficientNet-Lite."""

    def __init__(
        self, features: int, stage: Stage, stride: int, add: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        wide, kernel = features * stage.expansion, stage.kernel
        parts: list[nn.Module] = []
        if stage.expansion > 1:
            parts += [*_normed(features, wide, 1), nn.ReLU6()]
        parts += [*_normed(wide, wide, kernel, stride, wide), nn.ReLU6()]
        self.inner = nn.Sequential(*parts, *_normed(wide, stage.width, 1))
        fits = stride == 1 and features == stage.width
        self.add = add() if fits else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x)
        return h if self.add is None else self.add(h, x)


def _normed(
    features: int, wide: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    # Padded alike on both sides: other numbers than ours, and as many of them.
    convolve = nn.Conv2d(
        features, wide, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return [convolve, nn.BatchNorm2d(wide)]


class Efficient(nn.Module):
    """EfficientNet-Lite0, as in `examples.efficientnet`."""

    def __init__(
        self,
        stages: Sequence[Stage],
        stem: int,
        head: int,
        classes: int,
        add: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [*_normed(3, stem, 3, 2), nn.ReLU6()]
        features = stem
        for stage in stages:
            for i in range(stage.blocks):
                stride = 1 if i else stage.stride
                parts.append(Inverted(features, stage, stride, add))
                features = stage.width
        parts += [*_normed(features, head, 1), nn.ReLU6()]
        self.features = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))


@dataclasses.dataclass(frozen=True)
class Port:
    """A network in PyTorch, from an input of floats to scores.

    Attributes:
      module: the network.
      scores: of an input.
      x: an input.
    """

    module: nn.Module
    scores: Callable[[Tensor], Tensor]
    x: Tensor


def image_network(
    name: str, tiny: bool = False, add: str = "plain", batch: int = 1
) -> Port:
    """VGG16, ResNet18 or EfficientNet-Lite0."""
    if name == "efficientnet":
        size = 16 if tiny else 224
        stages = TINY_STAGES if tiny else STAGES
        widths = (4, 8, 5) if tiny else (STEM, HEAD, CLASSES)
        made: nn.Module = Efficient(stages, *widths, ADDITIONS[add])
    else:
        sizes = (TINY if tiny else SIZES)[name]
        assert isinstance(sizes, Convolutions)
        made = Vgg(sizes) if name == "vgg16" else ResNet(sizes, ADDITIONS[add])
        size = sizes.size
    module = made.eval().requires_grad_(False)
    return Port(module, module, torch.randn(batch, 3, size, size))


def transformer(name: str, tiny: bool = False, batch: int = 1) -> Port:
    """Hugging Face's, whose classes are found when this is called: LXT's stand in."""
    sizes = (TINY if tiny else SIZES)[name]
    assert isinstance(sizes, Transformer)
    common: dict[str, Any] = {
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "intermediate_size": sizes.hidden,
    }
    x = torch.randn(batch, sizes.tokens, sizes.width)
    if name == "vit":
        from transformers.models.vit import modeling_vit

        config = transformers.ViTConfig(
            **common,
            image_size=sizes.tokens,
            patch_size=sizes.patch,
            num_labels=sizes.classes,
        )
        module = modeling_vit.ViTForImageClassification(config)
        x = torch.randn(batch, 3, sizes.tokens, sizes.tokens)
        scores = lambda x: module(x).logits  # noqa: E731
    elif name == "bert":
        from transformers.models.bert import modeling_bert

        config = transformers.BertConfig(**common, num_labels=sizes.classes)
        module = modeling_bert.BertForSequenceClassification(config)
        mask = torch.arange(sizes.tokens)[None] < sizes.tokens - sizes.padding
        mask = mask.long()
        scores = lambda x: module(inputs_embeds=x, attention_mask=mask).logits  # noqa: E731
    else:
        from transformers.models.llama import modeling_llama

        config = transformers.LlamaConfig(
            **common,
            num_key_value_heads=sizes.groups,
            vocab_size=sizes.classes,
        )
        module = modeling_llama.LlamaForCausalLM(config)
        options = {"use_cache": False, "logits_to_keep": 1}
        scores = lambda x: module(inputs_embeds=x, **options).logits[:, -1]  # noqa: E731
    module = module.eval().requires_grad_(False)
    return Port(module, scores, x)
