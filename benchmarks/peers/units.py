"""Relevances of the units of `benchmarks.faithfulness`. Without any of the peers."""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks import faithfulness
from benchmarks.faithfulness import Method, Setting
from jaxlrp import _files, evaluation

KEPT = faithfulness.ROOT / "out" / "peers"
"""Where relevances are kept: an array for each method, (example, *units)."""


def setting(name: str, seed: int, examples: int, folder: Path) -> Setting:
    """As `faithfulness.setting`, in float64."""
    at = faithfulness.setting(name, seed, examples, folder)
    double = functools.partial(jax.tree.map, lambda a: jnp.asarray(a, jnp.float64))
    return dataclasses.replace(
        at,
        params=double(at.params),
        inputs=double(at.inputs),
        baseline=double(at.baseline),
    )


def pooled(settings: Sequence[Setting], found: Iterable[np.ndarray]) -> np.ndarray:
    """Relevances of the inputs, summed over each unit: (seed, example, *units)."""
    pairs = zip(settings, found, strict=True)
    return np.stack(
        [
            np.stack([evaluation.pool(each, at.units) for each in relevance])
            for at, relevance in pairs
        ]
    )


def explained(settings: Sequence[Setting], method: Method) -> np.ndarray:
    """What a method of `faithfulness` finds: (seed, example, *units)."""

    @jax.jit
    def run(params: Any, baseline: Array, inputs: Array, targets: Array) -> Array:
        at = dataclasses.replace(settings[0], params=params, baseline=baseline)
        return jax.vmap(method.make(at), (None, 0, 0))(params, inputs, targets)

    found = [run(at.params, at.baseline, at.inputs, at.targets) for at in settings]
    return np.stack(found)


def measures(settings: Sequence[Setting]) -> Callable[[np.ndarray], Mapping[str, Any]]:
    """The measures of `faithfulness`, of relevances that are given.

    From (seed, example, *units) to numbers of each seed and example. It is one program
    for all methods of a network.
    """

    @jax.jit
    def run(params: Any, inputs: Array, rest: Any, relevance: Array) -> Any:
        """Of one seed. Relevance is found by the example, as methods are functions."""
        targets, evidence, baseline = rest

        def explain(params: Any, x: Array, target: Array) -> Array:
            apart = jnp.abs(inputs - x).reshape(len(inputs), -1).sum(-1)
            return relevance[apart.argmin()]

        at = dataclasses.replace(settings[0], params=params, baseline=baseline)
        return faithfulness.measured(at, explain)(inputs, targets, evidence)

    def measured(relevance: np.ndarray) -> Mapping[str, Any]:
        found = [
            run(at.params, at.inputs, (at.targets, at.evidence, at.baseline), each)
            for at, each in zip(settings, relevance, strict=True)
        ]
        return {name: np.stack([one[name] for one in found]) for name in found[0]}

    return measured


def told(measured: Callable[[np.ndarray], Mapping[str, Any]]) -> Callable[..., str]:
    """Those measures in words, over the examples that `faithfulness` shows."""

    def note(relevance: np.ndarray) -> str:
        shown = {k: v[:, 1::2].mean() for k, v in measured(relevance).items()}
        words = [f"ABPC {shown['ABPC']:.2f}"]
        if "evidence" in shown:
            words.append(f"evidence {100 * shown['evidence']:.1f} %")
        return ", ".join(words)

    return note


def keep(
    network: str, relevances: Mapping[str, np.ndarray], folder: Path = KEPT
) -> list[Path]:
    """Writes one file for each seed: by method, (example, *units)."""
    seeds = {len(found) for found in relevances.values()}
    if len(seeds) != 1:
        raise ValueError(f"relevances: got {sorted(seeds)} seeds, expected one number")
    paths = []
    for seed in range(seeds.pop()):
        content = io.BytesIO()
        np.savez(
            content, allow_pickle=False, **{k: v[seed] for k, v in relevances.items()}
        )
        path = folder / f"{network}-{seed}.npz"
        _files.write(path, content.getvalue(), folders=True)
        paths.append(path)
    return paths
