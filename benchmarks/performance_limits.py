"""What relevance may cost, and whether it does."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.gradient_ratio import PREPARED, ratio

ONE_PASS = ("proportional", "lrp0", "epsilon", "attnlrp", "cplrp")
SPLIT = {
    "vgg16": {
        "epsilon-plus-flat": 1.40,
        "epsilon-gamma-box": 1.45,
        "epsilon-alpha2-beta1": 2.0,
    },
    "resnet18": {
        "epsilon-plus-flat": 1.6,
        "epsilon-gamma-box": 1.7,
        "epsilon-alpha2-beta1": 2.2,
    },
}
SPLIT["resnet50"] = SPLIT["resnet18"]
# The default splits the weights of convolutions and recurrent layers, by gamma.
SPLITTING_DEFAULT = {"vgg16": 1.45, "resnet18": 1.7, "resnet50": 1.7, "lstm": 2.1}
LAYERS = {
    "between ReLUs": {
        "epsilon": 1.10,
        "z-plus": 1.55,
        "gamma": 1.55,
        "alpha-beta": 2.1,
    },
    "both signs": {"epsilon": 1.10, "z-plus": 2.1, "gamma": 2.1, "alpha-beta": 2.1},
    "first": {"flat": 0.6, "w-square": 1.1, "z-box": 1.6},
}
COMPILE = {"unrolled": 1.2, "scan": 1.0}


@dataclasses.dataclass(frozen=True)
class Check:
    """One number and what it may be at most.

    Attributes:
      work: what is done, in the words of the summary.
      measure: of what.
      name: of the row.
      value: what was measured.
      limit: what it may be.
    """

    work: str
    measure: str
    name: str
    value: float
    limit: float

    @property
    def met(self) -> bool:
        """In the two digits that are shown."""
        return round(self.value, 2) <= self.limit


Rows = Sequence[Mapping[str, Any]]


def of_cost(row: Mapping[str, Any], measure: str) -> float | None:
    """A row's ratio of relevance to gradient; `both` is tracing and compiling."""
    sides = row["relevance"], row["gradient"]
    if measure == "both":
        return ratio(*(side["trace"] + side["compile"] for side in sides))
    return ratio(*(side[measure] for side in sides))


def _checks(work: str, row: Mapping[str, Any], **limits: float) -> Iterator[Check]:
    name = f"{row['model']}, {row['composite']}"
    for measure, limit in limits.items():
        value = of_cost(row, measure)
        if value is not None:
            yield Check(work, MEASURES[measure], name, value, limit)


MEASURES = {"run": "time", "temporary": "memory", "both": "trace and compile"}


def networks(rows: Rows) -> Iterator[Check]:
    one = [row for row in rows if row["composite"] in ONE_PASS]
    work = "networks, rules of one pass"
    for row in one:
        yield from _checks(f"{work}: worst", row, run=1.10, temporary=1.15)
    for measure in ("run", "temporary"):
        values = [v for v in (of_cost(row, measure) for row in one) if v is not None]
        if values:
            middle, name = statistics.median(values), f"{len(values)} rows"
            yield Check(f"{work}: median", MEASURES[measure], name, middle, 1.0)
    for row in rows:
        if row["composite"] == "default":
            limit = SPLITTING_DEFAULT.get(row["model"])
            work = (
                f"networks, default: splits {'many' if limit else 'few or no'} weights"
            )
            memory = 1.3 if limit else 1.15
            yield from _checks(work, row, run=limit or 1.10, temporary=memory)
        limit = SPLIT.get(row["model"], {}).get(row["composite"])
        if limit is not None:
            work = f"{row['model']}, {row['composite']}"
            yield from _checks(work, row, run=limit, temporary=1.3)


def layers(rows: Rows) -> Iterator[Check]:
    for row in rows:
        rule = row["composite"].removesuffix(PREPARED)
        limit = LAYERS[place_of(row["model"])][rule]
        work = f"one layer, {place_of(row['model'])}: {row['composite']}"
        yield from _checks(work, row, run=limit)


def place_of(model: str) -> str:
    """Where a layer of `benchmarks.layers` is."""
    return model.rpartition("; ")[2]


def deep(rows: Rows) -> Iterator[Check]:
    for row in rows:
        work, limits = f"24 layers, {row['model']}", {"both": COMPILE[row["model"]]}
        if row["model"] == "scan":
            limits["temporary"] = 1.0
        yield from _checks(work, row, **limits)


def lengths(rows: Rows) -> Iterator[Check]:
    by = {(row["program"], row["equations"]): row["relevance"] for row in rows}
    for (program, size), seconds in by.items():
        twice = by.get((program, 2 * size))
        if twice is not None:
            name = f"{program}, {size} to {2 * size} equations"
            yield Check("twice the program", "trace", name, twice / seconds, 2.4)


def together(rows: Rows) -> Iterator[Check]:
    for row in rows:
        value, name = row["together"] / row["separate"], f"{row['model']}, {row['how']}"
        yield Check("many targets of one input", "time", name, value, 0.6)


def side_by_side(rows: Rows) -> Iterator[Check]:
    work = "gradient and relevance side by side"
    for row in rows:
        splitting = SPLITTING_DEFAULT.get(row["model"])
        if row["composite"] == "default" and splitting:
            # What is shared is the forward pass, half of a gradient's work.
            yield from _checks(f"{work}: splits weights", row, run=splitting + 0.5)
        else:
            yield from _checks(work, row, run=1.6)


def profiles(rows: Rows) -> Iterator[Check]:
    """Where time goes has no limit."""
    yield from ()


CHECKS = {
    "networks": networks,
    "layers": layers,
    "deep": deep,
    "lengths": lengths,
    "targets": together,
    "side-by-side": side_by_side,
    "profiles": profiles,
}
"""By table, from its rows to what is checked of them."""


def groups(checks: Iterable[Check]) -> dict[tuple[str, str], list[Check]]:
    """By work and measure, in their order."""
    found: dict[tuple[str, str], list[Check]] = {}
    for check in checks:
        found.setdefault((check.work, check.measure), []).append(check)
    return found
