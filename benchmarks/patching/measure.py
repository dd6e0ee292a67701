"""Exact effects of nodes, and estimates of them, pair by pair."""

from __future__ import annotations

import dataclasses
import functools
import io
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.patching import decoder
from benchmarks.patching.tasks import Pairs
from examples.smollm import Loaded
from jaxlrp import _files, patching

KINDS = {"residual": "residual", "attention": "attention_out", "mlp": "mlp_out"}
"""The sites that are patched at each layer and position, by what tables call them."""

AXES = ("layer", "position", None)
HEADS = ("layer", "position", "head", None)

TOGETHER = 5
"""So many pairs are patched at once."""


def nodes(positions: Mapping[str, int] | None = None) -> dict[str, patching.Site]:
    """All sites; the heads at the last position alone."""
    found = {
        kind: patching.site(tag, AXES, only=positions) for kind, tag in KINDS.items()
    }
    return found | {"heads": patching.site("z", HEADS, only={"position": -1})}


@dataclasses.dataclass(frozen=True)
class Runs:
    """Pairs of prompts from the first changed token on.

    Attributes:
      clean: `ids`, and the `past` in front of them, with a leading axis for pairs.
      corrupt: the same of the other prompts.
      answers: token ids, `(pairs, 2)`.
    """

    clean: dict[str, Any]
    corrupt: dict[str, Any]
    answers: Array

    def pairs(self, which: slice | np.ndarray) -> Runs:
        """Some of them."""
        parts = (self.clean, self.corrupt, self.answers)
        return Runs(*jax.tree.map(lambda a: a[which], parts))

    def __len__(self) -> int:
        return len(self.answers)


def read_pairs(model: Loaded, pairs: Pairs) -> Runs:
    """What is shared by both prompts of a pair is worked out once."""

    @jax.jit
    def shared(params: Any, ids: Array) -> Any:
        past = decoder.no_past(model.config, params)
        return jax.lax.map(
            lambda ids: decoder.run(model.config, params, ids, past)[1], ids
        )

    past = shared(model.params, jnp.asarray(pairs.clean[:, : pairs.start]))
    clean, corrupt = (
        {"ids": jnp.asarray(ids[:, pairs.start :]), "past": past}
        for ids in (pairs.clean, pairs.corrupt)
    )
    return Runs(clean, corrupt, jnp.asarray(pairs.answers))


def score(params: Any) -> Callable[..., Array]:
    """The difference of the answers' logits, of the last token's state."""
    return lambda state, answers: decoder.difference(state, params["embed"], answers)


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    _files.write(path, stream.getvalue())


def exact(model: Loaded, runs: Runs, folder: Path) -> dict[str, np.ndarray]:
    """What patching each node changes, by running it; kept in a folder.

    A patch changes nothing at earlier positions: from each position on there is a
    program of its own, whose keys and values in front are those of either run.

    Returns:
      By kind `(pairs, layers, positions)`, of heads `(pairs, layers, heads)`, and the
      scores `clean` and `corrupt`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    f = functools.partial(decoder.state, model.config)
    tokens = runs.clean["ids"].shape[1]

    @functools.partial(jax.jit, static_argnums=0)
    def of_position(position: int, params: Any, runs: Any) -> Any:
        clean, corrupt, answers = runs
        start = clean["past"]["keys"].shape[1]

        def from_here(x: Any) -> Any:
            _, past = decoder.run(model.config, params, x["ids"], x["past"])
            past = jax.tree.map(lambda a: a[:, : start + position], past)
            return {"ids": x["ids"][position:], "past": past}

        def one(each: Any) -> Any:
            clean, corrupt, answers = each
            here = nodes({"position": 0})
            if position < tokens - 1:
                del here["heads"]
            judge = patching.exact(f, here, score(params), batch=30)
            found = judge(params, from_here(clean), from_here(corrupt), answers)
            ends = (score(params)(f(params, x), answers) for x in (clean, corrupt))
            return found, *ends

        return jax.vmap(one)((clean, corrupt, answers))

    found: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(runs), TOGETHER):
        path = folder / f"{first}.npz"
        if not path.exists():
            start = time.perf_counter()
            some = runs.pairs(slice(first, first + TOGETHER))
            parts = (some.clean, some.corrupt, some.answers)
            rows: dict[str, list[Any]] = {kind: [] for kind in KINDS}
            arrays = {}
            for position in range(tokens):
                effects, clean, corrupt = of_position(position, model.params, parts)
                for kind in KINDS:
                    rows[kind].append(np.asarray(effects[kind])[:, :, 0])
                if "heads" in effects:
                    arrays["heads"] = np.asarray(effects["heads"])[:, :, 0]
                arrays |= {"clean": np.asarray(clean), "corrupt": np.asarray(corrupt)}
            arrays |= {kind: np.stack(each, -1) for kind, each in rows.items()}
            arrays["seconds"] = np.array([time.perf_counter() - start])
            _save(path, arrays)
            print(f"{path}: {arrays['seconds'][0]:.0f} s", flush=True)
        with np.load(path, allow_pickle=False) as kept:
            for name in kept.files:
                found.setdefault(name, []).append(kept[name])
    return {name: np.concatenate(parts) for name, parts in found.items()}
