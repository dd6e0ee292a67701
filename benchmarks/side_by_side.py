"""Gradient and relevance from one forward pass, over the gradient alone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax

import jaxlrp
from benchmarks.gradient_ratio import COMPOSITES, Row, gradient, measure
from tests.models.usual import MODELS

NETWORKS = {
    "vgg16": ("default", "proportional", "epsilon"),
    "resnet18": ("default", "proportional", "epsilon"),
    "vit": ("default", "attnlrp"),
    "bert": ("default", "attnlrp"),
    "llama": ("default", "attnlrp"),
}


def both(apply: Callable[..., Any], composite: Any) -> Callable[..., Any]:
    """All scores, and for each example's highest one the gradient and the relevance."""
    return jaxlrp.value_grad_and_lrp(apply, composite, argnums=1)


def costs(model: str, rounds: int, tiny: bool = False) -> list[Row]:
    """A row for each composite; `relevance` is the cost of both."""
    apply, params, x = MODELS[model](tiny)
    jax.jit(gradient(apply)).lower(params, x)
    names = NETWORKS[model]
    builders: dict[str, Callable[[], Callable]] = {"gradient": lambda: gradient(apply)}
    for name in names:
        builders[name] = functools.partial(both, apply, COMPOSITES[name])
    cost = measure(builders, (params, x), rounds)
    return [Row(model, name, cost["gradient"], cost[name]) for name in names]
