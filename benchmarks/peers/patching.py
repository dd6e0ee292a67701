"""LXT changes classes and modules in place; here that ends with a block."""

from benchmarks.peers import torchvision_stub  # noqa: F401 - before torchvision

# isort: split
import contextlib
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from lxt.efficient import monkey_patch, monkey_patch_zennit
from torch import nn
from zennit import composites, rules
from zennit.core import BasicHook

from benchmarks.peers.ports import Port, tensor

Target = type | types.ModuleType
Patches = Mapping[Any, Callable[[Any], bool]]
Gamma = tuple[float, float] | None
"""zennit's gamma of convolutions and of dense layers."""

GAMMA_REASON = "each layer's relevance is divided by its input plus 1e-10 there"
"""Why LXT's is not ours to the last digit where there is a gamma."""


@contextlib.contextmanager
def restored(*targets: Target) -> Iterator[None]:
    """What these classes and modules hold is put back at the end."""
    held = [(target, dict(vars(target))) for target in targets]
    try:
        yield
    finally:
        for target, before in held:
            for name, value in dict(vars(target)).items():
                if name not in before:
                    delattr(target, name)
                elif value is not before[name]:
                    setattr(target, name, before[name])


@contextlib.contextmanager
def patched(patches: Patches) -> Iterator[None]:
    """LXT's patches are in place: build the network inside."""
    with restored(*patches):
        for target in patches:
            if hasattr(target, "ALL_ATTENTION_FUNCTIONS"):
                # One object for all models, into which CP-LRP's patch writes.
                target.ALL_ATTENTION_FUNCTIONS = dict(target.ALL_ATTENTION_FUNCTIONS)
        with warnings.catch_warnings():
            # It only warns where a patch has failed.
            warnings.simplefilter("error")
            monkey_patch(None, dict(patches))
        yield


@contextlib.contextmanager
def patched_zennit() -> Iterator[None]:
    """zennit's hooks take gradients for relevance divided by the output, by LXT."""
    with restored(BasicHook):
        monkey_patch_zennit()
        yield


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """What asks for float32 gets float64.

    transformers takes softmax, RMS norms and rotary embeddings in float32 whatever
    the weights are, and so do LXT's patches.
    """
    with restored(torch.Tensor):
        single, short = torch.float32, torch.float
        torch.float32 = torch.float = torch.float64
        torch.Tensor.float = torch.Tensor.double
        try:
            yield
        finally:
            torch.float32, torch.float = single, short


def at_class(scores: torch.Tensor, classes: Any) -> torch.Tensor:
    """The score of each example's class at its place, zero elsewhere."""
    chosen = torch.tensor(np.asarray(classes))
    return scores * nn.functional.one_hot(chosen, scores.shape[-1]).to(scores)


def by_lxt(
    build: Callable[[], Port],
    patches: Patches,
    inputs: Any,
    classes: Any,
    gamma: Gamma = None,
) -> np.ndarray:
    """The gradient times the input of the patched network.

    Args:
      build: makes the network, when the patches are in place.
      patches: LXT's map.
      inputs: in the layout of the JAX network.
      classes: one of each example.
      gamma: zennit's rules on top, or None.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(patched(patches))
        stack.enter_context(in_float64())
        port = build()
        if gamma is not None:
            given = zip((nn.Conv2d, nn.Linear), map(rules.Gamma, gamma), strict=True)
            stack.enter_context(patched_zennit())
            composite = composites.LayerMapComposite(list(given))
            stack.enter_context(composite.context(port.module))
        x = tensor(inputs).requires_grad_()
        at_class(port.scores(x), classes).sum().backward()
    assert x.grad is not None
    return (x * x.grad).detach().numpy()
