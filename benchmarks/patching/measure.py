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
from jaxlrp import _files, composites, patching

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


def kept(
    path: Path, make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """Arrays from a file, or made and written there with the `seconds` that it took."""
    if not path.exists():
        start = time.perf_counter()
        arrays = dict(make())
        arrays["seconds"] = np.array([time.perf_counter() - start])
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **arrays)
        _files.write(path, stream.getvalue(), folders=True)
        print(f"{path.name}: {arrays['seconds'][0]:.0f} s", flush=True)
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


def exact(model: Loaded, runs: Runs, folder: Path) -> dict[str, np.ndarray]:
    """What patching each node changes, by running it; kept in a folder.

    A patch changes nothing at earlier positions: from each position on there is a
    program of its own, whose keys and values in front are those of either run.

    Returns:
      By kind `(pairs, layers, positions)`, of heads `(pairs, layers, heads)`, and the
      scores `clean` and `corrupt`.
    """
    f = functools.partial(decoder.state, model.config)
    tokens = runs.clean["ids"].shape[1]

    @functools.partial(jax.jit, static_argnums=0)
    def of_position(position: int, params: Any, runs: Any) -> Any:
        clean, corrupt, answers = runs
        start = clean["past"]["keys"].shape[2]  # behind pairs and layers

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

    def together(first: int) -> dict[str, np.ndarray]:
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
        return arrays | {kind: np.stack(each, -1) for kind, each in rows.items()}

    found: dict[str, list[np.ndarray]] = {}
    for first in range(0, len(runs), TOGETHER):
        make = functools.partial(together, first)
        for name, array in kept(folder / f"{first}.npz", make).items():
            found.setdefault(name, []).append(array)
    return {name: np.concatenate(parts) for name, parts in found.items()}


# ---- estimates ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to estimate effects.

    Attributes:
      name: what tables call it.
      options: of `patching.effects` and `patching.edges`.
      passes: forward and reverse passes.
    """

    name: str
    options: Mapping[str, Any]
    passes: str = "2 + 1"


METHODS = (
    Method("gradient", {}),
    Method("RelP", {"composite": composites.RelP()}),
    Method("CP-LRP", {"composite": composites.CPLRP()}),
    Method("AttnLRP", {"composite": composites.AttnLRP()}),
    Method("GIM", {"composite": composites.GIM()}),
    Method("ResLRP", {"composite": composites.ResLRP()}),
    Method("gradient, both ends", {"at": "both"}, "2 + 2"),
    Method("RelP, both ends", {"composite": composites.RelP(), "at": "both"}, "2 + 2"),
    Method("gradient, 5 steps", {"at": 5, "along": "embedding"}, "7 + 5"),
    Method("between", {"at": "between"}),
    Method("blend", {"at": "blend"}, "2 + 2"),
)


def estimated(model: Loaded, runs: Runs, find: Callable[..., Any]) -> Any:
    """What a function `(params, clean, corrupt, answers)` gives, stacked over pairs."""

    @jax.jit
    def every(params: Any, parts: Any) -> Any:
        return jax.lax.map(lambda each: find(params, *each), parts)

    found = every(model.params, (runs.clean, runs.corrupt, runs.answers))
    return jax.tree.map(np.asarray, found)


def of_nodes(
    model: Loaded, runs: Runs, method: Method, folder: Path
) -> dict[str, np.ndarray]:
    """Estimated effects, as `exact` returns them; kept in a folder."""
    f = functools.partial(decoder.state, model.config)

    def find(params: Any, clean: Any, corrupt: Any, answers: Any) -> Any:
        effects = patching.effects(f, nodes(), metric=score(params), **method.options)
        return effects(params, clean, corrupt, answers)

    def make() -> dict[str, np.ndarray]:
        found = estimated(model, runs, find)
        return found | {"heads": found["heads"][:, :, 0]}

    return kept(folder / f"{method.name}.npz", make)


def pearson(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Of each pair, over its nodes."""
    a, b = (x.reshape(len(x), -1).astype(float) for x in (one, two))
    a, b = (x - x.mean(1, keepdims=True) for x in (a, b))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def spearman(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The same of ranks."""
    ranks = (x.reshape(len(x), -1).argsort(1).argsort(1) for x in (one, two))
    return pearson(*ranks)


# ---- circuits ----------------------------------------------------------------------

FRACTIONS = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)
"""Of nodes or edges that a circuit keeps, as in MIB."""

ORDERS = ("signed", "size")
"""By which nodes or edges are kept: for areas below the curve and to one, as in MIB."""

SOURCES = {
    "embedding": patching.site("embedding", AXES[1:]),
    "attention": patching.site("attention_out", AXES),
    "mlp": patching.site("mlp_out", AXES),
}
TARGETS = {
    "attention": patching.site("attention_in", AXES),
    "mlp": patching.site("mlp_in", AXES),
    "final": patching.site("final", AXES[1:]),
}


def node_scores(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Mean effects over pairs of what is added to the residual stream."""
    parts = {name: found[name] for name in ("attention", "mlp")}
    # In front of the first layer the stream is the embedding.
    parts["embedding"] = found["residual"][:, 0]
    return {name: each.mean(0) for name, each in parts.items()}


def edge_scores(model: Loaded, runs: Runs, method: Method) -> dict[Any, np.ndarray]:
    """Mean effects of edges over pairs; minus infinity for those that do not exist."""
    f = functools.partial(decoder.state, model.config)

    def find(params: Any, clean: Any, corrupt: Any, answers: Any) -> Any:
        options = {"metric": score(params), **method.options}
        found = patching.edges(f, SOURCES, TARGETS, **options)(
            params, clean, corrupt, answers
        )
        return {
            key: jnp.where(found.exists[key], v, -jnp.inf)
            for key, v in found.scores.items()
        }

    return jax.tree.map(lambda a: a.mean(0), estimated(model, runs, find))


def places(scores: Mapping[Any, np.ndarray], by: str) -> dict[Any, Array]:
    """In which order nodes or edges are kept; what does not exist comes last."""
    if by == "size":
        there = {key: np.isfinite(v) for key, v in scores.items()}
        scores = {k: np.where(there[k], abs(v), -np.inf) for k, v in scores.items()}
    return patching.order(dict(scores))


def curve_of(
    model: Loaded, runs: Runs, of_edges: bool
) -> Callable[[Mapping[Any, np.ndarray], str], np.ndarray]:
    """A function `(scores, by)` to the faithfulness of circuits, `(fractions,)`.

    Faithfulness is a ratio of means over pairs. What is compiled is compiled once.
    """
    f = functools.partial(decoder.state, model.config)
    if of_edges:
        run = patching.circuit(f, edges=(SOURCES, TARGETS))
    else:
        run = patching.circuit(f, SOURCES)

    @jax.jit
    def every(params: Any, parts: Any, order: Any, sizes: Array) -> Array:
        def one(each: Any) -> Array:
            clean, corrupt, answers = each

            def of_size(size: Array) -> Array:
                keep = jax.tree.map(lambda p: p < size, order)
                return score(params)(run(keep, params, clean, corrupt), answers)

            return jax.vmap(of_size)(sizes)

        return jax.lax.map(one, parts)

    def curve(scores: Mapping[Any, np.ndarray], by: str) -> np.ndarray:
        count = sum(int(np.isfinite(v).sum()) for v in scores.values())
        sizes = jnp.asarray([int(share * count) for share in FRACTIONS])
        parts = (runs.clean, runs.corrupt, runs.answers)
        found = every(model.params, parts, places(scores, by), sizes)
        found = np.asarray(found).mean(0)
        return (found - found[0]) / (found[-1] - found[0])

    return curve


def random_scores(scores: Mapping[Any, np.ndarray], seed: int) -> dict[Any, np.ndarray]:
    """A random order of what exists."""
    rng = np.random.default_rng(seed)
    return {
        k: np.where(np.isfinite(v), rng.normal(size=v.shape), -np.inf)
        for k, v in scores.items()
    }
