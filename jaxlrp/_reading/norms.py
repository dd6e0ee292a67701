"""Recognising whole normalisations, where a composite has a rule for them as one unit.

By default a layer norm is read equation by equation: its mean, the difference, the
division by a statistic, its weights. Two conventions concern the unit: relevance passes
it unchanged (`Pass`), or all its statistics are constants (`Detach(mean=True)`). A
batch norm, a scale and shift by constants, is folded into the layer before it unless a
composite gives it its own rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.claims import Claims, held_operands
from jaxlrp._reading.facts import facts_of
from jaxlrp._reading.steps import Step, Unit
from jaxlrp.composites import Composite
from jaxlrp.primitives import Kind
from jaxlrp.rules import Detach, Merge, Pass, Rule


def claim_norms(claims: Claims, composite: Composite) -> dict[int, Step]:
    """Whole normalisations that have a rule as one unit, by their last equation."""
    if not any(_is_of_whole(a.rule) for a in composite.assignments):
        return {}
    steps: dict[int, Step] = {}
    for i, equation in enumerate(claims.program.equations):
        if i in claims.role:
            continue
        held = held_operands(equation, claims.entry(equation), claims.facts)
        if not held or not facts_of(equation.inputs[held[0]], claims.facts).reduced:
            continue
        if not _is_of_whole(composite.rule(claims.place(equation, "normaliser"))):
            continue
        path = _path(i, 1 - held[0], claims)
        if path is None:
            continue
        root, before = path
        last, behind = _affine(i, claims, moves=True)
        whole = claims.between(last, root)
        if whole is None:
            continue
        claims.absorb(whole, last)
        equations = tuple(claims.program.equations[j] for j in whole)
        signal = tuple(claims.program.equations[j] for j in (*before, i, *behind))
        steps[last] = Step("normaliser", equations, (root,), Unit(root, path=signal))
    return steps


def _is_of_whole(rule: Rule) -> bool:
    return isinstance(rule, Pass) or (isinstance(rule, Detach) and rule.mean)


def _path(
    index: int, position: int, claims: Claims
) -> tuple[Value, tuple[int, ...]] | None:
    """(the normalised value, the equations from it to the division), or None.

    Back from the division's signal, through changes of shape and type, scales and the
    subtraction of one statistic, as far as all statistics come from there.
    """
    value = claims.program.equations[index].inputs[position]
    assert isinstance(value, Value)
    before: tuple[int, ...] = ()
    found: tuple[Value, tuple[int, ...]] | None = None
    centred = False
    while True:
        if claims.between(index, value) is not None:
            found = value, before
        producer = claims.producer.get(value)
        if producer is None:
            return found
        equation = claims.program.equations[producer]
        actives = claims.active_inputs(equation)
        signals = [v for v in actives if not claims.facts[v].reduced]
        subtracts = claims.entry(equation).subtracts and len(actives) == 2
        centres = subtracts and len(signals) == 1 and not centred
        # Beyond a root only the mean's subtraction still belongs to the norm.
        if not centres and (found is not None or not _moves(producer, claims)):
            return found
        centred = centred or centres
        before = (producer, *before)
        (value,) = signals if centres else actives


def _moves(index: int, claims: Claims) -> bool:
    """Does it move, cast or scale the elements of one value, and not mix them?"""
    equation = claims.program.equations[index]
    kind = claims.entry(equation).kind
    alone = len(claims.active_inputs(equation)) == 1 and len(equation.outputs) == 1
    linear = kind is Kind.ELEMENTWISE and claims.is_linear(equation)
    return alone and (kind is Kind.STRUCTURAL or linear)


def _affine(
    index: int, claims: Claims, moves: bool = False
) -> tuple[int, tuple[int, ...]]:
    """The scales and the shift by constants after an equation: (last, those between).

    Whatever is added after the shift is an embedding and not part of a norm. With
    `moves` the shape may change in between, as where a group norm's groups are merged;
    what follows then varies over features, along one axis.
    """
    behind: list[int] = []
    pending: list[int] = []
    shifted, end = False, index
    while (after := _next_affine(end, claims, moves)) is not None:
        kind, end = affine_kind(after, claims), after
        moved = any(affine_kind(j, claims) is None for j in pending)
        if shifted and kind != "cast":
            break
        affine = kind in ("scale", "shift")
        if moved and affine and not _is_of_features(after, claims):
            break
        shifted = kind == "shift" or shifted
        pending.append(after)
        if affine or (kind == "cast" and not moved):
            behind, pending = behind + pending, []
    return (behind[-1] if behind else index), tuple(behind)


def _next_affine(index: int, claims: Claims, moves: bool = False) -> int | None:
    """The next equation, if it alone reads the result, and scales or shifts it."""
    (value,) = claims.program.equations[index].outputs
    uses = claims.uses.get(value, [])
    if len(uses) != 1 or uses[0] < 0 or uses[0] in claims.role:
        return None
    equation = claims.program.equations[uses[0]]
    changes_shape = len(equation.inputs) == 1 and claims.entry(equation).layout
    if affine_kind(uses[0], claims) or (moves and changes_shape):
        return uses[0]
    return None


def _is_of_features(index: int, claims: Claims) -> bool:
    """Does an affine equation's constant vary along one axis and no other?"""
    constants = [
        v for v in claims.program.equations[index].inputs if not claims.active(v)
    ]
    return [len(facts_of(v, claims.facts).varies) for v in constants] == [1]


def affine_kind(index: int, claims: Claims) -> str | None:
    """`scale` or `shift`, by a constant that is not a single number; or `cast`."""
    equation = claims.program.equations[index]
    entry = claims.entry(equation)
    active = [claims.active(v) for v in equation.inputs]
    if entry.kind is not Kind.ELEMENTWISE or sum(active) != 1 or len(active) > 2:
        return None
    (out,) = equation.outputs
    value = equation.inputs[active.index(True)]
    if not entry.linear(active) or out.aval.shape != aval_of(value).shape:
        return None
    if len(active) == 1:
        return "cast"
    constant = equation.inputs[active.index(False)]
    if not facts_of(constant, claims.facts).varies:
        return None
    return "shift" if entry.is_sum else "scale"


def begins_batch_norm(index: int, claims: Claims) -> bool:
    """Does a batch norm begin here: a scale, or a shift, a scale and a shift?

    A shift before a lone scale is the layer's own bias.
    """
    kinds = [affine_kind(index, claims)]
    if kinds[0] in (None, "cast"):
        return False
    while (after := _next_affine(index, claims)) is not None:
        kinds.append(affine_kind(after, claims))
        index = after
    if kinds[0] == "scale":
        return True
    known = [k for k in kinds if k != "cast"]
    return known[:2] == ["shift", "scale"] and "shift" in known[2:]


def claim_batch_norms(claims: Claims, composite: Composite) -> dict[int, Step]:
    """Batch norms that have their own rule, by their last equation."""
    if all(isinstance(a.rule, Merge) for a in composite.of_role("batch_norm")):
        return {}
    steps: dict[int, Step] = {}
    for i, equation in enumerate(claims.program.equations):
        if i in claims.role or not begins_batch_norm(i, claims):
            continue
        if stays_merged(equation, claims, composite):
            continue
        (x,) = claims.active_inputs(equation)
        last, behind = _affine(i, claims)
        members = (i, *behind)
        claims.absorb(members, last)
        equations: Sequence[Equation] = [claims.program.equations[j] for j in members]
        steps[last] = Step("batch_norm", tuple(equations), (x,), Unit(x))
    return steps


def stays_merged(equation: Equation, claims: Claims, composite: Composite) -> bool:
    """Is the batch norm that begins here folded into the layer before it?"""
    members = _members(equation, claims) if claims.named else ()
    place = claims.place(equation, "batch_norm", members=members)
    return isinstance(composite.rule(place), Merge)


def _members(equation: Equation, claims: Claims) -> list[Equation]:
    """All equations of the batch norm that begins here, any of which may name it."""
    index = claims.producer[equation.outputs[0]]
    if affine_kind(index, claims) is None:
        return [equation]
    _, behind = _affine(index, claims)
    return [claims.program.equations[j] for j in (index, *behind)]
