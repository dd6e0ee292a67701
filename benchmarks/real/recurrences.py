"""Does relevance explode in a recurrence, and is a loop explained as its steps are?

    python -m benchmarks.real.recurrences                    the default
    python -m benchmarks.real.recurrences AttnLRP Epsilon

Tanh recurrences, a GRU, an LSTM and a bidirectional LSTM with random weights, of usual
and of large scale, and an LSTM that is trained here to tell which of four marks came
first. A dense layer reads scores off the last state; the largest is explained. Each
network runs in `lax.scan` and as a Python loop, for several seeds:

- ratio: the largest of sum of abs(R) over the score's size. It is about 1 where
  relevance has one sign.
- difference: the largest of max abs(R of one form - R of the other) / max abs(R). In
  float32, what amplifies relevance amplifies rounding, too. Step by step the first
  state is a constant, so that in the first step biases meet a layer which in the loop
  they meet after a sum: rules in which biases matter differ there.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

import jaxlrp
from jaxlrp import composites
from jaxlrp.composites import Composite

WIDTH, FEATURES, OUTPUTS, MARKS = 16, 8, 8, 4

Params = dict[str, Array]
State = Any
Cell = Callable[[Params, State, Array], State]
"""From weights, a state and one step's features to the next state."""


# ---- networks --------------------------------------------------------------------


def tanh(params: Params, h: Array, x: Array) -> Array:
    return jnp.tanh(h @ params["u"] + x @ params["w"] + params["b"])


def gru(params: Params, h: Array, x: Array) -> Array:
    ir, iz, ic = jnp.split(x @ params["w"] + params["b"], 3)
    hr, hz, hc = jnp.split(h @ params["u"] + params["c"], 3)
    r, z = jax.nn.sigmoid(ir + hr), jax.nn.sigmoid(iz + hz)
    return (1 - z) * jnp.tanh(ic + r * hc) + z * h


def lstm(params: Params, state: tuple[Array, Array], x: Array) -> tuple[Array, Array]:
    h, c = state
    i, f, g, o = jnp.split(h @ params["u"] + x @ params["w"] + params["b"], 4)
    # The forget gate begins open.
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


CELLS: dict[str, tuple[Cell, int]] = {"tanh": (tanh, 1), "GRU": (gru, 3)}
CELLS |= {"LSTM": (lstm, 4)}
"""The cells, and of how many parts their weights are."""


def weights(cell: str, key: Array, scale: Array | float) -> Params:
    """Random weights of a cell: normal, of variance scale^2 / inputs.

    Those of the tanh recurrence from state to state are of spectral norm `scale`.
    """
    parts = CELLS[cell][1]
    keys = jax.random.split(key, 4)
    size = parts * WIDTH
    u = jax.random.normal(keys[0], (WIDTH, size))
    w = jax.random.normal(keys[1], (FEATURES, size)) / jnp.sqrt(FEATURES)
    if cell == "tanh":
        u, w = u / jnp.linalg.norm(u, 2), w / scale
    else:
        u = u / jnp.sqrt(WIDTH)
    biases = 0.1 * jax.random.normal(keys[2], (2, size))
    return {"u": scale * u, "w": scale * w, "b": biases[0], "c": biases[1]}


def last(cell: str, unrolled: bool, params: Params, x: Array) -> Array:
    """The last hidden state of a cell over `Float[Array, "steps features"]`."""
    step = CELLS[cell][0]
    zero = jnp.zeros(WIDTH, x.dtype)
    state: State = (zero, zero) if cell == "LSTM" else zero
    if unrolled:
        for now in x:
            state = step(params, state, now)
    else:
        state, _ = lax.scan(lambda s, now: (step(params, s, now), None), state, x)
    return state[0] if cell == "LSTM" else state


def network(
    cell: str, both: bool, unrolled: bool, params: Mapping[str, Any], x: Array
) -> Array:
    """The scores, `Float[Array, "outputs"]`; `both` reads in either direction."""
    states = [last(cell, unrolled, params["forward"], x)]
    if both:
        states.append(last(cell, unrolled, params["backward"], x[::-1]))
    return jnp.concatenate(states) @ params["head"]


def parameters(
    cell: str, both: bool, key: Array, scale: Array | float
) -> dict[str, Any]:
    """Random weights of a network."""
    keys = jax.random.split(key, 3)
    size = WIDTH * (2 if both else 1)
    found: dict[str, Any] = {
        "forward": weights(cell, keys[0], scale),
        "head": jax.random.normal(keys[1], (size, OUTPUTS)) / jnp.sqrt(size),
    }
    if both:
        found["backward"] = weights(cell, keys[2], scale)
    return found


def marks(key: Array, steps: int) -> tuple[Array, Array]:
    """(noise with two of four marks in it, which came first)."""
    keys = jax.random.split(key, 3)
    x = 0.3 * jax.random.normal(keys[0], (steps, FEATURES))
    places = jnp.sort(jax.random.choice(keys[1], steps, (2,), replace=False))
    kinds = jax.random.choice(keys[2], MARKS, (2,), replace=False)
    return x.at[places, kinds].add(2.0), kinds[0]


@functools.cache
def trained(steps: int, updates: int = 400) -> tuple[dict[str, Any], float]:
    """(weights of an LSTM that knows which mark came first, its accuracy)."""
    optimiser = optax.adam(1e-2)
    batch = jax.vmap(functools.partial(marks, steps=steps))
    scores = jax.vmap(
        functools.partial(network, "LSTM", False, False), in_axes=(None, 0)
    )

    def loss(params: Any, key: Array) -> Array:
        x, label = batch(jax.random.split(key, 64))
        return optax.softmax_cross_entropy_with_integer_labels(
            scores(params, x), label
        ).mean()

    def update(carry: Any, key: Array) -> tuple[Any, None]:
        params, state = carry
        change, state = optimiser.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, change), state), None

    @jax.jit
    def train(key: Array) -> tuple[Any, Array]:
        params = parameters("LSTM", False, key, 1.0)
        keys = jax.random.split(jax.random.fold_in(key, 1), updates)
        (params, _), _ = lax.scan(update, (params, optimiser.init(params)), keys)
        x, label = batch(jax.random.split(jax.random.fold_in(key, 2), 500))
        return params, (scores(params, x).argmax(-1) == label).mean()

    params, accuracy = train(jax.random.key(0))
    return params, float(accuracy)


# ---- measures --------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Case:
    """Networks of one size, explained together.

    Attributes:
      cell: the name of the cell.
      steps: of the sequence.
      scales: of the weights; none for the trained network.
      both: read in either direction?
    """

    cell: str
    steps: int
    scales: tuple[float, ...]
    both: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What its networks are called, one for each scale."""
        cell = f"{'bidirectional ' if self.both else ''}{self.cell}, {self.steps} steps"
        if not self.scales:
            return (f"{cell}, trained",)
        kind = "norm" if self.cell == "tanh" else "scale"
        return tuple(f"{cell}, {kind} {scale:g}" for scale in self.scales)


CASES = (
    *(Case("tanh", steps, (1.0, 2.0, 4.0)) for steps in (4, 16, 64)),
    *(Case("GRU", steps, (1.0, 3.0)) for steps in (8, 48)),
    *(Case("LSTM", steps, (1.0, 3.0)) for steps in (8, 48)),
    *(Case("LSTM", steps, (1.0, 3.0), both=True) for steps in (8, 48)),
    Case("LSTM", 24, ()),
)


@dataclasses.dataclass(frozen=True)
class Measured:
    """One network under one composite.

    Attributes:
      name: of the network.
      ratio: the largest sum of abs(R) over the score's size, of both forms.
      difference: between the two forms, of the largest relevance.
    """

    name: str
    ratio: float
    difference: float


def examples(case: Case, seeds: int) -> tuple[Any, Array]:
    """(weights, sequences) of a case: scales first, then seeds."""
    keys = jax.random.split(jax.random.key(0), seeds)
    if not case.scales:
        params, _ = trained(case.steps)
        every = jax.tree.map(
            lambda p: jnp.broadcast_to(p, (1, seeds, *p.shape)), params
        )
        return every, jax.vmap(lambda k: marks(k, case.steps)[0])(keys)[None]

    def one(scale: Array, key: Array) -> tuple[Any, Array]:
        first, second = jax.random.split(key)
        x = jax.random.normal(second, (case.steps, FEATURES))
        return parameters(case.cell, case.both, first, scale), x

    over_seeds = jax.vmap(one, (None, 0))
    return jax.vmap(over_seeds, (0, None))(jnp.array(case.scales), keys)


def measure(case: Case, composite: Composite | None, seeds: int = 6) -> list[Measured]:
    """The networks of a case, in both forms, under a composite."""

    def explain(unrolled: bool, params: Any, x: Array) -> tuple[Array, Array]:
        f = functools.partial(network, case.cell, case.both, unrolled)
        return f(params, x).max(), jaxlrp.lrp(f, composite)(params, x)

    inputs = examples(case, seeds)
    forms = []
    for unrolled in (False, True):
        each = functools.partial(explain, unrolled)
        forms.append(jax.device_get(jax.jit(jax.vmap(jax.vmap(each)))(*inputs)))
    ratios, relevances = [], []
    for score, relevance in forms:
        wide = np.asarray(relevance, np.float64)
        ratios.append(np.abs(wide).sum((-2, -1)) / np.abs(score))
        relevances.append(wide)
    gaps = np.abs(relevances[0] - relevances[1]).max((-2, -1))
    gaps = gaps / np.abs(relevances[0]).max((-2, -1))
    # The largest of the seeds; NaN stays NaN.
    columns = (np.max(ratios, (0, 2)), gaps.max(1))
    return [
        Measured(name, float(ratio), float(gap))
        for name, ratio, gap in zip(case.names, *columns, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.recurrences")
    parser.add_argument("presets", nargs="*", help="of jaxlrp.composites")
    parser.add_argument("--seeds", type=int, default=6, help="default: %(default)s")
    options = parser.parse_args(argv)
    for preset in options.presets or ["Default"]:
        print(f"\n{preset}\n\n| network | ratio | difference |\n|---|--:|--:|")
        start = time.perf_counter()
        for case in CASES:
            found = measure(case, getattr(composites, preset)(), options.seeds)
            for row in found:
                print(
                    f"| {row.name} | {row.ratio:.3g} | {row.difference:.1e} |",
                    flush=True,
                )
        print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
