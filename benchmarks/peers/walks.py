"""Sub-graphs and formulas by other packages, on the network of `benchmarks.walks`.

    python -m benchmarks.peers.walks --gnn-lrp FOLDER --symbxai FOLDER

It needs numpy and torch in an environment of their own, and checkouts of
`xiong-ping/sgnn_lrp_via_mp` and `FarnoushRJ/SymbolicXAI`, neither of which is a package
of an index. It reads `out/walks/motif.npz` (`benchmarks.walks --parts side`). A line
says how far a package's numbers are from ours, as a share of the largest of these, and
how many it computes a second of the processor.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

KEPT = Path(__file__).parents[2] / "out" / "walks" / "motif.npz"
ASKED = ((20, 21), (20, 21, 24))
BASE = 20

Row = tuple[str, Callable[[], np.ndarray], np.ndarray]
"""A name, a call that gives numbers, and what we have."""


def blocks(data: dict[str, np.ndarray]) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Kernels and what their biases are made of, by block."""
    names = sorted(n[1:] for n in data if n.startswith("w"))
    count = 1 + max(int(n[0]) for n in names)
    return [
        [(data[f"w{n}"], data[f"b{n}"]) for n in names if n[0] == str(i)]
        for i in range(count)
    ]


def gnn_lrp(data: dict[str, np.ndarray], folder: Path) -> Iterator[Row]:
    """Sub-graphs of the published code: by matrices, by hooks, and walk by walk."""
    import torch

    sys.path.insert(0, str(folder))
    theirs = importlib.import_module("subgraph_relevance")
    modules = importlib.import_module("modules")
    every = blocks(data)
    sizes = [[1], *([b[0][0].shape[0], *(w.shape[1] for w, _ in b)] for b in every)]
    network = modules.GNN(sizes)
    for block, layers in zip(network.blocks[1:], every, strict=True):
        block.W = [torch.tensor(w)[None] for w, _ in layers]
        block.B = [torch.tensor(b)[None] for _, b in layers]
    bonds = torch.tensor(data["bonds"][0] + np.eye(len(data["bonds"][0]), dtype="f"))
    graph = types.SimpleNamespace(
        get_adj=lambda: bonds, label=int(data["labels"][0]), node_features=None
    )
    sets = [np.flatnonzero(m).tolist() for m in data["masks"]]
    # Walk by walk takes the size to the fourth, and is for the first nodes alone.
    few = [list(range(n)) for n in (1, 2, 3, 4)]

    def by(function: Any, sets: list[list[int]], **options: Any) -> np.ndarray:
        return np.array([float(function(network, graph, s, **options)) for s in sets])

    ours = data["subgraphs"][0]
    kept = theirs.get_H_transform(bonds, network)
    yield (
        "sgnn_lrp_via_mp, hooks",
        lambda: by(theirs.subgraph_mp_forward_hook, sets),
        ours,
    )
    yield (
        "sgnn_lrp_via_mp, matrices made once",
        lambda: by(
            theirs.subgraph_mp_transcription, sets, H=kept[0], transforms=kept[1]
        ),
        ours,
    )
    hooked = by(theirs.subgraph_mp_forward_hook, few)
    yield (
        "sgnn_lrp_via_mp, walk by walk, 1 to 4 nodes",
        lambda: by(theirs.subgraph_original, few),
        hooked,
    )


class _Unused(types.ModuleType):
    """A module of which any name can be imported, and none used."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def symbxai(data: dict[str, np.ndarray], folder: Path) -> Iterator[Row]:
    """Formulas under LRP-0, whose layers are plain functions there."""
    import torch

    # It imports networks and libraries that are not used here.
    for name in (
        *("schnetpack", "torch_geometric", "torch_geometric.nn"),
        *("torch_geometric.utils", "symbxai.utils", "symbxai.model.transformer"),
        "symbxai.model.vision_transformer",
    ):
        sys.modules[name] = _Unused(name)
    sys.path.insert(0, str(folder / "src"))
    theirs = importlib.import_module("symbxai.lrp.symbolic_xai")
    bonds = data["bonds"][0]
    count, label = len(bonds), int(data["labels"][0])
    mixed = torch.tensor((bonds + np.eye(count)) / 2).float()

    def layer(block: list[tuple[np.ndarray, np.ndarray]], last: bool) -> Callable:
        parts = [
            (torch.tensor(w), -torch.nn.functional.softplus(-2 * torch.tensor(b)) / 2)
            for w, b in block
        ]

        def apply(h: Any) -> Any:
            h = mixed @ h
            for w, b in parts:
                h = h @ w + b
                h = h if last else torch.relu(h)
            # It divides by each value, and makes zero of a whole gradient with a NaN.
            return h + 1e-12

        return apply

    every = blocks(data)
    layers = [layer(b, i == len(every) - 1) for i, b in enumerate(every)]
    layers.append(lambda h: (h.sum(0) / BASE**0.5)[label][None, None])
    explainer = theirs.SymbXAI(
        layers, torch.ones(count, 1), count, torch.ones(count, count)
    )
    for nodes, ours in zip(ASKED, data["asked"][0], strict=True):
        yield (
            f"SymbolicXAI, and of {len(nodes)}",
            lambda nodes=nodes: np.array([float(explainer.symb_and(list(nodes)))]),
            np.array([ours]),
        )


def measure(row: Row, rounds: int = 3) -> str:
    """The line of a table."""
    name, call, ours = row
    found = call()
    took = []
    for _ in range(rounds):
        start = time.process_time()
        call()
        took.append(time.process_time() - start)
    apart = np.abs(found - ours).max() / np.abs(ours).max()
    return f"| {name} | {apart:.1e} | {len(found) / np.median(took):,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.walks")
    parser.add_argument("--gnn-lrp", type=Path)
    parser.add_argument("--symbxai", type=Path)
    options = parser.parse_args()
    with np.load(KEPT, allow_pickle=False) as kept:
        data = dict(kept)
    print("| package | from ours | a second |")
    for package, folder in ((gnn_lrp, options.gnn_lrp), (symbxai, options.symbxai)):
        if folder is not None:
            for row in package(data, folder):
                print(measure(row), flush=True)


if __name__ == "__main__":
    main()
