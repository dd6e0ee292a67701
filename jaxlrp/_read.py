"""Reading: the roles that a program's equations play are recovered from structure.

A jaxpr shows decomposed operations; LRP's rules are stated for layers, activations,
normalisers. `read` turns a program into steps, each an equation or a group of
equations with one role, the values that relevance comes from and goes to, and the
composite's assignment that applies. It is pure and abstract: no array is touched.

The order in which roles are claimed:

1. softmax and its kin: an exponential, its sum, and the division or logarithm
2. layers: a contraction with one active operand, and the affine chain behind it
3. averages: a sum over axes, and the constant scale behind it
4. activations: an elementwise region between one value and its last nonlinear result
5. everything else, equation by equation
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jax.extend.core import Literal

from jaxlrp import _compat, _facts, rules
from jaxlrp._facts import Facts
from jaxlrp._program import Equation, Program, Value, flatten, has_effects
from jaxlrp.composites import DEFAULTS, Composite
from jaxlrp.errors import UnexplainedPrimitiveError
from jaxlrp.primitives import Entry, Kind, lookup
from jaxlrp.primitives.structural import Layout
from jaxlrp.rules import Rule


@dataclasses.dataclass(frozen=True)
class Link:
    """One equation of the affine chain behind a layer.

    Attributes:
      equation: the equation.
      position: which of its operands is the chain's own value.
      kind: `structural`, `scale` (a constant factor) or `shift` (a constant term).
      layout: the axes of the chain's value before the equation.
    """

    equation: Equation
    position: int
    kind: str
    layout: Layout


@dataclasses.dataclass(frozen=True)
class LayerForm:
    """A linear head and the affine chain behind it: `y = S(W x s) + b`.

    Attributes:
      head: the contraction or sum.
      position: which of its operands is the signal.
      links: the chain, in order.
      layout: the axes of the result, those of the kernel marked.
    """

    head: Equation
    position: int
    links: tuple[Link, ...]
    layout: Layout

    @property
    def kernel(self) -> Any | None:
        """The weights, or None for a sum."""
        others = [v for i, v in enumerate(self.head.inputs) if i != self.position]
        return others[0] if len(others) == 1 else None


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One thing that the interpreter does.

    Attributes:
      role: what it is, see `jaxlrp.composites`; or `structural`, `control`, `call`,
        `custom`, `gradient` (no rule but the local gradient), `inactive`, `detached`.
      equations: what it evaluates, in order; the last gives its results.
      signals: the active values that it reads and that may receive relevance.
      first: is it a first layer?
      slot: the composite's assignment that applies, or None for the role's default.
      layer: for layers and averages, the parts.
      root: for activations, the value that relevance goes to.
      held: positions of the last equation's operands that count as constants under
        the rule `Detach` (normaliser, quotient) or `SignalTakesAll` (product).
      bodies: for control flow, the readings of its bodies.
      plain: the local derivative already is the role's rule.
    """

    role: str
    equations: tuple[Equation, ...]
    signals: tuple[Value, ...]
    first: bool = False
    slot: int | None = None
    layer: LayerForm | None = None
    root: Value | None = None
    held: tuple[int, ...] = ()
    bodies: tuple[Reading, ...] = ()
    plain: bool = False

    @property
    def main(self) -> Equation:
        """The equation that names the step: a layer's head, else the last one."""
        return self.layer.head if self.layer else self.equations[-1]

    @property
    def outputs(self) -> tuple[Value, ...]:
        """The results."""
        return self.equations[-1].outputs

    def rule(self, composite: Composite) -> Rule | None:
        """The rule that `composite` gives this step, or None where there is no choice.
        """
        if self.slot is not None:
            return composite.assignments[self.slot].rule
        return DEFAULTS.get(self.role)


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A program that has been read.

    Attributes:
      program: the program.
      facts: what is known of each value.
      steps: what to do, in order.
      shadowed: the values beside which a shadow is carried.
    """

    program: Program
    facts: Mapping[Value, Facts]
    steps: tuple[Step, ...]
    shadowed: frozenset[Value]

    def is_active(self, atom: Any) -> bool:
        """Can relevance pass through this operand?"""
        return not isinstance(atom, Literal) and self.facts[atom].active

    @property
    def shadowed_inputs(self) -> tuple[bool, ...]:
        """Which inputs need a shadow."""
        return tuple(v in self.shadowed for v in self.program.inputs)

    @property
    def shadowed_outputs(self) -> tuple[bool, ...]:
        """Beside which outputs a shadow is handed out."""
        return tuple(
            isinstance(v, Value) and v in self.shadowed for v in self.program.outputs
        )


def read(
    jaxpr: Any,
    active: Sequence[bool],
    composite: Composite,
    *,
    relevant: Sequence[bool] | None = None,
    shadow_outputs: bool = False,
    strict: bool = True,
) -> Reading:
    """Reads a jaxpr.

    Args:
      jaxpr: as `jax.make_jaxpr` returns it.
      active: which of its inputs are attributed.
      composite: the rules; only their kinds matter here, not their numbers.
      relevant: which outputs relevance comes from; all by default.
      shadow_outputs: relevance arrives beside the outputs, not as a multiple of them.
      strict: raise where there is no rule; else such steps have the role `unexplained`.

    Returns:
      The reading.

    Raises:
      UnexplainedPrimitiveError: where relevance meets a primitive without a rule.
    """
    memo: dict = {"strict": strict}
    program = flatten(jaxpr)
    inputs = [
        _facts.input_facts(v.aval, a)
        for v, a in zip(program.inputs, active, strict=True)
    ]
    if relevant is None:
        relevant = [True] * len(program.outputs)
    return _read_program(
        program,
        inputs,
        composite,
        tuple(relevant),
        tuple(shadow_outputs and r for r in relevant),
        memo,
    )


def _read_program(
    program: Program,
    inputs: Sequence[Facts],
    composite: Composite,
    relevant: tuple[bool, ...],
    shadow_outputs: tuple[bool, ...],
    memo: dict,
) -> Reading:
    key = ("reading", id(program), tuple(inputs), relevant, shadow_outputs)
    if key not in memo:
        facts = _facts.analyse(program, inputs, memo)
        steps = _claim(program, facts, composite, memo["strict"])
        memo[key] = _finish(
            program, facts, steps, composite, relevant, shadow_outputs, memo
        )
    return memo[key]


# ---- claiming: equations become steps -------------------------------------------


@dataclasses.dataclass
class _Claims:
    """The work sheet of one program while its equations are being claimed."""

    program: Program
    facts: Mapping[Value, Facts]
    uses: dict[Value, list[int]]
    role: dict[int, str]

    def active(self, atom: Any) -> bool:
        return isinstance(atom, Value) and self.facts[atom].active

    def active_inputs(self, equation: Equation) -> list[Value]:
        return [v for v in equation.inputs if self.active(v)]

    def entry(self, equation: Equation) -> Entry:
        """The rule book's entry; refused where there is none."""
        return lookup(equation.primitive) or Entry(Kind.REFUSED)


def _claim(
    program: Program,
    facts: Mapping[Value, Facts],
    composite: Composite,
    strict: bool,
) -> list[Step]:
    uses: dict[Value, list[int]] = {}
    for i, equation in enumerate(program.equations):
        for v in equation.inputs:
            if isinstance(v, Value):
                uses.setdefault(v, []).append(i)
    for v in program.outputs:
        if isinstance(v, Value):
            uses.setdefault(v, []).append(-1)  # an output is a use
    claims = _Claims(program, facts, uses, {})
    for i, equation in enumerate(program.equations):
        problem = _problem(equation, claims)
        if problem and strict:
            raise UnexplainedPrimitiveError(problem)
        if problem:
            claims.role[i] = "unexplained"
    _claim_softmax(claims)
    layers = _claim_layers(claims)
    regions = _find_regions(claims)
    steps = []
    for i, equation in enumerate(program.equations):
        step = layers.get(i) or regions.get(i)
        if step is None and claims.role.get(i) != "chain":
            step = _single(i, equation, claims)
        if step is not None:
            steps.append(_select(step, composite))
    return steps


def _problem(equation: Equation, claims: _Claims) -> str:
    """Why relevance cannot pass the equation, or nothing."""
    if not claims.active_inputs(equation):
        return ""
    if not any(_facts.is_real(v.aval) for v in equation.outputs):
        return ""
    entry = lookup(equation.primitive)
    if entry is not None and entry.kind is not Kind.REFUSED:
        return ""
    name = equation.primitive.name
    where = _compat.summarize(equation.source)
    shapes = ", ".join(v.aval.str_short() for v in equation.inputs)
    if entry is not None:
        return f"primitive {name!r} of ({shapes}) at {where}: {entry.reason}."
    return (
        f"primitive {name!r} of ({shapes}) at {where} has no rule, and relevance has to "
        f"pass it. Register one with @jaxlrp.register_rule(primitive), or wrap the "
        f"function that uses it in jaxlrp.custom_lrp."
    )


def _select(step: Step, composite: Composite) -> Step:
    main = step.main
    slot = composite.select(step.role, step.first, main.scope, main.primitive.name)
    return dataclasses.replace(step, slot=slot)


def _single(index: int, equation: Equation, claims: _Claims) -> Step:
    """A step of one equation."""
    signals = tuple(dict.fromkeys(claims.active_inputs(equation)))
    if not signals or not any(claims.facts[v].active for v in equation.outputs):
        return Step("inactive", (equation,), ())
    role = claims.role.get(index)
    if role is not None:  # softmax, unexplained
        return Step(role, (equation,), signals)
    entry = claims.entry(equation)
    if entry.kind is Kind.ELEMENTWISE:
        return _elementwise(equation, entry, signals, claims)
    roles = {
        Kind.STRUCTURAL: "structural",
        Kind.SELECTION: "selection",
        Kind.CONTRACTION: "bilinear",
        Kind.CALL: "call",
        Kind.CONTROL: "control",
        Kind.CUSTOM: "custom",
        Kind.TAYLOR: "gradient",
    }
    if entry.kind is Kind.LINEAR:
        active = [claims.active(v) for v in equation.inputs]
        role = "linear" if entry.linear(active) else "bilinear"
        return Step(role, (equation,), signals)
    return Step(roles[entry.kind], (equation,), signals)


def _elementwise(
    equation: Equation, entry: Entry, signals: tuple[Value, ...], claims: _Claims
) -> Step:
    """The role of an elementwise equation that no region has claimed."""
    active = [claims.active(v) for v in equation.inputs]
    linear = entry.linear(active)
    if linear and sum(active) > 1:
        # A selection between active cases moves elements; a sum adds them.
        role = "structural" if entry.linear([False, *active[1:]]) and not _is_sum(
            entry, active
        ) else "sum"
        return Step(role, (equation,), signals)
    if linear and len(active) == 2:
        return Step("shift" if _is_sum(entry, active) else "scale", (equation,), signals)
    if linear:
        return Step("structural", (equation,), signals)
    held = held_operands(equation, entry, claims.facts)
    if held and _is_quotient(entry):
        role = "quotient"
        if claims.facts[equation.inputs[held[0]]].reduced:  # type: ignore[index]
            role = "normaliser"
        return Step(role, (equation,), signals, held=held)
    if held:
        return Step("normaliser", (equation,), signals, held=held)
    if len(active) == 2 and _is_product(entry):
        return Step("product", (equation,), signals, held=_gates(equation, claims))
    return Step("gradient", (equation,), signals)


def _is_sum(entry: Entry, active: Sequence[bool]) -> bool:
    return entry.linear([True] * len(active))


def _is_product(entry: Entry) -> bool:
    return (
        entry.linear([True, False])
        and entry.linear([False, True])
        and not entry.linear([True, True])
    )


def _is_quotient(entry: Entry) -> bool:
    return entry.linear([True, False]) and not entry.linear([False, True])


def held_operands(
    equation: Equation, entry: Entry, facts: Mapping[Value, Facts]
) -> tuple[int, ...]:
    """Operands of a product or quotient of two active values that are held constant.

    A divisor always; a factor where it is a statistic made a scale (the `rsqrt` of a
    variance) and the other is not.
    """
    if entry.kind is not Kind.ELEMENTWISE or len(equation.inputs) != 2:
        return ()
    a, b = equation.inputs
    if not all(isinstance(v, Value) and facts[v].active for v in (a, b)) or a is b:
        return ()
    if _is_quotient(entry):
        return (1,)
    if _is_product(entry):
        rooted = [facts[v].rooted for v in (a, b)]  # type: ignore[index]
        if rooted == [False, True]:
            return (1,)
        if rooted == [True, False]:
            return (0,)
    return ()


def _gates(equation: Equation, claims: _Claims) -> tuple[int, ...]:
    """Which factor of a product is a gate: known to be `>= 0` where the other is not.

    A sigmoid, a softmax or a softplus is; a candidate state or a signal is not.
    """
    signs = [_facts.of(v, claims.facts).nonnegative for v in equation.inputs]
    if signs == [True, False]:
        return (0,)
    if signs == [False, True]:
        return (1,)
    return ()


# ---- softmax ---------------------------------------------------------------------


def _claim_softmax(claims: _Claims) -> None:
    """Exponentials that are summed, and what divides by the sum or takes its log.

    Equation by equation the derivative is the softmax's own, so they only have to be
    kept from being taken for activations and normalisers. `x - max(x)` belongs here
    too: it is exactly zero at the largest entry, and no rule may divide by it.
    """
    equations = claims.program.equations
    producer = {v: i for i, e in enumerate(equations) for v in e.outputs}
    for i, equation in enumerate(equations):
        if not claims.active_inputs(equation):
            continue
        if not claims.entry(equation).exponential or i in claims.role:
            continue
        numerators, found = _follow(i, claims)
        sums = [j for j in found if claims.entry(equations[j]).sums]
        ends: set[int] = set()
        between: set[int] = set()
        for j in sums:
            scales, behind = _follow(j, claims)
            for k in behind:
                role = _softmax_end(equations[k], numerators, scales, claims)
                if role:
                    ends.add(k)
            if ends:
                between |= {k for k in behind if _is_light(k, claims)}
        if not ends:
            continue
        members = {i, *sums, *ends, *between}
        members |= {j for j in found if _is_light(j, claims)}
        shift = producer.get(equation.inputs[0])  # type: ignore[arg-type]
        if shift is not None and _is_light(shift, claims, actives=2):
            members.add(shift)
        for j in members:
            claims.role.setdefault(j, "softmax")


def _follow(start: int, claims: _Claims) -> tuple[set[Value], set[int]]:
    """Values reached from an equation through light ones, and all equations met."""
    values = set(claims.program.equations[start].outputs)
    met: set[int] = set()
    queue = list(values)
    while queue:
        for j in claims.uses.get(queue.pop(), ()):
            if j < 0 or j in met:
                continue
            met.add(j)
            equation = claims.program.equations[j]
            if _is_light(j, claims):
                values.update(equation.outputs)
                queue.extend(equation.outputs)
    return values, met


def _is_light(index: int, claims: _Claims, actives: int = 1) -> bool:
    """Shape changes, masks, casts, and arithmetic with constants."""
    equation = claims.program.equations[index]
    active = [claims.active(v) for v in equation.inputs]
    if not 1 <= sum(active) <= actives:
        return False
    entry = claims.entry(equation)
    if entry.kind is Kind.STRUCTURAL:
        return True
    if entry.kind is not Kind.ELEMENTWISE or entry.exponential:
        return False
    return (
        entry.linear(active)
        or len(active) == 2
        and (_is_quotient(entry) or bool(entry.nonnegative([True, False], {})))
    )


def _softmax_end(
    equation: Equation, numerators: set[Value], scales: set[Value], claims: _Claims
) -> bool:
    """`exp / sum`, `exp * (1 / sum)`, or `log(sum)`."""
    entry = claims.entry(equation)
    if entry.kind is not Kind.ELEMENTWISE:
        return False
    inputs = equation.inputs
    if len(inputs) == 1:
        return entry.logarithm and inputs[0] in scales
    if len(inputs) != 2 or not entry.linear([True, False]):
        return False
    a, b = inputs
    return (a in numerators and b in scales) or (
        _is_product(entry) and b in numerators and a in scales
    )


# ---- layers ----------------------------------------------------------------------


def _claim_layers(claims: _Claims) -> dict[int, Step]:
    """Layers and averages, by the index of their last equation."""
    steps: dict[int, Step] = {}
    for i, equation in enumerate(claims.program.equations):
        if i in claims.role or not claims.active_inputs(equation):
            continue
        entry = claims.entry(equation)
        active = [claims.active(v) for v in equation.inputs]
        if entry.kind is Kind.CONTRACTION and sum(active) == 1:
            role = entry.role
        elif entry.sums and sum(active) == 1 and len(active) == 1:
            role = "average"
        else:
            continue
        position = active.index(True)
        form, members = _chain(i, position, entry, claims)
        last = members[-1]
        for j in members:
            claims.role[j] = "chain"
        equations = tuple(claims.program.equations[j] for j in members)
        signal = equation.inputs[position]
        assert isinstance(signal, Value)
        steps[last] = Step(
            role,
            equations,
            (signal,),
            first=not claims.facts[signal].layered,
            layer=form,
        )
    return steps


def _chain(
    index: int, position: int, entry: Entry, claims: _Claims
) -> tuple[LayerForm, list[int]]:
    """The affine chain behind a head: what is the layer's own bias and scale.

    It ends where the value is used twice, where elements repeat, and at a constant
    that is not the layer's (a positional embedding varies over positions, a bias only
    over the kernel's axes).
    """
    head = claims.program.equations[index]
    (value,) = head.outputs
    layout = _head_layout(head, position, entry)
    links: list[Link] = []
    members = [index]
    while True:
        uses = claims.uses.get(value, [])
        if len(uses) != 1 or uses[0] < 0 or uses[0] in claims.role:
            break
        equation = claims.program.equations[uses[0]]
        link, after = _link(equation, value, layout, entry, claims)
        if link is None or after is None:
            break
        links.append(link)
        members.append(uses[0])
        layout, (value,) = after, equation.outputs
    return LayerForm(head, position, tuple(links), layout), members


def _head_layout(head: Equation, position: int, entry: Entry) -> Layout:
    shape = head.outputs[0].aval.shape
    if entry.kernel_axes is None:
        return tuple(((None, n),) for n in shape)
    kernel = 1 - position
    ndims = tuple(len(v.aval.shape) for v in head.inputs)
    axes = entry.kernel_axes(head.params, kernel, ndims)
    return tuple(((axes.get(i), n),) for i, n in enumerate(shape))


def _link(
    equation: Equation, value: Value, layout: Layout, head: Entry, claims: _Claims
) -> tuple[Link | None, Layout | None]:
    """The next link of a chain and the layout behind it, or Nones where it ends."""
    if sum(claims.active(v) for v in equation.inputs) != 1:
        return None, None
    entry = claims.entry(equation)
    position = equation.inputs.index(value)
    (out,) = equation.outputs if len(equation.outputs) == 1 else (None,)
    if out is None:
        return None, None
    if entry.layout is not None and len(equation.inputs) == 1:
        after = entry.layout(equation.params, layout, out.aval.shape)
        return Link(equation, position, "structural", layout), after
    if entry.kind is not Kind.ELEMENTWISE or out.aval.shape != value.aval.shape:
        return None, None
    active = [claims.active(v) for v in equation.inputs]
    if not entry.linear(active) or len(active) > 2 or not _facts.is_real(out.aval):
        return None, None
    if len(active) == 1:
        return Link(equation, position, "scale", layout), layout
    other = equation.inputs[1 - position]
    varies = _facts.of(other, claims.facts).varies
    if not all(_is_kernels(layout[axis]) for axis in varies):
        return None, None
    kind = "shift" if _is_sum(entry, active) else "scale"
    if kind == "shift" and head.kernel_axes is None:
        return None, None
    return Link(equation, position, kind, layout), layout


def _is_kernels(atoms: Sequence[tuple[int | None, int]]) -> bool:
    return all(axis is not None for axis, _ in atoms)


# ---- activations -----------------------------------------------------------------


def _find_regions(claims: _Claims) -> dict[int, Step]:
    """Activations, by the index of the equation that gives their result.

    A region is what one value (the anchor) becomes through elementwise equations.
    `dominators[v]` lists, from the anchor on, the values that every path to `v`
    passes and that are piecewise linear in the anchor, hence exact by their derivative;
    the last of them is the root of the activation that ends in `v`.
    """
    equations = claims.program.equations
    anchor: dict[Value, Value] = {}
    dominators: dict[Value, tuple[Value, ...]] = {}
    exact: dict[Value, bool] = {}
    inside: dict[int, Value] = {}

    def start(value: Value) -> None:
        anchor[value], dominators[value], exact[value] = value, (value,), True

    for v in [*claims.program.inputs, *(v for v, _ in claims.program.constants)]:
        start(v)
    for i, equation in enumerate(equations):
        actives = list(dict.fromkeys(claims.active_inputs(equation)))
        if i in claims.role or not _joins(equation, actives, anchor, claims):
            for v in equation.outputs:
                start(v)
            continue
        (out,) = equation.outputs
        inside[i] = out
        anchor[out] = anchor[actives[0]]
        common = _common_prefix([dominators[v] for v in actives])
        exact[out] = all(exact[v] for v in actives) and _is_exact(equation, claims)
        dominators[out] = (*common, out) if exact[out] else common
    steps: dict[int, Step] = {}
    for i, out in inside.items():
        if exact[out]:
            if not _is_linear(equations[i], claims):  # max(x, 0), abs(x)
                (x,) = dict.fromkeys(claims.active_inputs(equations[i]))
                step = Step("activation", (equations[i],), (x,), root=x, plain=True)
                steps[i] = step
            continue
        if not _leaves(out, inside, anchor, claims):
            continue
        root = dominators[out][-1]
        cone = _cone(i, root, claims)
        steps[i] = Step("activation", cone, (root,), root=root)
    # What only lies inside activations is no step of its own.
    for i, out in inside.items():
        if i not in steps and not exact[out]:
            claims.role[i] = "chain"
    return steps


def _joins(
    equation: Equation,
    actives: Sequence[Value],
    anchor: Mapping[Value, Value],
    claims: _Claims,
) -> bool:
    """Does the equation continue the region of its active operands?"""
    if not actives or len(equation.outputs) != 1:
        return False
    (out,) = equation.outputs
    if not claims.facts[out].active:
        return False
    if len({anchor[v] for v in actives}) != 1:
        return False
    if any(v.aval.shape != out.aval.shape for v in actives):
        return False
    entry = claims.entry(equation)
    if entry.kind is Kind.CALL:  # an elementwise function with its own derivative
        return len(actives) == 1
    if entry.kind is not Kind.ELEMENTWISE:
        return False
    return not held_operands(equation, entry, claims.facts)


def _is_linear(equation: Equation, claims: _Claims) -> bool:
    return claims.entry(equation).linear([claims.active(v) for v in equation.inputs])


def _is_exact(equation: Equation, claims: _Claims) -> bool:
    """Is `phi(x) = phi'(x) x` for the equation: linear, or piecewise so through 0?

    A shift by a constant counts too: it is no activation, its constant absorbs.
    """
    entry = claims.entry(equation)
    if entry.kind is Kind.CALL:
        body = _compat.called_jaxpr(dict(equation.params))
        return _is_homogeneous(_compat.open_jaxpr(body)[0])
    if _is_linear(equation, claims):
        return True
    return entry.homogeneous(
        [v.val if isinstance(v, Literal) else None for v in equation.inputs]
    )


def _is_homogeneous(jaxpr: Any) -> bool:
    """A body that is one homogeneous equation, as `max(x, 0)`, calls written out."""
    if len(jaxpr.eqns) != 1:
        return False
    (eqn,) = jaxpr.eqns
    entry = lookup(eqn.primitive)
    if entry is None:
        return False
    if entry.kind is Kind.CALL:
        body = _compat.called_jaxpr(eqn.params)
        return body is not None and _is_homogeneous(_compat.open_jaxpr(body)[0])
    return entry.homogeneous(
        [v.val if isinstance(v, Literal) else None for v in eqn.invars]
    )


def _common_prefix(chains: Sequence[tuple[Value, ...]]) -> tuple[Value, ...]:
    common = chains[0]
    for chain in chains[1:]:
        n = 0
        while n < min(len(common), len(chain)) and common[n] is chain[n]:
            n += 1
        common = common[:n]
    return common


def _leaves(
    value: Value,
    inside: Mapping[int, Value],
    anchor: Mapping[Value, Value],
    claims: _Claims,
) -> bool:
    """Is the value read outside its region?"""
    return any(
        j < 0 or j not in inside or anchor[inside[j]] is not anchor[value]
        for j in claims.uses.get(value, ())
    )


def _cone(last: int, root: Value, claims: _Claims) -> tuple[Equation, ...]:
    """The equations between `root` and the result of equation `last`, in order."""
    equations = claims.program.equations
    needed = set(equations[last].outputs)
    cone: list[Equation] = []
    for equation in reversed(equations[: last + 1]):
        if needed.isdisjoint(equation.outputs):
            continue
        if root in equation.outputs:
            break
        if not claims.active_inputs(equation):
            continue
        cone.append(equation)
        needed.update(v for v in claims.active_inputs(equation) if v is not root)
    return tuple(reversed(cone))


# ---- finishing: where relevance is needed, and beside what a shadow goes -----------


def _finish(
    program: Program,
    facts: Mapping[Value, Facts],
    steps: Sequence[Step],
    composite: Composite,
    relevant: tuple[bool, ...],
    shadow_outputs: tuple[bool, ...],
    memo: dict,
) -> Reading:
    """One pass backwards: drops dead steps, marks detached ones, places shadows."""
    alive: set[Value] = {v for v in program.outputs if isinstance(v, Value)}
    receives: set[Value] = set()
    shadowed: set[Value] = set()
    for v, r, s in zip(program.outputs, relevant, shadow_outputs, strict=True):
        if isinstance(v, Value) and facts[v].active:
            receives |= {v} if r else set()
            shadowed |= {v} if s else set()
    done: list[Step] = []
    for step in reversed(steps):
        if alive.isdisjoint(step.outputs) and not any(map(has_effects, step.equations)):
            continue
        if step.signals and receives.isdisjoint(step.outputs):
            step = dataclasses.replace(
                step, role="detached", slot=None, signals=(), equations=step.equations
            )
        elif step.role in ("control", "call"):
            step = _with_bodies(
                step, facts, composite, receives, shadowed, memo
            )
        rule = step.rule(composite)
        receivers = _receivers(step, rule)
        receives.update(receivers)
        shadowed.update(_shadows(step, rule, receivers, shadowed))
        inner = {v for e in step.equations[:-1] for v in e.outputs}
        alive.update(
            v
            for e in step.equations
            for v in e.inputs
            if isinstance(v, Value) and v not in inner
        )
        done.append(step)
    return Reading(program, facts, tuple(reversed(done)), frozenset(shadowed))


def _receivers(step: Step, rule: Rule | None) -> tuple[Value, ...]:
    """The values that relevance goes to."""
    if isinstance(rule, rules.Detach) and not step.held:
        return ()
    holds = isinstance(rule, (rules.Detach, rules.SignalTakesAll))
    if step.held and holds:
        inputs = step.main.inputs
        kept = [v for i, v in enumerate(inputs) if i not in step.held]
        return tuple(v for v in step.signals if v in kept)
    return step.signals


PASSING = frozenset({"structural", "selection", "scale", "shift", "activation"})
"""Roles that act on a shadow element by element, as on the value."""


def _shadows(
    step: Step,
    rule: Rule | None,
    receivers: Sequence[Value],
    shadowed: set[Value],
) -> set[Value]:
    """The operands that need a shadow because of this step."""
    if rule is not None and rule.needs_shadow:
        return set(receivers)
    if step.bodies:
        return _body_shadows(step)
    if step.role == "custom":
        entry = lookup(step.main.primitive)
        return set(step.signals) if entry is not None and entry.shadows else set()
    if shadowed.isdisjoint(step.outputs) or not passes_shadow(step, rule):
        return set()
    return set(receivers)


def passes_shadow(step: Step, rule: Rule | None) -> bool:
    """Does the step hand its output's shadow on to its signals' shadows?

    All others take relevance in: they make it a multiplier of their output.
    """
    if step.role in PASSING:
        return True
    return step.role == "normaliser" and bool(_held_under(step, rule))


def _held_under(step: Step, rule: Rule | None) -> tuple[int, ...]:
    holds = isinstance(rule, (rules.Detach, rules.SignalTakesAll))
    return step.held if holds else ()


def _with_bodies(
    step: Step,
    facts: Mapping[Value, Facts],
    composite: Composite,
    receives: set[Value],
    shadowed: set[Value],
    memo: dict,
) -> Step:
    """Reads the bodies of control flow, for the relevance that its results receive."""
    equation = step.main
    programs = _facts.body_programs(equation, memo)
    operands = [_facts.of(v, facts) for v in equation.inputs]
    inputs, _ = _facts.body_facts(equation, programs, operands, memo)
    relevant = [v in receives for v in equation.outputs]
    shadows = [v in shadowed for v in equation.outputs]

    def read_bodies() -> tuple[Reading, ...]:
        return tuple(
            _read_program(
                p, inputs, composite, tuple(relevant), tuple(shadows), memo
            )
            for p in programs
        )

    bodies = read_bodies()
    if "length" in equation.params:
        # A carry receives relevance, and a shadow, if the next step's carry does.
        consts, carries = _compat.scan_split(dict(equation.params))
        while True:
            ins = range(consts, consts + carries)
            needs = [inputs[i].active or relevant[k] for k, i in enumerate(ins)]
            wants = [
                bodies[0].shadowed_inputs[i] or shadows[k] for k, i in enumerate(ins)
            ]
            if needs == relevant[:carries] and wants == shadows[:carries]:
                break
            relevant[:carries], shadows[:carries] = needs, wants
            bodies = read_bodies()
    return dataclasses.replace(step, bodies=bodies)


def _body_shadows(step: Step) -> set[Value]:
    """The operands that some body wants a shadow of."""
    inputs = step.main.inputs
    if "branches" in step.main.params:
        inputs = inputs[1:]
    return {
        v
        for body in step.bodies
        for v, wanted in zip(inputs, body.shadowed_inputs, strict=True)
        if wanted and isinstance(v, Value)
    }
