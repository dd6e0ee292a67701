"""Interactions of other packages, on the network of `benchmarks.interactions`.

    python -m benchmarks.peers.interactions       after benchmarks.interactions

It needs numpy, tensorflow with path_explain 0.0.7, and shapiq, in an environment of
their own, and reads `out/interactions/sum.npz`. Each package explains the same points
from zero; a line says how far the sum of a matrix is from the gain of the score, how
far the matrix is from ours, and how many explanations a second there are.
"""

from __future__ import annotations

import argparse
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

KEPT = Path(__file__).parents[2] / "out" / "interactions" / "sum.npz"
POINTS = 64


def path_explain(data: dict[str, np.ndarray], x: np.ndarray) -> Iterator[tuple]:
    """Integrated Hessians by TensorFlow, with the default and with many samples."""
    import tensorflow as tf

    # It imports torch for an explainer that is not used here.
    for name in ("torch", "torch.autograd"):
        module = sys.modules.setdefault(name, types.ModuleType(name))
        module.grad = None  # type: ignore[attr-defined]
    from path_explain import PathExplainerTF

    layers = [
        tf.keras.layers.Dense(n, activation="softplus" if i < 2 else None)
        for i, n in enumerate((10, 5, 1))
    ]
    model = tf.keras.Sequential([tf.keras.Input((5,)), *layers])
    for i, layer in enumerate(layers):
        layer.set_weights([data[f"w{i}"], data[f"b{i}"]])
    explainer = PathExplainerTF(model)
    baseline = np.zeros((1, 5), np.float32)
    for samples in (100, 2500):

        def explain(x: np.ndarray, samples: int = samples) -> np.ndarray:
            found = explainer.interactions(
                inputs=x,
                baseline=baseline,
                batch_size=100,
                num_samples=samples,
                use_expectation=False,
                output_indices=0,
                verbose=False,
                interaction_index=None,
            )
            return np.asarray(found).reshape(len(x), 5, 5)

        yield f"path_explain, {samples} samples", explain, "matrices"


def shapiq(data: dict[str, np.ndarray], x: np.ndarray) -> Iterator[tuple]:
    """Shapley-Taylor indices, exact, of the same masks."""
    import shapiq

    def score(x: np.ndarray) -> np.ndarray:
        for i in range(2):
            x = np.logaddexp(0, x @ data[f"w{i}"] + data[f"b{i}"])
        return (x @ data["w2"] + data["b2"])[..., 0]

    def explain(x: np.ndarray) -> np.ndarray:
        found = []
        for one in x:
            computer = shapiq.ExactComputer(
                n_players=5, game=lambda sets, one=one: score(np.where(sets, one, 0))
            )
            values = computer("STII", order=2)
            matrix = np.zeros((5, 5))
            for i in range(5):
                matrix[i, i] = values[(i,)]
                for j in range(i):
                    matrix[i, j] = matrix[j, i] = values[(j, i)] / 2
            found.append(matrix)
        return np.stack(found)

    yield "shapiq, exact STII", explain, "shapley"


def measure(
    name: str, explain: Callable, ours: str, data: dict[str, np.ndarray], n: int
) -> str:
    x, gain = data["x"][:n], data["gain"][:n]
    explain(x[:2])
    start = time.perf_counter()
    found = explain(x)
    took = time.perf_counter() - start
    gaps = np.abs(found.sum((1, 2)) - gain) / np.abs(gain).mean()
    apart = np.abs(found - data[ours][:n]).max() / np.abs(data[ours][:n]).max()
    return (
        f"| {name} | {np.median(gaps):.2g} | {gaps.max():.2g} | {apart:.2g} | "
        f"{n / took:,.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.interactions")
    parser.add_argument("--points", type=int, default=POINTS)
    points = parser.parse_args().points
    with np.load(KEPT, allow_pickle=False) as kept:
        data = dict(kept)
    print("| package | median gap | largest gap | from ours | a second |")
    for package in (path_explain, shapiq):
        for name, explain, ours in package(data, data["x"]):
            print(measure(name, explain, ours, data, points), flush=True)


if __name__ == "__main__":
    main()
