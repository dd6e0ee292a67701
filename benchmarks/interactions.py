"""What interactions cost: rows in gradients, explanations a second, sets of units.

    python -m benchmarks.interactions             all tables
    python -m benchmarks.interactions --parts sum

`sum` trains the network of Janizek et al. 2021, softplus with 10, 5 and 1 units, on
5,000 points of `y = sum(x) + 2 x1 x2`, explains 1,000 test points, and keeps weights,
points and results in `out/interactions/sum.npz`, which `benchmarks.peers.interactions`
explains with other packages. `rows` is a transformer for digits. `kinks` is a network
of convolutions, ReLUs and max pooling for digits: how far interactions miss what the
score gains, by the steepness of the softplus and the number of nodes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from benchmarks import trained
from examples.howto import small
from jaxlrp import _files, attribution, interactions, taylor

KEPT = Path(__file__).parents[1] / "out" / "interactions"
WIDTHS = (5, 10, 5, 1)
POINTS, TESTED = 5000, 1000


def sum_and_product(x: np.ndarray) -> np.ndarray:
    """What the network learns: `sum(x) + 2 x1 x2`."""
    return x.sum(-1) + 2 * x[..., 0] * x[..., 1]


def network(params: Sequence[tuple[Array, Array]], x: Array) -> Array:
    """Dense layers with softplus, from five numbers to one."""
    *hidden, (w, b) = params
    for kernel, bias in hidden:
        x = jax.nn.softplus(x @ kernel + bias)
    return (x @ w + b)[0]


def train(seed: int = 0, steps: int = 4000) -> tuple[Any, np.ndarray, float]:
    """Parameters, the points tested, and the mean squared error on these."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(POINTS + TESTED, WIDTHS[0])).astype(np.float32)
    y = sum_and_product(x) + random.normal(size=len(x)).astype(np.float32) / 2
    params = [
        (
            jnp.asarray(random.normal(size=(m, n)) / np.sqrt(m), jnp.float32),
            jnp.zeros(n),
        )
        for m, n in zip(WIDTHS[:-1], WIDTHS[1:], strict=True)
    ]
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, steps))

    def loss(params: Any, x: Array, y: Array) -> Array:
        return ((jax.vmap(network, (None, 0))(params, x) - y) ** 2).mean()

    @jax.jit
    def fit(params: Any, order: Array) -> Any:
        def step(carry: Any, chosen: Array) -> Any:
            params, state = carry
            slopes = jax.grad(loss)(params, x_train[chosen], y_train[chosen])
            updates, state = optimiser.update(slopes, state)
            return (optax.apply_updates(params, updates), state), None

        x_train, y_train = jnp.asarray(x[:POINTS]), jnp.asarray(y[:POINTS])
        return jax.lax.scan(step, (params, optimiser.init(params)), order)[0][0]

    params = fit(params, random.integers(0, POINTS, (steps, 128)))
    return params, x[POINTS:], float(loss(params, x[POINTS:], y[POINTS:]))


def seconds(function: Callable, *args: Any, rounds: int = 7) -> float:
    """The median processor time of a call on all cores, without the first.

    Unlike the time on a clock it is nearly the same while other processes run.
    """
    jax.block_until_ready(function(*args))
    found = []
    for _ in range(rounds):
        start = time.process_time()
        jax.block_until_ready(function(*args))
        found.append(time.process_time() - start)
    return statistics.median(found)


def table_sum() -> dict[str, Any]:
    """Explanations a second, and how well they add up."""
    params, x, error = train()

    def explain(**options: Any) -> Callable:
        one = interactions.integrated_hessians(network, chunk=64, **options)
        return jax.jit(jax.vmap(one, (None, 0)))

    found: dict[str, Any] = {"test error": error, "network": list(WIDTHS)}
    scores = jax.jit(jax.vmap(network, (None, 0)))
    gain = np.asarray(scores(params, x)) - float(network(params, jnp.zeros(5)))
    for name, options in (
        ("16 nodes", {}),
        ("16 x 16 nodes", {"quadrature": "gauss-legendre"}),
    ):
        explained = explain(**options)
        jax.block_until_ready(explained(params, x))
        start = time.perf_counter()
        jax.block_until_ready(explained(params, x))
        clock = time.perf_counter() - start
        took = seconds(explained, params, x)
        matrices = np.asarray(explained(params, x))
        gap = np.abs(matrices.sum((1, 2)) - gain).max()
        found[name] = {
            "a second": len(x) / clock,
            "a processor second": len(x) / took,
            "largest gap": float(gap),
        }
    shapley = jax.jit(jax.vmap(interactions.shapley_taylor(network), (None, 0)))
    took = seconds(shapley, params, x)
    found["Shapley-Taylor"] = {"a processor second": len(x) / took}
    sets = np.asarray(jax.vmap(lambda s: s.matrix())(shapley(params, x)))
    arrays = {"x": x, "gain": gain, "shapley": sets}
    arrays["matrices"] = np.asarray(explain()(params, x))
    for i, (w, b) in enumerate(params):
        arrays |= {f"w{i}": np.asarray(w), f"b{i}": np.asarray(b)}
    KEPT.mkdir(parents=True, exist_ok=True)
    np.savez(KEPT / "sum.npz", **arrays)
    return found


def table_rows() -> dict[str, Any]:
    """One row, and all rows of 64 pixels, of a vision transformer: in gradients."""
    task = trained.TASKS["ViT"]
    image = jnp.asarray(task.test().inputs[0])
    params = task.module.init(jax.random.key(0), image[None])

    def f(params: Any, image: Array) -> Array:
        return task.module.apply(params, image[None])[0]

    units = (8, 8, 1)
    ways: dict[str, Callable] = {
        "gradient": attribution.gradient(f, target=3),
        "integrated gradients, 16": attribution.integrated_gradients(
            f, steps=16, chunk=16, target=3
        ),
        "one row, at one point": taylor_row(f, units),
        "one row, 16 nodes": interactions.integrated_hessians(
            f, rows=[27], units=units, chunk=16, target=3
        ),
        "64 rows, 16 nodes": interactions.integrated_hessians(
            f, units=units, chunk=64, target=3
        ),
        "64 rows, 16 x 16 nodes": interactions.integrated_hessians(
            f, units=units, chunk=64, target=3, quadrature="gauss-legendre"
        ),
        "lrp_hessian, one column": interactions.lrp_hessian(
            f, columns=[27], units=units, target=3
        ),
    }
    found = {}
    for name, way in ways.items():
        rounds = 15 if "64" not in name else 3 if "x" not in name else 1
        took = seconds(jax.jit(way), params, image, rounds=rounds)
        found[name] = {"processor seconds": took}
        found[name]["gradients"] = took / found["gradient"]["processor seconds"]
        print(name, found[name], flush=True)
    return found


def taylor_row(f: Callable, units: tuple[int, ...]) -> Callable:
    """The row of one pixel of the second-order term, alone: one product."""

    def row(params: Any, image: Array) -> Array:
        explain = taylor.taylor(f, 2, rows=[27], units=units, target=3)
        return explain(params, image).interactions  # XLA drops the rest

    return row


def digit(model: Any, image: Array) -> Array:
    """Scores of one image by a network with convolutions, ReLUs and max pooling."""
    return model(image[None])[0]


def table_kinks(
    count: int = 8,
    betas: Sequence[float] = (5.0, 20.0, 100.0, np.inf),
    nodes: Sequence[int] = (16, 64, 256),
) -> list[dict[str, Any]]:
    """How far the sum of interactions is from the gain, as a share of it; medians.

    The whole image is one unit, so that a product at each node gives the sum of the
    matrix. `own` is the gain of the network with softplus, which the interactions are
    of; `gain` that of the network itself.
    """
    model, images, _ = small.digits()
    images = jnp.asarray(images[:count])
    scores = jax.jit(jax.vmap(digit, (None, 0)))(model, images)
    targets = scores.argmax(-1)
    black = digit(model, jnp.zeros_like(images[0]))
    gains = np.asarray(scores.max(-1) - black[targets])
    rows = []
    for beta in betas:
        for number in nodes:

            def total(model: Any, image: Array, target: Array) -> tuple[Array, Array]:
                options = {"beta": beta, "target": target}  # noqa: B023
                whole = interactions.integrated_hessians(
                    digit,
                    units=(1, 1, 1),
                    nodes=number,  # noqa: B023
                    **options,
                )(model, image)
                ends = taylor.taylor(digit, order=2, **options)(model, image)
                return whole.sum(), ends.value - ends.at_root

            every = jax.jit(jax.vmap(total, (None, 0, 0)))
            sums, own = map(np.asarray, every(model, images, targets))
            rows.append(
                {
                    "beta": beta,
                    "nodes": number,
                    "gap to own": float(np.median(np.abs(sums / own - 1))),
                    "gap to gain": float(np.median(np.abs(sums / gains - 1))),
                    "own to gain": float(np.median(np.abs(own / gains - 1))),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


TABLES = {"sum": table_sum, "rows": table_rows, "kinks": table_kinks}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.interactions")
    parser.add_argument("--parts", nargs="+", default=list(TABLES), choices=TABLES)
    for part in parser.parse_args(argv).parts:
        found = TABLES[part]()
        text = json.dumps(found, indent=1)
        print(text, flush=True)
        _files.write(KEPT / f"{part}.json", text.encode(), folders=True)


if __name__ == "__main__":
    main()
