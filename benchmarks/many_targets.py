"""Many classes of one input explained in one call, against a call for each."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

import jaxlrp
from tests.models.usual import MODELS

NETWORKS = {"resnet18": ("vmap",), "vit": ("vmap", "lrp_each")}
"""By model, the ways. `lrp_each` loops over chunks; XLA's convolutions in a loop are
slow on a CPU."""
TARGETS = 100
CALLS = 10
"""For how many classes a call is timed alone, in each round."""


@dataclasses.dataclass(frozen=True)
class Together:
    """Seconds for all targets.

    Attributes:
      model: the network.
      how: they are asked for together.
      targets: how many.
      separate: a call for each: `targets` times the median call.
      together: one call.
    """

    model: str
    how: str
    targets: int
    separate: float
    together: float


def by_vmap(apply: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.vmap` over classes: the forward pass does not depend on them."""

    def explained(params: Any, x: Array, targets: Array) -> Array:
        single = lambda t: jaxlrp.lrp(apply, argnums=1, target=t)(params, x)  # noqa: E731
        return jax.vmap(single)(targets)

    return explained


def by_each(apply: Callable[..., Any]) -> Callable[..., Any]:
    """`jaxlrp.lrp_each`, where every row of the output is the same example's."""

    def explained(params: Any, x: Array, targets: Array) -> Array:
        def repeated(params: Any, x: Array) -> Array:
            scores = apply(params, x)
            return jnp.broadcast_to(scores, (len(targets), *scores.shape))

        rows = jnp.broadcast_to(targets[:, None], (len(targets), len(x)))
        return jaxlrp.lrp_each(repeated, argnums=1, target=rows)(params, x)

    return explained


WAYS = {"vmap": by_vmap, "lrp_each": by_each}


def separately(apply: Callable[..., Any]) -> Callable[..., Any]:
    """One class, which is an argument, so that all share a program."""

    def explained(params: Any, x: Array, target: Array) -> Array:
        return jaxlrp.lrp(apply, argnums=1, target=target)(params, x)

    return explained


def costs(
    model: str, rounds: int, tiny: bool = False, targets: int = TARGETS
) -> list[Together]:
    """A row for each way; calls for one class alternate with the others."""
    apply, params, x = MODELS[model](tiny)
    classes = jnp.arange(targets) % _classes(apply, params, x)
    single = jax.jit(separately(apply)).lower(params, x, classes[0]).compile()
    whole = {
        how: jax.jit(WAYS[how](apply)).lower(params, x, classes).compile()
        for how in NETWORKS[model]
    }
    alone = list(classes[:: max(1, targets // CALLS)])
    seconds: dict[str, list[float]] = {how: [] for how in (*whole, "separate")}
    for i in range(-1, rounds):
        passed = {"separate": [_seconds(single, params, x, t) for t in alone]}
        for how, program in whole.items():
            passed[how] = [_seconds(program, params, x, classes)]
        if i >= 0:  # the first is not counted
            for how, values in passed.items():
                seconds[how] += values
    separate = targets * statistics.median(seconds["separate"])
    return [
        Together(model, how, targets, separate, statistics.median(seconds[how]))
        for how in whole
    ]


def _seconds(program: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(program(*args))
    return time.perf_counter() - start


def _classes(apply: Callable[..., Any], params: Any, x: Array) -> int:
    """How many scores an example has."""
    return jax.eval_shape(apply, params, x).shape[-1]
