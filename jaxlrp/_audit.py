"""The audit: conservation, measured. Where did the relevance go that did not arrive?

Every value that relevance passes is observed through a tap: what enters a step from
its results, what its surrogates get, what leaves it to its signals. The differences
are what the step absorbed; together they are the whole, within rounding.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Literal, jaxpr_as_fun

from jaxlrp import _compat, _facts, _targets
from jaxlrp._evaluate import Run
from jaxlrp._operations import tap, tap_shadow
from jaxlrp._program import Equation, Program, Value
from jaxlrp._steps import Reading, Step
from jaxlrp._transform import ArgNums, Traced, as_composite, backward, seed, trace
from jaxlrp.composites import Composite
from jaxlrp.rules import Detach, Flat, Norm, Pass, Rescaled, Rule, Taylor, ZBox

CATEGORIES: tuple[str, ...] = (
    "bias",
    "stabiliser",
    "constants",
    "detached",
    "Taylor",
    "copies",
    "filter",
    "custom",
)
"""Where relevance can stay: biases of layers; stabilisers; constants that are added,
concatenated or filled in; detached paths; expansions and gradients that do not
conserve; sums that copy it (a gain, counted negative); filters; users' rules."""


@dataclasses.dataclass(frozen=True)
class Absorption:
    """What one step absorbed.

    Attributes:
      scope: the named scopes around the step.
      role: what the step is.
      line: the user's line.
      arrived: the relevance at the step's results.
      passed: the relevance that it passed on.
      absorbed: the difference by category.
    """

    scope: str
    role: str
    line: str
    arrived: float
    passed: float
    absorbed: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Audit:
    """Conservation, measured; prints as a table. All numbers are sums of relevance.

    Attributes:
      total_out: the relevance that the output starts with.
      total_in: the relevance of the attributed inputs.
      steps: what each step absorbed.
      constants_out: relevance of outputs that depend on no attributed input.
      culprit: the first equation with a NaN or infinity in its result, or None.
    """

    total_out: float
    total_in: float
    steps: tuple[Absorption, ...]
    constants_out: float
    culprit: str | None

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
        """`total_out - total_in - sum(absorbed)`: zero but for rounding."""
        return self.total_out - self.total_in - sum(self.absorbed.values())

    def by_scope(self) -> dict[str, dict[str, float]]:
        """What was absorbed, by named scope and category."""
        scopes: dict[str, dict[str, float]] = collections.defaultdict(
            lambda: dict.fromkeys(CATEGORIES, 0.0)
        )
        for step in self.steps:
            for name, amount in step.absorbed.items():
                scopes[step.scope or "-"][name] += amount
        return dict(scopes)

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
        if self.culprit:
            lines.append(f"first NaN or infinity: {self.culprit}")
        rows = {
            scope: amounts
            for scope, amounts in self.by_scope().items()
            if any(amounts.values())
        }
        if rows:
            width = max(len("scope"), *(len(s) for s in rows))
            used = [c for c in CATEGORIES if any(a[c] for a in rows.values())]
            lines.append("")
            lines.append("scope".ljust(width) + "".join(f"{c:>14}" for c in used))
            for scope, amounts in rows.items():
                numbers = "".join(f"{amounts[c]:>14.6g}" for c in used)
                lines.append(scope.ljust(width) + numbers)
        return "\n".join(lines)


def audit(
    f: Callable[..., Any],
    composite: Composite | None = None,
    argnums: ArgNums = -1,
    *,
    target: Any = "max",
    has_aux: bool = False,
) -> Callable[..., Audit]:
    """Measures where the relevance of `lrp(f, ...)` goes.

    Args:
      f: as for `lrp`.
      composite: as for `lrp`.
      argnums: as for `lrp`.
      target: as for `lrp`.
      has_aux: as for `lrp`.

    Returns:
      A function of `f`'s arguments that returns the audit. It compiles and runs; its
      numbers are concrete, so it cannot be called under `jit`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w, b = jnp.array([[1.0, -1.0], [2.0, 0.5]]), jnp.array([0.5, 0.0])
      >>> audit = jaxlrp.audit(lambda x: jax.nn.relu(x @ w + b))(jnp.array([1.0, 2.0]))
      >>> audit.total_out, round(audit.total_in, 3), round(audit.absorbed["bias"], 3)
      (5.5, 5.0, 0.5)
    """
    rules = as_composite(composite)
    _targets.check(target)

    def measure(*args: Any, **kwargs: Any) -> Audit:
        plain = callable(target)
        traced = trace(f, args, kwargs, rules, argnums, has_aux, plain, by_scope=True)
        if not all(map(_compat.is_known, traced.inputs)):
            raise TypeError(
                "audit: got arguments that are being traced or have no value; its "
                "numbers are concrete, so call it outside jit, on arrays"
            )
        steps = _steps(traced.reading)
        slots = {(id(s), p): i for i, (s, p) in enumerate(_places(steps))}
        measure_once = jax.jit(lambda xs: _measure(traced, xs, rules, target, slots))
        seeds, relevances, taps = measure_once(traced.inputs)
        taps = np.asarray(taps, np.float64)
        absorptions = tuple(_absorption(s, rules, r, slots, taps) for s, r in steps)
        sums = [float(s) for s in seeds]
        total_in = float(sum(float(r) for r in relevances))
        outputs = traced.reading.program.outputs[: traced.n_out]
        return Audit(
            total_out=sum(sums),
            total_in=total_in,
            steps=absorptions,
            constants_out=sum(
                s
                for s, v in zip(sums, outputs, strict=True)
                if not traced.reading.is_active(v)
            ),
            culprit=_culprit(
                traced, absorptions, bool(np.isfinite(sum(sums) + total_in))
            ),
        )

    return measure


def _steps(reading: Reading) -> list[tuple[Step, Reading]]:
    """The steps that relevance passes, those in bodies in place of their loop."""
    found: dict[int, tuple[Step, Reading]] = {}
    for step in reading.steps:
        for body in step.bodies:
            found |= {id(s): (s, r) for s, r in _steps(body)}
        if step.signals:
            found[id(step)] = (step, reading)
    return list(found.values())


PLACES = ("out", "kept", "surrogate", "in", "constant")
"""Where a step is observed, see `jaxlrp._run.Observe`."""


def _places(steps: Sequence[tuple[Step, Reading]]) -> list[tuple[Step, str]]:
    return [(s, p) for s, _ in steps for p in PLACES]


def _measure(
    traced: Traced,
    inputs: Sequence[Any],
    composite: Composite,
    target: Any,
    slots: Mapping[tuple[int, str], int],
) -> tuple[list[Array], list[Array], list[Array]]:
    """(sums of the seeds, sums of the inputs' relevances, what the taps collected)."""
    wide = jnp.result_type(float)
    traced = dataclasses.replace(traced, inputs=tuple(inputs))

    def run(taps: list[Array]) -> Run:
        def observe(place: str, step: Step, x: Array, shadow: Array | None) -> Any:
            if step.bodies and place != "constant":
                return x, shadow  # what is in a body is observed there
            t = _compat.varying_like(taps[slots[id(step), place]], x)
            if not _facts.is_real(x):  # a symbol: all of it is in the shadow
                return x, None if shadow is None else tap_shadow(shadow, t)
            return tap(x, t), None if shadow is None else tap_shadow(shadow, t)

        return Run(composite, observe)

    once = backward(traced, run, [jnp.zeros((), wide) for _ in slots])
    multipliers, plain = seed(target, traced.out_tree, once.outs)
    leaves, collected = once.relevance(multipliers, plain)
    seeds = plain or [y * c for y, c in zip(once.outs, multipliers, strict=True)]

    def total(r: Array) -> Array:
        return r.astype(wide).sum()

    return [total(r) for r in seeds], [total(r) for r in leaves], collected


def _absorption(
    step: Step,
    composite: Composite,
    reading: Reading,
    slots: Mapping[tuple[int, str], int],
    taps: np.ndarray,
) -> Absorption:
    """What a step absorbed, and as what."""
    arrived, kept, surrogate, passed, constant = (
        float(taps[slots[id(step), place]])
        for place in ("out", "kept", "surrogate", "in", "constant")
    )
    rule = step.rule(composite)
    filtered = 0.0 if step.kept(composite) is None else arrived - kept
    lost = arrived - filtered - passed + constant
    special = _special(step, rule)
    if special is not None:
        absorbed = {special: lost}
    elif _divides(step) and not isinstance(rule, Detach):
        has_bias = _keeps_bias(step, rule)
        taken = surrogate != 0.0 and has_bias
        shared = arrived - filtered - surrogate
        stabiliser = shared if taken else 0.0 if has_bias else lost
        absorbed = {"stabiliser": stabiliser, "bias": lost - stabiliser}
    else:
        absorbed = {_category(step, rule, reading): lost}
    absorbed["filter"] = filtered
    main = step.main
    return Absorption(
        main.scope,
        step.role,
        main.line,
        arrived,
        passed,
        {name: amount for name, amount in absorbed.items() if amount},
    )


def _divides(step: Step) -> bool:
    """Has its rule a denominator?"""
    return step.layer is not None or step.role == "sum"


def _keeps_bias(step: Step, rule: Rule | None) -> bool:
    """Has it a bias that stands in its rule's denominator?"""
    if isinstance(rule, Flat | ZBox) or step.layer is None:
        return False
    if getattr(rule, "bias", "absorb") in ("ignore", "share"):
        return False
    return any(link.kind == "shift" for link in step.layer.links)


def _special(step: Step, rule: Rule | None) -> str | None:
    """What a step absorbs as because of its rule, whatever its role."""
    if rule is None or not step.by_relevance(rule):
        return None
    if rule.exactness == "Taylor":
        return "Taylor"
    if step.role == "sum" and isinstance(rule, Pass):
        return "copies"
    return "stabiliser" if isinstance(rule, Norm | Rescaled) else None


def _category(step: Step, rule: Rule | None, reading: Reading) -> str:
    """What a step without a bias or a stabiliser absorbs as."""
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


# ---- the first NaN or infinity ---------------------------------------------------


def _culprit(traced: Traced, steps: Sequence[Absorption], finite: bool) -> str | None:
    """Where the first NaN or infinity comes from, values before relevances."""
    if finite:
        return None
    found, _ = _search(traced.reading.program, traced.inputs)
    if found is not None:
        return f"the result of {found.primitive.name} at {found.line}"
    if any(_bad(x, np.isnan) or _bad(x, np.isinf) for x in traced.inputs):
        return "an argument of f holds one"
    for step in reversed(steps):
        if np.isfinite(step.arrived) and not np.isfinite(step.passed):
            return f"the relevance that {step.role} passes on at {step.line}"
    return None


def _bad(x: Any, test: Callable[[Any], Any]) -> bool:
    return _facts.is_real(x) and bool(np.any(test(np.asarray(x, np.float64))))


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
    bodies = _facts.body_programs(equation, {})
    if not bodies:
        return None
    params = dict(equation.params)
    if _compat.is_branch(params):
        return _search(bodies[int(operands[0])], operands[1:])[0]
    if _compat.is_while(params):
        return _search_while(params, bodies[0], operands)
    if not _compat.is_loop(params):
        return _search(bodies[0], operands)[0]
    consts, carries = _compat.scan_split(params)
    split = consts + carries
    carry = list(operands[consts:split])
    steps = range(params["length"])
    for i in reversed(steps) if params["reverse"] else steps:
        xs = [x[i] for x in operands[split:]]
        found, outs = _search(bodies[0], [*operands[:consts], *carry, *xs])
        if found is not None:
            return found
        carry = outs[:carries]
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
