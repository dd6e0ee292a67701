"""Examples a second in large batches: our side, and the page's section of it.

`benchmarks.peers_throughput` measures peers beside it. This half needs no PyTorch, so
that the page is written where only jaxlrp is installed.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import gradient_ratio
from benchmarks.real.quick import quick
from examples import efficientnet
from tests.models import usual

RECORD = Path(__file__).parent / "peers" / "throughput.json"
TITLE = "## Throughput beside peers"
BEHIND = "## Peers, measured earlier"
"""The section stands in front of this one."""

Stage = efficientnet.Stage
TINY_STAGES = (Stage(1, 3, 1, 1, 4), Stage(2, 3, 2, 6, 6))


def efficient(tiny: bool = False) -> usual.Network:
    """EfficientNet-Lite0, the network of `make real`, with random weights."""
    if tiny:
        small = efficientnet.EfficientNetLite(TINY_STAGES, stem=4, head=8, classes=5)
        return usual.network(small, 1, 16, 16, 3)
    return usual.network(efficientnet.EfficientNetLite(), 1, 224, 224, 3)


NETWORKS: dict[str, Callable[[bool], usual.Network]] = {
    "resnet18": usual.resnet18,
    "efficientnet": efficient,
    "vit": usual.vit,
    "bert": usual.bert,
    "vgg16": usual.vgg16,
}
COMPOSITES = {
    "resnet18": ("epsilon", "epsilon-plus-flat"),
    "efficientnet": ("epsilon", "epsilon-plus-flat"),
    "vit": ("attnlrp",),
    "bert": ("attnlrp",),
    "vgg16": ("epsilon", "epsilon-plus-flat"),
}
"""What peers have as well."""

GRADIENT = "gradient in JAX"
OURS = {
    "epsilon": "jaxlrp epsilon",
    "epsilon-plus-flat": "jaxlrp EpsilonPlusFlat",
    "attnlrp": "jaxlrp AttnLRP",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """Seconds of a call with a whole batch.

    Attributes:
      composite: what ours is called.
      method: in words.
      package: whose it is.
      gradient: seconds of the same model's gradient in the same framework.
      seconds: of the method.
    """

    composite: str
    method: str
    package: str
    gradient: float
    seconds: float


def medians(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of each call, which take turns; each round starts with another one."""
    names = list(calls)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            calls[name]()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def ours(model: str, batch: int, tiny: bool) -> dict[str, Callable[[], Any]]:
    """Our gradient and composites: compiled calls that have run once.

    Each takes a batch in NumPy and gives its results in NumPy.
    """
    apply, params, x = NETWORKS[model](tiny)
    x = np.asarray(jnp.repeat(x, batch, 0))
    functions = {GRADIENT: gradient_ratio.gradient(apply)}
    for name in COMPOSITES[model]:
        rule = gradient_ratio.COMPOSITES[name]
        functions[name] = gradient_ratio.relevance(apply, rule)
    calls = {}
    for name, function in functions.items():
        made = quick(function) if model == "efficientnet" else function
        calls[name] = _call(jax.jit(made), params, x)
        calls[name]()
    return calls


def rows_of_ours(model: str, found: Mapping[str, float]) -> list[Row]:
    """Our rows, of seconds by the names of calls."""
    return [
        Row(name, OURS[name], "jaxlrp", found[GRADIENT], found[name])
        for name in COMPOSITES[model]
    ]


def _call(function: Callable[..., Any], params: Any, x: np.ndarray) -> Callable:
    return lambda: jax.tree.map(np.asarray, function(params, x))


# ---- the record and the page -------------------------------------------------------


def keep(part: Mapping[str, Any], path: Path = RECORD) -> None:
    """Adds a model with a batch size to the record, in place of an older one."""
    known = json.loads(path.read_text())["parts"] if path.exists() else []
    key = (part["model"], part["batch"])
    parts = [p for p in known if (p["model"], p["batch"]) != key]
    order = list(NETWORKS)
    parts = sorted([*parts, part], key=lambda p: (order.index(p["model"]), p["batch"]))
    gradient_ratio.write(path, {"parts": parts})


def verdicts(part: Mapping[str, Any]) -> list[str]:
    """For each composite ours over the fastest peer, in examples a second.

    A call that takes longer than a peer's says what the gradients take.
    """
    found = []
    for row in part["rows"]:
        same = [
            r
            for r in part["rows"]
            if r["composite"] == row["composite"] and r["package"] != "jaxlrp"
        ]
        if row["package"] != "jaxlrp" or not same:
            continue
        best = min(same, key=lambda r: r["seconds"])
        ratio = best["seconds"] / row["seconds"]
        text = (
            f"{part['model']}, batch {part['batch']}, {row['method']}: {ratio:.2f} "
            f"times the examples a second of {best['method']}"
        )
        if ratio < 1:
            text += (
                f", where XLA's gradient takes {row['gradient'] / best['gradient']:.2f}"
                " times as long as PyTorch's"
            )
        found.append(text)
    return found


HEADER = (
    "| model | batch | method | package | gradient, ms an example | method, ms an "
    "example | time | examples a second |\n"
    "| --- | ---: | --- | --- | ---: | ---: | ---: | ---: |"
)


def line(part: Mapping[str, Any], row: Mapping[str, Any]) -> str:
    """A row of the table."""
    batch = part["batch"]
    cells = (
        part["model"],
        str(batch),
        row["method"],
        row["package"],
        f"{row['gradient'] / batch * 1e3:.1f}",
        f"{row['seconds'] / batch * 1e3:.1f}",
        f"{row['seconds'] / row['gradient']:.2f}",
        f"{batch / row['seconds']:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def section(path: Path = RECORD) -> str:
    """What the page has of it; nothing where there is no record."""
    parts = json.loads(path.read_text())["parts"] if path.exists() else []
    if not parts:
        return ""
    texts = [
        f"{TITLE}\n",
        "Whole batches, one call after the other, by `python -m "
        "benchmarks.peers_throughput`. *gradient* is that of the same model in the "
        "same framework, *time* the method's over it. JAX is compiled and has run "
        "once; PyTorch has run once with two examples. All calls take turns, and share "
        "the machine with whatever else it does: *load* is the system's average over "
        "the last minute of a part, of which a call alone is as many as there are "
        "cores. `efficientnet` is the "
        "Lite0 of `make real`, with the convolutions of single channels as sums there "
        "(`benchmarks/real/quick.py`), the gradient's too. What a run over a dataset "
        "adds is on [the page on datasets](datasets.md#what-is-guaranteed).\n",
    ]
    by_facts: dict[str, list[Mapping[str, Any]]] = {}
    for part in parts:
        by_facts.setdefault(_conditions(part["environment"]), []).append(part)
    for facts, group in by_facts.items():
        rows = [line(part, row) for part in group for row in part["rows"]]
        said = [f"- {text}.\n" for part in group for text in verdicts(part)]
        said += [f"- {note}\n" for part in group for note in part.get("notes", ())]
        texts += [f"{facts}\n", "\n".join([HEADER, *rows]) + "\n", "".join(said)]
    return "\n".join(texts)


def _conditions(at: Mapping[str, Any]) -> str:
    packages = ("jaxlrp", "jax", "torch", "zennit", "captum", "lxt")
    named = ", ".join(f"{name} {at[name]}" for name in packages if name in at)
    rounds = "1 round" if at["rounds"] == 1 else f"{at['rounds']} rounds"
    tiny = "; in small shapes, to try it" if at["tiny"] else ""
    where = f"{at['device']}, {at['cores']} cores"
    if at.get("load"):
        where += f" with a load of {at['load']:.1f}"
    return f"*{where}; {named}; {rounds}; {at['date']}{tiny}.*\n"


def put(page: str, text: str) -> str:
    """The page with the section in it, in place of an older one."""
    page = re.sub(rf"^{TITLE}\n.*?(?=^## |\Z)", "", page, flags=re.M | re.S)
    before, behind, after = page.partition(BEHIND)
    return f"{before.rstrip()}\n\n{text}\n{behind}{after}" if text else page
