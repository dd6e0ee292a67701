"""Where the time of a compiled program goes, from JAX's profiler, on a CPU.

Threads are busy with contractions, or with other work: changed weights, quotients,
masks, copies. What is above its limit is examined here. Some loops are one function on
a CPU, which the profiler does not see into: they are left out.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from benchmarks import gradient_ratio, hlo, layers
from jaxlrp import composites
from tests.models.usual import MODELS, Network

_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = [^=\n]*?\s(?P<opcode>[\w\-]+)\("
)
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?(?P<name>[\w.\-]+) .*\{$")
_CALLS = re.compile(r"(?:calls|to_apply)=%?(?P<name>[\w.\-]+)")
_AROUND = frozenset({"while", "call", "conditional"})
"""Their time is that of what they run."""


@dataclasses.dataclass(frozen=True)
class Busy:
    """Seconds that instructions last in one call, added up: some run side by side.

    Attributes:
      contractions: on matrix products and convolutions.
      beside: on everything else.
    """

    contractions: float
    beside: float


@dataclasses.dataclass(frozen=True)
class Row:
    """What one explanation is busy with, and the gradient of the same."""

    model: str
    composite: str
    gradient: Busy
    relevance: Busy


def instructions(text: str) -> dict[str, bool]:
    """Of each instruction of optimised HLO, by name: is it a contraction?

    A fusion is one if one is in it. What only runs other instructions is left out.
    """
    bodies: dict[str, list[str]] = {"": []}
    body = bodies[""]
    for line in text.splitlines():
        if found := _COMPUTATION.match(line):
            body = bodies.setdefault(found["name"], [])
        body.append(line)
    kinds = {}
    for line in itertools.chain.from_iterable(bodies.values()):
        found = _INSTRUCTION.match(line)
        if found is None or found["opcode"] in _AROUND:
            continue
        called = [bodies.get(name, []) for name in _CALLS.findall(line)]
        whole = "\n".join([line, *itertools.chain.from_iterable(called)])
        kinds[found["name"]] = hlo.contractions(whole) > 0
    return kinds


def busy(function: Callable, *args: Any, calls: int = 5) -> Busy:
    """What a function is busy with, as means over calls of the compiled program."""
    program = jax.jit(function).lower(*args).compile()
    kinds = instructions(program.as_text())
    jax.block_until_ready(program(*args))
    seconds = {True: 0.0, False: 0.0}
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(calls):
                jax.block_until_ready(program(*args))
        (path,) = Path(folder).rglob("*.xplane.pb")
        for name, spent in _events(path):
            if name in kinds:
                seconds[kinds[name]] += spent / calls
    return Busy(contractions=seconds[True], beside=seconds[False])


def _events(path: Path) -> Iterator[tuple[str, float]]:
    """Instructions that ran, and seconds."""
    data = jax.profiler.ProfileData.from_file(str(path))
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                with warnings.catch_warnings():  # of the profiler's own types
                    warnings.simplefilter("ignore", DeprecationWarning)
                    stats = dict(event.stats)
                if "hlo_op" in stats and event.name == stats["hlo_op"]:
                    yield event.name, event.duration_ns * 1e-9


LAYERS: Mapping[layers.Shape, tuple[str, tuple[str, ...]]] = {
    layers.Shape(1, 4096, 4096): ("between ReLUs", ("z-plus", "alpha-beta")),
    layers.Shape(128, 768, 3072): ("between ReLUs", ("z-plus", "alpha-beta")),
    layers.Shape(1, 3, 64, 3, 1, 224): ("first", ("flat", "w-square", "z-box")),
    layers.Shape(1, 3, 64, 7, 2, 224): ("first", ("z-box",)),
}
NETWORKS = {
    "resnet50": ("epsilon-gamma-box", "epsilon-alpha2-beta1"),
}


def costs(tiny: bool = False) -> Iterator[list[Row]]:
    """Rows of what is above a limit, layer by layer and network by network."""
    for shape, (place, names) in LAYERS.items():
        if tiny:
            small = min(shape.features, 8), min(shape.size, 8)
            shape = dataclasses.replace(
                shape, features=small[0], outputs=8, size=small[1]
            )
        chosen = {
            name: composites.Uniform(layers.PLACES[place][name]) for name in names
        }
        model = f"{shape.name}; {place}"
        yield _rows(model, layers.layer(shape, place), chosen, "all")
    for model, names in NETWORKS.items():
        chosen = {name: gradient_ratio.COMPOSITES[name] for name in names}
        yield _rows(model, MODELS[model](tiny), chosen, "max")


def _rows(
    model: str, network: Network, chosen: Mapping[str, Any], target: str
) -> list[Row]:
    apply, params, x = network
    slope = busy(gradient_ratio.gradient(apply, target), params, x)
    found = []
    for name, composite in chosen.items():
        explain = gradient_ratio.relevance(apply, composite, target)
        found.append(Row(model, name, slope, busy(explain, params, x)))
    return found
