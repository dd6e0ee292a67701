"""The audit: conservation, measured. Where did the relevance go that did not arrive?

Every value that relevance passes is observed through a tap: what enters a step from
its results, what its surrogates get, what leaves it to its signals. The differences
are what the step absorbed; together they are the whole, within rounding.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Literal, jaxpr_as_fun

from jaxlrp import _compat, _html, _targets
from jaxlrp._bounds import warn_outside
from jaxlrp._operations import tap
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Equation, Program, Value
from jaxlrp._reading.context import Context, Options
from jaxlrp._reading.facts import body_programs, is_real
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.backward import Traced, backward, seed
from jaxlrp._rewriting.evaluate import Run
from jaxlrp._rewriting.layers import one_sided
from jaxlrp._sizes import LIMIT, ratio
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, as_array, checked, is_array, trace
from jaxlrp.composites import Composite
from jaxlrp.rules import Detach, Flat, Norm, Pass, Rescaled, Rule, Taylor, ZBox

P = ParamSpec("P")

CATEGORIES: tuple[str, ...] = (
    "bias",
    "stabiliser",
    "one-sided",
    "constants",
    "detached",
    "Taylor",
    "copies",
    "filter",
    "custom",
)
"""Where relevance can stay: biases of layers; stabilisers; outputs whose contributions
all have one sign, under rules that split by sign (alpha-beta keeps the part that the
other sign would get, negative where that is beta's); constants that are added,
concatenated or filled in; detached paths; expansions and gradients that do not
conserve; sums that copy it (a gain, counted negative); filters; users' rules."""


@dataclasses.dataclass(frozen=True)
class Absorption:
    """What one step absorbed, and by how much relevance grew in it.

    Attributes:
      scope: the named scopes around the step.
      role: what the step is; `loop` for a whole loop.
      line: the user's line.
      arrived: the relevance at the step's results.
      passed: the relevance that it passed on.
      absorbed: the difference by category.
      size_arrived: the size of the relevance at its results, `sum(|R|)`.
      size_passed: the size of what it passed on.
      cancellation: of a `sum`, `sum(|inputs|) / sum(|output|)` of the values; None for
        other roles.
      loop: the number, in `Audit.loops`, of the loop that it lies in, or None. The
        numbers of such a step are sums over all iterations.
      parameter: the path of its kernel, or other parameter, in the arguments of `f`.
    """

    scope: str
    role: str
    line: str
    arrived: float
    passed: float
    absorbed: Mapping[str, float]
    size_arrived: float
    size_passed: float
    cancellation: float | None
    loop: int | None
    parameter: str = ""

    @property
    def layer(self) -> str:
        """What it is called: its scopes, else its parameter's path; or nothing."""
        return self.scope or self.parameter

    @property
    def amplification(self) -> float:
        """How many times larger relevance leaves than it arrived, in size.

        One where none arrived, or where what arrived was infinite already.
        """
        if not math.isfinite(self.size_arrived):
            return 1.0
        return ratio(self.size_passed, self.size_arrived)


@dataclasses.dataclass(frozen=True)
class Growth:
    """Where relevance grows in size; prints as a phrase.

    Attributes:
      step: the step, the largest one of several.
      times: by how much relevance grows in all of them.
      count: how many steps of its line and scope it grows in, as where a recurrence is
        unrolled.
      loop: the loop that the step lies in, or None. Then `times` is the growth through
        all of its iterations.
    """

    step: Absorption
    times: float
    count: int = 1
    loop: Absorption | None = None

    def __str__(self) -> str:
        step = self.step
        layer = f" in {step.layer}" if step.layer else ""
        text = f"{step.role} at {step.line}{layer}, {step.amplification:.3g} times"
        if self.loop is not None:
            return (
                f"{text} in an iteration of the loop at {self.loop.line}, which makes "
                f"it {self.times:.3g} times as large"
            )
        if self.count > 1:
            return (
                f"{text}; {self.count} such steps make it {self.times:.3g} times as "
                f"large"
            )
        return text


@dataclasses.dataclass(frozen=True)
class Audit:
    """Conservation, measured; prints as a table. All numbers are sums of relevance.

    Attributes:
      total_out: the relevance that the output starts with.
      total_in: the relevance of the attributed inputs.
      steps: what each step absorbed.
      constants_out: relevance of outputs that depend on no attributed input.
      culprit: the first equation with a NaN or infinity in its result, or None.
      size_out: the size of the relevance that the output starts with, `sum(|R|)`.
      size_in: the size of the relevance of the attributed inputs.
      loops: the loops, each as one step that absorbs nothing.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w, b = jnp.array([[1.0, -1.0], [2.0, 0.5]]), jnp.array([0.5, 0.0])
      >>> audit = jaxlrp.audit(lambda x: jax.nn.relu(x @ w + b))(jnp.array([1.0, 2.0]))
      >>> audit.total_out, round(audit.absorbed["bias"], 3)
      (5.5, 0.5)
      >>> [step.role for step in audit.steps]
      ['dense', 'activation']
    """

    total_out: float
    total_in: float
    steps: tuple[Absorption, ...]
    constants_out: float
    culprit: str | None
    size_out: float
    size_in: float
    loops: tuple[Absorption, ...] = ()

    @property
    def amplification(self) -> float:
        """`size_in / size_out`: how many times larger the relevance is than the score.

        Infinite where a NaN or an infinity is in it.
        """
        return ratio(self.size_in, self.size_out)

    @property
    def merges(self) -> tuple[Absorption, ...]:
        """The steps that are sums, residual ones for example."""
        return tuple(s for s in self.steps if s.cancellation is not None)

    @property
    def cancellation(self) -> Absorption | None:
        """The sum with the largest cancellation of values, or None."""
        sized = [(s.cancellation or 0.0, i) for i, s in enumerate(self.steps)]
        largest, i = max(sized, default=(0.0, 0))
        return self.steps[i] if largest else None

    @property
    def growth(self) -> Growth | None:
        """The step, loop or repeated step in which relevance grows most, or None.

        Only those count that pass on more than the size of the score.
        """
        return _growth(self)

    @property
    def growth_by_role(self) -> dict[str, Growth]:
        """The growth in all steps of a role that are not in a loop."""
        grown = [s for s in _grown(self) if s.loop is None]
        roles = dict.fromkeys(s.role for s in grown)
        return {r: _growth_of([s for s in grown if s.role == r]) for r in roles}

    @property
    def absorbed(self) -> dict[str, float]:
        """What was absorbed in all, by category."""
        totals: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
        totals["constants"] += self.constants_out
        for step in self.steps:
            for name, amount in step.absorbed.items():
                totals[name] += amount
        return totals

    @property
    def residual(self) -> float:
        """`total_out - total_in - sum(absorbed)`: zero except for rounding."""
        return self.total_out - self.total_in - sum(self.absorbed.values())

    def by_scope(self) -> dict[str, dict[str, float]]:
        """What was absorbed, by named scope and category.

        What lies in no scope is called by its parameter's path; what has none, `-`.
        """
        scopes: dict[str, dict[str, float]] = collections.defaultdict(
            lambda: dict.fromkeys(CATEGORIES, 0.0)
        )
        for step in self.steps:
            for name, amount in step.absorbed.items():
                scopes[step.layer or "-"][name] += amount
        return dict(scopes)

    def _repr_html_(self) -> str:
        return _html.audit(self)

    def __str__(self) -> str:
        lines = [
            f"relevance out         {self.total_out:>14.6g}",
            f"relevance in          {self.total_in:>14.6g}",
        ]
        lines += [
            f"absorbed: {name:<12}{amount:>14.6g}"
            for name, amount in self.absorbed.items()
            if amount
        ]
        lines.append(f"not accounted for     {self.residual:>14.3g}")
        lines += [
            f"sum of |R| out        {self.size_out:>14.6g}",
            f"sum of |R| in         {self.size_in:>14.6g}",
        ]
        merge = self.cancellation
        if merge is not None:
            lines.append(
                f"largest cancellation  {merge.cancellation:>14.3g}, of the sum at "
                f"{merge.line}, amplification {merge.amplification:.3g}"
            )
        growth = self.growth
        if growth is not None and self.amplification > LIMIT:
            lines.append(f"grows most: {growth}")
        if self.culprit:
            lines.append(f"first NaN or infinity: {self.culprit}")
        rows = {
            scope: amounts
            for scope, amounts in self.by_scope().items()
            if any(amounts.values())
        }
        if rows:
            width = max(len("layer"), *(len(s) for s in rows))
            used = [c for c in CATEGORIES if any(a[c] for a in rows.values())]
            lines.append("")
            lines.append("layer".ljust(width) + "".join(f"{c:>14}" for c in used))
            for scope, amounts in rows.items():
                numbers = "".join(f"{amounts[c]:>14.6g}" for c in used)
                lines.append(scope.ljust(width) + numbers)
        return "\n".join(lines)


def audit(
    f: Callable[P, Any],
    composite: Composite | None = None,
    argnums: ArgNums = -1,
    *,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Audit]:
    """Measures where the relevance of `lrp(f, ...)` goes.

    Args:
      f: as for `lrp`.
      composite: as for `lrp`.
      argnums: as for `lrp`.
      target: as for `lrp`.
      has_aux: as for `lrp`.

    Returns:
      A function of `f`'s arguments that returns the audit. It compiles and runs, and
      keeps what it compiled for arguments of the same shapes, as `jax.jit` does: `f`
      should be pure. Its numbers are concrete, so it cannot be called under `jit`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w, b = jnp.array([[1.0, -1.0], [2.0, 0.5]]), jnp.array([0.5, 0.0])
      >>> audit = jaxlrp.audit(lambda x: jax.nn.relu(x @ w + b))(jnp.array([1.0, 2.0]))
      >>> audit.total_out, round(audit.total_in, 3), round(audit.absorbed["bias"], 3)
      (5.5, 5.0, 0.5)
    """
    look = auditor(f, composite, argnums, target, has_aux)

    def measure(*args: Any, **kwargs: Any) -> Audit:
        return look(args, kwargs)[0]

    return measure


def auditor(
    f: Callable[..., Any],
    composite: Composite | None,
    argnums: ArgNums,
    target: Any,
    has_aux: bool,
) -> Callable[[tuple, dict], tuple[Audit, Traced]]:
    """`audit` on packed arguments, with the program that was audited."""
    rules = checked(f, composite, argnums, target, has_aux)
    known: dict[Any, _Prepared] = {}

    def look(args: tuple, kwargs: dict) -> tuple[Audit, Traced]:
        if not all(map(_compat.is_known, jax.tree.leaves((args, kwargs)))):
            raise TypeError(
                "audit: got arguments that are being traced or have no value; its "
                "numbers are concrete, so call it outside jit, on arrays"
            )
        key = _form(args, kwargs)
        prepared = known.get(key)
        if prepared is None:
            prepared = _prepare(f, args, kwargs, rules, argnums, has_aux, target)
            inputs = _inputs(prepared.traced, args, kwargs)
            if key is not None:
                known[key] = prepared
        else:
            inputs = _inputs(prepared.traced, args, kwargs)
            warn_outside(prepared.traced.reading, inputs, rules)
        return _audited(prepared, inputs, rules), prepared.traced

    return look


def _form(args: tuple, kwargs: dict) -> Any | None:
    """What a program depends on besides the numbers; None where that is unknown."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    forms = tuple(jax.typeof(v) if is_array(v) else (type(v), v) for v in leaves)
    key = tree, forms, _compat.settings()
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _inputs(traced: Traced, args: tuple, kwargs: dict) -> tuple[Any, ...]:
    """The arrays that a program of these arguments takes."""
    leaves = dict(jax.tree_util.tree_flatten_with_path((args, kwargs))[0])
    return tuple(as_array(leaves[path]) for path in traced.paths)


@dataclasses.dataclass(frozen=True)
class _Observed:
    """A step that relevance passes, its reading, and the loop that it lies in."""

    step: Step
    reading: Reading
    loop: int | None


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A program with taps in it, compiled once.

    Attributes:
      traced: the program, without its inputs.
      steps: the steps that are observed, those in bodies instead of what contains them.
      loops: the loops, which are also observed as a whole.
      slots: the number of the tap of each step and place.
      measure: the inputs to sums and sizes of seeds, of relevances, and of taps.
    """

    traced: Traced
    steps: tuple[_Observed, ...]
    loops: tuple[_Observed, ...]
    slots: Mapping[tuple[int, str], int]
    measure: Callable[[Sequence[Any]], Any]


def _prepare(
    f: Callable[..., Any],
    args: tuple,
    kwargs: dict,
    rules: Composite,
    argnums: ArgNums,
    has_aux: bool,
    target: Any,
) -> _Prepared:
    plain = _targets.is_plain(target)
    traced = trace(f, args, kwargs, rules, argnums, has_aux, plain, by_scope=True)
    traced = dataclasses.replace(traced, inputs=())
    loops: list[_Observed] = []
    steps = tuple(_steps(traced.reading, None, loops).values())
    places = [(o.step, p) for o in (*steps, *loops) for p in _places(o.step, rules)]
    slots = {(id(step), place): i for i, (step, place) in enumerate(places)}
    sizes = [3 if step.role == "sum" else 2 for step, _ in places]

    def measure(inputs: Sequence[Any]) -> Any:
        return _measure(traced, inputs, rules, target, slots, sizes)

    return _Prepared(traced, steps, tuple(loops), slots, jax.jit(measure))


def _steps(
    reading: Reading, loop: int | None, loops: list[_Observed]
) -> dict[int, _Observed]:
    """The steps that relevance passes, those in bodies instead of what contains them.

    Loops are added to `loops`.
    """
    found: dict[int, _Observed] = {}
    for step in reading.steps:
        inside = loop
        if step.bodies and step.signals and bodies_of(step.main).repeats:
            inside = len(loops)
            loops.append(_Observed(step, reading, loop))
        for body in step.bodies:
            found |= _steps(body, inside, loops)
        if step.signals:
            found[id(step)] = _Observed(step, reading, loop)
    return found


def _places(step: Step, composite: Composite) -> list[str]:
    """Where a step is observed, see `jaxlrp._rewriting.environment.Observe`."""
    if step.bodies:
        repeats = bodies_of(step.main).repeats
        return ["constant", "out", "in"] if repeats else ["constant"]
    rule = step.rule(composite)
    asked = {
        "kept": step.fraction(composite) is not None,
        "one-sided": step.layer is not None and one_sided(rule),
        "surrogate": _divides(step),
    }
    return ["out", "in", *(place for place, wanted in asked.items() if wanted)]


def _measure(
    traced: Traced,
    inputs: Sequence[Any],
    composite: Composite,
    target: Any,
    slots: Mapping[tuple[int, str], int],
    sizes: Sequence[int],
) -> tuple[list[list[Array]], list[list[Array]], list[tuple[Array, ...]]]:
    """Of seeds, of the inputs' relevances, of taps: `[sum(R), sum(|R|)]` of each.

    Of some taps `sum(|x|)` is the third.
    """
    wide = jnp.result_type(float)
    traced = dataclasses.replace(traced, inputs=tuple(inputs))
    zero = jnp.zeros((), wide)

    def run(taps: list[tuple[Array, ...]]) -> Run:
        def observe(
            place: str, step: Step, x: Any, shadow: Any, weight: Any = None
        ) -> Any:
            slot = slots.get((id(step), place))
            if slot is None:  # what is in a body is observed there
                return x, shadow
            if is_real(x):
                t = tuple(_compat.varying_like(v, x) for v in taps[slot])
                return tap(x, shadow, t, weight)
            if shadow is not None:  # a symbol: all of it is in the shadow
                t = tuple(_compat.varying_like(v, shadow) for v in taps[slot])
                _, shadow = tap(None, shadow, t, weight)
            return x, shadow

        return Run(composite, observe)

    once = backward(traced, run, [(zero,) * n for n in sizes])
    multipliers, plain = seed(target, traced.out_tree, once.outs)
    leaves, collected = once.relevance(multipliers, plain)
    seeds = [y * c for y, c in zip(once.outs, multipliers, strict=True)]
    if plain is not None:  # where a callable says it the multiplier is zero
        triples = zip(once.outs, multipliers, plain, strict=True)
        seeds = [jnp.where(c == 0, 0, y) * c + r for y, c, r in triples]

    def total(r: Array) -> list[Array]:
        r = r.astype(wide)
        return [r.sum(), jnp.abs(r).sum()]

    # Not stacked: they may lie on meshes with axes of different kinds.
    return [*map(total, seeds)], [*map(total, leaves)], collected


def _table(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    """Rows of two or three numbers as an array with three columns."""
    full = [(*map(float, row), 0.0)[:3] for row in rows]
    return np.asarray(full, np.float64).reshape(-1, 3)


def _audited(prepared: _Prepared, inputs: Sequence[Any], composite: Composite) -> Audit:
    """The audit of one call."""
    seeds, relevances, taps = map(_table, jax.device_get(prepared.measure(inputs)))
    traced, slots = prepared.traced, prepared.slots

    def at(step: Step, place: str) -> np.ndarray:
        slot = slots.get((id(step), place))
        return np.zeros(3) if slot is None else taps[slot]

    absorptions = tuple(_absorption(o, composite, at) for o in prepared.steps)
    outputs = traced.reading.program.outputs[: traced.n_out]
    constants = [not traced.reading.is_active(v) for v in outputs]
    total_out, total_in = float(seeds[:, 0].sum()), float(relevances[:, 0].sum())
    finite = bool(np.isfinite(total_out + total_in))
    return Audit(
        total_out=total_out,
        total_in=total_in,
        steps=absorptions,
        constants_out=float(seeds[constants, 0].sum()),
        culprit=None if finite else _culprit(traced, inputs, absorptions),
        size_out=float(seeds[:, 1].sum()),
        size_in=float(relevances[:, 1].sum()),
        loops=tuple(_whole_loop(o, at) for o in prepared.loops),
    )


At = Callable[[Step, str], np.ndarray]
"""What the tap at a place of a step collected: `sum(R)`, `sum(|R|)`, `sum(|x|)`."""


def _whole_loop(observed: _Observed, at: At) -> Absorption:
    """A loop as one step: what arrives after it and what leaves before it."""
    step, main = observed.step, observed.step.main
    out, left = at(step, "out"), at(step, "in") + at(step, "constant")
    numbers = map(float, (out[0], left[0], out[1], left[1]))
    arrived, passed, size_arrived, size_passed = numbers
    return Absorption(
        scope=main.scope,
        role="loop",
        line=main.line,
        arrived=arrived,
        passed=passed,
        absorbed={},
        size_arrived=size_arrived,
        size_passed=size_passed,
        cancellation=None,
        loop=observed.loop,
    )


def _absorption(observed: _Observed, composite: Composite, at: At) -> Absorption:
    """What a step absorbed, by category."""
    step, reading = observed.step, observed.reading
    kept, unmatched, surrogate, constant = (
        float(at(step, place)[0])
        for place in ("kept", "one-sided", "surrogate", "constant")
    )
    out, left = at(step, "out"), at(step, "in")
    if step.bodies:  # what passes there is counted inside
        out, left = np.zeros(3), np.zeros(3)
    arrived, passed = float(out[0]), float(left[0])
    rule = step.rule(composite)
    filtered = 0.0 if step.fraction(composite) is None else arrived - kept
    lost = arrived - filtered - passed + constant - unmatched
    special = _special(step, rule)
    if special is not None:
        absorbed = {special: lost}
    elif _divides(step) and not isinstance(rule, Detach):
        has_bias = _keeps_bias(step, rule)
        taken = surrogate != 0.0 and has_bias
        shared = arrived - filtered - unmatched - surrogate
        stabiliser = shared if taken else 0.0 if has_bias else lost
        absorbed = {"stabiliser": stabiliser, "bias": lost - stabiliser}
    else:
        absorbed = {_category(step, rule, reading): lost}
    absorbed |= {"filter": filtered, "one-sided": unmatched}
    main = step.main
    return Absorption(
        scope=main.scope,
        role=step.role,
        line=main.line,
        arrived=arrived,
        passed=passed,
        absorbed={name: amount for name, amount in absorbed.items() if amount},
        size_arrived=float(out[1]),
        size_passed=float(left[1]),
        cancellation=_cancellation(step, at),
        loop=observed.loop,
        parameter=next((n[0] for n in step.names(reading.facts)), ""),
    )


def _cancellation(step: Step, at: At) -> float | None:
    """`sum(|inputs|) / sum(|output|)` of a sum, whose inputs may be one value twice."""
    if step.role != "sum":
        return None
    operands = [v for v in step.main.inputs if v in step.signals]
    terms = float(at(step, "in")[2]) * len(operands) / max(len(step.signals), 1)
    return ratio(terms, float(at(step, "out")[2]))


def _divides(step: Step) -> bool:
    """Does its rule have a denominator?"""
    return step.layer is not None or step.role == "sum"


def _keeps_bias(step: Step, rule: Rule | None) -> bool:
    """Does it have a bias in its rule's denominator?"""
    if isinstance(rule, Flat | ZBox) or step.layer is None:
        return False
    if getattr(rule, "bias", "absorb") in ("ignore", "share"):
        return False
    return any(link.kind == "shift" for link in step.layer.links)


def _special(step: Step, rule: Rule | None) -> str | None:
    """The category that a step's rule implies, whatever its role."""
    if rule is None or not step.by_relevance(rule):
        return None
    if rule.exactness == "Taylor":
        return "Taylor"
    if step.role == "sum" and isinstance(rule, Pass):
        return "copies"
    return "stabiliser" if isinstance(rule, Norm | Rescaled) else None


def _category(step: Step, rule: Rule | None, reading: Reading) -> str:
    """The category of a step without a bias or a stabiliser."""
    if isinstance(rule, Detach) and not step.held:
        return "detached"
    if step.role in ("softmax", "gradient") or isinstance(rule, Taylor):
        return "Taylor"
    if step.role == "custom":
        return "custom"
    others = [v for e in step.equations for v in e.inputs if not isinstance(v, Literal)]
    if any(reading.facts[v].cut for v in others if v in reading.facts):
        return "detached"
    return "constants"


# ---- where relevance grows ---------------------------------------------------------


def _growth(audit: Audit) -> Growth | None:
    """The largest growth among steps, steps of one line and scope, and loops."""
    grown = _grown(audit)
    groups: dict[Any, list[Absorption]] = collections.defaultdict(list)
    for step in grown:
        if step.loop is None:
            groups[step.role, step.line, step.scope].append(step)
    found = [_growth_of(steps) for steps in groups.values()]
    for number, loop in enumerate(audit.loops):
        if not _passes_more(loop, audit.size_out):
            continue
        steps = [s for s in grown if _lies_in(s, number, audit.loops)]
        if steps:
            largest = max(steps, key=lambda s: s.amplification)
            found.append(Growth(largest, loop.amplification, loop=loop))
    return max(found, key=lambda g: g.times, default=None)


def _grown(audit: Audit) -> list[Absorption]:
    return [s for s in audit.steps if _passes_more(s, audit.size_out)]


def _passes_more(step: Absorption, floor: float) -> bool:
    """Does it pass on more than it got, and more than the score?"""
    return step.amplification > 1 and not step.size_passed <= floor


def _lies_in(step: Absorption, number: int, loops: Sequence[Absorption]) -> bool:
    inside = step.loop
    while inside is not None and inside != number:
        inside = loops[inside].loop
    return inside == number


def _growth_of(steps: Sequence[Absorption]) -> Growth:
    """Of the steps of one line, as of an unrolled recurrence.

    In sequence they multiply; side by side what leaves the largest is no more than that
    many times what arrives at the smallest.
    """
    largest = max(steps, key=lambda s: s.amplification)
    product = math.prod(s.amplification for s in steps)
    span = ratio(max(s.size_passed for s in steps), min(s.size_arrived for s in steps))
    return Growth(largest, min(product, span), len(steps))


# ---- the first NaN or infinity ---------------------------------------------------


def _culprit(
    traced: Traced, inputs: Sequence[Any], steps: Sequence[Absorption]
) -> str | None:
    """Where the first NaN or infinity comes from, values before relevances."""
    found, _ = _search(traced.reading.program, inputs)
    if found is not None:
        return f"the result of {found.primitive.name} at {found.line}"
    if any(_bad(x, np.isnan) or _bad(x, np.isinf) for x in inputs):
        return "an argument of f holds one"
    for step in reversed(steps):
        if np.isfinite(step.arrived) and not np.isfinite(step.passed):
            return f"the relevance that {step.role} passes on at {step.line}"
    return None


def _bad(x: Any, test: Callable[[Any], Any]) -> bool:
    return is_real(x) and bool(np.any(test(np.asarray(x, np.float64))))


def _search(
    program: Program, inputs: Sequence[Any]
) -> tuple[Equation | None, list[Any]]:
    """Evaluates equation by equation until a NaN or infinity appears from none."""
    env: dict[Value, Any] = dict(program.constants)
    env.update(zip(program.inputs, inputs, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for equation in program.equations:
        operands = [read(v) for v in equation.inputs]
        bind = equation.bound()
        results = bind(*operands)
        for test in (np.isnan, np.isinf):
            if any(_bad(y, test) for y in results) and not any(
                _bad(x, test) for x in operands
            ):
                inner = _search_inside(equation, operands)
                return inner or equation, results
        env.update(zip(equation.outputs, results, strict=True))
    return None, [read(v) for v in program.outputs]


def _search_inside(equation: Equation, operands: Sequence[Any]) -> Equation | None:
    """The equation in a loop, branch or call that is to blame."""
    bodies = body_programs(equation, Context(Options()))
    if not bodies:
        return None
    params, how = dict(equation.params), bodies_of(equation)
    if how.flow == "branch":
        return _search(bodies[int(operands[0])], operands[how.given])[0]
    if how.flow == "while":
        return _search_while(params, bodies[0], operands)
    if not how.repeats:
        return _search(bodies[0], operands)[0]
    carry = list(operands[how.carried])
    for i in _compat.iterations(params):
        xs = [x[i] for x in operands[how.slices]]
        found, outs = _search(bodies[0], [*operands[: how.constants], *carry, *xs])
        if found is not None:
            return found
        carry = outs[: how.carries]
    return None


def _search_while(
    params: dict[str, Any], body: Program, operands: Sequence[Any]
) -> Equation | None:
    """The equation in the first step of a `while` loop that makes one."""
    parts = _compat.while_parts(params)
    consts = operands[: parts.test_constants]
    given = operands[parts.test_constants :]
    carry = list(given[parts.constants :])
    while jaxpr_as_fun(parts.test)(*consts, *carry)[0]:
        found, carry = _search(body, [*given[: parts.constants], *carry])
        if found is not None:
            return found
    return None
