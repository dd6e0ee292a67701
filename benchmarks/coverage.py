"""Which programs LRP covers, and where their relevance goes: one row for each model.

    python -m benchmarks.coverage                    run all, write docs/coverage.md
    python -m benchmarks.coverage --models GPT-2 VAE
    python -m benchmarks.coverage --page             write the page from kept records

Models are those of `tests.models.architectures`. A row is made by `measure`, from any
function and its arguments. Rows are kept as records, `out/coverage/<name>.json`, by the
version of JAX; the page is written from all of them, so that several environments, with
other libraries or another JAX, can add to it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

import jaxlrp
from benchmarks import gradient_ratio
from jaxlrp import _files
from jaxlrp.primitives import Kind, lookup

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "out" / "coverage"
PAGE = ROOT / "docs" / "coverage.md"

TOLERANCE = 1e-4
"""What the audit may leave unaccounted, as a fraction of the output."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What was found for one model.

    Attributes:
      name: the model.
      library: where its code comes from.
      family: the kind of model.
      jax: JAX's version.
      parameters: the number of weights of the program that was read.
      equations: equations of the program, those of calls, loops and branches included,
        as often as they are called.
      primitives: the names of its primitives, sorted.
      reached: equations on relevance's path.
      coverage: the fraction of these that have a rule.
      exactness: equations on relevance's path by exactness, as in `jaxlrp.plan`.
      seconds: of processor time, to trace and read the program.
      shares: relevance that arrived (`inputs`) and that was absorbed, by the audit's
        categories, each as a fraction of the output's.
      expansions: the share *Taylor*, by the roles of the steps it is lost at.
      unaccounted: what these leave, without its sign.
      culprit: the first equation with a NaN or infinity, or None.
      ratio: time of `value_and_lrp` over that of `jax.value_and_grad`, compiled; None
        where there is no gradient.
      note: where relevance goes, in words.
    """

    name: str
    library: str
    family: str
    jax: str
    parameters: int
    equations: int
    primitives: tuple[str, ...]
    reached: int
    coverage: float
    exactness: Mapping[str, int]
    seconds: float
    shares: Mapping[str, float]
    expansions: Mapping[str, float]
    unaccounted: float
    culprit: str | None
    ratio: float | None
    note: str

    @property
    def accounted(self) -> bool:
        """Do inputs and what was absorbed make up the output, to `TOLERANCE`?"""
        return self.culprit is None and self.unaccounted <= TOLERANCE


# ---- one row ---------------------------------------------------------------------


def count(jaxpr: core.Jaxpr) -> collections.Counter[str]:
    """Equations by primitive; calls are counted by what they call.

    A loop's body counts once, and a call's body as often as it is called.
    """
    found: collections.Counter[str] = collections.Counter()
    for equation in jaxpr.eqns:
        entry = lookup(equation.primitive)
        kind = None if entry is None else entry.kind
        if kind is not Kind.CALL:
            found[equation.primitive.name] += 1
        if kind in (Kind.CALL, Kind.CONTROL):
            for body in core.jaxprs_in_params(equation.params):
                found += count(body)
    return found


def read(
    f: Callable[..., Any],
    args: Sequence[Any],
    *,
    composite: Any = None,
    argnums: Any = -1,
) -> dict[str, Any]:
    """The fields of a row that need no values; `args` may be shapes."""
    primitives = count(jax.make_jaxpr(f)(*args).jaxpr)
    start = time.process_time()
    plan = jaxlrp.plan(f, composite, argnums)(*args)
    seconds = time.process_time() - start
    exactness: collections.Counter[str] = collections.Counter()
    for row in plan.rows:
        exactness[row.exactness] += len(row.primitives)
    return {
        "equations": sum(primitives.values()),
        "primitives": tuple(sorted(primitives)),
        "reached": sum(exactness.values()),
        "coverage": plan.coverage,
        "exactness": dict(exactness),
        "seconds": seconds,
    }


def account(
    f: Callable[..., Any],
    args: Sequence[Any],
    *,
    composite: Any = None,
    argnums: Any = -1,
    target: Any = "max",
) -> dict[str, Any]:
    """The fields of a row that the audit gives."""
    with _quick_compilation():
        audit = jaxlrp.audit(f, composite, argnums, target=target)(*args)
    whole = audit.total_out or 1.0
    amounts = {"inputs": audit.total_in, **audit.absorbed}
    expansions: collections.Counter[str] = collections.Counter()
    for step in audit.steps:
        expansions[step.role] += step.absorbed.get("Taylor", 0.0)
    return {
        "shares": {name: a / whole for name, a in amounts.items() if a},
        "expansions": {role: a / whole for role, a in expansions.items() if a},
        "unaccounted": abs(audit.residual / whole),
        "culprit": audit.culprit,
    }


@contextlib.contextmanager
def _quick_compilation():
    """For programs that run once: compiling them well takes longer than that."""
    name = "jax_disable_most_optimizations"
    found = jax.config.read(name)
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, found)


def time_ratio(
    f: Callable[..., Any],
    args: Sequence[Any],
    *,
    composite: Any = None,
    argnums: Any = -1,
    target: Any = "max",
    rounds: int = 9,
) -> float | None:
    """Time of relevance over that of a gradient, both with the output's values.

    None where an attributed argument holds integers, which have no gradient, and where
    JAX cannot differentiate the function.
    """

    def score(*xs: Any) -> Any:
        out = f(*xs)
        peak = target == "max" and jnp.ndim(out) > 0
        return (out.max(-1) if peak else sum(map(jnp.sum, jax.tree.leaves(out)))).sum()

    numbers = argnums if isinstance(argnums, tuple | list) else (argnums,)
    places = tuple(n % len(args) for n in numbers)
    leaves = jax.tree.leaves([args[n] for n in places])
    if not all(jnp.issubdtype(jnp.result_type(x), jnp.floating) for x in leaves):
        return None
    sides = (
        jax.value_and_grad(score, argnums=places),
        jaxlrp.value_and_lrp(f, composite, argnums=places, target=target),
    )
    try:
        programs = [jax.jit(side).lower(*args).compile() for side in sides]
    except ValueError as error:
        if "Reverse-mode differentiation does not work" not in str(error):
            raise
        return None
    runs: list[list[float]] = [[], []]
    for i in range(-1, rounds):
        for side in (0, 1) if i % 2 else (1, 0):
            start = time.perf_counter()
            jax.block_until_ready(programs[side](*args))
            if i >= 0:  # the first of each is not counted
                runs[side].append(time.perf_counter() - start)
    gradient, relevance = map(statistics.median, runs)
    return relevance / gradient


def measure(
    name: str,
    library: str,
    f: Callable[..., Any],
    args: Sequence[Any],
    *,
    family: str = "",
    whole: tuple[Callable[..., Any], Sequence[Any]] | None = None,
    timed: tuple[Callable[..., Any], Sequence[Any]] | None = None,
    composite: Any = None,
    argnums: Any = -1,
    target: Any = "max",
    rounds: int = 9,
    note: str = "",
) -> Row:
    """Reads, audits and times one model.

    Args:
      name: the model.
      library: where its code comes from.
      f: the model as a function of arrays; its output is one array of scores, or
        anything with `target="all"`.
      args: its arguments, arrays.
      family: the kind of model.
      whole: the function and its arguments (shapes will do) in its published size, to
        be read in place of `f`.
      timed: the function and its arguments to be timed in place of `f`, as embeddings
        in place of token ids.
      composite: as for `jaxlrp.lrp`; None is what users get.
      argnums: as for `jaxlrp.lrp`, of all three functions.
      target: as for `jaxlrp.lrp`.
      rounds: timed runs of each side; 0 leaves the time out.
      note: where relevance goes, in words.

    Returns:
      The row.
    """
    options = {"composite": composite, "argnums": argnums}
    large, shapes = whole or (f, args)
    weights = [a for i, a in enumerate(shapes) if i not in _places(argnums, shapes)]
    ratio = None
    if rounds:
        timing = {**options, "target": target, "rounds": rounds}
        ratio = time_ratio(*(timed or (f, args)), **timing)
    return Row(
        name=name,
        library=library,
        family=family,
        jax=jax.__version__,
        parameters=parameters(weights),
        **read(large, shapes, **options),
        **account(f, args, **options, target=target),
        ratio=ratio,
        note=note,
    )


def _places(argnums: Any, args: Sequence[Any]) -> set[int]:
    numbers = argnums if isinstance(argnums, tuple | list) else (argnums,)
    return {n % len(args) for n in numbers}


def parameters(tree: Any) -> int:
    """How many floating-point numbers a tree of arrays or shapes holds."""
    leaves = [x for x in jax.tree.leaves(tree) if hasattr(x, "dtype")]
    return sum(x.size for x in leaves if jnp.issubdtype(x.dtype, jnp.floating))


# ---- the table -------------------------------------------------------------------


def save(name: str, rows: Sequence[Row], records: Path = RECORDS) -> None:
    """Keeps rows as `<name>.json`, in place of those kept before under that name."""
    record = [dataclasses.asdict(row) for row in rows]
    gradient_ratio.write(records / f"{name}.json", record)


def load(records: Path = RECORDS) -> list[Row]:
    """All rows that were kept, by file name."""
    fields = [f.name for f in dataclasses.fields(Row)]
    rows = []
    for path in sorted(records.glob("*.json")):
        for record in json.loads(path.read_text()):
            record["primitives"] = tuple(record["primitives"])
            rows.append(Row(**{field: record[field] for field in fields}))
    return rows


HEADER = (
    "model",
    "JAX",
    "weights",
    "equations",
    "primitives",
    "covered",
    "exact / proportional / Taylor",
    "inputs",
    "constants",
    "stabiliser",
    "other",
    "accounted",
    "time",
    "read",
)

CONSTANT = ("bias", "constants")
"""What is in no input by design: biases, and other constants that are added."""


def kept(row: Row) -> float:
    """The fraction of relevance on inputs and constants."""
    return sum(row.shares.get(name, 0.0) for name in ("inputs", *CONSTANT))


def cells(rows: Sequence[Row]) -> tuple[str, ...]:
    """One line of the table: a model, read by one version of JAX or several.

    The numbers are those of the newest; coverage and accounting are the worst.
    """
    row = rows[-1]
    named = {"inputs", "stabiliser", *CONSTANT}
    others = {k: v for k, v in row.shares.items() if k not in named}
    exactness = [row.exactness.get(k, 0) for k in ("exact", "proportional", "Taylor")]
    own = row.exactness.get("custom", 0)
    accounted = all(r.accounted for r in rows)
    return (
        row.name,
        ", ".join(r.jax for r in rows),
        _short(row.parameters),
        str(row.equations),
        str(len(row.primitives)),
        f"{100 * min(r.coverage for r in rows):.4g} %",
        " / ".join(map(str, exactness)) + (f" + {own} own" if own else ""),
        _percent(row.shares.get("inputs", 0.0)),
        _percent(sum(row.shares.get(name, 0.0) for name in CONSTANT)),
        _percent(row.shares.get("stabiliser", 0.0)),
        ", ".join(
            f"{k} {_percent(v)}" for k, v in others.items() if abs(v) >= TOLERANCE / 2
        )
        or "–",
        "yes" if accounted else f"**no**, {max(r.unaccounted for r in rows):.0e}",
        "–" if row.ratio is None else f"{row.ratio:.2f}",
        f"{row.seconds:.1f} s",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _short(number: int) -> str:
    for scale, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= scale:
            return f"{number / scale:.4g}{unit}"
    return str(number)


INTRODUCTION = """\
<!-- Written by benchmarks/coverage.py, by `make zoo`. -->

# Coverage

Models of many families and libraries, each with the default composite and random
weights. `make zoo` makes the tables again.

- *weights*, *equations*, *primitives*: of the program that was read. An equation of a
  function counts as often as it is called, one of a loop's body once. Where a published
  size is known it is the one that was read, from shapes alone.
- *covered*: equations on relevance's path that have a rule.
- *exact / proportional / Taylor*: these equations by how exact their rule is, as in
  `jaxlrp.plan`. The others, through which relevance does not pass, are not counted.
- *inputs*, *constants*, *stabiliser*, *other*: where the relevance of the output ends
  up, in percent of it, as `jaxlrp.audit` finds it in a model of the same architecture
  that is small enough to run. *constants* are biases and all else that is added and
  does not depend on the input. Above 100 % and below 0 % is possible, since relevance
  has a sign.
- *accounted*: these add up to the output, to 1e-4 of it, and there is no NaN.
- *read*: seconds of processor time to trace and read the program that is counted.
"""

TIME = """\
- *time*: of `value_and_lrp` over `jax.value_and_grad`, compiled, on a CPU, in that
  small size; of token models with embeddings as the input.
"""


def render(rows: Sequence[Row]) -> str:
    """The page; without times where none was measured."""
    timed = any(row.ratio is not None for row in rows)
    parts = [INTRODUCTION + (TIME if timed else ""), _summary(rows)]
    libraries = list(dict.fromkeys(row.library for row in rows))
    for library in libraries:
        mine = [row for row in rows if row.library == library]
        parts.append(f"## {library}\n")
        families = list(dict.fromkeys(row.family for row in mine))
        for family in families:
            models: dict[str, list[Row]] = collections.defaultdict(list)
            for row in mine:
                if row.family == family:
                    models[row.name].append(row)
            if family:
                parts.append(f"### {family}\n")
            lines = [cells(_by_version(m)) for m in models.values()]
            parts.append(_table(lines, timed))
            notes = {m[-1].note: None for m in models.values() if m[-1].note}
            for note in notes:
                names = [n for n, m in models.items() if m[-1].note == note]
                parts.append(f"*{', '.join(names)}*: {note}\n")
    return "\n".join(parts).rstrip() + "\n"


def _by_version(rows: Sequence[Row]) -> list[Row]:
    """The last row of each version of JAX, oldest version first."""
    latest = {row.jax: row for row in rows}
    return [
        latest[v] for v in sorted(latest, key=lambda v: [*map(int, v.split(".")[:3])])
    ]


def _summary(rows: Sequence[Row]) -> str:
    latest = {(r.library, r.name): r for r in rows}.values()
    primitives = {name for row in latest for name in row.primitives}
    low = [r for r in latest if not 0.9 <= kept(r) <= 1.1]
    return (
        f"{len(latest)} models, {sum(r.equations for r in latest)} equations, "
        f"{len(primitives)} primitives. Covered in full: "
        f"{sum(r.coverage == 1.0 for r in rows)} of {len(rows)} rows (a model under "
        f"one version of JAX). Accounted for: {sum(r.accounted for r in rows)} of "
        f"{len(rows)}. Between 90 and 110 % of relevance on inputs and constants: "
        f"{len(latest) - len(low)} of {len(latest)} models.\n"
    )


def _table(lines: Sequence[Sequence[str]], timed: bool) -> str:
    right = ["---"] + ["---"] + ["---:"] * (len(HEADER) - 2)
    columns = [i for i, name in enumerate(HEADER) if timed or name != "time"]
    table = [[line[i] for i in columns] for line in (HEADER, right, *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in table) + "\n"


def write(rows: Sequence[Row], page: Path = PAGE) -> None:
    """Writes the page."""
    _files.write(page, render(rows).encode())


# ---- the command -----------------------------------------------------------------


def of_architecture(architecture: Any, rounds: int) -> Row:
    """The row of a `tests.models.architectures.Architecture`."""
    model, timed = architecture.small(), architecture.small(embedded=True)
    whole = None
    if architecture.published is not None:
        large = architecture.large()
        whole = (large.apply, (large.params, large.inputs))
    return measure(
        architecture.name,
        "Flax",
        model.apply,
        (model.params, model.inputs),
        family=architecture.family,
        whole=whole,
        timed=(timed.apply, (timed.params, timed.inputs)),
        target=architecture.target,
        rounds=rounds,
        note=architecture.note,
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.coverage",
        description="Read, audit and time the models of tests/models/architectures.",
    )
    parser.add_argument("--models", nargs="+", help="names; default: all")
    parser.add_argument("--rounds", type=int, default=9, help="default: %(default)s")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--records", type=Path, default=RECORDS)
    parser.add_argument("--out", type=Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(argv)
    if not options.page:
        from tests.models.architectures import ARCHITECTURES

        names = options.models or list(ARCHITECTURES)
        unknown = [name for name in names if name not in ARCHITECTURES]
        if unknown:
            parser.error(f"--models: got {unknown}, expected from {[*ARCHITECTURES]}")
        print(f"| {' | '.join(HEADER)} |")
        rows: list[Row] = []
        for name in names:
            row = of_architecture(ARCHITECTURES[name], options.rounds)
            print(f"| {' | '.join(cells([row]))} |", flush=True)
            rows.append(row)
            jax.clear_caches()
            if not options.models:
                save(f"flax-{jax.__version__}", rows, options.records)
        if options.models:
            return
    write(load(options.records), options.out)


if __name__ == "__main__":
    main()
