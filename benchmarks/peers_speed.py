"""What zennit, captum and LXT cost, next to jaxlrp on the same machine and run.

    python -m benchmarks.peers_speed
    python -m benchmarks.peers_speed --models vgg16 --rounds 5

Each is measured against the gradient of the same model in its own framework, the two
taking turns. Hooks and patches are in place before the clock starts. captum registers
its own in each call.
"""

from __future__ import annotations

from benchmarks.peers import patching

# isort: split
import argparse
import contextlib
import dataclasses
import functools
import gc
import importlib.metadata
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax
import torch
from captum.attr import LRP
from captum.attr._utils.lrp_rules import IdentityRule
from lxt.efficient.models import bert as lxt_bert
from lxt.efficient.models import llama as lxt_llama
from torch import nn
from zennit import composites as zennit_composites
from zennit import rules as zennit_rules
from zennit.canonizers import SequentialMergeBatchNorm

from benchmarks import gradient_ratio, performance, performance_page
from benchmarks.peers.trained import VIT_ATTNLRP, VIT_CPLRP
from benchmarks.peers_networks import Port, image_network, transformer
from tests.models.usual import MODELS


@dataclasses.dataclass(frozen=True)
class Row:
    """A method's seconds, and those of the gradient of the same model."""

    model: str
    composite: str
    method: str
    package: str
    gradient: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Method:
    """A method of a peer.

    Attributes:
      composite: what ours is called.
      name: in the peer's words.
      package: whose it is.
      call: sends relevance back once.
      ready: what has to be in place while it is called.
    """

    composite: str
    name: str
    package: str
    call: Callable[[], Any]
    ready: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext


def gradient(port: Port) -> torch.Tensor:
    """The scores, and the gradient of the highest one times the input."""
    x = port.x.clone().requires_grad_()
    port.scores(x).max(-1).values.sum().backward()
    assert x.grad is not None
    return x * x.grad


# ---- zennit ----------------------------------------------------------------------


def zennit_methods(model: str, tiny: bool, batch: int = 1) -> Iterator[Method]:
    port = image_network(model, tiny, "zennit", batch)
    merge: dict[str, Any] = {}
    if model != "vgg16":  # which has no batch norm
        merge = {"canonizers": [SequentialMergeBatchNorm()]}
    box = {
        "low": torch.full_like(port.x, -3.0),
        "high": torch.full_like(port.x, 3.0),
    }
    epsilon = zennit_composites.LayerMapComposite(
        zennit_composites.layer_map_base()
        + [
            (nn.Conv2d, zennit_rules.Epsilon()),
            (nn.Linear, zennit_rules.Epsilon()),
        ],
        **merge,
    )
    made = {
        "epsilon": ("zennit Epsilon", epsilon),
        "epsilon-plus-flat": (
            "zennit EpsilonPlusFlat",
            zennit_composites.EpsilonPlusFlat(**merge),
        ),
        "epsilon-gamma-box": (
            "zennit EpsilonGammaBox",
            zennit_composites.EpsilonGammaBox(**box, **merge),
        ),
        "epsilon-alpha2-beta1": (
            "zennit EpsilonAlpha2Beta1",
            zennit_composites.EpsilonAlpha2Beta1(**merge),
        ),
    }
    for name, (words, composite) in made.items():
        ready = functools.partial(composite.context, port.module)
        call = functools.partial(_modified_gradient, port)
        yield Method(name, words, "zennit", call, ready)


def _modified_gradient(port: Port) -> torch.Tensor:
    """Under zennit's hooks the gradient is relevance."""
    x = port.x.clone().requires_grad_()
    scores = port.scores(x)
    seed = nn.functional.one_hot(scores.argmax(-1), scores.shape[-1])
    (found,) = torch.autograd.grad(scores, x, scores.detach() * seed)
    return found


# ---- captum ----------------------------------------------------------------------


def captum_methods(model: str, tiny: bool, batch: int = 1) -> Iterator[Method]:
    """Its default: epsilon on all that has weights, on pooling and sums."""
    port = image_network(model, tiny, "captum", batch)
    target = port.scores(port.x).argmax(-1)

    clipped = [m for m in port.module.modules() if isinstance(m, nn.ReLU6)]

    def call() -> torch.Tensor:
        for module in clipped:  # unknown to captum, which forgets rules after a call
            module.rule = IdentityRule()  # type: ignore[assignment]
        x = port.x.clone().requires_grad_()
        return LRP(port.module).attribute(x, target=target)

    yield Method("epsilon", "captum epsilon", "captum", call)


# ---- LXT -------------------------------------------------------------------------

MAPS: dict[str, dict[str, tuple[str, patching.Patches]]] = {
    "vit": {
        "attnlrp": ("LXT AttnLRP", VIT_ATTNLRP),
        "cplrp": ("LXT CP-LRP", VIT_CPLRP),
    },
    "bert": {"attnlrp": ("LXT AttnLRP", lxt_bert.attnLRP)},
    "llama": {
        "attnlrp": ("LXT AttnLRP", lxt_llama.attnLRP),
        "cplrp": ("LXT CP-LRP", lxt_llama.cp_LRP),
    },
}


def lxt_methods(model: str, tiny: bool, batch: int = 1) -> Iterator[Method]:
    for name, (words, patches) in MAPS[model].items():
        ready = functools.partial(patching.patched, patches)
        with ready():
            port = transformer(model, tiny, batch)
        yield Method(name, words, "lxt", functools.partial(gradient, port), ready)


# ---- measuring -------------------------------------------------------------------


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def against(
    model: str, base: Port, methods: Iterator[Method], rounds: int
) -> list[Row]:
    """Each method and the gradient by turns, the first round of which is dropped."""
    found = []
    for method in methods:
        times: tuple[list[float], list[float]] = ([], [])
        for i in range(-1, rounds):
            for side in (0, 1) if i % 2 else (1, 0):
                if side == 0:
                    passed = seconds(functools.partial(gradient, base))
                else:
                    with method.ready():
                        passed = seconds(method.call)
                if i >= 0:
                    times[side].append(passed)
        words = (method.composite, method.name, method.package)
        found.append(Row(model, *words, *map(statistics.median, times)))
        gc.collect()
    return found


def peers(model: str, rounds: int, tiny: bool) -> list[Row]:
    """The peers that have this model."""
    if model in MAPS:
        return against(
            model, transformer(model, tiny), lxt_methods(model, tiny), rounds
        )
    base = image_network(model, tiny)
    sides = (zennit_methods(model, tiny), captum_methods(model, tiny))
    return [row for side in sides for row in against(model, base, side, rounds)]


NAMES = {
    "epsilon": "jaxlrp epsilon",
    "epsilon-plus-flat": "jaxlrp EpsilonPlusFlat",
    "epsilon-gamma-box": "jaxlrp EpsilonGammaBox",
    "epsilon-alpha2-beta1": "jaxlrp EpsilonAlpha2Beta1",
    "attnlrp": "jaxlrp AttnLRP",
    "cplrp": "jaxlrp CP-LRP",
}


def ours(model: str, rounds: int, tiny: bool) -> list[Row]:
    """The same network in JAX."""
    chosen = {
        name: gradient_ratio.COMPOSITES[name]
        for name in gradient_ratio.SUITED[model]
        if name in NAMES
    }
    rows = gradient_ratio.rows(model, MODELS[model](tiny), chosen, rounds)
    jax.clear_caches()
    return [
        Row(
            model,
            row.composite,
            NAMES[row.composite],
            "jaxlrp",
            row.gradient.run,
            row.relevance.run,
        )
        for row in rows
    ]


NETWORKS = ("vgg16", "resnet18", "vit", "bert", "llama")
PACKAGES = ("torch", "zennit", "captum", "lxt", "transformers")


def environment(rounds: int, tiny: bool) -> dict[str, Any]:
    effort = performance.Effort(rounds, 1, 1, tiny)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {**performance.environment(effort), **versions}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers_speed",
        description="Time of zennit, captum, LXT and jaxlrp over a gradient.",
    )
    parser.add_argument("--models", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="of PyTorch; default: all cores")
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try it")
    parser.add_argument("--records", type=Path, help="default: out/performance")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error(f"--rounds: got {options.rounds}, expected at least 1")
    trial = performance.RECORDS / "tiny"
    records = options.records or (trial if options.tiny else performance.RECORDS)
    torch.set_num_threads(options.threads or gradient_ratio.cores())
    record: dict[str, Any] = {
        "table": performance_page.PEERS,
        "environment": environment(options.rounds, options.tiny),
        "rows": [],
    }
    for model in options.models:
        for side in (peers, ours):
            rows = side(model, options.rounds, options.tiny)
            for row in rows:
                ratio = row.seconds / row.gradient
                print(f"{row.model:10} {row.method:28} {ratio:.2f}", flush=True)
            record["rows"] += map(dataclasses.asdict, rows)
            gradient_ratio.write(records / "peers.json", record)


if __name__ == "__main__":
    main()
